"""colorlib.loading: photos squashed, cut and mirrored, subsets, the order of batches, packs, the mean colour."""

import errno
import itertools
import os
import pickle
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import skimage.color
import torch
from pictures import crops, save
from PIL import Image

from colorlib import data, loading, photos

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
    squashed, cropped = (loading.Photos(stripes, size, resize)[0, index] for resize in ("squash", "crop"))
    for rgb in (squashed, cropped):
        assert rgb.dtype == torch.uint8 and rgb.shape == (3, size, size)
    assert squashed.flatten(1).float().mean(dim=1) == pytest.approx([85, 85, 85], abs=2)
    along = squashed[:, size // 2] if index == 0 else squashed[:, :, size // 2]
    assert along.argmax(dim=0).tolist() == [i for i in range(3) for _ in range(size // 3)]
    # At the very edge the bicubic filter sees a little of the neighbours.
    assert (cropped[:, 2:-2, 2:-2] == torch.tensor([0, 255, 0]).view(3, 1, 1)).all()
    assert cropped[1].min() > 200


def test_zoomed_squares_lie_anywhere_and_depend_on_seed_epoch_and_index_alone(tmp_path):
    """Of a picture whose red is its row and whose green is its column, a square's corners tell what was cut out."""
    y, x = np.mgrid[0:100, 0:200]
    picture = save(np.stack([y, x, 0 * x], axis=2).astype(np.uint8), tmp_path / "wide.png")

    def boxes(seed, epoch, zoom=0.6):
        photo_set = loading.Photos([picture] * 60, 100, "crop", seed=seed, crop=32, zoom=zoom)
        found = photo_set.__getitems__([(epoch, i) for i in range(60)]).double()
        assert found.shape == (60, 3, 32, 32)
        top, left = found[:, 0, 8].mean(dim=1), found[:, 1, :, 8].mean(dim=1)
        height, width = (
            (found[:, 0, 24] - found[:, 0, 8]).mean(dim=1),
            (found[:, 1, :, 24] - found[:, 1, :, 8]).mean(1),
        )
        assert (height - width).abs().max() < 1.5  # squares
        side = 2 * height
        return side, top - side / 4, left - side / 4

    side, top, left = boxes(0, 0)
    assert 57 < side.min() < 66 and 92 < side.max() < 103  # 0.6 to 1 of the short side
    assert left.min() < 15 and (left + side).max() > 185 and left.std() > 25  # also at the sides
    assert top.min() > -2 and (top + side).max() < 102
    assert all(a.equal(b) for a, b in zip(boxes(0, 0), boxes(0, 0)))
    for other in ((0, 1), (1, 0)):
        assert not boxes(*other)[0].equal(side)
    with_middle = loading.Photos([picture], 100, "crop", seed=None, crop=32, zoom=0.6)[0, 0]
    assert with_middle.equal(
        loading.Photos([picture], 100, "crop", seed=None, crop=32)[0, 0]
    )  # to judge: nothing random


def test_unknown_resize_is_refused_at_once(stripes):
    with pytest.raises(ValueError, match="resize must be 'squash' or 'crop', not 'stretch'"):
        loading.Photos(stripes, 24, "stretch")


def test_flips_depend_on_seed_epoch_and_index_alone(folder):
    files = photos.find_photos(folder)
    plain = loading.Photos(files, 16)

    def flips(seed, epoch):
        photo_set = loading.Photos(files, 16, flip=True, seed=seed)  # made anew, as after a restart
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
    whole = loading.Photos(files, 16)

    def places(seed, epoch):
        found, photo_set = [], loading.Photos(files, 16, seed=seed, crop=13)
        for index in range(12):
            rgb, full = photo_set[epoch, index], whole[epoch, index]
            assert rgb.shape == (3, 13, 13)
            found.append([(y, x) for y in range(4) for x in range(4) if full[:, y : y + 13, x : x + 13].equal(rgb)])
        return found

    drawn = [places(*key) for key in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    assert drawn[0] == places(0, 0) and len({str(found) for found in drawn}) == 4
    assert len({place for found in drawn for places in found for place in places}) == 16  # none is left out


@pytest.mark.parametrize("crop", [16, 13, 10, 1])
@pytest.mark.parametrize("packed", [False, True])
def test_without_a_seed_the_middle_is_cut_out_and_nothing_mirrored(folder, tmp_path, packed, crop):
    files = photos.find_photos(folder)[:12]
    pack = loading.pack(files, 16, "squash", tmp_path) if packed else None
    fixed, whole = loading.Photos(files, 16, flip=True, seed=None, pack=pack, crop=crop), loading.Photos(files, 16)
    top = {16: 0, 13: 1, 10: 3, 1: 7}[crop]  # of an odd rest, the smaller part is above and to the left
    for index in range(12):
        middle = whole[0, index][:, top : top + crop, top : top + crop]
        assert crop == 1 or not torch.equal(middle, middle.flip(2))  # else it would not show whether it was mirrored
        for epoch in (0, 1, 5):
            assert torch.equal(fixed[epoch, index], middle)


@pytest.mark.parametrize("crop", [17, -1])
def test_a_crop_larger_than_the_photo_is_refused(folder, crop):
    with pytest.raises(ValueError, match=f"crop must be at most the size, 16, not {crop}"):
        loading.Photos(photos.find_photos(folder), 16, crop=crop)


@pytest.mark.parametrize("seed", [None, 0, 7])
def test_every_index_comes_once_per_epoch(seed):
    batch_list = list(loading.Batches(range(103), 10, epoch=4, seed=seed))
    assert [len(batch) for batch in batch_list] == [10] * 10 + [3]
    assert {epoch for batch in batch_list for epoch, _ in batch} == {4}
    order = [index for batch in batch_list for _, index in batch]
    assert sorted(order) == list(range(103))
    assert (order == list(range(103))) == (seed is None)


def test_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        return [index for batch in loading.Batches(range(50), 8, epoch=epoch, seed=seed) for _, index in batch]

    orders = [order(0, 0), order(0, 1), order(1, 0), order(1, 1)]
    assert orders[0] == order(0, 0)
    assert len({tuple(o) for o in orders}) == 4


@pytest.mark.parametrize("start", [0, 1, 9, 10, 11, 12])
def test_start_leaves_out_batches_at_the_beginning_and_changes_nothing_else(start):
    whole = list(loading.Batches(range(103), 10, epoch=2, seed=3))
    rest = loading.Batches(range(103), 10, epoch=2, seed=3, start=start)
    assert list(rest) == list(rest) == whole[start:]  # can be gone through again
    assert rest.sizes() == [len(batch) for batch in whole[start:]]
    assert len(rest) == len(whole[start:])


@pytest.mark.parametrize("world", [1, 2, 3, 5, 8, 20])
def test_ranks_share_out_each_batch_in_its_order(world):
    settings = {"epoch": 1, "seed": 0, "start": 2}
    whole = list(loading.Batches(range(43), 10, **settings))
    ranks = [loading.Batches(range(43), 10, **settings, rank=rank, world=world) for rank in range(world)]
    for batch, *parts in zip(whole, *ranks, strict=True):
        put_together = itertools.zip_longest(*parts[: len(batch)])
        assert [key for keys in put_together for key in keys if key] == batch
        assert all(part == batch[:1] for part in parts[len(batch) :])  # too few photos: they get something to do
    assert all(rank.sizes() == [10, 10, 3] and len(rank) == 3 for rank in ranks)


def test_batches_and_subsets_leave_the_global_random_streams_alone():
    np.random.seed(0)
    torch.manual_seed(0)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    list(loading.Batches(range(50), 8, seed=1))
    loading.draw_subset(50, 0.4, 1, 0)
    assert np.array_equal(np.random.get_state()[1], before[0]) and torch.equal(torch.get_rng_state(), before[1])


def test_subset_is_two_fifths_drawn_anew_in_each_phase():
    drawn = {(seed, phase): loading.draw_subset(1000, 0.4, seed, phase) for seed in (0, 1) for phase in (0, 1)}
    for key, subset in drawn.items():
        assert len(subset) == len(set(subset.tolist())) == 400
        assert (np.diff(subset) > 0).all() and subset[0] >= 0 and subset[-1] < 1000
        assert np.array_equal(subset, loading.draw_subset(1000, 0.4, *key))
    assert len({tuple(subset) for subset in drawn.values()}) == 4
    # Independent draws share 40 % of 400 photos, give or take.
    assert 120 < len(set(drawn[0, 0]) & set(drawn[0, 1])) < 200


@pytest.mark.parametrize("n, share, expected", [(7, 1, 7), (7, 1.0, 7), (5, 0.01, 1), (10, 0.25, 2)])
def test_subset_sizes(n, share, expected):
    subset = loading.draw_subset(n, share, 0, 0)
    assert len(subset) == expected
    assert expected != n or subset.tolist() == list(range(n))


def test_loader_hands_over_the_same_bytes_with_and_without_workers(folder):
    photo_set = loading.Photos(photos.find_photos(folder), 32, "crop", flip=True, seed=5)
    batch_list = loading.Batches(range(30), 8, epoch=2, seed=5)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    alone, helped = (list(loading.loader(photo_set, batch_list, workers)) for workers in (0, 2))
    assert torch.equal(torch.get_rng_state(), before)  # a run's own random stream is not touched
    assert [tuple(b.shape) for b in alone] == [(8, 3, 32, 32)] * 3 + [(6, 3, 32, 32)]
    for i, (a, b) in enumerate(zip(alone, helped, strict=True)):
        assert a.dtype == b.dtype == torch.uint8
        assert torch.equal(a, b)
        assert torch.equal(a, torch.stack([photo_set[key] for key in list(batch_list)[i]]))


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_hands_over_tensors_of_uint8_or_whatever_else_the_set_makes_of_its_keys(folder, workers):
    class Named(loading.Photos):
        def __getitems__(self, keys):
            return super().__getitems__(keys), [str(index) for _, index in keys]

    files = photos.find_photos(folder)
    plain, named = (kind(files, 16, flip=True, seed=None, crop=12) for kind in (loading.Photos, Named))
    order = loading.Batches(range(30), 8)
    batches = list(loading.loader(plain, order, workers))
    assert all(type(batch) is torch.Tensor and batch.dtype == torch.uint8 for batch in batches)
    assert torch.equal(torch.cat(batches), torch.stack([plain[0, i] for i in range(30)]))
    for batch, (rgb, names), keys in zip(batches, loading.loader(named, order, workers), order, strict=True):
        assert torch.equal(rgb, batch) and names == [str(index) for _, index in keys]


def test_photos_reach_another_process_with_files_of_any_name(tmp_path):
    names = ["写真 🌄.png", "line\nbreak.png", os.fsdecode(b"caf\xe9.png")]
    files = [save(rgb, tmp_path / name) for name, rgb in zip(names, crops(3))]
    sent = loading.Photos(files, 16)
    received = pickle.loads(pickle.dumps(sent))  # as spawned workers get it
    assert [Path(f) for f in received.files] == files and len(received) == 3
    assert all(torch.equal(received[0, i], sent[0, i]) for i in range(3))
    assert len(loading.Photos([], 16)) == 0


def test_ctrl_c_does_not_end_the_workers(folder):
    batch_list = loading.Batches(range(30), 2)
    photo_set = loading.Photos(photos.find_photos(folder), 16)
    batches = iter(loading.loader(photo_set, batch_list, workers=2))
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
        list(loading.loader(loading.Photos(files, 16), loading.Batches(range(len(files)), 8), workers))
    with pytest.raises(photos.PhotoError, match=rf"{files[5].name}: cannot be read as an image"):
        loading.pack(files, 16, "squash", tmp_path / "packs")
    assert not any((tmp_path / "packs").iterdir())


# ------------------------------------------------------------------------------------------------- packs


@pytest.mark.parametrize("resize", ["squash", "crop"])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_packed_photos_are_the_unpacked_ones(workers, flip, resize, folder, tmp_path):
    files = photos.find_photos(folder)
    packed = loading.Photos(files, 24, resize, flip, 3, loading.pack(files, 24, resize, tmp_path))
    unpacked = loading.Photos(files, 24, resize, flip, 3)
    batch_list = loading.Batches(range(30), 7, epoch=1, seed=2)
    for a, b in zip(*(loading.loader(photo_set, batch_list, workers) for photo_set in (packed, unpacked)), strict=True):
        assert a.dtype == torch.uint8 and torch.equal(a, b)
    assert torch.equal(packed[4, 5], unpacked[4, 5])


def test_pack_is_reused_for_the_same_photos_only(folder, tmp_path, monkeypatch):
    files = photos.find_photos(folder)[:4]
    path = loading.pack(files, 16, "squash", tmp_path / "new" / "packs")
    others = [loading.pack(*key, path.parent) for key in ((files, 16, "crop"), (files, 17, "squash"))]
    others += [loading.pack(f, 16, "squash", path.parent) for f in (files[:3], files[::-1])]
    assert len({path, *others}) == 5 and {*path.parent.iterdir()} == {path, *others}
    monkeypatch.setattr(loading.Photos, "_read", None)  # nothing is decoded again
    assert loading.pack([str(f) for f in files], 16, "squash", path.parent) == path


def test_pack_takes_at_most_half_of_the_free_space(folder, tmp_path, monkeypatch):
    files = photos.find_photos(folder)[:4]
    for missing in (1, 0):
        disk = SimpleNamespace(free=2 * 4 * 3 * 16 * 16 - missing)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, disk=disk: disk)
        assert (loading.pack(files, 16, "squash", tmp_path) is None) == bool(missing)
        assert len(list(tmp_path.iterdir())) == 1 - missing


def test_pack_that_cannot_be_written_is_done_without(folder, blocked, tmp_path, monkeypatch):
    files = photos.find_photos(folder)[:4]
    assert loading.pack(files, 16, "squash", blocked) is None

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert loading.pack(files, 16, "squash", tmp_path / "packs") is None
    assert not any((tmp_path / "packs").iterdir())


def test_interrupted_pack_leaves_nothing_behind(folder, tmp_path, monkeypatch):
    files = photos.find_photos(folder)

    def read(photo_set, index, original=loading.Photos._read):
        if index == 20:
            raise KeyboardInterrupt
        return original(photo_set, index)

    with monkeypatch.context() as patch:
        patch.setattr(loading.Photos, "_read", read)
        with pytest.raises(KeyboardInterrupt):
            loading.pack(files, 16, "squash", tmp_path)
    assert not any(tmp_path.iterdir())
    assert np.load(loading.pack(files, 16, "squash", tmp_path)).shape == (30, 3, 16, 16)


# ----------------------------------------------------------------------------------------------- mean_ab


@pytest.mark.parametrize("size", [32, 20])
def test_mean_ab_is_skimages(size, folder):
    files = photos.find_photos(folder)[:12]
    squashed = [Image.open(f).resize((size, size), Image.Resampling.BICUBIC) for f in files]
    expected = skimage.color.rgb2lab(np.stack([np.asarray(s) for s in squashed]))[..., 1:].mean(axis=(0, 1, 2))
    ours = loading.mean_ab(files, size)
    assert ours.dtype == torch.float32 and ours.shape == (2,)
    assert np.abs(ours.numpy() - expected).max() < 1e-3


def test_mean_ab_looks_at_evenly_chosen_photos_when_there_are_many(folder):
    files = photos.find_photos(folder)
    assert torch.equal(loading.mean_ab(files, most=4), loading.mean_ab([files[i] for i in (0, 10, 19, 29)]))
    assert torch.equal(loading.mean_ab(files, most=31), loading.mean_ab(files))
    assert not torch.equal(loading.mean_ab(files, most=4), loading.mean_ab(files))
