"""colorlib.sample: six photographs cut into crops, of which no pixel is in two parts."""

import socket
from collections import Counter

import numpy as np
import pytest

from colorlib import datasets, photos, sample


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """The sample cut from scenes whose every pixel is a number of its own.

    Returns `(scenes, seen)`: which scene and row each number belongs to, and which numbers each split shows.
    """
    scenes, start = {}, 0
    for name, rgb in sample.scenes().items():
        height, width = rgb.shape[:2]
        scenes[name] = np.arange(start, start + height * width).reshape(height, width)
        start += height * width
    assert start < 256**3  # a pixel holds its number
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "scenes", lambda: {name: _as_rgb(ids) for name, ids in scenes.items()})
        folder = datasets.fetch("sample", tmp_path_factory.mktemp("numbered"))
    seen = {split: np.zeros(start, dtype=bool) for split in ("train", "val", "test")}
    for file in photos.find_photos(folder):
        rgb = photos.open_photo(file).astype(int)
        seen[file.parent.name][rgb @ [65536, 256, 1]] = True
    return scenes, seen


def _as_rgb(ids):
    return np.stack([ids >> 16, ids >> 8 & 255, ids & 255], axis=2).astype(np.uint8)


def test_sample_is_built_once_without_network_and_reused(tmp_path, no_network, monkeypatch):
    folder = datasets.fetch("sample", tmp_path)
    assert folder.parent == tmp_path
    counts = Counter(f.parent.name for f in photos.find_photos(folder))
    assert set(counts) == {"train", "val", "test"} and min(counts.values()) >= 20
    monkeypatch.setattr(sample, "cut", None)
    assert datasets.fetch("sample", tmp_path) == folder


def test_scenes_are_those_of_the_wheel_in_colour(no_network):
    scenes = sample.scenes()
    assert set(scenes) == {*sample.TRAIN, *sample.TEST}
    for rgb in scenes.values():
        assert rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3
        assert photos.colour_fault(rgb) == ""


def test_sample_has_no_pixel_in_two_splits(numbered):
    _, seen = numbered
    assert all(s.any() for s in seen.values())
    assert not (seen["train"] & seen["val"]).any()
    assert not (seen["train"] & seen["test"]).any()
    assert not (seen["val"] & seen["test"]).any()


def test_sample_tests_on_scenes_of_their_own(numbered):
    scenes, seen = numbered
    shows = {split: {name for name, ids in scenes.items() if s[ids].any()} for split, s in seen.items()}
    assert shows["train"] == shows["val"] == set(sample.TRAIN)
    assert shows["test"] == set(sample.TEST)
    assert not shows["train"] & shows["test"]


def test_sample_trains_on_both_views_of_the_stereo_pair_and_holds_the_same_rows_out(numbered):
    scenes, seen = numbered
    rows = {
        (side, split): set(np.flatnonzero(seen[split][scenes[f"motorcycle_{side}"]].any(axis=1)))
        for side in ("left", "right")
        for split in ("train", "val", "test")
    }
    for side, other in (("left", "right"), ("right", "left")):
        assert rows[side, "train"] and rows[side, "val"] and not rows[side, "test"]
        assert not rows[side, "val"] & rows[other, "train"]  # what one view holds out, the other does not show


def test_interrupted_sample_is_cut_again(tmp_path, monkeypatch):
    def die(folder):
        (folder / "train").mkdir()
        (folder / "train" / "half.png").touch()
        raise KeyboardInterrupt

    blank = {name: np.zeros_like(rgb) for name, rgb in sample.scenes().items()}
    monkeypatch.setattr(sample, "scenes", lambda: blank)  # only for speed
    with monkeypatch.context() as patch:
        patch.setattr(sample, "cut", die)
        with pytest.raises(KeyboardInterrupt):
            datasets.fetch("sample", tmp_path)
    assert not (tmp_path / "sample").exists()
    assert not (datasets.fetch("sample", tmp_path) / "train" / "half.png").exists()
