"""Save and restore so that a killed machine never leaves half a checkpoint that counts.

A checkpoint is a file of tensors and, written after it, a manifest with the file's SHA-256. The manifest
is replaced in one step, so that it names either the old file or the new one, and both are whole.
"""

import json
import os
import shutil
import warnings
from pathlib import Path

import torch

from colorlib import runtime


def save(folder, name, state, facts):
    """Write `state` as the checkpoint `name` of a folder, in place of the one before it.

    Args:
        folder: where; must exist.
        name: "last" or "best".
        state: tensors and plain values, nested.
        facts: what the manifest says besides: JSON values; "epoch" is required.
    """
    file = Path(folder) / f"{name}-{facts['epoch']:05d}.pt"
    partial = file.with_name(file.name + ".partial")
    with open(partial, "wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    digest = runtime.sha256(partial)
    os.replace(partial, file)
    _commit(Path(folder), name, {**facts, "file": file.name, "sha256": digest})


def manifest(folder, name):
    """The manifest of the checkpoint `name`, or None if the folder has none whose file is whole."""
    try:
        facts = json.loads((Path(folder) / f"{name}.json").read_text())
        return facts if runtime.sha256(Path(folder) / facts["file"]) == facts["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def load(folder, name):
    """The `(state, facts)` of a checkpoint, on the CPU. Never runs code that the file contains.

    Raises:
        FileNotFoundError: if there is none whose hash is right.
    """
    facts = manifest(folder, name)
    if facts is None:
        raise FileNotFoundError(f"{folder}: holds no whole checkpoint {name!r}; train first, or choose another run.")
    return torch.load(Path(folder) / facts["file"], map_location="cpu", weights_only=True), facts


def copy(source, target, name):
    """Copy the checkpoint `name` to another folder, on Drive say. Returns whether it arrived whole.

    Training must not die of a Drive that is full or gone: what goes wrong is said as a warning.
    """
    facts = manifest(source, name)
    if facts is None:
        return False
    if manifest(target, name) == facts:
        return True
    file = Path(target) / facts["file"]
    try:
        Path(target).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(source) / facts["file"], file)
        if runtime.sha256(file) != facts["sha256"]:
            raise OSError("what was read back is not what was written")
        _commit(Path(target), name, facts)
    except OSError as error:
        warnings.warn(f"{target}: the checkpoint could not be copied there ({error}); going on.", stacklevel=2)
        return False
    return True


def _commit(folder, name, facts):
    partial = folder / f"{name}.json.partial"
    partial.write_text(json.dumps(facts, indent=1))
    os.replace(partial, folder / f"{name}.json")
    for old in folder.glob(f"{name}-*.pt"):
        if old.name != facts["file"]:
            # Emptied before it is deleted: on Drive a deleted file goes on taking space in the trash.
            old.write_bytes(b"")
            old.unlink()
