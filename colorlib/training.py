"""fit(): the training loop of 02_train, made safe."""

import json
import math
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from colorlib import checkpoints, color, evaluation, models, recipes, runtime
from colorlib.colorize import colorize
from colorlib.data import Photos, batches, draw_subset, loader, mean_ab
from colorlib.photos import open_photo

N_STRIP = 6  # validation photos that are coloured after every epoch, to see the training
BUDGET = ("n_epochs",)  # fields that may change between two calls: the same run, made longer or shorter


@dataclass(frozen=True)
class Run:
    """A folder that `fit` filled."""

    dir: Path

    @cached_property
    def facts(self):
        """The manifest of the best checkpoint: recipe, data, epoch, val_mse, floors, train_mean and more."""
        facts = checkpoints.manifest(self.dir, "best")
        if facts is None:
            raise FileNotFoundError(f"{self.dir}: holds no trained model; run 02_train first or choose another run.")
        return facts

    @property
    def recipe(self):
        return recipes.Recipe(**self.facts["recipe"])

    @property
    def history(self):
        """A row per epoch: `epoch` from 1, `train_mse`, `val_mse` (both on ab_unit), `seconds`."""
        return pd.read_csv(self.dir / "history.csv")

    @property
    def strips(self):
        """Pictures of the same validation photos after each epoch, `{epoch: path}`; 0 is before training."""
        return {int(p.stem.split("-")[1]): p for p in sorted((self.dir / "strips").glob("epoch-*.png"))}

    def model(self):
        """The best model, in evaluation mode, on this machine's device."""
        state, facts = checkpoints.load(self.dir, "best")
        model = models.build(facts["recipe"]["model"])
        model.load_state_dict(state["model"])
        return model.eval().to(runtime.device())

    def __str__(self):
        best = self.facts
        return (
            f"{self.dir.name}: {best['recipe']['name']}, best after epoch {best['epoch']} with a validation MSE of "
            f"{best['val_mse']:.5f}; encoder's starting weights: {best['encoder_weights']}"
        )


def fit(recipe, data, run_dir, mirror=None):
    """Train a recipe, or go on with it: call it again after an interruption and it resumes.

    The order of photos, the subset of each phase and every flip are functions of the recipe's seed, the
    epoch and the photo, so that on a CPU a run that was interrupted between epochs and resumed ends with
    the same weights as one that was not.

    Args:
        recipe: a `recipes.Recipe`.
        data: a `data.Prepared` set with training and validation photos.
        run_dir: local folder of this run; made if need be.
        mirror: a folder that outlives this machine, on Drive say; checkpoints are copied there, and
            restored from there when `run_dir` has none.

    Returns:
        The `Run`.

    Raises:
        ValueError: if the photos are too few, or `run_dir` holds a run of another recipe or data set.
        PermissionError: if `run_dir` cannot be written to.
        FloatingPointError: if the loss stops being a number.
    """
    run_dir = runtime.writable(run_dir)
    files, val_files = data.files("train"), data.files("val")
    _check_sizes(recipe, len(files), val_files, data)
    facts = {"recipe": asdict(recipe), "data": {"name": data.name, "fingerprint": data.fingerprint}}
    previous = _restore(run_dir, mirror, facts)

    device, workers = runtime.device(), runtime.preset().workers
    model = models.build(recipe.model)
    if previous:
        state, saved = previous
        model.load_state_dict(state["model"])
        history = state["history"]
        facts |= {key: saved[key] for key in ("train_mean", "floors", "encoder_weights")}
        print(f"Resuming {run_dir.name} after epoch {len(history)}.")
    else:
        model, facts["encoder_weights"] = _fresh_model(recipe, mirror)
        history = []
        facts["train_mean"] = mean_ab(files, workers=workers).tolist()
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.lr)
    if previous:
        optimizer.load_state_dict(state["optimizer"])

    train_set = Photos(files, recipe.size, recipe.resize, flip=recipe.flip, seed=recipe.seed)
    val_set = Photos(val_files, recipe.size, recipe.resize)
    strip = [open_photo(val_files[i]) for i in np.linspace(0, len(val_files) - 1, N_STRIP).round().astype(int)]
    if not previous:
        _save_strip(run_dir, 0, model, strip)

    steps = math.ceil(len(draw_subset(len(files), recipe.subset, recipe.seed, 0)) / recipe.batch_size)
    with runtime.bar(recipe.n_epochs * steps, recipe.name) as bar:
        bar.update(min(len(history) * steps, bar.total))
        while len(history) < recipe.n_epochs and not _should_stop(history, recipe.patience):
            epoch, start = len(history), time.perf_counter()
            chosen = draw_subset(len(files), recipe.subset, recipe.seed, epoch // recipe.phase_epochs)
            order = batches(chosen, recipe.batch_size, epoch=epoch, seed=recipe.seed)
            train_mse = _train_epoch(model, optimizer, loader(train_set, order, workers), device, bar)
            if not math.isfinite(train_mse):
                raise FloatingPointError(
                    f"the loss is {train_mse} in epoch {epoch + 1}; the last good checkpoint is the one of epoch "
                    f"{epoch} in {run_dir}. A smaller rate than {recipe.lr:g} usually helps."
                )
            rows = evaluation.evaluate(model, val_set, facts["train_mean"], recipe.batch_size, workers)
            facts["floors"] = {name: rows[name].mean() for name in evaluation.FLOORS}
            seconds = time.perf_counter() - start
            history.append({"epoch": epoch + 1, "train_mse": train_mse, "val_mse": rows.mse.mean(), "seconds": seconds})
            _save(run_dir, mirror, model, optimizer, history, facts)
            _save_strip(run_dir, epoch + 1, model, strip)
            bar.set_postfix_str(f"epoch {epoch + 1}, MSE train {train_mse:.5f} val {rows.mse.mean():.5f}")
    return Run(run_dir)


def _train_epoch(model, optimizer, batch_loader, device, bar):
    """One pass over the loader: the mean of `ab_unit` MSE over its photos."""
    model.train()
    total, n = torch.zeros((), device=device), 0
    for rgb in batch_loader:
        L, ab = color.rgb_to_lab(rgb.to(device, non_blocking=True))
        loss = evaluation.mse_per_photo(model(L), ab).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(rgb)
        n += len(rgb)
        bar.update()
    return (total / n).item()


def _check_sizes(recipe, n_train, val_files, data):
    n = len(draw_subset(n_train, recipe.subset, recipe.seed, 0)) if n_train else 0
    if n < recipe.batch_size:
        raise ValueError(
            f"the batch size {recipe.batch_size} is larger than the {n} training photos of an epoch in {data.name!r}: "
            f"use batch_size={max(n, 1)} or less, or more photos."
        )
    if not val_files:
        raise ValueError(f"{data.name!r} has no validation photos: prepare it with a share of them (val=0.1).")


def _fresh_model(recipe, mirror):
    """A model at its start, and a label for the table that says where its encoder comes from."""
    with torch.random.fork_rng(devices=[]):  # the caller's random stream is left as it was
        torch.manual_seed(recipe.seed)
        model = models.build(recipe.model)
    if recipe.encoder_weights == "none":
        return model, "none, by choice"
    given = None if recipe.encoder_weights == "imagenet" else recipe.encoder_weights
    state = models.imagenet_state(recipe.model, given, cache=Path(mirror).parent / "weights" if mirror else None)
    if state is None:
        return model, "none: ImageNet's could not be fetched"
    model.load_imagenet(state)
    return model, f"from {given}" if given else "ImageNet"


def _restore(run_dir, mirror, facts):
    """The newest whole checkpoint of this run, here or in the mirror: `(state, facts)`, or None.

    Raises:
        ValueError: if it belongs to another recipe or data set.
    """
    here, there = checkpoints.manifest(run_dir, "last"), mirror and checkpoints.manifest(mirror, "last")
    if there and (not here or there["epoch"] > here["epoch"]):
        for name in ("last", "best"):
            checkpoints.copy(mirror, run_dir, name)
    found = checkpoints.manifest(run_dir, "last")
    if not found:
        return None
    was, now = ({**f["recipe"], "data": f["data"]["fingerprint"]} for f in (found, facts))
    differs = [key for key in now if was.get(key) != now[key] and key not in BUDGET]
    if differs:
        told = ", ".join(f"{key} was {was.get(key)!r} and is {now[key]!r}" for key in differs)
        raise ValueError(f"{run_dir} holds another run ({told}): choose another folder, or delete that one.")
    return checkpoints.load(run_dir, "last")


def _should_stop(history, patience):
    if not history or not patience:
        return False
    losses = [h["val_mse"] for h in history]
    return len(losses) - 1 - losses.index(min(losses)) >= patience


def _save(run_dir, mirror, model, optimizer, history, facts):
    facts = {**facts, "epoch": len(history), "val_mse": history[-1]["val_mse"], "device": str(runtime.device())}
    weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    names = ["last"]
    if history[-1]["val_mse"] == min(h["val_mse"] for h in history):
        names.insert(0, "best")
        checkpoints.save(run_dir, "best", {"model": weights}, facts)
    state = {"model": weights, "optimizer": optimizer.state_dict(), "history": history}
    checkpoints.save(run_dir, "last", state, facts)
    pd.DataFrame(history).to_csv(run_dir / "history.csv", index=False)
    for name in names if mirror else ():
        checkpoints.copy(run_dir, mirror, name)


def _save_strip(run_dir, epoch, model, photos_):
    (run_dir / "strips").mkdir(exist_ok=True)
    side = min(min(p.shape[:2]) for p in photos_)
    row = [colorize(model, p)[:side, :side] for p in photos_]
    Image.fromarray(np.concatenate(row, axis=1)).save(run_dir / "strips" / f"epoch-{epoch:05d}.png")


def newest_run(root, mirror=None):
    """The most recently trained `Run` below a folder of runs, else below its mirror, else None."""
    for folder in (root, mirror):
        found = [p for p in Path(folder).glob("*/best.json")] if folder else []
        for path in sorted(found, key=lambda p: p.stat().st_mtime, reverse=True):
            if checkpoints.manifest(path.parent, "best"):
                return Run(path.parent)
    return None


def describe_recipe(recipe):
    """A recipe as a two-column DataFrame."""
    return pd.DataFrame(json.loads(json.dumps(asdict(recipe))).items(), columns=["setting", "value"])
