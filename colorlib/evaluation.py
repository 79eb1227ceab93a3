"""How well a network colours photos, photo by photo: in memory while it trains, into a file when it is judged.

As a program: `python -m colorlib.evaluation PHOTOS... --model RUN_OR_WEIGHTS...`.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from colorlib import color, data, datasets, failures, metrics, models, runtime, tables
from colorlib.loading import Batches, Readable, loader
from colorlib.losses import predict
from colorlib.photos import find_photos
from colorlib.runs import Run, open_run

PART = 1000  # photos at most on which the metrics of pictures are found: they take longer than the network
NO_ECCV16 = "eccv16 (could not be fetched)"  # what the table calls its empty row
COLUMNS = [
    *["mse", *(f"mse_{name}" for name in metrics.FLOORS), "mse_ab", "rmse_ab", "explained", "chroma", "true_chroma"],
    *(f"{name}{of}" for name in metrics.OF_PICTURES for of in ("", *(f"_{floor}" for floor in metrics.FLOORS))),
    *["colourfulness_true", "colourfulness_ratio"],
]
_VERSION = 1  # of what the columns mean: files of another one are not gone on with


@torch.no_grad()
def evaluate(model, photo_set, train_mean, batch_size=32, workers=0, precision=torch.float32, chosen=None, loss=None):
    """The error of a model and of the three floors, photo by photo, in memory.

    Args:
        model: takes L `(B, 1, H, W)`, returns pred_ab `(B, 2, H, W)`; its mode is put back afterwards.
        photo_set: a `loading.Photos` without flips.
        train_mean: `(2,)`, mean ab of the photos that the model was trained on.
        precision: number type of the network's arithmetic.
        chosen: indices of the photos to take; all of them by default.
        loss: a `losses.Loss`; adds a column `loss`.

    Returns:
        DataFrame with a row per photo: `file` and the columns of `metrics.errors`.
    """
    chosen = range(len(photo_set)) if chosen is None else chosen
    device = next(model.parameters()).device
    columns = defaultdict(list)
    was_training = model.training
    model.eval()
    for rgb in loader(photo_set, Batches(chosen, batch_size), workers):
        L, ab = color.rgb_to_lab(rgb.to(device, non_blocking=True))
        pred_ab = predict(model, L, precision)
        if loss:
            columns["loss"].append(loss(model, L, ab, precision, pred_ab))
        for name, values in metrics.errors(pred_ab, ab, train_mean).items():
            columns[name].append(values)
    model.train(was_training)
    rows = {name: torch.cat(values).double().cpu().numpy() for name, values in columns.items()}
    return pd.DataFrame({"file": [str(photo_set.files[i]) for i in chosen], **rows}, index=chosen)


@dataclass(frozen=True)
class Predictor:
    """What is judged: a network, and what is known about it."""

    name: str  # as tables call it
    model: torch.nn.Module  # in evaluation mode
    train_mean: list  # mean ab of the photos that it was trained on: its floor
    weights: str  # the SHA-256 of its file
    size: int = 224  # at which it is judged, unless asked otherwise
    resize: str = "squash"

    @classmethod
    def of(cls, run, name=None):
        """From a `runs.Run`, or the path of one, or of a weights file."""
        run = run if isinstance(run, Run) else open_run(run)
        recipe = run.recipe
        name = name or f"{recipe.name} ({run.facts['encoder_weights']})"
        return cls(name, run.model(), run.facts["train_mean"], run.facts["sha256"], recipe.size, recipe.resize)

    @classmethod
    def eccv16(cls, train_mean, file=None, cache=None):
        """Zhang's released network, or None (after a warning) if it cannot be had.

        It sees photos at 256 x 256, whatever size they are judged at. The mean colour of the photos that it was
        trained on is not published: `train_mean` is that of another predictor.
        """
        found = models.eccv16(file, cache)
        if not found:
            return None
        model, digest = found
        return cls(f"eccv16 (weights {digest[:8]})", _Seen(model, 256).to(runtime.device()), train_mean, digest, 256)


class _Seen(torch.nn.Module):
    """A network that sees photos at a size of its own."""

    def __init__(self, model, side):
        super().__init__()
        self.model, self.side = model, side

    def forward(self, L):
        how = {"mode": "bilinear", "antialias": True}
        seen = F.interpolate(L, (self.side, self.side), **how).clamp(0, 100)
        return F.interpolate(self.model(seen), L.shape[-2:], **how)


@torch.no_grad()
def measure(predictor, files, out, *, size=None, resize=None, crop=None, part=PART, seed=0, batch_size=32, workers=0):
    """Judge a predictor on photos: a row per photo in a CSV file, written as it goes, in constant memory.

    Broken off, it goes on where it was, and the file ends the same; finished with the same photos (by their names and
    sizes), weights and settings, nothing is done again. A photo that cannot be read is a row with its `fault` and
    nothing else; to try it again, delete the file.

    Args:
        predictor: a `Predictor`.
        files: paths of photos.
        out: path of the CSV file; what it was made with and how far it got stands beside it, with the suffix .json.
        size, resize: of the photos, as for `loading.Photos`; by default those that the predictor was trained on.
        crop: side of the square that is then cut from the middle.
        part: the metrics of pictures are found on so many photos at most, drawn at random with `seed`.
        batch_size: photos that the network sees at once.
        workers: processes that read photos.

    Returns:
        The rows, a DataFrame: `file`, `fault`; the columns of `metrics.errors`; `mse_ab` and `rmse_ab` (in `ab` units,
        over both channels) and `explained`, 1 - mse / mse_train_mean. For the photos of
        the part also each of `metrics.OF_PICTURES`, for the floors too (`psnr_grey` and so on); `colourfulness_true`
        and its ratio, `colourfulness_ratio`.

    Raises:
        ValueError: if there are no photos.
        OSError: if the file cannot be written.
    """
    files, out = [str(file) for file in files], Path(out)
    if not files:
        raise ValueError("there are no photos to measure on: choose another folder or part.")
    size, resize = size or predictor.size, resize or predictor.resize
    facts = {
        "version": _VERSION, "predictor": predictor.name, "weights": predictor.weights,
        "train_mean": [float(value) for value in predictor.train_mean], "size": size, "resize": resize, "crop": crop,
        "part": part, "seed": seed, "batch_size": batch_size, "photos": len(files), "files": _fingerprint(files),
    }  # fmt: skip
    chosen = np.zeros(len(files), dtype=bool)
    chosen[np.random.default_rng(seed).choice(len(files), min(part, len(files)), replace=False)] = True
    runtime.writable(out.parent)
    done = _begun(out, facts)
    photo_set = Readable(files, size, resize, seed=None, crop=crop)
    order = Batches(range(len(files)), batch_size, start=done // batch_size)
    device = next(predictor.model.parameters()).device
    with (
        open(out, "r+b" if done else "wb") as stream,
        ThreadPoolExecutor(os.cpu_count()) as pool,
        runtime.bar(len(files), f"measuring {predictor.name}", initial=done) as bar,
    ):
        stream.seek(0, os.SEEK_END)
        for rgb, faults in loader(photo_set, order, workers) if done < len(files) else ():
            now, good = slice(done, done + len(faults)), np.array([not fault for fault in faults])
            rows = pd.DataFrame({"file": files[now], "fault": faults})
            if good.any():
                columns = _columns(predictor, rgb.to(device), chosen[now][good], pool)
                rows = rows.join(pd.DataFrame(columns, index=rows.index[good]))
            rows = rows.reindex(columns=["file", "fault", *COLUMNS])
            text = rows.to_csv(header=not done, index=False, float_format="%.7g", lineterminator="\n")
            stream.write(text.encode(errors="surrogateescape"))
            stream.flush()
            done += len(faults)
            _note(out, facts | {"done": done, "bytes": stream.tell()})
            bar.update(len(faults))
    return read(out)


def read(path):
    """The rows that `measure` wrote, a DataFrame."""
    how = {"encoding_errors": "surrogateescape", "keep_default_na": False, "lineterminator": "\n"}
    types = {"file": str, "fault": str} | dict.fromkeys(COLUMNS, float)
    return pd.read_csv(path, na_values={name: [""] for name in COLUMNS}, dtype=types, **how)


def _fingerprint(files):
    digest = hashlib.sha256()
    for file in files:
        size = os.stat(file).st_size if os.path.exists(file) else 0
        digest.update(f"{file}\t{size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _begun(out, facts):
    """How many photos of the file are measured already; what was written after them is cut off."""
    try:
        before = json.loads(out.with_suffix(".json").read_text())
        done, n_bytes = before.pop("done"), before.pop("bytes")
        if before != facts:
            print(f"{out.name} was made with other weights, photos or settings: it is made anew.")
            return 0
        if out.stat().st_size < n_bytes:  # the disk lost what it had taken
            return 0
        os.truncate(out, n_bytes)
        return done
    except (OSError, ValueError, KeyError, AttributeError, TypeError):  # there is none, or not a whole one
        return 0


def _note(out, facts):
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps(facts, indent=1))
    os.replace(partial, out.with_suffix(".json"))


def _columns(predictor, rgb, of_part, pool):
    """The numbers of a batch: `{column: (B,)}`; those of pictures are NaN for photos that are not `of_part`."""
    L, ab = color.rgb_to_lab(rgb)
    pred_ab = predict(predictor.model, L, torch.float32)
    found = metrics.errors(pred_ab, ab, predictor.train_mean)
    found = {name: values.double().cpu().numpy() for name, values in found.items()}
    found["mse_ab"] = found["mse"] * 255**2
    found["rmse_ab"] = found["mse_ab"] ** 0.5
    with np.errstate(all="ignore"):  # a photo may have the very mean everywhere
        found["explained"] = 1 - found["mse"] / found["mse_train_mean"]
    guesses = {"": pred_ab, **{f"_{name}": flat for name, flat in metrics.floors_ab(ab, predictor.train_mean).items()}}
    columns = {name: np.full(len(rgb), np.nan) for name in COLUMNS if name not in found}
    if of_part.any():
        where = torch.from_numpy(of_part).to(rgb.device)
        truth = rgb[where]
        columns["colourfulness_true"][of_part] = metrics.colourfulness(truth).cpu()
        for of, guess in guesses.items():
            coloured = color.lab_to_rgb(L[where], guess.expand_as(ab)[where])
            columns[f"colourfulness{of}"][of_part] = metrics.colourfulness(coloured).cpu()
            pairs = [pictures.permute(0, 2, 3, 1).cpu().numpy() for pictures in (truth, coloured)]
            scores = pd.DataFrame(pool.map(metrics.compare_pictures, *pairs))
            for name in scores:
                columns[f"{name}{of}"][of_part] = scores[name]
        with np.errstate(all="ignore"):  # a grey photo has none to be compared with
            columns["colourfulness_ratio"] = columns["colourfulness"] / columns["colourfulness_true"]
    return found | columns


def keep(source, target):
    """Copy the files of a folder of measurements to one that outlives this machine, or back; a target of None: nowhere.

    What is there and no older stays as it is. What cannot be copied is said, and is no error.
    """
    if target is None:
        return
    try:
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(source.glob("*.*")):  # of each, .csv comes before the .json that says how much of it counts
            there = target / path.name
            if not there.exists() or there.stat().st_mtime < path.stat().st_mtime:
                shutil.copyfile(path, there)
    except OSError as error:
        print(f"{target}: the measurements could not be copied there ({error}); they are in {source}.")


def held_out(source, mirror=None, limit=None, seed=0):
    """The photos to judge a predictor on: all of a folder or an archive, the test photos of a named data set.

    Where a set has a published list of them, they are taken as they are, grey ones too, as the source documents did;
    else they are those of the set as it is prepared for training.

    Args:
        source: a folder, an archive, the name of a data set, or the folder of a `data.Prepared` set.
        mirror: as for `data.ready`.
        limit: use at most so many, drawn at random with `seed`.

    Raises:
        ValueError: if the source is none of these, or has no test photos.
        FileNotFoundError: if it is a folder without photos.
        ConnectionError: if it had to be fetched and could not be.
    """
    name = str(source).strip()
    if Path(name).expanduser().joinpath("settings.json").is_file() or (
        name in datasets.NAMES and name not in datasets.LISTED
    ):
        files = data.ready(name, mirror).files("test")
    else:
        root = runtime.writable(runtime.data_dir(), "COLORLIB_DATA")
        folder = datasets.fetch(name, root, [mirror] if mirror else [])
        part_of = datasets.published_split(name, folder) or (lambda path: "test")
        files = [file for file in find_photos(folder) if part_of(file.relative_to(folder).as_posix()) == "test"]
    if not files:
        raise ValueError(f"{name}: has no test photos; give a folder of photos instead.")
    if limit and limit < len(files):
        chosen = np.random.default_rng(seed).choice(len(files), limit, replace=False)
        files = [files[i] for i in np.sort(chosen)]
    return files


def main(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m colorlib.evaluation", description=__doc__.split("\n")[0])
    parser.add_argument("photos", nargs="+", help="folders of photos, or data sets by name: a table for each")
    parser.add_argument("--model", nargs="+", required=True, metavar="RUN", help="folders of runs, or weights files")
    parser.add_argument("--eccv16", nargs="?", const="", metavar="FILE", help="Zhang's released weights too")
    parser.add_argument("--out", type=Path, default=runtime.runs_dir() / "evaluation", help="where rows and tables go")
    parser.add_argument("--size", type=int, help="side of the photos; by default, the one the first was trained on")
    parser.add_argument("--resize", choices=["squash", "crop"], help="to that square, or the middle of it")
    parser.add_argument("--crop", type=int, help="side of the square that is then cut from the middle")
    parser.add_argument("--part", type=int, default=PART, help="photos for CIEDE2000, PSNR, SSIM and colourfulness")
    parser.add_argument("--where", action="store_true", help="also where the first one fails: by scene, hue and so on")
    parser.add_argument("--limit", type=int, help="use at most so many photos, drawn at random")
    given = parser.parse_args(arguments)
    try:
        predictors = [Predictor.of(path) for path in given.model]
        if given.eccv16 is not None:
            predictors.append(Predictor.eccv16(predictors[0].train_mean, given.eccv16))
        first, places = predictors[0], []
        seen = {"size": given.size or first.size, "resize": given.resize or first.resize, "crop": given.crop}
        how = seen | {"workers": runtime.preset().workers}
        for source in given.photos:
            files, found, files_of = held_out(source, limit=given.limit), {}, []
            places.append(place := tables.unused(runtime.slug(Path(source).resolve().name), places))
            for predictor in predictors:
                if predictor is None:
                    found[NO_ECCV16] = None
                    continue
                name = tables.unused(predictor.name, found)
                files_of.append(tables.unused(runtime.slug(name), files_of))
                out = given.out / f"{place}-{files_of[-1]}.csv"
                found[name] = measure(predictor, files, out, part=given.part, **how)
            made = {"table": tables.table(found)}
            if sum(rows is not None for rows in found.values()) > 1:
                made["differences"] = tables.differences(found)
            if given.where:
                made |= failures.everywhere(first, files, found[first.name], **how)
            for kind, table in made.items():
                tables.save(table, given.out / f"{kind}-{place}")
                print(f"\n{kind}, {source}\n\n{tables.markdown(tables.readable(table))}")
            print(tables.counted(found))
    except (ValueError, OSError, MemoryError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
