"""What this machine is: device, Colab or not, preset, folders, and where output goes."""

import hashlib
import io
import os
import re
import signal
import socket
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch
from tqdm import tqdm

_HOME = Path(__file__).resolve().parents[1]
if not (_HOME / "pyproject.toml").is_file() or "/drive/MyDrive/" in _HOME.as_posix():
    # Installed as a package there is no project folder; and a copy in Drive is read, not written to at every step.
    _HOME = Path.cwd()


def platform():
    """Where we run: "kaggle", "colab" (a notebook there), "colab-subprocess" or "local"."""
    if os.environ.get("KAGGLE_KERNEL_RUN_TYPE"):  # asked first: Kaggle's image sets Colab's variables too
        return "kaggle"
    if "google.colab" in sys.modules:
        return "colab"
    return "colab-subprocess" if os.environ.get("COLAB_RELEASE_TAG") else "local"


def in_notebook():
    """Whether what is displayed reaches a notebook's page."""
    if "ipykernel" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


def device():
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def gpus():
    """The GPU that this process uses, as `torch.random.fork_rng` wants it: a list with its number, or an empty one."""
    return [torch.cuda.current_device()] if torch.cuda.is_available() else []


def deterministic():
    """From now on the same steps give the same bits on a GPU too, somewhat slower. To be called first of all."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def precision(device):
    """The number type in which a network computes fastest on a device: one that its hardware really has.

    bfloat16 on GPUs from compute capability 8.0 on and on CPUs with instructions for it, float16 on older GPUs
    such as the T4, float32 elsewhere.
    """
    if device.type == "cuda":
        # Not torch.cuda.is_bf16_supported(): it says yes on a T4, where bfloat16 is emulated, and slow.
        return torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float16
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:  # no Linux
        flags = set()
    return torch.bfloat16 if flags & {"avx512_bf16", "amx_bf16"} else torch.float32


@dataclass(frozen=True)
class Preset:
    """How large everything is, chosen once; nothing asks about it again."""

    name: str
    dataset: str  # what 01_data offers first: a name that datasets.fetch knows
    recipe_changes: dict = field(default_factory=dict)  # to every recipe
    workers: int = 0  # processes that read photos
    hours: float | None = None  # stop training cleanly after so long
    compare: tuple = ("beta", "zhang", "unet18")  # recipes that 02_train compares
    compare_seconds: float = 10  # training time of each
    released: bool = False  # whether 03_evaluate fetches Zhang's released network, of 129 MB, to compare with


PRESETS = {
    # The published settings, and a worker for each core (Colab has two). Colab's free machines go away after 12 hours.
    "t4": Preset(
        "t4",
        "places365",
        workers=min(16, os.cpu_count() // int(os.getenv("LOCAL_WORLD_SIZE", 1))),
        hours=11,
        compare=("resnet34", "resnet34_deep", "beta", "fusion", "zhang", "unet34"),
        compare_seconds=600,
        released=True,
    ),
    # Small crops, small batches, every photo in every epoch, about a minute on two cores. Without worker
    # processes: a plain script cannot start them where Python spawns instead of forking.
    "sample": Preset(
        "sample", "sample", {"size": 64, "batch_size": 16, "n_epochs": 30, "subset": 1.0, "patience": None}
    ),
}


def preset():
    """The preset in force: `COLORLIB_PRESET`, else "t4" on Colab or Kaggle with a GPU, else "sample"."""
    name = os.environ.get("COLORLIB_PRESET")
    if not name:
        name = "t4" if platform() != "local" and torch.cuda.is_available() else "sample"
    if name not in PRESETS:
        raise ValueError(f"COLORLIB_PRESET is {name!r}: set it to {' or '.join(PRESETS)}, or remove it.")
    return PRESETS[name]


def runs_dir():
    """Where runs, figures and tables go: `COLORLIB_RUNS`, else `runs` in the project's folder."""
    return _folder("COLORLIB_RUNS", "runs")


def data_dir():
    """Where photos go: `COLORLIB_DATA`, else `data` in the project's folder."""
    return _folder("COLORLIB_DATA", "data")


def _folder(variable, default):
    return Path(os.environ.get(variable) or _HOME / default).expanduser().resolve()


def writable(folder, variable="COLORLIB_RUNS"):
    """Make a folder and see that files can be written there; returns it.

    Raises:
        PermissionError: if not; says which variable points elsewhere.
    """
    folder = Path(folder)
    probe = folder / f".writable-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise PermissionError(
            f"{folder}: cannot be written to ({error.strerror}); choose another folder or set {variable} to one."
        ) from error
    return folder


def slug(name):
    """A name as part of a file's or a folder's name, which may have 255 bytes."""
    return re.sub(r"\W+", "-", name).strip("-").lower().encode()[:200].decode(errors="ignore")


def sha256(path):
    """The SHA-256 of a file, as hexadecimal digits; read piece by piece."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def network_timeout(seconds=30):
    """Within it a server that stops answering is an error: the downloaders used here would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def stop_requests():
    """Within it Ctrl-C, the stop button and SIGTERM are noted in the list it gives; a second Ctrl-C stops at once."""
    asked = []

    def note(number, frame):
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)
        os.write(
            2, b"\nStopping after this step, with a checkpoint; ask once more to stop at once.\n"
        )  # print may be busy

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield asked
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def bar(total, label, **settings):
    """A tqdm progress bar, redrawn at most once a second: one line in a notebook, and in the page made from it."""
    settings |= {"total": total, "desc": label, "mininterval": 1}
    if in_notebook():
        return _NotebookBar(file=io.StringIO(), ncols=120, ascii=False, **settings)
    return tqdm(file=sys.stdout, dynamic_ncols=True, **settings)


class _NotebookBar(tqdm):
    # tqdm's own notebook bar needs ipywidgets, and the plain one leaves a line for every redraw.
    handle = None

    def display(self, msg=None, pos=None):
        from IPython.display import DisplayHandle

        shown = {"text/plain": str(self) if msg is None else msg}
        if self.handle is None:
            self.handle = DisplayHandle()
            self.handle.display(shown, raw=True)
        else:
            self.handle.update(shown, raw=True)


def describe():
    """Versions, device and preset in a few lines; without a GPU, what to do about it."""
    lines = [f"Python {sys.version.split()[0]}"]
    lines += [f"{name} {version(name)}" for name in ("torch", "torchvision", "scikit-image", "numpy")]
    text = " · ".join(lines) + "\n"
    if torch.cuda.is_available():
        text += f"Device: {torch.cuda.get_device_name()}"
    else:
        text += f"Device: CPU with {os.cpu_count()} cores."
        if platform() in ("colab", "kaggle"):
            text += " For a free GPU choose Runtime > Change runtime type > T4 GPU (Kaggle: Settings > Accelerator)."
        else:
            text += " That is enough for the sample; for the published settings open this notebook in Colab."
    return text + f"\nPreset: {preset().name} (data set: {preset().dataset}). Results go to {runs_dir()}"
