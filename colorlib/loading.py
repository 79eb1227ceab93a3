"""From the files of a prepared set to batches: resized, cut and mirrored, uint8 only, in a seeded order."""

import hashlib
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from colorlib import color, photos, runtime


class Photos(Dataset):
    """Photos of one size as uint8 `(3, size, size)`; the key is `(epoch, index)`.

    Args:
        files: their paths.
        size: side of the square in pixels.
        resize: "squash" to the square, or scale the short side to it and "crop" the centre.
        flip, seed: mirror each photo with probability 1/2, by a coin that depends on (seed, epoch, index) alone; with a
            seed of None nothing is random.
        crop: side of the square to cut out, at a place that depends on them too, or with a seed of None from the
            middle; None for the whole.
        pack: what `pack` made of the same files, size and resize; without it, every photo is decoded every time.
        zoom: instead of all that, scale a square to `crop` whose side is this share of the short side or more, by
            chance, from anywhere in the photo. It is decoded every time.
    """

    def __init__(self, files, size, resize="squash", flip=False, seed=0, pack=None, crop=None, zoom=None):
        if not 0 < (crop or size) <= size:
            raise ValueError(f"crop must be at most the size, {size}, not {crop!r}")
        if resize not in ("squash", "crop"):
            raise ValueError(f"resize must be 'squash' or 'crop', not {resize!r}")
        self.files = [str(file) for file in files]  # a million `Path`s would take a spawned worker seconds to receive
        self.size, self.resize, self.flip, self.seed, self.pack = size, resize, flip, seed, pack
        self.crop, self.zoom = crop or size, zoom

    def __len__(self):
        return len(self.files)

    def __getitem__(self, key):
        return self.__getitems__([key])[0]

    def __getitems__(self, keys):
        """Many photos at once, uint8 `(B, 3, crop, crop)`: what a DataLoader asks for."""
        batch = np.empty((len(keys), 3, self.crop, self.crop), dtype=np.uint8)
        for place, (epoch, index) in zip(batch, keys):
            rng = None if self.seed is None else np.random.default_rng((self.seed, epoch, index))
            mirrored = bool(rng) and self.flip and rng.random() < 0.5
            if self.zoom and rng:
                rgb = self._zoomed(index, rng)
            else:
                rgb = _opened(self.pack)[index] if self.pack else self._read(index)
                top, left = 2 * [(self.size - self.crop) // 2]
                if rng:
                    top, left = rng.integers(self.size - self.crop + 1, size=2) if self.crop < self.size else (0, 0)
                rgb = rgb[:, top : top + self.crop, left : left + self.crop]
            place[:] = rgb[:, :, ::-1] if mirrored else rgb
        return torch.from_numpy(batch)

    def _read(self, index):
        image = Image.fromarray(photos.open_photo(self.files[index]))
        box = None
        if self.resize == "crop":
            side = min(image.size)
            box = _square((image.width - side) / 2, (image.height - side) / 2, side)
        return _scaled(image, self.size, box)

    def _zoomed(self, index, rng):
        image = Image.fromarray(photos.open_photo(self.files[index]))
        side = min(image.size) * rng.uniform(self.zoom, 1)
        return _scaled(image, self.crop, _square(*rng.uniform(0, np.subtract(image.size, side)), side))


def _square(left, top, side):
    return left, top, left + side, top + side


def _scaled(image, side, box):
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box=box)).transpose(2, 0, 1)


class Readable(Photos):
    """`Photos` of which some cannot be read: a batch is `(rgb, faults)`, with a fault, or "", for every key."""

    def __getitems__(self, keys):
        found, faults = [torch.empty(0, 3, self.crop, self.crop, dtype=torch.uint8)], []
        for key in keys:
            try:
                found.append(super().__getitems__([key]))
                faults.append("")
            except (photos.PhotoError, MemoryError) as error:
                faults.append(" ".join(str(error).split()) or type(error).__name__)
        return torch.cat(found), faults


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
        collate_fn=_as_it_is,  # a batch it is already
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_keep_quiet,
        generator=torch.Generator().manual_seed(0),  # it only seeds workers; leaves the global stream alone
    )


def _as_it_is(batch):
    return batch


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
