"""Where a network fails: its error by true hue and chroma and by what surrounds a pixel; and why it paints brown."""

from itertools import pairwise

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from colorlib import color, metrics, scenes, tables
from colorlib.loading import Batches, Readable, loader, some
from colorlib.losses import predict

NEAR_GREY = 10  # chroma below which a hue means little, in `ab` units
# Sectors of the hue angle, from the first degree on; sRGB's red is at 40, yellow 103, green 136, cyan 196, blue 306.
HUES = {"red": 0, "orange, brown": 50, "yellow": 85, "green": 110, "cyan": 170, "blue": 220, "purple": 310}
CHROMAS = (0, 10, 20, 30, 45, 60, 200)
CONTRASTS = {"flat (under 2)": 0, "low (2 to 6)": 2, "middle (6 to 12)": 6, "busy (over 12)": 12}
_SUMS = ("pixels", "error", "grey", "train_mean", "chroma", "true_chroma")
WHEEL = 24  # sectors of the hue wheel


def local_mean(x, window):
    """Mean over a square around each pixel: `(B, C, H, W)` -> the same; at the border over what there is of it."""
    return F.avg_pool2d(x, window, stride=1, padding=window // 2, count_include_pad=False)


def local_contrast(L, window, where=None):
    """Standard deviation of L in a square around each pixel: `(B, 1, H, W)` -> the same, in units of L.

    With `where`, bool of that shape, over the pixels of the square of which it holds.
    """
    weight = torch.ones_like(L) if where is None else where.to(L.dtype)
    share = local_mean(weight, window).clamp(min=1e-6)
    mean, square = (local_mean(weight * x, window) / share for x in (L, L**2))
    return (square - mean**2).clamp(min=0).sqrt()


def hue_angle(ab):
    """`(B, 2, H, W)` -> `(B, H, W)` in degrees, [0, 360)."""
    return torch.rad2deg(torch.atan2(ab[:, 1], ab[:, 0])) % 360 % 360  # a tiny negative one becomes 360 at first


def kinds_of_pixels(L, ab):
    """Several ways to sort the pixels of photos into classes.

    Args:
        L, ab: the truth, `(B, 1, H, W)` and `(B, 2, H, W)`.

    Returns:
        `{way: (number of each pixel's class, (B, H, W), the classes' names)}`:
        "hue", by `HUES`, pixels nearer to grey than `NEAR_GREY` apart; "wheel", the same by `WHEEL` equal sectors, ""
        for near grey; "chroma", by `CHROMAS`; "contrast", by the standard deviation of L in a square of a 14th of the
        side; "detail": pixels with a chroma of over 15 alone, those of small things (see `small_things`) and the
        others, each before a plain (or blurred) or a busy background, with a contrast of under or over 10; "" for the
        rest.
    """
    chroma, angle, side = color.chroma(ab), hue_angle(ab), min(L.shape[-2:])
    small, around = small_things(L, ab)
    detail = torch.where(small, 0, 2) + (around > 10)
    sectors = [f"{k * 360 // WHEEL}" for k in range(WHEEL)]
    return {
        "hue": (_class_of(angle, HUES.values()).where(chroma >= NEAR_GREY, len(HUES)), [*HUES, "near grey"]),
        "wheel": (
            (angle // (360 / WHEEL)).long().clamp(max=WHEEL - 1).where(chroma >= NEAR_GREY, WHEEL),
            [*sectors, ""],
        ),
        "chroma": (_class_of(chroma, CHROMAS[:-1]), [f"{a} to {b}" for a, b in pairwise(CHROMAS)]),
        "contrast": (_class_of(local_contrast(L, side // 14 | 1)[:, 0], CONTRASTS.values()), list(CONTRASTS)),
        "detail": (detail.where(chroma > 15, 4), ["small, plain", "small, busy", "large, plain", "large, busy", ""]),
    }


def _class_of(values, starts):
    return torch.bucketize(values, torch.tensor(list(starts)[1:], device=values.device), right=True)


def small_things(L, ab):
    """Which pixels belong to something small of another colour than what is around it, and how busy that is.

    The surroundings are a square of about a 6th of the side. Small is what fills less than half of them: a pixel whose
    `ab` is over 15 away from their median, which the edge of a large thing does not move. (Found from means over cells
    of a 28th of the side.)

    Returns:
        `(small, contrast)`, bool and float `(B, H, W)`: the contrast is the standard deviation of L over those pixels
        around which are not small themselves.
    """
    cell = max(1, min(L.shape[-2:]) // 28)
    coarse = F.pad(F.avg_pool2d(ab, cell, ceil_mode=True, count_include_pad=False), [2] * 4, mode="replicate")
    around = coarse.unfold(2, 5, 1).unfold(3, 5, 1).flatten(-2).median(dim=-1).values
    around = F.interpolate(around, scale_factor=cell, mode="nearest")[..., : ab.shape[-2], : ab.shape[-1]]
    small = color.chroma(ab - around) > 15
    return small, local_contrast(L, 5 * cell | 1, ~small[:, None])[:, 0]


@torch.no_grad()
def by_pixel(predictor, files, *, size=None, resize=None, crop=None, batch_size=32, workers=0):
    """Sums over the pixels of each class of `kinds_of_pixels`, photo by photo, for `table_of`.

    Args:
        predictor, files, size, resize, crop, batch_size, workers: as for `evaluation.measure`; photos that cannot be
            read are passed over.

    Returns:
        `{way: DataFrame}`, indexed by photo and class: `pixels`; the squared errors on `ab_unit` of the prediction
        (`error`), all grey and the training photos' mean colour; predicted and true chroma.

    Raises:
        ValueError: if none of the photos can be read.
    """
    photo_set = Readable(files, size or predictor.size, resize or predictor.resize, seed=None, crop=crop)
    device = next(predictor.model.parameters()).device
    found, names, n = {}, {}, 0
    for rgb, _ in loader(photo_set, Batches(range(len(files)), batch_size), workers):
        if not len(rgb):
            continue
        L, ab = color.rgb_to_lab(rgb.to(device))
        pred_ab = predict(predictor.model, L, torch.float32)
        flats = metrics.floors_ab(ab, predictor.train_mean)
        values = [torch.ones_like(L[:, 0])]
        values += [((guess - ab) ** 2).mean(dim=1) / 255**2 for guess in (pred_ab, flats["grey"], flats["train_mean"])]
        values += [color.chroma(colours) for colours in (pred_ab, ab)]
        for way, (number, classes) in kinds_of_pixels(L, ab).items():
            place = number.flatten(1) + len(classes) * torch.arange(len(rgb), device=device)[:, None]
            sums = [
                torch.bincount(place.flatten(), v.flatten().double(), minlength=len(rgb) * len(classes)) for v in values
            ]
            found.setdefault(way, []).append(torch.stack(sums, dim=1).view(len(rgb), len(classes), -1).cpu())
            names[way] = classes
        n += len(rgb)
    if not n:
        raise ValueError("none of the photos could be read.")
    frames = {}
    for way, parts in found.items():
        index = pd.MultiIndex.from_product([range(n), names[way]], names=["photo", "class"])
        frames[way] = pd.DataFrame(torch.cat(parts).flatten(0, 1).numpy(), index=index, columns=_SUMS)
    return frames


def table_of(sums):
    """One way of `by_pixel` as a table: a DataFrame by class of pixels, with 95 % intervals over photos.

    `share of pixels`; MSE; that of the mean colour and of all grey on the same pixels; `explained`, from the mean
    colour; `MSE ratio to grey`, the ratio to its MSE; and `chroma ratio`.
    """
    total, lines = sums.pixels.sum(), {}
    for name in sums.index.unique("class"):
        part = sums.xs(name, level="class")
        if name and part.pixels.sum():
            n, line = part.pixels, {"share of pixels": part.pixels.sum() / total}
            line |= tables.ratio("MSE", part.error, n)
            line |= {"mean colour": part.train_mean.sum() / n.sum(), "all grey": part.grey.sum() / n.sum()}
            line |= tables.ratio("explained", part.error, part.train_mean, lambda ratio: 1 - ratio)
            line |= tables.ratio("MSE ratio to grey", part.error, part.grey)
            lines[name] = line | tables.ratio("chroma ratio", part.chroma, part.true_chroma)
    return pd.DataFrame(lines).T.rename_axis("pixels")


def everywhere(predictor, files, rows, **how):
    """All tables of where a predictor fails: by kind of scene, if paths tell it, and by each of `kinds_of_pixels`.

    Args:
        rows: what `evaluation.measure` returned for the same files.
        how: as for `by_pixel`.

    Returns:
        `{"scenes" and the names of the ways: table}`.
    """
    groups, found = scenes.of_files(files), {}
    if any(groups):
        found["scenes"] = tables.by_group(rows, groups)
    return found | {way: table_of(sums) for way, sums in by_pixel(predictor, files, **how).items()}


def strength(sums):
    """Predicted by true chroma, with its interval, for `plots.saturation`: `(true, predicted, from, to)`, a class each.

    Args:
        sums: of `by_pixel`, the way "chroma".
    """
    table, total = table_of(sums), sums.groupby("class").sum()
    true = (total.true_chroma / total.pixels)[table.index]
    return true, *(true * table[f"chroma ratio{end}"] for end in ("", " from", " to"))


def colours_by_lightness(files, n=9, size=64, workers=0, most=2000):
    """How often each colour occurs at each lightness.

    Returns:
        `(limits, counts)`: the n + 1 limits of the bands of L, and float64 `(n, Q)`, pixels by band and bin of
        `color.ab_bins`, over at most `most` evenly chosen photos.
    """
    n_bins = len(color.ab_bins())
    counts = torch.zeros(n * n_bins, dtype=torch.float64)
    for rgb in some(files, size, workers, most):
        L, ab = color.rgb_to_lab(rgb)
        band = (L[:, 0] * n / 100).long().clamp(0, n - 1)
        counts += torch.bincount((band * n_bins + color.nearest_bin(ab)).flatten(), minlength=n * n_bins)
    return np.linspace(0, 100, n + 1), counts.view(n, n_bins)


@torch.no_grad()
def by_temperature(predictor, files, temperatures, *, batch_size=32, workers=0, **photo_settings):
    """What a network that chooses among colours makes of photos at several temperatures.

    Returns:
        DataFrame by `T`: `MSE`, and `chroma ratio`, each with its 95 % interval over photos.
    """
    before, lines = predictor.model.T, {}
    try:
        for T in temperatures:
            predictor.model.T = T
            sums = by_pixel(predictor, files, batch_size=batch_size, workers=workers, **photo_settings)["chroma"]
            sums = sums.groupby("photo").sum()
            line = tables.ratio("MSE", sums.error, sums.pixels)
            lines[T] = line | tables.ratio("chroma ratio", sums.chroma, sums.true_chroma)
    finally:
        predictor.model.T = before
    return pd.DataFrame(lines).T.rename_axis("T")
