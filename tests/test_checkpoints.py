"""A checkpoint counts only if it is whole, whatever died while it was written and however badly the mirror behaves."""

import builtins
import errno
import hashlib
import json
import os
import pickle
import shutil
import threading
import time
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

from colorlib import checkpoints, runtime
from colorlib.checkpoints import KEEP, Mirror, copy, newest

LOST = "CHECKPOINTS DO NOT REACH"


def save(folder, step, name="last", fill=None):
    folder.mkdir(parents=True, exist_ok=True)
    fill = float(step if fill is None else fill)
    state = {"model": {"w": torch.full((50,), fill)}, "history": [{"step": step, "val_mse": 0.5}]}
    checkpoints.save(folder, name, state, {"step": step, "fill": fill, "val_mse": 0.5})


def save_both(folder, step):
    for name in KEEP:
        save(folder, step, name)


def step_in(folder, name="last"):
    """The step that the checkpoint's tensors come from, checked against its manifest."""
    state, facts = checkpoints.load(folder, name)
    assert facts["step"] == state["history"][0]["step"]
    assert torch.equal(state["model"]["w"], torch.full((50,), facts["fill"]))
    return facts["step"]


def steps(folder, name="last", suffix=".json"):
    return sorted(int(path.stem.split("-")[1]) for path in folder.glob(f"{name}-*{suffix}"))


def file_of(folder, step, suffix=".pt", name="last"):
    (found,) = folder.glob(f"{name}-{step:08d}-*{suffix}")
    return found


def wrap(patch, owner, name, instead):
    """Replace a function by `instead(its name, the function, its arguments...)`."""
    original = getattr(owner, name)
    patch.setattr(owner, name, lambda *args, **kwargs: instead(name, original, *args, **kwargs))


def until(condition):
    end = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_what_was_saved_is_what_is_loaded(tmp_path):
    save(tmp_path, 3)
    assert step_in(tmp_path) == 3
    facts, faults = newest(tmp_path, "last")
    assert (facts["val_mse"], faults) == (0.5, [])
    assert file_of(tmp_path, 3).name == facts["file"]
    assert facts["sha256"] == hashlib.sha256(file_of(tmp_path, 3).read_bytes()).hexdigest()


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_is_told_and_what_was_there_still_counts(tmp_path, monkeypatch, call):
    save(tmp_path, 1)

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    if call == "write":  # as torch tells it when a real disk is full
        monkeypatch.setattr(torch, "save", lambda *args: torch._C.PyTorchFileWriter("/dev/full").write_end_of_file())
    else:
        monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"could not be written .* make room there and start again") as caught:
        save(tmp_path, 2)
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert step_in(tmp_path) == 1 and not list(tmp_path.glob("*.partial"))


def test_nothing_gets_its_name_before_it_is_on_the_disk(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        wrap(monkeypatch, os, name, lambda name, original, *args: (calls.append(name), original(*args)))
    save(tmp_path, 1)
    assert calls == ["fsync", "replace", "fsync", "replace"]


@pytest.mark.parametrize("name", KEEP)
def test_the_newest_few_of_a_name_are_kept_and_the_other_name_is_left(tmp_path, name):
    other = next(each for each in KEEP if each != name)
    save(tmp_path, 1, other)
    for step in range(1, 8):
        save(tmp_path, step, name)
    for suffix in (".pt", ".json"):
        assert steps(tmp_path, name, suffix) == list(range(8 - KEEP[name], 8))
        assert steps(tmp_path, other, suffix) == [1]
    assert not list(tmp_path.glob("*.partial"))


def test_one_that_is_newer_than_what_was_just_written_is_left(tmp_path):
    save(tmp_path, 9)
    for step in range(1, 5):
        save(tmp_path, step)
    assert steps(tmp_path) == [2, 3, 4, 9]


def test_of_two_of_one_step_the_later_counts(tmp_path):
    save(tmp_path / "run", 4)
    for fill in range(8):  # their order by name is that of their hashes
        save(tmp_path / "run", 5, fill=fill)
        assert newest(tmp_path / "run", "last")[0]["fill"] == fill
        save(tmp_path / "drive", 4)
        copy(tmp_path / "run", tmp_path / "drive", "last")
        assert newest(tmp_path / "drive", "last")[0]["fill"] == fill
    assert steps(tmp_path / "run") == steps(tmp_path / "drive") == [4, 5]


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "file truncated": (".pt", lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes are there"),
    "file empty": (".pt", lambda path: path.write_bytes(b""), "0 of"),
    "one bit flipped": (".pt", flip_a_bit, "its content is not what was written"),
    "file missing": (".pt", Path.unlink, "the file is missing"),
    "manifest empty": (".json", lambda path: path.write_text(""), "its manifest cannot be read"),
    "manifest cut off": (".json", lambda path: path.write_text(path.read_text()[:-9]), "its manifest cannot be read"),
    "manifest not text": (
        ".json",
        lambda path: path.write_bytes(bytes(range(128, 256))),
        "its manifest cannot be read",
    ),
    "manifest without hash": (
        ".json",
        lambda path: path.write_text(json.dumps({"file": path.with_suffix(".pt").name})),
        "its manifest cannot be read",
    ),
    "manifest of another kind": (".json", lambda path: path.write_text("[]"), "its manifest cannot be read"),
    "manifest of strings": (
        ".json",
        lambda path: path.write_text(json.dumps({"file": path.with_suffix(".pt").name, "bytes": "many", "sha256": ""})),
        "its manifest cannot be read",
    ),
    "manifest is a folder": (".json", lambda path: (path.unlink(), path.mkdir()), os.strerror(errno.EISDIR)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_passed_over_and_said_why(tmp_path, damage):
    suffix, spoil, why = DAMAGE[damage]
    for step in (1, 2, 3):
        save(tmp_path, step)
    for step in (2, 3):
        spoil(file_of(tmp_path, step, suffix))
    faults = newest(tmp_path, "last")[1]
    assert step_in(tmp_path) == 1
    assert len(faults) == 2
    for fault, step in zip(faults, (3, 2)):
        assert str(tmp_path / f"last-{step:08d}") in fault and why in fault
    save(tmp_path, 4)
    assert step_in(tmp_path) == 4


@pytest.mark.parametrize("damage", [key for key in DAMAGE if "folder" not in key])
def test_where_none_is_whole_that_is_said(tmp_path, damage):
    suffix, spoil, why = DAMAGE[damage]
    save(tmp_path, 1)
    spoil(file_of(tmp_path, 1, suffix))
    assert newest(tmp_path, "last")[0] is None
    with pytest.raises(FileNotFoundError, match=f"no whole checkpoint 'last' .*{why}") as caught:
        checkpoints.load(tmp_path, "last")
    assert str(tmp_path) in str(caught.value)
    copy(tmp_path, tmp_path / "drive", "last")
    assert not (tmp_path / "drive").exists()


def test_of_one_file_the_manifest_beside_it_counts_however_old_it_is(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step)
    facts = checkpoints.of_file(file_of(tmp_path, 1))
    assert facts == json.loads(file_of(tmp_path, 1, ".json").read_bytes())
    assert (facts["step"], facts["file"]) == (1, file_of(tmp_path, 1).name)
    assert torch.equal(checkpoints.state(tmp_path, facts)["model"]["w"], torch.full((50,), 1.0))


@pytest.mark.parametrize("damage", DAMAGE)
def test_one_file_that_is_damaged_is_refused_though_others_are_whole(tmp_path, damage):
    suffix, spoil, why = DAMAGE[damage]
    for step in (1, 2, 3):
        save(tmp_path, step)
    file = file_of(tmp_path, 2)
    spoil(file_of(tmp_path, 2, suffix))
    if suffix == ".json" or damage == "file missing":
        why = f"{file.stem}.json, the manifest that belongs beside it, cannot be read"
    with pytest.raises(ValueError, match=rf"^{file}: .*{why}.*; copy both files again\.$"):
        checkpoints.of_file(file)
    assert checkpoints.of_file(file_of(tmp_path, 1))["step"] == 1


def test_one_file_without_its_manifest_is_refused(tmp_path):
    save(tmp_path / "run", 1)
    alone = Path(shutil.copy(file_of(tmp_path / "run", 1), tmp_path))
    with pytest.raises(ValueError, match=f"{alone.stem}.json, the manifest that belongs beside it, cannot be read"):
        checkpoints.of_file(alone)


def test_one_file_of_another_name_than_its_manifest_says_is_never_taken_for_that_one(tmp_path):
    for step in (1, 2):
        save(tmp_path, step)
    for suffix, step in ((".pt", 2), (".json", 1)):  # the file of one and the manifest of another
        shutil.copy(file_of(tmp_path, step, suffix), tmp_path / f"mine{suffix}")
    with pytest.raises(ValueError, match=r"mine\.pt"):
        checkpoints.of_file(tmp_path / "mine.pt")


def test_a_file_without_a_manifest_does_not_count(tmp_path):
    for step in (1, 2):
        save(tmp_path, step)
    file_of(tmp_path, 2, ".json").unlink()
    assert step_in(tmp_path) == 1


def test_a_folder_that_is_not_there_holds_nothing(tmp_path):
    assert newest(tmp_path / "none", "last") == (None, [])


def test_a_file_of_code_is_refused_and_not_run(tmp_path):
    class Code:
        def __reduce__(self):
            return Path.touch, (tmp_path / "was-run",)

    checkpoints.save(tmp_path, "last", {"model": Code()}, {"step": 1})
    with pytest.raises(pickle.UnpicklingError):
        checkpoints.load(tmp_path, "last")
    assert not (tmp_path / "was-run").exists()


def half_written(name, args):
    """What a function leaves that dies while it writes."""
    if name == "copyfile":
        Path(args[1]).write_bytes(Path(args[0]).read_bytes()[:700])
    elif name == "write_bytes":
        with open(args[0], "wb") as stream:
            stream.write(args[1][:40])
    elif name in ("save", "dump"):
        args[1].write(b"half" if name == "save" else '{"step": 2')
        args[1].flush()


def killed_at_each_call(monkeypatch, folder, work):
    """Work in a folder with three checkpoints, and be killed before, in or after the first call, the second, and so on.

    Yields each folder and what it died of; in the end one in which nothing died, and None.
    """
    for step in (1, 2, 3):
        save(folder / "start", step)
    calls = [(torch, "save"), (os, "fsync"), (runtime, "sha256"), (os, "replace"), (json, "dump"), (os, "remove")]
    calls += [(shutil, "copyfile"), (Path, "read_bytes"), (Path, "write_bytes"), (os, "listdir"), (builtins, "open")]
    for when in ("before", "half", "after"):
        for number in range(1000):
            here, n, killed = folder / f"{when}-{number}", [0], None
            shutil.copytree(folder / "start", here)

            def instead(name, original, *args, n=n, when=when, number=number, **kwargs):
                n[0] += 1
                if n[0] != number + 1:
                    return original(*args, **kwargs)
                if when == "half":
                    half_written(name, args)
                if when == "after":
                    with suppress(OSError):
                        result = original(*args, **kwargs)
                        if name == "open":
                            result.close()
                raise KeyboardInterrupt(f"{when} call {number}, {name}")

            with monkeypatch.context() as patch:
                for owner, name in calls:
                    wrap(patch, owner, name, instead)
                try:
                    work(here)
                except KeyboardInterrupt as error:
                    killed = str(error)
            yield here, killed
            if not killed:
                assert number > 10
                break


def test_killed_at_any_moment_of_saving_an_older_one_is_whole_and_the_next_one_works(tmp_path, monkeypatch):
    found = set()
    for folder, killed in killed_at_each_call(monkeypatch, tmp_path, lambda folder: save(folder, 4)):
        found.add(step_in(folder))
        assert 3 in steps(folder)
        save(folder, 5)
        assert step_in(folder) == 5, killed
        assert steps(folder) == steps(folder, suffix=".pt") == ([3, 4, 5] if 4 in steps(folder) else [2, 3, 5]), killed
    assert found == {3, 4}


def test_killed_at_any_moment_of_copying_an_older_one_is_whole_and_the_next_copy_works(tmp_path, monkeypatch):
    run, found = tmp_path / "run", set()
    save(run, 4)
    for drive, killed in killed_at_each_call(monkeypatch, tmp_path, lambda drive: copy(run, drive, "last")):
        found.add(step_in(drive))
        copy(run, drive, "last")
        assert step_in(drive) == 4, killed
        assert steps(drive) == steps(drive, suffix=".pt") == [2, 3, 4], killed
    assert found == {3, 4}


def test_a_copy_has_the_same_names_and_content_and_keeps_the_newest_few(tmp_path):
    run, drive = tmp_path / "run", tmp_path / "drive"
    drive.mkdir()
    for step in range(1, 6):
        save_both(run, step)
        for name in KEEP:
            copy(run, drive, name)
    assert {p.name: p.read_bytes() for p in run.iterdir()} == {p.name: p.read_bytes() for p in drive.iterdir()}
    assert steps(drive) == [3, 4, 5]


def test_what_is_removed_takes_no_space_in_the_trash(tmp_path, monkeypatch):
    sizes = []

    def remove(name, original, path):
        sizes.append(os.path.getsize(path))
        original(path)

    for step in range(1, 6):
        save(tmp_path / "run", step)
        wrap(monkeypatch, os, "remove", remove)
        (tmp_path / "drive").mkdir(exist_ok=True)
        copy(tmp_path / "run", tmp_path / "drive", "last")
        monkeypatch.undo()
    assert sizes == [0] * 4


def test_what_is_just_being_copied_arrives_though_it_is_removed_meanwhile(tmp_path, monkeypatch):
    run, drive = tmp_path / "run", tmp_path / "drive"
    drive.mkdir()
    save(run, 1)

    def copyfile(name, original, source, target):
        with open(source, "rb") as stream:
            for step in range(2, 6):
                save(run, step)
            Path(target).write_bytes(stream.read())

    wrap(monkeypatch, shutil, "copyfile", copyfile)
    copy(run, drive, "last")
    assert (step_in(drive), steps(run)) == (1, [3, 4, 5])


def test_what_cannot_be_removed_is_left_for_another_time(tmp_path, monkeypatch):
    for step in (1, 2, 3):
        save(tmp_path, step)
    with monkeypatch.context() as patch:
        patch.setattr(os, "remove", lambda path: misfortune(errno.EIO))
        save(tmp_path, 4)
        assert step_in(tmp_path) == 4
    save(tmp_path, 5)
    assert steps(tmp_path) == steps(tmp_path, suffix=".pt") == [3, 4, 5]


def test_pictures_are_copied_once_and_again_if_they_were_cut_off(tmp_path, monkeypatch):
    run, drive = tmp_path / "run", tmp_path / "drive"
    (run / "strips").mkdir(parents=True)
    drive.mkdir()
    for epoch in (1, 2, 3):
        (run / "strips" / f"{epoch}.png").write_bytes(bytes(range(100)))
    (drive / "strips").mkdir()
    (drive / "strips" / "2.png").write_bytes(b"")
    checkpoints.copy_strips(run, drive)
    assert {p.name: p.read_bytes() for p in (drive / "strips").iterdir()} == {
        f"{epoch}.png": bytes(range(100)) for epoch in (1, 2, 3)
    }
    monkeypatch.setattr(shutil, "copyfile", lambda *args: pytest.fail("copied again"))
    checkpoints.copy_strips(run, drive)


def misfortune(number):
    raise OSError(number, os.strerror(number))


class BadDrive:
    """A folder, mounted, that behaves as its `mode` says; but `with drive.truth():` shows what is really there."""

    def __init__(self, folder, patch):
        self.folder, self.mode, self.room, self.trash = folder, None, 0, 0
        self.well, self.local = threading.Event(), threading.local()
        folder.mkdir()
        for name in ("listdir", "stat", "mkdir", "remove", "replace"):
            wrap(patch, os, name, self.call)
        for owner, name in [(builtins, "open"), (shutil, "copyfile"), (Path, "read_bytes"), (Path, "write_bytes")]:
            wrap(patch, owner, name, self.call)
        ismount = os.path.ismount
        patch.setattr(os.path, "ismount", lambda path: self.mounted() if Path(path) == folder else ismount(path))

    def mounted(self):
        return self.mode not in ("not connected", "gone")

    @contextmanager
    def truth(self):
        before, self.local.honest = getattr(self.local, "honest", False), True
        try:
            yield
        finally:
            self.local.honest = before

    def turn(self, mode):
        with self.truth():
            self.listing = {str(p): os.listdir(p) for p in (self.folder, *self.folder.rglob("*")) if p.is_dir()}
            if mode == "gone":
                self.folder.rename(self.folder.with_name("elsewhere"))
                self.folder.mkdir()
        self.well.clear()
        self.mode = mode

    def recover(self):
        with self.truth():
            if self.mode == "gone":
                assert not list(self.folder.iterdir()), "something was written where the disk had been"
                self.folder.rmdir()
                self.folder.with_name("elsewhere").rename(self.folder)
        self.mode = None
        self.well.set()

    def call(self, name, original, *args, **kwargs):
        here = any(isinstance(a, str | Path) and Path(a).is_relative_to(self.folder) for a in args)
        if not here or not self.mode or getattr(self.local, "honest", False):
            return original(*args, **kwargs)
        with self.truth():  # for what a function calls in its turn
            return self.misbehave(name, original, *args, **kwargs)

    def misbehave(self, name, original, *args, **kwargs):
        writes = name == "write_bytes" or (name == "copyfile" and Path(args[1]).is_relative_to(self.folder))
        if writes:
            path, content = (args[0], args[1]) if name == "write_bytes" else (args[1], Path(args[0]).read_bytes())
        match self.mode:
            case "not connected":
                misfortune(errno.ENOTCONN)
            case "nothing can be read" if name in ("read_bytes", "open"):
                misfortune(errno.EIO)
            case "hang":
                self.well.wait(60)
            case "full" if writes:
                Path(path).write_bytes(content[:700])
                misfortune(errno.ENOSPC)
            case "no room for manifests" if writes and path.suffix == ".json":
                Path(path).write_bytes(content[:10])
                misfortune(errno.ENOSPC)
            case "files truncated" if writes:
                return Path(path).write_bytes(content[:-1])
            case "files empty" if writes:
                return Path(path).write_bytes(b"")
            case "manifests empty" if writes and path.suffix == ".json":
                return Path(path).write_bytes(b"")
            case "manifests not text" if writes and path.suffix == ".json":
                return Path(path).write_bytes(b"\xff" * len(content))
            case "a bit flipped" if writes:
                Path(path).write_bytes(content)
                return flip_a_bit(Path(path))
            case "stale listing" if name == "listdir":
                return self.listing[str(args[0])]
            case "empty listing" if name == "listdir":
                return []
            case "renaming undone" if name == "replace":
                return None
            case "nothing can be removed" if name == "remove":
                misfortune(errno.EPERM)
            case "little room":
                if writes and self.used() + len(content) > self.room:
                    Path(path).write_bytes(content[: max(0, self.room - self.used())])
                    misfortune(errno.ENOSPC)
                if name == "remove":
                    self.trash += os.path.getsize(args[0])
        return original(*args, **kwargs)

    def used(self):
        return self.trash + sum(p.stat().st_size for p in self.folder.rglob("*") if p.is_file())


FAILURES = ["not connected", "nothing can be read", "full", "no room for manifests", "files truncated", "files empty"]
FAILURES += ["manifests empty", "manifests not text", "a bit flipped"]
QUIRKS = [
    "stale listing",
    "empty listing",
    "renaming undone",
    "nothing can be removed",
]  # the copy arrives none the less


@pytest.fixture
def drive(tmp_path, monkeypatch):
    drive = BadDrive(tmp_path / "drive", monkeypatch)
    yield drive
    drive.recover()  # lets a thread go that hangs


@pytest.fixture
def run(tmp_path):
    save_both(tmp_path / "run", 1)
    return tmp_path / "run"


@pytest.mark.parametrize("mode", FAILURES)
def test_a_copy_that_does_not_arrive_is_an_error_and_the_one_before_is_whole(run, drive, mode):
    copy(run, drive.folder, "last")
    save(run, 2)
    drive.turn(mode)
    for _ in range(2):
        with pytest.raises(OSError):
            copy(run, drive.folder, "last")
        with drive.truth():
            assert step_in(drive.folder) == 1
            if mode != "nothing can be read":  # there nothing can be opened for removal either
                assert steps(drive.folder, suffix="") == [1, 1], "what did not arrive takes space"
    drive.recover()
    copy(run, drive.folder, "last")
    assert step_in(drive.folder) == 2
    assert steps(drive.folder) == steps(drive.folder, suffix=".pt") == [1, 2]


@pytest.mark.parametrize("mode", QUIRKS)
def test_a_copy_arrives_in_spite_of_a_quirk(run, drive, mode):
    copy(run, drive.folder, "last")
    drive.turn(mode)
    for step in range(2, 7):
        save(run, step)
        copy(run, drive.folder, "last")
        with drive.truth():
            assert step_in(drive.folder) == step
    drive.recover()
    save(run, 7)
    copy(run, drive.folder, "last")
    assert steps(drive.folder) == steps(drive.folder, suffix=".pt") == [5, 6, 7]


@pytest.mark.parametrize("mode", [None, "stale listing", "empty listing"])
def test_what_is_there_already_is_not_written_again(run, drive, monkeypatch, mode):
    drive.turn(mode)
    copy(run, drive.folder, "last")
    monkeypatch.setattr(shutil, "copyfile", lambda *args: pytest.fail("written again"))
    copy(run, drive.folder, "last")
    drive.recover()
    assert step_in(drive.folder) == 1


@pytest.mark.parametrize("suffix", [".pt", ".json"])
@pytest.mark.parametrize("spoil", [Path.unlink, flip_a_bit], ids=["lost", "damaged"])
def test_what_was_spoilt_since_is_written_again(run, drive, suffix, spoil):
    copy(run, drive.folder, "last")
    spoil(file_of(drive.folder, 1, suffix))
    copy(run, drive.folder, "last")
    assert step_in(drive.folder) == 1
    assert newest(run, "last") == newest(drive.folder, "last")


def test_an_old_one_that_nobody_can_read_keeps_no_new_one_away(run, drive, monkeypatch):
    copy(run, drive.folder, "last")
    file = drive.folder / newest(run, "last")[0]["file"]
    wrap(
        monkeypatch,
        runtime,
        "sha256",
        lambda name, original, path: misfortune(errno.EIO) if Path(path) == file else original(path),
    )
    save(run, 2)
    copy(run, drive.folder, "last")
    assert step_in(drive.folder) == 2


def test_a_listing_that_is_out_of_date_is_passed_over(run, drive):
    for step in (2, 3, 4):
        save(run, step)
        copy(run, drive.folder, "last")
    drive.turn("stale listing")
    with drive.truth():
        for path in (file_of(drive.folder, 4), file_of(drive.folder, 4, ".json")):
            path.unlink()
    facts, faults = newest(drive.folder, "last")
    assert facts["step"] == 3
    (fault,) = faults
    assert "last-00000004" in fault and fault.endswith("the file is missing")


@pytest.mark.parametrize("mode", ["not connected", "nothing can be read"])
def test_a_disk_that_cannot_be_read_is_not_taken_for_empty(run, drive, mode):
    copy(run, drive.folder, "last")
    drive.turn(mode)
    for look in (newest, checkpoints.load):
        with pytest.raises(OSError) as caught:
            look(drive.folder, "last")
        assert caught.value.errno in (errno.ENOTCONN, errno.EIO)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), OSError("nobody knows"), OSError()])
def test_one_that_cannot_be_read_is_passed_over_unless_none_is_left(run, monkeypatch, error):
    save(run, 2)
    bad = [file_of(run, 2)]

    def sha256(name, original, path):
        if path in bad:
            raise error
        return original(path)

    wrap(monkeypatch, runtime, "sha256", sha256)
    facts, (fault,) = newest(run, "last")
    assert facts["step"] == 1
    assert str(bad[0]) in fault and (error.strerror or repr(error)) in fault
    bad.append(file_of(run, 1))
    with pytest.raises(OSError) as caught:
        newest(run, "last")
    assert caught.value is error


def test_on_a_disk_that_undoes_renaming_an_older_one_is_whole(drive):
    save(drive.folder, 1)
    drive.turn("renaming undone")
    save(drive.folder, 2)
    assert step_in(drive.folder) == 1
    drive.recover()
    save(drive.folder, 3)
    assert step_in(drive.folder) == 3


def test_a_failed_copy_leaves_the_only_whole_one(run, drive):
    for step in (2, 3):
        copy(run, drive.folder, "last")
        save(run, step)
    copy(run, drive.folder, "last")
    for step in (2, 3):
        flip_a_bit(file_of(drive.folder, step))
    save(run, 4)
    drive.turn("full")
    with pytest.raises(OSError):
        copy(run, drive.folder, "last")
    with drive.truth():
        assert step_in(drive.folder) == 1


def test_room_for_two_of_each_is_enough(run, drive):
    for name in KEEP:
        copy(run, drive.folder, name)
    drive.room = 2 * drive.used() + 500
    drive.turn("little room")
    failed = 0
    for step in range(2, 12):
        save_both(run, step)
        for name in ("best", "last"):
            try:
                copy(run, drive.folder, name)
            except OSError:
                failed += 1
                copy(run, drive.folder, name)
            with drive.truth():
                assert step_in(drive.folder, name) == step
                assert step_in(drive.folder, "last") >= step - 1
    assert failed and not drive.trash


def test_room_that_the_other_name_takes_is_freed(run, drive):
    for step in (2, 3):
        copy(run, drive.folder, "last")
        save(run, step)
    copy(run, drive.folder, "last")
    drive.room = drive.used() + 100
    drive.turn("little room")
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        copy(run, drive.folder, "best")
    copy(run, drive.folder, "best")
    with drive.truth():
        assert (step_in(drive.folder, "best"), step_in(drive.folder)) == (1, 3)


@pytest.fixture
def mirror(run, drive, monkeypatch):
    """From `run` to a folder on `drive` that is not there yet; tries again soon."""
    for name, seconds in {"first_delay": 0.005, "last_delay": 0.02, "patience": 20.0}.items():
        monkeypatch.setattr(Mirror, name, seconds)
    mirror = Mirror(run, drive.folder / "MyDrive" / "run")
    until(lambda: mirror._disk)
    yield mirror
    drive.recover()
    if not mirror._closing.is_set():
        mirror.close()


def arrived(mirror):
    return mirror._arrived == mirror._wanted


def send(mirror):
    mirror.update()
    until(lambda: arrived(mirror))


def told(mirror):
    """The warnings of a few looks."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            mirror.tell()
    assert all(w.category is UserWarning and LOST in str(w.message) for w in caught)
    return [str(w.message) for w in caught]


def test_everything_new_arrives(mirror, run, capsys):
    (run / "strips").mkdir()
    for step in range(1, 6):
        save_both(run, step)
        (run / "strips" / f"epoch-{step}.png").write_bytes(b"picture")
        send(mirror)
        assert step_in(mirror.target, "best") == step_in(mirror.target) == step
    assert len(list((mirror.target / "strips").iterdir())) == 5
    mirror.close()
    assert not told(mirror) and not capsys.readouterr().out


def test_the_best_arrives_before_the_last(mirror, monkeypatch):
    order = []
    wrap(monkeypatch, checkpoints, "copy", lambda name, original, *args: order.append(args[2]))
    send(mirror)
    assert order == ["best", "last"]


@pytest.mark.parametrize("mode", [*FAILURES, "gone", "hang"])
def test_an_outage_is_told_once_and_caught_up(mirror, run, drive, monkeypatch, capsys, mode):
    tries = []
    wrap(monkeypatch, mirror, "_copy", lambda name, original: (tries.append(name), original()))
    send(mirror)
    for step in (2, 5):  # a second outage is told again
        drive.turn(mode)
        if mode == "hang":
            monkeypatch.setattr(Mirror, "patience", 0.05)
        begin = time.monotonic()
        save_both(run, step)
        mirror.update()
        assert time.monotonic() - begin < 5
        until(lambda: mirror._trouble or (mode == "hang" and time.monotonic() > mirror._since + 0.05))
        (warning,) = told(mirror)
        assert str(mirror.target) in warning and str(run) in warning
        tries.clear()
        for later in (step + 1, step + 2):
            save_both(run, later)
            mirror.update()
        until(lambda: mode == "hang" or len(tries) > 3)  # it is tried again and again
        assert not told(mirror) and not arrived(mirror)
        assert not capsys.readouterr().out
        if mode != "gone":
            with drive.truth():
                assert step_in(mirror.target, "best") == step_in(mirror.target) == step - 1
        monkeypatch.setattr(Mirror, "patience", 20.0)
        drive.recover()
        until(lambda: arrived(mirror))
        assert not told(mirror)
        assert capsys.readouterr().out == f"The checkpoints reach {mirror.target} again.\n"
        assert step_in(mirror.target, "best") == step_in(mirror.target) == step + 2 == step_in(run)
        send(mirror)
        save_both(run, step + 2)


@pytest.mark.parametrize("mode", QUIRKS)
def test_a_quirk_is_not_told(mirror, run, drive, mode):
    send(mirror)
    drive.turn(mode)
    for step in range(2, 7):
        save_both(run, step)
        send(mirror)
        with drive.truth():
            assert step_in(mirror.target, "best") == step_in(mirror.target) == step
    assert not told(mirror)


def test_a_second_outage_is_shown_where_python_shows_a_warning_once(mirror, drive, monkeypatch):
    clock = iter(["10:00:00", "11:00:00"])
    monkeypatch.setattr(time, "strftime", lambda form: next(clock))
    shown = 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(2):
            drive.turn("not connected")
            mirror.update()
            until(lambda: mirror._trouble)
            mirror.tell()
            drive.recover()
            until(lambda: arrived(mirror))
            mirror.tell()
            shown += 1
            assert len(caught) == shown


def test_an_error_of_any_kind_is_told_and_tried_again(mirror, run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "copy", lambda *args: {}["nonsense"])
        mirror.update()
        until(lambda: mirror._trouble)
        assert "nonsense" in told(mirror)[0]
    until(lambda: arrived(mirror))
    assert step_in(mirror.target) == 1


def test_a_disk_that_went_before_the_first_copy_is_not_written_to(mirror, drive):
    drive.turn("gone")
    mirror.update()
    until(lambda: mirror._trouble)
    assert "the disk is gone" in told(mirror)[0]
    drive.recover()
    until(lambda: arrived(mirror))
    assert step_in(mirror.target) == 1


def test_a_disk_that_comes_late_is_found(run, drive, monkeypatch):
    monkeypatch.setattr(Mirror, "first_delay", 0.005)
    drive.turn("not connected")
    mirror = Mirror(run, drive.folder / "run")
    mirror.update()
    until(lambda: mirror._trouble)
    drive.recover()
    until(lambda: arrived(mirror))
    assert step_in(mirror.target) == 1
    drive.turn("gone")
    mirror.update()
    until(lambda: mirror._trouble)
    drive.recover()
    mirror.close()


def test_slow_but_steady_is_no_outage(mirror, monkeypatch):
    monkeypatch.setattr(Mirror, "patience", 0.5)
    copies = []

    def slow():
        time.sleep(0.1)
        copies.append(None)
        if len(copies) < 8:
            mirror.update()  # there is always something new before the old has arrived

    monkeypatch.setattr(mirror, "_copy", slow)
    mirror.update()
    while len(copies) < 8:
        time.sleep(0.02)
        assert not told(mirror)


def test_it_is_tried_again_after_twice_the_time_up_to_a_limit(mirror, monkeypatch):
    waits = []
    monkeypatch.setattr(mirror._closing, "wait", lambda seconds: (waits.append(seconds), time.sleep(0.001)))
    monkeypatch.setattr(mirror, "_copy", lambda: misfortune(errno.EIO))
    mirror.update()
    until(lambda: len(waits) > 5)
    assert waits[:5] == [0.005, 0.01, 0.02, 0.02, 0.02]
    monkeypatch.setattr(mirror, "_copy", lambda: None)
    until(lambda: arrived(mirror))
    waits.clear()
    monkeypatch.setattr(mirror, "_copy", lambda: misfortune(errno.EIO))
    mirror.update()
    until(lambda: waits)
    assert waits[0] == 0.005
    monkeypatch.setattr(mirror, "_copy", lambda: None)


def test_closing_waits_for_the_newest(mirror, run, monkeypatch):
    copy_all = mirror._copy
    monkeypatch.setattr(mirror, "_copy", lambda: (time.sleep(0.1), copy_all()))
    mirror.update()
    time.sleep(0.02)
    save_both(run, 2)
    mirror.update()
    mirror.close()
    assert step_in(mirror.target, "best") == step_in(mirror.target) == 2


def test_closing_tries_once_more_at_once_and_warns_again(mirror, drive, monkeypatch):
    monkeypatch.setattr(Mirror, "last_delay", 600.0)
    drive.turn("full")
    mirror.update()
    until(lambda: mirror._trouble)
    assert len(told(mirror)) == 1
    begin = time.monotonic()
    with pytest.warns(UserWarning, match=LOST) as caught:
        mirror.close()
    assert len(caught) == 1 and os.strerror(errno.ENOSPC) in str(caught[0].message)
    assert time.monotonic() - begin < 10


def test_closing_sends_what_an_outage_kept_back(run, drive, monkeypatch, capsys):
    monkeypatch.setattr(Mirror, "first_delay", 600.0)
    mirror = Mirror(run, drive.folder / "run")
    drive.turn("full")
    mirror.update()
    until(lambda: mirror._trouble)
    assert len(told(mirror)) == 1
    drive.recover()
    mirror.close()
    assert step_in(mirror.target) == 1
    assert "again" in capsys.readouterr().out


def test_closing_does_not_wait_for_ever(mirror, drive, monkeypatch):
    monkeypatch.setattr(Mirror, "patience", 0.1)
    drive.turn("hang")
    mirror.update()
    begin = time.monotonic()
    with pytest.warns(UserWarning, match="no answer for 0 seconds"):
        mirror.close()
    assert 0.1 < time.monotonic() - begin < 10


def test_closing_ends_the_thread(run, drive):
    before = set(threading.enumerate())
    mirror = Mirror(run, drive.folder)
    (thread,) = set(threading.enumerate()) - before
    assert thread.daemon
    mirror.close()
    thread.join(10)
    assert not thread.is_alive()


def test_no_mirror_is_no_work(run):
    before = threading.active_count()
    mirror = Mirror(run, None)
    assert threading.active_count() == before
    mirror.update()
    mirror.close()
    assert not told(mirror)


def test_in_time_passes_on_results_and_errors():
    assert checkpoints.in_time(20, lambda a, b: a + b, 1, 2) == 3
    with pytest.raises(KeyError, match="what was thrown"):
        checkpoints.in_time(20, lambda: {}["what was thrown"])
    with pytest.raises(TimeoutError, match=os.strerror(errno.ETIMEDOUT)):
        checkpoints.in_time(20, misfortune, errno.ETIMEDOUT)


def test_in_time_does_not_wait_for_ever():
    end = threading.Event()
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match="no answer for 0 seconds"):
        checkpoints.in_time(0.05, end.wait)
    assert time.monotonic() - begin < 10
    end.set()
