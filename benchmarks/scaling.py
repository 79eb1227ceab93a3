"""How loading grows with the number of photos and of workers: start of an epoch, photos per second, memory.

A set of N photos is simulated: N entries that point to a few real JPEGs in turn ("files"), or to a pack of N photos
that is one hole in the file system ("pack"): zeros, in the system's cache as a pack is that was just written or read.
Every case runs in a process of its own, with the list of N paths kept alive as training does. An epoch starts with
drawing its 40 % of the photos and ends here after at most 100 batches. Memory is the processes' proportional share
(PSS; Linux only); what maps files, a pack among them, the system can take back at any time: it is told apart.

A spawned worker imports PyTorch first. Where the list of photos is longer than a pipe's buffer, the next one is started
only when this one has taken it, so that two take twice as long.

    python -m benchmarks.scaling [--most 1000000] [--epochs 3]
"""

import argparse
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice, product
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from colorlib import loading

SIZE, BATCH, MOST_BATCHES = 32, 32, 100
GOAL = 5  # seconds
WAYS = ((0, ""), (2, "fork"), (2, "spawn"))


def entries(n, folder):
    """`n` paths of the form that a prepared set's have: links to a few JPEGs, each named many times."""
    files = sorted((folder / "photos").iterdir())
    return [folder / "photos" / files[i % len(files)].name for i in range(n)]


def hole(n, folder):
    """A pack of `n` photos without anything in it, read once."""
    path = folder / f"{n}.npy"
    if not path.exists():
        np.lib.format.open_memmap(path, "w+", np.uint8, (n, 3, SIZE, SIZE))
        with open(path, "rb") as stream:
            while stream.read(2**24):
                pass
    return path


def memory(processes):
    """Megabytes of the processes together: `(their own, mapped from files)`."""
    own = mapped = 0
    for pid in processes:
        path = Path(f"/proc/{pid}/smaps_rollup")
        if not path.is_file():
            return float("nan"), float("nan")
        kb = {line.split(":")[0]: int(line.split()[1]) for line in path.read_text().splitlines()[1:]}
        own, mapped = own + kb["Pss"] - kb["Pss_File"], mapped + kb["Pss_File"]
    return own / 1024, mapped / 1024


def measure(n, kind, workers, method, epochs, folder):
    """Medians over some epochs, a dict; runs in a process of its own."""
    if method:
        multiprocessing.set_start_method(method, force=True)
    torch.set_num_threads(1)
    files = entries(n, folder)
    pack = hole(n, folder) if kind == "pack" else None
    begin = time.perf_counter()
    photo_set = loading.Photos(files, SIZE, flip=True, pack=pack)
    rows = [{"photos": time.perf_counter() - begin}]
    for epoch in range(epochs):
        begin = time.perf_counter()
        order = loading.Batches(loading.draw_subset(n, 0.4, 0, epoch), BATCH, epoch=epoch, seed=0)
        batches = iter(loading.loader(photo_set, order, workers))
        next(batches)
        first = time.perf_counter()
        count = sum(len(batch) for batch in islice(batches, min(MOST_BATCHES, len(order) - 2)))  # workers live
        speed = count / (time.perf_counter() - first)
        helpers = [worker.pid for worker in getattr(batches, "_workers", [])]
        row = {"start": first - begin, "speed": speed}
        row["main"], row["main mapped"] = memory([os.getpid()])
        row["workers"], row["workers mapped"] = memory(helpers)
        rows.append(row)
        del batches
    return {key: statistics.median(row[key] for row in rows if key in row) for key in rows[0] | rows[1]}


def scenes(folder):
    """A few JPEGs of about the size of this project's training photos."""
    from colorlib import sample  # with scikit-image, for which no spawned worker should wait

    folder.mkdir()
    for i, scene in enumerate(sample.scenes().values()):
        Image.fromarray(scene).resize((170, 128)).save(folder / f"{i:07d}.jpg", quality=95)


def show(n, kind, workers, method, row):
    print(
        f"{n:<10,}{kind:7}{workers} {method:8}| {row['photos']:8.2f} {row['start']:12.2f} | {row['speed']:8,.0f} | "
        f"{row['main']:5.0f} {row['main mapped']:11.0f}       | {row['workers']:5.0f} {row['workers mapped']:11.0f}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--most", type=int, default=10**6)
    parser.add_argument("--epochs", type=int, default=3)
    given = parser.parse_args()
    numbers = [10**k for k in range(3, 10) if 10**k <= given.most]
    print(f"{'':27}| seconds               |          | MB of the first process | MB of the workers")
    print(
        "photos    kind   workers   | Photos() to 1st batch | photos/s | own   mapped files      | own   mapped files"
    )
    starts = {}
    with tempfile.TemporaryDirectory() as folder:
        scenes(Path(folder) / "photos")
        for kind, (workers, method), n in product(("files", "pack"), WAYS, numbers):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                row = pool.submit(measure, n, kind, workers, method, given.epochs, Path(folder)).result()
            show(n, kind, workers, method, row)
            starts[n, kind, method] = row["start"]
    few, many = (
        {m: max(starts[n, k, m] for k in ("files", "pack")) for _, m in WAYS} for n in (numbers[0], numbers[-1])
    )
    print(
        f"\nAn epoch over {numbers[-1]:,} photos starts within {many['']:.2f} s without workers, {many['fork']:.2f} s "
        f"with two that are forked and\n{many['spawn']:.2f} s with two that are spawned (over {numbers[0]:,} photos "
        f"{few['spawn']:.2f} s, nearly all of it imports); the goal of under {GOAL} s\nis "
        f"{'reached' if max(many.values()) < GOAL else 'missed'}. "
        f"Medians of {given.epochs} epochs, the slower kind; batches of {BATCH} at {SIZE} x {SIZE}; {os.cpu_count()} "
        f"cores, Python {platform.python_version()}, torch {torch.__version__}."
    )


if __name__ == "__main__":
    main()
