"""What colouring a photo costs: from a cold start, beside the plain way, and from 1 to 100 megapixels.

    python -m benchmarks.colorize [--threads N]

The photo is scikit-image's astronaut, enlarged. The plain way is the usual one: scikit-image to Lab, the network on a
copy with a short side of 256, its ab enlarged bilinearly, scikit-image back to sRGB; all in memory, decoded before.
Times are the medians of some runs, each beside the other.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from scipy import ndimage
from skimage import color as skcolor
from skimage import data

from colorlib import color, models
from colorlib.colorize import colorize


def photo(megapixels):
    """The astronaut at 3:2, enlarged to so many megapixels, with the grain that enlarging takes away."""
    height = round((megapixels * 1e6 * 2 / 3) ** 0.5)
    image = Image.fromarray(data.astronaut()[:341]).resize((height * 3 // 2, height), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(0).normal(0, 3, (256, 256))
    grain = np.tile(grain, (height // 256 + 1, image.width // 256 + 1))[:height, : image.width, None]
    return (np.asarray(image) + grain).clip(0, 255).astype(np.uint8)


@torch.no_grad()
def plainly(model, rgb):
    """As most projects do it; returns the picture and the enlarged ab `(H, W, 2)`."""
    L = torch.from_numpy(skcolor.rgb2lab(rgb)[..., :1]).float().permute(2, 0, 1)[None]
    size = [
        round(256 * length / min(rgb.shape[:2])) for length in rgb.shape[:2]
    ]  # as ours, so that only the ways differ
    seen = F.interpolate(L, size=size, mode="bilinear", antialias=True)
    ab = F.interpolate(model(seen), size=rgb.shape[:2], mode="bilinear")
    lab = torch.cat([L, ab], dim=1)[0].permute(1, 2, 0).numpy()
    return (skcolor.lab2rgb(lab) * 255).round().astype(np.uint8), ab[0].permute(1, 2, 0).numpy()


def seconds(function, n=5):
    """Median of `n` runs."""
    times = []
    for _ in range(n):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def cold_start():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        Image.fromarray(photo(2)).save(path, quality=92)
        run = [sys.executable, "-m", "colorlib", str(path), "--overwrite"]
        both = [
            (
                seconds(lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True), 1),
                seconds(lambda: subprocess.run(run, check=True, stdout=subprocess.DEVNULL), 1),
            )
            for _ in range(5)
        ]
    torch_alone, ours = (statistics.median(times) for times in zip(*both))
    print(
        f"Cold start, 2 megapixels, JPEG to JPEG: {ours:.2f} s; importing torch alone: {torch_alone:.2f} s. "
        f"1.3 times that and 2 seconds are {1.3 * torch_alone + 2:.2f} s."
    )


def beside_plain(model):
    rgb = photo(12)
    colorize(model, rgb, 256), plainly(model, rgb)  # warm
    pairs = [(seconds(lambda: plainly(model, rgb), 1), seconds(lambda: colorize(model, rgb, 256), 1)) for _ in range(5)]
    ratios = [plain / ours for plain, ours in pairs]
    plain, ours = (statistics.median(times) for times in zip(*pairs))
    print(
        f"12 megapixels, warm: plain {plain:.2f} s, ours {ours:.2f} s: {statistics.median(ratios):.1f} times as fast "
        f"({min(ratios):.1f} to {max(ratios):.1f})."
    )


def colours_without_edges(model):
    """How far our colours are from the plain ones where neither L nor they have an edge nearby."""
    rgb = np.asarray(Image.fromarray(photo(1)).filter(ImageFilter.GaussianBlur(2)))
    L, _ = color.photo_to_lab(rgb)
    _, plain_ab = plainly(model, rgb)
    # In sRGB, as ours is: so that both are rounded, and where sRGB has no such colour, both give way.
    plain = color.lab_to_rgb(L, torch.from_numpy(plain_ab).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    ours, plain = (color.photo_to_lab(picture)[1][0].numpy() for picture in (colorize(model, rgb, 256), plain))
    around = 41  # pixels: what the filter's two windows reach over, in the enlarged photo
    flat = np.ones(L.shape[2:], dtype=bool)
    for channel, most in ((L[0, 0].numpy(), 6), (plain_ab[..., 0], 3), (plain_ab[..., 1], 3)):
        flat &= ndimage.maximum_filter(channel, around) - ndimage.minimum_filter(channel, around) < most
    # Rounding to 8 bits alone moves single pixels by up to 1; means of 5 x 5 do not move.
    apart = np.hypot(*(ndimage.uniform_filter(o - p, 5) for o, p in zip(ours, plain)))[flat]
    print(
        f"Where there is no edge ({flat.mean():.0%} of 1 megapixel), colours are {apart.mean():.2f} Lab units from the "
        f"plain ones on average, {np.quantile(apart, 0.99):.2f} at the 99th percentile, {apart.max():.2f} at most."
    )


def growth(threads):
    print("\n| megapixels | seconds | seconds per megapixel | peak memory, MB |\n|---|---|---|---|")
    for megapixels in (1, 4, 12, 25, 50, 100):
        run = [sys.executable, "-m", "benchmarks.colorize", "--one", str(megapixels), "--threads", str(threads)]
        print(subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip(), flush=True)


def one(megapixels):
    """A file of so many megapixels to a file, in a process of its own."""
    from colorlib.colorize import colorize_each

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        make = (
            f"from benchmarks.colorize import *; Image.fromarray(photo({megapixels})).save({str(path)!r}, quality=92)"
        )
        subprocess.run([sys.executable, "-c", make], check=True)
        model, facts = models.shipped()
        begin = time.perf_counter()
        (result,) = colorize_each(model, [(path, Path(folder) / "coloured.jpg")], facts["recipe"]["size"])
        passed = time.perf_counter() - begin
        assert result.coloured, result.note
    status = Path("/proc/self/status").read_text()  # not getrusage: it would count the parent's memory too
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    print(f"| {megapixels} | {passed:.1f} | {passed / megapixels:.2f} | {peak:,.0f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--one", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.one:
        one(given.one)
    else:
        cold_start()
        network, _ = models.shipped()
        beside_plain(network)
        colours_without_edges(network)
        growth(given.threads)
