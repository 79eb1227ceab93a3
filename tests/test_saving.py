"""What a photo's file says about it is kept; what is written is whole, and nothing is lost for it."""

import errno

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, PngImagePlugin
from skimage import data as samples

from colorlib import colorize, photos, saving

pytestmark = pytest.mark.usefixtures("one_thread")

RGB = samples.coffee()[60:124, 200:296]
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:title="Our garden"/></x:xmpmeta>'
IPTC = b"8BIM\x04\x04\0\0\0\0\0\x0f\x1c\x02\x78\0\x0aOur garden\0"  # caption/abstract, with its padding
FORMATS = [".jpg", ".png", ".tif", ".webp"]


def with_everything(path):
    """A photo lying on its side, with all that a scanner and an archive write."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.ImageDescription] = "Our garden"
    exif[ExifTags.Base.Artist] = "Grandma"
    details = exif.get_ifd(ExifTags.IFD.Exif)
    details[ExifTags.Base.DateTimeOriginal] = "1938:05:01 12:00:00"
    details[ExifTags.Base.ColorSpace] = 65535
    details[ExifTags.Base.ExifImageWidth], details[ExifTags.Base.ExifImageHeight] = RGB.shape[1], RGB.shape[0]
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    options = {"exif": exif, "dpi": (600, 600)}
    if path.suffix == ".jpg":
        part = b"Photoshop 3.0\0" + IPTC
        extra = b"\xff\xed" + (len(part) + 2).to_bytes(2, "big") + part
        options |= {"xmp": XMP, "comment": b"scanned", "extra": extra, "quality": 95}
    elif path.suffix == ".webp":
        options |= {"xmp": XMP, "quality": 95}
    elif path.suffix == ".png":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_text("Title", "Our garden")
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    else:
        exif[700], exif[34377] = XMP, IPTC
        options["exif"] = exif.tobytes()  # Pillow leaves the inner parts of an `Exif` out
    Image.fromarray(RGB).save(path, **options)
    return path


def coloured(painter, source, target, **options):
    (result,) = colorize.colorize_each(painter, [(source, target)], side=32, **options)
    assert result.coloured == target, result.note
    return result


@pytest.mark.parametrize("of", FORMATS)
@pytest.mark.parametrize("to", FORMATS)
def test_metadata_is_kept_from_every_format_to_every_format(painter, tmp_path, of, to):
    source, target = with_everything(tmp_path / f"photo{of}"), tmp_path / f"coloured{to}"
    assert coloured(painter, source, target).note == ""
    with Image.open(target) as image:
        image.load()
        assert image.size == (64, 96)  # upright
        exif = image.getexif()
        assert ExifTags.Base.Orientation not in exif or exif[ExifTags.Base.Orientation] == 1
        assert exif[ExifTags.Base.ImageDescription] == "Our garden"
        assert exif[ExifTags.Base.Artist] == "Grandma"
        details = exif.get_ifd(ExifTags.IFD.Exif)
        assert details[ExifTags.Base.DateTimeOriginal] == "1938:05:01 12:00:00"
        assert details[ExifTags.Base.ColorSpace] == 1  # sRGB
        assert (details[ExifTags.Base.ExifImageWidth], details[ExifTags.Base.ExifImageHeight]) == (64, 96)
        assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
        xmp = image.info["xmp"]
        assert b"Our garden" in xmp and b"Orientation" not in xmp
        if of != ".webp" and to != ".webp":  # has no place for it
            assert np.allclose([float(x) for x in image.info["dpi"]], 600, atol=0.1)
        if {of, to} <= {".jpg", ".tif"}:
            assert b"Our garden" in (image.tag_v2[34377] if to == ".tif" else dict(image.applist)["APP13"])
        if (of, to) == (".jpg", ".jpg"):
            assert image.info["comment"] == b"scanned"
        if (of, to) == (".png", ".png"):
            assert image.text["Title"] == "Our garden"


def test_the_small_picture_inside_does_not_stay_grey(painter, tmp_path):
    small = tmp_path / "small.jpg"
    Image.fromarray(RGB).convert("L").resize((48, 32)).save(small)
    exif = Image.Exif()
    ifd = b"II*\0\x08\0\0\0\0\0\x0e\0\0\0\x02\0\x01\x02\x04\0\x01\0\0\0\x2c\0\0\0\x02\x02\x04\0\x01\0\0\0"
    content = small.read_bytes()
    raw = b"Exif\0\0" + ifd + len(content).to_bytes(4, "little") + b"\0\0\0\0" + content
    Image.fromarray(RGB).save(tmp_path / "photo.jpg", exif=raw)
    exif.load(raw)
    assert exif.get_ifd(ExifTags.IFD.IFD1)  # so it is read as one
    coloured(painter, tmp_path / "photo.jpg", tmp_path / "coloured.jpg")
    assert content[100:200] in (tmp_path / "photo.jpg").read_bytes()
    assert content[100:200] not in (tmp_path / "coloured.jpg").read_bytes()


@pytest.mark.parametrize("kind", ["sRGB", "other", "damaged"])
def test_what_is_written_is_srgb_and_says_so_where_the_photo_had_a_profile(painter, tmp_path, kind):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if kind == "other":  # red and blue swapped, and another name
        profile = profile.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
        profile = profile.replace("sRGB".encode("utf-16-be"), "BGRs".encode("utf-16-be"))
    if kind == "damaged":
        profile = profile[:100]
    Image.fromarray(RGB).save(tmp_path / "photo.png", icc_profile=profile)
    coloured(painter, tmp_path / "photo.png", tmp_path / "coloured.png")
    with Image.open(tmp_path / "coloured.png") as image:
        found = image.info.get("icc_profile")
    if kind == "damaged":
        assert found is None
    else:
        assert b"sRGB" in found.replace(b"\0", b"")
        assert (found == profile) == (kind == "sRGB")


@pytest.mark.parametrize("suffix", FORMATS)
def test_pixels_arrive(tmp_path, suffix):
    assert saving.save(RGB, tmp_path / f"photo{suffix}") == ""
    change = np.abs(photos.open_photo(tmp_path / f"photo{suffix}").astype(int) - RGB)
    assert change.max() == 0 if suffix in (".png", ".tif") else 0 < change.mean() < 3


def test_metadata_that_cannot_be_written_does_not_cost_the_photo(tmp_path):
    lost = saving.save(RGB, tmp_path / "photo.jpg", {"exif": b"Exif\0\0" + bytes(70_000)})
    assert "metadata could not be kept" in lost and "too long" in lost
    assert photos.open_photo(tmp_path / "photo.jpg").shape == RGB.shape


def test_nothing_is_overwritten_unless_asked(tmp_path):
    target = tmp_path / "photo.png"
    target.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="already"):
        saving.save(RGB, target)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]
    saving.save(RGB, target, overwrite=True)
    assert (photos.open_photo(target) == RGB).all()


def test_a_disk_that_fills_up_leaves_nothing_half_written(tmp_path, monkeypatch):
    whole = Image.Image.save

    def save(image, path, *args, **options):
        whole(image, path, *args, **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    (tmp_path / "photo.png").write_bytes(b"old")
    with pytest.raises(OSError, match=r"photo.png: cannot be written \(No space left on device\)") as caught:
        saving.save(RGB, tmp_path / "photo.png", {"dpi": (300, 300)}, overwrite=True)
    assert caught.value.errno == errno.ENOSPC
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize(("suffix", "longest"), [(".jpg", 65_500), (".webp", 16_383)])
def test_sides_that_a_format_does_not_have_are_told(tmp_path, suffix, longest):
    strip = np.zeros((1, longest + 1, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=rf"long{suffix}: .* at most {longest:,} pixels; save it as PNG"):
        saving.save(strip, tmp_path / f"long{suffix}")
    saving.save(strip[:, 1:], tmp_path / f"long{suffix}")
    assert photos.open_photo(tmp_path / f"long{suffix}").shape == (1, longest, 3)


def test_a_name_of_the_greatest_length_can_be_written(tmp_path):
    target = tmp_path / ("n" * 251 + ".png")
    saving.save(RGB, target)
    assert list(tmp_path.iterdir()) == [target]
