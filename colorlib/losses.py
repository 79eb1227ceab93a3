"""What training minimises: MSE, or cross-entropy over bins of colour, either with rare colours weighted more.

Classification is that of Zhang, Isola and Efros, "Colorful Image Colorization" (ECCV 2016), which document 003 follows.
"""

import torch
import torch.nn.functional as F

from colorlib import color, loading


class Loss:
    """A recipe's loss: a function of a model and a batch.

    Args:
        recipe: a `recipes.Recipe`; `loss` and `rebalance` are looked at.
        prior: of the bins; as long as it is None, nothing is rebalanced.
        device: where it will be computed.
        centres: the bins, those of the model; by default `color.ab_bins`.

    Raises:
        ValueError: if there is no such loss.
    """

    def __init__(self, recipe, prior=None, device="cpu", centres=None):
        if recipe.loss not in ("mse", "cross-entropy"):
            raise ValueError(f"there is no loss {recipe.loss!r}; choose mse or cross-entropy.")
        self.kind, self.weights = recipe.loss, None
        if self.kind == "cross-entropy":
            self.centres = (color.ab_bins() if centres is None else centres).to(device)
        if recipe.rebalance is not None and prior is not None:
            self.weights = class_weights(torch.as_tensor(prior), recipe.rebalance).float().to(device)

    def __call__(self, model, L, ab, precision, pred_ab=None):
        """The loss photo by photo: `(B,)`, on `ab_unit` or in nats; `pred_ab` if it was predicted already."""
        if self.kind == "mse":
            return mse_per_photo(predict(model, L, precision) if pred_ab is None else pred_ab, ab, self.weights)
        return cross_entropy(predict(model, L, precision, logits=True), ab, self.centres, self.weights)


def predict(model, L, precision, **options):
    """What a model makes of L, with its arithmetic in a number type; the result is float32, or float64."""
    if precision == torch.float64:
        return model(L.double(), **options)
    with torch.autocast(L.device.type, precision, enabled=precision != torch.float32):
        return model(L, **options)


def mse_per_photo(pred_ab, ab, weights=None):
    """Mean over pixels and both channels of the squared error on `ab_unit`: `(B, 2, H, W)` twice -> `(B,)`.

    Multiply by 255^2 = 65,025 for the same in raw ab units. With `weights`, `(Q,)`, each pixel counts as much as the
    bin (of `color.ab_bins`) of its true colour.
    """
    error = (color.to_unit(pred_ab) - color.to_unit(ab)) ** 2
    if weights is not None:
        error = error * weights[color.nearest_bin(ab)][:, None]
    return error.mean(dim=(1, 2, 3))


def grown(x, multiple):
    """`(B, C, H, W)` grown at the right and the bottom, by repeating the last pixels, until both sides divide."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def quarter(ab):
    """`ab` at a quarter of the size (rounded up), where bins are predicted: means of 4 x 4 pixels."""
    return F.avg_pool2d(grown(ab, 4), 4)


def soft_encode(ab, centres, n=5, sigma=5.0):
    """Each colour as a mixture of its `n` nearest bins, weighted by a Gaussian of the distance (Zhang, section 2.2).

    Args:
        ab: float `(B, 2, h, w)`, in `ab` units.
        centres: the bins, `(Q, 2)`.
        sigma: of the Gaussian, in `ab` units.

    Returns:
        `(index, share)`: int64 and float, both `(B, n, h, w)`, the nearest bin first; shares sum to 1 over `n`.
    """
    colours = ab.permute(0, 2, 3, 1).reshape(-1, 2)
    found = []
    for part in colours.split(2**16):  # all distances of a batch at once would take gigabytes
        distance, index = torch.cdist(part, centres.to(part)).topk(n, largest=False)
        found.append((index, F.softmax(-(distance**2) / (2 * sigma**2), dim=1)))
    shape = (ab.shape[0], *ab.shape[-2:], n)
    return tuple(torch.cat(values).view(shape).permute(0, 3, 1, 2) for values in zip(*found))


def cross_entropy(logits, ab, centres, weights=None):
    """Cross-entropy between the scores and the softly encoded colours, mean over pixels: `(B,)`, in nats.

    The targets are never spelled out over all bins: of each pixel's log-probabilities only five are looked at.

    Args:
        logits: float `(B, Q, ceil(H/4), ceil(W/4))`.
        ab: float `(B, 2, H, W)`.
        centres: `(Q, 2)`.
        weights: `(Q,)`, how much a pixel counts whose nearest bin is that one (Zhang, equations 2 to 4).
    """
    index, share = soft_encode(quarter(ab), centres)
    losses = logits.logsumexp(dim=1) - (share * logits.gather(1, index)).sum(dim=1)
    if weights is not None:
        losses = losses * weights[index[:, 0]]
    return losses.mean(dim=(1, 2))


def annealed_mean(logits, centres, T=0.38):
    """A colour from the scores of the bins: the mean over the sharpened distribution (Zhang, equation 5).

    Args:
        logits: float `(B, Q, h, w)`.
        centres: `(Q, 2)`.
        T: 1 takes the mean, which is dull; towards 0 it becomes the most likely colour, which is vivid and patchy.

    Returns:
        float `(B, 2, h, w)`, in `ab` units.
    """
    if T == 0:
        return centres.to(logits)[logits.argmax(dim=1)].permute(0, 3, 1, 2)
    shares = (logits / T).softmax(dim=1)
    # Not as a matrix product: autocast would run that in 16 bits.
    return torch.stack([(shares * channel.view(1, -1, 1, 1)).sum(dim=1) for channel in centres.to(logits).T], dim=1)


def prior_of(files, workers=0, size=64, most=3000):
    """How often each bin of `color.ab_bins` occurs in photos of size x size, at a quarter of it, as when training.

    Returns:
        float64 `(Q,)`, sums to 1; over at most `most` evenly chosen photos.
    """
    centres = color.ab_bins()
    counts = torch.zeros(len(centres), dtype=torch.float64)
    for rgb in loading.some(files, size, workers, most):
        index, share = soft_encode(quarter(color.rgb_to_lab(rgb)[1]), centres)
        counts += torch.bincount(index.flatten(), share.flatten().double(), minlength=len(centres))
    return counts / counts.sum()


def class_weights(prior, mix=0.5):
    """What each bin counts so that rare colours are learnt too: float64 `(Q,)`, of expectation 1 under the prior.

    Args:
        prior: `(Q,)`.
        mix: share of the uniform distribution that the prior is mixed with (Zhang's lambda): 1 leaves all equal.

    Raises:
        ValueError: if `mix` is not above 0 and up to 1.
    """
    if not 0 < mix <= 1:
        raise ValueError(f"the prior can be mixed with a share of the uniform distribution in (0, 1], not {mix!r}.")
    weights = 1 / ((1 - mix) * prior + mix / len(prior))
    return weights / (prior * weights).sum()
