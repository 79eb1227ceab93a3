"""Save and restore so that neither a killed machine nor a bad Drive leaves half a checkpoint that counts.

A checkpoint is a file of tensors, `NAME-STEP-HASH.pt`, and beside it, written last, a manifest of the same
name in JSON with the file's size and SHA-256. No whole file is ever written again, so that what dies while writing
spoils nothing that was there before; and a file without a manifest that fits it does not count.
"""

import errno
import json
import math
import os
import shutil
import threading
import time
import warnings
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import torch

from colorlib import runtime

KEEP = {"last": 3, "best": 2}  # how many of each are kept: if the newest one is damaged, the one before serves


def save(folder, name, state, facts):
    """Write a checkpoint and remove those that it makes superfluous.

    Args:
        folder: where; must exist.
        name: "last" or "best".
        state: tensors and plain values, nested.
        facts: what the manifest says besides: JSON values; "step" is required.

    Raises:
        OSError: if the disk is full or does not take it; says what to do.
    """
    folder = Path(folder)
    partial = folder / f"{name}.partial"
    try:
        with _synced(partial, "wb") as stream:
            torch.save(state, stream)
        digest = runtime.sha256(partial)
        file = folder / f"{name}-{facts['step']:08d}-{digest[:8]}.pt"
        facts = {**facts, "file": file.name, "bytes": partial.stat().st_size, "sha256": digest}
        os.replace(partial, file)
        with _synced(partial, "w") as stream:
            json.dump(facts, stream, indent=1)
        os.replace(partial, file.with_suffix(".json"))
    except (OSError, RuntimeError) as error:  # torch.save makes a RuntimeError of a full disk
        _remove(partial)
        raise OSError(
            f"{folder}: a checkpoint could not be written ({error}). What was saved before still counts: "
            "make room there and start again."
        ) from error
    _prune(folder, name, file.name, KEEP[name], empty=False)


@contextmanager
def _synced(path, mode):
    with open(path, mode) as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


def newest(folder, name):
    """The manifest of the newest whole checkpoint, and why newer ones were passed over.

    Returns:
        `(facts, faults)`: the manifest, or None if the folder has none that is whole; and a list of sentences.

    Raises:
        OSError: if the folder, or all that could count in it, is there and cannot be read.
    """
    faults, unreadable = [], None
    for path in _manifests(folder, name):
        try:
            facts = json.loads(path.read_bytes())
            fault = _fault(path.parent, facts)
            if not fault:
                return facts, faults
        except (ValueError, KeyError, TypeError):
            fault = "its manifest cannot be read"
        except FileNotFoundError:  # removed meanwhile, or a listing that is out of date
            fault = "the file is missing"
        except OSError as error:
            fault, unreadable = error.strerror or repr(error), error
        faults.append(f"{path.with_suffix('.pt')}: {fault}")
    if unreadable:
        raise unreadable
    return None, faults


def _manifests(folder, name):
    """The manifests of a name, the newest first."""
    try:
        found = [entry for entry in os.listdir(folder) if entry.startswith(f"{name}-") and entry.endswith(".json")]
    except FileNotFoundError:
        return []
    return [Path(folder, entry) for entry in sorted(found, reverse=True)]


def _fault(folder, facts):
    """Why a checkpoint does not count, or ""."""
    file = Path(folder) / facts["file"]
    size = file.stat().st_size
    if size != facts["bytes"]:
        return f"{size:,} of {facts['bytes']:,} bytes are there"
    return "" if runtime.sha256(file) == facts["sha256"] else "its content is not what was written"


def load(folder, name):
    """The `(state, facts)` of the newest whole checkpoint, on the CPU. Never runs code that a file contains.

    Raises:
        FileNotFoundError: if there is none.
    """
    facts, faults = newest(folder, name)
    if facts is None:
        why = f" ({'; '.join(faults)})" if faults else ""
        raise FileNotFoundError(
            f"{folder}: holds no whole checkpoint {name!r}{why}; train first, or choose another run."
        )
    return state(folder, facts), facts


def state(folder, facts):
    """The tensors that belong to a manifest, on the CPU."""
    return torch.load(Path(folder) / facts["file"], map_location="cpu", weights_only=True)


def of_file(path):
    """The manifest of one checkpoint's file, which lies beside it.

    Raises:
        ValueError: if it is missing, or the file is not what it says.
    """
    try:
        facts = json.loads(path.with_suffix(".json").read_bytes())
        fault = _fault(path.parent, {**facts, "file": path.name})
        facts["file"] = path.name  # which may have been renamed together with its manifest
    except (OSError, ValueError, KeyError, TypeError):
        fault = f"{path.with_suffix('.json').name}, the manifest that belongs beside it, cannot be read"
    if fault:
        raise ValueError(f"{path}: {fault}; copy both files again.")
    return facts


def copy(source, target, name):
    """Copy the newest checkpoint of a name to another folder, under the same name, the manifest last.

    Raises:
        OSError: if it did not arrive whole; what was there before is still there.
    """
    facts, _ = newest(source, name)
    if facts is None:
        return
    file = Path(target, facts["file"])
    manifest, content = file.with_suffix(".json"), json.dumps(facts, indent=1).encode()
    try:  # not from a listing, which may be out of date, nor by way of others, which nobody may be able to read
        there = manifest.read_bytes() == content and not _fault(target, facts)
    except OSError:
        there = False
    if not there:
        try:
            shutil.copyfile(Path(source, facts["file"]), file)
            fault = _fault(target, facts)
            if not fault:
                manifest.write_bytes(content)  # under its final name: on Drive a renaming may be undone
                fault = "" if manifest.read_bytes() == content else "its manifest is not what was written"
            if fault:
                raise OSError(f"{file.name}: {fault}")
        except OSError as error:
            for path in (manifest, file):
                _remove(path)
            for each in KEEP if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO) else ():  # make room
                whole, _ = newest(target, each)
                if whole:
                    _prune(target, each, whole["file"], keep=1)
            raise
    _prune(target, name, facts["file"], KEEP[name])


def copy_strips(source, target):
    """Copy the pictures of the training's progress that are not there yet."""
    for path in sorted(Path(source).glob("strips/*.png")):
        there = Path(target, "strips", path.name)
        if not there.exists() or there.stat().st_size < path.stat().st_size:  # an earlier copy may be cut off
            there.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, there)


def _prune(folder, name, file, keep, empty=True):
    """Of the checkpoints older than `file`, which is whole, remove all but the newest `keep - 1`.

    Another one of the same step is removed too: which of the two is newer, their names do not tell.
    """
    whole = Path(file).stem
    step = whole.rpartition("-")[0]
    found = [Path(folder, entry) for entry in os.listdir(folder) if entry.startswith(f"{name}-")]
    older = sorted((path.stem for path in found if path.suffix == ".json" and path.stem < step), reverse=True)
    for path in found:
        if path.stem[: len(step)] <= step and path.stem not in [whole, *older[: keep - 1]]:
            _remove(path, empty)


def in_time(seconds, function, *args):
    """What a function returns that reads from a disk which may hang; a TimeoutError if it takes longer."""
    future = Future()

    def call():
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"no answer for {seconds:.0f} seconds") from None


def _remove(path, empty=True):
    try:
        if empty:  # on Drive a deleted file goes on taking its space, in the trash; here it may just be being copied
            os.truncate(path, 0)
        os.remove(path)
    except OSError:  # gone already, or for another time
        pass


class Mirror:
    """Keeps a copy of a run's folder on another disk, Drive say, from a thread of its own.

    Whatever that disk does, the training goes on: what goes wrong is said once, as a warning, and tried again
    after a while; when the disk is back, the newest checkpoints are sent after.

    Args:
        source: the run's folder.
        target: where to copy to; None for nowhere.
    """

    first_delay, last_delay = 10.0, 600.0  # seconds before trying again; doubled each time
    patience = 120.0  # seconds after which a disk that does not answer is said to hang

    def __init__(self, source, target):
        self.source, self.target = Path(source), target and Path(target)
        self._wanted = self._arrived = 0  # how often something new was to be copied, and how much of that is there
        self._since, self._trouble, self._told, self._gave_up, self._disk = 0.0, "", False, False, None
        self._due, self._closing = threading.Event(), threading.Event()
        if self.target:
            threading.Thread(target=self._work, daemon=True).start()  # a thread that hangs must not keep us alive

    def update(self):
        """Say that there is something new to copy; returns at once."""
        if self.target:
            if self._arrived == self._wanted:
                self._since = time.monotonic()
            self._wanted += 1
            self._due.set()

    def tell(self):
        """Warn if something is wrong with the mirror, once; and say when it is over."""
        trouble = self._trouble
        if not trouble and self._arrived < self._wanted and time.monotonic() - self._since > self.patience:
            trouble = f"no answer for {self.patience:.0f} seconds"
        if trouble and not self._told:
            now = time.strftime("%H:%M:%S")  # a warning that says nothing new is not shown a second time
            warnings.warn(
                f"CHECKPOINTS DO NOT REACH {self.target} at {now} ({trouble}). Training goes on and saves in "
                f"{self.source}; the copy is tried again. If this is Drive, look whether it is full or has to be "
                "mounted again.",
                stacklevel=2,
            )
            self._told = True
        elif self._told and self._arrived == self._wanted:
            print(f"The checkpoints reach {self.target} again.")
            self._told = False

    def close(self):
        """Wait, but not for ever, until the newest checkpoints have arrived; warn again if they have not."""
        self._closing.set()  # from now on one more try, without waiting before it
        self._due.set()
        end = time.monotonic() + self.patience
        while self._arrived < self._wanted and not self._gave_up and time.monotonic() < end:
            time.sleep(0.02)
        if self._arrived < self._wanted:
            self._told, self._since = False, -math.inf
        self.tell()

    def _work(self):
        delay = self.first_delay
        self._find_disk()  # now, before it can have gone
        while not self._gave_up:
            self._due.wait()
            self._due.clear()
            last_try, wanted = self._closing.is_set(), self._wanted
            try:
                if self._arrived < wanted:
                    self._copy()
            except Exception as error:  # whatever it is, a thread that died would not try again
                self._trouble = str(error) or repr(error)
                self._gave_up = last_try
                self._closing.wait(delay)
                delay = min(2 * delay, self.last_delay)
                self._due.set()
            else:
                self._since, delay = time.monotonic(), self.first_delay  # slow is not dead
                self._trouble, self._arrived = "", wanted  # in this order: `tell` may look in between
                if last_try:
                    return

    def _copy(self):
        self._find_disk()
        self.target.mkdir(parents=True, exist_ok=True)
        for name in ("best", "last"):  # in this order: a last without the best before it would be half a run
            copy(self.source, self.target, name)
        copy_strips(self.source, self.target)

    def _find_disk(self):
        """Note where the target's disk is mounted. Raise an OSError if it was and is no more.

        A folder made in its place would keep it from coming back. (A disk's number would not do to know it by:
        mounted again, it can have another.)
        """
        place = Path(os.path.realpath(self.target))
        disk = next(path for path in (place, *place.parents) if os.path.ismount(path))
        if self._disk and disk in self._disk.parents:
            raise OSError("the disk is gone")
        self._disk = disk
