"""The recipes are those of the documents, and so are the published numbers."""

import dataclasses
import re

import pytest

from colorlib import models, recipes, runtime
from colorlib.recipes import PUBLISHED, RECIPES, Recipe


@pytest.fixture
def t4(monkeypatch):
    monkeypatch.setenv("COLORLIB_PRESET", "t4")


def number(pattern, text):
    """The one number that the text states there."""
    (found,) = set(re.findall(pattern, text))
    return float(found)


def published(data, measure, **where):
    """`{recipe: figure}` of one data set and measure."""
    rows = PUBLISHED[(PUBLISHED.data == data) & (PUBLISHED.measure == measure)]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return dict(zip(rows.recipe, rows.published))


def test_resnet34_is_trained_as_document_000_says(t4):
    recipe = recipes.get("resnet34")
    assert dataclasses.asdict(recipe) == {
        "name": "resnet34",
        "source": "document 000",
        "model": "resnet34",
        "size": 224,
        "resize": "squash",
        "flip": True,
        "encoder_weights": "imagenet",
        "batch_size": 128,
        "optimizer": "Adam",
        "lr": 0.001,
        "schedule": "constant",
        "cycle_epochs": None,
        "clip": None,
        "ema": None,
        "frozen": (),
        "n_epochs": 40,
        "subset": 0.4,
        "phase_epochs": 10,
        "patience": 5,
        "precision": "auto",
        "sync_bn": False,
        "seed": 0,
    }


def test_settings_stand_in_the_text_of_document_000(t4, source_text):
    text, recipe = source_text("000"), recipes.get("resnet34")
    assert recipe.size == number(r"resized to (\d+) x \d+ to fit", text)
    assert recipe.batch_size == number(r"Batch size: (\d+)", text)
    assert recipe.lr == number(r"Learning rate: ([\d.]+)", text)
    assert recipe.subset == number(r"(\d+)% of images is randomly selected", text) / 100
    assert recipe.phase_epochs == number(r"for every (\d+) epochs", text)
    assert recipe.n_epochs == number(r"total of (\d+) epochs", text)
    assert recipe.flip and number(r"flipped with a probability of ([\d.]+) for training", text) == 0.5
    assert recipe.patience == 5 and "did not improve for five consecutive epochs" in text
    assert "Optimizer: Adam" in text


def test_settings_of_the_original_stand_in_the_text_of_document_000(t4, source_text):
    recipe = recipes.get("resnet18")
    assert recipe.batch_size == number(r"batch size was increased from (\d+) to 128", source_text("000"))
    assert recipe.model == "resnet18" and "Resnet 18 model used in the original" in source_text("000")
    same = dataclasses.replace(recipe, name="resnet34", model="resnet34", batch_size=128)
    assert same == recipes.get("resnet34")


def test_settings_stand_in_the_text_of_document_001(t4, source_text):
    text, recipe = source_text("001"), recipes.get("resnet34_cyclic")
    assert recipe.lr == number(r"maximum learning rate of ([\d.]*\d)", text)
    assert recipe.n_epochs == number(r"CNN model for (\d+) epochs", text)
    assert recipe.batch_size == number(r"batch size can be increased from 32 to (\d+)", text)
    assert recipe.schedule == "cyclic" and "using cyclic learning rates" in text
    assert (recipe.cycle_epochs, recipe.subset, recipe.patience) == (None, 1.0, None)


def test_published_figures_stand_in_document_000(source_text):
    text = source_text("000")
    for data, figure in re.findall(r"(ImageNet|CVPR09|CelebA) \(([\d.]+)\)", text):
        assert published(data, "MSE") == {"resnet34": float(figure)}
    assert published("study", "accuracy") == {"resnet34": number(r"average of (\d+)% accuracy", text) / 100}
    assert (PUBLISHED.source == "document 000").sum() == 4


def test_published_figures_stand_in_document_001(source_text):
    text = source_text("001")
    (table,) = re.findall(r"MSE\n([\d.]+)\n([\d.]+) ([\d.]+)\n", text)
    expected = dict(zip(("simple_cnn", "resnet34_x8", "resnet34_deep"), map(float, table)))
    assert published("Places365", "MSE") == expected
    (groups,) = re.findall(r"Success Medium Failure\nPercentage in total\n([\d.]+)% ([\d.]+)% ([\d.]+)%", text)
    for group, share in zip(("success", "medium", "failure"), groups):
        assert published("study", f"graded {group}") == {"resnet34_deep": pytest.approx(float(share) / 100)}
    assert (PUBLISHED.source == "document 001").sum() == 6


def test_published_figure_of_document_003_stands_there(source_text):
    share = number(r"for about (\d+)% of instances", source_text("003")) / 100
    assert published("study", "fool rate", source="document 003") == {"zhang": share}


def test_every_published_figure_says_where_it_is_from():
    assert PUBLISHED.columns.tolist() == ["recipe", "data", "measure", "published", "source", "protocol"]
    assert PUBLISHED.published.between(0, 1).all()
    assert PUBLISHED.source.str.fullmatch(r"document \d{3}").all()
    assert (PUBLISHED.protocol.str.len() > 0).all()
    assert not PUBLISHED.duplicated(["recipe", "data", "measure", "source"]).any()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_goes_by_its_name_and_its_model_exists(name):
    assert recipes.get(name).name == name
    assert RECIPES[name].model in models.MODELS


def test_the_sample_preset_makes_it_small_and_your_changes_come_last(monkeypatch):
    monkeypatch.setenv("COLORLIB_PRESET", "sample")
    small = recipes.get("resnet34", size=32)
    changes = runtime.PRESETS["sample"].recipe_changes
    assert small == dataclasses.replace(RECIPES["resnet34"], **{**changes, "size": 32})
    assert changes["size"] != 32


@pytest.mark.parametrize("preset", runtime.PRESETS)
def test_presets_change_settings_that_exist(preset):
    assert set(runtime.PRESETS[preset].recipe_changes) <= {field.name for field in dataclasses.fields(Recipe)}


def test_an_unknown_recipe_is_answered_with_the_names():
    with pytest.raises(ValueError, match=r"^there is no recipe 'resnet99'; choose one of resnet34.*\.$"):
        recipes.get("resnet99")


def test_an_unknown_setting_is_answered_with_those_that_exist():
    with pytest.raises(
        ValueError, match=r"^a recipe has no epochs, rate; it has name, .*batch_size, optimizer, lr, .*seed\.$"
    ):
        recipes.get("resnet34", rate=1, epochs=2, size=32)


def test_a_recipe_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPES["resnet34"].lr = 1
