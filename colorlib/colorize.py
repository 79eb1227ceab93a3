"""A photo or a folder -> colour, at full resolution."""

from collections import Counter
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image

from colorlib import color, runtime
from colorlib.photos import PhotoError, find_photos, open_photo

NETWORK_SIDE = 256  # short side of the copy that the network sees, unless it is told otherwise


@torch.no_grad()
def colorize(model, rgb, side=NETWORK_SIDE):
    """Colour a photo. Its lightness is kept at full resolution; colours it may have had are not used.

    Args:
        model: takes L `(B, 1, H, W)`, returns pred_ab `(B, 2, H, W)`; its mode is put back afterwards.
        rgb: uint8 array `(H, W, 3)`, any size.
        side: short side of the copy that the network sees, if the photo is larger; best what it was trained on.

    Returns:
        uint8 array `(H, W, 3)`.
    """
    weights = next(model.parameters())
    L = color.photo_to_lab(rgb)[0].to(weights.device)
    scale = side / min(L.shape[-2:])
    seen = L
    if scale < 1:
        size = [max(1, round(length * scale)) for length in L.shape[-2:]]
        seen = F.interpolate(L, size=size, mode="bilinear", antialias=True).clamp(0, 100)
    was_training = model.training
    pred_ab = model.eval()(seen.to(weights.dtype)).to(L.dtype)
    model.train(was_training)
    if scale < 1:
        pred_ab = F.interpolate(pred_ab, size=L.shape[-2:], mode="bilinear")
    return color.lab_to_rgb(L, pred_ab)[0].permute(1, 2, 0).cpu().numpy()


def colorize_files(model, source, out, side=NETWORK_SIDE):
    """Colour a photo or every photo below a folder, into PNG files below another folder.

    A photo that cannot be read is reported and passed over, and nothing that exists is overwritten.

    Args:
        model, side: as for `colorize`.
        source: a file or a folder.
        out: a folder; made if need be.

    Returns:
        DataFrame with a row per photo: `photo`, `coloured` (its path, "" if there is none) and `note`.

    Raises:
        FileNotFoundError: if there are no photos.
        PermissionError: if `out` cannot be written to.
    """
    files, source = find_photos(source), Path(source).expanduser()
    out, rows = runtime.writable(Path(out).expanduser()), []
    if source.is_dir():  # an `out` inside it holds what was coloured before
        files = [f for f in files if not (out.resolve() in f.resolve().parents and f.stem.endswith("_coloured"))]
    stems = Counter(f.with_suffix("") for f in files)
    with runtime.bar(len(files), "colouring") as bar:
        for path in files:
            inside = path.parent.relative_to(source) if source.is_dir() else ""
            stem = path.stem if stems[path.with_suffix("")] == 1 else path.name  # 1.jpg beside 1.heic
            target = out / inside / f"{stem}_coloured.png"
            try:
                if target.exists():
                    rows.append((path, target, "was there already"))
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    partial = target.with_suffix(".partial")
                    Image.fromarray(colorize(model, open_photo(path), side)).save(partial, "PNG")
                    partial.rename(target)
                    rows.append((path, target, ""))
            except PhotoError as error:
                rows.append((path, "", str(error)))
            bar.update()
    return pd.DataFrame(rows, columns=["photo", "coloured", "note"])
