"""From photos of any kind to a prepared set: checked, resized and split once, kept as one archive."""

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from colorlib import downloads, photos, runtime

SHORT_SIDE = 256  # prepared photos are at most this large, and never enlarged
MIN_SIDE = 64  # smaller ones are left out
_LONG_SIDE = 65_500  # libjpeg writes no longer ones
_CHUNK = 256  # photos that are prepared and noted down together
_EXAMPLES = 8  # pictures that are kept of the photos left out for each reason
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Prepared:
    """A prepared set on disk: JPEGs and the manifest that says where each came from.

    `manifest` has a row for every source file: `source`, `split` ("" if left out), `reason` (why it was), `file`
    (of those left out, a few of each kind), `width`, `height` and `pixels`, the SHA-256 of the original's decoded
    pixels.
    """

    folder: Path

    @cached_property
    def manifest(self):
        return pd.read_csv(
            self.folder / "manifest.csv",
            keep_default_na=False,
            dtype={"width": int, "height": int},
            lineterminator="\n",
        )

    @property
    def name(self):
        return self.settings["name"]

    @cached_property
    def settings(self):
        return json.loads((self.folder / "settings.json").read_text()) | {"folder": self.folder.name}

    @property
    def kept(self):
        """The manifest's rows that were kept."""
        return self.manifest[self.manifest.split != ""]

    def files(self, split):
        """The prepared files of "train", "val" or "test", in the manifest's order."""
        return [self.folder / f for f in self.manifest.file[self.manifest.split == split]]

    @cached_property
    def fingerprint(self):
        """Changes with the photos, their order and their split, and with nothing else."""
        return hashlib.sha256(self.kept[["pixels", "split"]].to_csv(index=False).encode()).hexdigest()[:16]

    def report(self):
        """How many photos went into each split and how many were left out for each reason: a DataFrame."""
        counts = self.kept.split.value_counts().reindex(["train", "val", "test"], fill_value=0)
        # A reader's own words on a broken file follow the colon; the kind of fault stands before it.
        faults = self.manifest.reason[self.manifest.reason != ""].str.split(":").str[0].value_counts()
        return pd.concat([counts, faults.rename(index="left out: {}".format)]).rename("photos").to_frame()


def ready(dataset, mirror=None, **settings):
    """A data set by name, or photos of the user's own by path, as a `Prepared` set below `runtime.data_dir()`.

    Args:
        dataset: what `datasets.fetch` knows: "sample", the name of a set, a path; or the folder of a `Prepared` set.
        mirror: a folder that outlives this machine, such as one on Drive. The prepared set is kept there as one
            archive, and comes from there the next time. Archives may be put there by hand, too.
        settings: `seed`, `val`, `test`, `keep_grey` and `limit`, as for `prepare`.

    Raises:
        ValueError: if there are too few photos for the three splits.
    """
    from colorlib import datasets  # here, since spawned workers need not wait for its imports

    name = str(dataset).strip()
    own = Path(name).expanduser()
    if (own / "settings.json").is_file():
        return Prepared(own)
    root = runtime.writable(runtime.data_dir(), "COLORLIB_DATA")
    source = partial(datasets.fetch, name, root, [mirror] if mirror else [])
    if name in datasets.NAMES:  # what it is tells it from others: its photos need not be here
        published = datasets.DATASETS.get(name)
        if published:
            settings = {"val": published.val, "test": published.test} | settings
        settings |= {"name": name, "origin": name, "version": published.version if published else ""}
    elif own.is_file():  # an archive
        settings |= {"name": datasets.stem(own), "origin": str(own.resolve()), "version": datasets.version(own)}
    else:
        source = source()
    prepared = prepare(source, root / "prepared", mirror=mirror, **settings)
    if len(prepared.kept) < 3 and settings.get("test") != 1:
        raise ValueError(f"{dataset}: {len(prepared.kept)} usable photos are too few to split; give at least 3.")
    return prepared


def ready_again(settings, mirror=None):
    """The set that was prepared with these `Prepared.settings`, on this machine or an earlier one."""
    settings = dict(settings)
    settings.pop("name")
    folder = runtime.data_dir() / "prepared" / settings.pop("folder", "unknown")  # which early runs did not note down
    if not folder.is_dir() and mirror:
        _restore(folder, Path(mirror))
    return Prepared(folder) if folder.is_dir() else ready(settings.pop("source"), mirror, **settings)


def prepare(
    source,
    root,
    *,
    name=None,
    seed=0,
    val=0.1,
    test=0.1,
    keep_grey=False,
    limit=None,
    origin=None,
    version=None,
    mirror=None,
):
    """Check every photo below a folder, resize and split the good ones, write them with a manifest: a `Prepared` set.

    A published split is kept to, and so are folders named train, val or test; the rest is split at random, by the
    pixels' hash, so that neither the listing's order nor the files' names matter. Of photos with the same pixels one
    is kept, if possible one to test or validate with. Broken off, it goes on where it was; done before with the same
    settings and files, it returns what is there.

    Args:
        source: the folder of photos, which is only read; or a function that brings it, called if need be.
        root: where prepared sets are kept; this one gets a folder of its own.
        name: what to call the set; by default the source folder's name.
        seed: of the random split.
        val, test: photos to hold out from training when the source has no such part: a share, or a number over 1. With
            `test=1` every photo is a test photo.
        keep_grey: keep grey, near-grey and toned photos, as document 000 did.
        limit: use at most so many photos, drawn at random with `seed`.
        origin: what to note down as the source; by default its path.
        version: what tells the source from others; by default its path, and its files' names and sizes.
        mirror: as for `ready`.

    Raises:
        FileNotFoundError: if the folder is missing or holds no image file.
        ValueError: if none of its photos can be used; counts the reasons.
    """
    settings = {"seed": seed, "val": val, "test": test, "keep_grey": keep_grey, "limit": limit}
    published = name if origin in (None, name) else None  # one of the user's own may be called like it
    files = None
    if version is None:
        source = Path(source).expanduser()
        name, files = name or source.resolve().name, photos.find_photos(source)
        sizes = ((f.relative_to(source), f.stat().st_size if f.exists() else 0) for f in files)
        version = f"{source.resolve()}\n" + "".join(f"{path}\t{size}\n" for path, size in sizes)
    key = hashlib.sha256(f"{version}\n{settings}".encode(errors="backslashreplace")).hexdigest()[:8]
    folder = Path(root) / f"{runtime.slug(name)}-{key}"
    if not folder.is_dir() and mirror:
        _restore(folder, Path(mirror))
    if not folder.is_dir():
        source = Path(source() if callable(source) else source)
        facts = {"name": name, "source": origin or str(source.resolve()), **settings}
        try:
            _prepare(source, files or photos.find_photos(source), folder, facts, published)
        except OSError as error:
            if error.errno not in downloads.FULL:
                raise
            message = f"{root}: the disk is full. Make room and run this again: it goes on where it was."
            raise downloads.DiskFull(message) from error
    if mirror:
        _keep(folder, Path(mirror))
    return Prepared(folder)


def _prepare(source, files, folder, facts, published):
    from colorlib import datasets

    part_of = datasets.published_split(published, source) or _part_by_folder
    parts = {}
    for path in files:
        parts.setdefault(part_of(path.relative_to(source).as_posix()), []).append(path)
    others = parts.pop("", [])
    if not parts:
        raise ValueError(f"{source}: none of its photos is in the published split of {published}; delete it and retry.")
    files = [path for part in ("test", "val", "train") for path in parts.get(part, [])]  # see `prepare` on duplicates
    if facts["limit"] and facts["limit"] < len(files):
        rng = np.random.default_rng((facts["seed"], len(files)))
        files = [files[i] for i in sorted(rng.choice(len(files), facts["limit"], replace=False))]
    begun = folder.with_name(folder.name + ".partial")
    (begun / "photos").mkdir(parents=True, exist_ok=True)
    (begun / "left_out").mkdir(exist_ok=True)
    rows = _prepare_all(source, files, begun, facts["keep_grey"])
    if (rows.reason != "").all():
        shutil.rmtree(begun)
        reasons = Counter(rows.reason.str.split(":").str[0])
        counts = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
        raise ValueError(
            f"{source}: none of its {len(rows)} photos can be used ({counts}); choose another folder. "
            "Grey photos cannot teach colour: to have them coloured, give the folder to 04_qualitative_study."
        )
    rows["split"] = _split(rows, part_of, facts["seed"], facts["val"], facts["test"])
    names = [path.relative_to(source).as_posix() for path in others]
    unlisted = pd.DataFrame({"source": names, "reason": "not in the published split"})
    rows = pd.concat([rows, unlisted]).fillna({"file": "", "pixels": "", "split": "", "width": 0, "height": 0})
    rows = rows.astype({"width": int, "height": int})
    # Backslashes: for names that are not UTF-8.
    rows.to_csv(begun / "manifest.csv", index=False, lineterminator="\n", errors="backslashreplace")
    (begun / "settings.json").write_text(json.dumps(facts, indent=1))
    (begun / "rows.jsonl").unlink()
    begun.rename(folder)


def _part_by_folder(path):
    return next((SPLITS[part] for part in path.lower().split("/")[:-1] if part in SPLITS), "train")


def _prepare_all(source, files, folder, keep_grey):
    """Prepare all photos, or go on with it; a DataFrame with the manifest's rows.

    Every chunk of them is a line of rows.jsonl, written when its photos are: a line that is torn does not count.
    """
    rows, journal = [], folder / "rows.jsonl"
    if journal.exists():
        lines = journal.read_text().split("\n")[:-1]
        rows = [row for line in lines for row in json.loads(line)]
        if [row["source"] for row in rows] != [f.relative_to(source).as_posix() for f in files[: len(rows)]]:
            rows, lines = [], []  # of another source: begin anew
            for part in ("photos", "left_out"):
                shutil.rmtree(folder / part)
                (folder / part).mkdir()
        journal.write_text("".join(f"{line}\n" for line in lines))
    seen = {row["pixels"]: row["source"] for row in rows if not row["reason"]}
    shown = Counter(row["reason"].split(":")[0] for row in rows if row["reason"] and row["file"])
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        runtime.bar(len(files), "checking photos", initial=len(rows)) as bar,
        open(journal, "a") as stream,
    ):
        for start in range(len(rows), len(files), _CHUNK):  # a few photos in memory, never all
            chunk, begin = files[start : start + _CHUNK], len(rows)
            for path, (row, jpeg) in zip(chunk, pool.map(lambda f: _prepare_one(f, keep_grey), chunk)):
                row["source"] = path.relative_to(source).as_posix()
                if not row["reason"] and row["pixels"] in seen:
                    row["reason"] = f"duplicate: of {seen[row['pixels']]}"
                kind = row["reason"].split(":")[0]
                if not kind:
                    seen[row["pixels"]] = row["source"]
                    row["file"] = f"photos/{len(seen) // 10_000:03d}/{len(seen):07d}.jpg"  # huge folders are slow
                elif jpeg and shown[kind] < _EXAMPLES:
                    shown[kind] += 1
                    row["file"] = f"left_out/{kind.replace(' ', '-')}-{shown[kind]}.jpg"
                if row["file"]:
                    (folder / row["file"]).parent.mkdir(exist_ok=True)
                    (folder / row["file"]).write_bytes(jpeg)
                rows.append(row)
                bar.update()
            stream.write(json.dumps(rows[begin:]) + "\n")
            stream.flush()
    return pd.DataFrame(rows)


def _prepare_one(path, keep_grey):
    """One photo -> its manifest row and a JPEG of it, small if it is to be left out, None if it cannot be read."""
    row = {"source": "", "file": "", "width": 0, "height": 0, "pixels": "", "reason": ""}
    try:
        rgb = photos.open_photo(path)
    except photos.PhotoError as error:
        return row | {"reason": f"unreadable: {error}"}, None
    height, width = rgb.shape[:2]
    row |= {"width": width, "height": height, "pixels": hashlib.sha256(f"{rgb.shape}".encode() + rgb.data).hexdigest()}
    image, buffer = Image.fromarray(rgb), io.BytesIO()
    if min(height, width) < MIN_SIDE:
        row["reason"] = "too small"
    elif not keep_grey:
        row["reason"] = photos.colour_fault(rgb)
    if row["reason"]:
        image.thumbnail((SHORT_SIDE, SHORT_SIDE))
    scale = min(SHORT_SIDE / min(image.size), _LONG_SIDE / max(image.size))
    if scale < 1:
        image = image.resize([round(scale * side) for side in image.size], Image.Resampling.LANCZOS)
    image.save(buffer, "JPEG", quality=95, subsampling=0)  # 4:4:4: colour is what is learnt, keep all of it
    return row, buffer.getvalue()


def _split(rows, part_of, seed, val, test):
    """The split of each manifest row, "" for those left out."""
    kept = rows.reason == ""
    split = rows.source.map(part_of)
    split[~kept] = ""
    # Ranked by a hash of the pixels and the seed: the same on every machine, whatever the listing's order.
    rank = rows.pixels.map(lambda p: hashlib.sha256(f"{seed}:{p}".encode()).hexdigest())
    if test == 1:
        split[kept] = "test"
    train = rank[split == "train"].sort_values().index
    n = len(train)
    for part, share in (("test", test), ("val", val)):
        # A number may be meant for many more photos than `limit` leaves.
        size = max(1, min(int(share), n // 3) if share > 1 else round(share * n))
        if share and not (split == part).any() and len(train) > size:
            split[train[:size]], train = part, train[size:]
    return split


class _Hashed:
    """A file that is read or written from start to end, and its SHA-256."""

    def __init__(self, stream, bar):
        self.stream, self.bar, self.sha256 = stream, bar, hashlib.sha256()

    def read(self, n):
        block = self.stream.read(n)
        self.sha256.update(block)
        self.bar.update(len(block))
        return block

    def write(self, block):
        self.sha256.update(block)
        self.bar.update(len(block))
        return self.stream.write(block)


def _keep(folder, mirror):
    """Write a prepared set to the mirror as one archive, unless it is there: the same set gives the same bytes."""
    kept = mirror / "prepared" / f"{folder.name}.tar"
    facts = kept.with_suffix(".json")
    try:
        if not (facts.is_file() and kept.is_file()):
            kept.parent.mkdir(parents=True, exist_ok=True)
            _archive(folder, kept, facts)
    except OSError as error:
        print(f"{kept}: the prepared photos cannot be kept there ({error.strerror}). They are on this machine only.")


def _archive(folder, kept, facts):
    try:
        parts = ("photos", "left_out", "manifest.csv", "settings.json")
        paths = [path for part in parts for path in (folder / part, *sorted((folder / part).rglob("*")))]
        total = sum(path.stat().st_size for path in paths if path.is_file())
        with (
            open(kept, "wb") as stream,
            runtime.bar(total, "keeping the photos", unit="B", unit_scale=True) as bar,
        ):
            hashed = _Hashed(stream, bar)
            with tarfile.open(fileobj=hashed, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                for path in filter(Path.is_file, paths):
                    info = tarfile.TarInfo(path.relative_to(folder).as_posix())
                    info.size = path.stat().st_size
                    with open(path, "rb") as member:
                        tar.addfile(info, member)
        # The archive counts from now on; half of a line would not be read.
        facts.write_text(json.dumps({"sha256": hashed.sha256.hexdigest(), "size": kept.stat().st_size}))
    except OSError:
        with suppress(OSError):  # on Drive a file that is deleted keeps its room for a month
            os.truncate(kept, 0)
            kept.unlink()
        raise


def _restore(folder, mirror):
    """Bring a prepared set back from the mirror, if it is there and whole."""
    kept = mirror / "prepared" / f"{folder.name}.tar"
    begun = folder.with_name(folder.name + ".restored")
    try:
        facts = json.loads(kept.with_suffix(".json").read_text())
        shutil.rmtree(begun, ignore_errors=True)
        downloads.need_space(folder, facts["size"], f"restoring {folder.name}")
        with (
            open(kept, "rb") as stream,
            runtime.bar(facts["size"], "restoring the photos", unit="B", unit_scale=True) as bar,
        ):
            hashed = _Hashed(stream, bar)
            with tarfile.open(fileobj=hashed, mode="r|") as tar:
                for member in tar:
                    tar.extract(member, begun, filter="data")
            while hashed.read(1 << 20):
                pass
        if hashed.sha256.hexdigest() != facts["sha256"]:
            raise tarfile.TarError("it is damaged")
        begun.rename(folder)
    except (FileNotFoundError, NotADirectoryError):  # not kept yet
        return
    except (OSError, ValueError, KeyError, TypeError, tarfile.TarError) as error:
        shutil.rmtree(begun, ignore_errors=True)
        print(f"{kept} cannot be restored ({error}); the photos are prepared again.")
        if not isinstance(error, OSError):  # no fault of this machine's: to be written anew
            with suppress(OSError):
                kept.with_suffix(".json").unlink()
