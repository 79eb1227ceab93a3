"""fit(): it learns, it stops and goes on at any step with the same weights, and says in one sentence what is wrong."""

import gc
import itertools
import math
import os
import random
import re
import shutil
import signal
import threading
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from kills import same
from torch import nn

from colorlib import checkpoints, data, evaluation, loading, losses, metrics, models, recipes, runs, runtime, training
from colorlib.data import Prepared
from colorlib.loading import Batches, Photos
from colorlib.runs import Run
from colorlib.trainer import Trainer
from colorlib.training import fit

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setattr(runtime, "device", lambda: torch.device("cpu"))  # bit for bit is promised there only
    monkeypatch.setattr(runs, "N_STRIP", 1)  # to colour six takes longer than the training


@pytest.fixture(autouse=True, scope="module")
def dropping(tiny):
    """Every test may use "tiny", and "dropping", which draws random numbers when it is trained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "dropping", lambda: nn.Sequential(models.build(tiny), nn.Dropout(0.2)))
        yield


def recipe(**changes):
    """Three epochs of three batches, with everything switched on that has a state or depends on chance."""
    names = dict(name="test", source="test", model="dropping", encoder_weights="none", size=16, resize="crop")
    steps = dict(batch_size=4, lr=1e-2, n_epochs=3, subset=0.6, phase_epochs=2, precision="float32")
    more = dict(schedule="cyclic", cycle_epochs=2, clip=0.1, ema=0.8)
    return recipes.Recipe(**{**names, **steps, **more, **changes})


def result(run_dir):
    """Everything that two equal runs have in common: the whole state, best weights, what is said of both."""
    (last, facts), (best, best_facts) = (checkpoints.load(run_dir, name) for name in ("last", "best"))
    said = [
        {k: v for k, v in f.items() if k not in ("recipe", "file", "bytes", "sha256", "timing")}
        for f in (facts, best_facts)
    ]
    for row in said[0]["history"] + said[1]["history"]:
        del row["seconds"], row["waiting"]
    return last, best, said


def snapshot(*folders):
    """Every file below the folders, with its content."""
    return {p: p.read_bytes() for folder in folders for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def whole(dropping, prepared, tmp_path_factory):
    """A run of three epochs that nothing interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "device", lambda: torch.device("cpu"))
        return fit(recipe(), prepared, tmp_path_factory.mktemp("whole") / "run")


def scripted(monkeypatch, losses):
    """Make the validation loss of each epoch what the test wants it to be."""
    real, losses = evaluation.evaluate, iter(losses)

    def fake(*args, **kwargs):
        value = next(losses)
        return real(*args, **kwargs).assign(mse=value, loss=value)

    monkeypatch.setattr(evaluation, "evaluate", fake)


class Killed(BaseException):
    """As sudden as a power cut, as far as Python is concerned."""


def kill():
    raise Killed


def at_step(monkeypatch, number, action, after=False):
    """Do something before (or after) a step of the training; with None, before the second step of each call of fit."""
    step, calls = Trainer.step, []

    def spied(self, rgb, n):
        calls.append(n)
        now = len(calls) == 2 if number is None else self.step_number == number - 1
        if now and not after:
            action()
        step(self, rgb, n)
        if now and after:
            action()

    monkeypatch.setattr(Trainer, "step", spied)


# --- it learns


def test_the_loss_falls(whole):
    history = whole.history
    assert history.columns.tolist() == ["epoch", "train_loss", "val_loss", "val_mse", "lr", "seconds", "waiting"]
    assert history.epoch.tolist() == [1, 2, 3]
    assert history.train_loss.is_monotonic_decreasing
    assert history.train_loss.iloc[-1] < 0.7 * history.train_loss.iloc[0]
    assert (history.seconds > 0).all() and history.waiting.between(0, 1, inclusive="neither").all()
    pd.testing.assert_frame_equal(pd.read_csv(whole.dir / "history.csv"), history)


def test_losses_are_means_over_photos_however_uneven_the_batches(prepared, tmp_path, monkeypatch):
    class Grey(models.MODELS["tiny"]):
        def forward(self, L):
            return 0 * super().forward(L)

    monkeypatch.setitem(models.MODELS, "grey", Grey)
    run = fit(recipe(model="grey", subset=1.0, n_epochs=1), prepared, tmp_path / "run")
    for split in ("train", "val"):
        floor = evaluation.evaluate(run.model(), Photos(prepared.files(split), 16, "crop"), [0, 0]).mse_grey.mean()
        assert run.history[f"{split}_loss"].tolist() == [pytest.approx(floor, rel=1e-5)]
    assert run.facts["floors"]["grey"] == pytest.approx(run.facts["val_mse"], rel=1e-6)


def test_one_photo_is_trained_and_validated_on_a_hundred_times_an_epoch(prepared, tmp_path):
    alone = recipe(one_photo=True, model="tiny", subset=1.0, n_epochs=2, lr=1e-3, schedule="constant", clip=None)
    run = fit(alone, prepared, tmp_path / "run")
    assert run.facts["step"] <= 200 and run.history.val_mse.iloc[-1] < run.history.val_mse.iloc[0]
    first = prepared.files("train")[:1]
    rows = evaluation.evaluate(run.model(), Photos(first, 16, "crop"), [0, 0])
    assert rows.mse.item() == pytest.approx(run.facts["val_mse"], rel=1e-5)
    assert run.facts["floors"]["grey"] == pytest.approx(rows.mse_grey.item(), rel=1e-6)


def test_rare_colours_are_counted_once_and_known_after_a_resume(prepared, tmp_path, monkeypatch):
    weighted = recipe(rebalance=0.5)
    once = fit(weighted, prepared, tmp_path / "once")
    assert once.facts["prior"] == pytest.approx(losses.prior_of(prepared.files("train"), size=16).tolist(), abs=1e-12)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        at_step(patch, 5, kill)
        fit(weighted, prepared, tmp_path / "twice", minutes=0)
    monkeypatch.setattr(losses, "prior_of", lambda *args: pytest.fail("counted again"))
    assert same(result(fit(weighted, prepared, tmp_path / "twice").dir), result(once.dir))
    assert not np.allclose(once.history.val_loss, once.history.val_mse, rtol=0.05)  # its own loss is another one


def test_what_is_best_is_the_recipes_own_loss(prepared, tmp_path, monkeypatch):
    real, values = evaluation.evaluate, iter([(3, 1), (2, 5), (4, 0)])

    def fake(*args, **kwargs):
        loss, mse = next(values)
        return real(*args, **kwargs).assign(loss=loss, mse=mse)

    monkeypatch.setattr(evaluation, "evaluate", fake)
    run = fit(recipe(), prepared, tmp_path / "run")
    assert (run.facts["epoch"], run.facts["val_loss"], run.facts["val_mse"]) == (2, 2, 5)


class FourPhotos(Prepared):
    """Twenty-five batches of the same four photos, which are those of the validation too."""

    def files(self, split):
        return super().files("train")[::4][:4] * (25 if split == "train" else 1)


def test_the_published_network_learns_four_photos_by_heart(prepared, tmp_path):
    plain = dict(schedule="constant", clip=None, ema=None, flip=False, subset=1.0)
    by_heart = recipe(model="resnet34", size=32, lr=1e-3, n_epochs=2, **plain)
    run = fit(by_heart, FourPhotos(prepared.folder), tmp_path / "run")
    assert run.facts["val_mse"] < run.facts["floors"]["grey"] / 3
    assert run.facts["val_mse"] < run.facts["floors"]["oracle"]


def test_a_run_tells_what_it_is_and_its_model_is_the_best_one(whole, prepared):
    assert whole.recipe == recipe()
    assert whole.facts["data"]["fingerprint"] == prepared.fingerprint
    assert (whole.facts["device"], whole.facts["precision"]) == ("cpu", "float32")
    np.testing.assert_allclose(whole.facts["train_mean"], loading.mean_ab(prepared.files("train")))
    assert list(whole.strips) == [0, 1, 2, 3] and whole.truth.is_file()
    model = whole.model()
    assert not model.training
    rows = evaluation.evaluate(model, Photos(prepared.files("val"), 16, "crop"), whole.facts["train_mean"])
    assert rows.mse.mean() == pytest.approx(whole.facts["val_mse"], rel=1e-5)
    for part in ("test", "best after epoch", f"{whole.facts['val_mse']:.5f}", "none"):
        assert part in str(whole)


def test_the_averaged_weights_are_validated_and_kept(whole):
    last, best, _ = result(whole.dir)
    averaged = {key.removeprefix("module."): value for key, value in last["average"].items()}
    assert whole.facts["epoch"] == 3 and averaged.pop("n_averaged") == 9
    assert same(best["model"], averaged) and not same(best["model"], last["model"])


@pytest.mark.parametrize(
    "changes",
    [
        *({"flip": False}, {"seed": 1}, {"subset": 1.0}, {"resize": "squash"}, {"size": 24}, {"lr": 0.02}),
        *({"optimizer": "SGD"}, {"clip": 1e-3}, {"schedule": "one-cycle"}, {"precision": "bfloat16"}),
    ],
    ids=str,
)
def test_settings_change_the_weights(whole, prepared, tmp_path, changes):
    fit(recipe(**changes), prepared, tmp_path / "run")
    assert not same(result(tmp_path / "run")[0]["model"], result(whole.dir)[0]["model"])


@pytest.mark.parametrize("precision", ["float64", "float16", "bfloat16"])
def test_every_precision_trains_and_is_gone_on_with(prepared, tmp_path, precision):
    once = fit(recipe(precision=precision), prepared, tmp_path / "once")
    for n in (1, 3):
        twice = fit(recipe(precision=precision, n_epochs=n), prepared, tmp_path / "twice")
    assert once.facts["precision"] == precision and once.history.train_loss.is_monotonic_decreasing
    assert same(result(once.dir), result(twice.dir))


def test_after_each_epoch_the_history_so_far_is_handed_over(prepared, tmp_path):
    told = []
    run = fit(recipe(), prepared, tmp_path / "run", after_epoch=lambda *given: told.append(given))
    assert [len(history) for history, _ in told] == [1, 2, 3]
    for history, floors in told:
        pd.testing.assert_frame_equal(history, run.history[: len(history)])
        assert floors == run.facts["floors"] and floors.keys() == metrics.FLOORS.keys()


# --- the published schedules


class ManyPhotos(Prepared):
    """330 training photos, enough for the published batches."""

    def files(self, split):
        return super().files(split) * (22 if split == "train" else 1)


@pytest.fixture
def record(prepared, tmp_path, monkeypatch):
    """Trains a published recipe, small, on 330 photos: the learning rate of every step, the photos of every epoch."""

    def train(name, losses):
        rates, epochs, step = [], [], Trainer.step
        monkeypatch.setenv("COLORLIB_PRESET", "t4")
        monkeypatch.setattr(training.runtime, "preset", lambda: runtime.Preset("t4", "sample"))  # without workers
        monkeypatch.setattr(runs.Strip, "save", lambda *args: None)
        monkeypatch.setattr(Trainer, "step", lambda self, rgb, n: [rates.append(self.lr), step(self, rgb, n)])

        def spy(chosen, *args, **kwargs):
            epochs.append([[index for _, index in batch] for batch in Batches(chosen, *args, **kwargs)])
            return Batches(chosen, *args, **kwargs)

        monkeypatch.setattr(training, "Batches", spy)
        scripted(monkeypatch, losses)
        small = recipes.get(name, model="tiny", size=8, encoder_weights="none")
        run = fit(small, ManyPhotos(prepared.folder), tmp_path / name)
        return run.history, np.array(rates), epochs

    return train


def number(pattern, text):
    (found,) = set(re.findall(pattern, text))
    return float(found)


@pytest.mark.parametrize("name", ["resnet34", "resnet18"])
def test_document_000_is_trained_as_it_says(source_text, record, name):
    text = source_text("000")
    size = {"resnet34": int(number(r"Batch size: (\d+)", text)), "resnet18": int(number(r"from (\d+) to 128", text))}
    history, rates, epochs = record(name, losses=range(100, 0, -1))
    assert len(history) == len(epochs) == number(r"total of (\d+) epochs", text)
    assert {*rates, *history.lr} == {number(r"Learning rate: ([\d.]+)", text)}
    photos = [sorted(index for batch in epoch for index in batch) for epoch in epochs]
    n = round(330 * number(r"(\d+)% of images is randomly selected", text) / 100)
    assert {len(set(chosen)) for chosen in photos} == {len(photos[0])} == {n}
    assert [[len(batch) for batch in epoch] for epoch in epochs] == [[size[name]] * (n // size[name]) + [4]] * 40
    phase, repeated = int(number(r"for every (\d+) epochs", text)), int(number(r"Repeated (\d+) times", text))
    assert all(photos[k] == photos[k - k % phase] for k in range(40))
    assert len({tuple(chosen) for chosen in photos}) == repeated
    assert len({tuple(itertools.chain(*epoch)) for epoch in epochs}) == 40  # each time in another order


def test_document_000_stops_after_five_epochs_without_a_better_loss(source_text, record):
    assert "did not improve for five consecutive epochs" in source_text("000")
    history, _, _ = record("resnet34", losses=[5, 4, 4.5, 3, 4, 3, 4, 5, 6, 1])
    assert len(history) == 4 + 5


def test_document_001_is_trained_as_it_says(source_text, record):
    text = source_text("001")
    assert "cyclic learning rates" in text
    highest = number(r"maximum learning rate of ([\d.]*\d)", text)
    history, rates, epochs = record("resnet34_deep", losses=range(100, 0, -1))
    assert len(history) == len(epochs) == number(r"for (\d+) epochs", text)
    assert all(sorted(itertools.chain(*epoch)) == list(range(330)) for epoch in epochs)  # all photos, every time
    assert len(rates) == 30 and rates.argmax() == 15 and rates[0] == pytest.approx(highest / 25)
    up = np.linspace(highest / 25, highest, 6)
    np.testing.assert_allclose(history.lr, [*up[1:], *up[-2::-1]])  # at the ends of the epochs


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
@pytest.mark.parametrize("interrupted", [False, True])
def test_best_is_the_minimum_and_patience_ends_the_run(
    prepared, tmp_path, monkeypatch, losses, patience, best, last, interrupted
):
    scripted(monkeypatch, losses)
    settings = recipe(n_epochs=len(losses), patience=patience)
    for step in (2, 6, 8, 11) if interrupted else ():
        with monkeypatch.context() as patch, pytest.raises(Killed):
            at_step(patch, step, kill)
            fit(settings, prepared, tmp_path / "run", minutes=0)
    run = fit(settings, prepared, tmp_path / "run")
    assert run.facts["epoch"] == best
    assert run.facts["val_mse"] == run.history.val_mse.min() == losses[best - 1]
    assert run.history.val_mse.tolist() == losses[:last]
    before = snapshot(run.dir)
    fit(settings, prepared, run.dir)  # what stopped stays stopped
    assert snapshot(run.dir) == before


def test_a_finished_run_is_not_trained_further(whole, prepared, monkeypatch, capsys):
    before = snapshot(whole.dir)
    monkeypatch.setattr(training, "Batches", lambda *args, **kwargs: pytest.fail("trained"))
    assert fit(recipe(), prepared, whole.dir).history.equals(whole.history)
    assert fit(recipe(n_epochs=1), prepared, whole.dir).history.equals(whole.history)
    assert snapshot(whole.dir) == before
    assert capsys.readouterr().out.count(f"{whole.dir.name}: finished after epoch 3.") == 2


# --- it survives


def with_workers(monkeypatch, workers):
    monkeypatch.setattr(runtime, "preset", lambda: runtime.Preset("sample", "sample", workers=workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_every_step_it_ends_with_the_same_weights(whole, prepared, tmp_path, monkeypatch, workers, capsys):
    with_workers(monkeypatch, workers)
    for step in range(1, 10) if workers == 0 else (2, 5, 7):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            at_step(patch, step + 1 if step < 9 else 9, kill)
            fit(recipe(), prepared, tmp_path / "run", minutes=0)
        assert checkpoints.newest(tmp_path / "run", "last")[0]["step"] == min(step, 8)
    run = fit(recipe(), prepared, tmp_path / "run", minutes=0)
    assert f"run: going on after step {min(step, 8)}, from {run.dir}." in capsys.readouterr().out
    assert same(result(run.dir), result(whole.dir))
    assert list(run.strips) == [0, 1, 2, 3]


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_with_every_augmentation_it_ends_with_the_same_weights(prepared, tmp_path, monkeypatch, workers):
    settings = recipe(zoom=0.7, gamma=0.2, sharpness=0.5, grain=2)
    expected = fit(settings, prepared, tmp_path / "whole")
    assert not same(result(expected.dir), result(fit(recipe(), prepared, tmp_path / "without").dir))
    with_workers(monkeypatch, workers)
    for step in (2, 5):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            at_step(patch, step + 1, kill)
            fit(settings, prepared, tmp_path / "run", minutes=0)
    assert same(result(fit(settings, prepared, tmp_path / "run").dir), result(expected.dir))


@pytest.mark.parametrize("moment", ["before best", "between best and last", "between file and manifest", "validating"])
def test_killed_at_the_end_of_an_epoch_it_ends_with_the_same_weights(whole, prepared, tmp_path, monkeypatch, moment):
    save, replace, name = checkpoints.save, os.replace, {"before best": "best"}.get(moment, "last")

    def killed_save(folder, checkpoint, state, facts):
        if facts["step"] == 6 and checkpoint == name and facts["epoch"] == 2:
            kill()
        save(folder, checkpoint, state, facts)

    def killed_replace(source, target):
        if str(target).startswith(str(tmp_path / "run" / "last-00000006")) and target.suffix == ".json":
            kill()
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        if moment == "between file and manifest":
            patch.setattr(os, "replace", killed_replace)
        elif moment == "validating":
            patch.setattr(Trainer, "mean_loss", lambda self: kill() if self.step_number == 6 else 0.0)
        else:
            patch.setattr(checkpoints, "save", killed_save)
        fit(recipe(), prepared, tmp_path / "run", minutes=0 if moment == "validating" else 10)
    run = fit(recipe(), prepared, tmp_path / "run")
    expected, found = result(whole.dir), result(run.dir)
    if moment == "validating":  # where the first epoch's loss was made up
        for rows in (expected[2], found[2]):
            for row in rows[0]["history"][:1] + rows[1]["history"][:1]:
                del row["train_loss"]
    assert same(found, expected)
    assert list(run.strips) == [0, 1, 2, 3]


def test_saving_follows_the_clock(prepared, tmp_path, monkeypatch):
    now, steps, save = [0.0], [], checkpoints.save
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    at = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda self, *args: [now.__setitem__(0, now[0] + 40), at(self, *args)])
    monkeypatch.setattr(
        checkpoints, "save", lambda *args: [args[1] == "last" and steps.append(args[3]["step"]), save(*args)]
    )
    fit(recipe(batch_size=2, n_epochs=2), prepared, tmp_path / "run", minutes=1)  # 9 photos: 5 steps of 40 seconds
    assert steps == [2, 4, 5, 7, 9, 10]


def test_the_time_that_saving_takes_is_no_waiting_for_photos(prepared, tmp_path, monkeypatch):
    now, save = [0.0], checkpoints.save
    monkeypatch.setattr(training.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(checkpoints, "save", lambda *args: [now.__setitem__(0, now[0] + 100), save(*args)])
    run = fit(recipe(), prepared, tmp_path / "run", minutes=0)
    assert run.history[["seconds", "waiting"]].eq(0).all(axis=None)


@pytest.mark.parametrize("n", [1, 2])
def test_made_longer_it_ends_with_the_same_weights(whole, prepared, tmp_path, n):
    fit(recipe(n_epochs=n), prepared, tmp_path / "run")
    run = fit(recipe(), prepared, tmp_path / "run")
    assert same(result(run.dir), result(whole.dir))
    assert run.recipe.n_epochs == 3


@pytest.mark.parametrize("changes", [{"schedule": "one-cycle"}, {"cycle_epochs": None}], ids=str)
def test_a_schedule_stretched_over_all_epochs_goes_on_but_cannot_be_made_longer(
    prepared, tmp_path, monkeypatch, changes
):
    once = fit(recipe(**changes), prepared, tmp_path / "once")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        at_step(patch, 6, kill)
        fit(recipe(**changes), prepared, tmp_path / "run", minutes=0)
    with pytest.raises(ValueError, match=r"holds another run \(n_epochs was 3 and is 4\)"):
        fit(recipe(n_epochs=4, **changes), prepared, tmp_path / "run")
    assert same(result(fit(recipe(**changes), prepared, tmp_path / "run").dir), result(once.dir))


def test_several_threads_end_with_the_same_weights_too(prepared, tmp_path, monkeypatch):
    torch.set_num_threads(2)  # the other tests have one
    once = fit(recipe(), prepared, tmp_path / "once")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        at_step(patch, 5, kill)
        fit(recipe(), prepared, tmp_path / "twice", minutes=0)
    fit(recipe(), prepared, tmp_path / "twice")
    torch.set_num_threads(1)
    assert same(result(tmp_path / "twice"), result(once.dir))


def test_the_callers_random_streams_are_left_alone(prepared, tmp_path):
    def states():
        return torch.random.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()

    torch.manual_seed(12345)  # a state that no run leaves behind
    before = states()
    for n in (1, 2, 2):  # fresh, resumed and finished
        fit(recipe(n_epochs=n), prepared, tmp_path / "run")
        assert states() == before


@pytest.mark.parametrize("when", ["at first", "gone on with"])
def test_compile_that_does_not_work_changes_nothing(whole, prepared, tmp_path, monkeypatch, when):
    monkeypatch.setattr(torch, "compile", lambda model: kill.missing)
    if when == "gone on with":
        fit(recipe(n_epochs=1), prepared, tmp_path / "run")
    with pytest.warns(UserWarning, match=r"torch\.compile does not work here \(AttributeError\): going on without"):
        run = fit(recipe(), prepared, tmp_path / "run", compile=True)
    assert same(result(run.dir), result(whole.dir))


# --- it stops when asked to


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def ask(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize(
    ("moment", "step"), [("reading", 4), ("step 3", 3), ("step 5", 5), ("after the epoch", 4), ("validating", 4)]
)
def test_asked_to_stop_it_stops_after_the_step_and_goes_on(
    whole, prepared, tmp_path, monkeypatch, capsys, number, moment, step
):
    read, before, after_epoch = Photos.__getitems__, handlers(), None

    def interrupted(self, keys):
        if (self.flip, keys[0][0]) == ((True, 1) if moment == "reading" else (False, 0)) and not asked:
            asked.append(ask(number))
        return read(self, keys)

    asked = []
    with monkeypatch.context() as patch:
        if moment.startswith("step"):
            at_step(patch, step, lambda: ask(number), after=True)
        elif moment == "after the epoch":
            after_epoch = lambda history, floors: ask(number)  # noqa: E731
        else:
            patch.setattr(Photos, "__getitems__", interrupted)
            patch.setattr(training, "mean_ab", lambda *args, **kwargs: torch.tensor(whole.facts["train_mean"]))
        run = fit(recipe(), prepared, tmp_path / "run", after_epoch=after_epoch)
    out = capsys.readouterr().out
    assert handlers() == before
    assert out.endswith(f"run: stopped as asked, at step {step}. Start it again and it goes on.\n")
    assert checkpoints.newest(run.dir, "last")[0]["step"] == step
    assert same(result(fit(recipe(), prepared, run.dir).dir), result(whole.dir))


@pytest.mark.parametrize("flip", [True, False], ids=["training", "validating"])
def test_sigterm_to_the_workers_too_is_a_clean_stop(whole, prepared, tmp_path, monkeypatch, flip, capfd):
    read = Photos.__getitems__

    def terminated(self, keys):
        if (self.flip, keys[0][0]) == (flip, int(flip)):  # as `timeout` does it, and batch systems
            os.kill(os.getppid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        return read(self, keys)

    with monkeypatch.context() as patch:
        with_workers(patch, 2)
        patch.setattr(Photos, "__getitems__", terminated)
        patch.setattr(training, "mean_ab", lambda *args, **kwargs: torch.tensor(whole.facts["train_mean"]))
        fit(recipe(), prepared, tmp_path / "run")
    assert "run: stopped as asked, at step 3." in capfd.readouterr().out
    assert same(result(fit(recipe(), prepared, tmp_path / "run").dir), result(whole.dir))


def test_going_on_in_another_precision_is_told(prepared, tmp_path, monkeypatch, capsys):
    for precision in (torch.float32, torch.bfloat16, torch.bfloat16):
        monkeypatch.setattr(runtime, "precision", lambda device, precision=precision: precision)
        n_epochs = 2 if precision == torch.float32 else 3
        fit(recipe(precision="auto", n_epochs=n_epochs), prepared, tmp_path / "run")
    told = "So far it was trained in float32 on cpu, from now on in bfloat16 on cpu: "
    assert capsys.readouterr().out.count(told) == 1


def test_a_second_ctrl_c_stops_at_once_and_nothing_is_lost(whole, prepared, tmp_path, monkeypatch):
    before = handlers()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        at_step(patch, 5, lambda: [ask(signal.SIGINT), ask(signal.SIGINT), pytest.fail("went on")])
        fit(recipe(), prepared, tmp_path / "run", minutes=0)
    assert handlers() == before
    assert checkpoints.newest(tmp_path / "run", "last")[0]["step"] == 4
    assert same(result(fit(recipe(), prepared, tmp_path / "run").dir), result(whole.dir))


def test_ctrl_c_with_worker_processes_stops_too(whole, prepared, tmp_path, monkeypatch):
    with_workers(monkeypatch, 2)
    with monkeypatch.context() as patch:
        at_step(patch, 4, lambda: ask(signal.SIGINT))
        fit(recipe(), prepared, tmp_path / "run")
    assert checkpoints.newest(tmp_path / "run", "last")[0]["step"] == 4
    assert same(result(fit(recipe(), prepared, tmp_path / "run").dir), result(whole.dir))


def test_when_its_hours_are_over_it_stops_and_goes_on(whole, prepared, tmp_path, capsys):
    for step in range(1, 4):  # of an epoch's last step too, the next call finds what it needs to end the epoch
        fit(recipe(), prepared, tmp_path / "run", hours=1e-9)
        sentence = f"run: stopped after 1e-09 hours, at step {step}. Start it again and it goes on.\n"
        assert capsys.readouterr().out.endswith(sentence)
    assert same(result(fit(recipe(), prepared, tmp_path / "run", hours=1).dir), result(whole.dir))


def test_it_trains_in_a_thread_where_no_signals_arrive(whole, prepared, tmp_path):
    thread = threading.Thread(target=fit, args=(recipe(), prepared, tmp_path / "run"))
    thread.start()
    thread.join()
    assert same(result(tmp_path / "run"), result(whole.dir))


# --- the mirror


LOSSES = {
    "machine gone": shutil.rmtree,
    "last damaged": lambda run_dir: max(run_dir.glob("last-*.pt")).write_bytes(b"half a file"),
    "best damaged": lambda run_dir: max(run_dir.glob("best-*.pt")).write_bytes(b""),
    "manifest gone": lambda run_dir: max(run_dir.glob("last-*.json")).unlink(),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("step", [5, 8, None], ids=["in the 2nd epoch", "in the 3rd", "finished"])
def test_what_is_lost_here_comes_back_from_the_mirror(whole, prepared, tmp_path, monkeypatch, loss, step):
    run_dir, mirror = tmp_path / "run", tmp_path / "drive" / "run"
    with monkeypatch.context() as patch:
        if step:
            at_step(patch, step, lambda: ask(signal.SIGTERM))
        fit(recipe(), prepared, run_dir, mirror, minutes=0)
    LOSSES[loss](run_dir)
    run = fit(recipe(), prepared, run_dir, mirror)
    assert same(result(run_dir), result(whole.dir))
    assert same(result(mirror), result(whole.dir))
    assert len(run.history) == 3  # of a run that was finished before, too
    assert list(run.strips) == [0, 1, 2, 3] and run.truth.is_file()


@pytest.mark.filterwarnings("error")
def test_the_copy_in_the_mirror_is_of_the_same_step(whole, prepared, tmp_path, monkeypatch):
    for step in range(2, 10):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            at_step(patch, step, kill)
            fit(recipe(), prepared, tmp_path / "run", tmp_path / "drive", minutes=0)
        shutil.rmtree(tmp_path / "run")
        assert checkpoints.newest(tmp_path / "drive", "last")[0]["step"] == step - 1
    run = fit(recipe(), prepared, tmp_path / "run", tmp_path / "drive")
    assert same(result(run.dir), result(whole.dir)) and list(run.strips) == [0, 1, 2, 3]


@pytest.mark.parametrize("delay", [0.001, 60])
def test_a_mirror_that_breaks_costs_one_warning_and_catches_up_later(whole, prepared, tmp_path, monkeypatch, delay):
    run_dir, mirror, copyfile = tmp_path / "run", tmp_path / "drive", shutil.copyfile
    broken = []

    def fail(source, target):
        if broken:
            raise OSError("No space left on device")
        return copyfile(source, target)

    monkeypatch.setattr(checkpoints.Mirror, "first_delay", delay)
    with monkeypatch.context() as patch, pytest.warns(UserWarning) as caught:
        patch.setattr(shutil, "copyfile", fail)
        at_step(patch, 5, lambda: broken.append(True))
        fit(recipe(), prepared, run_dir, mirror, minutes=0)
    for warning in caught:
        assert re.match(f"CHECKPOINTS DO NOT REACH {mirror} .*No space left on device", str(warning.message))
    assert len(caught) <= 2  # as it happens, and at the end
    assert same(result(run_dir), result(whole.dir))
    fit(recipe(), prepared, run_dir, mirror)
    assert same(result(mirror), result(whole.dir))


def test_a_mirror_that_cannot_be_read_is_not_overwritten(prepared, tmp_path, monkeypatch):
    mirror = tmp_path / "drive"
    fit(recipe(n_epochs=2), prepared, tmp_path / "run", mirror)
    before = snapshot(mirror)

    def fail(source, target):
        raise OSError("Drive is away")

    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.raises(OSError, match=r"cannot be read \(Drive is away\), so that nobody knows"):
        fit(recipe(), prepared, tmp_path / "next machine", mirror)
    assert snapshot(mirror) == before


# --- it says what is wrong


class WithoutValidation(Prepared):
    def files(self, split):
        return super().files(split) if split == "train" else []


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"batch_size": 10}, Prepared, r"^the batch size 10 is larger than the 9 training photos .* batch_size=9 or"),
        ({}, WithoutValidation, r"has no validation photos: .* \(val=0\.1\)\.$"),
        ({"model": "resnet99"}, Prepared, r"^there is no model 'resnet99'"),
        ({"frozen": ("encoder",)}, Prepared, r"^the model has no part 'encoder' that could be frozen; it has 0,"),
    ],
    ids=["batch size", "no validation", "model", "frozen"],
)
def test_what_cannot_be_trained_is_told_in_one_sentence(prepared, tmp_path, changes, kind, message):
    with pytest.raises(ValueError, match=message) as caught:
        fit(recipe(**changes), kind(prepared.folder), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not snapshot(tmp_path)


@pytest.mark.parametrize("where", ["run", "mirror"])
def test_another_run_is_refused_and_left_untouched(whole, photo_folder, prepared, tmp_path, where):
    shutil.copytree(whole.dir, tmp_path / where)
    others = data.prepare(photo_folder / "train", tmp_path / "others", keep_grey=True)
    before = snapshot(tmp_path)
    for changes, photos, told in (({"lr": 0.5}, prepared, "lr was 0.01 and is 0.5"), ({}, others, "other photos")):
        with pytest.raises(ValueError, match=rf"{where} holds another run \({told}\)"):
            fit(recipe(**changes), photos, tmp_path / "run", tmp_path / "mirror")
        assert snapshot(tmp_path) == before


def test_a_run_folder_that_cannot_be_written_is_told_in_one_sentence(prepared, blocked):
    with pytest.raises(PermissionError, match=r"cannot be written to .* set COLORLIB_RUNS to one\.$") as caught:
        fit(recipe(), prepared, blocked)
    assert str(caught.value).startswith(f"{blocked}: ")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
    ids=["GPU", "CPU", "Python"],
)
def test_too_little_memory_is_told_with_the_batch_size_to_try(prepared, tmp_path, monkeypatch, error):
    networks = []

    def fail(trainer, *args):
        networks.append(weakref.ref(trainer.model))
        raise error

    monkeypatch.setattr(Trainer, "step", fail)
    sentence = r"^a batch of 9 photos of 16 x 16 does not fit into the memory of cpu: try batch_size=4\.$"
    with pytest.raises(MemoryError, match=sentence):
        fit(recipe(batch_size=9), prepared, tmp_path / "run")
    gc.collect()
    assert networks[0]() is None  # though both errors are still at hand, as they are in a notebook


def test_other_errors_pass_unchanged(prepared, tmp_path, monkeypatch):
    error, before = RuntimeError("CUDA error: device-side assert triggered"), handlers()

    def fail(*args):
        raise error

    monkeypatch.setattr(Trainer, "step", fail)
    with pytest.raises(RuntimeError) as caught:
        fit(recipe(), prepared, tmp_path / "run")
    assert caught.value is error and handlers() == before


# --- a loss that is not a number


class Breaking(nn.Module):
    """Gives NaN from a step of the training on; or, with `gradient`, gets weights of NaN from a good loss."""

    def __init__(self, step, gradient):
        super().__init__()
        self.tiny, self.step, self.gradient = models.build("tiny"), step, gradient
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, L):
        self.count += self.training
        pred_ab = self.tiny(L)
        if self.count < self.step:
            return pred_ab
        if self.gradient and self.training:
            pred_ab.register_hook(lambda grad: grad * torch.nan)
            return pred_ab
        return pred_ab * torch.nan


def numbers(value):
    """Whether all that a checkpoint holds are numbers."""
    if isinstance(value, torch.Tensor):
        return bool(value.isfinite().all())
    values = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return all(map(numbers, values)) if values else not isinstance(value, float) or math.isfinite(value)


@pytest.mark.parametrize(("minutes", "ema"), [(0, 0.8), (10, None)])
@pytest.mark.parametrize("step", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("gradient", [False, True], ids=["loss", "gradient"])
def test_no_checkpoint_holds_what_is_no_number(prepared, tmp_path, monkeypatch, step, minutes, gradient, ema):
    monkeypatch.setitem(models.MODELS, "breaking", lambda: Breaking(step, gradient))
    settings = recipe(model="breaking", ema=ema, cycle_epochs=None)
    with pytest.raises(FloatingPointError) as caught:
        fit(settings, prepared, tmp_path / "run", minutes=minutes)
    good = checkpoints.newest(tmp_path / "run", "last")[0]
    told, epoch = str(caught.value), (step + 2) // 3
    if good:
        assert good["step"] == (step - 1 if minutes == 0 else 3)
        assert f"the last good checkpoint is {tmp_path / 'run' / good['file']}." in told
    else:
        assert step <= (1 if minutes == 0 else 3) and "nothing was saved before." in told
    if not gradient:
        rate = 4e-4 + (1e-2 - 4e-4) * (step - 1) / 4.5 if step < 6 else None
        assert told.startswith(f"the loss is not a number at step {step} (epoch {epoch}), at a learning rate of ")
        assert rate is None or f"rate of {rate:.3g};" in told
    assert "A new run with a smaller rate than 0.01 usually helps." in told
    for path in (tmp_path / "run").glob("*.pt"):
        assert numbers(torch.load(path, weights_only=True))


def test_a_validation_that_is_no_number_ends_the_run_and_the_run_before_is_kept(prepared, tmp_path, monkeypatch):
    scripted(monkeypatch, [0.3, math.nan])
    with pytest.raises(FloatingPointError, match=r"at step 6 \(epoch 2\)"):
        fit(recipe(), prepared, tmp_path / "run")
    assert len(Run(tmp_path / "run").history) == 1


# --- as a program, and for the notebooks


def program(*arguments):
    """Runs the command line here; its exit code."""
    try:
        training.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code
    return 0


SMALL = "model='tiny'", "encoder_weights=none", "size=16", "batch_size=3", "n_epochs=2", "frozen=('layers.3',)"


@pytest.fixture
def own_data(tmp_path, monkeypatch):
    monkeypatch.setenv("COLORLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLORLIB_PRESET", "sample")


@pytest.mark.parametrize("kind", ["prepared", "folder"])
def test_the_program_trains_and_goes_on(prepared, tmp_path, own_data, capsys, kind):
    folder = prepared.folder if kind == "prepared" else prepared.folder / "photos"
    run_dir = tmp_path / "runs" / "mine"
    assert program("resnet34", folder, run_dir, "--hours", "1e-9", "--set", *SMALL) == 0
    assert "mine: stopped after 1e-09 hours, at step 1." in capsys.readouterr().out
    more = ["--mirror", tmp_path / "drive", "--compile", "--set", *SMALL[:3], "--set", *SMALL[3:]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda model: model)
        assert program("resnet34", folder, run_dir, *more) == 0
    out = capsys.readouterr().out
    assert "going on after step 1" in out and out.endswith("encoder's starting weights: none\n")
    run = Run(run_dir)
    assert len(run.history) == len(Run(tmp_path / "drive").history) == 2
    assert run.recipe == recipes.get(
        "resnet34", model="tiny", encoder_weights="none", size=16, batch_size=3, n_epochs=2, frozen=("layers.3",)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": "resnet99"}, "invalid choice: 'resnet99'"),
        ({"data": "nowhere"}, "nowhere"),
        ({"set": "epochs=3"}, "a recipe has no epochs; it has name, "),
        ({"set": "n_epochs"}, "--set takes FIELD=VALUE, not 'n_epochs'."),
        ({"set": "batch_size=100"}, "the batch size 100 is larger than the 15 training photos"),
        ({"set": "schedule=wild"}, "there is no schedule 'wild'"),
        ({"set": "precision=half"}, "there is no precision 'half'"),
        ({"run": "file/run"}, "cannot be written to"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_in_a_sentence_and_by_the_exit_code(
    prepared, tmp_path, own_data, capsys, monkeypatch, change, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    given = {"recipe": "resnet34", "data": prepared.folder, "run": "run", "set": "seed=1", **change}
    code = program(given["recipe"], given["data"], given["run"], "--set", *SMALL, given["set"])
    told = f"{code}{capsys.readouterr().err}"
    assert code and message in told
    assert isinstance(code, int) or "\n" not in code
    assert not list(tmp_path.glob("run/*.pt"))


def test_notebooks_that_need_a_run_find_it_and_its_photos(photo_folder, tmp_path, monkeypatch, capsys):
    def machine(name):
        monkeypatch.setenv("COLORLIB_RUNS", str(tmp_path / name / "runs"))
        monkeypatch.setenv("COLORLIB_DATA", str(tmp_path / name / "data"))

    machine("first")
    mine, drive = shutil.copytree(photo_folder, tmp_path / "mine"), tmp_path / "drive"
    prepared = data.ready(mine, drive / "data", keep_grey=True)
    fit(recipe(n_epochs=1), prepared, tmp_path / "first" / "runs" / "mine", drive / "runs" / "mine")
    run, photos = training.newest_or_shipped()
    assert (run.dir.name, photos.folder) == ("mine", prepared.folder)
    shutil.rmtree(mine)
    machine("second")  # on the next day, with Drive: a network, its photos, and neither is made again
    monkeypatch.setattr(data, "_prepare_one", None)
    run, photos = training.newest_or_shipped(drive)
    assert run.dir == drive / "runs" / "mine" and photos.fingerprint == prepared.fingerprint
    assert photos.folder.is_relative_to(tmp_path / "second")
    monkeypatch.undo()
    machine("third")  # and with nothing but the runs
    run, photos = training.newest_or_shipped(shutil.copytree(drive / "runs", tmp_path / "other" / "runs").parent)
    assert (run.dir.name, photos.name) == ("mine", "sample")
    assert "not on this machine" in capsys.readouterr().out


def test_without_a_run_notebooks_get_the_shipped_weights_and_the_sample(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLORLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("COLORLIB_DATA", str(tmp_path / "data"))
    run, photos = training.newest_or_shipped()
    assert (run.name, photos.name) == ("shipped", "sample")
    assert "no trained run yet: using the weights that come with colorlib" in capsys.readouterr().out
    judged = evaluation.Predictor.of(run)
    assert judged.weights == run.facts["sha256"] and (judged.size, judged.resize) == (128, "crop")
    L = torch.rand(1, 1, 48, 64) * 100
    with torch.no_grad():
        assert judged.model(L).shape == (1, 2, 48, 64)
        assert torch.equal(judged.model(L), models.shipped()[0].to(L)(L))
    (tmp_path / "nothing").mkdir()
    monkeypatch.setattr(models.shipped, "__defaults__", (tmp_path / "nothing",))
    monkeypatch.setattr(training, "fit", lambda recipe, photos, *_: (recipe.name, photos.name))
    assert training.newest_or_shipped()[0] == ("resnet34", "sample")  # a copy of the project without them


def test_the_sample_can_be_trained_on_a_gpu_machine_too(monkeypatch):
    """The published batch is larger than the sample; 02 gives the sample its own settings under every preset."""
    monkeypatch.setenv("COLORLIB_PRESET", "t4")
    changed = recipes.get("resnet34", **runtime.PRESETS["sample"].recipe_changes)
    assert (changed.size, changed.batch_size, changed.subset) == (64, 16, 1.0)
