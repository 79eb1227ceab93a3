"""colorlib.datasets: the sample, and downloads against a server on this machine in place of the real ones."""

import contextlib
import dataclasses
import functools
import hashlib
import http.server
import io
import socket
import socketserver
import tarfile
import threading
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from colorlib import data, datasets, photos

# ----------------------------------------------------------------------------------------------- the sample


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
    for name, rgb in datasets.sample_scenes().items():
        height, width = rgb.shape[:2]
        scenes[name] = np.arange(start, start + height * width).reshape(height, width)
        start += height * width
    assert start < 256**3  # a pixel holds its number
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "sample_scenes", lambda: {name: _as_rgb(ids) for name, ids in scenes.items()})
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
    monkeypatch.setattr(datasets, "_cut_sample", None)
    assert datasets.fetch("sample", tmp_path) == folder


def test_scenes_are_those_of_the_wheel_in_colour(no_network):
    scenes = datasets.sample_scenes()
    assert set(scenes) == {*datasets.SAMPLE_TRAIN, *datasets.SAMPLE_TEST}
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
    assert shows["train"] == shows["val"] == set(datasets.SAMPLE_TRAIN)
    assert shows["test"] == set(datasets.SAMPLE_TEST)
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

    blank = {name: np.zeros_like(rgb) for name, rgb in datasets.sample_scenes().items()}
    monkeypatch.setattr(datasets, "sample_scenes", lambda: blank)  # only for speed
    with monkeypatch.context() as patch:
        patch.setattr(datasets, "_cut_sample", die)
        with pytest.raises(KeyboardInterrupt):
            datasets.fetch("sample", tmp_path)
    assert not (tmp_path / "sample").exists()
    assert not (datasets.fetch("sample", tmp_path) / "train" / "half.png").exists()


# ------------------------------------------------------------------------------------------ names and folders


def test_a_pasted_blank_does_not_matter_and_a_file_is_told_from_a_folder(tmp_path):
    assert datasets.fetch(f"{tmp_path} ", tmp_path / "data") == tmp_path
    (tmp_path / "a.jpg").touch()
    with pytest.raises(ValueError, match="is a file: give the folder"):
        datasets.fetch(tmp_path / "a.jpg", tmp_path / "data")


@pytest.mark.parametrize("name", ["places", "SAMPLE", "", "  ", "/no/such/folder", "imagenette2-160.tgz"])
def test_unknown_name_is_answered_with_the_choices(name, tmp_path):
    with pytest.raises(ValueError) as caught:
        datasets.fetch(name, tmp_path)
    assert str(caught.value) == (
        f"{name.strip()!r} is neither a data set (sample, places365, imagenette) nor a folder on this machine; "
        "correct the name or the path."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("as_type", [str, lambda path: path], ids=["str", "Path"])
def test_folder_is_used_where_it_is(as_type, tmp_path, monkeypatch):
    mine = tmp_path / "my photos"
    mine.mkdir()
    assert datasets.fetch(as_type(mine), tmp_path / "data") == mine
    monkeypatch.setenv("HOME", str(tmp_path))
    assert datasets.fetch("~/my photos", tmp_path / "data") == mine
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_entries_are_complete(name):
    entry = datasets.DATASETS[name]
    assert entry.url.startswith(("http://", "https://")) and entry.url.endswith((".tar", ".tgz"))
    assert len(entry.md5) == 32 and int(entry.md5, 16)
    assert entry.size > 10**7 and entry.n_photos > 1000 and entry.title and entry.terms


# -------------------------------------------------------------------------------------------------- downloads


def photo(i):
    """A JPEG in colour, another for each `i`."""
    y, x = np.mgrid[:80, :96]
    rgb = np.stack([128 + 100 * np.sin(x / 9 + i), 128 + 100 * np.cos(y / 7 - i), (x * y + 37 * i) % 256], axis=2)
    buffer = io.BytesIO()
    Image.fromarray(rgb.astype(np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def places365(n=20):
    return {f"val_256/Places365_val_{i:08d}.jpg": photo(i) for i in range(1, n + 1)}


def imagenette(n=20):
    """The layout of Imagenette: a folder for each class below train and val."""
    classes = ("n01440764", "n03888257")
    return {
        f"imagenette2-160/{'val' if i % 4 == 0 else 'train'}/{classes[i % 2]}/photo_{i}.JPEG": photo(i)
        for i in range(n)
    }


def archive(members, path):
    """Write members, name -> bytes, as a tar archive at `path`, compressed if it is a .tgz; returns its bytes."""
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as tar:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return path.read_bytes()


@contextlib.contextmanager
def serving(handler):
    """A server on a free port of this machine: its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.handle_error = lambda *args: None  # a client that hangs up is no news
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def web(tmp_path):
    """A folder and the address at which it is served."""
    folder = tmp_path / "web"
    folder.mkdir()
    with serving(functools.partial(Files, directory=folder)) as address:
        yield folder, address


@pytest.fixture
def publish(web, monkeypatch):
    """Put an archive of `members` on the server in place of the real one of data set `name`."""
    folder, address = web

    def publish_(name, members, **changes):
        real = datasets.DATASETS[name]
        file = folder / real.url.rsplit("/", 1)[1]
        body = archive(members, file)
        entry = dataclasses.replace(
            real,
            url=f"{address}/{file.name}",
            md5=hashlib.md5(body).hexdigest(),
            size=len(body),
            n_photos=len(members),
        )
        monkeypatch.setitem(datasets.DATASETS, name, dataclasses.replace(entry, **changes))
        return file

    return publish_


def refused(name, root):
    """Fetch what cannot be fetched: the message, after checking that it is the kind of error it should be."""
    with pytest.raises(ConnectionError) as caught:
        datasets.fetch(name, root)
    assert not (root / name).exists()  # nothing is left that would be taken for whole
    return str(caught.value)


def by_hand(name, root):
    """The end of every message about a failed download: what to do instead."""
    entry = datasets.DATASETS[name]
    place = root / entry.url.rsplit("/", 1)[1]
    return f"Download it in a browser ({entry.size:,} bytes, MD5 {entry.md5}), put it at {place} and run this again."


def test_places365_from_download_to_prepared(publish, tmp_path):
    members = places365()
    publish("places365", members)
    folder = datasets.fetch("places365", tmp_path / "data")
    assert folder == tmp_path / "data" / "places365"
    assert {f.relative_to(folder).as_posix(): f.read_bytes() for f in photos.find_photos(folder)} == members
    prepared = data.prepare(folder, tmp_path / "prepared")
    assert prepared.report().photos.to_dict() == {"train": 16, "val": 2, "test": 2}


def test_imagenette_from_download_to_prepared(publish, tmp_path):
    publish("imagenette", imagenette())
    prepared = data.prepare(datasets.fetch("imagenette", tmp_path / "data"), tmp_path / "prepared", name="imagenette")
    # Its own validation photos stay where they are; the test photos come out of training.
    assert prepared.report().photos.to_dict() == {"train": 13, "val": 5, "test": 2}
    kept = prepared.kept
    assert (kept.source.str.contains("/val/") == (kept.split == "val")).all()
    assert prepared.name == "imagenette"


def test_fetched_once_is_enough(publish, tmp_path, monkeypatch):
    file = publish("places365", places365())
    folder = datasets.fetch("places365", tmp_path)
    file.unlink()
    monkeypatch.setattr(datasets, "download_url", None)
    assert datasets.fetch("places365", tmp_path) == folder


def test_archive_put_there_by_hand_is_used_without_network(publish, tmp_path, no_network):
    file = publish("places365", places365())
    (tmp_path / "data").mkdir()
    file.rename(tmp_path / "data" / file.name)
    assert len(photos.find_photos(datasets.fetch("places365", tmp_path / "data"))) == 20


def test_wrong_bytes_are_never_unpacked_and_the_right_ones_are_fetched_again(publish, tmp_path):
    publish("places365", places365(), md5="0" * 32)
    message = refused("places365", tmp_path)
    assert "could not be fetched" in message and message.endswith(by_hand("places365", tmp_path))
    publish("places365", places365())
    assert datasets.fetch("places365", tmp_path).is_dir()


def test_half_an_archive_left_by_a_dead_download_is_fetched_again(publish, tmp_path):
    file = publish("places365", places365())
    (tmp_path / file.name).write_bytes(file.read_bytes()[:5000])
    assert len(photos.find_photos(datasets.fetch("places365", tmp_path))) == 20


def test_missing_archive_says_how_to_get_it_by_hand(publish, tmp_path):
    publish("imagenette", imagenette()).unlink()
    message = refused("imagenette", tmp_path)
    assert "HTTP Error 404" in message and message.endswith(by_hand("imagenette", tmp_path))


def test_server_that_is_down_says_how_to_get_it_by_hand(publish, tmp_path):
    with socketserver.TCPServer(("127.0.0.1", 0), None) as closed:
        port = closed.server_address[1]
    publish("places365", places365(), url=f"http://127.0.0.1:{port}/val_256.tar")
    assert refused("places365", tmp_path).endswith(by_hand("places365", tmp_path))


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"this is not HTTP\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 100000\r\n\r\nonly the start",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nrubbish\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<html>Please log in</html>",
    ],
    ids=["hangs up", "no HTTP", "breaks off", "broken chunks", "login page"],
)
def test_servers_that_misbehave_say_how_to_get_it_by_hand(reply, publish, tmp_path):
    class Misbehaving(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(2000)
            self.request.sendall(reply)

    with serving(Misbehaving) as address:
        publish("places365", places365(), url=f"{address}/val_256.tar")
        message = refused("places365", tmp_path)
    assert "could not be fetched" in message and message.endswith(by_hand("places365", tmp_path))


@pytest.mark.parametrize("name", ["../evil.jpg", "/evil.jpg/../../evil.jpg", "val_256/../../../evil.jpg"])
def test_archive_member_that_points_outside_is_refused(name, publish, tmp_path):
    file = publish("places365", {**places365(), name: photo(0)})
    root = tmp_path / "deep" / "data"
    assert refused("places365", root).endswith("delete it and retry.")
    assert not list(tmp_path.rglob("evil.jpg"))
    assert str(root / file.name) in refused("places365", root)  # the second time too


@pytest.mark.parametrize("expected", [21, 19], ids=["too few", "too many"])
def test_archive_with_another_number_of_photos_is_refused(expected, publish, tmp_path):
    file = publish("places365", places365(20), n_photos=expected)
    assert refused("places365", tmp_path) == (
        f"{tmp_path / file.name} holds 20 photos instead of {expected}: delete it and retry."
    )


def test_unpacking_that_dies_is_done_again(publish, tmp_path, monkeypatch):
    publish("imagenette", imagenette())
    with monkeypatch.context() as patch:
        patch.setattr(datasets.photos, "find_photos", lambda folder: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            datasets.fetch("imagenette", tmp_path)
    assert not (tmp_path / "imagenette").exists()
    assert len(photos.find_photos(datasets.fetch("imagenette", tmp_path))) == 20
