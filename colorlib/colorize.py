"""A photo or a folder -> colour, at full resolution."""

import errno
import warnings
from collections import Counter, namedtuple
from functools import lru_cache
from itertools import chain, count
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from colorlib import color, photos, runtime, saving
from colorlib.losses import predict

NETWORK_SIDE = 256  # short side of the copy that the network sees, unless it is told otherwise
_MOST_SEEN = 8  # the copy's area is at most so many squares of that side: a very long strip is seen smaller
_BANDS = {"cuda": 2**22}  # pixels that are put together at once; elsewhere as many as a cache holds
_RADIUS = 3  # of the guided filter's window, in pixels of the copy
_SMOOTH = 20.0  # its epsilon, in units of L squared: differences of L well below its root are texture and no edges


@torch.no_grad()
def colorize(model, rgb, side=NETWORK_SIDE, strength=1.0):
    """Colour a photo. Its lightness is kept at full resolution; colours it may have had are not used.

    The network sees a small copy of L. Its colours are brought back along the edges of L by the fast guided filter of
    He and Sun (2015): around each pixel of the copy, ab is fitted by a linear function of L, and the coefficients are
    enlarged instead of ab itself.

    A GPU that runs out of memory gets smaller copies, and then the processor takes over; either is warned about.

    Args:
        model: takes L `(B, 1, H, W)`, returns pred_ab `(B, 2, H, W)`; its mode is put back afterwards.
        rgb: uint8 array `(H, W, 3)`, any size.
        side: short side of the copy that the network sees, if the photo is larger; best what it was trained on.
        strength: what pred_ab is multiplied by: 0 gives grey, 1 the colours as predicted.

    Returns:
        uint8 array `(H, W, 3)`.

    Raises:
        MemoryError: if there is not enough memory for this photo, whatever was tried.
    """
    home, was_training = next(model.parameters()).device, model.training
    attempts = [(home, side), (home, side // 2), (home, side // 4), ("cpu", side)]
    try:
        for (device, seen), following in zip(attempts, [*attempts[1:], None]):
            try:
                return _colorize(model.eval().to(device), rgb, seen, strength)
            except torch.OutOfMemoryError:
                if following is None:
                    raise MemoryError("there is not enough memory to colour this photo.") from None
                torch.cuda.empty_cache()
                on = f"with a copy of {following[1]} pixels" if following[0] == home else "on the processor, slowly"
                warnings.warn(f"The memory of {device} is full: trying again {on}.", stacklevel=3)
    finally:
        model.train(was_training).to(home)


def _colorize(model, rgb, side, strength):
    weights = next(model.parameters())
    height, width = rgb.shape[:2]
    rows = max(1, _BANDS.get(weights.device.type, 2**18) // width)
    L = torch.empty(height, width)
    for y in range(0, height, rows):
        L[y : y + rows] = color.lightness(torch.from_numpy(rgb[y : y + rows]).permute(2, 0, 1)[None])[0, 0]
    seen, scale = L[None, None], min(1, side / min(L.shape), side * (_MOST_SEEN / L.numel()) ** 0.5)
    if scale < 1:
        size = [max(1, round(length * scale)) for length in L.shape]
        seen = F.interpolate(seen, size=size, mode="bilinear", antialias=True).clamp(0, 100)
    pred_ab = predict(model, seen.to(weights), runtime.precision(weights.device)).float().nan_to_num(0) * strength
    if scale < 1:  # of each band, the coefficients of its rows are enlarged; the columns' are so before
        parts = torch.cat(_guided(seen.to(pred_ab.device), pred_ab), dim=1)
        parts = F.interpolate(parts, size=(parts.shape[2], width), mode="bilinear")[0]
    coloured = torch.empty(rgb.shape, dtype=torch.uint8)
    for y in range(0, height, rows):
        here = L[None, None, y : y + rows].to(pred_ab.device)
        if scale < 1:
            slope, offset = _rows(parts, y, here.shape[2], height).split(2)
            ab = (slope * here[0] + offset)[None]
        else:
            ab = pred_ab[:, :, y : y + rows]
        coloured[y : y + rows] = color.lab_to_rgb(here, ab)[0].permute(1, 2, 0)
    return coloured.numpy()


def _guided(L, ab):
    """The guided filter's `(slope, offset)`, both `(1, 2, h, w)`: ab is about slope * L + offset around each pixel."""

    def mean(x):
        return F.avg_pool2d(x, 2 * _RADIUS + 1, stride=1, padding=_RADIUS, count_include_pad=False)

    mean_L, mean_ab = mean(L), mean(ab)
    slope = (mean(L * ab) - mean_L * mean_ab) / (mean(L * L) - mean_L**2 + _SMOOTH)
    return mean(slope), mean(mean_ab - slope * mean_L)


def _rows(x, first, n, height):
    """Of `(C, h, W)`, bilinearly enlarged to `height` rows, those from `first` on: `(C, n, W)`."""
    last = x.shape[1] - 1
    at = ((torch.arange(first, first + n, device=x.device) + 0.5) * (x.shape[1] / height) - 0.5).clamp(0, last)
    near = range(int(at[0]), min(int(at[-1]) + 1, last) + 1)
    shares = (1 - (at[:, None] - torch.tensor(near, device=x.device)).abs()).clamp(min=0)
    return shares @ x[:, near.start : near.stop]


THERE = "was there already"
Result = namedtuple("Result", "photo coloured note")  # two paths, or None where it could not be coloured; and why not


def plan(sources, out=None, suffix=None, ending="_coloured"):
    """Which file each photo's result goes to; nothing is read but folders, nothing is made.

    Args:
        sources: paths of photos and folders; folders are searched with all below them.
        out: a folder, or for a single photo a file with one of `saving.FORMATS`' suffixes. By default a photo's result
            lies beside it, and those of a folder in one beside it, FOLDER_coloured.
        suffix: such as ".png"; by default the photo's own, if it is one of `saving.FORMATS`, else ".png".
        ending: what is added to names.

    Returns:
        List of `(photo, target)`, both `Path`. A photo that is the result of another is left out.

    Raises:
        FileNotFoundError: if a source is missing, or a folder without photos.
        ValueError: if `out` is a picture of a kind that is not written, or the photo itself.
    """
    sources, out = [Path(source).expanduser() for source in sources], out and Path(out).expanduser()
    if out and len(sources) == 1 and sources[0].is_file() and out.suffix.lower() in saving.FORMATS:
        if out.resolve() == sources[0].resolve():
            raise ValueError(f"{out}: is the photo itself, which stays as it is; give the result another name.")
        return [(sources[0], out)]
    if out and out.suffix.lower() in photos.SUFFIXES - set(saving.FORMATS):
        raise ValueError(f"{out}: results are written as {', '.join(saving.FORMATS)}; choose one of these.")
    wanted = {}  # of each photo, given once or twice: the folder of its result, and how that is to end
    for source in sources:
        files, below = photos.find_photos(source), out
        if source.is_dir():
            whole = source.resolve()  # "." has no name
            below = out / whole.name if out and len(sources) > 1 else out or whole.with_name(whole.name + ending)
        for photo in files:
            place = (below or photo.parent) / (photo.parent.relative_to(source) if source.is_dir() else "")
            own = photo.suffix.lower()
            wanted[photo] = place, ending + (suffix or (own if own in saving.FORMATS else ".png"))
    alike = Counter((place, photo.stem, end) for photo, (place, end) in wanted.items())
    targets, taken = {}, set()
    for photo, (place, end) in wanted.items():
        name = photo.stem if alike[place, photo.stem, end] == 1 else photo.name  # 1.gif beside 1.heic
        names = chain((name,), (f"{name}-{k}" for k in count(2)))
        targets[photo] = next(p for name in names if (p := place / f"{name}{end}") not in taken)
        taken.add(targets[photo])
    results = {target.resolve() for target in taken}
    return [(photo, target) for photo, target in targets.items() if photo.resolve() not in results]


def colorize_each(model, pairs, side=NETWORK_SIDE, strength=1.0, beside=False, overwrite=False):
    """Colour the photos of `plan` one after the other, each into its file; an iterator of a `Result` for each.

    Files are written under a temporary name and renamed, with the photo's metadata. Who stops in the middle loses
    nothing, and who starts again passes over what is there. A photo that cannot be read or coloured is a result with
    its reason.

    Args:
        model, side, strength: as for `colorize`.
        beside: put the photo itself to the left of the result.
        overwrite: replace files that are there.

    Raises:
        OSError: if a disk is full: then nothing more can be written either.
    """
    writable = lru_cache(runtime.writable)
    for photo, target in pairs:
        if target.exists() and not overwrite:
            yield Result(photo, target, THERE)
            continue
        try:
            writable(target.parent, "-o")
            rgb, notes, profile, remarks = photos.read_photo(photo)
            coloured = colorize(model, rgb, side, strength)
            if beside:
                gap = np.full((len(rgb), max(4, rgb.shape[1] // 50), 3), 255, dtype=np.uint8)
                coloured = np.concatenate([rgb, gap, coloured], axis=1)
            del rgb
            lost = saving.save(coloured, target, notes, profile, overwrite)
            yield Result(photo, target, "; ".join(filter(None, [*remarks, lost])))
        except (photos.PhotoError, MemoryError, RuntimeError, ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            named = isinstance(error, (photos.PhotoError, OSError))
            text = str(error) if named else f"{photo}: cannot be coloured ({error or type(error).__name__})."
            yield Result(photo, None, text)


def colorize_files(model, source, out, side=NETWORK_SIDE, strength=1.0, **options):
    """`colorize_each` for a notebook: a photo, or all below a folder, with a progress bar.

    Args:
        source: a photo or a folder.
        out: the folder of the results; made if need be.
        options: as for `colorize_each`.

    Returns:
        DataFrame with a row per photo: `photo`, `coloured` (its path, "" if there is none) and `note`.

    Raises:
        FileNotFoundError: if there are no photos.
        PermissionError: if `out` cannot be written to.
    """
    import pandas as pd  # here: it would make the command line slower

    pairs = plan([source], out)
    runtime.writable(Path(out).expanduser())
    rows = []
    with runtime.bar(len(pairs), "colouring") as bar:
        for result in colorize_each(model, pairs, side, strength, **options):
            rows.append((result.photo, result.coloured or "", result.note))
            bar.update()
    return pd.DataFrame(rows, columns=["photo", "coloured", "note"])
