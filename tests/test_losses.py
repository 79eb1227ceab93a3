"""What is minimised, against slow loops in double precision: soft targets, both losses, the weights of rare colours."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.spatial import ConvexHull
from torch import nn

from colorlib import color, losses, models, recipes

pytestmark = pytest.mark.usefixtures("one_thread")

CENTRES = color.ab_bins()
Q = len(CENTRES)
BINS = CENTRES.double().numpy()
CLASSES = recipes.RECIPES["zhang"]  # cross-entropy, rebalanced


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def colours(*shape, seed=0):
    """The ab of random sRGB colours: float32 (B, 2, H, W)."""
    batch, height, width = shape
    rgb = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=rng(seed))
    return color.rgb_to_lab(rgb)[1]


def scores(*shape, scale=3.0, seed=1):
    return torch.randn(shape, generator=rng(seed), dtype=torch.float64) * scale


def slow_quarter(ab):
    """Numpy (B, 2, H, W) -> (B, 2, h, w), the edge repeated until both sides are multiples of 4."""
    height, width = ab.shape[2:]
    out = np.zeros((*ab.shape[:2], -(-height // 4), -(-width // 4)))
    for y, x in np.ndindex(out.shape[2:]):
        rows = np.minimum(np.arange(4 * y, 4 * y + 4), height - 1)
        columns = np.minimum(np.arange(4 * x, 4 * x + 4), width - 1)
        out[..., y, x] = ab[:, :, rows][..., columns].mean(axis=(2, 3))
    return out


def slow_encode(colour, n=5, sigma=5.0):
    """One colour -> its bins and their shares, the nearest first."""
    distance = np.hypot(*(BINS - colour).T)
    index = np.argsort(distance, kind="stable")[:n]
    share = np.exp(-(distance[index] ** 2) / (2 * sigma**2))
    return index, share / share.sum()


def slow_targets(ab):
    """Numpy (B, 2, H, W) -> what each bin should get: (B, Q, h, w)."""
    small = slow_quarter(ab)
    targets = np.zeros((len(ab), Q, *small.shape[2:]))
    for b, y, x in np.ndindex(len(ab), *small.shape[2:]):
        index, share = slow_encode(small[b, :, y, x])
        targets[b, index, y, x] = share
    return targets


def slow_cross_entropy(logits, ab, weights=None):
    logits, targets = logits.double().numpy(), slow_targets(ab.double().numpy())
    height, width = logits.shape[2:]
    total = np.zeros(len(ab))
    for b, y, x in np.ndindex(len(ab), height, width):
        score, target = logits[b, :, y, x], targets[b, :, y, x]
        log_p = score - score.max() - np.log(np.exp(score - score.max()).sum())
        total[b] -= (target * log_p).sum() * (1 if weights is None else weights[target.argmax()])
    return total / (height * width)


def slow_mse(pred_ab, ab, weights):
    pred_ab, ab = pred_ab.double().numpy(), ab.double().numpy()
    total = np.zeros(len(ab))
    for b, y, x in np.ndindex(len(ab), *ab.shape[2:]):
        weight = weights[np.hypot(*(BINS - ab[b, :, y, x]).T).argmin()]
        total[b] += weight * ((pred_ab[b, :, y, x] - ab[b, :, y, x]) ** 2).sum() / 255**2
    return total / ab[0].size


def slow_weights(prior, mix):
    raw = [1 / ((1 - mix) * p + mix / len(prior)) for p in prior]
    return np.array(raw) / sum(p * w for p, w in zip(prior, raw))


def mixed(index, share):
    """The colours that shares of bins stand for: (B, 2, h, w)."""
    return torch.einsum("bnhw,bnhwc->bchw", share, CENTRES.to(share)[index])


@pytest.fixture(scope="module")
def prior():
    """Of all bins, some thousand times as frequent as others, every tenth never met: a list, as from a checkpoint."""
    prior = torch.rand(Q, generator=rng(5), dtype=torch.float64) ** 3
    prior[::10] = 0
    return (prior / prior.sum()).tolist()


# --- quarter ---


@pytest.mark.parametrize("size", [(8, 12), (9, 14), (7, 3), (1, 1), (4, 1), (2, 5)])
def test_a_quarter_is_the_mean_of_4_x_4_with_the_edge_repeated(size):
    ab = colours(2, *size)
    found = losses.quarter(ab)
    assert found.shape == (2, 2, -(-size[0] // 4), -(-size[1] // 4))
    np.testing.assert_allclose(found, slow_quarter(ab.double().numpy()), atol=1e-4)


def test_a_photo_of_one_pixel_keeps_its_colour():
    ab = torch.tensor([33.3, -44.4]).view(1, 2, 1, 1)
    torch.testing.assert_close(losses.quarter(ab), ab)


# --- soft_encode ---


@pytest.mark.parametrize("n, sigma", [(5, 5.0), (1, 5.0), (8, 12.0)])
def test_soft_targets_equal_a_slow_search(n, sigma):
    ab = colours(2, 7, 9).double()
    index, share = losses.soft_encode(ab, CENTRES, n, sigma)
    assert index.shape == share.shape == (2, n, 7, 9) and index.dtype == torch.int64
    for b, y, x in np.ndindex(2, 7, 9):
        nearest, shares = slow_encode(ab[b, :, y, x].numpy(), n, sigma)
        assert index[b, :, y, x].tolist() == nearest.tolist()
        np.testing.assert_allclose(share[b, :, y, x], shares, rtol=1e-9)


def test_five_bins_and_a_sigma_of_five_unless_told_otherwise():
    ab = colours(1, 4, 4)
    for found, asked in zip(losses.soft_encode(ab, CENTRES), losses.soft_encode(ab, CENTRES, 5, 5.0)):
        assert torch.equal(found, asked)


def test_in_single_precision_shares_hardly_differ_and_sum_to_one_nearest_first():
    ab = colours(2, 60, 80)
    index, share = losses.soft_encode(ab, CENTRES)
    exact_index, exact = losses.soft_encode(ab.double(), CENTRES)
    assert share.dtype == torch.float32 and exact.dtype == torch.float64
    assert (index == exact_index).float().mean() > 0.99  # the rest are ties
    torch.testing.assert_close(share.double(), exact, rtol=0, atol=1e-4)
    torch.testing.assert_close(share.sum(dim=1), torch.ones(2, 60, 80))
    assert (share[:, 1:] <= share[:, :-1]).all()


def test_every_centre_comes_first_in_its_own_code():
    index, share = losses.soft_encode(CENTRES.T.reshape(1, 2, 9, 29), CENTRES)
    assert torch.equal(index[0, 0].flatten(), torch.arange(Q))
    assert (share[:, 0] > 0.64).all() and (share[:, 1] < 0.12).all()  # neighbours are two sigma away


def test_decoding_soft_targets_gives_the_colours_back():
    values = torch.arange(0, 256, 15, dtype=torch.uint8)
    _, ab = color.rgb_to_lab(torch.cartesian_prod(values, values, values).T.reshape(1, 3, 54, 108))
    error = torch.linalg.vector_norm(mixed(*losses.soft_encode(ab, CENTRES)) - ab, dim=1)
    assert error.max() < 5 and error.mean() < 0.3  # far less than the grid of 10, most at the gamut's edge
    _, ab = color.photo_to_lab(skimage.data.coffee()[::5, ::5])
    assert torch.linalg.vector_norm(mixed(*losses.soft_encode(ab, CENTRES)) - ab, dim=1).max() < 1


@pytest.mark.parametrize("far", [150.0, 1e4])
def test_colours_far_from_every_bin_have_shares_too(far):
    index, share = losses.soft_encode(torch.full((1, 2, 2, 2), far), CENTRES)
    assert (CENTRES[index[:, 0]] == torch.tensor([80.0, 70])).all()  # the furthest up that diagonal
    torch.testing.assert_close(share.sum(dim=1), torch.ones(1, 2, 2))


def test_large_batches_are_encoded_as_their_photos_one_by_one():
    ab = colours(3, 150, 160).double()  # 72,000 pixels: taken in two parts, the third photo cut between them
    assert 2 * 150 * 160 < 2**16 < 3 * 150 * 160
    index, share = losses.soft_encode(ab, CENTRES)
    for b in range(3):
        alone_index, alone = losses.soft_encode(ab[b : b + 1], CENTRES)
        same = index[b] == alone_index[0]
        assert same.float().mean() > 0.999  # but for ties
        torch.testing.assert_close(share[b], alone[0])


# --- cross_entropy ---


@pytest.mark.parametrize("size", [(9, 14), (8, 8), (1, 1)])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_equals_a_slow_sum_over_all_bins(size, weighted):
    ab = colours(2, *size)
    logits = scores(2, Q, -(-size[0] // 4), -(-size[1] // 4))
    weights = torch.rand(Q, generator=rng(2)) + 0.1 if weighted else None
    slow = slow_cross_entropy(logits, ab, None if weights is None else weights.numpy())
    exact = losses.cross_entropy(logits, ab.double(), CENTRES, weights)
    assert exact.shape == (2,) and exact.dtype == torch.float64
    np.testing.assert_allclose(exact, slow, rtol=1e-9)
    single = losses.cross_entropy(logits.float(), ab, CENTRES, weights)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single, slow, rtol=1e-5)


def test_a_photo_has_the_same_loss_in_any_batch():
    ab, logits = colours(3, 12, 8), scores(3, Q, 3, 2)
    together = losses.cross_entropy(logits, ab, CENTRES)
    alone = [losses.cross_entropy(logits[b : b + 1], ab[b : b + 1], CENTRES) for b in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))
    assert together.unique().numel() == 3


@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_equal_those_through_dense_targets(weighted):
    ab = colours(2, 9, 8)
    logits = scores(2, Q, 3, 2).requires_grad_()
    weights = torch.rand(Q, generator=rng(2), dtype=torch.float64) if weighted else torch.ones(Q, dtype=torch.float64)
    targets = torch.from_numpy(slow_targets(ab.double().numpy()))
    dense = F.cross_entropy(logits, targets, reduction="none") * weights[targets.argmax(dim=1)]
    (expected,) = torch.autograd.grad(dense.mean(dim=(1, 2)).sum(), logits)
    loss = losses.cross_entropy(logits, ab.double(), CENTRES, weights if weighted else None)
    (found,) = torch.autograd.grad(loss.sum(), logits)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected)


def test_scores_of_ten_thousand_are_no_trouble():
    ab = colours(2, 8, 8)
    logits = (scores(2, Q, 2, 2).sign() * 1e4).float().requires_grad_()
    loss = losses.cross_entropy(logits, ab, CENTRES)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    np.testing.assert_allclose(loss.detach(), slow_cross_entropy(logits.detach(), ab), rtol=1e-5)
    assert gradient.isfinite().all() and gradient.abs().max() > 1e-3


def test_nothing_is_better_than_predicting_the_targets():
    ab = colours(2, 8, 12)
    targets = slow_targets(ab.double().numpy())
    log = np.log(targets, out=np.full_like(targets, -1e4), where=targets > 0)
    entropy = -(targets * log).sum(axis=1).mean(axis=(1, 2))
    best = losses.cross_entropy(torch.from_numpy(log), ab.double(), CENTRES)
    np.testing.assert_allclose(best, entropy, rtol=1e-9)
    assert (best > 0.1).all()  # the targets are soft
    for seed in range(5):
        other = torch.from_numpy(log) + scores(2, Q, 2, 3, scale=0.1, seed=seed)
        assert (losses.cross_entropy(other, ab.double(), CENTRES) > best).all()


# --- annealed_mean ---


def test_at_temperature_one_it_is_the_mean():
    logits = scores(2, Q, 3, 4)
    share = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=1, keepdims=True)
    expected = np.einsum("bqhw,qc->bchw", share, BINS)
    np.testing.assert_allclose(losses.annealed_mean(logits, CENTRES, T=1), expected, rtol=1e-9)
    np.testing.assert_allclose(losses.annealed_mean(logits.float(), CENTRES, T=1), expected, atol=1e-3)


@pytest.mark.parametrize("T", [0, 1e-3])
def test_towards_zero_it_is_the_most_likely_colour(T):
    order = torch.randperm(Q, generator=rng())[:24]
    logits = scores(2, Q, 3, 4, scale=1)
    logits.scatter_(1, order.view(2, 1, 3, 4), 10.0)
    found = losses.annealed_mean(logits, CENTRES, T)
    torch.testing.assert_close(found.float(), CENTRES[order].view(2, 3, 4, 2).permute(0, 3, 1, 2))


def test_between_two_peaks_it_moves_from_their_mean_to_the_higher():
    low, high = 20, 240
    logits = torch.full((1, Q, 1, 1), -1e3)
    logits[0, low], logits[0, high] = 0.0, 1.0
    temperatures = [1, 0.8, 0.6, 0.38, 0.2, 0.1, 0]
    shares = []
    for T in temperatures:
        ab = losses.annealed_mean(logits, CENTRES, T).double().flatten().numpy()
        along = BINS[high] - BINS[low]
        shares.append((ab - BINS[low]) @ along / (along @ along))
        np.testing.assert_allclose(ab, BINS[low] + shares[-1] * along, atol=1e-4)
    assert shares == sorted(shares) and len(set(np.round(shares, 6))) == len(shares)
    np.testing.assert_allclose(shares[:-1], [1 / (1 + np.exp(-1 / T)) for T in temperatures[:-1]], atol=1e-5)
    assert shares[-1] == 1


@pytest.mark.parametrize("T", [1, 0.38, 0.1, 0])
def test_it_stays_among_the_bins(T):
    ab = losses.annealed_mean(scores(4, Q, 16, 16, scale=20 * max(T, 0.1)), CENTRES, T)
    sides = ConvexHull(BINS).equations
    found = ab.permute(0, 2, 3, 1).reshape(-1, 2).double().numpy()
    beyond = (found @ sides[:, :2].T + sides[:, 2]).max()
    assert -5 < beyond < 1e-9  # some come near the edge, else this would say little


@pytest.mark.parametrize("T", [1, 0.38, 1e-3, 0])
@pytest.mark.parametrize("size", [1e4, 1e30])
def test_large_scores_give_the_most_likely_colour(T, size):
    logits = torch.full((1, Q, 1, 2), -size)
    logits[0, 7, 0, 0] = logits[0, 200, 0, 1] = size
    found = losses.annealed_mean(logits, CENTRES, T)
    assert torch.equal(found[0, :, 0].T, CENTRES[[7, 200]])


def test_the_temperature_is_that_of_zhang_unless_told_otherwise():
    assert inspect.signature(losses.annealed_mean).parameters["T"].default == 0.38
    assert inspect.signature(models.Zhang).parameters["T"].default == 0.38


# --- class_weights and prior_of ---


@pytest.mark.parametrize("mix", [1e-3, 0.1, 0.5, 0.9, 1])
@pytest.mark.parametrize("zeros", [0, 1, 200])
def test_weights_have_expectation_one(mix, zeros):
    for seed in range(5):
        prior = torch.rand(Q, generator=rng(seed), dtype=torch.float64) ** 4
        prior[torch.randperm(Q, generator=rng(seed))[:zeros]] = 0
        prior /= prior.sum()
        weights = losses.class_weights(prior, mix)
        assert weights.dtype == torch.float64 and (weights > 0).all()
        assert (prior * weights).sum().item() == pytest.approx(1, rel=1e-12)
        np.testing.assert_allclose(weights, slow_weights(prior.tolist(), mix), rtol=1e-9)


@pytest.mark.parametrize(
    "prior, mix, weights",
    [
        ((0.75, 0.25), 0.5, (6 / 7, 10 / 7)),  # 1/0.625 and 1/0.375, of expectation 28/15
        ((0.75, 0.25), 1, (1, 1)),
        ((0.5, 0.5, 0), 0.5, (1, 1, 2.5)),
        ((0, 0, 1), 1, (1, 1, 1)),
    ],
)
def test_weights_equal_those_by_hand(prior, mix, weights):
    found = losses.class_weights(torch.tensor(prior, dtype=torch.float64), mix)
    np.testing.assert_allclose(found, weights, rtol=1e-12)


@pytest.mark.parametrize("mix", [0, -0.1, 1.1, float("nan")])
def test_an_impossible_share_is_refused(mix):
    with pytest.raises(ValueError, match=r"share of the uniform distribution in \(0, 1\], not"):
        losses.class_weights(torch.tensor([0.5, 0.5]), mix)


def test_mixing_is_half_and_half_unless_told_otherwise(prior):
    prior = torch.tensor(prior)
    assert torch.equal(losses.class_weights(prior), losses.class_weights(prior, 0.5))


def test_the_rarer_the_heavier_and_more_so_with_less_mixed_in():
    prior = torch.rand(Q, generator=rng(), dtype=torch.float64).sort().values
    prior /= prior.sum()
    ranges = []
    for mix in (0.9, 0.5, 0.1, 0.01):
        weights = losses.class_weights(prior, mix)
        assert (weights.diff() < 0).all()
        ranges.append((weights[0] / weights[-1]).item())
    assert ranges == sorted(ranges)


PLAIN = [(255, 0, 0), (20, 90, 200), (90, 160, 60), (128, 128, 128), (240, 200, 40)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Photos of one colour each, of several sizes."""
    folder = tmp_path_factory.mktemp("plain")
    for i, (rgb, size) in enumerate(zip(PLAIN, [(64, 64), (300, 200), (64, 90), (130, 64), (70, 70)])):
        Image.new("RGB", size, rgb).save(folder / f"{i}.png")
    return sorted(folder.glob("*.png"))


def slow_prior(*photos):
    """Of photos of one colour each."""
    ab = torch.cat([color.rgb_to_lab(torch.tensor(rgb, dtype=torch.uint8).view(1, 3, 1, 1))[1] for rgb in photos])
    return slow_targets(ab.double().numpy()).mean(axis=(0, 2, 3))


def test_the_prior_of_one_colour_is_its_soft_target(plain):
    found = losses.prior_of(plain[:1])
    assert found.shape == (Q,) and found.dtype == torch.float64
    np.testing.assert_allclose(found, slow_prior((255, 0, 0)), atol=1e-4)
    assert CENTRES[found.argmax()].tolist() == [80, 70] and (found > 0).sum() == 5  # red is at (80.1, 67.2)


def test_in_the_prior_all_photos_count_the_same_whatever_their_size(plain):
    found = losses.prior_of(plain)
    assert found.sum().item() == pytest.approx(1, rel=1e-12)
    np.testing.assert_allclose(found, slow_prior(*PLAIN), atol=1e-4)


@pytest.mark.parametrize("most, chosen", [(1, [0]), (2, [0, 4]), (3, [0, 2, 4]), (9, [0, 1, 2, 3, 4])])
def test_of_many_photos_the_prior_looks_at_evenly_chosen_ones(plain, most, chosen):
    found = losses.prior_of(plain, most=most)
    np.testing.assert_allclose(found, slow_prior(*(PLAIN[i] for i in chosen)), atol=1e-4)


def test_the_prior_is_of_means_of_4_x_4_as_the_targets_are(tmp_path):
    rgb = np.zeros((64, 64, 3), dtype=np.uint8)
    rgb[(np.indices((64, 64)).sum(axis=0) % 2) == 0] = (200, 60, 60)
    rgb[(np.indices((64, 64)).sum(axis=0) % 2) == 1] = (60, 60, 200)
    Image.fromarray(rgb).save(tmp_path / "chequered.png")
    _, ab = color.photo_to_lab(rgb)
    expected = slow_targets(ab.mean(dim=(2, 3), keepdim=True).double().numpy()).flatten()
    np.testing.assert_allclose(losses.prior_of([tmp_path / "chequered.png"]), expected, atol=1e-4)


def test_the_prior_of_photos_equals_a_slow_count(prepared):
    files = prepared.files("val")
    expected = np.zeros(Q)
    for file in files:
        with Image.open(file) as photo:
            rgb = np.asarray(photo.resize((64, 64), Image.Resampling.BICUBIC))
        expected += slow_targets(color.photo_to_lab(rgb)[1].double().numpy()).mean(axis=(0, 2, 3))
    np.testing.assert_allclose(losses.prior_of(files), expected / len(files), atol=1e-5)


# --- mse_per_photo and Loss ---


def test_mse_with_weights_equals_a_slow_sum():
    ab, pred_ab = colours(2, 5, 6), 60 * torch.randn(2, 2, 5, 6, generator=rng(3))
    weights = torch.rand(Q, generator=rng(4)) + 0.1
    found = losses.mse_per_photo(pred_ab, ab, weights)
    assert found.shape == (2,) and found.dtype == torch.float32
    np.testing.assert_allclose(found, slow_mse(pred_ab, ab, weights.numpy()), rtol=1e-5)


def test_weights_of_one_change_nothing():
    ab, pred_ab = colours(2, 8, 8), torch.zeros(2, 2, 8, 8)
    ones, logits = torch.ones(Q), scores(2, Q, 2, 2)
    assert torch.equal(losses.mse_per_photo(pred_ab, ab, ones), losses.mse_per_photo(pred_ab, ab))
    np.testing.assert_allclose(losses.mse_per_photo(pred_ab, ab), (ab / 255).square().mean(dim=(1, 2, 3)), rtol=1e-5)
    weighted, plain = (losses.cross_entropy(logits, ab, CENTRES, w) for w in (ones, None))
    assert torch.equal(weighted, plain)


L = torch.full((2, 1, 9, 12), 50.0)
PRED_AB = 40 * torch.randn(2, 2, 9, 12, generator=rng(3))
LOGITS = scores(2, Q, 3, 3).float()


def painter(L):
    return PRED_AB


def scorer(L, logits):
    assert logits is True
    return LOGITS


@pytest.mark.parametrize("mix", [None, 0.25, 0.5, 1])
def test_the_loss_of_a_recipe_is_mse_rebalanced_if_it_says_so(prior, mix):
    ab = colours(2, 9, 12)
    loss = losses.Loss(replace(CLASSES, loss="mse", rebalance=mix), prior)
    found = loss(painter, L, ab, torch.float32)
    weights = np.ones(Q) if mix is None else slow_weights(prior, mix)
    np.testing.assert_allclose(found, slow_mse(PRED_AB, ab, weights), rtol=1e-5)
    assert torch.allclose(found, losses.mse_per_photo(PRED_AB, ab)) == (mix in (None, 1))


@pytest.mark.parametrize("mix", [None, 0.25, 0.5, 1])
def test_the_loss_of_a_recipe_is_cross_entropy_of_the_scores_rebalanced_if_it_says_so(prior, mix):
    ab = colours(2, 9, 12)
    found = losses.Loss(replace(CLASSES, rebalance=mix), prior)(scorer, L, ab, torch.float32)
    weights = np.ones(Q) if mix is None else slow_weights(prior, mix)
    np.testing.assert_allclose(found, slow_cross_entropy(LOGITS, ab, weights), rtol=1e-5)
    assert torch.allclose(found, losses.cross_entropy(LOGITS, ab, CENTRES)) == (mix in (None, 1))


def test_without_a_prior_nothing_is_rebalanced():
    ab = colours(2, 9, 12)
    found = losses.Loss(CLASSES, None)(scorer, L, ab, torch.float32)
    assert torch.equal(found, losses.cross_entropy(LOGITS, ab, CENTRES))
    found = losses.Loss(replace(CLASSES, loss="mse"))(painter, L, ab, torch.float32)
    assert torch.equal(found, losses.mse_per_photo(PRED_AB, ab))


@pytest.mark.parametrize("loss", ["huber", "", "MSE"])
def test_an_unknown_loss_is_answered_with_the_choices(loss):
    with pytest.raises(ValueError, match=f"^there is no loss '{loss}'; choose mse or cross-entropy.$"):
        losses.Loss(replace(CLASSES, loss=loss))


# --- predict ---


class Painter(models.Colorizer):
    """One convolution; remembers in which number type it was computed."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 3, padding=1)

    def paint(self, x):
        painted = self.layer(x)
        self.computed_in = painted.dtype
        return painted


@pytest.mark.parametrize(
    "precision, result",
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_a_prediction_is_computed_as_asked_but_never_given_in_16_bits(precision, result):
    torch.manual_seed(0)
    model = Painter().to(result)
    L = 100 * torch.rand(2, 1, 9, 12, generator=rng())
    with torch.no_grad():
        found = losses.predict(model, L, precision)
        assert model.computed_in == precision
        exact = model.double()(L.double())
    assert found.dtype == result and found.shape == (2, 2, 9, 12)
    worst = (found - exact).abs().max()
    assert worst < {torch.bfloat16: 1, torch.float32: 1e-3, torch.float64: 1e-12}[precision]


def test_predict_hands_options_on_to_the_model():
    assert losses.predict(scorer, L, torch.float32, logits=True) is LOGITS
    assert losses.predict(lambda L, **options: options, L, torch.float64, a=1) == {"a": 1}
