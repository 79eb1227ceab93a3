"""Each metric against scikit-image on floats, slow loops in 64 bits, and values worked out by hand."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from pictures import crops
from skimage import color as skcolor
from skimage import metrics as skmetrics

from colorlib import color, metrics

pytestmark = pytest.mark.usefixtures("one_thread")

# A flat picture in R, G, B and what they become when R and B are swapped: every metric of the two has a closed form.
FLAT, SWAPPED = (200, 100, 50), (50, 100, 200)


def flat(rgb, side=12):
    return np.full((side, side, 3), rgb, dtype=np.uint8)


def batch(*pictures):
    """Pictures as `colourfulness` takes them."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def slow_colourfulness(rgb):
    """Hasler and Süsstrunk's third metric pixel by pixel, in Python's own numbers; the differences keep their sign."""
    rg = [float(r) - float(g) for r, g, b in rgb.reshape(-1, 3)]
    yb = [(float(r) + float(g)) / 2 - float(b) for r, g, b in rgb.reshape(-1, 3)]
    means = [sum(values) / len(values) for values in (rg, yb)]
    variances = [sum((v - mean) ** 2 for v in values) / len(values) for values, mean in zip((rg, yb), means)]
    return sum(variances) ** 0.5 + 0.3 * (means[0] ** 2 + means[1] ** 2) ** 0.5


def slow_psnr(one, other):
    total = 0.0
    for a, b in zip(one.ravel().tolist(), other.ravel().tolist()):
        total += (a - b) ** 2
    return 10 * np.log10(255**2 / (total / one.size))


def slow_ssim(one, other):
    """Wang et al. 2004: an 11 x 11 Gaussian window of width 1.5 at every place where it fits, channel by channel."""
    steps = np.arange(-5, 6)
    window = np.exp(-(steps[:, None] ** 2 + steps**2) / (2 * 1.5**2))
    window /= window.sum()
    found = []
    for channel in range(3):
        a, b = (picture[..., channel].astype(np.float64) for picture in (one, other))
        for y in range(a.shape[0] - 10):
            for x in range(a.shape[1] - 10):
                p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
                mean_p, mean_q = (window * p).sum(), (window * q).sum()
                var_p, var_q = (window * (p - mean_p) ** 2).sum(), (window * (q - mean_q) ** 2).sum()
                cov = (window * (p - mean_p) * (q - mean_q)).sum()
                c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
                ssim = (2 * mean_p * mean_q + c1) * (2 * cov + c2)
                found.append(ssim / ((mean_p**2 + mean_q**2 + c1) * (var_p + var_q + c2)))
    return np.mean(found)


def float_ciede2000(one, other):
    """Scikit-image's, on pictures that are floats from the start."""
    labs = (skcolor.rgb2lab(picture.astype(np.float64) / 255) for picture in (one, other))
    return skcolor.deltaE_ciede2000(*labs).mean()


def float_ssim(one, other):
    """Scikit-image's, on floats in [0, 1], one channel at a time."""
    window = {"win_size": 11, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    pairs = zip(*(np.moveaxis(picture.astype(np.float64) / 255, 2, 0) for picture in (one, other)))
    return np.mean([skmetrics.structural_similarity(*pair, data_range=1.0, **window) for pair in pairs])


def pairs(height=20, width=26):
    """A true picture and a worse one: noisy, grey, mirrored, with channels swapped, and another picture altogether."""
    first, second = crops(2, height, width)
    noise = np.random.default_rng(0).normal(0, 12, first.shape)
    yield first, (first + noise).round().clip(0, 255).astype(np.uint8)
    yield first, np.repeat(first.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    yield second, second[:, ::-1].copy()
    yield second, second[..., ::-1].copy()
    yield first, second


# ------------------------------------------------------------------------------------------------- of two pictures


@pytest.mark.parametrize("pair", list(pairs()), ids=["noisy", "grey", "mirrored", "swapped", "another"])
def test_metrics_of_pictures_are_those_of_independent_calls(pair):
    found = metrics.compare_pictures(*pair)
    assert [*found] == ["ciede2000", "psnr", "ssim"]
    assert found["ciede2000"] == pytest.approx(float_ciede2000(*pair), rel=1e-9)
    assert found["psnr"] == pytest.approx(slow_psnr(*pair), rel=1e-12)
    assert found["ssim"] == pytest.approx(slow_ssim(*pair), abs=1e-9)
    assert found["ssim"] == pytest.approx(float_ssim(*pair), abs=1e-9)


def test_metrics_of_pictures_do_not_mind_which_is_the_truth():
    for one, other in pairs():
        assert metrics.compare_pictures(one, other) == pytest.approx(metrics.compare_pictures(other, one), rel=1e-9)


def test_black_is_as_far_from_white_as_can_be():
    found = metrics.compare_pictures(flat(0), flat(255))
    c1 = 2.55**2
    # From L 0 to L 100 CIEDE2000's weight of lightness is 1, since their mean is 50.
    assert found == pytest.approx({"ciede2000": 100, "psnr": 0, "ssim": c1 / (255**2 + c1)}, abs=1e-6)


def test_ciede2000_of_two_greys_is_their_weighted_step_in_lightness():
    (light,), (dark,) = (skcolor.rgb2lab(flat(v)[:1, :1] / 255.0)[0, :, 0] for v in (180, 90))
    mean = (light + dark) / 2
    weight = 1 + 0.015 * (mean - 50) ** 2 / (20 + (mean - 50) ** 2) ** 0.5
    found = metrics.compare_pictures(flat(180), flat(90))["ciede2000"]
    assert found == pytest.approx((light - dark) / weight, rel=1e-4)  # white's own a and b are 1e-3 or so, not 0


def test_flat_pictures_with_red_and_blue_swapped_score_what_was_worked_out_by_hand():
    found = metrics.compare_pictures(flat(FLAT), flat(SWAPPED))
    c1 = 2.55**2
    of_red = (2 * 200 * 50 + c1) / (200**2 + 50**2 + c1)  # and of blue; green is equal, which is 1
    assert found["psnr"] == pytest.approx(10 * np.log10(255**2 / (2 * 150**2 / 3)), rel=1e-12)
    assert found["ssim"] == pytest.approx((2 * of_red + 1) / 3, abs=1e-9)
    assert found["ciede2000"] == pytest.approx(float_ciede2000(flat(FLAT)[:1, :1], flat(SWAPPED)[:1, :1]), rel=1e-9)


def test_equal_pictures_are_perfect_and_nothing_warns_not_even_in_a_thread():
    same = [*crops(3), flat(0), flat(255), flat((255, 0, 0))]
    with warnings.catch_warnings(), ThreadPoolExecutor(2) as pool:
        warnings.simplefilter("error")
        found = list(pool.map(metrics.compare_pictures, same, same))
    for scores in found:
        assert (scores["ciede2000"], scores["psnr"]) == (0, np.inf)
        assert scores["ssim"] == pytest.approx(1, abs=1e-12)


# ------------------------------------------------------------------------------------------------- colourfulness


def test_colourfulness_is_the_slow_one_picture_by_picture():
    pictures = [*crops(4, 20, 26), np.random.default_rng(0).integers(0, 256, (20, 26, 3), dtype=np.uint8)]
    expected = [slow_colourfulness(rgb) for rgb in pictures]
    np.testing.assert_allclose(metrics.colourfulness(batch(*pictures)), expected, rtol=1e-5)
    assert max(expected) > 2 * min(expected)  # they are not all alike


def test_colourfulness_takes_differences_with_their_signs():
    red_and_green = np.array([[[255, 0, 0], [0, 255, 0]]], dtype=np.uint8)
    # R - G is 255 and -255, whose spread is 255 and whose mean is 0; (R + G) / 2 - B is 127.5 twice.
    # Without signs R - G would be 255 twice: a spread of 0, and 0.3 hypot(255, 127.5) = 85.5 in all.
    assert metrics.colourfulness(batch(red_and_green)).item() == pytest.approx(255 + 0.3 * 127.5)


def test_colourfulness_of_one_colour_is_its_distance_from_grey():
    found = metrics.colourfulness(batch(flat(FLAT), flat(SWAPPED), flat(77), flat(255)))
    np.testing.assert_allclose(found, [0.3 * np.hypot(100, 100), 0.3 * np.hypot(-50, -125), 0, 0], rtol=1e-5)


def test_colourfulness_of_a_large_picture_does_not_suffer_from_32_bits():
    colours = np.array([[250, 5, 0], [5, 250, 255]], dtype=np.uint8)
    large = colours[np.random.default_rng(0).integers(0, 2, (700, 900))]
    rg, yb = (large.astype(np.float64) @ np.array(w) for w in ((1, -1, 0), (0.5, 0.5, -1)))
    expected = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
    assert metrics.colourfulness(batch(large)).item() == pytest.approx(expected, rel=1e-4)


# --------------------------------------------------------------------------------------------- from ab: errors, floors


@pytest.fixture(scope="module")
def colours():
    """Predictions and truth, `(B, 2, H, W)` twice, in 32 bits."""
    rng = np.random.default_rng(0)
    return [torch.from_numpy(rng.normal(5, 20, (3, 2, 6, 7)).astype(np.float32)) for _ in range(2)]


def slow_mse(pred_ab, ab):
    """On ab_unit, one photo, number by number in 64 bits."""
    total, n = 0.0, 0
    for guess, truth in zip(pred_ab.flatten().tolist(), ab.flatten().tolist()):
        total += ((guess + 128) / 255 - (truth + 128) / 255) ** 2
        n += 1
    return total / n


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor])
def test_errors_are_the_slow_ones_photo_by_photo(colours, kind):
    pred_ab, ab = colours
    found = metrics.errors(pred_ab, ab, kind([4.0, 9.0]))
    assert [*found] == ["mse", *(f"mse_{name}" for name in metrics.FLOORS), "chroma", "true_chroma"]
    for i, (guess, truth) in enumerate(zip(*colours)):
        a, b = (channel.flatten().tolist() for channel in truth)
        own = torch.tensor([sum(a) / len(a), sum(b) / len(b)], dtype=torch.float64)
        guesses = {"": guess, "_grey": torch.zeros(2), "_train_mean": torch.tensor([4.0, 9.0]), "_oracle": own}
        for of, pred in guesses.items():
            expected = slow_mse(pred if of == "" else pred.view(2, 1, 1).expand(truth.shape), truth)
            assert found[f"mse{of}"][i].item() == pytest.approx(expected, rel=1e-5)
        for name, ab_of in (("chroma", guess), ("true_chroma", truth)):
            pixels = zip(*(channel.flatten().tolist() for channel in ab_of))
            expected = [(x**2 + y**2) ** 0.5 for x, y in pixels]
            assert found[name][i].item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_floors_paint_every_pixel_in_one_colour(colours):
    _, ab = colours
    floors = metrics.floors_ab(ab, [4, 9])
    assert [*floors] == [*metrics.FLOORS] and all(colour.shape[2:] == (1, 1) for colour in floors.values())
    painted = {name: colour.expand_as(ab) for name, colour in floors.items()}
    assert not painted["grey"].any()
    assert torch.equal(painted["train_mean"][1, :, 3, 2], torch.tensor([4.0, 9.0]))
    assert torch.equal(painted["oracle"][:, :, 5, 6], ab.mean(dim=(2, 3)))


def test_the_truth_grey_and_swapped_channels_have_the_errors_worked_out_by_hand(colours):
    _, ab = colours
    truth, grey, swapped = (metrics.errors(p, ab, [4, 9]) for p in (ab, torch.zeros_like(ab), ab.flip(1)))
    assert not truth["mse"].any() and torch.equal(truth["chroma"], truth["true_chroma"])
    assert torch.equal(grey["mse"], grey["mse_grey"]) and not grey["chroma"].any()
    a, b = ab.double().unbind(1)
    np.testing.assert_allclose(grey["mse"], (a**2 + b**2).mean(dim=(1, 2)) / 2 / 255**2, rtol=1e-5)
    np.testing.assert_allclose(swapped["mse"], ((a - b) ** 2).mean(dim=(1, 2)) / 255**2, rtol=1e-5)
    np.testing.assert_allclose(swapped["chroma"], swapped["true_chroma"], rtol=1e-6)


def test_the_grey_floor_is_neutral_to_1_of_255():
    rgb = batch(*crops(3))
    L, ab = color.rgb_to_lab(rgb)
    grey = color.lab_to_rgb(L, metrics.floors_ab(ab, [4, 9])["grey"].expand_as(ab))
    assert (grey.amax(dim=1).int() - grey.amin(dim=1).int()).max() <= 1
    # R - G is then at most 1 and (R + G) / 2 - B too: a spread of at most hypot(1, 1), or 0.3 times that of the mean.
    assert metrics.colourfulness(grey).max() <= 2**0.5 and metrics.colourfulness(rgb).min() > 10
