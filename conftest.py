"""What every way of starting the tests needs, kernels and scripts included: they inherit the environment."""

import os
import tempfile
from pathlib import Path

_FRESH = tempfile.TemporaryDirectory(prefix="colorlib-tests-")  # an old run must never make a test pass

os.environ["COLORLIB_PRESET"] = "sample"
os.environ["COLORLIB_RUNS"] = str(Path(_FRESH.name, "runs"))
os.environ["COLORLIB_DATA"] = str(Path(_FRESH.name, "data"))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))

# A thread that waits for another spins, by default so long that one busy neighbour on a small machine makes
# torch six times slower. With shorter spinning it is two times slower, and a tenth slower when alone.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
