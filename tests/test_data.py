"""colorlib.data: which photos are kept, what is written of them, how they are split, packs, the order of batches."""

import errno
import io
import itertools
import os
import pickle
import shutil
import signal
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import skimage.color
import skimage.data
import torch
from PIL import Image, JpegImagePlugin

from colorlib import data, datasets, photos, runtime

PHOTOS = Path(os.environ.get("COLORLIB_PHOTOS") or Path(__file__).parents[1] / "../shared/photos")
needs_photos = pytest.mark.skipif(
    not PHOTOS.is_dir(), reason=f"there are no real photos at {PHOTOS}; COLORLIB_PHOTOS may point to them"
)
SCENES = datasets.sample_scenes()


def crops(n, height=72, width=96):
    """Colourful crops that are all different: `n` uint8 arrays."""
    for i in range(n):
        scene = SCENES[("coffee", "motorcycle_left", "astronaut")[i % 3]]
        y, x = 40 + 11 * (i // 3), 60 + 7 * i
        yield scene[y : y + height, x : x + width]


def save(rgb, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path, **options)
    return path


def grey(rgb):
    return np.repeat(np.asarray(Image.fromarray(rgb).convert("L"))[..., None], 3, axis=2)


def scanned(rgb):
    """A grey print as a scanner gives it: noise in every channel, and a JPEG of that."""
    noisy = grey(rgb) + np.random.default_rng(0).normal(0, 5, rgb.shape)
    return jpeg(noisy.clip(0, 255).astype(np.uint8))


def faint(rgb):
    """A grey picture with a tint that few would notice."""
    return np.add(grey(rgb), [2, 0, -2]).clip(0, 255).astype(np.uint8)


def sepia(rgb):
    return (255 * (grey(rgb) / 255) ** [0.75, 1, 1.35]).round().astype(np.uint8)


def cyanotype(rgb):
    t = grey(rgb) / 255
    return (255 * (t + (1 - t) * [0.05, 0.2, 0.4])).round().astype(np.uint8)


def jpeg(rgb, quality=70):
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def split_by_pixels(prepared):
    return dict(zip(prepared.kept.pixels, prepared.kept.split))


def whole_sets(root):
    return [p for p in root.iterdir() if p.suffix != ".partial"] if root.is_dir() else []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """30 good photos in one flat folder."""
    folder = tmp_path_factory.mktemp("thirty")
    for i, rgb in enumerate(crops(30)):
        save(rgb, folder / f"{i:02d}.png")
    return folder


# ------------------------------------------------------------------------------------------ colour_fault


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize(
    "change, faults",
    [
        (lambda rgb: rgb, [""]),
        (jpeg, [""]),
        (lambda rgb: rgb[::8, ::8], [""]),
        (grey, ["grey"]),
        (lambda rgb: jpeg(grey(rgb)), ["grey"]),
        (scanned, ["grey", "near-grey"]),  # the noise may average away entirely
        (faint, ["near-grey"]),
        (sepia, ["toned"]),
        (lambda rgb: jpeg(sepia(rgb)), ["toned"]),
        (cyanotype, ["toned"]),
        (lambda rgb: jpeg(cyanotype(rgb)), ["toned"]),
    ],
    ids="colour, JPEG, small, grey, grey JPEG, scan, faint tint, sepia, sepia JPEG, blue, blue JPEG".split(", "),
)
def test_colour_fault(name, change, faults):
    assert photos.colour_fault(change(SCENES[name])) in faults


def test_scan_of_a_grey_print_is_near_grey():
    assert photos.colour_fault(scanned(SCENES["coffee"])) == "near-grey"


@pytest.mark.parametrize("value, fault", [((0, 0, 0), "grey"), ((255, 255, 255), "grey"), ((200, 60, 20), "toned")])
@pytest.mark.parametrize("shape", [(64, 64), (64, 3000), (1, 1)])
def test_colour_fault_of_a_flat_picture(value, fault, shape):
    assert photos.colour_fault(np.full((*shape, 3), value, dtype=np.uint8)) == fault


@needs_photos
def test_old_black_and_white_photographs_are_recognised():
    files = photos.find_photos(PHOTOS / "bw")
    faults = [photos.colour_fault(photos.open_photo(file)) for file in files]
    assert len(files) == 44
    assert sum(fault != "" for fault in faults) >= 40


@needs_photos
def test_real_colour_photos_are_hardly_ever_left_out():
    files = photos.find_photos(PHOTOS / "train")
    some = files[:: len(files) // 200][:200]
    faults = [photos.colour_fault(photos.open_photo(file)) for file in some]
    assert len(some) == 200
    assert sum(fault != "" for fault in faults) <= 6  # 3 %


# ------------------------------------------------------------------------------- prepare: what is kept

LEFT_OUT = {"unreadable": 5, "too small": 2, "grey": 2, "near-grey": 1, "toned": 2, "duplicate": 4}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """10 good photos among all that can be wrong with the others, as `LEFT_OUT` counts."""
    folder = tmp_path_factory.mktemp("corpus") / "My photos (2024)"
    good = list(crops(10))
    for i, rgb in enumerate(good):
        save(rgb, folder / f"good {i}.png")
    save(good[0], folder / "same.bmp")
    save(good[0], folder / "elsewhere" / "same again.png", compress_level=1)
    save(good[1], folder / "same.tif")
    save(good[2], folder / "same.webp", lossless=True)
    save(grey(good[3]), folder / "grey.png")
    save(grey(good[4])[..., 0], folder / "grey one channel.jpg")
    save(faint(good[5]), folder / "near-grey.png")
    save(sepia(good[6]), folder / "sepia.jpg")
    save(cyanotype(good[7]), folder / "blue.jpg")
    save(good[8][:63], folder / "small.png")
    save(good[9][:5, :5], folder / "tiny.png")
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("no image, with a comma")
    (folder / "half.png").write_bytes((folder / "good 0.png").read_bytes()[:4000])
    (folder / "garbage.webp").write_bytes(np.random.default_rng(0).bytes(500))
    (folder / "link to nowhere.jpg").symlink_to(folder / "gone.jpg")
    (folder / "notes.txt").write_text("not a photo, not counted")
    return folder


@pytest.fixture(scope="module")
def corpus_prepared(corpus, tmp_path_factory):
    before = contents(corpus)
    prepared = data.prepare(corpus, tmp_path_factory.mktemp("out"))
    assert contents(corpus) == before  # the source is only read
    return prepared


def test_every_photo_is_accounted_for_by_reason(corpus_prepared):
    reasons = corpus_prepared.manifest.reason.str.split(":").str[0]
    assert Counter(reasons[reasons != ""]) == LEFT_OUT
    assert len(corpus_prepared.manifest) == 10 + sum(LEFT_OUT.values())
    report = corpus_prepared.report().photos
    assert report.to_dict() == {"train": 8, "val": 1, "test": 1} | {f"left out: {k}": n for k, n in LEFT_OUT.items()}


def test_manifest_says_where_each_photo_came_from(corpus_prepared, corpus):
    manifest = corpus_prepared.manifest
    assert set(manifest.columns) == {"source", "split", "reason", "file", "width", "height", "pixels"}
    assert manifest.source.tolist() == [f.relative_to(corpus).as_posix() for f in photos.find_photos(corpus)]
    kept, left_out = corpus_prepared.kept, manifest[manifest.split == ""]
    assert (kept.reason == "").all() and kept.file.is_unique and kept.pixels.str.fullmatch("[0-9a-f]{64}").all()
    assert (kept.width == 96).all() and (kept.height == 72).all()
    assert (left_out.reason != "").all() and (left_out.file == "").all()
    unreadable = manifest[manifest.reason.str.startswith("unreadable")].set_index("source")
    assert "save it again as JPEG or PNG" in unreadable.reason["half.png"]
    assert "there is no such file" in unreadable.reason["link to nowhere.jpg"]
    duplicates = manifest[manifest.reason.str.startswith("duplicate")].set_index("source").reason
    # The first in the listing's order is kept: folders sort with the files.
    assert duplicates.to_dict() == {
        "good 0.png": "duplicate: of elsewhere/same again.png",
        "same.bmp": "duplicate: of elsewhere/same again.png",
        "same.tif": "duplicate: of good 1.png",
        "same.webp": "duplicate: of good 2.png",
    }


def test_files_of_the_splits_are_those_of_the_manifest(corpus_prepared):
    files = [f for split in ("train", "val", "test") for f in corpus_prepared.files(split)]
    assert sorted(files) == sorted((corpus_prepared.folder / "photos").iterdir())
    assert len(files) == len(corpus_prepared.kept) == 10
    assert corpus_prepared.name == "my-photos-2024"


def test_keep_grey_keeps_what_has_no_colour_and_nothing_else(corpus, tmp_path):
    prepared = data.prepare(corpus, tmp_path, keep_grey=True)
    counted = {k: n for k, n in LEFT_OUT.items() if k in ("unreadable", "too small", "duplicate")}
    assert len(prepared.kept) == 15
    assert prepared.report().photos[3:].to_dict() == {f"left out: {k}": n for k, n in counted.items()}


def test_names_that_are_not_utf_8_do_not_stop_the_rest(tmp_path):
    names = ["写真 🌄.png", 'comma, "quote".png', "line\nbreak.png", os.fsdecode(b"caf\xe9.png")]
    for name, rgb in zip(names, crops(4)):
        save(rgb, tmp_path / "in" / name)
    (tmp_path / "in" / os.fsdecode(b"broken \xe9.png")).touch()
    prepared = data.prepare(tmp_path / "in", tmp_path / "out")
    assert len(prepared.kept) == 4
    assert set(prepared.kept.source) == {*names[:3], r"caf\udce9.png"}


@pytest.mark.parametrize(
    "size, expected",
    [
        ((640, 512), (320, 256)),
        ((512, 700), (256, 350)),
        ((400, 256), (400, 256)),
        ((255, 300), (255, 300)),
        ((64, 64), (64, 64)),
        ((64, 900), (64, 900)),
    ],
    ids=str,
)
def test_short_side_is_at_most_256_and_never_enlarged(size, expected, tmp_path):
    image = Image.fromarray(SCENES["coffee"][:, :300]).resize(size, Image.Resampling.BICUBIC)
    save(np.asarray(image), tmp_path / "in" / "a.png")
    prepared = data.prepare(tmp_path / "in", tmp_path / "out")
    with Image.open(prepared.files("train")[0]) as written:
        assert written.size == expected
    assert (prepared.manifest.width[0], prepared.manifest.height[0]) == size  # the manifest tells the original's


def test_photos_are_written_as_jpeg_quality_95_without_chroma_subsampling(folder, tmp_path):
    prepared = data.prepare(folder, tmp_path)
    reference = io.BytesIO()
    Image.fromarray(SCENES["coffee"]).save(reference, "JPEG", quality=95, subsampling=0)
    for row in prepared.kept.itertuples():
        with Image.open(prepared.folder / row.file) as written:
            assert written.format == "JPEG" and written.mode == "RGB"
            assert JpegImagePlugin.get_sampling(written) == 0  # 4:4:4
            assert written.quantization == Image.open(reference).quantization
            difference = np.asarray(written).astype(int) - photos.open_photo(folder / row.source)
        assert np.abs(difference).mean() < 3


def test_photos_are_prepared_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb = next(crops(1))
    save(np.rot90(rgb).copy(), tmp_path / "in" / "a.png", exif=exif)
    written = photos.open_photo(data.prepare(tmp_path / "in", tmp_path / "out").files("train")[0])
    assert np.abs(written.astype(int) - rgb).mean() < 3


# ------------------------------------------------------------------------ prepare: the same every time


def test_same_source_prepared_elsewhere_gives_the_same_bytes(folder, tmp_path):
    first, second = (data.prepare(folder, tmp_path / root) for root in ("one", "two"))
    assert contents(first.folder) == contents(second.folder)
    assert first.folder.name == second.folder.name
    assert first.fingerprint == second.fingerprint


def test_split_depends_on_the_pixels_not_on_names_order_or_place(folder, tmp_path):
    for i, path in enumerate(sorted(folder.iterdir(), reverse=True)):
        (tmp_path / "renamed" / "deeper").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "renamed" / ("deeper" if i % 2 else "") / f"photo {i}.png")
    one, other = data.prepare(folder, tmp_path / "out"), data.prepare(tmp_path / "renamed", tmp_path / "out")
    assert split_by_pixels(one) == split_by_pixels(other)
    assert Counter(one.kept.split) == {"train": 24, "val": 3, "test": 3}


def test_seed_changes_the_split_and_the_fingerprint(folder, tmp_path):
    splits, fingerprints = [], set()
    for seed in (0, 1):
        prepared = data.prepare(folder, tmp_path, seed=seed)
        splits.append(split_by_pixels(prepared))
        fingerprints.add(prepared.fingerprint)
    assert splits[0].keys() == splits[1].keys() and splits[0] != splits[1]
    assert len(fingerprints) == 2


@pytest.mark.parametrize(
    "shares, expected",
    [
        ({"val": 0.2, "test": 0}, {"train": 24, "val": 6}),
        ({"val": 0, "test": 0.5}, {"train": 15, "test": 15}),
        ({"val": 0.001, "test": 0.001}, {"train": 28, "val": 1, "test": 1}),
    ],
    ids=str,
)
def test_shares_of_the_split(shares, expected, folder, tmp_path):
    assert Counter(data.prepare(folder, tmp_path, **shares).kept.split) == expected


def test_limit_draws_with_the_seed(folder, tmp_path):
    kept = [set(data.prepare(folder, tmp_path / str(i), limit=12, seed=s).kept.pixels) for i, s in enumerate((0, 0, 1))]
    assert all(len(k) == 12 for k in kept)
    assert kept[0] == kept[1] != kept[2]
    assert len(data.prepare(folder, tmp_path, limit=1000).kept) == 30


@pytest.mark.parametrize("n, expected", [(1, {"train"}), (2, {"train", "test"}), (3, {"train", "val", "test"})])
def test_few_photos_go_to_training_first(n, expected, tmp_path):
    for i, rgb in enumerate(crops(n)):
        save(rgb, tmp_path / "in" / f"{i}.png")
    assert set(data.prepare(tmp_path / "in", tmp_path / "out").kept.split) == expected


@pytest.mark.parametrize("val_name", ["val", "valid", "validation", "Valid"])
def test_folders_named_after_a_split_are_honoured(val_name, tmp_path):
    named = {"train": "train", val_name: "val", "test": "test"}
    for i, (folder, rgb) in enumerate(zip(itertools.cycle(named), crops(18))):
        save(rgb, tmp_path / "set" / folder / f"class{i % 2}" / f"{i}.png")
    kept = data.prepare(tmp_path / "set", tmp_path / "out").kept
    assert len(kept) == 18
    assert kept.split.tolist() == [named[source.split("/")[0]] for source in kept.source]


def test_what_the_folders_lack_is_drawn_from_training(tmp_path):
    for i, rgb in enumerate(crops(22)):
        save(rgb, tmp_path / "in" / ("val" if i < 2 else "somewhere") / f"{i}.png")
    kept = data.prepare(tmp_path / "in", tmp_path / "out").kept
    assert Counter(kept.split) == {"train": 18, "val": 2, "test": 2}
    assert set(kept.source[kept.split == "val"]) == {"val/0.png", "val/1.png"}


def test_folder_names_above_the_source_do_not_matter(tmp_path):
    for i, rgb in enumerate(crops(10)):
        save(rgb, tmp_path / "test" / "mine" / f"{i}.png")
    assert Counter(data.prepare(tmp_path / "test" / "mine", tmp_path / "out").kept.split)["train"] == 8


def test_with_test_1_every_photo_is_tested_whatever_its_folder(photo_folder, tmp_path):
    tested = data.prepare(photo_folder, tmp_path, val=0, test=1, keep_grey=True)
    assert tested.kept.split.tolist() == ["test"] * 21


def test_too_few_photos_for_three_splits_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("COLORLIB_DATA", str(tmp_path / "data"))
    (tmp_path / "mine").mkdir()
    for n, scene in enumerate((skimage.data.astronaut(), skimage.data.coffee())):
        Image.fromarray(scene).save(tmp_path / "mine" / f"{n}.png")
    with pytest.raises(ValueError, match=r"mine: 2 usable photos are too few to split; give at least 3\."):
        data.ready(tmp_path / "mine")
    assert len(data.ready(tmp_path / "mine", val=0, test=1).files("test")) == 2


def test_no_photo_is_in_two_splits(tmp_path):
    for i, rgb in enumerate(crops(12)):
        for folder, suffix in (("train", "png"), ("val", "bmp"), ("test", "tif"))[: 1 + i % 3]:
            save(rgb, tmp_path / "in" / folder / f"{i}.{suffix}")
    prepared = data.prepare(tmp_path / "in", tmp_path / "out")
    assert len(prepared.kept) == 12 and prepared.kept.pixels.is_unique
    assert (prepared.manifest.reason.str.startswith("duplicate")).sum() == 12


# --------------------------------------------------------------------- prepare: again, interrupted, refused


def test_second_call_returns_what_is_there(folder, tmp_path, monkeypatch):
    first = data.prepare(folder, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in first.folder.rglob("*")}

    def never(*args):
        raise AssertionError("a prepared set was prepared again")

    monkeypatch.setattr(data, "_prepare_one", never)
    second = data.prepare(str(folder), tmp_path)
    assert second.folder == first.folder
    assert {p: p.stat().st_mtime_ns for p in second.folder.rglob("*")} == before
    assert whole_sets(tmp_path) == [first.folder]


def test_changed_source_or_settings_are_prepared_anew(tmp_path):
    for i, rgb in enumerate(crops(4)):
        save(rgb, tmp_path / "in" / f"{i}.png")
    first = data.prepare(tmp_path / "in", tmp_path / "out")
    for settings in ({"seed": 1}, {"val": 0.5}, {"keep_grey": True}, {"limit": 3}, {"name": "other"}):
        assert data.prepare(tmp_path / "in", tmp_path / "out", **settings).folder != first.folder
    save(next(crops(1, height=80)), tmp_path / "in" / "new.png")
    assert len(data.prepare(tmp_path / "in", tmp_path / "out").kept) == 5


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("No space left on device")])
def test_interrupted_preparation_leaves_nothing_that_passes_for_whole(error, folder, tmp_path, monkeypatch):
    whole = data.prepare(folder, tmp_path / "elsewhere")
    calls = itertools.count()

    def prepare_one(path, keep_grey, original=data._prepare_one):
        if next(calls) == 15:
            raise error
        return original(path, keep_grey)

    with monkeypatch.context() as patch:
        patch.setattr(data, "_prepare_one", prepare_one)
        with pytest.raises(error if isinstance(error, type) else type(error)):
            data.prepare(folder, tmp_path / "out")
    assert whole_sets(tmp_path / "out") == []
    leftovers = list((tmp_path / "out").iterdir())
    for partial in leftovers:
        (partial / "photos" / "stale.jpg").touch()
    assert contents(data.prepare(folder, tmp_path / "out").folder) == contents(whole.folder)
    assert not any(partial.exists() for partial in leftovers)


def test_missing_and_empty_folders_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: there is no such folder; check the path\.$"):
        data.prepare(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty: holds no image files; point to a folder of JPEG or PNG"):
        data.prepare(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folder_without_a_usable_photo_is_refused_with_the_reasons_counted(tmp_path):
    for i, rgb in enumerate(crops(3)):
        save(grey(rgb), tmp_path / "in" / f"{i}.png")
    for i in range(2):
        (tmp_path / "in" / f"broken {i}.jpg").write_text("no image: at all")
    with pytest.raises(ValueError) as caught:
        data.prepare(tmp_path / "in", tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path / 'in'}: none of its 5 photos can be used (3 grey, 2 unreadable); choose another folder."
    )
    assert list((tmp_path / "out").iterdir()) == []


# -------------------------------------------------------------------------------------- ready, and the sample


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The sample in a data folder of its own, fetched and prepared."""
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLORLIB_DATA", str(root))
        yield data.ready("sample")


def test_sample_has_photos_in_every_split_and_none_in_two(sample):
    counts = Counter(sample.kept.split)
    assert counts["train"] >= 100 and counts["val"] >= 20 and counts["test"] >= 20
    assert sample.kept.pixels.is_unique
    scenes = {s: {Path(f).stem.rsplit("_", 1)[0] for f in rows.source} for s, rows in sample.kept.groupby("split")}
    assert scenes["train"] == scenes["val"] == set(datasets.SAMPLE_TRAIN)
    assert scenes["test"] == set(datasets.SAMPLE_TEST)


def test_ready_and_ready_again_find_the_prepared_set(sample, monkeypatch):
    monkeypatch.setattr(data, "_prepare_one", None)  # neither prepares it again
    assert runtime.data_dir() in sample.folder.parents
    assert data.ready("sample").folder == sample.folder
    assert data.ready_again(sample.settings).folder == sample.folder


def test_ready_again_on_a_fresh_machine_prepares_the_same_photos(sample, tmp_path, monkeypatch):
    monkeypatch.setenv("COLORLIB_DATA", str(tmp_path))
    shutil.copytree(sample.settings["source"], tmp_path / "sample")  # fetched there again: see test_datasets
    settings = sample.settings | {"source": str(tmp_path / "of the machine before")}
    again = data.ready_again(settings)
    assert tmp_path in again.folder.parents
    assert again.fingerprint == sample.fingerprint


def test_own_folder_called_like_a_data_set_is_not_taken_for_it(tmp_path, monkeypatch):
    monkeypatch.setenv("COLORLIB_DATA", str(tmp_path / "data"))
    for i, rgb in enumerate(crops(5)):
        save(rgb, tmp_path / "Sample" / f"{i}.png")
    prepared = data.ready(tmp_path / "Sample", seed=3)
    assert len(prepared.kept) == 5
    assert data.ready_again(prepared.settings).folder == prepared.folder


# ------------------------------------------------------------------------------------- Photos and batches


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    """Wide and tall pictures of three equal stripes: red, green, blue."""
    wide = np.zeros((40, 120, 3), dtype=np.uint8)
    for i in range(3):
        wide[:, 40 * i : 40 * (i + 1), i] = 255
    folder = tmp_path_factory.mktemp("stripes")
    return [save(wide, folder / "wide.png"), save(wide.transpose(1, 0, 2).copy(), folder / "tall.png")]


@pytest.mark.parametrize("index", [0, 1], ids=["wide", "tall"])
@pytest.mark.parametrize("size", [24, 60])
def test_squash_shows_the_whole_photo_and_crop_its_centre(size, index, stripes):
    squashed, cropped = (data.Photos(stripes, size, resize)[0, index] for resize in ("squash", "crop"))
    for rgb in (squashed, cropped):
        assert rgb.dtype == torch.uint8 and rgb.shape == (3, size, size)
    assert squashed.flatten(1).float().mean(dim=1) == pytest.approx([85, 85, 85], abs=2)
    along = squashed[:, size // 2] if index == 0 else squashed[:, :, size // 2]
    assert along.argmax(dim=0).tolist() == [i for i in range(3) for _ in range(size // 3)]
    # At the very edge the bicubic filter sees a little of the neighbours.
    assert (cropped[:, 2:-2, 2:-2] == torch.tensor([0, 255, 0]).view(3, 1, 1)).all()
    assert cropped[1].min() > 200


def test_unknown_resize_is_refused_at_once(stripes):
    with pytest.raises(ValueError, match="resize must be 'squash' or 'crop', not 'stretch'"):
        data.Photos(stripes, 24, "stretch")


def test_flips_depend_on_seed_epoch_and_index_alone(folder):
    files = photos.find_photos(folder)
    plain = data.Photos(files, 16)

    def flips(seed, epoch):
        photo_set = data.Photos(files, 16, flip=True, seed=seed)  # made anew, as after a restart
        flipped = []
        for index in reversed(range(30)):
            rgb, upright = photo_set[epoch, index], plain[epoch, index]
            mirrored = torch.equal(rgb, upright.flip(2))
            assert mirrored != torch.equal(rgb, upright)
            flipped.insert(0, mirrored)
        return flipped

    drawn = [flips(seed, epoch) for seed, epoch in [(0, 0), (0, 1), (1, 0)]]
    assert drawn[0] == flips(0, 0)
    assert drawn[0] != drawn[1] and drawn[0] != drawn[2]
    assert all(5 <= sum(f) <= 25 for f in drawn)  # of 30, each with probability 1/2


def test_crops_lie_anywhere_and_depend_on_seed_epoch_and_index_alone(folder):
    files = photos.find_photos(folder)[:12]
    whole = data.Photos(files, 16)

    def places(seed, epoch):
        found, photo_set = [], data.Photos(files, 16, seed=seed, crop=13)
        for index in range(12):
            rgb, full = photo_set[epoch, index], whole[epoch, index]
            assert rgb.shape == (3, 13, 13)
            found.append([(y, x) for y in range(4) for x in range(4) if full[:, y : y + 13, x : x + 13].equal(rgb)])
        return found

    drawn = [places(*key) for key in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    assert drawn[0] == places(0, 0) and len({str(found) for found in drawn}) == 4
    assert len({place for found in drawn for places in found for place in places}) == 16  # none is left out


@pytest.mark.parametrize("crop", [17, -1])
def test_a_crop_larger_than_the_photo_is_refused(folder, crop):
    with pytest.raises(ValueError, match=f"crop must be at most the size, 16, not {crop}"):
        data.Photos(photos.find_photos(folder), 16, crop=crop)


@pytest.mark.parametrize("seed", [None, 0, 7])
def test_every_index_comes_once_per_epoch(seed):
    batch_list = list(data.Batches(range(103), 10, epoch=4, seed=seed))
    assert [len(batch) for batch in batch_list] == [10] * 10 + [3]
    assert {epoch for batch in batch_list for epoch, _ in batch} == {4}
    order = [index for batch in batch_list for _, index in batch]
    assert sorted(order) == list(range(103))
    assert (order == list(range(103))) == (seed is None)


def test_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        return [index for batch in data.Batches(range(50), 8, epoch=epoch, seed=seed) for _, index in batch]

    orders = [order(0, 0), order(0, 1), order(1, 0), order(1, 1)]
    assert orders[0] == order(0, 0)
    assert len({tuple(o) for o in orders}) == 4


@pytest.mark.parametrize("start", [0, 1, 9, 10, 11, 12])
def test_start_leaves_out_batches_at_the_beginning_and_changes_nothing_else(start):
    whole = list(data.Batches(range(103), 10, epoch=2, seed=3))
    rest = data.Batches(range(103), 10, epoch=2, seed=3, start=start)
    assert list(rest) == list(rest) == whole[start:]  # can be gone through again
    assert rest.sizes() == [len(batch) for batch in whole[start:]]
    assert len(rest) == len(whole[start:])


@pytest.mark.parametrize("world", [1, 2, 3, 5, 8, 20])
def test_ranks_share_out_each_batch_in_its_order(world):
    settings = {"epoch": 1, "seed": 0, "start": 2}
    whole = list(data.Batches(range(43), 10, **settings))
    ranks = [data.Batches(range(43), 10, **settings, rank=rank, world=world) for rank in range(world)]
    for batch, *parts in zip(whole, *ranks, strict=True):
        put_together = itertools.zip_longest(*parts[: len(batch)])
        assert [key for keys in put_together for key in keys if key] == batch
        assert all(part == batch[:1] for part in parts[len(batch) :])  # too few photos: they get something to do
    assert all(rank.sizes() == [10, 10, 3] and len(rank) == 3 for rank in ranks)


def test_batches_and_subsets_leave_the_global_random_streams_alone():
    np.random.seed(0)
    torch.manual_seed(0)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    list(data.Batches(range(50), 8, seed=1))
    data.draw_subset(50, 0.4, 1, 0)
    assert np.array_equal(np.random.get_state()[1], before[0]) and torch.equal(torch.get_rng_state(), before[1])


def test_subset_is_two_fifths_drawn_anew_in_each_phase():
    drawn = {(seed, phase): data.draw_subset(1000, 0.4, seed, phase) for seed in (0, 1) for phase in (0, 1)}
    for key, subset in drawn.items():
        assert len(subset) == len(set(subset.tolist())) == 400
        assert (np.diff(subset) > 0).all() and subset[0] >= 0 and subset[-1] < 1000
        assert np.array_equal(subset, data.draw_subset(1000, 0.4, *key))
    assert len({tuple(subset) for subset in drawn.values()}) == 4
    # Independent draws share 40 % of 400 photos, give or take.
    assert 120 < len(set(drawn[0, 0]) & set(drawn[0, 1])) < 200


@pytest.mark.parametrize("n, share, expected", [(7, 1, 7), (7, 1.0, 7), (5, 0.01, 1), (10, 0.25, 2)])
def test_subset_sizes(n, share, expected):
    subset = data.draw_subset(n, share, 0, 0)
    assert len(subset) == expected
    assert expected != n or subset.tolist() == list(range(n))


def test_loader_hands_over_the_same_bytes_with_and_without_workers(folder):
    photo_set = data.Photos(photos.find_photos(folder), 32, "crop", flip=True, seed=5)
    batch_list = data.Batches(range(30), 8, epoch=2, seed=5)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    alone, helped = (list(data.loader(photo_set, batch_list, workers)) for workers in (0, 2))
    assert torch.equal(torch.get_rng_state(), before)  # a run's own random stream is not touched
    assert [tuple(b.shape) for b in alone] == [(8, 3, 32, 32)] * 3 + [(6, 3, 32, 32)]
    for i, (a, b) in enumerate(zip(alone, helped, strict=True)):
        assert a.dtype == b.dtype == torch.uint8
        assert torch.equal(a, b)
        assert torch.equal(a, torch.stack([photo_set[key] for key in list(batch_list)[i]]))


def test_photos_reach_another_process_with_files_of_any_name(tmp_path):
    names = ["写真 🌄.png", "line\nbreak.png", os.fsdecode(b"caf\xe9.png")]
    files = [save(rgb, tmp_path / name) for name, rgb in zip(names, crops(3))]
    sent = data.Photos(files, 16)
    received = pickle.loads(pickle.dumps(sent))  # as spawned workers get it
    assert [Path(f) for f in received.files] == files and len(received) == 3
    assert all(torch.equal(received[0, i], sent[0, i]) for i in range(3))
    assert len(data.Photos([], 16)) == 0


def test_ctrl_c_does_not_end_the_workers(folder):
    batch_list = data.Batches(range(30), 2)
    photo_set = data.Photos(photos.find_photos(folder), 16)
    batches = iter(data.loader(photo_set, batch_list, workers=2))
    read = [next(batches), next(batches)]  # one of each worker: both are at work
    for worker in batches._workers:
        os.kill(worker.pid, signal.SIGINT)
    for batch, keys in zip([*read, *batches], batch_list, strict=True):
        assert torch.equal(batch, photo_set.__getitems__(keys))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_photo_broken_since_it_was_prepared_is_named(workers, folder, tmp_path):
    files = data.prepare(folder, tmp_path).files("train")
    files[5].write_bytes(files[5].read_bytes()[:500])
    with pytest.raises(photos.PhotoError, match=rf"{files[5].name}: cannot be read as an image"):
        list(data.loader(data.Photos(files, 16), data.Batches(range(len(files)), 8), workers))
    with pytest.raises(photos.PhotoError, match=rf"{files[5].name}: cannot be read as an image"):
        data.pack(files, 16, "squash", tmp_path / "packs")
    assert not any((tmp_path / "packs").iterdir())


# ------------------------------------------------------------------------------------------------- packs


@pytest.mark.parametrize("resize", ["squash", "crop"])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_packed_photos_are_the_unpacked_ones(workers, flip, resize, folder, tmp_path):
    files = photos.find_photos(folder)
    packed = data.Photos(files, 24, resize, flip, 3, data.pack(files, 24, resize, tmp_path))
    unpacked = data.Photos(files, 24, resize, flip, 3)
    batch_list = data.Batches(range(30), 7, epoch=1, seed=2)
    for a, b in zip(*(data.loader(photo_set, batch_list, workers) for photo_set in (packed, unpacked)), strict=True):
        assert a.dtype == torch.uint8 and torch.equal(a, b)
    assert torch.equal(packed[4, 5], unpacked[4, 5])


def test_pack_is_reused_for_the_same_photos_only(folder, tmp_path, monkeypatch):
    files = photos.find_photos(folder)[:4]
    path = data.pack(files, 16, "squash", tmp_path / "new" / "packs")
    others = [data.pack(*key, path.parent) for key in ((files, 16, "crop"), (files, 17, "squash"))]
    others += [data.pack(f, 16, "squash", path.parent) for f in (files[:3], files[::-1])]
    assert len({path, *others}) == 5 and {*path.parent.iterdir()} == {path, *others}
    monkeypatch.setattr(data.Photos, "_read", None)  # nothing is decoded again
    assert data.pack([str(f) for f in files], 16, "squash", path.parent) == path


def test_pack_takes_at_most_half_of_the_free_space(folder, tmp_path, monkeypatch):
    files = photos.find_photos(folder)[:4]
    for missing in (1, 0):
        disk = SimpleNamespace(free=2 * 4 * 3 * 16 * 16 - missing)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, disk=disk: disk)
        assert (data.pack(files, 16, "squash", tmp_path) is None) == bool(missing)
        assert len(list(tmp_path.iterdir())) == 1 - missing


def test_pack_that_cannot_be_written_is_done_without(folder, blocked, tmp_path, monkeypatch):
    files = photos.find_photos(folder)[:4]
    assert data.pack(files, 16, "squash", blocked) is None

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert data.pack(files, 16, "squash", tmp_path / "packs") is None
    assert not any((tmp_path / "packs").iterdir())


def test_interrupted_pack_leaves_nothing_behind(folder, tmp_path, monkeypatch):
    files = photos.find_photos(folder)

    def read(photo_set, index, original=data.Photos._read):
        if index == 20:
            raise KeyboardInterrupt
        return original(photo_set, index)

    with monkeypatch.context() as patch:
        patch.setattr(data.Photos, "_read", read)
        with pytest.raises(KeyboardInterrupt):
            data.pack(files, 16, "squash", tmp_path)
    assert not any(tmp_path.iterdir())
    assert np.load(data.pack(files, 16, "squash", tmp_path)).shape == (30, 3, 16, 16)


# ----------------------------------------------------------------------------------------------- mean_ab


@pytest.mark.parametrize("size", [32, 20])
def test_mean_ab_is_skimages(size, folder):
    files = photos.find_photos(folder)[:12]
    squashed = [Image.open(f).resize((size, size), Image.Resampling.BICUBIC) for f in files]
    expected = skimage.color.rgb2lab(np.stack([np.asarray(s) for s in squashed]))[..., 1:].mean(axis=(0, 1, 2))
    ours = data.mean_ab(files, size)
    assert ours.dtype == torch.float32 and ours.shape == (2,)
    assert np.abs(ours.numpy() - expected).max() < 1e-3


def test_mean_ab_looks_at_evenly_chosen_photos_when_there_are_many(folder):
    files = photos.find_photos(folder)
    assert torch.equal(data.mean_ab(files, most=4), data.mean_ab([files[i] for i in (0, 10, 19, 29)]))
    assert torch.equal(data.mean_ab(files, most=31), data.mean_ab(files))
    assert not torch.equal(data.mean_ab(files, most=4), data.mean_ab(files))


def test_prepared_set_is_read_again_from_its_folder_alone(sample):
    again = data.Prepared(sample.folder)
    assert again.manifest.equals(sample.manifest)
    assert (again.name, again.fingerprint) == ("sample", sample.fingerprint)
    assert again.files("val") == sample.files("val")
