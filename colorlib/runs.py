"""A training run's folder: what is in it, and how to go on with it."""

import warnings
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from colorlib import checkpoints, models, recipes, runtime
from colorlib.colorize import colorize
from colorlib.loading import evenly
from colorlib.photos import open_photo

N_STRIP = 6  # validation photos that are coloured after every epoch, to see the training


@dataclass(frozen=True)
class Run:
    """A folder that `training.fit` filled; with `weights`, the name of a checkpoint's file in it, that one alone."""

    dir: Path
    weights: str = ""

    @property
    def name(self):
        return self.dir.name

    @cached_property
    def facts(self):
        """The manifest of the best checkpoint: recipe, data, epoch, step, val_mse, floors, train_mean and more."""
        return self._manifest("best")

    def _manifest(self, name):
        facts = checkpoints.of_file(self.dir / self.weights) if self.weights else checkpoints.newest(self.dir, name)[0]
        if facts is None:
            raise FileNotFoundError(
                f"{self.dir}: holds no trained model; train at least one epoch in 02_train, or choose another run."
            )
        return facts

    @property
    def recipe(self):
        return recipes.Recipe(**self.facts["recipe"])

    @property
    def history(self):
        """A row per epoch; also in `history.csv`.

        Columns: `epoch` from 1; `train_loss` and `val_loss`, the recipe's own; `val_mse`, on ab_unit; `lr`, at the
        epoch's end; `seconds`; and `waiting`, the share of the training time that was spent waiting for photos.
        """
        # From the manifest, not from history.csv: it comes back from the mirror with the weights.
        return pd.DataFrame(self._manifest("last")["history"])

    @property
    def strips(self):
        """Pictures of the same validation photos after each epoch, `{epoch: path}`; 0 is before training."""
        return {int(p.stem.split("-")[1]): p for p in sorted((self.dir / "strips").glob("epoch-*.png"))}

    @property
    def truth(self):
        """The true colours of the photos in `strips`: a path."""
        return self.dir / "strips" / "truth.png"

    def model(self):
        """The best model, in evaluation mode, on this machine's device."""
        facts = self._manifest("best")
        model = models.build(facts["recipe"]["model"])
        model.load_state_dict(checkpoints.state(self.dir, facts)["model"])
        return model.eval().to(runtime.device())

    def __str__(self):
        best = self.facts
        return (
            f"{self.dir.name}: {best['recipe']['name']}, best after epoch {best['epoch']} with a validation MSE of "
            f"{best['val_mse']:.5f}; encoder's starting weights: {best['encoder_weights']}"
        )


class Shipped(Run):
    """The weights that come with the package: what 03 and 04 need of a run, and no more. See `models.shipped`."""

    name = "shipped"

    def __init__(self):
        super().__init__(models.SHIPPED)

    @cached_property
    def _shipped(self):
        return models.shipped()

    @property
    def facts(self):
        return self._shipped[1]

    def model(self):
        return self._shipped[0].to(runtime.device())

    def __str__(self):
        return f"the weights that come with colorlib, with a validation MSE of {self.facts['val_mse']:.5f}"


def open_run(path):
    """The `Run` at a path: a run's folder, or the file of its weights (`best-….pt`), with its manifest beside it.

    "shipped" means the weights that come with the package.

    Raises:
        FileNotFoundError: if there is neither.
    """
    if str(path) == Shipped.name:
        return Shipped()
    path = Path(path).expanduser()
    if path.is_dir():
        return Run(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no run's folder and no weights file; check the path.")
    return Run(path.parent, path.name)


class Strip:
    """The same few validation photos, coloured after each epoch and put side by side."""

    def __init__(self, run_dir, files, side):
        self.folder, self.side = run_dir / "strips", side
        self.photos = [open_photo(file) for file in evenly(files, N_STRIP)]

    def save(self, name, model=None):
        """Write `NAME.png`, coloured by a model; without one, the truth."""
        self.folder.mkdir(exist_ok=True)
        row = [colorize(model, rgb, self.side) if model else rgb for rgb in self.photos]
        side = min(min(rgb.shape[:2]) for rgb in row)
        gap = np.full((side, 4, 3), 255, dtype=np.uint8)
        strip = np.concatenate([part for rgb in row for part in (rgb[:side, :side], gap)], axis=1)
        Image.fromarray(strip).save(self.folder / f"{name}.png")


def restore(run_dir, mirror, facts):
    """The newest whole checkpoint of this run, here or in the mirror: `(state, facts)`, or None."""
    newest, patience = checkpoints.newest, checkpoints.Mirror.patience
    here, faults = newest(run_dir, "last")
    _refuse_another(run_dir, here, facts)
    there = None
    if mirror:
        try:
            there, more = checkpoints.in_time(patience, newest, mirror, "last")
            faults += more
            _refuse_another(mirror, there, facts)
            if there and (not here or there["step"] > here["step"] or _lacks_best(run_dir, here)):
                for name in ("best", "last"):
                    checkpoints.in_time(patience, checkpoints.copy, mirror, run_dir, name)
                checkpoints.in_time(patience, checkpoints.copy_strips, mirror, run_dir)
        except OSError as error:
            if not here:  # to start anew would waste what may be there
                raise OSError(
                    f"{mirror}: cannot be read ({error}), so that nobody knows whether it holds this run. Mount it "
                    "again and start again; or give the run another name, to begin from scratch."
                ) from error
            warnings.warn(f"{mirror}: cannot be read ({error}); going on from {run_dir}.", stacklevel=2)
    faults += newest(run_dir, "best")[1]
    for fault in faults:
        print(f"Passed over {fault}.")
    last = newest(run_dir, "last")[0]
    if not last:
        return None
    place = mirror if there and there == last and there != here else run_dir
    print(f"{run_dir.name}: going on after step {last['step']}, from {place}.")
    return checkpoints.load(run_dir, "last")


def _lacks_best(run_dir, last):
    """Whether the best checkpoint of a run is not there, or only an older one, that it fell back on."""
    best = checkpoints.newest(run_dir, "best")[0]
    losses = [row["val_loss"] for row in last["history"]]
    return bool(losses) and (best is None or best["val_loss"] > min(losses))


def _refuse_another(folder, found, facts):
    """Raise a ValueError if a folder holds a run of another recipe or data set."""
    if not found:
        return
    # As records, so that a setting which is newer than the run counts as what it was then: its default.
    was, now = (asdict(recipes.Recipe(**f["recipe"])) | {"data": f["data"]["fingerprint"]} for f in (found, facts))
    # A run may be made longer or shorter, unless its schedule is stretched over all epochs.
    stretched = now["schedule"] == "one-cycle" or (now["schedule"] == "cyclic" and not now["cycle_epochs"])
    free = () if stretched else ("n_epochs",)
    differs = [key for key in now if was[key] != now[key] and key not in free]
    if differs:
        told = [f"{key} was {was[key]!r} and is {now[key]!r}" for key in differs if key != "data"]
        told += ["other photos"] * ("data" in differs)
        told = ", ".join(told)
        raise ValueError(f"{folder} holds another run ({told}): give this one another name, or delete that one.")


def all_runs(root, mirror=None, pattern="*"):
    """Every trained `Run` in a folder of runs and then in its mirror, the most recently trained first: an iterator.

    Args:
        pattern: of the runs' folders below it: "*/*" for those of comparisons.
    """
    for folder in filter(None, (root, mirror)):
        found = {p.parent: p.stat().st_mtime for p in sorted(Path(folder).glob(f"{pattern}/best-*.json"))}
        for run_dir in sorted(found, key=found.get, reverse=True):
            if checkpoints.newest(run_dir, "best")[0]:
                yield Run(run_dir)


def newest_run(root, mirror=None):
    """The most recently trained `Run` below a folder of runs, else below its mirror, else None."""
    return next(all_runs(root, mirror), None)
