"""Put trained runs together as the weights that come with the package, and judge them on the validation photos.

    python tools/ship_weights.py PREPARED RUN... [--chroma X]

Writes colorlib/weights/: the weights (safetensors), their facts with their SHA-256 (JSON), the runs'
histories (CSV) and curves (PNG). The model card beside them, README.md, is written by hand.
"""

import argparse
import json
from pathlib import Path

from safetensors.torch import save_file

from colorlib import data, evaluation, loading, models, plots, runs, runtime

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("prepared", type=Path, help="the folder of the prepared set that they were trained on")
parser.add_argument("runs", nargs="+", type=Path)
parser.add_argument("--chroma", type=float, default=1.0, help="what predictions are multiplied by, in the last layer")
given = parser.parse_args()

members = [runs.open_run(path) for path in given.runs]
first, folder = members[0], models.SHIPPED
file = folder / f"{first.recipe.model}x{len(members)}.safetensors"
state = {}
for k, run in enumerate(members):
    for key, values in run.model().cpu().state_dict().items():
        values = given.chroma * values if key.startswith("to_ab.") else values
        # Not the batch norms' statistics: 16 bits have no numbers as small as some of theirs.
        state[f"members.{k}.{key}"] = (values.half() if values.ndim > 1 else values).contiguous()
folder.mkdir(exist_ok=True)
save_file(state, file)
file.chmod(0o644)
facts = {
    "file": file.name,
    "sha256": runtime.sha256(file),
    "recipe": first.facts["recipe"] | {"name": "shipped", "encoder_weights": "imagenet"},
    "members": [{key: run.facts[key] for key in ("epoch", "val_mse", "recipe")} for run in members],
    "chroma": given.chroma,
    **{key: first.facts[key] for key in ("encoder_weights", "train_mean", "floors")},
    "data": {"fingerprint": first.facts["data"]["fingerprint"]},
}
for run in [facts, *facts["members"]]:
    run["recipe"]["encoder_weights"] = Path(run["recipe"]["encoder_weights"]).name  # a path would be this machine's
(folder / "facts.json").write_text(json.dumps(facts))
model, _ = models.shipped()
val = loading.Photos(data.Prepared(given.prepared).files("val"), first.recipe.size, first.recipe.resize)
rows = evaluation.evaluate(model, val, facts["train_mean"])
facts |= {"val_mse": rows.mse.mean(), "val_chroma": rows.chroma.mean() / rows.true_chroma.mean()}
(folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
share = facts["val_mse"] / rows.mse_train_mean.mean()
print(f"On {len(rows)} validation photos: {share:.3f} of the mean colour's MSE; chroma {facts['val_chroma']:.2f}")
for k, run in enumerate(members, start=1):
    run.history.round(6).to_csv(folder / f"history-{k}.csv", index=False)
figure = plots.comparison({f"network {k}": run for k, run in enumerate(members, start=1)})
figure.savefig(folder / "curves.png", dpi=90)
