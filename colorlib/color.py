"""sRGB <-> CIELAB on batched tensors (D65, 2 degree observer), and the scale of every published MSE.

Constants are those of scikit-image (`skimage.color`), which the source documents used, so that their
figures and ours live in the same space. See IEC 61966-2-1 for sRGB and CIE 15 for CIELAB.
"""

from functools import lru_cache

import numpy as np
import torch

# Linear sRGB -> XYZ, and the white it is divided by (scikit-image 0.26, `xyz_from_rgb`, D65/2).
XYZ_FROM_RGB = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
WHITE = np.array([0.95047, 1.0, 1.08883])
_TO_XYZ = (XYZ_FROM_RGB / WHITE[:, None]).tolist()
_TO_RGB = np.linalg.inv(XYZ_FROM_RGB / WHITE[:, None]).tolist()

# How far outside [0, 1] a linear channel may be and still count as in gamut: under half of an 8-bit step.
_BELOW, _ABOVE = -1e-4, 1 + 1e-3
_MAX_CHROMA = 200.0  # beyond every sRGB colour (134); keeps wild predictions finite


def _decode(v):
    """sRGB value in [0, 1] -> linear light in [0, 1]."""
    return torch.where(v > 0.04045, ((v + 0.055) / 1.055) ** 2.4, v / 12.92)


def _encode(v):
    """Linear light in [0, 1] -> sRGB value in [0, 1]."""
    curved = v.clamp(min=0.0031308)
    # The straight part goes on where the curve ends; `where` would take several times as long.
    return (curved ** (1 / 2.4)).mul_(1.055).sub_(0.055).add_(v - curved, alpha=12.92)


@lru_cache
def _linear(device):  # 8-bit sRGB -> linear light; kept, since sending it anew would hold up a GPU at every step
    return _decode(torch.arange(256, dtype=torch.float64) / 255).float().to(device)


def _mix(matrix, channels):
    # Written out rather than as a matrix product: autocast would run that in 16 bits.
    return [sum(w * c for w, c in zip(row, channels)) for row in matrix]


def _f(t):
    """CIELAB's f: XYZ relative to white -> its cube-root scale."""
    # A cube root by pow loses nothing here: t is clamped away from 0, where the straight part takes over.
    return torch.where(t > 0.008856, t.clamp(min=0.008856) ** (1 / 3), 7.787 * t + 16 / 116)


def _undo_f(f):
    """The inverse of CIELAB's f: from its cube-root scale to XYZ relative to white."""
    curved = f.clamp(min=24 / 116)
    return (curved**3).add_(f - curved, alpha=1 / 7.787)


def _linear_rgb(L, ab):
    """CIELAB -> linear sRGB `(B, 3, H, W)`, not clipped."""
    f = ab.new_empty(len(ab), 3, *ab.shape[2:])
    f[:] = (L + 16) / 116
    f[:, 0].add_(ab[:, 0], alpha=1 / 500)
    f[:, 2].sub_(ab[:, 1], alpha=1 / 200)
    xyz = _undo_f(f).clamp_(min=0)
    linear = torch.empty_like(f)
    for channel, weights in enumerate(_TO_RGB):  # in place: most of the time goes into moving numbers
        torch.mul(xyz[:, 0], weights[0], out=linear[:, channel])
        linear[:, channel].add_(xyz[:, 1], alpha=weights[1]).add_(xyz[:, 2], alpha=weights[2])
    return linear


def rgb_to_lab(rgb):
    """Convert 8-bit sRGB to CIELAB.

    Args:
        rgb: uint8 `(B, 3, H, W)`, on any device.

    Returns:
        `(L, ab)`: float32 `(B, 1, H, W)` in [0, 100] and `(B, 2, H, W)` in about [-110, 110].

    Raises:
        ValueError: if `rgb` is not uint8 or not of that shape.
    """
    if rgb.dtype != torch.uint8 or rgb.ndim != 4 or rgb.shape[1] != 3:
        raise ValueError(f"rgb must be uint8 (B, 3, H, W), not {rgb.dtype} {tuple(rgb.shape)}")
    linear = _linear(rgb.device)[rgb.int()]
    fx, fy, fz = _f(torch.cat(_mix(_TO_XYZ, linear.split(1, dim=1)), dim=1)).split(1, dim=1)
    return 116 * fy - 16, torch.cat([500 * (fx - fy), 200 * (fy - fz)], dim=1)


def lightness(rgb):
    """The L of `rgb_to_lab` alone, several times as fast: uint8 `(B, 3, H, W)` -> float32 `(B, 1, H, W)`."""
    linear, Y = _linear(rgb.device), 0
    for weight, channel in zip(_TO_XYZ[1], rgb.unbind(dim=1)):
        Y = (weight * linear).index_select(0, channel.flatten().int()).add_(Y)
    return _f(Y).mul_(116).sub_(16).view(len(rgb), 1, *rgb.shape[2:])


def photo_to_lab(rgb):
    """One photo, a uint8 array `(H, W, 3)` -> `(L, ab)` as in `rgb_to_lab`: a batch of one, on the CPU."""
    return rgb_to_lab(torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None])


def lab_to_rgb(L, ab):
    """Put lightness and (predicted) colour together as 8-bit sRGB.

    A colour that sRGB cannot show keeps its L and its hue and gives up chroma until it fits, because
    clipping the channels instead would change the lightness, which is the one thing known for certain.
    NaN counts as no colour.

    Args:
        L: float `(B, 1, H, W)` in [0, 100].
        ab: float `(B, 2, H, W)`, any values.

    Returns:
        uint8 `(B, 3, H, W)`.
    """
    L = L.float().clamp(0, 100)
    ab = ab.float()
    usual = not ab.numel() or torch.stack(ab.aminmax()).abs().amax() <= _MAX_CHROMA / 2  # False of NaN
    if not usual:  # rarely, and it would take a tenth of the time
        ab = torch.nan_to_num(ab, nan=0.0, posinf=_MAX_CHROMA, neginf=-_MAX_CHROMA).clamp(-1e15, 1e15)
        ab = ab * (_MAX_CHROMA / chroma(ab)[:, None].clamp(min=_MAX_CHROMA))
    linear = _linear_rgb(L, ab)
    outside = ~_in_gamut(linear)
    if outside.any():  # usually a few pixels: work on those alone, as a batch of one column
        index = outside[:, 0].nonzero(as_tuple=True)
        l1, ab1, linear1 = (x[index[0], :, index[1], index[2]][..., None, None] for x in (L, ab, linear))
        linear[index[0], :, index[1], index[2]] = _fitted(l1, ab1, linear1)[..., 0, 0]
    return _encode(linear.clamp_(0, 1)).mul_(255).round_().to(torch.uint8)


def _fitted(L, ab, linear):
    """Linear sRGB of colours that are out of gamut, `(n, 3, 1, 1)`, with as much of their chroma as fits."""
    grey = _linear_rgb(L, torch.zeros_like(ab))
    # Nearly black, as most of them are, it is a straight line from grey to the colour: cut where it leaves the gamut.
    bound = torch.where(linear < 0, _BELOW, _ABOVE)
    share = torch.where((linear < _BELOW) | (linear > _ABOVE), (bound - grey) / (linear - grey), 1)
    fitted = torch.lerp(grey, linear, share.amin(dim=1, keepdim=True).clamp(0, 1))
    curved = ((L + 16) / 116 + (ab[:, :1] / 500).clamp(min=0) - (ab[:, 1:] / 200).clamp(max=0) > 24 / 116)[:, 0, 0, 0]
    if curved.any():
        L, ab = L[curved], ab[curved]
        low, high = torch.zeros_like(L), torch.ones_like(L)  # share of the chroma that is kept
        for _ in range(10):  # 2^-10 of the chroma: at most 0.12 ab units
            mid = (low + high) / 2
            fits = _in_gamut(_linear_rgb(L, mid * ab))
            low, high = torch.where(fits, mid, low), torch.where(fits, high, mid)
        fitted[curved] = _linear_rgb(L, low * ab)
    return fitted


def _in_gamut(linear):
    return (linear.amin(dim=1, keepdim=True) >= _BELOW) & (linear.amax(dim=1, keepdim=True) <= _ABOVE)


def chroma(ab):
    """How far from grey colours are: float `(B, 2, H, W)` -> `(B, H, W)`, in `ab` units."""
    return torch.hypot(ab[:, 0], ab[:, 1])  # torch.linalg.vector_norm takes 70 times as long on a CPU


def l_to_grey(L):
    """The neutral sRGB value whose lightness is L: float like `L`, in [0, 1].

    It equals `skimage.color.rgb2gray` of a neutral pixel. On coloured pixels rgb2gray weighs the
    gamma-encoded channels and so differs; a model is only ever given this one.
    """
    return _encode(_undo_f((L + 16) / 116).clamp(0, 1)).clamp(0, 1)


def to_unit(ab):
    """`ab` -> `ab_unit` in [0, 1]: the scale on which the source documents state their MSE."""
    return (ab + 128) / 255


def from_unit(ab_unit):
    """`ab_unit` in [0, 1] -> `ab`; the inverse of `to_unit`."""
    return ab_unit * 255 - 128


@lru_cache
def ab_bins(size=10):
    """The bins that classification chooses from: the points of an ab grid that are nearest to some sRGB colour.

    For a grid of 10 there are 261. The list of Zhang et al. 2016 has 313, since it also takes in what lies around. Only
    229 points are themselves sRGB colours, at some lightness (227, if no more than each half unit of L is tried).

    Returns:
        float32 `(Q, 2)`, sorted by a, then b, in `ab` units.
    """
    with torch.device("cpu"):  # also where a model is built on another one
        # The colours of the cube's faces do: whatever ab the inside has, some point of a face has too.
        u, v = torch.cartesian_prod(*2 * [torch.arange(256, dtype=torch.uint8)]).T
        w = torch.zeros_like(u)
        faces = torch.stack([torch.stack(face) for z in (w, w + 255) for face in ((u, v, z), (u, z, v), (z, u, v))])
        ab = rgb_to_lab(faces[..., None])[1]
        return (ab / size).round().transpose(1, 2).reshape(-1, 2).unique(dim=0) * size


@lru_cache
def _bin_table(device):  # for each point of the grid the number of the nearest bin
    side = torch.arange(-_REACH, _REACH + 1) * 10.0
    grid = torch.cartesian_prod(side, side)
    return torch.cdist(grid, ab_bins()).argmin(dim=1).view(len(side), len(side)).to(device)


_REACH = 20  # in bins: chroma up to 200


def nearest_bin(ab):
    """The number of each colour's nearest bin of `ab_bins`: float `(B, 2, H, W)` -> int64 `(B, H, W)`."""
    a, b = ((ab / 10).round().clamp(-_REACH, _REACH).long() + _REACH).unbind(dim=1)
    return _bin_table(ab.device)[a, b]
