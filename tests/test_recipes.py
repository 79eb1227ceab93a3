"""The recipes are those of the documents, and so are the published numbers."""

import dataclasses
import os
import re
from pathlib import Path

import pytest
import torch

from colorlib import color, metrics, models, recipes, runtime
from colorlib.loading import Batches, Photos, loader
from colorlib.recipes import LIKE_000, PUBLISHED, RECIPES, Recipe
from colorlib.trainer import Trainer

PHOTOS = Path(os.environ.get("COLORLIB_PHOTOS") or Path(__file__).parents[2] / "shared" / "photos")

NAMES = (
    *("resnet34", "resnet18", "simple_cnn", "resnet34_x8", "resnet34_deep", "alpha", "beta", "fusion"),
    *("zhang", "zhang_mse", "autoencoder", "unet34", "unet18"),
)


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


def differing(name, other):
    """The fields in which two recipes differ."""
    one, other = (dataclasses.asdict(recipes.get(recipe)) for recipe in (name, other))
    return {field for field in one if one[field] != other[field]}


def test_resnet34_is_trained_as_document_000_says(t4):
    recipe = recipes.get("resnet34")
    assert dataclasses.asdict(recipe) == {
        "name": "resnet34",
        "source": "document 000",
        "model": "resnet34",
        "size": 224,
        "resize": "squash",
        "crop": 1.0,
        "zoom": None,
        "flip": True,
        "gamma": 0.0,
        "sharpness": 0.0,
        "grain": 0.0,
        "one_photo": False,
        "loss": "mse",
        "rebalance": None,
        "encoder_weights": "imagenet",
        "batch_size": 128,
        "optimizer": "Adam",
        "lr": 0.001,
        "encoder_lr": 1.0,
        "weight_decay": 0.0,
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
    assert recipe.optimizer == "Adam" and "Optimizer: Adam" in text
    assert recipe.loss == "mse" and "Loss function: mean squared error (MSE)" in text
    assert recipe.encoder_weights == "imagenet" and "the power of pretrained models" in text


def test_settings_of_the_original_stand_in_the_text_of_document_000(t4, source_text):
    recipe = recipes.get("resnet18")
    assert recipe.batch_size == number(r"batch size was increased from (\d+) to 128", source_text("000"))
    assert recipe.model == "resnet18" and "Resnet 18 model used in the original" in source_text("000")
    assert differing("resnet34", "resnet18") == {"name", "model", "batch_size"}


def test_settings_stand_in_the_text_of_document_001(t4, source_text):
    text, recipe = source_text("001"), recipes.get("resnet34_x8")
    assert recipe.lr == number(r"maximum learning rate of ([\d.]*\d)", text)
    assert recipe.n_epochs == number(r"CNN model for (\d+) epochs", text)
    assert recipe.batch_size == number(r"batch size can be increased from (\d+) to", text)
    assert recipe.size == number(r"small images of size (\d+)x", text)
    assert recipe.schedule == "cyclic" and "using cyclic learning rates" in text
    assert recipe.loss == "mse" and "a regression problem" in text
    assert recipe.encoder_weights == "imagenet" and "we used the pretrained ResNet34 model" in text
    assert not recipe.flip and not re.search("flip|mirror|augment", text)
    assert (recipe.cycle_epochs, recipe.subset, recipe.patience) == (None, 1.0, None)
    last = recipes.get("resnet34_deep")
    assert last.batch_size == number(r"batch size can be increased from 32 to (\d+)", text)
    assert differing("resnet34_x8", "resnet34_deep") == {"name", "model", "batch_size"}


def test_settings_of_the_first_network_stand_in_the_text_of_document_001(t4, source_text):
    text, recipe = source_text("001"), recipes.get("simple_cnn")
    assert recipe.n_epochs == number(r"We trained this CNN model for (\d+) epochs and the validation MSE", text)
    assert text.index("We trained this CNN model") < text.index("In the second model") < text.index("cyclic")
    assert (recipe.schedule, recipe.loss, recipe.encoder_weights, recipe.flip) == ("constant", "mse", "none", False)
    assert recipe.size == number(r"small images of size (\d+)x", text)


def test_settings_stand_in_the_text_of_document_002(t4, source_text):
    text = source_text("002")
    assert "alpha version implemented is trained and tested on the same image" in text
    assert "The loss function used here is MSE" in text
    assert "parallelly uses the Inception ResNetV2 classifier" in text
    three = [recipes.get(name) for name in ("alpha", "beta", "fusion")]
    assert [recipe.one_photo for recipe in three] == [True, False, False]
    assert {(recipe.loss, recipe.rebalance) for recipe in three} == {("mse", None)}
    assert [recipe.encoder_weights for recipe in three] == ["none", "none", "imagenet"]
    assert differing("beta", "fusion") == {"name", "model", "frozen", "encoder_weights"}
    assert three[2].frozen == ("classifier",)  # the loss is to train the other parts


def test_settings_stand_in_the_text_of_document_003(t4, source_text):
    text, recipe = source_text("003"), recipes.get("zhang")
    assert recipe.loss == "cross-entropy" and "essentially a cross entropy loss function" in text
    assert 0 <= recipe.rebalance < 1 and "multiplied by class weights" in text
    assert recipe.size == number(r"3 channels of (\d+)x256 pixels", text)
    assert recipes.get("zhang_mse").loss == "mse" and "so I switched to mean squared error loss" in text
    assert differing("zhang", "zhang_mse") == {"name", "loss", "rebalance"}
    assert recipes.get("zhang_mse").rebalance is None


def test_settings_stand_in_the_text_of_document_004(t4, source_text):
    text, recipe = source_text("004"), recipes.get("autoencoder")
    assert recipe.size == number(r"Resize the color images to (\d+) x", text) and recipe.resize == "squash"
    assert recipe.encoder_weights == "none" and "Convolutional Neural Network from scratch" in text
    assert recipe.loss == "mse" and "training the whole network to minimize the reconstruction error" in text
    assert not recipe.flip and not re.search("flip|mirror|augment", text)


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
    assert set(PUBLISHED.recipe) <= set(RECIPES)
    assert not PUBLISHED.duplicated(["recipe", "data", "measure", "source"]).any()


def test_there_is_a_recipe_for_every_system_and_every_network():
    assert tuple(RECIPES) == NAMES
    assert {recipe.model for recipe in RECIPES.values()} == set(models.MODELS)
    assert {recipe.source for recipe in RECIPES.values()} == {"ours", *(f"document 00{k}" for k in range(5))}


@pytest.mark.parametrize("preset", runtime.PRESETS)
@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_goes_by_its_name_and_can_be_trained_with(monkeypatch, name, preset):
    monkeypatch.setenv("COLORLIB_PRESET", preset)
    monkeypatch.setattr(runtime, "device", lambda: torch.device("cpu"))
    recipe = recipes.get(name)
    assert recipe.name == name
    with torch.random.fork_rng():
        trainer = Trainer(recipe, 3)  # complains about a model, loss, optimizer, schedule or part that does not exist
    assert type(trainer.optimizer).__name__ == recipe.optimizer
    assert (recipe.encoder_weights == "imagenet") == bool(trainer.model.backbone)
    assert recipe.encoder_weights in ("imagenet", "none")
    # A share of the rate that applies to nothing, or to all, would be a mistake.
    groups = {group["initial_lr"] for group in trainer.optimizer.param_groups}
    rates = {recipe.lr, recipe.lr * recipe.encoder_lr}
    assert len(groups) == len(rates)


def test_what_is_cut_out_is_what_the_network_sees(t4):
    seen = {name: recipes.get(name).seen for name in NAMES}
    whole = {name: recipes.get(name).size for name in NAMES}
    assert seen == whole | {"unet34": 224, "unet18": 224} and whole["unet34"] == 256


@pytest.mark.parametrize(
    ("size", "crop", "side"),
    [(64, 0.875, 64), (144, 8 / 9, 128), (100, 0.777, 80), (20, 0.1, 16), (61, 1.0, 61), (16, 0.9, 16)],
)
def test_a_crop_needs_no_growing_to_be_divided_by_16(size, crop, side):
    assert recipes.get("unet34", size=size, crop=crop).seen == side


def test_the_two_sizes_of_our_network_are_trained_alike():
    assert differing("unet34", "unet18") == {"name", "model"}


@pytest.mark.parametrize("frozen", ["encoder", ["encoder"], ("encoder",)])
def test_frozen_parts_are_kept_as_a_tuple(frozen):
    assert recipes.get("resnet34", frozen=frozen).frozen == ("encoder",)  # JSON has lists


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


# --- the floors on photos like document 000's ---

TRAIN_MEAN = [1.989, 7.371]  # mean ab of the 16,000 training photos: the one that LIKE_000's mean colour is
FOLDERS = {"ImageNet": "objects", "CVPR09": "indoor", "CelebA": "faces"}


def floors_on(name, **photos):
    """Means of the floors over the real photos that stand for a data set: `({floor: MSE}, number of photos)`."""
    files = sorted((PHOTOS / "test" / FOLDERS[name]).glob("*.jpg"))
    if not files:
        pytest.skip(f"there are no real photos at {PHOTOS}; COLORLIB_PHOTOS may point to them")
    rows = []
    for rgb in loader(Photos(files, **photos, seed=None), Batches(range(len(files)), 50)):
        ab = color.rgb_to_lab(rgb)[1]
        errors = metrics.errors(torch.zeros_like(ab), ab, TRAIN_MEAN)
        assert torch.equal(errors["mse"], errors["mse_grey"])
        rows.append(torch.stack([errors[f"mse_{floor}"] for floor in metrics.FLOORS], dim=1).double())
    return dict(zip(metrics.FLOORS, torch.cat(rows).mean(dim=0).tolist())), len(files)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", FOLDERS)
def test_the_floors_like_document_000s_are_those_of_the_real_photos(name):
    """On the middle 128 x 128 of photos at short side 144."""
    found, n = floors_on(name, size=144, resize="crop", crop=128)
    assert {floor: LIKE_000[floor][name] for floor in metrics.FLOORS} == pytest.approx(found, rel=0.01)
    assert LIKE_000["measured by us on"][name].startswith(f"{n} ")


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("name", "grey"), [("ImageNet", 0.00389), ("CVPR09", 0.00402), ("CelebA", 0.00353)])
def test_squashed_as_in_document_000_grey_costs_what_is_said_beside_them(name, grey):
    assert floors_on(name, size=224)[0]["grey"] == pytest.approx(grey, rel=0.01)


def test_on_photos_like_its_own_document_000_beats_grey_only_on_imagenet(source_text):
    """What 03 says in words, from the document's figures and these floors."""
    figures = {name: float(figure) for name, figure in re.findall(r"(\w+) \(([\d.]+)\)", source_text("000"))}
    assert {name: figures[name] for name in LIKE_000.index} == {"ImageNet": 0.0027, "CVPR09": 0.0047, "CelebA": 0.0058}
    check_words({name: figures[name] for name in LIKE_000.index})


def test_so_say_the_figures_in_the_table_of_what_is_published():
    stated = PUBLISHED[(PUBLISHED.source == "document 000") & (PUBLISHED.measure == "MSE")]
    check_words(dict(zip(stated.data, stated.published)))


def check_words(figures):
    of_grey = {name: figures[name] / LIKE_000.grey[name] for name in LIKE_000.index}
    of_mean = {name: figures[name] / LIKE_000.train_mean[name] for name in LIKE_000.index}
    assert round(of_mean["ImageNet"], 2) == 0.76 and of_grey["ImageNet"] < 1
    assert of_grey["CVPR09"] > 1 and of_grey["CelebA"] > 1
    assert (round(LIKE_000.grey["CelebA"], 4), round(LIKE_000.grey["CVPR09"], 4)) == (0.0038, 0.0042)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_floors_are_in_their_order(name):
    line = LIKE_000.loc[name]
    assert 0 < line.oracle < line.train_mean < line.grey


def test_03_and_the_readme_say_the_same_in_words():
    root = Path(__file__).parents[1]
    text = (root / "notebooks" / "03_evaluate.py").read_text().replace("\n# ", " ")
    assert "an error of 0.0058 is worse than leaving them grey**, which costs 0.0038" in text
    assert "0.0047 indoors, where grey costs 0.0042" in text
    assert "its 0.0027 is 0.76 of the mean colour's error" in text
    text = (root / "README.md").read_text().replace("\n", " ")
    assert "reports 0.0058 on CelebA and 0.0047 on CVPR09. On the faces and rooms above, all grey costs 0.0038" in text
    assert "Its 0.0027 on ImageNet is 0.76 of the mean colour's error" in text
    for line in LIKE_000.itertuples():  # the tables above
        below = text[text.index(f"| {line[1]} |") :]
        mses = below.split("| MSE on `ab_unit` |")[1].split("|")
        assert [float(mse.split()[0]) for mse in mses[:3]] == [line.grey, line.train_mean, line.oracle]
