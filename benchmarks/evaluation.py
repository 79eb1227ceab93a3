"""What each measure costs, relative to the forward pass of `resnet34`; and how memory grows with the photos.

All are timed on the same photos at 224 x 224, cut from scikit-image's scenes, in turns, in one run; the median counts.
CIEDE2000, PSNR and SSIM are scikit-image's, one picture at a time in one thread. The prediction is an untrained
network's with its colours made stronger, so that some of them are out of gamut, as a trained one's are.

    python -m benchmarks.evaluation [--photos 8] [--rounds 5]
"""

import argparse
import os
import platform
import resource
import statistics
import tempfile
import time
from pathlib import Path

import skimage
import torch
from preparing import alone, make
from skimage import metrics as reference
from skimage.color import deltaE_ciede2000, rgb2lab

from colorlib import color, evaluation, loading, losses, metrics, models, photos, runtime

SIDE = 224


def seconds(function):
    begin = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def costs(n, rounds):
    """Seconds per photo: `{what: median}`."""
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder, "photos"), n)
        photo_set = loading.Photos(photos.find_photos(Path(folder, "photos")), SIDE)
        rgb = photo_set.__getitems__([(0, i) for i in range(n)]).to(runtime.device())
    model = models.build("resnet34").eval().to(rgb.device)
    L, ab = color.rgb_to_lab(rgb)
    pred_ab = ab.mean(dim=(2, 3), keepdim=True) + 1.2 * (ab - ab.mean(dim=(2, 3), keepdim=True))
    coloured = color.lab_to_rgb(L, pred_ab)
    pairs = [[picture.permute(1, 2, 0).cpu().numpy() for picture in pair] for pair in zip(rgb, coloured)]
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}

    def each(measure):
        return lambda: [measure(*pair) for pair in pairs]

    cases = {
        "resnet34, 32 bits": lambda: losses.predict(model, L, torch.float32),
        "Lab of the truth": lambda: color.rgb_to_lab(rgb),
        "MSE": lambda: losses.mse_per_photo(pred_ab, ab),
        "MSE, its floors and both chromas": lambda: metrics.errors(pred_ab, ab, [2.0, 7.0]),
        "sRGB picture of the prediction": lambda: color.lab_to_rgb(L, pred_ab),
        "colourfulness": lambda: metrics.colourfulness(coloured),
        "CIEDE2000": each(lambda a, b: deltaE_ciede2000(rgb2lab(a), rgb2lab(b)).mean()),
        "PSNR": each(lambda a, b: reference.peak_signal_noise_ratio(a, b, data_range=255)),
        "SSIM": each(lambda a, b: reference.structural_similarity(a, b, channel_axis=2, data_range=255, **window)),
    }
    times = {name: [] for name in cases}
    with torch.no_grad():
        for turn in range(rounds + 1):
            for name, case in cases.items():
                taken = seconds(case)
                if turn:  # the first time is slower
                    times[name].append(taken / n)
    return {name: statistics.median(values) for name, values in times.items()}


class Constant(torch.nn.Module):
    """A network that costs nothing, so that what is measured is the evaluator."""

    def __init__(self):
        super().__init__()
        self.ab = torch.nn.Parameter(torch.tensor([2.0, 7.0]).view(1, 2, 1, 1))

    def forward(self, L):
        return self.ab.expand(len(L), 2, *L.shape[-2:])


def memory(folder, n, part):
    """Peak MB of a process that measures the folder's photos, over and over up to `n`, and before the first of them."""
    files = photos.find_photos(folder)
    files = [files[i % len(files)] for i in range(n)]
    predictor = evaluation.Predictor("constant", Constant(), [2.0, 7.0], "", 64)
    with tempfile.TemporaryDirectory() as out:
        evaluation.measure(predictor, files[:64], Path(out, "first.csv"), part=part)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        evaluation.measure(predictor, files, Path(out, "rows.csv"), part=part)
    return before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    print(f"Python {platform.python_version()}, torch {torch.__version__}, scikit-image {skimage.__version__}, {where}")
    found = costs(given.photos, given.rounds)
    whole = found.pop("resnet34, 32 bits")
    print(f"resnet34, 32 bits, {SIDE} x {SIDE}: {1000 * whole:.1f} ms a photo; relative to it:")
    for name, taken in found.items():
        print(f"{name:34} {taken / whole:7.4f}   ({1000 * taken:.2f} ms)")
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes to come, on small pictures
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder, "photos"), 64)
        for n in (1_000, 4_000, 16_000):
            before, peak = alone(memory, Path(folder, "photos"), n, 100)
            print(f"{n:6,} photos: {peak:.0f} MB at the peak, {before:.0f} of them after the first 64")


if __name__ == "__main__":
    main()
