"""Many recipes, each with the same time, on the same photos: one table, one figure, one grid.

As a program: `python -m colorlib.comparison DATA OUT --minutes 20`.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from colorlib import checkpoints, data, evaluation, loading, models, plots, recipes, runtime, training
from colorlib.colorize import colorize
from colorlib.photos import open_photo
from colorlib.trainer import trial

NAMES = tuple(name for name, recipe in recipes.RECIPES.items() if not recipe.one_photo)
_STRETCHED = ("batch_size", "n_epochs", "subset", "phase_epochs", "patience", "cycle_epochs")  # see `stretched`
_MOMENTS = {"Adam": 2, "AdamW": 2, "RMSprop": 1, "SGD": 0}  # numbers that an optimizer keeps for each parameter


@torch.no_grad()
def overview(names=tuple(recipes.RECIPES), side=224, n_photos=2):
    """What each recipe's network needs.

    Args:
        names: of recipes.
        side, n_photos: how fast it colours is measured on a batch of so many photos of side x side, on this machine.

    Returns:
        DataFrame by recipe: `source`, `parameters` (in millions), `multiply-adds` (for a photo of 224 x 224, in
        billions), `photos/s` coloured, `checkpoint` (in MB, to go on from), `starts from`.
    """
    rows = []
    with runtime.bar(len(names), "measuring the networks") as bar:
        for name in names:
            recipe = recipes.RECIPES[name]
            parameters, multiply_adds = models.cost(recipe.model)
            model = models.build(recipe.model).to(runtime.device()).eval()
            L = torch.full((n_photos, 1, side, side), 50.0, device=runtime.device())
            model(L).sum().item()  # the first time is slower
            begin = time.perf_counter()
            model(L).sum().item()
            speed = n_photos / (time.perf_counter() - begin)
            start = "ImageNet" if recipe.encoder_weights == "imagenet" else recipe.encoder_weights
            megabytes = checkpoint_bytes(recipe, model) / 1e6
            rows.append((name, recipe.source, parameters / 1e6, multiply_adds / 1e9, speed, megabytes, start))
            bar.update()
    columns = ["recipe", "source", "parameters", "multiply-adds", "photos/s", "checkpoint", "starts from"]
    return pd.DataFrame(rows, columns=columns).set_index("recipe").round(2)


def checkpoint_bytes(recipe, model):
    """About how large a checkpoint to go on from is: weights, the optimizer's moments, and averaged weights."""
    everything = sum(value.numel() for value in model.state_dict().values())
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return 4 * (everything * (2 if recipe.ema else 1) + learning * _MOMENTS.get(recipe.optimizer, 2))


def seconds_per_step(recipe, prepared, n=50, most=60):
    """The mean time of a training step, photos included: of `n` steps after three that do not count.

    Ends before that, after two of them at the earliest, when they have taken `most` seconds.
    """
    packed = loading.pack(prepared.files("train"), recipe.size, recipe.resize, prepared.folder / "packs")
    with trial(recipe, prepared, n + 3, packed) as (trainer, batches):
        for k, rgb in enumerate(batches, start=-3):
            if k == 0:
                begin = time.perf_counter()
            trainer.step(rgb, len(rgb))
            trainer.loss_sum.item()  # wait for the GPU
            if k > 0 and time.perf_counter() - begin > most:
                break
    return (time.perf_counter() - begin) / (k + 1)


def stretched(recipe, n_photos, n_steps, n_points=10):
    """A recipe made to last so many steps: its schedule covers them, and at least `n_points` validations divide them.

    Where these are less than an epoch each, every one comes after other photos, drawn at random.
    """
    batch = min(recipe.batch_size, n_photos)
    per_epoch = -(-n_photos // batch)
    n_epochs = max(min(n_points, n_steps), round(n_steps / per_epoch))
    subset = min(1.0, max(1, n_steps // n_epochs) * batch / n_photos)
    length = {"n_epochs": n_epochs, "subset": subset, "phase_epochs": 1, "cycle_epochs": None}
    return replace(recipe, batch_size=batch, patience=None, **length)


def compare(names, prepared, root, seconds, weights=(), mirror=None, **changes):
    """Train recipes for the same time each, or go on with that.

    The time of a step is measured first, and turned into a number of steps; validations come on top. A recipe that
    fails is reported, and the others go on.

    Args:
        names: of recipes.
        prepared: a `data.Prepared` set.
        root: the folder that gets a run's folder for each.
        seconds: how long to train each.
        weights: `{name of a recipe: path}`, starting weights other than those it names; or "none".
        mirror: a folder that outlives this machine; each run has its own there too.
        changes: to every recipe. With `size` and `resize` all are measured on the same pixels.

    Returns:
        `{name: Run}`.

    Raises:
        ValueError: if no recipe could be trained, if one of them is for one photo, or `root` has other settings.
    """
    found, weights = {}, dict(weights)
    for name in names:
        run_dir, copy = Path(root) / name, mirror and Path(mirror) / name
        start = {"encoder_weights": str(weights[name])} if name in weights else {}
        recipe = recipes.get(name, **changes, **start)
        if recipe.one_photo:
            raise ValueError(f"{name} learns a single photo: leave it out of a comparison.")
        before = checkpoints.newest(run_dir, "last")[0] or (copy and checkpoints.newest(copy, "last")[0])
        if before:
            begun = recipes.Recipe(**before["recipe"])
            if replace(recipe, **{field: getattr(begun, field) for field in _STRETCHED}) != begun:
                raise ValueError(f"{run_dir} was begun with other settings: choose another folder, or delete it.")
        try:
            if before:
                recipe = begun
            else:
                n_steps = max(1, round(seconds / seconds_per_step(recipe, prepared, most=seconds / 5)))
                n_points = 10 if seconds > 60 else 4  # a checkpoint comes with each
                recipe = stretched(recipe, len(prepared.files("train")), n_steps, n_points)
            found[name] = training.fit(recipe, prepared, run_dir, copy)
        except (MemoryError, FloatingPointError, ValueError, OSError) as error:
            print(f"{name} is left out: {error}")
    if not found:
        raise ValueError("none of the recipes could be trained; why stands above.")
    return found


def table(runs, photo_set=None):
    """What the runs of a comparison reached.

    Args:
        runs: `{name: Run}`.
        photo_set: a `loading.Photos` to measure the best weights on; by default only what was found while validating.

    Returns:
        DataFrame by recipe, the lowest error first: `starting weights`, `epochs` (passes over the photos), `minutes`,
        `MSE` of validation at the best epoch, and `of the mean-colour floor`; with a `photo_set` also its `chroma`, the
        predictions' mean over the truth's: 1 is as colourful.
    """
    rows = []
    for name, run in runs.items():
        best, history = run.facts, run.history
        row = {
            "recipe": name,
            "starting weights": best["encoder_weights"],
            "epochs": len(history) * run.recipe.subset,
            "minutes": history.seconds.sum() / 60,
            "MSE": best["val_mse"],
            "of the mean-colour floor": best["val_mse"] / best["floors"]["train_mean"],
        }
        if photo_set:
            measured = evaluation.evaluate(run.model(), photo_set, best["train_mean"])
            row["chroma"] = measured.chroma.sum() / measured.true_chroma.sum()
        rows.append(row)
    frame = pd.DataFrame(rows).set_index("recipe").sort_values("MSE")
    return frame.round({"epochs": 1, "minutes": 1, "MSE": 5, "of the mean-colour floor": 3, "chroma": 2})


def pictures(runs, files):
    """The same photos coloured by each run, rows for `plots.grid`: grey, the truth, then one for each run."""
    photos = [open_photo(file) for file in files]
    side = min(min(rgb.shape[:2]) for rgb in photos)
    rows = [[plots.grey(rgb) for rgb in photos], photos]
    for run in runs.values():
        model = run.model()
        rows.append([colorize(model, rgb, run.recipe.size) for rgb in photos])
    return [[rgb[:side, :side] for rgb in row] for row in rows]


def main(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m colorlib.comparison", description=__doc__.split("\n")[0])
    parser.add_argument("data", help="a data set by name, a folder of photos, or a prepared set's folder")
    parser.add_argument(
        "out", type=Path, help="where the runs, table, figure and grid go; what is there is gone on with"
    )
    parser.add_argument("--minutes", type=float, default=20, help="training time of each recipe")
    parser.add_argument("--recipes", nargs="*", default=NAMES, choices=recipes.RECIPES, metavar="NAME")
    parser.add_argument("--weights", nargs="*", default=[], metavar="NAME=FILE", help="starting weights of a recipe")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="settings of all recipes")
    given = parser.parse_args(arguments)
    training.prefer_published(given.data)
    prepared = data.ready(given.data)
    weights, changes = (dict(training.change(pair) for pair in pairs) for pairs in (given.weights, given.set))
    runs = compare(given.recipes, prepared, runtime.writable(given.out), 60 * given.minutes, weights, **changes)
    recipe = next(iter(runs.values())).recipe
    found = table(runs, loading.Photos(prepared.files("val"), recipe.size, recipe.resize))
    found.to_csv(given.out / "comparison.csv")
    plots.comparison(runs).savefig(given.out / "comparison.png", dpi=110)
    rows = pictures(runs, loading.evenly(prepared.files("val"), 8))
    plots.grid(rows, captions=["grey", "the truth", *runs]).savefig(given.out / "grid.png", dpi=110)
    print(found.to_string())


if __name__ == "__main__":
    main()
