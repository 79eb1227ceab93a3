"""What a coloured photo is measured by, and the trivial answers that it is measured against."""

import numpy as np
import torch
from skimage import color as skcolor
from skimage import metrics

from colorlib import color
from colorlib.losses import mse_per_photo

# The floors, and how tables call them: what can be had without looking at a photo's content.
FLOORS = {
    "grey": "all grey",
    "train_mean": "the training photos' mean colour",
    "oracle": "each photo's own mean colour (oracle)",
}
OF_PICTURES = ("ciede2000", "psnr", "ssim", "colourfulness")  # what is found from sRGB pictures, not from ab


def floors_ab(ab, train_mean):
    """The one colour that each floor paints each of these photos in: `{name: (B, 2, 1, 1) or (1, 2, 1, 1)}`.

    Args:
        ab: the truth, `(B, 2, H, W)`.
        train_mean: `(2,)`, mean ab of the photos that the model was trained on.
    """
    mean = torch.as_tensor(train_mean, device=ab.device).float().view(1, 2, 1, 1)
    return {"grey": torch.zeros_like(mean), "train_mean": mean, "oracle": ab.mean(dim=(2, 3), keepdim=True)}


def errors(pred_ab, ab, train_mean):
    """Errors photo by photo, on the device: `{column: (B,)}`.

    `mse` on `ab_unit`, the same for each floor (`mse_grey` and so on), and the mean `chroma` of the prediction and
    `true_chroma`, in `ab` units.
    """
    found = {"mse": mse_per_photo(pred_ab, ab)}
    found |= {f"mse_{name}": mse_per_photo(flat, ab) for name, flat in floors_ab(ab, train_mean).items()}
    for name, colours in (("chroma", pred_ab), ("true_chroma", ab)):
        found[name] = color.chroma(colours).mean(dim=(1, 2))
    return found


def colourfulness(rgb):
    """How colourful people find a picture: uint8 `(B, 3, H, W)` -> `(B,)`, 0 for grey, about 80 and more for vivid.

    Hasler and Süsstrunk, "Measuring colourfulness in natural images" (2003), with signed differences: the spread of
    R - G and (R + G) / 2 - B over the pixels, and 0.3 times how far their mean is from grey.
    """
    red, green, blue = rgb.float().unbind(dim=1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue], dim=1)
    spread = opponents.var(dim=(2, 3), correction=0).sum(dim=1).sqrt()
    return spread + 0.3 * torch.linalg.vector_norm(opponents.mean(dim=(2, 3)), dim=1)


def compare_pictures(truth, coloured):
    """CIEDE2000, PSNR and SSIM of two sRGB pictures, by scikit-image.

    Args:
        truth, coloured: uint8 `(H, W, 3)`, at least 11 x 11.

    Returns:
        `{"ciede2000": mean over pixels, "psnr": in dB, infinite for equal pictures, "ssim": mean over R, G and B}`,
        with the Gaussian window of Wang et al. 2004.
    """
    with np.errstate(divide="ignore"):  # equal pictures
        psnr = metrics.peak_signal_noise_ratio(truth, coloured, data_range=255)
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return {
        "ciede2000": skcolor.deltaE_ciede2000(skcolor.rgb2lab(truth), skcolor.rgb2lab(coloured)).mean(),
        "psnr": psnr,
        "ssim": metrics.structural_similarity(truth, coloured, channel_axis=2, data_range=255, **window),
    }
