"""How preparing grows: photos per second with one thread and with one for each core, and memory with their number.

The photos are JPEGs of 500 x 375, as ImageNet's are on average, cut from scikit-image's scenes. Every case runs in a
process of its own; the cases take turns. Memory is the process's peak, and of it what the imports alone take is told
apart. The manifest of a million photos is a simulated one.

    python -m benchmarks.preparing [--photos 1000] [--rounds 3]
"""

import argparse
import multiprocessing
import os
import platform
import resource
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

SIZE = (500, 375)


def make(folder, n):
    """Write `n` different photos."""
    from colorlib import sample

    rng, scenes = np.random.default_rng(0), [Image.fromarray(rgb) for rgb in sample.scenes().values()]
    folder.mkdir()
    for i in range(n):
        scene = scenes[i % len(scenes)]
        width = rng.uniform(0.5, 1) * min(scene.width, scene.height * 4 / 3)
        left, top = rng.uniform(0, scene.width - width), rng.uniform(0, scene.height - width * 3 / 4)
        photo = scene.resize(SIZE, Image.Resampling.BICUBIC, box=(left, top, left + width, top + width * 3 / 4))
        photo.save(folder / f"{i:07d}.jpg", quality=95)


def prepare(source, threads):
    """Prepare a folder: `(photos per second, peak MB, MB of the imports, bytes per prepared photo)`."""
    from colorlib import data

    os.cpu_count = lambda: threads
    imports = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with tempfile.TemporaryDirectory() as out:
        begin = time.perf_counter()
        prepared = data.prepare(source, out)
        seconds = time.perf_counter() - begin
        size = statistics.mean(path.stat().st_size for path in prepared.files("train"))
        n = len(prepared.manifest)
    return n / seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, imports, size


def manifest(n):
    """Seconds to read the manifest of `n` photos, to list its training files, and to compute the fingerprint."""
    from colorlib import data

    with tempfile.TemporaryDirectory() as folder:
        number = pd.Series(range(n)).astype(str)
        rows = {"source": "train/n01440764/n01440764_" + number + ".JPEG", "file": "photos/000/" + number + ".jpg"}
        rows |= {"width": 500, "height": 375, "pixels": number.str.zfill(64), "reason": "", "split": "train"}
        pd.DataFrame(rows).to_csv(Path(folder, "manifest.csv"), index=False)
        prepared, times = data.Prepared(Path(folder)), []
        for use in (lambda: prepared.manifest, lambda: prepared.files("train"), lambda: prepared.fingerprint):
            begin = time.perf_counter()
            use()
            times.append(time.perf_counter() - begin)
    return times


def alone(function, *arguments):
    """The function's value, from a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    cores = os.cpu_count()
    print(f"Python {platform.python_version()}, {cores} cores")
    with tempfile.TemporaryDirectory() as folder:
        few, many = Path(folder, "few"), Path(folder, "many")
        make(few, given.photos)
        make(many, 4 * given.photos)
        one, all_ = [], []
        for _ in range(given.rounds):
            one.append(alone(prepare, few, 1))
            all_.append(alone(prepare, few, cores))
        most = alone(prepare, many, cores)
    speeds = [statistics.median(row[0] for row in rows) for rows in (one, all_)]
    print(f"one thread {speeds[0]:.0f} photos/s, {cores} threads {speeds[1]:.0f}: {speeds[1] / speeds[0]:.2f} times")
    for n, row in ((given.photos, all_[-1]), (4 * given.photos, most)):
        print(f"{n:,} photos: {row[1]:.0f} MB at the peak, {row[2]:.0f} of them before the first photo")
    print(f"a prepared photo has {most[3]:,.0f} bytes on average")
    read, files, fingerprint = alone(manifest, 1_000_000)
    print(f"a million rows: read in {read:.1f} s, listed in {files:.1f} s, fingerprint in {fingerprint:.1f} s")


if __name__ == "__main__":
    main()
