"""A run's folder: what it tells, which run is the newest, and from where one goes on."""

import json
import os
import shutil
import threading
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from colorlib import checkpoints, models, recipes, runs, runtime
from colorlib.runs import Run, newest_run, restore

RECIPE = recipes.Recipe(name="test", source="test", model="tiny", frozen=("layers.0",), n_epochs=3)


def facts(photos="p", **changes):
    """What a manifest says of a recipe and its photos, as `fit` writes it."""
    recipe = recipes.replace(RECIPE, **changes)
    return {"recipe": asdict(recipe) | {"frozen": list(recipe.frozen)}, "data": {"fingerprint": photos}}


def saved(folder, step, name="last", val_mse=0.2, losses=(), **changes):
    """Add a checkpoint to a run's folder, made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    more = {"step": step, "epoch": 1, "val_mse": val_mse, "val_loss": val_mse}
    more["history"] = [{"val_mse": loss, "val_loss": loss} for loss in losses]
    checkpoints.save(folder, name, {"model": {}, "from": folder.name}, facts(**changes) | more)


def damage(folder, name):
    max(folder.glob(f"{name}-*.pt")).write_bytes(b"half a file")


def snapshot(folder):
    """Every file below the folder, with its content."""
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def here(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def mirror(tmp_path):
    return tmp_path / "drive" / "run"


# --- what a run tells


def test_a_folder_without_a_run_is_told(tmp_path):
    for ask in ("facts", "recipe", "history"):
        with pytest.raises(FileNotFoundError, match="holds no trained model; train at least one epoch in 02_train"):
            getattr(Run(tmp_path), ask)


def test_a_run_tells_its_best_and_its_whole_history(here):
    saved(here, 3, "best", 0.2, [0.2])
    saved(here, 7, "last", 0.3, [0.2, 0.3])
    run = Run(here)
    assert run.recipe == RECIPE  # what is a tuple there, comes from JSON as a list
    assert (run.facts["step"], run.facts["val_mse"]) == (3, 0.2)
    assert run.history.val_mse.tolist() == [0.2, 0.3]


def test_weights_of_64_bits_make_an_ordinary_model(here, tiny, monkeypatch):
    monkeypatch.setattr(runtime, "device", lambda: torch.device("cpu"))
    weights = models.build(tiny).double().state_dict()
    here.mkdir()
    checkpoints.save(here, "best", {"model": weights}, facts() | {"step": 1})
    model = Run(here).model()
    assert not model.training and {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(torch.equal(value, weights[name].to(value.dtype)) for name, value in model.state_dict().items())


# --- a run by its path


@pytest.fixture
def two(here, tiny, monkeypatch):
    """A run with two checkpoints of the best model, of steps 3 and 7, and the weights of each."""
    monkeypatch.setattr(runtime, "device", lambda: torch.device("cpu"))
    here.mkdir()
    weights = {}
    for step in (3, 7):
        weights[step] = {name: torch.full_like(v, step) for name, v in models.build(tiny).state_dict().items()}
        history = [{"val_mse": 1 / step, "val_loss": 1 / step}]
        checkpoints.save(here, "best", {"model": weights[step]}, facts() | {"step": step, "history": history})
    return weights


def file_of(folder, step):
    (file,) = folder.glob(f"best-{step:08d}-*.pt")
    return file


def has(run, weights):
    return all(torch.equal(value, weights[name]) for name, value in run.model().state_dict().items())


@pytest.mark.parametrize("kind", [Path, str])
def test_a_folder_is_opened_as_the_run_in_it(here, two, kind):
    run = runs.open_run(kind(here))
    assert run == Run(here) and run.facts["step"] == 7 and has(run, two[7])


@pytest.mark.parametrize("kind", [Path, str])
@pytest.mark.parametrize("step", [3, 7])
def test_a_weights_file_is_opened_as_that_one_alone(here, two, step, kind):
    run = runs.open_run(kind(file_of(here, step)))
    assert (run.dir, run.weights) == (here, file_of(here, step).name)
    assert run.facts["step"] == step and run.recipe == RECIPE and not run.model().training
    assert has(run, two[step]) and not has(run, two[10 - step])
    assert run.history.val_mse.tolist() == [1 / step]


def test_a_weights_file_does_without_the_rest_of_its_run_but_not_without_its_manifest(here, two, tmp_path):
    file = Path(shutil.copy(file_of(here, 3), tmp_path))
    with pytest.raises(ValueError, match="the manifest that belongs beside it, cannot be read; copy both files again"):
        assert runs.open_run(file).facts
    shutil.copy(file_of(here, 3).with_suffix(".json"), tmp_path)
    assert has(runs.open_run(file), two[3])


def test_a_damaged_weights_file_is_refused_and_not_replaced_by_another(here, two):
    damage(here, "best")
    assert runs.open_run(here).facts["step"] == 3
    with pytest.raises(ValueError, match=r"11 of .* bytes are there; copy both files again"):
        assert runs.open_run(file_of(here, 7)).facts
    assert has(runs.open_run(file_of(here, 3)), two[3])


def test_a_path_may_begin_at_home(here, two, monkeypatch):
    monkeypatch.setenv("HOME", str(here.parent))
    assert runs.open_run("~/run") == Run(here)
    assert runs.open_run(f"~/run/{file_of(here, 3).name}").facts["step"] == 3


@pytest.mark.parametrize("path", ["nowhere", "nowhere/best-00000003-abcdef01.pt"])
def test_where_there_is_neither_run_nor_weights_that_is_said(tmp_path, path):
    with pytest.raises(FileNotFoundError) as caught:
        runs.open_run(tmp_path / path)
    assert str(caught.value) == f"{tmp_path / path}: there is no run's folder and no weights file; check the path."


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_strip_shows_the_same_photos_and_leaves_the_model_as_it_is(here, tiny, prepared, dtype):
    here.mkdir()
    strip, model = runs.Strip(here, prepared.files("val"), 256), models.build(tiny).to(dtype)
    strip.save("truth")
    strip.save("epoch-00002", model)
    assert len(strip.photos) == runs.N_STRIP and list(Run(here).strips) == [2]
    sizes = {runs.Image.open(path).size for path in (Run(here).truth, Run(here).strips[2])}
    assert sizes == {(runs.N_STRIP * (64 + 4), 64)}
    assert model.training and {p.dtype for p in model.parameters()} == {dtype}


# --- the newest run


def trained(folder, age):
    """A run folder whose best checkpoint is so many seconds old."""
    saved(folder, 1, "best")
    (manifest,) = folder.glob("best-*.json")
    now = folder.stat().st_mtime
    os.utime(manifest, (now - age, now - age))


def test_newest_run_is_the_newest_whole_one(tmp_path):
    for name, age in {"a": 300, "b": 100, "c": 200}.items():
        trained(tmp_path / "runs" / name, age)
        trained(tmp_path / "mirror" / name.upper(), age)
    newest = [newest_run(tmp_path / "runs", tmp_path / "mirror").dir.name]
    for name in ("b", "c", "a"):
        damage(tmp_path / "runs" / name, "best")
        newest.append(newest_run(tmp_path / "runs", tmp_path / "mirror").dir.name)
    assert newest == ["b", "c", "a", "B"]


def test_all_runs_are_those_of_the_folder_and_then_of_its_mirror_the_newest_first(tmp_path):
    for name, age in {"a": 300, "b": 100, "c": 200}.items():
        trained(tmp_path / "runs" / name, age)
        trained(tmp_path / "mirror" / name.upper(), age - 100)
    saved(tmp_path / "runs" / "only last", 1)
    (tmp_path / "runs" / "empty").mkdir()

    def names(*args, **how):
        return [run.dir.name for run in runs.all_runs(*args, **how)]

    assert names(tmp_path / "runs") == names(str(tmp_path / "runs"), None) == ["b", "c", "a"]
    assert names(tmp_path / "runs", tmp_path / "mirror") == ["b", "c", "a", "B", "C", "A"]
    assert names(tmp_path / "nowhere", tmp_path / "mirror") == ["B", "C", "A"]
    damage(tmp_path / "runs" / "c", "best")
    assert names(tmp_path / "runs", tmp_path / "mirror") == ["b", "a", "B", "C", "A"]
    assert names(tmp_path / "nowhere") == names(tmp_path / "nowhere", tmp_path / "runs" / "empty") == []


def test_all_runs_of_comparisons_lie_one_folder_deeper(tmp_path):
    for name, age in {"one/x": 100, "one/y": 300, "two/x": 200, "alone": 50}.items():
        trained(tmp_path / name, age)
    found = [run.dir.relative_to(tmp_path).as_posix() for run in runs.all_runs(tmp_path, pattern="*/*")]
    assert found == ["one/x", "two/x", "one/y"]
    assert [run.dir.name for run in runs.all_runs(tmp_path)] == ["alone"]


def test_all_runs_are_looked_at_one_by_one(tmp_path, monkeypatch):
    for name, age in {"a": 300, "b": 100, "c": 200}.items():
        trained(tmp_path / name, age)
    looked, newest = [], checkpoints.newest
    monkeypatch.setattr(checkpoints, "newest", lambda folder, name: looked.append(folder.name) or newest(folder, name))
    found = runs.all_runs(tmp_path)
    assert next(found).dir.name == "b" and looked == ["b"]  # checking a checkpoint reads all of it
    assert [run.dir.name for run in found] == ["c", "a"] and looked == ["b", "c", "a"]


@pytest.mark.parametrize("mirror", [None, "nowhere", "empty"])
def test_newest_run_is_none_where_there_is_none(tmp_path, mirror):
    (tmp_path / "empty" / "run").mkdir(parents=True)
    assert newest_run(tmp_path / "nowhere", mirror and tmp_path / mirror) is None


# --- from where one goes on


@pytest.mark.parametrize("n", [None, "nowhere"])
def test_there_may_be_nothing_to_go_on_with(here, tmp_path, n, capsys):
    assert restore(here, n and tmp_path / n, facts()) is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("step_here", "step_there", "newer"), [(5, 3, "here"), (3, 5, "there"), (5, 5, "here"), (None, 5, "there")]
)
def test_the_newer_of_run_folder_and_mirror_counts(here, mirror, step_here, step_there, newer, capsys):
    saved(mirror, step_there, "best")
    saved(mirror, step_there)
    (mirror / "strips").mkdir()
    (mirror / "strips" / "epoch-00001.png").touch()
    here.mkdir()
    if step_here:
        saved(here, step_here, "best")
        saved(here, step_here, losses=[0.2])
    _, found = restore(here, mirror, facts())
    place = {"here": here, "there": mirror}[newer]
    assert found["step"] == max(step_there, step_here or 0) and bool(found["history"]) == (newer == "here")
    assert capsys.readouterr().out == f"run: going on after step {found['step']}, from {place}.\n"
    assert Run(here).facts["step"] == found["step"]
    assert list(Run(here).strips) == ([1] if newer == "there" else [])


@pytest.mark.parametrize(("name", "step"), [("last", 3), ("best", 5)])
def test_a_damaged_checkpoint_is_passed_over_with_a_word(here, capsys, name, step):
    for each in (3, 5):
        saved(here, each, "best")
        saved(here, each)
    damage(here, name)
    assert restore(here, None, facts())[1]["step"] == step
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"Passed over {max(here.glob(f'{name}-*.pt'))}: 11 of ") and f"after step {step}" in second


@pytest.mark.parametrize("lost", ["damaged", "gone"])
def test_the_best_comes_back_from_the_mirror_though_an_older_one_is_there(here, mirror, lost):
    for folder in (here, mirror):
        saved(folder, 3, "best", 0.2, [0.2])
        saved(folder, 6, "best", 0.1, [0.2, 0.1])
        saved(folder, 7, "last", 0.1, [0.2, 0.1])
    if lost == "damaged":
        damage(here, "best")
    for path in here.glob("best-*") if lost == "gone" else ():
        path.unlink()
    assert restore(here, mirror, facts())[1]["step"] == 7
    assert Run(here).facts["step"] == 6


# --- another run is refused


@pytest.mark.parametrize("where", ["here", "there"])
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lr": 0.5}, "lr was 0.001 and is 0.5"),
        ({"frozen": ()}, "frozen was ('layers.0',) and is ()"),
        ({"seed": 7, "ema": 0.9}, "ema was None and is 0.9, seed was 0 and is 7"),
        ({"photos": "q", "n_epochs": 9}, "other photos"),
    ],
    ids=str,
)
def test_another_run_is_refused_and_left_untouched(here, mirror, tmp_path, where, changes, told):
    place = {"here": here, "there": mirror}[where]
    saved(place, 3)
    before = snapshot(tmp_path)
    with pytest.raises(ValueError) as caught:
        restore(here, mirror, facts(**changes))
    what = "give this one another name, or delete that one."
    assert str(caught.value) == f"{place} holds another run ({told}): {what}"
    assert snapshot(tmp_path) == before


def test_a_run_from_before_a_setting_existed_counts_as_one_with_its_default(here):
    saved(here, 3)
    (manifest,) = here.glob("*.json")
    old = json.loads(manifest.read_text())
    del old["recipe"]["rebalance"], old["recipe"]["crop"]
    manifest.write_text(json.dumps(old))
    assert restore(here, None, facts())[1]["step"] == 3
    with pytest.raises(ValueError, match=r"crop was 1\.0 and is 0\.5"):
        restore(here, None, facts(crop=0.5))


@pytest.mark.parametrize(("step_here", "step_there"), [(3, 5), (5, 3)])
@pytest.mark.parametrize("other", ["here", "there"])
def test_a_run_here_and_another_in_the_mirror_are_both_left_untouched(
    here, mirror, tmp_path, step_here, step_there, other
):
    saved(here, step_here, seed=int(other == "here"))
    saved(mirror, step_there, seed=int(other == "there"))
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match="seed was 1 and is 0"):
        restore(here, mirror, facts())
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("schedule", "cycle_epochs", "free"),
    [("constant", None, True), ("cyclic", 2, True), ("cyclic", None, False), ("one-cycle", None, False)],
)
def test_a_run_may_change_its_length_unless_its_schedule_is_stretched(here, schedule, cycle_epochs, free):
    same = {"schedule": schedule, "cycle_epochs": cycle_epochs}
    saved(here, 3, **same)
    for n in (1, 9):
        if free:
            assert restore(here, None, facts(n_epochs=n, **same))[1]["step"] == 3
        else:
            with pytest.raises(ValueError, match=rf"\(n_epochs was 3 and is {n}\)"):
                restore(here, None, facts(n_epochs=n, **same))


# --- a mirror that cannot be read


@pytest.fixture(params=["error", "hangs"])
def unreadable(request, mirror, monkeypatch):
    """Makes reading the mirror fail, or take too long; what the message says of it."""
    saved(mirror, 5)
    newest, go_on = checkpoints.newest, threading.Event()

    def fail(folder, name):
        if folder == mirror and request.param == "hangs":
            go_on.wait(10)
        elif folder == mirror:
            raise OSError("Transport endpoint is not connected")
        return newest(folder, name)

    monkeypatch.setattr(checkpoints, "newest", fail)
    monkeypatch.setattr(checkpoints.Mirror, "patience", 0.05)
    yield {"error": "Transport endpoint is not connected", "hangs": "no answer for 0 seconds"}[request.param]
    go_on.set()


def test_an_unreadable_mirror_is_an_error_if_nothing_is_here(here, mirror, unreadable):
    with pytest.raises(OSError) as caught:
        restore(here, mirror, facts())
    assert str(caught.value).startswith(f"{mirror}: cannot be read ({unreadable}), so that nobody knows whether it")
    assert "Mount it again" in str(caught.value) and not here.exists()


def test_an_unreadable_mirror_is_a_warning_if_there_is_something_here(here, mirror, unreadable):
    saved(here, 3)
    with pytest.warns(UserWarning) as caught:
        assert restore(here, mirror, facts())[1]["step"] == 3
    (warning,) = caught
    assert str(warning.message) == f"{mirror}: cannot be read ({unreadable}); going on from {here}."


def test_a_mirror_that_breaks_while_it_is_copied_leaves_nothing_that_counts(here, mirror, monkeypatch):
    saved(mirror, 5)
    here.mkdir()
    before, copyfile = snapshot(mirror), shutil.copyfile

    def half(source, target):
        copyfile(source, target)
        os.truncate(target, 10)

    monkeypatch.setattr(shutil, "copyfile", half)
    with pytest.raises(OSError, match=r"10 of .* bytes are there"):
        restore(here, mirror, facts())
    assert snapshot(mirror) == before and checkpoints.newest(here, "last")[0] is None


def test_facts_are_as_json_gives_them_back():
    assert json.loads(json.dumps(facts())) == facts()  # else the tests above would compare other things than fit does
