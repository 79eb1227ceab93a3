"""From a folder of photos to batches: check, resize and split once, then hand over uint8 only."""

import hashlib
import io
import json
import os
import re
import shutil
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from colorlib import color, photos, runtime

SHORT_SIDE = 256  # prepared photos are at most this large, and never enlarged
MIN_SIDE = 64  # smaller ones are left out
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Prepared:
    """A prepared set on disk: JPEGs and the manifest that says where each came from.

    `manifest` has a row for every source file: `source`, `split` ("" if left out), `reason` (why it was),
    `file`, `width`, `height` and `pixels`, the SHA-256 of the original's decoded pixels.
    """

    folder: Path

    @cached_property
    def manifest(self):
        return pd.read_csv(self.folder / "manifest.csv", keep_default_na=False, dtype={"width": int, "height": int})

    @property
    def name(self):
        return self.settings["name"]

    @cached_property
    def settings(self):
        return json.loads((self.folder / "settings.json").read_text())

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


def ready(dataset, **settings):
    """A data set by name, or a folder of photos by path, as a `Prepared` set below `runtime.data_dir()`.

    Args:
        dataset: what `datasets.fetch` knows: "sample", the name of a set, or a path; or a `Prepared` set's folder.
        settings: `seed`, `val`, `test`, `keep_grey` and `limit`, as for `prepare`.

    Raises:
        ValueError: if there are too few photos for the three splits.
    """
    from colorlib import datasets  # with torchvision, whose import spawned workers need not wait for

    if Path(dataset, "settings.json").is_file():
        return Prepared(Path(dataset))
    root = runtime.writable(runtime.data_dir(), "COLORLIB_DATA")
    prepared = prepare(datasets.fetch(dataset, root), root / "prepared", **settings)
    if len(prepared.kept) < 3 and settings.get("test") != 1:
        raise ValueError(f"{dataset}: {len(prepared.kept)} usable photos are too few to split; give at least 3.")
    return prepared


def ready_again(settings):
    """The set that was prepared with these `Prepared.settings`, on this machine or an earlier one."""
    from colorlib import datasets  # here for the same reason

    settings = dict(settings)
    name, source = settings.pop("name"), settings.pop("source")
    # By name only where the folder is not here: one of the user's own may be called like a data set.
    return ready(name if name in datasets.NAMES and not Path(source).is_dir() else source, **settings)


def prepare(source, root, *, name=None, seed=0, val=0.1, test=0.1, keep_grey=False, limit=None):
    """Check every photo below a folder, resize and split the good ones, write them with a manifest: a `Prepared` set.

    Photos below folders named train, val or test stay in that split; the rest is split at random, by the
    pixels' hash, so that neither the listing's order nor the files' names matter. Done before with the
    same settings and files, it returns what is there.

    Args:
        source: the folder of photos; it is only read.
        root: where prepared sets are kept; this one gets a folder of its own.
        name: what to call the set; by default the source folder's name.
        seed: of the random split.
        val, test: shares of the training photos to hold out when the source has no such folder. With `test=1`
            every photo is a test photo, whatever its folder is called.
        keep_grey: keep grey, near-grey and toned photos, as document 000 did.
        limit: use at most so many photos, drawn at random with `seed`.

    Raises:
        FileNotFoundError: if the folder is missing or holds no image file.
        ValueError: if none of its photos can be used; counts the reasons.
    """
    source = Path(source).expanduser()
    files = photos.find_photos(source)
    if limit and limit < len(files):
        chosen = np.random.default_rng((seed, len(files))).choice(len(files), limit, replace=False)
        files = [files[i] for i in sorted(chosen)]
    name = re.sub(r"\W+", "-", name or source.resolve().name).strip("-").lower()
    settings = {"seed": seed, "val": val, "test": test, "keep_grey": keep_grey, "limit": limit}
    listing = "".join(f"{f.relative_to(source)}\t{f.stat().st_size if f.exists() else 0}\n" for f in files)
    key = hashlib.sha256(f"{source.resolve()}\n{settings}\n{listing}".encode(errors="backslashreplace")).hexdigest()[:8]
    folder = Path(root) / f"{name}-{key}"
    if not folder.is_dir():
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "photos").mkdir(parents=True)
        rows = pd.DataFrame(_prepare_all(source, files, partial, keep_grey))
        if not (rows.reason == "").any():
            shutil.rmtree(partial)
            reasons = Counter(rows.reason.str.split(":").str[0])
            counts = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
            raise ValueError(f"{source}: none of its {len(rows)} photos can be used ({counts}); choose another folder.")
        rows["split"] = _split(rows, seed, val, test)
        rows.to_csv(partial / "manifest.csv", index=False, errors="backslashreplace")  # names that are not UTF-8
        facts = {"name": name, "source": str(source.resolve()), **settings}
        (partial / "settings.json").write_text(json.dumps(facts, indent=1))
        partial.rename(folder)
    return Prepared(folder)


def _prepare_all(source, files, folder, keep_grey):
    seen = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool, runtime.bar(len(files), "checking photos") as bar:
        for start in range(0, len(files), 256):  # in chunks: a few photos in memory, never all
            chunk = files[start : start + 256]
            for path, (row, jpeg) in zip(chunk, pool.map(lambda f: _prepare_one(f, keep_grey), chunk)):
                row["source"] = path.relative_to(source).as_posix()
                if not row["reason"] and row["pixels"] in seen:
                    row["reason"] = f"duplicate: of {seen[row['pixels']]}"
                elif not row["reason"]:
                    seen[row["pixels"]] = row["source"]
                    row["file"] = f"photos/{len(seen):07d}.jpg"
                    (folder / row["file"]).write_bytes(jpeg)
                yield row
                bar.update()


def _prepare_one(path, keep_grey):
    """One photo -> its manifest row and, if it is any good, the JPEG to write."""
    row = {"source": "", "file": "", "width": 0, "height": 0, "pixels": "", "reason": ""}
    try:
        rgb = photos.open_photo(path)
    except photos.PhotoError as error:
        return row | {"reason": f"unreadable: {error}"}, None
    height, width = rgb.shape[:2]
    row |= {"width": width, "height": height, "pixels": hashlib.sha256(f"{rgb.shape}".encode() + rgb.data).hexdigest()}
    if min(height, width) < MIN_SIDE:
        return row | {"reason": "too small"}, None
    fault = "" if keep_grey else photos.colour_fault(rgb)
    if fault:
        return row | {"reason": fault}, None
    image = Image.fromarray(rgb)
    scale = SHORT_SIDE / min(height, width)
    if scale < 1:
        image = image.resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, subsampling=0)  # 4:4:4: colour is what is learnt, keep all of it
    return row, buffer.getvalue()


def _split(rows, seed, val, test):
    """The split of each manifest row, "" for those left out."""
    kept = rows.reason == ""
    split = rows.source.map(lambda s: next((SPLITS[p] for p in s.lower().split("/")[:-1] if p in SPLITS), "train"))
    split[~kept] = ""
    # Ranked by a hash of the pixels and the seed: the same on every machine, whatever the listing's order.
    rank = rows.pixels.map(lambda p: hashlib.sha256(f"{seed}:{p}".encode()).hexdigest())
    if test == 1:
        split[kept] = "test"
    train = rank[split == "train"].sort_values().index
    n = len(train)
    for part, share in (("test", test), ("val", val)):
        size = max(1, round(share * n))
        if share and not (split == part).any() and len(train) > size:
            split[train[:size]], train = part, train[size:]
    return split


class Photos(Dataset):
    """Photos of one size as uint8 `(3, size, size)`; the key is `(epoch, index)`.

    Args:
        files: their paths.
        size: side of the square in pixels.
        resize: "squash" to the square, or scale the short side to it and "crop" the centre.
        flip, seed: mirror each photo with probability 1/2, by a coin that depends on (seed, epoch, index) alone.
        crop: side of the square to cut out, at a place that depends on them too; None for the whole.
        pack: what `pack` made of the same files, size and resize; without it, every photo is decoded every time.
    """

    def __init__(self, files, size, resize="squash", flip=False, seed=0, pack=None, crop=None):
        if not 0 < (crop or size) <= size:
            raise ValueError(f"crop must be at most the size, {size}, not {crop!r}")
        if resize not in ("squash", "crop"):
            raise ValueError(f"resize must be 'squash' or 'crop', not {resize!r}")
        self.files = [str(file) for file in files]  # a million `Path`s would take a spawned worker seconds to receive
        self.size, self.resize, self.flip, self.seed, self.pack = size, resize, flip, seed, pack
        self.crop = crop or size

    def __len__(self):
        return len(self.files)

    def __getitem__(self, key):
        return self.__getitems__([key])[0]

    def __getitems__(self, keys):
        """Many photos at once, uint8 `(B, 3, crop, crop)`: what a DataLoader asks for."""
        batch = np.empty((len(keys), 3, self.crop, self.crop), dtype=np.uint8)
        for place, (epoch, index) in zip(batch, keys):
            rgb = _opened(self.pack)[index] if self.pack else self._read(index)
            rng = np.random.default_rng((self.seed, epoch, index))
            mirrored = self.flip and rng.random() < 0.5
            top, left = rng.integers(self.size - self.crop + 1, size=2) if self.crop < self.size else (0, 0)
            rgb = rgb[:, top : top + self.crop, left : left + self.crop]
            place[:] = rgb[:, :, ::-1] if mirrored else rgb
        return torch.from_numpy(batch)

    def _read(self, index):
        image = Image.fromarray(photos.open_photo(self.files[index]))
        box = None
        if self.resize == "crop":
            side = min(image.size)
            left, top = (image.width - side) / 2, (image.height - side) / 2
            box = (left, top, left + side, top + side)
        image = image.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box)
        return np.asarray(image).transpose(2, 0, 1)


def pack(files, size, resize, folder):
    """Decode and resize photos once, into one file from which `Photos` takes them many times faster.

    Args:
        files, size, resize: as for `Photos`.
        folder: where the file is kept; made if need be.

    Returns:
        Its path; or None if it would take more than half of the disk's free space, or cannot be written.
    """
    key = hashlib.sha256("\n".join(map(str, files)).encode(errors="backslashreplace")).hexdigest()[:12]
    path = Path(folder) / f"{resize}-{size}-{key}.npy"
    partial = path.with_suffix(f".{os.getpid()}")
    try:
        if path.is_file():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        if len(files) * 3 * size * size > shutil.disk_usage(path.parent).free / 2:
            return None
        with (
            open(partial, "wb") as stream,  # not a memory map: a full disk would kill us without a word
            ThreadPoolExecutor(os.cpu_count()) as pool,
            runtime.bar(len(files), "packing photos") as bar,
        ):
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), 3, size, size)}
            np.lib.format.write_array_header_1_0(stream, header)
            photo_set = Photos(files, size, resize)
            for start in range(0, len(files), 256):
                for rgb in pool.map(photo_set._read, range(start, min(start + 256, len(files)))):
                    stream.write(rgb.tobytes())
                    bar.update()
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except OSError:
        return None
    finally:
        with suppress(OSError):  # it is gone, or nothing can be written there
            partial.unlink()
    return path


@lru_cache(maxsize=8)
def _opened(pack):
    return np.load(pack, mmap_mode="r")


def draw_subset(n, share, seed, phase):
    """Indices of the random part of `n` photos that one phase of training uses: sorted int array."""
    if share >= 1:
        return np.arange(n)
    return np.sort(np.random.default_rng((seed, phase, 1)).choice(n, max(1, round(share * n)), replace=False))


class Batches:
    """The batches of one epoch: lists of `(epoch, index)`, made when they are asked for.

    The order is a function of `(seed, epoch)` alone, so that nothing about it needs to be saved.

    Args:
        indices: of the photos.
        batch_size: photos in a batch; the last one may have fewer.
        epoch: which one.
        seed: of the random order; None for the given order.
        start: leave out so many batches at the beginning.
        rank, world: give only every `world`-th photo of each batch, from the `rank`-th on; when a batch has too few,
            its first.
    """

    def __init__(self, indices, batch_size, *, epoch=0, seed=None, start=0, rank=0, world=1):
        self.indices, self.batch_size, self.epoch = np.asarray(indices), batch_size, epoch
        self.part, self.starts = slice(rank, None, world), range(start * batch_size, len(self.indices), batch_size)
        if seed is not None:
            self.indices = np.random.default_rng((seed, epoch, 0)).permutation(self.indices)

    def sizes(self):
        """How many photos each batch has, over all ranks."""
        return [min(self.batch_size, len(self.indices) - k) for k in self.starts]

    def __len__(self):
        return len(self.starts)

    def __iter__(self):
        for k in self.starts:
            batch = self.indices[k : k + self.batch_size]
            mine = batch[self.part]
            yield [(self.epoch, int(i)) for i in (mine if len(mine) else batch[:1])]


def loader(photo_set, batch_list, workers=0):
    """A DataLoader of uint8 `(B, 3, size, size)` over the given `Batches` of a `Photos`."""
    return DataLoader(
        photo_set,
        batch_sampler=batch_list,
        num_workers=workers,
        collate_fn=torch.as_tensor,  # a batch it is already
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_keep_quiet,
        generator=torch.Generator().manual_seed(0),  # it only seeds workers; leaves the global stream alone
    )


def _keep_quiet(_):
    # Both may reach every process, and when to stop is the first one's matter: it must not get an error from us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))


def evenly(items, n):
    """`n` items of a list at equal distances, from the first to the last; with fewer, some come again."""
    return [items[i] for i in np.linspace(0, len(items) - 1, n).round().astype(int)]


def some(files, size, workers=0, most=10_000):
    """Batches of at most `most` evenly chosen photos: uint8 `(B, 3, size, size)`."""
    chosen = evenly(files, min(len(files), most))
    return loader(Photos(chosen, size), Batches(range(len(chosen)), 256), workers)


def mean_ab(files, size=32, workers=0, most=10_000):
    """Mean colour over the pixels of photos, of at most `most` evenly chosen ones: float32 `(2,)`, in `ab` units."""
    total, n = torch.zeros(2, dtype=torch.float64), 0
    for rgb in some(files, size, workers, most):
        total += color.rgb_to_lab(rgb)[1].double().mean(dim=(2, 3)).sum(0)
        n += len(rgb)
    return (total / n).float()
