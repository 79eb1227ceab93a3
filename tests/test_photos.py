"""colorlib.photos: whatever people have on disk opens as upright 8-bit sRGB, or is refused in a sentence.

The corpus is made on the fly; the kinds of file that Pillow cannot write are put together byte by byte.
"""

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from colorlib import photos

RGB = skimage.data.astronaut()[100:148, 100:164].copy()  # 48 x 64, many colours, no symmetry
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# sRGB with the primaries of red and green exchanged, under another name: no reader can miss its effect.
SWAPPED_PROFILE = (
    SRGB_PROFILE.replace(b"rXYZ", b"swap")
    .replace(b"gXYZ", b"rXYZ")
    .replace(b"swap", b"gXYZ")
    .replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
)


def encode(image, kind, **options):
    """The bytes of a PIL image or an array in a file format."""
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def png(values, colour_type, *, size=None, chunks=()):
    """A PNG by hand, 8 or 16 bits: `values` (H, W, channels); `size` lies about it in the header."""
    depth = 8 * values.itemsize
    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", *(size or (width, height)), depth, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in values.astype(f">u{values.itemsize}"))
    out = b"\x89PNG\r\n\x1a\n"
    for kind, body in [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]:
        out += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return out


def tiff(values, order):
    """An uncompressed 16-bit RGB TIFF by hand, little ("<") or big (">") endian."""
    height, width = values.shape[:2]
    body = values.astype(f"{order}u2").tobytes()
    after = 8 + len(body)  # the directory, preceded by the three BitsPerSample
    tags = [(256, width), (257, height), (259, 1), (262, 2), (273, 8), (277, 3), (278, height), (279, len(body))]
    entries = [(258, 3, 3, after), *((tag, 4, 1, value) for tag, value in tags)]
    out = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, after + 6) + body
    out += struct.pack(f"{order}4H", 16, 16, 16, len(entries))
    return out + b"".join(struct.pack(f"{order}HHII", *e) for e in sorted(entries)) + bytes(4)


def opened(data):
    rgb = photos.open_photo(io.BytesIO(data))
    assert rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.flags.c_contiguous
    return rgb


def far(a, b):
    """The largest difference of two arrays of bytes."""
    assert a.shape == np.shape(b)
    return np.abs(a.astype(int) - np.asarray(b, dtype=int)).max()


# -------------------------------------------------------------------------------------------- upright

# How EXIF says that the camera was held: what turns the upright photo into the stored one.
STORED_AS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a),
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", STORED_AS)
def test_every_exif_orientation_is_upright(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    flat = np.zeros((64, 96, 3), dtype=np.uint8)  # four flat quarters, which compression leaves alone
    flat[:32, :48], flat[:32, 48:], flat[32:, :48], flat[32:, 48:] = RED, GREEN, BLUE, WHITE
    stored = np.ascontiguousarray(STORED_AS[orientation](flat))
    assert far(opened(encode(stored, kind, exif=exif))[8:-8:16, 8:-8:16], flat[8:-8:16, 8:-8:16]) < 12


@pytest.mark.parametrize("mode", ["L", "I;16", "F", "CMYK", "LA", "P", "1"])
def test_other_kinds_of_pixels_are_turned_too(mode):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.rot90(RGB).copy()).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    assert image.mode == mode
    turned = opened(encode(image, "TIFF", exif=exif))
    assert turned.shape == RGB.shape
    assert far(turned, np.rot90(opened(encode(image, "TIFF")), -1)) == 0


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("exif", [b"Exif\0\0rubbish", b"Exif\0\0MM\0*\0\0\xff\x08", b"Exif\0\0"], ids=repr)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_lose_the_photo(kind, exif):
    assert opened(encode(RGB, kind, exif=exif)).shape == RGB.shape


def test_damaged_exif_in_a_text_chunk_does_not_lose_the_photo():
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", "\nexif\n 8\nzzzzzzzz")
    assert far(opened(encode(RGB, "PNG", pnginfo=info)), RGB) == 0


# ---------------------------------------------------------------------------------------- transparency


def over_white(rgb, alpha):
    return (rgb * (alpha / 255.0) + 255 * (1 - alpha / 255.0)).round()


ALPHA = np.broadcast_to(np.linspace(0, 255, RGB.shape[1]).round().astype(np.uint8)[None, :, None], (*RGB.shape[:2], 1))
GREY = np.asarray(Image.fromarray(RGB).convert("L"))


@pytest.mark.parametrize("kind, tolerance", [("PNG", 1), ("TIFF", 1), ("WEBP", 1)])
def test_alpha_is_laid_over_white(kind, tolerance):
    rgba = np.concatenate([RGB, ALPHA], axis=2)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    assert far(opened(encode(rgba, kind, **options)), over_white(RGB, ALPHA)) <= tolerance


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_with_alpha_is_laid_over_white(kind):
    image = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA[..., 0].copy())])
    assert far(opened(encode(image, kind)), over_white(np.repeat(GREY[..., None], 3, axis=2), ALPHA)) <= 1


def test_16_bit_alpha_is_laid_over_white():
    rgba = np.concatenate([RGB, ALPHA], axis=2).astype(np.uint16) * 257
    assert far(opened(png(rgba, 6)), over_white(RGB, ALPHA)) <= 1
    grey = np.stack([GREY, ALPHA[..., 0]], axis=2).astype(np.uint16) * 257
    assert far(opened(png(grey, 4)), over_white(np.repeat(GREY[..., None], 3, axis=2), ALPHA)) <= 1


def palette():
    image = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    image.putpalette([*RED, *GREEN, *BLUE])
    return image


@pytest.mark.parametrize(
    "data, expected",
    [
        (encode(palette(), "PNG"), [RED, GREEN, BLUE]),
        (encode(palette(), "PNG", transparency=1), [RED, WHITE, BLUE]),
        (encode(palette(), "PNG", transparency=bytes([255, 128, 0])), [RED, (127, 255, 127), WHITE]),
        (encode(palette(), "GIF", transparency=2), [RED, GREEN, WHITE]),
        (png(np.array([[RED, GREEN]], np.uint8), 2, chunks=[(b"tRNS", struct.pack(">3H", *RED))]), [WHITE, GREEN]),
        (png(np.array([[[7], [9]]], np.uint8), 0, chunks=[(b"tRNS", struct.pack(">H", 7))]), [WHITE, (9, 9, 9)]),
    ],
    ids=["palette", "palette, one colour", "palette, alphas", "GIF", "RGB with tRNS", "grey with tRNS"],
)
def test_palettes_and_transparent_colours(data, expected):
    assert far(opened(data), [expected]) <= 1


def test_palette_with_an_alpha_channel_is_laid_over_white():
    image = Image.new("PA", (1, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putpixel((0, 0), (2, 128))
    data = encode(image, "TIFF")
    assert Image.open(io.BytesIO(data)).mode == "PA"
    assert far(opened(data), [[(127, 127, 255)]]) <= 1


# ------------------------------------------------------------------------------- depths and colour spaces

RAMP = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)  # 16-bit values that are exact in 8 bits


@pytest.mark.parametrize(
    "data",
    [
        encode(Image.fromarray(RAMP), "PNG"),
        png(RAMP[..., None], 0),
        encode(Image.fromarray(RAMP), "TIFF"),
        encode(Image.fromarray(RAMP.astype(">u2")), "TIFF"),
        encode(Image.fromarray(RAMP.astype(np.int32)), "TIFF"),
        encode(Image.fromarray(RAMP), "PPM"),
    ],
    ids=["PNG", "PNG by hand", "TIFF", "big-endian TIFF", "32-bit TIFF", "PGM"],
)
def test_deep_grey_is_scaled_not_clipped(data):
    expected = np.repeat((RAMP // 257).astype(np.uint8)[..., None], 3, axis=2)
    assert far(opened(data), expected) == 0


def test_dark_16_bit_grey_stays_dark():
    dark = np.full((4, 4), 300, dtype=np.uint16)
    assert far(opened(encode(Image.fromarray(dark), "PNG")), np.full((4, 4, 3), 1)) == 0


@pytest.mark.parametrize("data", [png(RGB.astype(np.uint16) * 257, 2), tiff(RGB * 257.0, "<"), tiff(RGB * 257.0, ">")])
def test_16_bit_colour(data):
    assert far(opened(data), RGB) == 0


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_floating_point_grey_is_scaled_by_the_usual_white_levels(white):
    values = np.array([[0, 0.25, 0.5, 1]], dtype=np.float32) * np.float32(white)
    assert opened(encode(Image.fromarray(values), "TIFF"))[0, :, 1].tolist() == [0, 64, 128, 255]


def test_floating_point_holes_do_not_spoil_the_rest():
    values = np.array([[0.5, np.nan, np.inf, -np.inf, -3]], dtype=np.float32)
    assert opened(encode(Image.fromarray(values), "TIFF"))[0, :, 1].tolist() == [128, 0, 255, 0, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint16])
def test_all_black_deep_grey(dtype):
    assert opened(encode(Image.fromarray(np.zeros((2, 2), dtype=dtype)), "TIFF")).max() == 0


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_one_bit(kind):
    image = Image.fromarray(np.array([[0, 255], [255, 0]], dtype=np.uint8)).convert("1", dither=Image.Dither.NONE)
    options = {"lossless": True} if kind == "WEBP" else {}
    assert opened(encode(image, kind, **options)).tolist() == [[[0] * 3, [255] * 3], [[255] * 3, [0] * 3]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM", "TGA"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_lossless_kinds_give_the_very_pixels(kind, mode):
    image = Image.fromarray(RGB).convert(mode)
    assert far(opened(encode(image, kind)), np.asarray(image.convert("RGB"))) == 0


@pytest.mark.parametrize("kind, tolerance", [("TIFF", 1), ("JPEG", 12)])
def test_cmyk(kind, tolerance):
    options = {"quality": 100} if kind == "JPEG" else {}
    assert far(opened(encode(Image.fromarray(RGB).convert("CMYK"), kind, **options)), RGB) <= tolerance


def test_cielab_tiff():
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(Image.fromarray(RGB), to_lab)
    assert np.abs(opened(encode(lab, "TIFF")).astype(int) - RGB).mean() < 1  # 8-bit Lab is coarse


def test_profile_other_than_srgb_is_converted():
    swapped = opened(encode(RGB, "PNG", icc_profile=SWAPPED_PROFILE))
    assert far(swapped, RGB[..., [1, 0, 2]]) <= 1


def test_profile_is_converted_below_transparency():
    rgba = np.concatenate([RGB, ALPHA], axis=2)
    swapped = opened(encode(rgba, "PNG", icc_profile=SWAPPED_PROFILE))
    assert far(swapped, over_white(RGB[..., [1, 0, 2]], ALPHA)) <= 2


@pytest.mark.parametrize(
    "profile",
    [SRGB_PROFILE, b"rubbish" * 40, SWAPPED_PROFILE[:200], ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))],
    ids=["sRGB", "rubbish", "cut off", "for another kind of picture"],
)
def test_srgb_and_unusable_profiles_change_nothing(profile):
    profile = profile if isinstance(profile, bytes) else profile.tobytes()
    assert far(opened(encode(RGB, "PNG", icc_profile=profile)), RGB) == 0


def test_colour_profile_in_a_grey_file_changes_nothing():
    image = Image.fromarray(GREY)
    assert far(opened(encode(image, "PNG", icc_profile=SWAPPED_PROFILE)), np.repeat(GREY[..., None], 3, axis=2)) == 0


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_and_pages_give_the_first_frame(kind):
    frames = [Image.new("RGB", (20, 10), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert far(opened(data), np.full((10, 20, 3), RED)) == 0


# ----------------------------------------------------------------------------------------- names and files


@pytest.mark.parametrize("name", ["été – 写真 🌄.png", "x" * 251 + ".png", "a b'\"#%.png", os.fsdecode(b"caf\xe9.png")])
def test_any_file_name(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(encode(RGB, "PNG"))
    assert far(photos.open_photo(path), RGB) == 0
    assert far(photos.open_photo(str(path)), RGB) == 0
    assert photos.find_photos(tmp_path) == [path]


def test_the_suffix_need_not_be_right(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(RGB, "PNG"))
    assert far(photos.open_photo(path), RGB) == 0


def test_file_objects(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(RGB, "PNG"))
    with path.open("rb") as file:
        assert far(photos.open_photo(file), RGB) == 0
        assert not file.closed  # it belongs to the caller


def test_the_files_are_closed(tmp_path):
    path = tmp_path / "a.gif"
    path.write_bytes(encode(Image.fromarray(RGB), "GIF"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        photos.open_photo(path)
        path.write_bytes(b"no image")
        with pytest.raises(photos.PhotoError):
            photos.open_photo(path)


# ----------------------------------------------------------------------------------- what cannot be opened


def make_unreadable(kind, folder):
    path = folder / f"{kind}.jpg"
    jpeg = encode(RGB, "JPEG")
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(
            {
                "zero bytes": b"",
                "text": b"this is not a photo\n" * 50,
                "garbage": np.random.default_rng(0).bytes(3000),
                "half a JPEG": jpeg[: len(jpeg) // 2],
                "start of a JPEG": jpeg[:100],
                "half a PNG": encode(RGB, "PNG")[:3000],
                "start of a PNG": encode(RGB, "PNG")[:40],
                "half a TIFF": encode(RGB, "TIFF")[:300],
                "half a GIF": encode(Image.fromarray(RGB), "GIF")[:900],
                "half a WebP": encode(RGB, "WEBP", lossless=True)[:3000],
                "no pixels": png(np.zeros((1, 1, 3), np.uint8), 2, size=(0, 0)),
            }[kind]
        )
    return path


UNREADABLE = (
    "missing, folder, zero bytes, text, garbage, half a JPEG, start of a JPEG, half a PNG, start of a PNG, "
    "half a TIFF, half a GIF, half a WebP, no pixels"
)


@pytest.mark.parametrize("kind", UNREADABLE.split(", "))
def test_what_cannot_be_read_is_named_in_one_sentence_with_advice(kind, tmp_path):
    path = make_unreadable(kind, tmp_path)
    with pytest.raises(photos.PhotoError) as caught:
        photos.open_photo(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    advice = {"missing": "check the path.", "folder": "give the path of a file."}
    assert message.endswith(advice.get(kind, "save it again as JPEG or PNG, or leave it out."))


@pytest.mark.parametrize("path", ["x" * 300 + ".jpg", "a\0b.jpg", ""], ids=["too long", "with a NUL", "empty"])
def test_impossible_paths_are_refused_like_unreadable_files(path):
    with pytest.raises(photos.PhotoError):
        photos.open_photo(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(RGB, "PNG"))
    path.chmod(0)
    with pytest.raises(photos.PhotoError, match="may not be read; change its permissions"):
        photos.open_photo(path)


def test_unreadable_file_objects_are_named_where_they_have_a_name(tmp_path):
    with pytest.raises(photos.PhotoError, match=r"^the upload: is not an image"):
        photos.open_photo(io.BytesIO(b"no image"))
    path = tmp_path / "a.jpg"
    path.write_bytes(b"no image")
    with path.open("rb") as file, pytest.raises(photos.PhotoError, match=r"a\.jpg: is not an image"):
        photos.open_photo(file)


@pytest.mark.parametrize("size", [(100_000, 100_000), (13_000, 13_000)], ids=["Pillow refuses it too", "Pillow warns"])
def test_decompression_bomb_is_refused_before_it_is_decoded(size, tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(np.zeros((1, 1, 3), np.uint8), 2, size=size))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(photos.PhotoError, match=r"bomb\.png: too large .*at most 150,000,000 pixels .*make it sm"):
            photos.open_photo(path)


def test_max_pixels_is_the_largest_that_opens():
    data = encode(RGB, "PNG")
    n_pixels = RGB.shape[0] * RGB.shape[1]
    assert far(photos.open_photo(io.BytesIO(data), max_pixels=n_pixels), RGB) == 0
    with pytest.raises(photos.PhotoError, match=r"too large \(64 x 48 pixels\)"):
        photos.open_photo(io.BytesIO(data), max_pixels=n_pixels - 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
@pytest.mark.filterwarnings("ignore")  # Pillow warns about some of the damage
def test_damaged_files_open_or_are_refused_but_nothing_else(kind):
    rng = np.random.default_rng(0)
    whole, refused = encode(Image.fromarray(RGB), kind), 0
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 8)):
            data[rng.integers(len(data))] = rng.integers(256)
        try:
            opened(bytes(data[: rng.integers(len(data) // 2, len(data) + 1)]))
        except photos.PhotoError:
            refused += 1
    assert refused  # some of the damage was real


# ---------------------------------------------------------------------------------------------- find_photos


def test_find_photos_sorts_and_passes_over_what_is_hidden_or_no_image(tmp_path):
    wanted = ["B.PNG", "a.jpg", "sub/c.JPEG", "sub/deeper/d.webp", "z.tif"]
    others = [".hidden.jpg", ".cache/a.jpg", "__MACOSX/._a.jpg", "__MACOSX/b.jpg", "sub/._c.jpg", "notes.txt", "jpg"]
    for name in (*wanted, *others):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert photos.find_photos(tmp_path) == sorted(tmp_path / name for name in wanted)
    assert photos.find_photos(str(tmp_path)) == photos.find_photos(tmp_path)


def test_find_photos_takes_a_single_file_and_a_hidden_folder_that_is_asked_for(tmp_path):
    path = tmp_path / ".photos" / "a.jpg"
    path.parent.mkdir()
    path.touch()
    assert photos.find_photos(path) == [path]
    assert photos.find_photos(path.parent) == [path]


def test_find_photos_expands_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "a.jpg").touch()
    assert photos.find_photos("~") == [tmp_path / "a.jpg"]


def test_find_photos_tells_a_missing_folder_from_one_without_photos(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder; check the path"):
        photos.find_photos(tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileNotFoundError, match="holds no image files; point to a folder of JPEG or PNG photos"):
        photos.find_photos(tmp_path)


def test_every_suffix_that_is_looked_for_is_one_that_pillow_knows():
    Image.init()
    unknown = photos.SUFFIXES - set(Image.registered_extensions())
    assert unknown <= {".heic", ".heif"}  # Pillow reads these with a plugin only; without it they are named unreadable


def test_real_photo_equals_pillows_reading(tmp_path):
    path = tmp_path / "cat.jpg"
    Image.fromarray(skimage.data.chelsea()).save(path, quality=90)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert far(photos.open_photo(Path(path)), expected) == 0
