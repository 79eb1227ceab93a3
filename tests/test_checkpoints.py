"""A checkpoint counts only if it is whole, whatever died while it was written."""

import hashlib
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from colorlib import checkpoints


def save(folder, epoch, name="last"):
    folder.mkdir(exist_ok=True)
    state = {"model": {"w": torch.full((50,), float(epoch))}, "history": [{"epoch": epoch, "val_mse": 0.5}]}
    checkpoints.save(folder, name, state, {"epoch": epoch, "val_mse": 0.5})


def epoch_in(folder, name="last"):
    """The epoch that the checkpoint's tensors come from, checked against its manifest."""
    state, facts = checkpoints.load(folder, name)
    assert facts["epoch"] == state["history"][0]["epoch"]
    assert torch.equal(state["model"]["w"], torch.full((50,), float(facts["epoch"])))
    return facts["epoch"]


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_what_was_saved_is_what_is_loaded(tmp_path):
    save(tmp_path, 3)
    assert epoch_in(tmp_path) == 3
    assert checkpoints.manifest(tmp_path, "last")["val_mse"] == 0.5


def test_old_files_are_removed_and_the_other_checkpoint_is_left(tmp_path):
    for epoch, name in [(1, "best"), (1, "last"), (2, "last"), (3, "last")]:
        save(tmp_path, epoch, name)
    assert names(tmp_path) == ["best-00001.pt", "best.json", "last-00003.pt", "last.json"]
    assert (epoch_in(tmp_path, "best"), epoch_in(tmp_path)) == (1, 3)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "file truncated": ("last-00001.pt", lambda path: path.write_bytes(path.read_bytes()[:-1])),
    "file empty": ("last-00001.pt", lambda path: path.write_bytes(b"")),
    "one bit flipped": ("last-00001.pt", flip_a_bit),
    "file missing": ("last-00001.pt", Path.unlink),
    "manifest missing": ("last.json", Path.unlink),
    "manifest empty": ("last.json", lambda path: path.write_text("")),
    "manifest cut off": ("last.json", lambda path: path.write_text(path.read_text()[:-9])),
    "manifest not text": ("last.json", lambda path: path.write_bytes(bytes(range(128, 256)))),
    "manifest without hash": ("last.json", lambda path: path.write_text('{"epoch": 1, "file": "last-00001.pt"}')),
    "manifest of another kind": ("last.json", lambda path: path.write_text("[]")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_does_not_count(tmp_path, damage):
    save(tmp_path, 1)
    name, spoil = DAMAGE[damage]
    spoil(tmp_path / name)
    assert checkpoints.manifest(tmp_path, "last") is None
    with pytest.raises(FileNotFoundError, match="no whole checkpoint 'last'") as caught:
        checkpoints.load(tmp_path, "last")
    assert str(tmp_path) in str(caught.value)
    assert not checkpoints.copy(tmp_path, tmp_path / "drive", "last")
    assert not (tmp_path / "drive").exists()


def test_a_file_of_code_is_refused_and_not_run(tmp_path):
    class Code:
        def __reduce__(self):
            return Path.touch, (tmp_path / "was-run",)

    torch.save({"model": Code()}, tmp_path / "last-00001.pt")
    digest = hashlib.sha256((tmp_path / "last-00001.pt").read_bytes()).hexdigest()
    (tmp_path / "last.json").write_text(json.dumps({"epoch": 1, "file": "last-00001.pt", "sha256": digest}))
    with pytest.raises(pickle.UnpicklingError):
        checkpoints.load(tmp_path, "last")
    assert not (tmp_path / "was-run").exists()


def die(*args, **kwargs):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "moment", [(torch, "save"), (checkpoints.os, "replace"), (checkpoints, "_commit")], ids=lambda m: m[1]
)
def test_killed_while_saving_the_old_one_is_whole_and_the_next_one_works(tmp_path, monkeypatch, moment):
    save(tmp_path, 1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(*moment, die)
        save(tmp_path, 2)
    assert epoch_in(tmp_path) == 1
    save(tmp_path, 2)
    assert epoch_in(tmp_path) == 2
    assert names(tmp_path) == ["last-00002.pt", "last.json"]


def test_a_copy_is_whole_and_takes_the_place_of_the_one_before(tmp_path):
    for epoch in (1, 2):
        save(tmp_path / "run", epoch)
        assert checkpoints.copy(tmp_path / "run", tmp_path / "drive" / "run", "last")
    assert epoch_in(tmp_path / "drive" / "run") == 2
    assert names(tmp_path / "drive" / "run") == ["last-00002.pt", "last.json"]


def test_what_is_there_already_is_not_copied_again(tmp_path, monkeypatch):
    save(tmp_path / "run", 1)
    checkpoints.copy(tmp_path / "run", tmp_path / "drive", "last")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "drive").iterdir()}
    monkeypatch.setattr(shutil, "copyfile", die)
    assert checkpoints.copy(tmp_path / "run", tmp_path / "drive", "last")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "drive").iterdir()} == before


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path, blocked):
    save(tmp_path / "run", 1)
    with pytest.warns(UserWarning, match="could not be copied there") as caught:
        assert not checkpoints.copy(tmp_path / "run", blocked, "last")
    assert str(blocked) in str(caught[0].message)


def test_a_copy_that_arrives_damaged_does_not_replace_the_whole_one(tmp_path, monkeypatch):
    save(tmp_path / "run", 1)
    checkpoints.copy(tmp_path / "run", tmp_path / "drive", "last")
    save(tmp_path / "run", 2)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", lambda source, target: Path(target).write_bytes(source.read_bytes()[:99]))
        with pytest.warns(UserWarning, match="not what was written"):
            assert not checkpoints.copy(tmp_path / "run", tmp_path / "drive", "last")
    assert epoch_in(tmp_path / "drive") == 1
    assert checkpoints.copy(tmp_path / "run", tmp_path / "drive", "last")  # half of it lying there does not matter
    assert epoch_in(tmp_path / "drive") == 2


def test_killed_while_copying_the_old_one_is_whole(tmp_path, monkeypatch):
    save(tmp_path / "run", 1)
    checkpoints.copy(tmp_path / "run", tmp_path / "drive", "last")
    save(tmp_path / "run", 2)
    monkeypatch.setattr(checkpoints, "_commit", die)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.copy(tmp_path / "run", tmp_path / "drive", "last")
    assert epoch_in(tmp_path / "drive") == 1
