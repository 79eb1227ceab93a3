"""Many recipes with the same time each: the steps they get, and what is told of them."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from colorlib import checkpoints, color, comparison, loading, models, plots, recipes, training
from colorlib.recipes import RECIPES, Recipe
from colorlib.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread", "tiny")
SMALL = {"size": 16, "batch_size": 4, "n_epochs": 2, "subset": 1.0, "patience": None}


@pytest.fixture
def known(monkeypatch):
    """Two quick recipes among the others: "quick" and "rare", which weighs rare colours more."""
    quick = Recipe("quick", "a test", "tiny", encoder_weights="none", lr=0.01, schedule="one-cycle")
    monkeypatch.setitem(RECIPES, "quick", quick)
    monkeypatch.setitem(RECIPES, "rare", replace(quick, name="rare", rebalance=0.5, schedule="constant"))
    monkeypatch.setattr(comparison, "seconds_per_step", lambda *args, **kwargs: 0.1)
    return ["quick", "rare"]


@pytest.mark.parametrize(
    ("n_photos", "batch", "n_steps", "expected"),
    [  # passes over all the photos, steps in each, passes
        (1000, 10, 2000, (20, 100)),
        (1000, 10, 1000, (10, 100)),
        (1000, 10, 50, (10, 5)),  # half a pass, in ten parts
        (1000, 10, 3, (3, 1)),  # never fewer than one step
        (5, 10, 40, (40, 1)),  # a batch is at most all the photos
    ],
)
def test_a_recipe_is_stretched_to_a_number_of_steps(n_photos, batch, n_steps, expected):
    recipe = Recipe("x", "", "tiny", batch_size=batch, subset=0.4, patience=5, cycle_epochs=2, schedule="cyclic")
    long = comparison.stretched(recipe, n_photos, n_steps)
    chosen = loading.draw_subset(n_photos, long.subset, seed=0, phase=0)
    assert (long.n_epochs, -(-len(chosen) // long.batch_size)) == expected
    assert (long.patience, long.cycle_epochs) == (None, None)  # one cycle over all of it
    other = loading.draw_subset(n_photos, long.subset, seed=0, phase=1 // long.phase_epochs)
    assert long.subset == 1 or not (len(chosen) == len(other) and (chosen == other).all())


def test_a_step_is_timed_with_its_photos(prepared):
    recipe = Recipe("x", "", "tiny", size=16, batch_size=4, encoder_weights="none")
    assert 0 < comparison.seconds_per_step(recipe, prepared, n=3) < 1


def test_timing_ends_early_when_it_takes_too_long(prepared, monkeypatch):
    steps = []
    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda self, rgb, n: [steps.append(n), step(self, rgb, n)])
    comparison.seconds_per_step(Recipe("x", "", "tiny", size=16, batch_size=4), prepared, n=50, most=0)
    assert len(steps) == 3 + 2


def test_all_get_the_same_time_and_stand_in_one_table(prepared, tmp_path, known):
    runs = comparison.compare(known, prepared, tmp_path, 4, **SMALL)
    assert list(runs) == known
    steps = [run.facts["step"] // run.facts["epoch"] * len(run.history) for run in runs.values()]
    assert steps == [40, 40]  # four seconds at a tenth of a second each
    val = loading.Photos(prepared.files("val"), 16)
    table = comparison.table(runs, val)
    assert table.MSE.is_monotonic_increasing and set(table.index) == set(known)
    floors = runs["quick"].facts["floors"]
    row = table.loc["quick"]
    assert row["of the mean-colour floor"] == pytest.approx(row.MSE / floors["train_mean"], abs=2e-3)
    assert row.epochs == 10 and row["starting weights"] == "none"
    assert runs["rare"].facts["prior"] and runs["quick"].facts["prior"] is None
    assert "chroma" not in comparison.table(runs)


def test_chroma_is_the_predictions_over_the_truths(prepared, tmp_path, known):
    runs = comparison.compare(["quick"], prepared, tmp_path, 0.4, **SMALL)
    val = loading.Photos(prepared.files("val"), 16)
    photos = torch.stack([val[0, i] for i in range(len(val))])
    L, ab = color.rgb_to_lab(photos)
    with torch.no_grad():
        pred_ab = runs["quick"].model()(L)
    expected = (pred_ab**2).sum(dim=1).sqrt().mean() / (ab**2).sum(dim=1).sqrt().mean()
    assert comparison.table(runs, val).chroma.item() == pytest.approx(expected.item(), abs=6e-3)


def test_an_interrupted_comparison_goes_on_with_the_steps_it_had(prepared, tmp_path, known, monkeypatch):
    whole = comparison.compare(known, prepared, tmp_path / "whole", 2, **SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(training, "_finished", lambda recipe, history: len(history) >= 3)
        comparison.compare(["quick"], prepared, tmp_path / "twice", 2, **SMALL)
    monkeypatch.setattr(comparison, "seconds_per_step", lambda *args, **kwargs: 0.3)  # the machine is busy now
    again = comparison.compare(known[:1], prepared, tmp_path / "twice", 2, **SMALL)
    columns = ["epoch", "train_loss", "val_loss", "val_mse", "lr"]
    pd.testing.assert_frame_equal(again["quick"].history[columns], whole["quick"].history[columns])


def test_one_that_fails_is_reported_and_the_others_go_on(prepared, tmp_path, known, monkeypatch, capsys):
    fit = training.fit

    def failing(recipe, *args):
        if recipe.name == "quick":
            raise MemoryError("a batch of 4 photos does not fit")
        return fit(recipe, *args)

    monkeypatch.setattr(training, "fit", failing)
    assert list(comparison.compare(known, prepared, tmp_path, 0.2, **SMALL)) == ["rare"]
    assert "quick is left out: a batch of 4 photos does not fit" in capsys.readouterr().out


def test_a_comparison_with_other_settings_is_refused(prepared, tmp_path, known):
    comparison.compare(["quick"], prepared, tmp_path, 0.2, **SMALL)
    with pytest.raises(ValueError, match="quick was begun with other settings: choose another folder"):
        comparison.compare(["quick"], prepared, tmp_path, 0.2, **{**SMALL, "size": 20})


def test_one_photo_recipes_do_not_take_part(prepared, tmp_path):
    with pytest.raises(ValueError, match=r"^alpha learns a single photo"):
        comparison.compare(["alpha"], prepared, tmp_path, 1)


def test_when_all_fail_that_is_the_error(prepared, tmp_path, known, capsys):
    with pytest.raises(ValueError, match="none of the recipes could be trained"):
        comparison.compare(["quick"], prepared, tmp_path, 1, **{**SMALL, "optimizer": "nonsense"})
    assert "quick is left out: there is no optimizer 'nonsense'" in capsys.readouterr().out


def test_on_a_new_machine_it_goes_on_from_the_mirror(prepared, tmp_path, known, monkeypatch):
    first = comparison.compare(["quick"], prepared, tmp_path / "old", 1, mirror=tmp_path / "drive", **SMALL)
    monkeypatch.setattr(comparison, "seconds_per_step", lambda *args, **kwargs: pytest.fail("timed again"))
    again = comparison.compare(["quick"], prepared, tmp_path / "new", 1, mirror=tmp_path / "drive", **SMALL)
    assert again["quick"].history.equals(first["quick"].history)


def test_pictures_are_rows_of_the_same_photos(prepared, tmp_path, known):
    runs = comparison.compare(known, prepared, tmp_path, 0.2, **SMALL)
    rows = comparison.pictures(runs, prepared.files("val"))
    assert [len(row) for row in rows] == [3] * 4
    assert len({rgb.shape for row in rows for rgb in row}) == 1
    grey, truth, *_ = rows
    assert (grey[0][..., 0] == grey[0][..., 2]).all() and not (truth[0][..., 0] == truth[0][..., 2]).all()


def test_the_figure_has_a_line_for_each_and_the_floors(prepared, tmp_path, known):
    runs = comparison.compare(known, prepared, tmp_path, 1, **SMALL)
    (ax,) = plots.comparison(runs).axes
    for line, run in zip(ax.lines, runs.values()):
        assert line.get_ydata().tolist() == run.history.val_mse.tolist()
        assert line.get_xdata()[-1] == pytest.approx(run.history.seconds.sum() / 60)
    assert sorted(line.get_ydata()[0] for line in ax.lines[2:]) == sorted(run.facts["floors"].values())
    low, high = ax.get_ylim()
    assert low < min(run.facts["val_mse"] for run in runs.values()) and high > run.facts["floors"]["grey"]


def test_the_size_of_a_checkpoint_is_foretold(prepared, tmp_path, known):
    for changes in ({}, {"ema": 0.9}, {"optimizer": "RMSprop"}, {"optimizer": "AdamW"}):
        recipe = recipes.get("rare", model="autoencoder", **{**SMALL, "n_epochs": 1, **changes})
        run = training.fit(recipe, prepared, tmp_path / str(changes))
        file = run.dir / checkpoints.newest(run.dir, "last")[0]["file"]
        foretold = comparison.checkpoint_bytes(recipe, models.build(recipe.model))
        assert foretold == pytest.approx(file.stat().st_size, rel=0.02)


def test_the_overview_has_a_row_for_each_recipe():
    frame = comparison.overview(["alpha", "resnet18"], side=32)
    assert frame.index.tolist() == ["alpha", "resnet18"]
    assert frame.loc["resnet18", "starts from"] == "ImageNet" and frame.loc["alpha", "starts from"] == "none"
    parameters, multiply_adds = models.cost("resnet18")
    assert frame.loc["resnet18", "parameters"] == pytest.approx(parameters / 1e6, abs=0.005)
    assert frame.loc["resnet18", "multiply-adds"] == pytest.approx(multiply_adds / 1e9, abs=0.005)
    assert (frame["photos/s"] > 0).all()


def test_the_command_leaves_a_table_a_figure_and_a_grid(prepared, tmp_path, known, monkeypatch, capsys):
    settings = [f"{name}={value}" for name, value in SMALL.items()]
    monkeypatch.setattr(comparison.recipes, "RECIPES", RECIPES)
    monkeypatch.setenv("COLORLIB_PRESET", "sample")  # which it would set
    comparison.main(
        [str(prepared.folder), str(tmp_path), "--minutes", "0.005", "--recipes", *known, "--set", *settings]
    )
    assert {p.name for p in tmp_path.iterdir()} >= {"comparison.csv", "comparison.png", "grid.png", *known}
    table = pd.read_csv(tmp_path / "comparison.csv", index_col="recipe")
    assert set(table.index) == set(known) and "quick" in capsys.readouterr().out
