"""Write a photo as JPEG, PNG, TIFF or WebP, with what its file said about it: whole or not at all."""

import errno
import os
import zlib
from contextlib import suppress
from pathlib import Path

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP"}
# Colour at full resolution too (4:4:4): subsampled, it would bleed over the edges that it was brought back along.
_HOW = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {"compress_level": 3},
    "TIFF": {},  # uncompressed: the only way in which every Pillow from 11 on writes all tags
    "WEBP": {"quality": 95, "method": 2},
}
_LONGEST = {"JPEG": 65_500, "WEBP": 16_383}  # what libjpeg and libwebp write
# TIFF tags that say how the pixels lie in the file, or that have a place of their own below.
_LAYOUT = {254, 255, 256, 257, 258, 259, 262, 266, 269, 273, 274, 277, 278, 279, 284, 292, 293, 297, 301, 317, 318, 319}
_LAYOUT |= {*range(320, 348), *range(512, 533), 700, 34377, 34675, 37724, 50341}
_XMP, _PHOTOSHOP = 700, 34377  # the latter holds IPTC, in TIFF as in JPEG's APP13
_APP13 = b"Photoshop 3.0\0"


def notes_of(image):
    """What an opened and upright PIL image says about itself: EXIF, XMP, IPTC, texts, resolution; a dict for `save`."""
    exif = image.getexif()
    for tag in _LAYOUT & set(exif):
        del exif[tag]
    details = exif.get_ifd(ExifTags.IFD.Exif)
    for tag, value in ((40961, 1), (40962, image.width), (40963, image.height)):  # sRGB; the size, once upright
        if tag in details:
            details[tag] = value
    # The small picture inside, of how it was, is not asked for, and so not written.
    segments = [data.removeprefix(_APP13) for name, data in getattr(image, "applist", ()) if name == "APP13"]
    notes = {
        "exif": exif.tobytes() if len(exif) else None,
        "photoshop": b"".join(segments) or getattr(image, "tag_v2", {}).get(_PHOTOSHOP),
        "text": {k: v for k, v in getattr(image, "text", {}).items() if k not in _NO_TEXTS},
        **{key: image.info.get(key) for key in ("xmp", "dpi", "comment")},
    }
    return {key: value for key, value in notes.items() if value}


_NO_TEXTS = ("XML:com.adobe.xmp", "Raw profile type exif")  # of PNG: these are XMP and EXIF


def save(rgb, path, notes=None, profile=None, overwrite=False):
    """Write a photo under a temporary name beside its own, and rename it.

    Args:
        rgb: uint8 array `(H, W, 3)`.
        path: its suffix, one of `FORMATS`, decides what is written.
        notes: what `notes_of` gave; written as far as the format has a place for it.
        profile: ICC profile, bytes.
        overwrite: whether a file that is there may be replaced.

    Returns:
        "", or what could not be kept.

    Raises:
        FileExistsError: if it is there.
        OSError: if it cannot be written; the message names the file.
        ValueError: if a side is longer than the format allows.
    """
    path = Path(path)
    kind = FORMATS[path.suffix.lower()]
    longest = _LONGEST.get(kind)
    if longest and max(rgb.shape[:2]) > longest:
        raise ValueError(f"{path}: {kind} has sides of at most {longest:,} pixels; save it as PNG or TIFF.")
    image, how = Image.fromarray(rgb), _HOW[kind] | ({"icc_profile": profile} if profile else {})
    partial = path.with_name(f".colorlib-{zlib.crc32(os.fsencode(path.name)):08x}.partial")
    lost = ""
    try:
        try:
            image.save(partial, kind, **how, **_as_options(kind, notes or {}))
        except Exception as error:  # what comes from damaged metadata has no common kind
            if not notes or _is_of_disk(error):
                raise
            lost = f"its metadata could not be kept ({error})"
            image.save(partial, kind, **how)
        if not overwrite and path.exists():
            raise FileExistsError(errno.EEXIST, "is there already", str(path))
        os.replace(partial, path)
    except FileExistsError:
        raise
    except OSError as error:
        raise OSError(error.errno, f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):  # renamed, or never made
            partial.unlink()
    return lost


def _is_of_disk(error):
    return isinstance(error, OSError) and error.errno is not None


def _as_options(kind, notes):
    """Pillow's arguments for `notes`, as far as a format has a place for them."""
    options = {key: notes[key] for key in ("exif", "dpi", "xmp") if key in notes}
    photoshop = notes.get("photoshop", b"")
    if kind == "JPEG":
        most = 65_533 - len(_APP13)  # bytes in a segment
        parts = [_APP13 + photoshop[k : k + most] for k in range(0, len(photoshop), most)]
        options["extra"] = b"".join(b"\xff\xed" + (len(part) + 2).to_bytes(2, "big") + part for part in parts)
        options |= {"comment": notes["comment"]} if "comment" in notes else {}
    elif kind == "PNG":
        options["pnginfo"] = PngInfo()
        for key, value in notes.get("text", {}).items():
            options["pnginfo"].add_itxt(key, value)
        if xmp := options.pop("xmp", None):
            options["pnginfo"].add_itxt(_NO_TEXTS[0], xmp.decode() if isinstance(xmp, bytes) else xmp)
    elif kind == "TIFF":
        options["exif"] = Image.Exif()
        options["exif"].load(notes.get("exif", b""))
        for tag, value in ((_XMP, options.pop("xmp", None)), (_PHOTOSHOP, photoshop)):
            if value:
                options["exif"][tag] = value
    return options
