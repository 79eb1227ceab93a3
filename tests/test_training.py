"""fit(): it learns, it survives whatever stops it, and it says in one sentence what is wrong."""

import os
import random
import shutil
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch

from colorlib import checkpoints, data, evaluation, models, recipes, runtime, training
from colorlib.data import Photos, Prepared
from colorlib.training import Run, fit, newest_run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setattr(runtime, "device", lambda: torch.device("cpu"))  # bit for bit is promised there only


@pytest.fixture(autouse=True)
def with_tiny(tiny):
    """Every test may use the model "tiny"."""


def recipe(**changes):
    """Three epochs of three batches, with everything switched on that depends on chance."""
    settings = dict(size=16, resize="crop", batch_size=3, lr=1e-2, n_epochs=3, subset=0.6, phase_epochs=2)
    names = dict(name="test", source="test", model="tiny", encoder_weights="none")
    return recipes.Recipe(**{**names, **settings, **changes})


def result(run_dir):
    """Everything that two equal runs have in common: weights, best weights, optimizer and history."""
    (last, facts), (best, best_facts) = (checkpoints.load(run_dir, name) for name in ("last", "best"))
    for row in last["history"]:
        del row["seconds"]
    said = [{k: v for k, v in f.items() if k not in ("recipe", "sha256")} for f in (facts, best_facts)]
    return last, best, said


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def snapshot(*folders):
    """Every file below the folders, with its content."""
    return {p: p.read_bytes() for folder in folders for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def whole(tiny, prepared, tmp_path_factory):
    """A run of three epochs that nothing interrupted."""
    return fit(recipe(), prepared, tmp_path_factory.mktemp("whole") / "run")


def scripted(monkeypatch, losses):
    """Make the validation loss of each epoch what the test wants it to be."""
    real, losses = evaluation.evaluate, iter(losses)
    monkeypatch.setattr(evaluation, "evaluate", lambda *args: real(*args).assign(mse=next(losses)))


# --- it learns


def test_the_loss_falls(whole):
    history = whole.history
    assert history.columns.tolist() == ["epoch", "train_mse", "val_mse", "seconds"]
    assert history.epoch.tolist() == [1, 2, 3]
    assert history.train_mse.is_monotonic_decreasing
    assert history.train_mse.iloc[-1] < 0.7 * history.train_mse.iloc[0]
    assert (history.seconds > 0).all()


def test_losses_are_means_over_photos_however_uneven_the_batches(prepared, tmp_path, monkeypatch):
    class Grey(models.MODELS["tiny"]):
        def forward(self, L):
            return 0 * super().forward(L)

    monkeypatch.setitem(models.MODELS, "grey", Grey)
    run = fit(recipe(model="grey", batch_size=4, subset=1.0, n_epochs=1), prepared, tmp_path / "run")
    for split in ("train", "val"):
        floor = evaluation.evaluate(run.model(), Photos(prepared.files(split), 16, "crop"), [0, 0]).grey.mean()
        assert run.history[f"{split}_mse"].tolist() == [pytest.approx(floor, rel=1e-5)]
    assert run.facts["floors"]["grey"] == pytest.approx(run.facts["val_mse"], rel=1e-6)


class FourPhotos(Prepared):
    """Twenty-five batches of the same four photos, which are those of the validation too."""

    def files(self, split):
        return super().files("train")[::4][:4] * (25 if split == "train" else 1)


def test_the_published_network_learns_four_photos_by_heart(prepared, tmp_path):
    by_heart = recipe(model="resnet34", size=32, batch_size=4, lr=1e-3, n_epochs=3, subset=1.0, flip=False)
    run = fit(by_heart, FourPhotos(prepared.folder), tmp_path / "run")
    assert run.facts["val_mse"] < run.facts["floors"]["grey"] / 3
    assert run.facts["val_mse"] < run.facts["floors"]["oracle"]


def test_optimizer_is_adam_at_the_recipes_rate(whole):
    (group,) = checkpoints.load(whole.dir, "last")[0]["optimizer"]["param_groups"]
    assert (group["lr"], tuple(group["betas"]), group["weight_decay"]) == (1e-2, (0.9, 0.999), 0)


def test_a_run_tells_what_it_is_and_its_model_is_the_best_one(whole, prepared):
    assert whole.recipe == recipe()
    assert whole.facts["data"]["fingerprint"] == prepared.fingerprint
    np.testing.assert_allclose(whole.facts["train_mean"], data.mean_ab(prepared.files("train")))
    assert list(whole.strips) == [0, 1, 2, 3]
    model = whole.model()
    assert not model.training
    rows = evaluation.evaluate(model, Photos(prepared.files("val"), 16, "crop"), whole.facts["train_mean"])
    assert rows.mse.mean() == pytest.approx(whole.facts["val_mse"], rel=1e-5)
    for part in ("test", "best after epoch", f"{whole.facts['val_mse']:.5f}", "none, by choice"):
        assert part in str(whole)


def test_a_folder_without_a_run_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no trained model; run 02_train first"):
        _ = Run(tmp_path).facts


@pytest.mark.parametrize(
    "changes",
    [{"flip": False}, {"seed": 1}, {"subset": 1.0}, {"resize": "squash"}, {"size": 24}, {"lr": 0.02}],
    ids=str,
)
def test_settings_change_the_weights(whole, prepared, tmp_path, changes):
    fit(recipe(**changes), prepared, tmp_path / "run")
    assert not same(result(tmp_path / "run")[0]["model"], result(whole.dir)[0]["model"])


def test_the_subset_is_drawn_anew_every_phase(prepared, tmp_path, monkeypatch):
    used = []

    def spy(chosen, *args, **kwargs):
        used.append(data.batches(chosen, *args, **kwargs))
        return used[-1]

    monkeypatch.setattr(training, "batches", spy)
    fit(recipe(subset=0.4, phase_epochs=2, n_epochs=4), prepared, tmp_path / "run")
    orders = [[index for batch in epoch for _, index in batch] for epoch in used]
    first, second, third, fourth = map(set, orders)
    assert all(len(order) == len(set(order)) == 6 for order in orders)  # 40 % of 15
    assert first == second != third == fourth
    assert orders[0] != orders[1]  # the same photos, in another order


# --- best, last, and when to stop


@pytest.mark.parametrize(
    ("losses", "patience", "best", "last"),
    [
        ([3, 2, 4, 2], None, 2, 4),  # to be as good again is no improvement
        ([3, 2, 4, 5, 1], 2, 2, 4),
        ([3, 2, 2, 2, 1], 2, 2, 4),
        ([3, 2, 4, 1, 5], 2, 4, 5),
        ([5, 4, 3, 2], 1, 4, 4),
    ],
)
def test_best_is_the_minimum_and_patience_ends_the_run(prepared, tmp_path, monkeypatch, losses, patience, best, last):
    scripted(monkeypatch, losses)
    settings = recipe(n_epochs=len(losses), patience=patience)
    run = fit(settings, prepared, tmp_path / "run")
    assert run.facts["epoch"] == best
    assert run.facts["val_mse"] == run.history.val_mse.min() == losses[best - 1]
    assert run.history.val_mse.tolist() == losses[:last]
    before = snapshot(run.dir)
    fit(settings, prepared, run.dir)  # what stopped stays stopped
    assert snapshot(run.dir) == before


def test_a_finished_run_is_not_trained_further(whole, prepared, monkeypatch, capsys):
    before = snapshot(whole.dir)
    monkeypatch.setattr(training, "batches", lambda *args, **kwargs: pytest.fail("trained"))
    assert fit(recipe(), prepared, whole.dir).history.equals(whole.history)
    assert fit(recipe(n_epochs=1), prepared, whole.dir).history.equals(whole.history)
    assert snapshot(whole.dir) == before
    assert capsys.readouterr().out.count(f"{whole.dir.name}: finished after epoch 3.") == 2


# --- it survives


def when_saving(name, function):
    """A function of `checkpoints`, but killed when it gets to the checkpoint `name` of the second epoch."""

    def killed(folder, checkpoint, *args):
        if args[-1]["epoch"] == 2 and checkpoint == name:
            raise KeyboardInterrupt
        return function(folder, checkpoint, *args)

    return killed


def in_the_middle_of(epoch):
    """`Photos.__getitem__`, but killed in the second batch of training photos of an epoch."""
    read, seen = Photos.__getitem__, []

    def killed(self, key):
        if self.flip and key[0] == epoch - 1:  # only training photos are flipped
            seen.append(key)
            if len(seen) == 5:
                raise KeyboardInterrupt
        return read(self, key)

    return killed


KILLS = {
    "in the first epoch": lambda: (Photos, "__getitem__", in_the_middle_of(1)),
    "in the second epoch": lambda: (Photos, "__getitem__", in_the_middle_of(2)),
    "before saving best": lambda: (checkpoints, "save", when_saving("best", checkpoints.save)),
    "between best and last": lambda: (checkpoints, "save", when_saving("last", checkpoints.save)),
    "between file and manifest": lambda: (checkpoints, "_commit", when_saving("last", checkpoints._commit)),
}


@pytest.mark.parametrize("kill", KILLS)
def test_killed_and_started_again_it_ends_with_the_same_weights(whole, prepared, tmp_path, monkeypatch, kill):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(*KILLS[kill]())
        fit(recipe(), prepared, tmp_path / "run")
    run = fit(recipe(), prepared, tmp_path / "run")
    assert same(result(run.dir), result(whole.dir))
    assert list(run.strips) == [0, 1, 2, 3]


@pytest.mark.parametrize("n", [1, 2])
def test_made_longer_it_ends_with_the_same_weights(whole, prepared, tmp_path, n, capsys):
    fit(recipe(n_epochs=n), prepared, tmp_path / "run")
    run = fit(recipe(), prepared, tmp_path / "run")
    assert f"run: resuming after epoch {n}." in capsys.readouterr().out
    assert same(result(run.dir), result(whole.dir))
    columns = ["epoch", "train_mse", "val_mse"]
    pd.testing.assert_frame_equal(run.history[columns], whole.history[columns], check_exact=True)
    assert run.recipe.n_epochs == 3


def test_several_threads_end_with_the_same_weights_too(prepared, tmp_path):
    torch.set_num_threads(2)  # the other tests have one
    once = fit(recipe(n_epochs=2), prepared, tmp_path / "once")
    for n in (1, 2):
        twice = fit(recipe(n_epochs=n), prepared, tmp_path / "twice")
    torch.set_num_threads(1)
    assert same(result(twice.dir), result(once.dir))


LOSSES = {
    "machine gone": shutil.rmtree,
    "last damaged": lambda run_dir: next(run_dir.glob("last-*.pt")).write_bytes(b"half a file"),
    "best damaged": lambda run_dir: next(run_dir.glob("best-*.pt")).write_bytes(b""),
    "manifest gone": lambda run_dir: (run_dir / "last.json").unlink(),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("n", [2, 3])
def test_what_is_lost_here_comes_back_from_the_mirror(whole, prepared, tmp_path, loss, n):
    run_dir, mirror = tmp_path / "run", tmp_path / "drive" / "run"
    fit(recipe(n_epochs=n), prepared, run_dir, mirror)
    LOSSES[loss](run_dir)
    run = fit(recipe(), prepared, run_dir, mirror)
    assert same(result(run_dir), result(whole.dir))
    assert same(result(mirror), result(whole.dir))
    assert len(run.history) == 3  # of a run that was finished before, too
    assert run.truth.is_file()


def test_the_newer_of_run_folder_and_mirror_counts(whole, prepared, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    fit(recipe(n_epochs=1), prepared, old)
    fit(recipe(n_epochs=2), prepared, new)
    shutil.copytree(old, tmp_path / "run")
    assert len(fit(recipe(n_epochs=2), prepared, tmp_path / "run", new).history) == 2  # the mirror's
    fit(recipe(n_epochs=2), prepared, new, old)  # the run folder's, and the mirror catches up
    assert checkpoints.manifest(old, "last")["epoch"] == 2


def test_a_mirror_that_cannot_be_written_is_a_warning_and_catches_up_later(whole, prepared, tmp_path, blocked):
    run_dir = tmp_path / "run"
    with pytest.warns(UserWarning, match="could not be copied there"):
        fit(recipe(), prepared, run_dir, blocked)
    assert same(result(run_dir), result(whole.dir))
    blocked.parent.unlink()
    fit(recipe(), prepared, run_dir, blocked)
    assert same(result(blocked), result(whole.dir))


def test_a_best_that_did_not_reach_the_mirror_is_sent_after(prepared, tmp_path, monkeypatch):
    scripted(monkeypatch, [0.3, 0.1, 0.2])
    mirror, copyfile = tmp_path / "drive", shutil.copyfile
    fit(recipe(n_epochs=1), prepared, tmp_path / "run", mirror)

    def flaky(source, target):
        if source.name.startswith("best-00002") and not target.exists():
            target.touch()
            raise OSError("Drive is away")
        return copyfile(source, target)

    monkeypatch.setattr(shutil, "copyfile", flaky)
    with pytest.warns(UserWarning, match="Drive is away"):
        fit(recipe(), prepared, tmp_path / "run", mirror)
    assert checkpoints.manifest(mirror, "best")["epoch"] == 2


def test_a_mirror_that_cannot_be_read_is_not_overwritten(prepared, tmp_path, monkeypatch):
    mirror = tmp_path / "drive"
    fit(recipe(n_epochs=2), prepared, tmp_path / "run", mirror)
    before = snapshot(mirror)

    def fail(source, target):
        raise OSError("Drive is away")

    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.warns(UserWarning), pytest.raises(OSError, match="newer checkpoint could not be copied"):
        fit(recipe(), prepared, tmp_path / "next machine", mirror)
    assert snapshot(mirror) == before


def test_the_callers_random_streams_are_left_alone(prepared, tmp_path):
    def states():
        return torch.random.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()

    torch.manual_seed(12345)  # a state that no run leaves behind
    before = states()
    for n in (1, 2, 2):  # fresh, resumed and finished
        fit(recipe(n_epochs=n), prepared, tmp_path / "run")
        assert states() == before


# --- it says what is wrong


class WithoutValidation(Prepared):
    def files(self, split):
        return super().files(split) if split == "train" else []


@pytest.fixture(scope="module")
def other_photos(photo_folder, tmp_path_factory):
    return data.prepare(photo_folder / "train", tmp_path_factory.mktemp("other"), keep_grey=True)


@pytest.mark.parametrize("where", ["run", "mirror"])
@pytest.mark.parametrize("changes", [{"lr": 0.5}, {"seed": 7, "flip": False}, "photos"], ids=str)
def test_another_run_is_refused_and_left_untouched(whole, prepared, other_photos, where, changes, tmp_path):
    shutil.copytree(whole.dir, tmp_path / where)
    before = snapshot(tmp_path)
    now, photos = (recipe(n_epochs=9), other_photos) if changes == "photos" else (recipe(**changes), prepared)
    with pytest.raises(ValueError, match="holds another run") as caught:
        fit(now, photos, tmp_path / "run", tmp_path / "mirror")
    assert str(tmp_path / where) in str(caught.value)
    for key in () if changes == "photos" else changes:
        assert f"{key} was {asdict(recipe())[key]!r} and is {changes[key]!r}" in str(caught.value)
    assert ("other photos" in str(caught.value)) == (changes == "photos")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("where", ["run", "mirror"])
def test_a_run_here_and_another_one_in_the_mirror_are_both_left_untouched(whole, prepared, tmp_path, where):
    # The refused one is once the shorter and once the longer of the two.
    fit(recipe(seed=1, n_epochs=1), prepared, tmp_path / where)
    shutil.copytree(whole.dir, tmp_path / {"run": "mirror", "mirror": "run"}[where])
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=f"{where} holds another run"):
        fit(recipe(n_epochs=5), prepared, tmp_path / "run", tmp_path / "mirror")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"batch_size": 10}, Prepared, r"^the batch size 10 is larger than the 9 training photos .* batch_size=9 or"),
        ({}, WithoutValidation, r"has no validation photos: .* \(val=0\.1\)\.$"),
        ({"model": "resnet99"}, Prepared, r"^there is no model 'resnet99'"),
    ],
    ids=["batch size", "no validation", "model"],
)
def test_what_cannot_be_trained_is_told_in_one_sentence(prepared, tmp_path, changes, kind, message):
    with pytest.raises(ValueError, match=message) as caught:
        fit(recipe(**changes), kind(prepared.folder), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not snapshot(tmp_path)


def test_a_run_folder_that_cannot_be_written_is_told_in_one_sentence(prepared, blocked):
    with pytest.raises(PermissionError, match=r"cannot be written to .* set COLORLIB_RUNS to one\.$") as caught:
        fit(recipe(), prepared, blocked)
    assert str(caught.value).startswith(f"{blocked}: ")


@pytest.mark.parametrize("batch_size", [3, 9], ids=["training loss", "only validation tells"])
def test_a_loss_that_is_no_number_ends_the_run(prepared, tmp_path, batch_size):
    with pytest.raises(FloatingPointError, match=r"not a number in epoch 1; .* smaller rate than 1e\+37"):
        fit(recipe(lr=1e37, batch_size=batch_size), prepared, tmp_path / "run")
    assert checkpoints.manifest(tmp_path / "run", "last") is None


def test_the_checkpoint_before_the_loss_broke_is_kept(prepared, tmp_path, monkeypatch):
    scripted(monkeypatch, [0.3, float("nan")])
    with pytest.raises(FloatingPointError, match="in epoch 2"):
        fit(recipe(), prepared, tmp_path / "run")
    assert len(Run(tmp_path / "run").history) == 1


# --- starting weights


@pytest.mark.parametrize(
    ("asked", "found", "label", "first"),
    [
        ("none", True, "none, by choice", None),
        ("imagenet", True, "ImageNet", None),
        ("imagenet", False, "none, ImageNet's could not be fetched", None),
        ("my.pth", True, "from my.pth", "my.pth"),
    ],
)
def test_starting_weights_are_loaded_and_told(prepared, tmp_path, monkeypatch, asked, found, label, first):
    calls, loaded = [], []

    def imagenet_state(*args, **kwargs):
        calls.append((args, kwargs))
        return {} if found else None

    monkeypatch.setattr(models, "imagenet_state", imagenet_state)
    monkeypatch.setattr(models.MODELS["tiny"], "load_imagenet", lambda self, state: loaded.append(state), raising=False)
    run = fit(recipe(encoder_weights=asked, n_epochs=1), prepared, tmp_path / "run", tmp_path / "drive" / "run")
    assert run.facts["encoder_weights"] == label
    assert calls == ([] if asked == "none" else [(("tiny", first), {"cache": tmp_path / "drive" / "weights"})])
    assert len(loaded) == (found and asked != "none")


@pytest.mark.parametrize("content", ["garbage", "other weights"])
def test_a_file_without_the_right_weights_is_named(prepared, tmp_path, content):
    file = tmp_path / "mine.pth"
    if content == "garbage":
        file.write_bytes(b"no weights")
    else:
        torch.save({"conv1.weight": torch.zeros(1, 1)}, file)
    with pytest.raises(ValueError, match=r"mine\.pth: does not hold the weights of torchvision's resnet34"):
        fit(recipe(model="resnet34", encoder_weights=str(file)), prepared, tmp_path / "run")


# --- the newest run


def trained(folder, age):
    """A run folder whose best checkpoint is so many seconds old."""
    folder.mkdir(parents=True)
    checkpoints.save(folder, "best", {"model": {}}, {"epoch": 1})
    now = folder.stat().st_mtime
    os.utime(folder / "best.json", (now - age, now - age))


def test_newest_run_is_the_newest_whole_one(tmp_path):
    for name, age in {"a": 300, "b": 100, "c": 200}.items():
        trained(tmp_path / "runs" / name, age)
        trained(tmp_path / "mirror" / name.upper(), age)
    newest = [newest_run(tmp_path / "runs", tmp_path / "mirror").dir.name]
    for name in ("b", "c", "a"):
        next((tmp_path / "runs" / name).glob("best-*.pt")).write_bytes(b"")
        newest.append(newest_run(tmp_path / "runs", tmp_path / "mirror").dir.name)
    assert newest == ["b", "c", "a", "B"]


@pytest.mark.parametrize("mirror", [None, "nowhere", "empty"])
def test_newest_run_is_none_where_there_is_none(tmp_path, mirror):
    (tmp_path / "empty" / "run").mkdir(parents=True)
    assert newest_run(tmp_path / "nowhere", mirror and tmp_path / mirror) is None


def test_a_run_whose_photos_are_gone_is_shown_on_the_sample(photo_folder, tmp_path, tiny, monkeypatch, capsys):
    monkeypatch.setenv("COLORLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("COLORLIB_DATA", str(tmp_path / "data"))
    mine = shutil.copytree(photo_folder, tmp_path / "mine")
    fit(recipe(n_epochs=1), data.ready(mine, keep_grey=True), tmp_path / "runs" / "mine")
    run, photos = training.newest_or_sample()
    assert (run.dir.name, photos.name) == ("mine", "mine")
    shutil.rmtree(mine)
    run, photos = training.newest_or_sample()
    assert (run.dir.name, photos.name) == ("mine", "sample")
    assert "not on this machine" in capsys.readouterr().out


def test_the_sample_can_be_trained_on_a_gpu_machine_too(monkeypatch):
    """The published batch is larger than the sample; 02 gives the sample its own settings under every preset."""
    monkeypatch.setenv("COLORLIB_PRESET", "t4")
    changed = recipes.get("resnet34", **runtime.PRESETS["sample"].recipe_changes)
    assert (changed.size, changed.batch_size, changed.subset) == (64, 16, 1.0)
