"""A photo keeps its size and its lightness; a folder is finished, whatever lies in it."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as samples

from colorlib import color, models
from colorlib.colorize import colorize, colorize_files

pytestmark = pytest.mark.usefixtures("one_thread")


def lab(rgb):
    """L `(H, W)` and ab `(2, H, W)` of a photo."""
    L, ab = color.rgb_to_lab(torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None])
    return L[0, 0].numpy(), ab[0].numpy()


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (700, 333), (257, 256), (64, 61)], ids=str)
@pytest.mark.parametrize("name", ["painter", "tiny"])
def test_a_photo_keeps_its_size(request, size, name):
    model = request.getfixturevalue(name)
    coloured = colorize(models.build(model) if isinstance(model, str) else model, noise(*size))
    assert coloured.shape == (*size, 3)
    assert coloured.dtype == np.uint8


@pytest.mark.parametrize("chroma", [0, 20, 60, 1e4, float("nan")])
@pytest.mark.parametrize("photo", [samples.astronaut()[100:400], noise(64, 48)], ids=["astronaut", "noise"])
def test_lightness_is_kept_to_what_8_bits_can_hold(painter, photo, chroma):
    painter.chroma.data[:] = chroma
    change = np.abs(lab(colorize(painter, photo))[0] - lab(photo)[0])
    assert change.max() < 0.35
    assert change.mean() < 0.12


def test_a_grey_prediction_gives_neutral_pixels(painter):
    painter.chroma.data.zero_()
    # Of the 8-bit levels: the white point's own rounding, which is scikit-image's, can cost one.
    assert np.ptp(colorize(painter, samples.chelsea()), axis=2).max() <= 1


def test_colours_of_the_photo_are_not_used(painter):
    """Each grey value beside a colour of the same lightness, found among many: one photo in two versions."""
    colours = noise(1000, 600).reshape(-1, 3)
    L, ab = lab(colours[None])
    colours, L = colours[(np.hypot(*ab) > 20)[0]], L[0][(np.hypot(*ab) > 20)[0]]
    ramp, _ = lab(np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2))
    order = np.argsort(L)
    nearest = order[np.searchsorted(L[order], ramp[0]).clip(max=len(L) - 1)]
    grey = samples.camera()[::4, ::4].clip(20, 235)  # black and white have no coloured counterpart
    coloured = colours[nearest][grey]
    assert np.abs(lab(coloured)[0] - ramp[0][grey]).max() < 0.01
    one, other = (colorize(painter, rgb).astype(int) for rgb in (grey[..., None].repeat(3, axis=2), coloured))
    assert np.abs(one - other).max() <= 1
    assert np.ptp(one, axis=2).mean() > 40  # else two grey results would do


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_asked_in_evaluation_mode_and_left_as_it_was(painter, training):
    modes = []
    painter.train(training).register_forward_hook(lambda module, *_: modes.append(module.training))
    colorize(painter, noise(8, 8))
    assert modes == [False]
    assert painter.training == training


@pytest.mark.parametrize(("size", "seen"), [((512, 300), (437, 256)), ((100, 90), (100, 90)), ((1, 700), (1, 700))])
def test_the_network_sees_a_short_side_of_at_most_256(painter, size, seen):
    sizes = []
    painter.register_forward_hook(lambda _module, inputs, _output: sizes.append(tuple(inputs[0].shape[-2:])))
    colorize(painter, noise(*size))
    assert sizes == [seen]


def test_the_network_sees_the_side_that_it_is_told(painter):
    sizes = []
    painter.register_forward_hook(lambda _module, inputs, _output: sizes.append(tuple(inputs[0].shape[-2:])))
    assert colorize(painter, noise(90, 60), side=30).shape == (90, 60, 3)
    assert sizes == [(45, 30)]


# --- folders


@pytest.fixture
def folder(tmp_path):
    """Three photos, one of them in a sub-folder, a broken one and a note."""
    (tmp_path / "photos" / "trip" / "day.1").mkdir(parents=True)
    for name in ("a.jpg", "b.c.png", "trip/day.1/a.jpg"):
        Image.fromarray(samples.coffee()[:40, :60]).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "broken.jpg").write_bytes((tmp_path / "photos" / "a.jpg").read_bytes()[:300])
    (tmp_path / "photos" / "note.txt").write_text("not a photo")
    return tmp_path / "photos"


def files_in(out):
    """Every file below a folder, with its content and its time."""
    files = [p for p in out.rglob("*") if p.is_file()]
    return {p.relative_to(out).as_posix(): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


DONE = ["a_coloured.png", "b.c_coloured.png", "trip/day.1/a_coloured.png"]


def test_a_folder_is_finished_in_spite_of_a_broken_photo(painter, folder, tmp_path):
    rows = colorize_files(painter, folder, tmp_path / "deep" / "out", side=7)
    assert sorted(files_in(tmp_path / "deep" / "out")) == DONE  # sub-folders kept, nothing half done
    assert rows.columns.tolist() == ["photo", "coloured", "note"]
    assert [str(p.relative_to(folder)) for p in rows.photo] == ["a.jpg", "b.c.png", "broken.jpg", "trip/day.1/a.jpg"]
    broken = rows.iloc[2]
    assert broken.coloured == "" and "cannot be read as an image" in broken.note and "broken.jpg" in broken.note
    good = rows.drop(index=2)
    assert (good.note == "").all()
    for row in good.itertuples():
        seen = colorize(painter, np.array(Image.open(row.photo)), side=7)
        assert (np.array(Image.open(row.coloured)) == seen).all()


@pytest.mark.parametrize("out", ["out", "photos/out", "photos"], ids=["beside", "inside", "the same"])
def test_a_second_call_overwrites_nothing_and_colours_nothing_twice(painter, folder, tmp_path, out):
    first = colorize_files(painter, folder, tmp_path / out)
    before = files_in(tmp_path)
    painter.chroma.data.zero_()  # another model would give other pictures
    again = colorize_files(painter, folder, tmp_path / out)
    assert files_in(tmp_path) == before
    assert again[["photo", "coloured"]].equals(first[["photo", "coloured"]])
    assert again.note.tolist() == ["was there already"] * 2 + [first.note[2], "was there already"]


def test_photos_that_differ_in_their_ending_only_are_both_coloured(painter, folder, tmp_path):
    Image.fromarray(samples.chelsea()[:40, :60]).save(folder / "a.png")
    rows = colorize_files(painter, folder, tmp_path / "out")
    assert {"a.jpg_coloured.png", "a.png_coloured.png"} < set(files_in(tmp_path / "out"))
    assert (rows.note != "").sum() == 1


def test_one_photo_is_coloured(painter, folder, tmp_path):
    rows = colorize_files(painter, folder / "a.jpg", tmp_path / "out")
    assert rows.coloured.tolist() == [tmp_path / "out" / "a_coloured.png"]
    assert list(files_in(tmp_path / "out")) == ["a_coloured.png"]


def test_a_folder_that_cannot_be_written_is_told(painter, folder, blocked):
    with pytest.raises(PermissionError, match=r"cannot be written to .* choose another folder .*\.$") as caught:
        colorize_files(painter, folder, blocked)
    assert str(caught.value).startswith(f"{blocked}: ")


def test_missing_photos_are_told_before_anything_is_made(painter, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        colorize_files(painter, tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()
