"""Three kills of those that `benchmarks/kills.py` tries by the dozen."""

import random
import shutil

import kills
import pytest
import torch

from colorlib import checkpoints


@pytest.fixture(scope="module")
def reference(prepared, tmp_path_factory):
    """The folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("reference")
    assert kills.start(prepared, folder, workers=0)[0] is False
    return folder


@pytest.mark.parametrize(
    "point, workers, gone",
    [
        ("in a step, before the weights move", 0, False),
        ("in a checkpoint write", 2, False),
        ("in the copy to the mirror", 0, True),
    ],
)
def test_a_killed_run_ends_as_if_nothing_had_been(prepared, reference, tmp_path, point, workers, gone):
    k = random.Random(point).randint(2, kills.POINTS[point][1])
    rows = kills.kill_and_compare(prepared, tmp_path, workers, [(point, k, gone)], reference)
    assert rows.point.tolist() == [point]
    assert kills.faults(rows) == []


def test_another_end_is_seen(reference, tmp_path):
    copy = shutil.copytree(reference / "run", tmp_path / "run")
    assert kills.alike(reference / "run", copy)
    state, facts = checkpoints.load(copy, "last")
    bias = state["model"]["last.bias"]
    bias[0] = torch.nextafter(bias[0], torch.tensor(9.0))
    checkpoints.save(copy, "last", state, facts | {"step": facts["step"] + 1})
    assert not kills.alike(reference / "run", copy)
