"""Photos per second of whole training steps, data included: ours against the plain way, in one run.

The same network, photos and batch. The plain way is what tutorials do: each photo is opened by Pillow, resized and
converted by scikit-image's rgb2lab in the loader, and the network computes in 32 bits with contiguous tensors. Ours
is what `fit` does: packed bytes, Lab on the device, channels_last, 16 bits where the hardware has them. Each may
choose between no worker process and two. The two take turns, and the median of their steps counts.

    python -m benchmarks.training [--size 224] [--batch 16] [--rounds 3] [--steps 4] [--model resnet34]

On a GPU the batch is 128 and a turn has 100 steps, over 20 times the same photos, unless told otherwise.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from itertools import chain, count, repeat
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from skimage.color import rgb2lab
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from colorlib import color, data, datasets, loading, models, recipes, runtime
from colorlib.trainer import Trainer

PHOTOS = Path(os.environ.get("COLORLIB_PHOTOS") or Path(__file__).parents[2] / "shared" / "photos") / "test" / "objects"
# Peak of dense 16-bit arithmetic in operations per second, from the makers' data sheets.
PEAKS = {"T4": 65e12, "V100": 125e12, "L4": 121e12, "A100": 312e12, "H100": 989e12, "H200": 989e12}


class Plain(Dataset):
    """Pillow and scikit-image, photo by photo: float32 L and ab."""

    def __init__(self, files, size):
        self.files, self.size = files, size

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        image = Image.open(self.files[index]).convert("RGB").resize((self.size, self.size), Image.Resampling.BICUBIC)
        lab = torch.from_numpy(rgb2lab(np.asarray(image))).float().permute(2, 0, 1)
        return lab[:1], lab[1:]


def plain(files, recipe, workers):
    """The plain way, step by step; gives the seconds that each step waited for its photos."""
    device = runtime.device()
    model = models.build(recipe.model).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.lr)
    batches = DataLoader(
        Plain(files, recipe.size), recipe.batch_size, shuffle=True, num_workers=workers, drop_last=True
    )
    before = time.perf_counter()
    for L, ab in chain.from_iterable(repeat(batches)):
        waiting = time.perf_counter() - before
        loss = F.mse_loss(color.to_unit(model(L.to(device))), color.to_unit(ab.to(device)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield waiting
        before = time.perf_counter()


def ours(files, recipe, workers):
    """What `fit` does, step by step; gives the seconds that each step waited for its photos."""
    packed = loading.pack(files, recipe.size, recipe.resize, files[0].parents[1] / "packs")
    photo_set = loading.Photos(files, recipe.size, recipe.resize, recipe.flip, recipe.seed, packed)
    trainer = Trainer(recipe, 1)
    epochs = (loading.Batches(range(len(files)), recipe.batch_size, epoch=epoch, seed=0) for epoch in count())
    before = time.perf_counter()
    for rgb in chain.from_iterable(loading.loader(photo_set, order, workers) for order in epochs):
        waiting = time.perf_counter() - before
        if len(rgb) == recipe.batch_size:
            trainer.step(rgb, len(rgb))
            yield waiting
        before = time.perf_counter()


def turn(steps, n, batch):
    """Photos per second and the share of waiting over `n` steps, after two that warm up."""
    for _ in range(2):
        next(steps)
    synchronize()
    begin = time.perf_counter()
    waiting = sum(next(steps) for _ in range(n))
    synchronize()
    seconds = time.perf_counter() - begin
    return n * batch / seconds, waiting / seconds


def synchronize():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def operations(recipe):
    """Multiplications and additions of a training step, per photo."""
    model, counter = models.build(recipe.model).to(runtime.device()), FlopCounterMode(display=False)
    with counter:
        model(torch.rand(1, 1, recipe.size, recipe.size, device=runtime.device()) * 100).sum().backward()
    return counter.get_total_flops()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    gpu = torch.cuda.is_available()
    defaults = {"size": 224, "batch": 128 if gpu else 16, "rounds": 3, "steps": 100 if gpu else 4}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--model", default="resnet34", choices=models.MODELS)
    given = parser.parse_args()
    recipe = recipes.Recipe("benchmark", "", given.model, size=given.size, batch_size=given.batch)
    with tempfile.TemporaryDirectory() as folder:
        source = PHOTOS if PHOTOS.is_dir() else datasets.fetch("sample", Path(folder))
        files = data.prepare(source, folder, val=0, test=0, keep_grey=True).files("train") * (20 if gpu else 1)
        contestants = [(way, workers) for way in (plain, ours) for workers in (0, 2)]
        results = {key: [] for key in contestants}
        for _ in range(given.rounds):
            for way, workers in contestants:
                results[way, workers].append(turn(way(files, recipe, workers), given.steps, given.batch))
    device = runtime.device()
    print(f"\n{given.model} at {given.size}, batch {given.batch}, {len(files)} photos; medians of {given.rounds} turns")
    best = {}
    for (way, workers), values in results.items():
        speed, waiting = (statistics.median(column) for column in zip(*values))
        print(f"{way.__name__:6} {workers} workers: {speed:7.1f} photos/s, waiting for photos {waiting:.1%}")
        best[way] = max(best.get(way, (0, 0)), (speed, waiting))
    precision = str(runtime.precision(device)).removeprefix("torch.")
    print(f"Ours in {precision}: {best[ours][0] / best[plain][0]:.2f} times the plain way, each at its best.")
    name = torch.cuda.get_device_name() if gpu else f"{os.cpu_count()} CPU cores"
    if peak := next((peak for part, peak in PEAKS.items() if part in name), None):
        print(f"Fraction of the card's 16-bit peak: {operations(recipe) * best[ours][0] / peak:.1%}")
    print(f"{name}, torch {torch.__version__}, {platform.platform()}")


if __name__ == "__main__":
    main()
