"""Errors by kind of pixel against slow computations of the same, in double precision; and why the mean is brown."""

import os
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import ndimage
from skimage import data as samples

from colorlib import color, evaluation, failures, losses, metrics, scenes, tables
from colorlib.evaluation import Predictor
from colorlib.loading import Photos

pytestmark = pytest.mark.usefixtures("one_thread")

PRIMARIES = {
    "red": ((255, 0, 0), 40),
    "yellow": ((255, 255, 0), 103),
    "green": ((0, 255, 0), 136),
    "cyan": ((0, 255, 255), 196),
    "blue": ((0, 0, 255), 306),
}
SMALL, LARGE, REST = ("small, plain", "small, busy"), ("large, plain", "large, busy"), ""
PHOTOS = Path(os.environ.get("COLORLIB_PHOTOS") or Path(__file__).parents[2] / "shared" / "photos")
TRAIN_MEAN = [3.0, 9.0]
BINS = color.ab_bins()


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def lab_of(rgb):
    """One colour or a list of them -> (L, ab), a batch of one row."""
    return color.photo_to_lab(np.uint8(rgb).reshape(1, -1, 3))


def ab_of(*colours):
    """Points of the ab plane -> (1, 2, 1, W)."""
    return torch.tensor(colours, dtype=torch.float32).T.view(1, 2, 1, -1)


def names_of(L, ab):
    """`{way: array of the pixels' classes, (B, H, W)}`."""
    return {way: np.array(names)[number.numpy()] for way, (number, names) in failures.kinds_of_pixels(L, ab).items()}


def classes_of(*colours, L=50.0):
    """The classes of single colours, each a photo of one pixel: `{way: [name, ...]}`."""
    ab = torch.tensor(colours, dtype=torch.float32).view(-1, 2, 1, 1)
    return {way: names[:, 0, 0].tolist() for way, names in names_of(torch.full_like(ab[:, :1], L), ab).items()}


@pytest.fixture(scope="module")
def files(photo_folder, tmp_path_factory):
    """42 photos, two of three with red, green and blue exchanged, so that every hue is met."""
    folder = tmp_path_factory.mktemp("rolled")
    for i, file in enumerate(sorted(photo_folder.glob("*/*.png"))):
        with Image.open(file) as photo:
            for k in (i, i + 1):
                Image.fromarray(np.roll(photo, k, axis=2)).save(folder / f"{file.stem}-{k % 3}.png")
    return sorted(folder.iterdir())  # 80 x 64: at size 64, cropped, nothing is resized


@pytest.fixture(scope="module")
def crops(files):
    """(L, ab) of the middle of every photo, float32."""
    photos = Photos(files, 64, "crop", seed=None)
    return color.rgb_to_lab(torch.stack([photos[0, i] for i in range(len(files))]))


class Answer(torch.nn.Module):
    """Gives back what it was made with, whatever it is asked: one answer for all, or a batch."""

    def __init__(self, ab):
        super().__init__()
        self.ab = torch.nn.Parameter(torch.as_tensor(ab, dtype=torch.float32))

    def forward(self, L):
        return self.ab.expand(len(L), 2, *L.shape[-2:])


def predictor_of(model, train_mean=TRAIN_MEAN, size=64):
    return Predictor("the model", model, train_mean, "0" * 64, size, "crop")


def flat(ab, train_mean=TRAIN_MEAN):
    """Paints one colour."""
    return predictor_of(Answer(torch.tensor(ab).view(1, 2, 1, 1)), train_mean)


@pytest.fixture(scope="module")
def sums(files, crops):
    """Of a network that is right up to noise, for the tables."""
    guess = 0.5 * crops[1] + 8 * torch.randn(crops[1].shape, generator=rng())
    return failures.by_pixel(predictor_of(Answer(guess)), files, batch_size=len(files))


# --- what surrounds a pixel ---


@pytest.mark.parametrize("window", [1, 3, 5, 9])
@pytest.mark.parametrize("size", [(16, 23), (9, 9), (4, 7), (1, 5)])
def test_the_mean_around_a_pixel_is_over_what_there_is_of_the_square(size, window):
    x = 100 * torch.rand(2, 2, *size, generator=rng(), dtype=torch.float64)
    expected = np.empty(x.shape)
    for y, z in np.ndindex(size):
        square = x[..., max(0, y - window // 2) : y + window // 2 + 1, max(0, z - window // 2) : z + window // 2 + 1]
        expected[..., y, z] = square.mean(dim=(2, 3)).numpy()
    np.testing.assert_allclose(failures.local_mean(x, window).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("window", [3, 5, 9])
def test_contrast_is_the_standard_deviation_around_a_pixel(crops, window):
    # Outside the photo is NaN, which nanstd passes over.
    expected = [
        ndimage.generic_filter(L[0].double().numpy(), np.nanstd, size=window, mode="constant", cval=np.nan)
        for L in crops[0][:2, :, :32, :40]
    ]
    found = failures.local_contrast(crops[0][:2, :, :32, :40], window)[:, 0]
    np.testing.assert_allclose(found, expected, atol=0.03)  # in float32 a small variance is what is left of L squared
    assert np.max(expected) > 10


@pytest.mark.parametrize("L", [0.0, 33.3, 100.0])
def test_a_flat_ground_has_no_contrast(L):
    found = failures.local_contrast(torch.full((1, 1, 20, 30), L), 5)
    assert found.isfinite().all() and found.max() < 0.1


# --- hue, chroma ---


@pytest.mark.parametrize("name", PRIMARIES)
def test_primaries_have_the_angles_that_are_stated_and_the_names_of_their_classes(name):
    rgb, degrees = PRIMARIES[name]
    L, ab = lab_of(rgb)
    assert failures.hue_angle(ab).item() == pytest.approx(degrees, abs=0.5)
    names = names_of(L, ab)
    assert names["hue"].item() == name
    assert int(names["wheel"].item()) <= degrees < int(names["wheel"].item()) + 360 / failures.WHEEL


@pytest.mark.parametrize(
    ("rgb", "name"),
    [((255, 0, 255), "purple"), ((255, 165, 0), "orange, brown"), ((139, 69, 19), "orange, brown")],
)
def test_so_do_colours_with_a_name_of_their_own(rgb, name):
    assert names_of(*lab_of(rgb))["hue"].item() == name


@pytest.mark.parametrize("lightness", [0.25, 0.5, 1])
def test_darker_primaries_are_in_the_same_classes(lightness):
    for name, (rgb, _) in PRIMARIES.items():
        assert names_of(*lab_of(np.multiply(rgb, lightness)))["hue"].item() == name


@pytest.mark.parametrize("level", [0, 1, 64, 128, 254, 255])
def test_grey_has_no_hue(level):
    names = names_of(*lab_of((level, level, level)))
    assert names["hue"].item() == "near grey" and names["wheel"].item() == "" and names["chroma"].item() == "0 to 10"


@pytest.mark.parametrize(
    ("ab", "hue", "sector", "chroma"),
    [
        ((10, 0), "red", "0", "10 to 20"),  # where near grey ends, and where the circle begins
        ((9.999, 0), "near grey", "", "0 to 10"),
        ((-6, 8), "green", "120", "10 to 20"),
        ((20, 0), "red", "0", "20 to 30"),
        ((16, 12), "red", "30", "20 to 30"),
        ((15.999, 12), "red", "30", "10 to 20"),
        ((0, 45), "yellow", "90", "45 to 60"),
        ((-60, 0), "cyan", "180", "60 to 200"),
        ((0, -30), "blue", "270", "30 to 45"),
        ((30, -1e-6), "red", "0", "30 to 45"),  # in single precision a full turn
        ((30, -0.01), "purple", "345", "30 to 45"),
        ((20, 30), "orange, brown", "45", "30 to 45"),
        ((127, 127), "red", "45", "60 to 200"),
    ],
)
def test_classes_begin_with_their_first_value(ab, hue, sector, chroma):
    found = classes_of(ab)
    assert (found["hue"], found["wheel"], found["chroma"]) == ([hue], [sector], [chroma])


def test_hues_begin_where_they_are_said_to():
    starts = list(failures.HUES.values())
    for name, start in failures.HUES.items():
        inside, before = (np.deg2rad(start + by) for by in (0.01, -0.01))
        colours = [(40 * np.cos(angle), 40 * np.sin(angle)) for angle in (inside, before)]
        previous = list(failures.HUES)[starts.index(start) - 1]
        assert classes_of(*colours)["hue"] == [name, previous]


def slow_small(L, ab):
    """Of one photo: how far the pixels are from the median around them, and the contrast there without small things."""
    height, width = L.shape
    cell = max(1, min(L.shape) // 28)
    rows, columns = -(-height // cell), -(-width // cell)
    cells = np.zeros((2, rows, columns))
    for y, x in np.ndindex(rows, columns):
        cells[:, y, x] = ab[:, y * cell : (y + 1) * cell, x * cell : (x + 1) * cell].mean(axis=(1, 2))
    median = np.stack([ndimage.median_filter(channel, size=5, mode="nearest") for channel in cells])
    away = np.hypot(*(ab - median.repeat(cell, axis=1).repeat(cell, axis=2)[:, :height, :width]))
    kept = np.where(away > 15, np.nan, L)
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # there may be nothing but small things
        std = ndimage.generic_filter(kept, np.nanstd, size=5 * cell + (cell % 2 == 0), mode="constant", cval=np.nan)
    return away, np.nan_to_num(std)


def slow_kinds(L, ab):
    """Of one photo, float64 `(H, W)` and `(2, H, W)`: `{way: (numbers of the classes, how far from a border)}`."""
    chroma, angle = np.hypot(*ab), np.degrees(np.arctan2(ab[1], ab[0])) % 360
    window = min(L.shape) // 14
    near = ndimage.generic_filter(L, np.nanstd, size=window + (window % 2 == 0), mode="constant", cval=np.nan)
    away, around = slow_small(L, ab)

    def number(x, limits):
        return np.digitize(x, limits), np.min([np.abs(x - limit) for limit in limits], axis=0)

    hue, from_hue = number(angle, [50, 85, 110, 170, 220, 310])
    sector, from_sector = number(angle, 15 * np.arange(1, 24))
    strength, from_strength = number(chroma, [10, 20, 30, 45, 60])
    contrast, from_contrast = number(near, [2, 6, 12])
    small, from_small = number(away, [15])
    busy, from_busy = number(around, [10])
    grey, from_grey = chroma < 10, np.abs(chroma - 10)
    from_grey = np.where(grey, from_grey, np.minimum.reduce([from_grey, angle, 360 - angle]))
    weak, from_weak = chroma <= 15, np.abs(chroma - 15)
    from_detail = np.where(weak, from_weak, np.minimum.reduce([from_weak, from_small, from_busy]))
    return {
        "hue": (np.where(grey, 7, hue), np.where(grey, from_grey, np.minimum(from_grey, from_hue))),
        "wheel": (np.where(grey, 24, sector), np.where(grey, from_grey, np.minimum(from_grey, from_sector))),
        "chroma": (strength, from_strength),
        "contrast": (contrast, from_contrast),
        "detail": (np.where(weak, 4, 2 * (1 - small) + busy), from_detail),
    }


def test_classes_of_photos_equal_a_slow_computation(crops):
    crops, met = [part[::3] for part in crops], {}
    kinds = failures.kinds_of_pixels(*crops)
    for i, (L, ab) in enumerate(zip(*(part.double().numpy() for part in crops))):
        for way, (expected, distance) in slow_kinds(L[0], ab).items():
            sure = distance > 2e-3  # nearer to a border, single precision may decide otherwise
            assert sure.mean() > 0.99
            np.testing.assert_array_equal(kinds[way][0][i].numpy()[sure], expected[sure], err_msg=way)
            met.setdefault(way, set()).update(np.unique(expected).tolist())
    missed = {way: len(names) - len(met[way]) for way, (_, names) in kinds.items()}
    assert missed.pop("wheel") < 8 and set(missed.values()) == {0}


def test_every_pixel_is_in_exactly_one_class_of_each_way(files):
    noise = torch.randint(0, 256, (2, 3, 40, 30), generator=rng(), dtype=torch.uint8)
    noise[1] = noise[1, :1]
    for way, (number, names) in failures.kinds_of_pixels(*color.rgb_to_lab(noise)).items():
        assert number.shape == (2, 40, 30), way
        assert 0 <= number.min() and number.max() < len(names), way
        assert len(set(names)) == len(names), way
    for way, frame in failures.by_pixel(flat([0.0, 0.0]), files).items():
        assert (frame.pixels.groupby("photo").sum() == 64 * 64).all(), way


# --- small things ---


@pytest.mark.parametrize(("step", "side"), [(10, 50), (3, 170)])
def test_small_things_are_looked_for_in_cells_of_a_28th_of_the_side(step, side):
    L, ab = color.photo_to_lab(samples.astronaut()[::step, ::step][:side])
    small, around = failures.small_things(L, ab)
    away, contrast = slow_small(L[0, 0].double().numpy(), ab[0].double().numpy())
    sure = np.abs(away - 15) > 2e-3
    np.testing.assert_array_equal(small[0].numpy()[sure], (away > 15)[sure])
    assert 0.02 < (away > 15).mean() < 0.5
    assert sure.mean() > 0.999  # else the contrasts around could not be compared
    np.testing.assert_allclose(around[0], contrast, atol=0.1)


def ground(busy, colour=(0.0, 0.0), size=70):
    """A picture of one colour, of L 44, or of L 4 and 84 in squares of 2 x 2: as large as the cells."""
    L = np.full((size, size), 44.0)
    if busy:
        L += 40 * (2 * ((np.indices(L.shape) // 2).sum(axis=0) % 2) - 1)
    ab = torch.tensor(colour).view(1, 2, 1, 1).expand(1, 2, size, size).clone()
    return torch.from_numpy(L)[None, None].float(), ab


def details(L, ab):
    return names_of(L, ab)["detail"][0]


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize(("corner", "side"), [((34, 30), 1), ((34, 30), 2), ((34, 30), 4), ((0, 0), 2), ((0, 40), 4)])
@pytest.mark.parametrize("colour", [(0.0, 0.0), (-30.0, 10.0)])
def test_a_small_coloured_thing_is_told_from_its_background(busy, corner, side, colour):
    L, ab = ground(busy, colour)
    inside = np.zeros((70, 70), dtype=bool)
    inside[corner[0] : corner[0] + side, corner[1] : corner[1] + side] = True
    ab[:, 0, inside], ab[:, 1, inside] = 40.0, 20.0
    L[:, :, inside] = 90.0  # its own lightness makes no background busy
    names = details(L, ab)
    assert set(names[inside]) == {SMALL[busy]}
    assert set(names[~inside]) == {LARGE[busy] if any(colour) else REST}  # close to it, too


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("colour", [(0.0, 0.0), (-30.0, 10.0)])
def test_a_large_thing_is_none_to_its_very_edge(busy, colour):
    L, ab = ground(busy, colour)
    ab[:, 0, :, 30:], ab[:, 1, :, 30:] = 40.0, 20.0
    names = details(L, ab)
    assert set(names[:, 30:].flatten()) == {LARGE[busy]}
    assert set(names[:, :30].flatten()) == {LARGE[busy] if any(colour) else REST}


@pytest.mark.parametrize(("width", "kind"), [(2, SMALL), (4, SMALL), (6, LARGE), (20, LARGE)])
def test_small_is_what_fills_less_than_half_of_the_10_pixels_around(width, kind):
    L, ab = ground(False)
    ab[:, 1, :, 30 : 30 + width] = -50.0
    names = details(L, ab)
    assert set(names[:, 30 : 30 + width].flatten()) == {kind[0]} and set(names[:, :30].flatten()) == {REST}


@pytest.mark.parametrize(
    ("colour", "thing", "name"),
    [
        ((0.0, 0.0), (14.95, 0.0), REST),  # nearly grey itself
        ((0.0, 0.0), (15.05, 0.0), SMALL[0]),
        ((20.0, 0.0), (34.95, 0.0), LARGE[0]),
        ((20.0, 0.0), (35.05, 0.0), SMALL[0]),
        ((20.0, 0.0), (20.0, -15.05), SMALL[0]),
        ((20.0, 0.0), (2.0, 0.0), REST),  # a grey thing on a coloured ground
    ],
)
def test_a_faint_thing_is_no_small_coloured_thing(colour, thing, name):
    L, ab = ground(False, colour)
    ab[0, :, 30:32, 30:32] = torch.tensor(thing).view(2, 1, 1)
    assert set(details(L, ab)[30:32, 30:32].flatten()) == {name}


@pytest.mark.parametrize(("deviation", "busy"), [(9.9, False), (10.1, True)])
def test_busy_is_a_contrast_of_10_and_more(deviation, busy):
    L, ab = ground(False)
    L += deviation * torch.from_numpy(2.0 * (np.indices((70, 70)).sum(axis=0) % 2) - 1).float()
    ab[0, 0, 30:32, 30:32] = 40.0
    # 117 of the 121 pixels around it count: those of the thing are balanced, too.
    assert set(details(L, ab)[30:32, 30:32].flatten()) == {SMALL[busy]}


@pytest.mark.parametrize(("side", "window"), [(64, 5), (128, 9), (224, 17), (13, 1)])
def test_contrast_is_looked_for_in_a_14th_of_the_side(side, window):
    L = torch.full((1, 1, side, side + 8), 50.0)
    L[:, :, :, side // 2 :] = 90.0  # an edge, which a window sees up to its half
    flat_ones = names_of(L, torch.zeros(1, 2, side, side + 8))["contrast"][0, side // 2] == "flat (under 2)"
    assert (~flat_ones).sum() == window - 1


# --- sums over pixels ---


def slow_sums(pred_ab, ab, number, n_classes, train_mean=TRAIN_MEAN):
    """One photo's sums by class: float64 (n_classes, 6)."""
    pred_ab, ab = pred_ab.double().numpy(), ab.double().numpy()
    guesses = [pred_ab, np.zeros_like(ab), np.array(train_mean)[:, None, None]]
    values = [np.ones(ab.shape[1:])]
    values += [(((guess + 128) / 255 - (ab + 128) / 255) ** 2).mean(axis=0) for guess in guesses]
    values += [np.hypot(*pred_ab), np.hypot(*ab)]
    return np.array([[value[number == k].sum() for value in values] for k in range(n_classes)])


def test_sums_equal_a_slow_computation_photo_by_photo(files, crops, painter):
    found = failures.by_pixel(predictor_of(painter), files, batch_size=4)
    assert list(found) == ["hue", "wheel", "chroma", "contrast", "detail"]
    L, ab = crops
    with torch.no_grad():
        pred_ab = painter(L)
    for way, (number, names) in failures.kinds_of_pixels(L, ab).items():
        frame = found[way]
        assert frame.columns.tolist() == ["pixels", "error", "grey", "train_mean", "chroma", "true_chroma"]
        assert frame.index.tolist() == [(photo, name) for photo in range(len(files)) for name in names]
        for i in range(len(files)):
            expected = slow_sums(pred_ab[i], ab[i], number[i].numpy(), len(names))
            # Each pixel's values are computed in single precision, to about 1e-6 of themselves, and summed in double.
            np.testing.assert_allclose(frame.loc[i].to_numpy(), expected, rtol=1e-5, atol=1e-7, err_msg=f"{way} {i}")
    assert set(frame.dtypes) == {np.dtype("float64")}


def test_over_all_classes_they_are_the_errors_of_the_photos(files, crops, painter, tmp_path):
    judged, measured = predictor_of(painter), {}
    measured["errors"] = pd.DataFrame(metrics.errors(painter(crops[0]).detach(), crops[1], TRAIN_MEAN))
    measured["measure"] = evaluation.measure(judged, files, tmp_path / "rows.csv", part=0)
    columns = {"mse": "error", "mse_grey": "grey", "mse_train_mean": "train_mean"}
    columns |= {name: name for name in ("chroma", "true_chroma")}
    for way, frame in failures.by_pixel(judged, files).items():
        total = frame.groupby("photo").sum()
        for name, rows in measured.items():
            for column, of in columns.items():
                means = total[of] / total.pixels
                np.testing.assert_allclose(rows[column], means, rtol=2e-5, err_msg=f"{way} {name} {column}")


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_batches_do_not_matter(files, painter, batch_size):
    again = failures.by_pixel(predictor_of(painter), files, batch_size=batch_size)
    for way, frame in failures.by_pixel(predictor_of(painter), files, batch_size=7).items():
        pd.testing.assert_frame_equal(again[way], frame, rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("places", [(0,), (1, 2), (0, 1, 2, 6)])
def test_photos_that_cannot_be_read_are_passed_over(files, painter, tmp_path, places, batch_size):
    good, mixed = files[:4], list(files[:4])
    for place in places:
        broken = tmp_path / f"{place}.jpg"
        broken.write_bytes(b"no picture")
        mixed.insert(place, broken)
    expected = failures.by_pixel(predictor_of(painter), good)
    for way, frame in failures.by_pixel(predictor_of(painter), mixed, batch_size=batch_size).items():
        pd.testing.assert_frame_equal(frame, expected[way], rtol=1e-6)


@pytest.mark.parametrize(
    ("asked", "photos"),
    [
        ({}, {"size": 64, "resize": "crop"}),
        ({"size": 40}, {"size": 40, "resize": "crop"}),
        ({"resize": "squash"}, {"size": 64, "resize": "squash"}),
        ({"crop": 32}, {"size": 64, "resize": "crop", "crop": 32}),
        ({"size": 48, "resize": "squash", "crop": 20}, {"size": 48, "resize": "squash", "crop": 20}),
    ],
)
def test_photos_are_cut_as_the_predictor_was_trained_unless_asked_otherwise(files, asked, photos):
    frame = failures.by_pixel(flat([0.0, 0.0]), files[:3], **asked)["hue"].groupby("photo").sum()
    photo_set = Photos(files[:3], **photos, seed=None)
    ab = color.rgb_to_lab(torch.stack([photo_set[0, i] for i in range(3)]))[1]
    assert (frame.pixels == ab[0, 0].numel()).all()
    expected = torch.linalg.vector_norm(ab, dim=1).double().sum(dim=(1, 2))
    np.testing.assert_allclose(frame.true_chroma, expected, rtol=1e-6)


def test_the_network_is_asked_for_its_colours_without_gradients(files, painter):
    seen = []
    painter.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    failures.by_pixel(predictor_of(painter), files[:2])
    assert seen == [False]


# --- tables ---


def table_by_hand(frame, name):
    """The line of one class, from the sums over all photos."""
    part = frame.xs(name, level="class").sum()
    return {
        "share of pixels": part.pixels / frame.pixels.sum(),
        "MSE": part.error / part.pixels,
        "mean colour": part.train_mean / part.pixels,
        "all grey": part.grey / part.pixels,
        "explained": 1 - part.error / part.train_mean,
        "MSE ratio to grey": part.error / part.grey,
        "chroma ratio": part.chroma / part.true_chroma,
    }


@pytest.mark.parametrize("way", ["hue", "wheel", "chroma", "contrast", "detail"])
def test_a_table_has_the_ratios_of_the_sums_with_their_intervals(sums, way):
    found = failures.table_of(sums[way])
    pixels = sums[way].pixels.groupby("class", sort=False).sum()
    names = [name for name in pixels.index[pixels > 0] if name]
    assert found.index.tolist() == names and len(names) >= 4
    for name in names:
        expected = table_by_hand(sums[way], name)
        assert found.loc[name, list(expected)].to_dict() == pytest.approx(expected, rel=1e-9)
    for column in ("MSE", "explained", "MSE ratio to grey", "chroma ratio"):
        low, high, value = (found[f"{column}{end}"] for end in (" from", " to", ""))
        there = low.notna()
        assert there.any() or way == "wheel"  # few photos have colours of one sector
        assert (low[there] < value[there]).all() and (value[there] < high[there]).all(), column
    assert len(found.columns) == 7 + 2 * 4


@pytest.mark.parametrize("way", ["hue", "chroma", "contrast"])
def test_shares_of_pixels_sum_to_one(sums, way):
    assert failures.table_of(sums[way])["share of pixels"].sum() == pytest.approx(1, rel=1e-12)


def test_the_wheel_leaves_out_what_has_no_hue(sums):
    share = {way: failures.table_of(sums[way])["share of pixels"] for way in ("hue", "wheel")}
    assert 0.05 < share["hue"]["near grey"] < 0.95
    assert share["wheel"].sum() + share["hue"]["near grey"] == pytest.approx(1, rel=1e-12)


def test_small_and_large_things_are_what_has_a_chroma_of_15(sums, crops):
    share = (torch.linalg.vector_norm(crops[1], dim=1) > 15).double().mean().item()
    assert failures.table_of(sums["detail"])["share of pixels"].sum() == pytest.approx(share, rel=1e-3) and share < 0.9


@pytest.mark.parametrize("way", ["hue", "chroma", "contrast", "detail"])
def test_who_tells_the_truth_explains_all_of_it(files, crops, way):
    told = failures.by_pixel(predictor_of(Answer(crops[1])), files, batch_size=len(files))
    found = failures.table_of(told[way])
    assert (found.MSE == 0).all() and (found["explained"] == 1).all() and (found["MSE ratio to grey"] == 0).all()
    np.testing.assert_allclose(found["chroma ratio"], 1, rtol=1e-12)


@pytest.mark.parametrize("way", ["hue", "chroma", "contrast", "detail"])
def test_all_grey_is_as_wrong_as_grey_and_has_no_chroma(files, way):
    found = failures.table_of(failures.by_pixel(flat([0.0, 0.0]), files)[way])
    there = found["MSE ratio to grey from"].notna()
    assert there.any() and (found["MSE ratio to grey"] == 1).all()
    assert (found.loc[there, ["MSE ratio to grey from", "MSE ratio to grey to"]].to_numpy() == 1).all()
    assert (found["chroma ratio"] == 0).all()
    np.testing.assert_allclose(found.MSE, found["all grey"], rtol=1e-12)


@pytest.mark.parametrize("way", ["hue", "chroma", "contrast", "detail"])
def test_who_paints_the_training_mean_explains_nothing(files, way):
    found = failures.table_of(failures.by_pixel(flat(TRAIN_MEAN), files)[way])
    assert (found["explained"] == 0).all()
    np.testing.assert_allclose(found.MSE, found["mean colour"], rtol=1e-12)
    assert found["chroma ratio"].nunique() == len(found)  # but in each class it is another share of the truth


def test_classes_without_a_pixel_are_left_out(tmp_path):
    Image.new("RGB", (64, 64), PRIMARIES["blue"][0]).save(tmp_path / "blue.png")
    found = failures.by_pixel(flat([0.0, 0.0]), [tmp_path / "blue.png"])
    lines = {way: failures.table_of(frame).index.tolist() for way, frame in found.items()}
    assert lines == {
        "hue": ["blue"], "wheel": ["300"], "chroma": ["60 to 200"], "contrast": ["flat (under 2)"],
        "detail": ["large, plain"],
    }  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("n_photos", "n_blue"), [(1, 1), (2, 1), (19, 3), (20, 1), (25, 19), (25, 20)])
def test_a_class_of_few_photos_has_no_interval_and_no_warning(n_photos, n_blue, tmp_path):
    """Photos drawn anew may all be without it, and then it has no mean; and of few, an interval says too little."""
    for i in range(n_photos):
        rgb = np.full((64, 64, 3), (100 + 4 * i, 30, 30), dtype=np.uint8)
        if i < n_blue:
            rgb[: 20 + i] = PRIMARIES["blue"][0]
        Image.fromarray(rgb).save(tmp_path / f"{i}.png")
    found = failures.table_of(failures.by_pixel(flat([5.0, 5.0]), sorted(tmp_path.iterdir()))["hue"])
    columns = ["MSE", "explained", "MSE ratio to grey", "chroma ratio"]
    ends = [f"{column}{end}" for column in columns for end in (" from", " to")]
    assert set(found.index) == {"red", "blue"} and found[columns].notna().all(axis=None)
    assert found.loc["blue", ends].isna().all() == found.loc["blue", ends].isna().any() == (n_blue < tables.FEWEST)
    assert found.loc["red", ends].isna().all() == found.loc["red", ends].isna().any() == (n_photos < tables.FEWEST)


@pytest.mark.filterwarnings("error")
def test_photos_of_one_grey_make_a_table_without_warning(tmp_path):
    for i in range(3):
        Image.new("RGB", (64, 64), 3 * (100 + i,)).save(tmp_path / f"{i}.png")
    found = failures.table_of(failures.by_pixel(flat([5.0, 5.0]), sorted(tmp_path.iterdir()))["hue"])
    assert found.index.tolist() == ["near grey"] and found["share of pixels"].tolist() == [1]
    assert found["MSE ratio to grey"].item() > 1


def test_strength_is_the_mean_chroma_of_each_class(files, crops, painter):
    true, predicted, low, high = failures.strength(failures.by_pixel(predictor_of(painter), files)["chroma"])
    with torch.no_grad():
        found, truth = (np.hypot(*ab.double().numpy().transpose(1, 0, 2, 3)) for ab in (painter(crops[0]), crops[1]))
    kinds = np.digitize(truth, [10, 20, 30, 45, 60])
    assert true.index.tolist() == ["0 to 10", "10 to 20", "20 to 30", "30 to 45", "45 to 60", "60 to 200"]
    np.testing.assert_allclose(true, [truth[kinds == k].mean() for k in range(6)], rtol=1e-5)
    np.testing.assert_allclose(predicted, [found[kinds == k].mean() for k in range(6)], rtol=1e-5)
    there = low.notna()  # the strongest colours are in few photos
    assert there.sum() >= 5 and ((low < predicted) & (predicted < high))[there].all()


def test_strength_leaves_out_classes_without_a_pixel(tmp_path):
    for i, rgb in enumerate([(90, 70, 60), (0, 0, 255)]):
        Image.new("RGB", (64, 64), rgb).save(tmp_path / f"{i}.png")
    true, predicted, *_ = failures.strength(failures.by_pixel(flat([6.0, 8.0]), sorted(tmp_path.iterdir()))["chroma"])
    chroma = [np.hypot(*lab_of(rgb)[1].flatten().tolist()) for rgb in [(90, 70, 60), (0, 0, 255)]]
    assert true.index.tolist() == predicted.index.tolist() == ["10 to 20", "60 to 200"]
    np.testing.assert_allclose(true, chroma, rtol=1e-5)
    np.testing.assert_allclose(predicted, 10, rtol=1e-6)


# --- all of it ---


@pytest.mark.parametrize("told", [True, False])
def test_everywhere_has_a_table_for_each_way_and_one_of_scenes_if_the_paths_tell_them(files, painter, tmp_path, told):
    folders = ("Images/kitchen", "Images/bookstore") if told else ("photos", "photos")
    copies = [tmp_path / folders[i % 2] / f"{i:03d}.png" for i in range(len(files))]
    for file, copy in zip(files, copies):
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    judged, how = predictor_of(painter), {"size": 48, "resize": "squash", "crop": 40}
    rows = evaluation.measure(judged, copies, tmp_path / "rows.csv", part=0, **how)
    found = failures.everywhere(judged, copies, rows, **how)
    ways = failures.by_pixel(judged, files, **how)
    assert list(found) == ["scenes"] * told + list(ways)
    for way, sums in ways.items():
        pd.testing.assert_frame_equal(found[way], failures.table_of(sums))
    if told:
        pd.testing.assert_frame_equal(found["scenes"], tables.by_group(rows, scenes.of_files(copies)))
        assert set(found["scenes"].index) == {"indoor: home", "indoor: store"}


# --- why it is brown ---


def test_colours_are_counted_by_lightness(files):
    limits, counts = failures.colours_by_lightness(files)
    np.testing.assert_allclose(limits, np.arange(10) * 100 / 9)
    assert counts.shape == (9, len(BINS)) and counts.dtype == torch.float64
    assert counts.sum() == len(files) * 64 * 64
    photos = Photos(files, 64, seed=None)
    L, ab = color.rgb_to_lab(torch.stack([photos[0, i] for i in range(len(files))]))
    for k, (low, high) in enumerate(pairwise(limits)):
        inside = ((low <= L) & (L < high if high < 100 else L <= high))[:, 0]
        distance = torch.cdist(ab.permute(0, 2, 3, 1)[inside], BINS)
        # A colour in the middle between two bins may be counted for either.
        expected = torch.bincount(distance.argmin(dim=1), minlength=len(BINS))
        assert (counts[k] - expected).abs().sum() <= 2e-3 * max(1, inside.sum()), (low, high)


@pytest.mark.parametrize(
    ("rgb", "band", "colour"),
    [((255, 255, 255), 8, (0, 0)), ((0, 0, 0), 0, (0, 0)), ((255, 0, 0), 4, (80, 70)), ((128, 128, 128), 4, (0, 0))],
)
def test_a_photo_of_one_colour_lands_in_one_band_and_bin(tmp_path, rgb, band, colour):
    Image.new("RGB", (70, 90), rgb).save(tmp_path / "one.png")
    _, counts = failures.colours_by_lightness([tmp_path / "one.png"])
    ((found, place),) = counts.nonzero().tolist()
    assert (found, tuple(BINS[place].tolist())) == (band, colour) and counts[found, place] == 64 * 64


@pytest.mark.parametrize(("most", "chosen"), [(1, [0]), (2, [0, 3]), (9, [0, 1, 2, 3])])
def test_of_many_photos_it_looks_at_evenly_chosen_ones(tmp_path, most, chosen):
    for i in range(4):
        Image.new("RGB", (64, 64), 3 * (20 + 70 * i,)).save(tmp_path / f"{i}.png")
    _, counts = failures.colours_by_lightness(sorted(tmp_path.iterdir()), n=4, size=16, most=most)
    assert counts.sum(dim=1).nonzero().flatten().tolist() == chosen
    assert counts.sum() == len(chosen) * 16 * 16


def brown(files):
    """What 03 paints: the counts, and `{answer: ab by band}`."""
    counts = failures.colours_by_lightness(files)[1]
    logits = counts.clamp(min=1e-9).log().float()
    rare = losses.class_weights(counts.sum(0) / counts.sum()).log().float()
    answers = {"mean": (0, 1), "likeliest": (0, 0), "weighted": (rare, 1), "sharpened": (rare, 0.38)}
    return counts, {
        name: losses.annealed_mean((logits + weight).T[None, :, :, None], BINS, T)[0, :, :, 0].T
        for name, (weight, T) in answers.items()
    }


def test_the_mean_of_a_band_is_that_of_its_counts(files):
    counts, answers = brown(files)
    met = counts.sum(dim=1) > 0
    shares = counts[met] / counts[met].sum(dim=1, keepdim=True)
    assert met.sum() >= 8
    np.testing.assert_allclose(answers["mean"][met], shares @ BINS.double(), atol=1e-3)
    np.testing.assert_array_equal(answers["likeliest"][met], BINS[shares.argmax(dim=1)])
    prior = counts.sum(dim=0) / counts.sum()
    weighted = shares * losses.class_weights(prior)
    weighted /= weighted.sum(dim=1, keepdim=True)
    np.testing.assert_allclose(answers["weighted"][met], weighted @ BINS.double(), atol=1e-3)


@pytest.fixture(scope="module", params=["scikit-image's", "real"])
def many(request, tmp_path_factory):
    """Photos of several kinds; the real ones of many, if they are here."""
    if request.param == "real":
        return sorted(PHOTOS.glob("test/*/*.jpg"))[::3] or pytest.skip(f"there are no real photos at {PHOTOS}")
    folder = tmp_path_factory.mktemp("many")
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        Image.fromarray(getattr(samples, name)()).save(folder / f"{name}.png")
    return sorted(folder.iterdir())


def test_the_mean_colour_is_a_dull_brown_and_rare_colours_weighted_are_stronger(many):
    _, answers = brown(many)
    chroma = {name: torch.linalg.vector_norm(ab, dim=1)[3:7] for name, ab in answers.items()}  # L of 33 to 78
    angle = failures.hue_angle(answers["mean"].T[None, :, None])[0, 0, 3:7]
    assert (angle > 30).all() and (angle < 110).all()  # between red and yellow
    assert (chroma["mean"] < 35).all()  # the purest red and yellow are at 105 and 97
    assert (chroma["weighted"] > 1.1 * chroma["mean"]).all()


def test_the_mean_has_the_least_squared_error_of_all_that_only_see_the_lightness(files):
    """And so has T = 1 of all temperatures, if a network knows how often each colour occurs."""
    table = failures.by_temperature(predictor_of(ByLightness(files)), files, [1, 0.7, 0.38, 0.2, 0])
    assert table.MSE.is_monotonic_increasing and table.MSE[0] > 1.1 * table.MSE[1]


# --- by temperature ---


class ByLightness(torch.nn.Module):
    """Chooses among the colours that photos have at a pixel's lightness, as a network would that sees no more."""

    def __init__(self, files=None, logits=None, T=0.5):
        super().__init__()
        if logits is None:
            logits = failures.colours_by_lightness(files, n=50)[1].clamp(min=1e-9).log().float()
        self.logits, self.T = torch.nn.Parameter(logits), T

    def forward(self, L):
        ab = losses.annealed_mean(self.logits.T[None, :, :, None], BINS, self.T)[0, :, :, 0]
        band = (L[:, 0] * len(self.logits) / 100).long().clamp(0, len(self.logits) - 1)
        return ab[:, band].transpose(0, 1)


@pytest.fixture
def chooser():
    """A vivid colour at each lightness is the likeliest by some way, and the mean of all is weaker."""
    logits = torch.zeros(20, len(BINS))
    vivid = (torch.linalg.vector_norm(BINS, dim=1) > 60).nonzero().flatten()
    for k, row in enumerate(logits):
        row[vivid[7 * k]] = 3.0
    return predictor_of(ByLightness(logits=logits))


def test_the_colder_the_more_colourful(chooser, files):
    temperatures = [1, 0.7, 0.38, 0.2, 0]
    found = failures.by_temperature(chooser, files, temperatures)
    assert found.index.tolist() == temperatures and found.index.name == "T"
    assert found["chroma ratio"].is_monotonic_increasing
    assert found["chroma ratio"][0] > 2 * found["chroma ratio"][1]
    assert found.columns.tolist() == [
        f"{column}{end}" for column in ("MSE", "chroma ratio") for end in ("", " from", " to")
    ]
    assert chooser.model.T == 0.5


@pytest.mark.parametrize("T", [1, 0.38, 0])
def test_each_temperature_is_measured_as_the_network_would_be_that_has_it(chooser, files, tmp_path, T):
    found = failures.by_temperature(chooser, files, [T], size=48, resize="squash", crop=32).loc[T]
    colder = replace(chooser, model=ByLightness(logits=chooser.model.logits.detach(), T=T))
    how = {"size": 48, "resize": "squash", "crop": 32, "part": 0}
    rows = evaluation.measure(colder, files, tmp_path / "rows.csv", **how)
    assert found["MSE"] == pytest.approx(rows.mse.mean(), rel=1e-5)
    assert found["chroma ratio"] == pytest.approx(rows.chroma.mean() / rows.true_chroma.mean(), rel=1e-5)
    assert found["MSE from"] < found["MSE"] < found["MSE to"]


def test_the_temperature_is_put_back_even_after_an_error(chooser, files):
    def fail(model, *_):
        if model.T == 0.2:
            raise MemoryError("too large")

    chooser.model.register_forward_hook(fail)
    with pytest.raises(MemoryError, match="too large"):
        failures.by_temperature(chooser, files, [1, 0.2, 0])
    assert chooser.model.T == 0.5
