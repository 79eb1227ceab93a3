"""A folder of awkward files, made on the fly: each is coloured right, or named with its reason, and nothing is lost."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin
from skimage import data as samples

from colorlib import color, colorize, photos

pytestmark = pytest.mark.usefixtures("one_thread")

SCENE = samples.coffee()[60:124, 200:296]  # 64 x 96
L_ROUNDING = 0.35  # the largest change of L by 8 bits, in its units


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def modes():
    """Every mode and bit depth that Pillow writes, in every format that takes it."""
    rgb = Image.fromarray(SCENE)
    grey, deep = rgb.convert("L"), np.asarray(rgb.convert("L")).astype(np.uint16) * 257
    alpha = Image.fromarray(np.linspace(0, 255, grey.width).astype(np.uint8)[None].repeat(grey.height, 0))
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    la = grey.copy()
    la.putalpha(alpha)
    images = {
        "1": grey.convert("1"), "L": grey, "LA": la, "P": rgb.quantize(32), "RGB": rgb, "RGBA": rgba,
        "CMYK": rgb.convert("CMYK"), "YCbCr": rgb.convert("YCbCr"), "I;16": Image.fromarray(deep),
        "I": Image.fromarray(deep.astype(np.int32)), "F": Image.fromarray(deep.astype(np.float32) / 65535),
    }  # fmt: skip
    lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    images["LAB"] = ImageCms.applyTransform(rgb, lab)
    takes = {
        "png": "1 L LA P RGB RGBA I I;16", "jpg": "1 L RGB CMYK YCbCr",
        "tif": "1 L LA P RGB RGBA CMYK YCbCr LAB I;16 I F", "webp": "L RGB RGBA", "gif": "1 L P RGB RGBA",
        "bmp": "1 L P RGB", "ppm": "1 L RGB I;16", "tga": "1 L LA P RGB RGBA", "pcx": "1 L P RGB",
        "jp2": "L LA RGB RGBA I;16", "ico": "RGBA", "avif": "RGB RGBA",
    }  # fmt: skip
    kinds = {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}
    for suffix, names in takes.items():
        for mode in names.split():
            name = f"{mode.replace(';', '')}.{suffix}"
            try:
                content = encoded(images[mode], kinds.get(suffix, suffix.upper()))
                Image.open(io.BytesIO(content)).load()
            except (OSError, KeyError):  # this Pillow was built without it, or cannot read what it wrote
                continue
            yield name, content


def others():
    """Sizes, names, profiles, animations: all of them photos."""
    rgb = Image.fromarray(SCENE)
    for size in ((1, 1), (1, 5000), (5000, 1), (2, 3), (17, 31), (333, 77)):
        yield f"size-{size[0]}x{size[1]}.png", encoded(rgb.resize(size), "PNG")
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"orientation-{orientation}.jpg", encoded(rgb, "JPEG", exif=exif, quality=95)
    yield "orientation-6.tif", encoded(rgb, "TIFF", tiffinfo={274: 6})
    yield "progressive.jpg", encoded(rgb, "JPEG", progressive=True)
    yield "interlaced.png", encoded(rgb, "PNG", interlace=1)
    yield "lzw.tif", encoded(rgb, "TIFF", compression="tiff_lzw")
    yield "jpeg.tif", encoded(rgb, "TIFF", compression="jpeg")
    yield "lossless.webp", encoded(rgb, "WEBP", lossless=True)
    yield (
        "profile.jpg",
        encoded(rgb, "JPEG", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()),
    )
    yield "broken-profile.jpg", encoded(rgb, "JPEG", icc_profile=b"no profile")
    yield "broken-exif.jpg", encoded(rgb, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    frames = [Image.fromarray(np.roll(SCENE, 9 * k, axis=1)) for k in range(3)]
    yield "animated.gif", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    yield "animated.webp", encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    yield "animated.png", encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    yield "pages.tif", encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    palette = rgb.quantize(16)
    yield "see-through-palette.png", encoded(palette, "PNG", transparency=3)
    yield "see-through-grey.png", encoded(rgb.convert("L"), "PNG", transparency=100)
    yield "see-through-colour.png", encoded(rgb, "PNG", transparency=(10, 20, 30))
    yield "16-bit-colour.png", sixteen_bit_png(SCENE)
    yield "UPPER.JPG", encoded(rgb, "JPEG")
    yield "Großmutter Ω 祖母 👵.jpg", encoded(rgb, "JPEG")
    yield "two.dots.and spaces .png", encoded(rgb, "PNG")
    yield "really-a-png.jpg", encoded(rgb, "PNG")
    yield "black.png", encoded(Image.new("RGB", (40, 30)), "PNG")
    yield "white.png", encoded(Image.new("RGB", (40, 30), "white"), "PNG")
    yield "flat.png", encoded(Image.new("RGB", (700, 300), (120, 110, 90)), "PNG")


def sixteen_bit_png(rgb):
    """Pillow reads such a file and cannot write one."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rgb.astype(np.uint16) * 257)
    header = struct.pack(">IIBBBBB", rgb.shape[1], rgb.shape[0], 16, 2, 0, 0, 0)
    return PngImagePlugin._MAGIC + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def broken():
    """What cannot be coloured, and a part of its reason."""
    rgb = Image.fromarray(SCENE)
    for suffix, kind in (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("tif", "TIFF"), ("gif", "GIF")):
        whole = encoded(rgb, kind)
        yield f"truncated.{suffix}", whole[: len(whole) // 2], "cannot be read"
        yield f"header-only.{suffix}", whole[:20], "read"
    yield "empty.jpg", b"", "is not an image"
    yield "text.jpg", b"Dear grandma, the photo is attached.", "is not an image"
    yield "page.png", b"<!doctype html><title>404</title>", "is not an image"
    yield "zeros.tif", bytes(5000), "is not an image"
    yield "bomb.png", huge_png(60_000, 60_000), "too large"
    yield (
        "bomb.bmp",
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 99999, 99999, 1, 24, 0, 0, 0, 0, 0, 0),
        "too large",
    )


def huge_png(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    parts = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (chunk, data, b"IEND")]
    return PngImagePlugin._MAGIC + b"".join(parts)


def names_and_reasons():
    return {name: None for name, _ in (*modes(), *others())} | {name: reason for name, _, reason in broken()}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """All files, coloured by one call: `(folder of files, out, {name: Result}, the files' bytes before)`."""
    from conftest import Painter

    folder = tmp_path_factory.mktemp("awkward") / "photos"
    folder.mkdir()
    before = {}
    for name, content in (*modes(), *others(), *((name, content) for name, content, _ in broken())):
        (folder / name).write_bytes(content)
        before[name] = content
    pairs = colorize.plan([folder], folder.parent / "out", ".png")
    results = colorize.colorize_each(Painter(), pairs, side=32)
    return folder, folder.parent / "out", {result.photo.name: result for result in results}, before


def test_there_are_enough_of_them(outcome):
    _, _, results, before = outcome
    assert len(before) >= 60
    assert set(results) == set(before)  # each has its result


def test_the_files_themselves_are_untouched(outcome):
    folder, _, _, before = outcome
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_nothing_but_results_is_left(outcome):
    _, out, results, _ = outcome
    assert sorted(out.iterdir()) == sorted(result.coloured for result in results.values() if result.coloured)


@pytest.mark.parametrize("name", [name for name, reason in names_and_reasons().items() if not reason])
def test_it_is_coloured_with_its_own_lightness_and_size(outcome, name):
    folder, _, results, _ = outcome
    result = results[name]
    assert result.coloured, result.note
    photo = photos.open_photo(folder / name)
    with Image.open(result.coloured) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        coloured = np.array(image)
    assert coloured.shape == photo.shape
    L, L_true = (color.photo_to_lab(rgb)[0].numpy() for rgb in (coloured, photo))
    assert np.abs(L - L_true).max() < L_ROUNDING
    if (
        len(np.unique(L_true)) > 10 and not name.startswith("1.") and min(photo.shape[:2]) > 20
    ):  # black and white have no colours
        assert color.chroma(color.photo_to_lab(coloured)[1]).mean() > 10  # else a grey result would do


@pytest.mark.parametrize(("name", "reason"), [(n, r) for n, r in names_and_reasons().items() if r])
def test_it_is_named_with_its_reason(outcome, name, reason):
    folder, _, results, _ = outcome
    assert results[name].coloured is None
    assert results[name].note.startswith(str(folder / name))
    assert reason in results[name].note


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once_and_its_tag_is_gone(outcome, tmp_path, orientation, painter):
    folder, _, _, _ = outcome
    source = folder / f"orientation-{orientation}.jpg"
    for suffix in (".jpg", ".png", ".tif", ".webp"):
        target = tmp_path / f"o{suffix}"
        (result,) = colorize.colorize_each(painter, [(source, target)], side=32)
        assert result.coloured, result.note
        with Image.open(target) as image:
            assert image.getexif().get(0x0112, 1) == 1
            shown = np.array(image).astype(int)
        upright = photos.open_photo(source).astype(int)
        assert shown.shape == upright.shape
        L, L_true = (color.photo_to_lab(rgb.astype(np.uint8))[0].numpy() for rgb in (shown, upright))
        assert np.abs(L - L_true).mean() < 3  # JPEG and WebP lose a little; another way up differs by 15 and more
        for turned in (L_true[..., ::-1], L_true[..., ::-1, :], L_true[..., ::-1, ::-1]):
            assert np.abs(L - turned).mean() > 8


def remarks(outcome, name):
    return outcome[2][name].note


def test_what_8_bits_and_one_picture_do_not_hold_is_said(outcome):
    for name in ("16-bit-colour.png", "I16.png", "F.tif", "I16.tif"):
        assert "more than 8 bits" in remarks(outcome, name), name
    for name in ("animated.gif", "animated.webp", "pages.tif"):
        assert "only the first" in remarks(outcome, name), name
    for name in ("RGBA.png", "see-through-palette.png", "see-through-grey.png", "LA.png", "RGBA.webp"):
        assert "transparent" in remarks(outcome, name), name
    for name in ("RGB.png", "L.jpg", "orientation-3.jpg", "P.gif", "CMYK.jpg"):
        assert remarks(outcome, name) == "", name
