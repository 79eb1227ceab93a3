"""A photo keeps its size and its lightness; colour stops at edges; a folder is finished, whatever lies in it."""

import errno

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as samples

from colorlib import color, models, photos, saving
from colorlib.colorize import Result, colorize, colorize_each, colorize_files, plan

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


def test_of_a_long_strip_the_network_sees_a_small_copy(painter):
    sizes = []
    painter.register_forward_hook(lambda _module, inputs, _output: sizes.append(tuple(inputs[0].shape[-2:])))
    assert colorize(painter, noise(40, 60_000), side=32).shape == (40, 60_000, 3)
    (height, width) = sizes[0]
    assert height * width <= 8.2 * 32**2
    assert 40 / height == pytest.approx(60_000 / width, rel=0.5)  # to whole pixels


def test_a_grey_photo_and_the_same_as_rgb_give_the_same(painter, tmp_path):
    grey = Image.fromarray(samples.camera())
    grey.save(tmp_path / "grey.png")
    grey.convert("RGB").save(tmp_path / "rgb.png")
    one, other = (colorize(painter, photos.open_photo(tmp_path / name), 64) for name in ("grey.png", "rgb.png"))
    assert (one == other).all()
    assert np.ptp(one, axis=2).mean() > 40


# --- the way back to full resolution


class TwoColours(torch.nn.Module):
    """Blue on the left half and yellow on the right; or, of `ramp`, a colour that changes evenly from left to right."""

    def __init__(self, ramp=False):
        super().__init__()
        self.weight, self.ramp = torch.nn.Parameter(torch.zeros(1)), ramp

    def forward(self, L):
        x = torch.linspace(-1, 1, L.shape[-1]).expand(L.shape)
        return torch.cat([0 * x, 30 * (x if self.ramp else x.sign())], dim=1)


def ab_of(rgb):
    return color.photo_to_lab(rgb)[1][0].numpy()


def test_colour_stops_where_lightness_has_an_edge():
    """The network's copy has 16 pixels for 640, and the edge lies between two of its pixels: 12 pixels further left."""
    rgb = np.full((640, 640, 3), 90, dtype=np.uint8)
    rgb[:, 308:] = 170
    b = ab_of(colorize(TwoColours(), rgb, side=16))[1]
    left, right = b[:, :308], b[:, 308:]
    assert left.max() < -12 and right.min() > 12  # on no pixel has the colour of the other side bled over
    plain = torch.nn.functional.interpolate(TwoColours()(torch.zeros(1, 1, 16, 16)), (640, 640), mode="bilinear")
    assert plain[0, 1, :, 308:].min() < -12  # as it does without


def test_there_are_no_blocks():
    """A colour that changes evenly changes evenly at full resolution too."""
    rgb = np.full((400, 1000, 3), 128, dtype=np.uint8)
    b = ab_of(colorize(TwoColours(ramp=True), rgb, side=16))[1]
    expected = np.linspace(-30, 30, 1000)
    middle = slice(150, -150)  # towards the sides it is flatter, as bilinear interpolation is
    assert np.abs(b.mean(axis=0) - expected)[middle].max() < 1
    assert np.abs(np.diff(b.mean(axis=0)))[middle].max() < 2  # 8 bits have steps of 1 to 2 there; blocks would have 2.4


def test_without_edges_it_is_within_a_unit_of_the_plain_way(painter):
    y, x = np.mgrid[0:600, 0:900] / 900
    rgb = (60 + 100 * x + 60 * y)[..., None].repeat(3, axis=2).astype(np.uint8)
    L, _ = color.photo_to_lab(rgb)
    seen = torch.nn.functional.interpolate(L, (64, 96), mode="bilinear", antialias=True)
    plain = torch.nn.functional.interpolate(painter(seen), (600, 900), mode="bilinear").detach()
    expected = ab_of(color.lab_to_rgb(L, plain)[0].permute(1, 2, 0).numpy())
    apart = np.hypot(*(ab_of(colorize(painter, rgb, side=64)) - expected))
    inner = apart[60:-60, 60:-60]  # at the sides there are fewer neighbours to fit
    assert inner.mean() < 0.6 and np.quantile(inner, 0.99) < 1.5  # single pixels are rounded to 8 bits
    blocks = inner[:480, :780].reshape(48, 10, 78, 10).mean(axis=(1, 3))
    assert blocks.max() < 1


@pytest.mark.parametrize("strength", [0, 0.5, 1, 2])
def test_strength_multiplies_chroma(painter, strength):
    painter.chroma.data /= 4  # so that all fits into sRGB
    rgb = np.full((50, 70, 3), 140, dtype=np.uint8)
    chroma = np.hypot(*ab_of(colorize(painter, rgb, strength=strength))).mean()
    whole = np.hypot(*ab_of(colorize(painter, rgb))).mean()
    assert chroma == pytest.approx(strength * whole, abs=0.7) and whole > 5


# --- a GPU whose memory is full


class Full(torch.nn.Module):
    """Runs out of memory as a GPU does, as long as it sees more than so many pixels."""

    def __init__(self, most):
        super().__init__()
        self.weight, self.most, self.sizes = torch.nn.Parameter(torch.zeros(1)), most, []

    def forward(self, L):
        self.sizes.append(L.shape[-1])
        if L.numel() > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return torch.full_like(L, 30).expand(-1, 2, -1, -1)


def test_full_memory_is_told_and_smaller_copies_are_tried():
    model = Full(40 * 40)
    with pytest.warns(UserWarning, match=r"memory of cpu is full: trying again with a copy of (64|32) pixels") as told:
        coloured = colorize(model, samples.astronaut(), side=128)
    assert model.sizes == [128, 64, 32] and len(told) == 2
    assert np.hypot(*ab_of(coloured)).mean() > 15  # not grey


def test_too_little_memory_is_an_error_and_never_a_grey_picture(tmp_path):
    Image.fromarray(samples.astronaut()).save(tmp_path / "photo.png")
    with pytest.warns(UserWarning, match="is full"), pytest.raises(MemoryError, match="not enough memory"):
        colorize(Full(0), samples.astronaut(), side=128)
    with pytest.warns(UserWarning, match="is full"):
        (result,) = colorize_each(Full(0), [(tmp_path / "photo.png", tmp_path / "out.png")], side=128)
    assert result.coloured is None and "not enough memory" in result.note and "photo.png" in result.note
    assert not (tmp_path / "out.png").exists()


# --- which file goes where


def made(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def planned(root, *arguments, **options):
    pairs = plan(*arguments, **options)
    return {p.relative_to(root).as_posix(): t.relative_to(root).as_posix() for p, t in pairs}


def test_plan_of_one_photo(tmp_path):
    made(tmp_path, "a.jpg", "b.heic", "c.TIFF")
    one = tmp_path / "a.jpg"
    assert planned(tmp_path, [one]) == {"a.jpg": "a_coloured.jpg"}
    assert planned(tmp_path, [one], tmp_path / "out") == {"a.jpg": "out/a_coloured.jpg"}
    assert planned(tmp_path, [one], tmp_path / "x" / "new.PNG") == {"a.jpg": "x/new.PNG"}
    assert planned(tmp_path, [one], suffix=".webp", ending="_beside") == {"a.jpg": "a_beside.webp"}
    assert planned(tmp_path, [tmp_path / "b.heic"]) == {"b.heic": "b_coloured.png"}  # HEIC is not written
    assert planned(tmp_path, [tmp_path / "c.TIFF"]) == {"c.TIFF": "c_coloured.tiff"}
    with pytest.raises(ValueError, match=r"a.jpg: is the photo itself"):
        plan([one], tmp_path / "x" / ".." / "a.jpg")
    with pytest.raises(ValueError, match=r"new.heic: results are written as .jpg"):
        plan([one], tmp_path / "new.heic")


def test_plan_of_folders(tmp_path, monkeypatch):
    made(tmp_path, "trip/a.jpg", "trip/day 1/a.jpg", "home/a.jpg")
    trip = {"trip/a.jpg": "trip_coloured/a_coloured.jpg", "trip/day 1/a.jpg": "trip_coloured/day 1/a_coloured.jpg"}
    assert planned(tmp_path, [tmp_path / "trip"]) == trip
    assert planned(tmp_path, [tmp_path / "trip"], tmp_path / "o")["trip/day 1/a.jpg"] == "o/day 1/a_coloured.jpg"
    both = planned(tmp_path, [tmp_path / "trip", tmp_path / "home"], tmp_path / "o")
    assert both["trip/a.jpg"] == "o/trip/a_coloured.jpg" and both["home/a.jpg"] == "o/home/a_coloured.jpg"
    monkeypatch.chdir(tmp_path / "trip")
    assert {str(t) for _, t in plan(["."])} == {str(tmp_path / target) for target in trip.values()}


def test_plan_never_gives_two_photos_one_file_nor_a_photo_its_own(tmp_path):
    made(tmp_path, "a.jpg", "a.heic", "a.bmp", "b/a.jpg", "a.png")
    files = [tmp_path / name for name in ("a.jpg", "a.heic", "a.bmp", "b/a.jpg", "a.png", "a.jpg")]
    for out in (None, tmp_path / "out"):
        targets = list(planned(tmp_path, files, out).values())
        assert len(targets) == len(set(targets)) == 5  # one was given twice
        assert not set(targets) & {"a.jpg", "a.heic", "a.bmp", "b/a.jpg", "a.png"}


def test_plan_leaves_results_out(tmp_path):
    made(tmp_path, "a.jpg", "a_coloured.jpg", "b_coloured.jpg")
    found = planned(tmp_path, sorted(tmp_path.iterdir()))  # as *.jpg the second time
    assert found == {"a.jpg": "a_coloured.jpg", "b_coloured.jpg": "b_coloured_coloured.jpg"}


def test_plan_of_many_photos_takes_no_time(tmp_path, monkeypatch):
    names = [tmp_path / f"{k}.jpg" for k in range(50_000)]
    monkeypatch.setattr(photos, "find_photos", lambda folder: names)
    assert len(plan([tmp_path])) == 50_000  # a second or two; comparing all with all would take many minutes


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


DONE = ["a_coloured.jpg", "b.c_coloured.png", "trip/day.1/a_coloured.jpg"]


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
        seen = colorize(painter, np.array(Image.open(row.photo)), side=7).astype(int)
        change = np.abs(np.array(Image.open(row.coloured)) - seen)
        assert change.mean() < 3 if row.coloured.suffix == ".jpg" else change.max() == 0


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
    colorize_files(painter, folder, tmp_path / "out")
    assert {"a_coloured.jpg", "a_coloured.png"} < set(files_in(tmp_path / "out"))
    Image.fromarray(samples.astronaut()[:40, :60]).save(folder / "a.bmp")  # BMP is not written
    colorize_files(painter, folder, tmp_path / "out")
    both = {"a.png_coloured.png": samples.chelsea(), "a.bmp_coloured.png": samples.astronaut()}
    for name, photo in both.items():  # each is of its own photo, whatever was there before
        assert (photos.open_photo(tmp_path / "out" / name) == colorize(painter, photo[:40, :60])).all()


def test_one_photo_is_coloured(painter, folder, tmp_path):
    rows = colorize_files(painter, folder / "a.jpg", tmp_path / "out")
    assert rows.coloured.tolist() == [tmp_path / "out" / "a_coloured.jpg"]
    assert list(files_in(tmp_path / "out")) == ["a_coloured.jpg"]


def test_a_folder_that_cannot_be_written_is_told(painter, folder, blocked):
    with pytest.raises(PermissionError, match=r"cannot be written to .* choose another folder .*\.$") as caught:
        colorize_files(painter, folder, blocked)
    assert str(caught.value).startswith(f"{blocked}: ")


def test_missing_photos_are_told_before_anything_is_made(painter, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        colorize_files(painter, tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_disk_that_is_full_ends_it_and_the_next_call_goes_on(painter, folder, tmp_path, monkeypatch):
    out, save, written = tmp_path / "out", saving.save, []

    def full(rgb, path, *args):
        if len(written) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        return save(rgb, path, *args)

    monkeypatch.setattr(saving, "save", full)
    with pytest.raises(OSError, match="No space left"):
        colorize_files(painter, folder, out)
    assert list(files_in(out)) == ["a_coloured.jpg"]
    monkeypatch.undo()
    assert colorize_files(painter, folder, out).note[0] == "was there already"
    assert sorted(files_in(out)) == DONE


@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_interruption_leaves_whole_files_and_the_next_call_goes_on(painter, folder, tmp_path, after):
    """Ctrl-C while the network works on one of the photos."""
    out, seen = tmp_path / "out", []

    def interrupt(*_):
        seen.append(1)
        if len(seen) > after:
            raise KeyboardInterrupt

    hook = painter.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        colorize_files(painter, folder, out)
    assert sorted(files_in(out)) == DONE[:after]
    before = files_in(out)
    hook.remove()
    colorize_files(painter, folder, out)
    assert sorted(files_in(out)) == DONE
    assert before.items() <= files_in(out).items()  # not made again


def test_overwrite_makes_them_anew_and_beside_shows_both(painter, folder, tmp_path):
    target = tmp_path / "both.png"
    target.write_bytes(b"old")
    (again,) = colorize_each(painter, [(folder / "a.jpg", target)], beside=True, overwrite=True)
    assert again == Result(folder / "a.jpg", target, "")
    both, photo = photos.open_photo(target), photos.open_photo(folder / "a.jpg")
    assert both.shape[0] == 40 and both.shape[1] > 2 * 60
    assert (both[:, :60] == photo).all() and (both[:, -60:] == colorize(painter, photo)).all()
    assert (both[:, 60:-60] == 255).all()
