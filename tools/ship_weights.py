"""Put trained runs together as the weights that come with the package: `tools/ship_weights.py RUN... --chroma X`.

Writes colorlib/weights/: the weights (safetensors, 16 bits), their facts and SHA-256 (JSON), the runs' histories (CSV)
and curves (PNG). The model card, README.md there, is written by hand.
"""

import argparse
import json
from pathlib import Path

from safetensors.torch import save_file

from colorlib import models, plots, runs, runtime

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("runs", nargs="+", type=Path)
parser.add_argument("--chroma", type=float, default=1.0, help="what predictions are multiplied by; in the last layer")
parser.add_argument("--out", type=Path, default=models.SHIPPED)
given = parser.parse_args()

members = [runs.open_run(path) for path in given.runs]
file = given.out / f"{members[0].recipe.model}x{len(members)}.safetensors"
state = {}
for k, run in enumerate(members):
    for key, values in run.model().cpu().state_dict().items():
        if key.startswith("to_ab."):
            values = given.chroma * values
        state[f"members.{k}.{key}"] = (values.half() if values.is_floating_point() else values).contiguous()
given.out.mkdir(exist_ok=True)
save_file(state, file)
facts = {
    "file": file.name,
    "sha256": runtime.sha256(file),
    "recipe": members[0].facts["recipe"] | {"name": "shipped", "encoder_weights": "imagenet"},
    "members": [{key: run.facts[key] for key in ("epoch", "val_mse", "recipe")} for run in members],
    "chroma": given.chroma,
    **{key: members[0].facts[key] for key in ("encoder_weights", "train_mean", "floors")},
    "data": {"fingerprint": members[0].facts["data"]["fingerprint"]},
}
(given.out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
for k, run in enumerate(members, start=1):
    run.history.round(6).to_csv(given.out / f"history-{k}.csv", index=False)
plots.comparison({f"network {k}": run for k, run in enumerate(members, start=1)}).savefig(
    given.out / "curves.png", dpi=90
)
