"""colorlib.color: sRGB <-> CIELAB against scikit-image over the whole cube, and the edges of the gamut."""

import math

import numpy as np
import pytest
import skimage.color
import skimage.data
import torch
from skimage.color.colorconv import rgb_from_xyz

from colorlib import color

# What rounding to 8 bits may change in L: half of the largest step between neighbouring greys (0.509).
L_ROUNDING = 0.26
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_cuda)]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Several threads that wait for each other are slow on a busy machine: 29 seconds have been seen, for 6."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def cube(step=4):
    """The whole sRGB cube, all 256^3 colours, in slabs of `step` values of red: uint8 (1, 3, 256 * step, 256)."""
    green_blue = torch.cartesian_prod(torch.arange(256), torch.arange(256)).repeat(step, 1)
    for red in range(0, 256, step):
        reds = torch.arange(red, red + step).repeat_interleave(256 * 256)[:, None]
        yield torch.cat([reds, green_blue], dim=1).to(torch.uint8).T.reshape(1, 3, -1, 256)


def skimage_lab(rgb):
    """uint8 (B, 3, H, W) -> float64 L (B, 1, H, W) and ab (B, 2, H, W), by scikit-image in double precision."""
    lab = skimage.color.rgb2lab(rgb.permute(0, 2, 3, 1).numpy() / 255.0)
    return np.split(lab.transpose(0, 3, 1, 2), [1], axis=1)


def neutrals():
    return torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 256).expand(1, 3, 1, 256)


def wheel(chroma, lightness):
    """Colours of every hue at the given chroma (rows: lightness): L, ab and the hue in radians."""
    hue = torch.deg2rad(torch.arange(0.0, 360, 3)).view(1, 1, 1, -1).expand(1, 1, len(lightness), -1)
    L = torch.as_tensor(lightness, dtype=torch.float32).view(1, 1, -1, 1).expand_as(hue)
    return L, torch.cat([hue.cos(), hue.sin()], dim=1) * chroma, hue


def test_whole_cube_matches_skimage_stays_in_range_and_comes_back_byte_for_byte():
    n_colours, worst, lowest, highest = 0, 0.0, [], []
    for rgb in cube():
        L, ab = color.rgb_to_lab(rgb)
        for ours, theirs in zip((L, ab), skimage_lab(rgb)):
            worst = max(worst, np.abs(ours.numpy() - theirs).max())
        assert torch.equal(color.lab_to_rgb(L, ab), rgb)
        lab = torch.cat([L, ab, color.to_unit(ab)], dim=1)
        lowest.append(lab.amin(dim=(0, 2, 3)))
        highest.append(lab.amax(dim=(0, 2, 3)))
        n_colours += rgb[:, 0].numel()
    assert n_colours == 256**3
    assert worst < 1e-3
    lowest, highest = torch.stack(lowest).amin(dim=0), torch.stack(highest).amax(dim=0)
    assert lowest[0] == pytest.approx(0, abs=1e-4) and highest[0] == pytest.approx(100, abs=1e-4)
    assert lowest[1:3].tolist() == pytest.approx([-86.18, -107.86], abs=0.01)
    assert highest[1:3].tolist() == pytest.approx([98.23, 94.48], abs=0.01)
    assert lowest[3:].min() > 0 and highest[3:].max() < 1


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (1, 3, 1, 1), (2, 3, 5, 7), (3, 3, 8, 2)])
@pytest.mark.parametrize("device", DEVICES)
def test_any_batch_gives_float32_on_the_same_device_and_comes_back(shape, device):
    rgb = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(device)
    L, ab = color.rgb_to_lab(rgb)
    back = color.lab_to_rgb(L, ab)
    assert L.shape == (shape[0], 1, *shape[2:]) and ab.shape == (shape[0], 2, *shape[2:])
    assert L.dtype == ab.dtype == torch.float32 and back.dtype == torch.uint8
    assert L.device == ab.device == back.device == rgb.device
    assert torch.equal(back, rgb)


@needs_cuda
def test_cuda_agrees_with_skimage_over_the_whole_cube():
    for rgb in cube(32):
        L, ab = color.rgb_to_lab(rgb.cuda())
        for ours, theirs in zip((L, ab), skimage_lab(rgb)):
            assert np.abs(ours.cpu().numpy() - theirs).max() < 1e-3
        assert torch.equal(color.lab_to_rgb(L, ab).cpu(), rgb)


def test_channels_last_memory_makes_no_difference():
    rgb = torch.randint(0, 256, (2, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    for ours, other in zip(color.rgb_to_lab(rgb), color.rgb_to_lab(rgb.contiguous(memory_format=torch.channels_last))):
        assert torch.equal(ours, other)


@pytest.mark.parametrize(
    "rgb",
    [
        torch.zeros(1, 3, 4, 4),
        torch.zeros(1, 3, 4, 4, dtype=torch.int64),
        torch.zeros(3, 4, 4, dtype=torch.uint8),
        torch.zeros(1, 1, 4, 4, dtype=torch.uint8),
        torch.zeros(1, 4, 4, 3, dtype=torch.uint8),
    ],
    ids=["float", "int64", "no batch", "one channel", "channels last"],
)
def test_wrong_input_is_refused_in_a_sentence(rgb):
    with pytest.raises(ValueError, match=r"^rgb must be uint8 \(B, 3, H, W\), not torch\.\w+ \(.*\)$"):
        color.rgb_to_lab(rgb)


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_changes_nothing(device):
    rgb = next(cube(2)).to(device)
    L, ab = color.rgb_to_lab(rgb)
    with torch.autocast(device, dtype=torch.bfloat16):
        L_auto, ab_auto = color.rgb_to_lab(rgb)
        back = color.lab_to_rgb(L_auto, ab_auto)
        grey = color.l_to_grey(L)
        in_16_bits = color.lab_to_rgb(L, ab.bfloat16())  # as a model under autocast hands it over
    assert torch.equal(L_auto, L) and torch.equal(ab_auto, ab)
    assert torch.equal(back, rgb)
    assert torch.equal(grey, color.l_to_grey(L))
    assert torch.equal(in_16_bits, color.lab_to_rgb(L, ab.bfloat16().float()))


@pytest.mark.parametrize("chroma", [20, 60, 130, 1e3, 1e6, 1e12])
def test_colours_outside_the_gamut_keep_lightness_and_hue_and_some_chroma(chroma):
    L, ab, hue = wheel(chroma, range(20, 96))
    L_out, ab_out = color.rgb_to_lab(color.lab_to_rgb(L, ab))
    assert (L_out - L).abs().max() < L_ROUNDING
    turned = (torch.atan2(ab_out[:, 1:], ab_out[:, :1]) - hue + math.pi) % (2 * math.pi) - math.pi
    kept = torch.linalg.vector_norm(ab_out, dim=1, keepdim=True)
    assert (kept * turned).abs().max() < 1  # Lab units off the line of the hue, which is 8-bit rounding
    assert kept.min() > 6  # sRGB's narrowest place in that range, at L 95


def test_what_is_inside_the_gamut_keeps_its_chroma():
    L, ab, _ = wheel(20, range(35, 80))
    _, ab_out = color.rgb_to_lab(color.lab_to_rgb(L, ab))
    assert (ab_out - ab).abs().max() < 1  # 8-bit rounding


@pytest.mark.parametrize("chroma", [0, 30, 110, 1e4, 3e38, math.inf])
def test_lightness_survives_any_finite_or_infinite_colour(chroma):
    L, ab, _ = wheel(1.0, np.linspace(0, 100, 201))
    L_out, _ = color.rgb_to_lab(color.lab_to_rgb(L, torch.where(ab == 0, 0, ab * chroma)))
    assert (L_out - L).abs().max() < L_ROUNDING


@pytest.mark.parametrize("a", [math.inf, -math.inf, math.nan, 1e30, 0.0])
@pytest.mark.parametrize("b", [math.inf, -math.inf, math.nan, -1e30])
def test_inf_and_nan_never_make_black_or_wrapped_pixels(a, b):
    L = torch.linspace(0, 100, 101).view(1, 1, 1, -1)
    ab = torch.tensor([a, b]).view(1, 2, 1, 1).expand(1, 2, 1, 101)
    L_out, ab_out = color.rgb_to_lab(color.lab_to_rgb(L, ab))
    assert (L_out - L).abs().max() < L_ROUNDING
    if math.isnan(b) and (math.isnan(a) or a == 0):
        assert ab_out.abs().max() < 1  # NaN counts as no colour; what is left is 8-bit rounding


def test_one_broken_pixel_leaves_its_neighbours_alone():
    L, ab = color.rgb_to_lab(torch.full((2, 3, 4, 4), 130, dtype=torch.uint8))
    ab = ab.clone()
    ab[0, :, 1, 2] = math.nan
    ab[1, 0, 3, 3] = math.inf
    out = color.lab_to_rgb(L, ab)
    same = (out == 130).all(dim=1)
    assert same.sum() == 31 and not same[1, 3, 3]


def test_lightness_outside_its_range_is_clipped():
    out = color.lab_to_rgb(torch.tensor([-20.0, 130.0]).view(1, 1, 1, 2), torch.zeros(1, 2, 1, 2))
    assert out[0, :, 0].T.tolist() == [[0, 0, 0], [255, 255, 255]]


def test_neutral_ramp_has_skimages_lightness_not_luma():
    L, ab = color.rgb_to_lab(neutrals())
    theirs, _ = skimage_lab(neutrals())
    assert np.abs(L.numpy() - theirs).max() < 1e-4
    assert ab.abs().max() < 0.01
    luma = torch.arange(256) / 255 * 100
    assert (L.flatten() - luma).abs().max() > 3  # mid-grey: lightness 53.6, luma 50.2


@pytest.mark.parametrize(
    "rgb, lightness", [((255, 0, 0), 53.24), ((0, 255, 0), 87.73), ((0, 0, 255), 32.30), ((119, 119, 119), 50.03)]
)
def test_known_lightness(rgb, lightness):
    L, _ = color.rgb_to_lab(torch.tensor(rgb, dtype=torch.uint8).view(1, 3, 1, 1))
    assert L.item() == pytest.approx(lightness, abs=0.01)


def test_l_to_grey_equals_rgb2gray_on_neutral_pixels():
    grey = color.l_to_grey(color.rgb_to_lab(neutrals())[0])
    theirs = skimage.color.rgb2gray(neutrals()[0].permute(1, 2, 0).numpy())
    assert grey.shape == (1, 1, 1, 256)
    assert np.abs(grey[0, 0].numpy() - theirs).max() < 1e-5


def test_l_to_grey_of_a_colour_is_the_grey_of_the_same_lightness():
    L, _ = color.rgb_to_lab(next(cube(1)))
    L_grey, _ = color.rgb_to_lab((color.l_to_grey(L) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1))
    assert (L_grey - L).abs().max() < L_ROUNDING
    assert 0 <= color.l_to_grey(L).min() and color.l_to_grey(L).max() <= 1


@pytest.mark.parametrize("ab, unit", [(-128.0, 0.0), (0.0, 128 / 255), (127.0, 1.0), (-0.5, 0.5)])
def test_unit_scale(ab, unit):
    assert color.to_unit(ab) == pytest.approx(unit, abs=1e-12)
    assert color.from_unit(unit) == pytest.approx(ab, abs=1e-9)


def test_unit_scale_and_back_on_tensors():
    ab = torch.linspace(-110, 110, 2001).view(1, 1, -1, 1).expand(1, 2, -1, 1)
    assert (color.from_unit(color.to_unit(ab)) - ab).abs().max() < 1e-4


def sparse_cube(step):
    """Every `step`-th value of each channel: uint8 (1, 3, n, 1)."""
    values = torch.arange(0, 256, step, dtype=torch.uint8)
    return torch.cartesian_prod(values, values, values).T.reshape(1, 3, -1, 1)


def grid_points(slabs, size=10):
    """The points of a grid, from -400 to 400, that are nearest to some of the colours: sorted (n, 2)."""
    reach = 400 // size
    met = np.zeros((2 * reach + 1, 2 * reach + 1), dtype=bool)
    for ab in slabs:
        a, b = (np.round(np.moveaxis(ab, 1, 0) / size) + reach).astype(int)
        met[a, b] = True
    return (np.argwhere(met) - reach) * size


def distances(ab):
    """From colours (B, 2, H, W) to every bin, in double precision: (B, H, W, Q)."""
    difference = ab.double().permute(0, 2, 3, 1)[..., None, :] - color.ab_bins().double()
    return torch.hypot(*difference.unbind(dim=-1))


def assert_nearest(found, ab):
    """Whichever of several bins at the same distance was taken."""
    distance = distances(ab)
    assert (distance.gather(-1, found[..., None])[..., 0] - distance.amin(dim=-1)).max() < 1e-4


def test_bins_are_the_grid_points_nearest_to_some_srgb_colour():
    bins = color.ab_bins()
    assert bins.shape == (261, 2) and bins.dtype == torch.float32
    assert np.array_equal(bins, grid_points([skimage_lab(sparse_cube(3))[1]]))


@pytest.mark.slow
@pytest.mark.parametrize("size, n", [(5, 969), (10, 261), (20, 77)])
def test_the_whole_cube_falls_on_exactly_the_bins(size, n):
    bins = color.ab_bins(size)
    assert len(bins) == n
    assert np.array_equal(bins, grid_points((skimage_lab(rgb)[1] for rgb in cube()), size))


def test_no_srgb_colour_is_further_from_its_bin_than_half_the_grid():
    _, ab = color.rgb_to_lab(sparse_cube(3))
    centres = color.ab_bins()[color.nearest_bin(ab)].permute(0, 3, 1, 2)
    assert (centres - ab).abs().max() < 5 + 1e-4


@pytest.mark.parametrize("tolerance", [0, 1e-3])  # the first bin that is left out lies 0.0019 outside
@pytest.mark.filterwarnings("ignore:.*negative Z")
def test_most_bins_are_displayable_at_some_lightness_and_all_are_next_to_such_a_colour(tolerance):
    L = np.arange(1, 1000)[:, None] / 10  # steps of 1 would miss four of them
    bins = color.ab_bins().double().numpy()
    lab = np.dstack(np.broadcast_arrays(L, bins[:, 0], bins[:, 1]))
    linear = skimage.color.lab2xyz(lab) @ rgb_from_xyz.T  # lab2rgb would clip it
    fits = ((linear >= -tolerance) & (linear <= 1 + tolerance)).all(axis=2).any(axis=0)
    assert fits.sum() == 229
    assert np.hypot(*(bins[~fits, None] - bins[fits]).T).min(axis=0).max() < 15  # a neighbour, if only diagonally


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_nearest_bin_of_a_photo_is_that_of_a_full_search(name):
    _, ab = color.photo_to_lab(getattr(skimage.data, name)()[::5, ::5])
    found = color.nearest_bin(ab)
    assert found.shape == (1, *ab.shape[2:]) and found.dtype == torch.int64
    assert len(found.unique()) > 20  # else the photo says little
    assert_nearest(found, ab)


@pytest.mark.parametrize("device", DEVICES)
def test_every_bin_is_its_own_nearest_whatever_the_batch(device):
    ab = color.ab_bins().view(3, 29, 3, 2).permute(0, 3, 1, 2).to(device)
    for moved in (ab, ab + 4.9, ab - 4.9):
        found = color.nearest_bin(moved)
        inside = (color.ab_bins()[found.cpu()].permute(0, 3, 1, 2) - moved.cpu()).abs().amax(dim=1) < 5
        assert found.device == ab.device and inside.all()
    assert torch.equal(color.nearest_bin(ab).cpu(), torch.arange(261).view(3, 29, 3))


def test_beyond_the_gamut_it_is_the_bin_nearest_to_the_grid_point():
    ab = torch.rand(1, 2, 60, 60, generator=torch.Generator().manual_seed(0)) * 400 - 200
    found = color.nearest_bin(ab)
    assert (distances(ab).amin(dim=-1) > 20).float().mean() > 0.5  # most are far outside
    assert_nearest(found, (ab / 10).round() * 10)


@pytest.mark.parametrize("a", [math.inf, -math.inf, 1e30, -3e38, 204.0, -1000.0, 0.0])
@pytest.mark.parametrize("b", [math.inf, -1e30, 206.0])
def test_colours_off_the_grid_count_as_its_edge(a, b):
    ab = torch.tensor([a, b]).view(1, 2, 1, 1)
    assert torch.equal(color.nearest_bin(ab), color.nearest_bin(ab.clamp(-200, 200)))
