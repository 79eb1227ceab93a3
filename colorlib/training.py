"""fit(): the training loop of 02_train, made safe."""

import math
import pickle
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
from colorlib.data import Photos, batches, draw_subset, loader, mean_ab, ready, ready_again
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
        # From the checkpoint, not from history.csv: it comes back from the mirror with the weights.
        return pd.DataFrame(checkpoints.load(self.dir, "last")[0]["history"])

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
    n_epoch = len(draw_subset(len(files), recipe.subset, recipe.seed, 0)) if files else 0
    _check_sizes(recipe, n_epoch, val_files, data)
    facts = {"recipe": asdict(recipe), "data": {"fingerprint": data.fingerprint, "settings": data.settings}}
    previous = _restore(run_dir, mirror, facts)

    device, workers = runtime.device(), runtime.preset().workers
    with torch.random.fork_rng(devices=[]):  # the caller's random stream is left as it was
        torch.default_generator.manual_seed(recipe.seed)  # and not, as torch.manual_seed does, the GPU's
        model = models.build(recipe.model)
    if previous:
        state, saved = previous
        model.load_state_dict(state["model"])
        history = state["history"]
        facts |= {key: saved[key] for key in ("train_mean", "floors", "encoder_weights")}
        how = "finished" if _finished(recipe, history) else "resuming"
        print(f"{run_dir.name}: {how} after epoch {len(history)}.")
    else:
        facts["encoder_weights"] = _load_encoder(model, recipe, mirror)
        history = []
        facts["train_mean"] = mean_ab(files, workers=workers).tolist()
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.lr)
    if previous:
        optimizer.load_state_dict(state["optimizer"])

    train_set = Photos(files, recipe.size, recipe.resize, flip=recipe.flip, seed=recipe.seed)
    val_set = Photos(val_files, recipe.size, recipe.resize)
    strip = [open_photo(val_files[i]) for i in np.linspace(0, len(val_files) - 1, N_STRIP).round().astype(int)]
    _save_strip(run_dir, "truth", strip)
    if not previous:
        _save_strip(run_dir, "epoch-00000", [colorize(model, rgb) for rgb in strip])

    steps = math.ceil(n_epoch / recipe.batch_size)
    with runtime.bar(recipe.n_epochs * steps, recipe.name) as bar:
        bar.update(min(len(history) * steps, bar.total))
        while not _finished(recipe, history):
            epoch, start = len(history), time.perf_counter()
            chosen = draw_subset(len(files), recipe.subset, recipe.seed, epoch // recipe.phase_epochs)
            order = batches(chosen, recipe.batch_size, epoch=epoch, seed=recipe.seed)
            train_mse = _train_epoch(model, optimizer, loader(train_set, order, workers), device, bar)
            rows = evaluation.evaluate(model, val_set, facts["train_mean"], recipe.batch_size, workers)
            val_mse = float(rows.mse.mean())  # a NumPy number would not load with weights_only
            if not math.isfinite(train_mse + val_mse):  # the last step can break what no later one tells
                raise FloatingPointError(
                    f"the loss is not a number in epoch {epoch + 1}; what {run_dir} holds is from the epochs before. "
                    f"A smaller rate than {recipe.lr:g} usually helps."
                )
            facts["floors"] = {name: float(rows[name].mean()) for name in evaluation.FLOORS}
            seconds = time.perf_counter() - start
            history.append({"epoch": epoch + 1, "train_mse": train_mse, "val_mse": val_mse, "seconds": seconds})
            _save(run_dir, mirror, model, optimizer, history, facts)
            _save_strip(run_dir, f"epoch-{epoch + 1:05d}", [colorize(model, rgb) for rgb in strip])
            bar.set_postfix_str(f"epoch {epoch + 1}, MSE train {train_mse:.5f} val {val_mse:.5f}")
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


def _check_sizes(recipe, n, val_files, data):
    if n < recipe.batch_size:
        raise ValueError(
            f"the batch size {recipe.batch_size} is larger than the {n} training photos of an epoch in {data.name!r}: "
            f"use batch_size={max(n, 1)} or less, or more photos."
        )
    if not val_files:
        raise ValueError(f"{data.name!r} has no validation photos: prepare it with a share of them (val=0.1).")


def _load_encoder(model, recipe, mirror):
    """Give a fresh model its starting weights; a label for the table says where they come from."""
    if recipe.encoder_weights == "none":
        return "none, by choice"
    given = None if recipe.encoder_weights == "imagenet" else recipe.encoder_weights
    cache = Path(mirror).parent / "weights" if mirror else None
    try:
        state = models.imagenet_state(recipe.model, given, cache=cache)
        if state is None:
            return "none, ImageNet's could not be fetched"
        model.load_imagenet(state)
    except (RuntimeError, KeyError, AttributeError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{given or 'the ImageNet file'}: does not hold the weights of torchvision's {recipe.model}; "
            "give another file, or encoder_weights='none'."
        ) from error
    return f"from {Path(given).name}" if given else "ImageNet"


def _restore(run_dir, mirror, facts):
    """The newest whole checkpoint of this run, here or in the mirror: `(state, facts)`, or None.

    Raises:
        ValueError: if either folder holds a run of another recipe or data set; neither is touched.
        OSError: if the mirror's is newer and cannot be copied: a fresh start would overwrite it.
    """
    here, there = checkpoints.manifest(run_dir, "last"), mirror and checkpoints.manifest(mirror, "last")
    for folder, found in ((run_dir, here), (mirror, there)):
        was, now = ({**f["recipe"], "data": f["data"]["fingerprint"]} for f in (found or facts, facts))
        differs = [key for key in now if was.get(key) != now[key] and key not in BUDGET]
        if differs:
            told = [f"{key} was {was.get(key)!r} and is {now[key]!r}" for key in differs if key != "data"]
            told += ["other photos"] * ("data" in differs)
            raise ValueError(
                f"{folder} holds another run ({', '.join(told)}): give this one another name, or delete that one."
            )
    if there and (not here or there["epoch"] > here["epoch"] or not checkpoints.manifest(run_dir, "best")):
        checkpoints.copy(mirror, run_dir, "best")
        if not checkpoints.copy(mirror, run_dir, "last"):
            raise OSError(f"{mirror}: its newer checkpoint could not be copied to {run_dir}; try again.")
    elif here:
        _to_mirror(run_dir, mirror)  # what did not arrive when the mirror was away
    return checkpoints.load(run_dir, "last") if here or there else None


def _finished(recipe, history):
    """Whether all epochs are done, or the last `patience` of them brought no better validation loss."""
    if len(history) >= recipe.n_epochs:
        return True
    if not history or not recipe.patience:
        return False
    losses = [h["val_mse"] for h in history]
    return len(losses) - 1 - losses.index(min(losses)) >= recipe.patience


def _save(run_dir, mirror, model, optimizer, history, facts):
    facts = {**facts, "epoch": len(history), "val_mse": history[-1]["val_mse"], "device": str(runtime.device())}
    weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    if history[-1]["val_mse"] < min((h["val_mse"] for h in history[:-1]), default=math.inf):
        checkpoints.save(run_dir, "best", {"model": weights}, facts)
    state = {"model": weights, "optimizer": optimizer.state_dict(), "history": history}
    checkpoints.save(run_dir, "last", state, facts)
    pd.DataFrame(history).to_csv(run_dir / "history.csv", index=False)
    _to_mirror(run_dir, mirror)


def _to_mirror(run_dir, mirror):
    for name in ("best", "last") if mirror else ():  # best too, each time: it may not have arrived before
        checkpoints.copy(run_dir, mirror, name)


def _save_strip(run_dir, name, row):
    (run_dir / "strips").mkdir(exist_ok=True)
    side = min(min(rgb.shape[:2]) for rgb in row)
    gap = np.full((side, 4, 3), 255, dtype=np.uint8)
    strip = np.concatenate([part for rgb in row for part in (rgb[:side, :side], gap)], axis=1)
    Image.fromarray(strip).save(run_dir / "strips" / f"{name}.png")


def newest_run(root, mirror=None):
    """The most recently trained `Run` below a folder of runs, else below its mirror, else None."""
    for folder in (root, mirror):
        found = [p for p in Path(folder).glob("*/best.json")] if folder else []
        for path in sorted(found, key=lambda p: p.stat().st_mtime, reverse=True):
            if checkpoints.manifest(path.parent, "best"):
                return Run(path.parent)
    return None


def newest_or_sample(mirror=None):
    """A trained run and its photos for the notebooks that need one: the newest, else a minute's training.

    Returns:
        `(run, photos)`: the `Run` and the `data.Prepared` set that it was trained on.
    """
    root = runtime.runs_dir()
    run = newest_run(root, mirror)
    if run:
        print(f"Using the newest run, {run}.")
        try:
            photos = ready_again(run.facts["data"]["settings"])
        except (ValueError, OSError) as error:
            print(f"Its photos are not on this machine ({error}) The sample's photos are shown instead.")
            photos = ready("sample")
        else:
            if photos.fingerprint != run.facts["data"]["fingerprint"]:
                print("Its folder of photos has changed since: some that are shown may have been trained on.")
    else:
        print("There is no trained run yet: training on the sample for about a minute.")
        photos = ready("sample")
        recipe = recipes.get("resnet34", **runtime.PRESETS["sample"].recipe_changes)
        run = fit(recipe, photos, root / "resnet34-sample", mirror and Path(mirror) / "resnet34-sample")
    return run, photos
