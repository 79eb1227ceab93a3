"""Per-photo errors against slow computations of the same; the file of them, however often it is broken off."""

import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pictures import crops, save
from PIL import Image
from skimage.color import rgb2lab
from test_datasets import FACES, LAYOUTS, LISTED, OTHER_FILES
from test_metrics import float_ciede2000, float_ssim, slow_colourfulness, slow_psnr
from web import Site, pack

from colorlib import (
    checkpoints,
    color,
    data,
    datasets,
    downloads,
    evaluation,
    failures,
    loading,
    losses,
    metrics,
    models,
    recipes,
    runs,
    runtime,
    tables,
)
from colorlib import photos as photo_files
from colorlib.evaluation import Predictor, evaluate, held_out, main, measure
from colorlib.loading import Photos

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def files(prepared):
    return prepared.files("train")


@pytest.fixture(scope="module")
def photos(files):
    return Photos(files, 64, "crop")  # they are 80 x 64: nothing is resized


@pytest.fixture(scope="module")
def train_mean(files):
    return loading.mean_ab(files)


@pytest.fixture
def rows(photos, painter, train_mean):
    return evaluate(painter, photos, train_mean, batch_size=4)


@pytest.fixture(scope="module")
def lab(files):
    """L and ab of the middle of every photo in 64 bits, by scikit-image."""
    photo_lab = np.stack([rgb2lab(np.asarray(Image.open(f), dtype=np.float64)[:, 8:72] / 255) for f in files])
    return photo_lab[..., :1], photo_lab[..., 1:]


class Answer(torch.nn.Module):
    """Gives back what it was made with, whatever it is asked."""

    def __init__(self, ab):
        super().__init__()
        self.ab = torch.nn.Parameter(torch.as_tensor(ab))

    def forward(self, L):
        return self.ab.expand(len(L), 2, *L.shape[-2:])


def test_chroma_is_the_mean_distance_from_grey(photos, painter, rows):
    for i, row in enumerate(rows.itertuples()):
        L, ab = color.rgb_to_lab(photos[0, i][None])
        with torch.no_grad():
            pred_ab = painter(L)
        for found, colours in ((row.chroma, pred_ab), (row.true_chroma, ab)):
            assert found == pytest.approx(np.hypot(*colours[0].double().numpy()).mean(), rel=1e-5)


def test_errors_equal_a_slow_computation(rows, files, lab, train_mean):
    L, ab = lab
    predictions = {
        "mse": np.array([60, 45]) * np.sin(L / 15),  # what the painter does
        "mse_grey": np.zeros(2),
        "mse_train_mean": train_mean.double().numpy(),
        "mse_oracle": ab.mean(axis=(1, 2), keepdims=True),
    }
    assert rows.columns.tolist() == ["file", *predictions, "chroma", "true_chroma"]
    assert rows.file.tolist() == [str(f) for f in files]
    for name, pred_ab in predictions.items():
        unit = [(x + 128) / 255 for x in (pred_ab, ab)]
        np.testing.assert_allclose(rows[name], ((unit[0] - unit[1]) ** 2).mean(axis=(1, 2, 3)), rtol=1e-4)


def test_grey_row_is_the_mean_square_of_ab(rows, lab):
    np.testing.assert_allclose(rows.mse_grey, ((lab[1] / 255) ** 2).mean(axis=(1, 2, 3)), rtol=1e-4)


def test_no_constant_beats_the_oracle(rows):
    assert (rows.mse_oracle <= rows.mse_grey).all()
    assert (rows.mse_oracle <= rows.mse_train_mean).all()


def test_the_truth_scores_zero(photos, train_mean):
    _, ab = color.rgb_to_lab(torch.stack([photos[0, i] for i in range(len(photos))]))
    rows = evaluate(Answer(ab), photos, train_mean, batch_size=len(photos))
    assert (rows.mse == 0).all()
    assert (rows.mse_oracle > 0).all()


def test_a_constant_model_reaches_exactly_its_floor(photos, train_mean):
    rows = evaluate(Answer(train_mean.view(1, 2, 1, 1)), photos, train_mean.tolist())
    assert (rows.mse == rows.mse_train_mean).all()
    assert tables.table({"model": rows}).explained["model"] == 0


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_batches_do_not_matter(rows, photos, painter, train_mean, batch_size):
    again = evaluate(painter, photos, train_mean, batch_size)
    pd.testing.assert_frame_equal(again, rows, rtol=1e-5)


def test_a_part_of_the_photos_can_be_chosen(rows, photos, painter, train_mean):
    parts = [evaluate(painter, photos, train_mean, 4, chosen=range(k, len(photos), 2)) for k in (1, 0)]
    pd.testing.assert_frame_equal(pd.concat(parts).sort_index(), rows, rtol=1e-5)


@pytest.mark.parametrize("precision", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_network_computes_in_the_precision_asked_for(photos, train_mean, precision):
    torch.manual_seed(0)
    model, used = torch.nn.Conv2d(1, 2, 1), []
    model.to(torch.float64 if precision == torch.float64 else torch.float32)
    exact = evaluate(model, photos, train_mean, precision=next(model.parameters()).dtype)
    model.register_forward_hook(lambda module, inputs, output: used.append(output.dtype))
    rows = evaluate(model, photos, train_mean, precision=precision)
    assert set(used) == {precision}
    pd.testing.assert_frame_equal(rows, exact, rtol=0.05)
    np.testing.assert_array_equal(rows.mse_oracle, exact.mse_oracle)  # only the network's arithmetic is coarser


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_judged_in_evaluation_mode_and_left_as_it_was(photos, train_mean, training):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2)).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = []
    model.register_forward_hook(lambda module, *_: modes.append((module.training, torch.is_grad_enabled())))
    evaluate(model, photos, train_mean)
    assert set(modes) == {(False, False)}
    assert model.training == training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_mse_is_that_of_ab_over_255():
    ab, pred_ab = torch.zeros(2, 2, 4, 4), torch.zeros(2, 2, 4, 4)
    pred_ab[1, 0] = 51  # a fifth of the scale, in one channel of two, in the second photo
    np.testing.assert_allclose(losses.mse_per_photo(pred_ab, ab), [0, 0.02], rtol=1e-6)


# ------------------------------------------------------------------------------------ measure: a row for every photo

HOW = {"batch_size": 2, "part": 3}
MEAN = [3.0, 8.0]


class Mild(torch.nn.Module):
    """Faint colours, which sRGB can show at nearly every lightness."""

    def __init__(self):
        super().__init__()
        self.chroma = torch.nn.Parameter(torch.tensor([-6.0, 9.0]).view(1, 2, 1, 1))

    def forward(self, L):
        return self.chroma * (L / 30).cos() * L * (100 - L) / 2500


class Killed(BaseException):
    pass


@pytest.fixture
def judged():
    return Predictor("mild", Mild(), MEAN, "ab" * 32, 32, "crop")


def answering(model):
    """A predictor that is this model, judged on the middle of these photos as they are."""
    return Predictor("model", model, MEAN, "cd" * 32, 64, "crop")


def truth(files):
    """Photos as `measure` has them by default here: rgb, L, ab."""
    photo_set = Photos(files, 64, "crop", seed=None)
    rgb = torch.stack([photo_set[0, i] for i in range(len(files))])
    return rgb, *color.rgb_to_lab(rgb)


def seen(model):
    """A list of the sizes of all batches that a model is given from now on."""
    sizes = []
    model.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    return sizes


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def of_pictures(frame):
    return [name for name in frame if name.startswith(metrics.OF_PICTURES)]


def test_file_has_the_same_errors_as_are_found_in_memory(painter, files, photos, tmp_path):
    found = measure(answering(painter), files, tmp_path / "rows.csv", part=0)
    expected = evaluate(painter, photos, MEAN)
    assert found.columns.tolist() == ["file", "fault", *evaluation.COLUMNS]
    pd.testing.assert_frame_equal(found[expected.columns], expected, rtol=1e-6)
    np.testing.assert_allclose(found.mse_ab, expected.mse * 65025, rtol=1e-6)
    np.testing.assert_allclose(found.rmse_ab, expected.mse**0.5 * 255, rtol=1e-6)
    np.testing.assert_allclose(found.explained, 1 - expected.mse / expected.mse_train_mean, rtol=1e-5)
    assert (found.fault == "").all() and found[of_pictures(found)].isna().all(axis=None)
    pd.testing.assert_frame_equal(evaluation.read(tmp_path / "rows.csv"), found)


def test_metrics_of_pictures_are_those_of_independent_calls_for_the_model_and_all_floors(painter, files, tmp_path):
    files = files[:3]
    found = measure(answering(painter), files, tmp_path / "rows.csv", batch_size=2)
    rgb, L, ab = truth(files)
    with torch.no_grad():
        guesses = {"": painter(L), "_grey": 0 * ab, "_oracle": ab.mean(dim=(2, 3), keepdim=True).expand_as(ab)}
    guesses["_train_mean"] = torch.tensor(MEAN).view(1, 2, 1, 1).expand_as(ab)
    expected = {}
    for of, guess in guesses.items():
        pairs = [[p.permute(1, 2, 0).numpy() for p in pair] for pair in zip(rgb, color.lab_to_rgb(L, guess))]
        expected[f"ciede2000{of}"] = [float_ciede2000(*pair) for pair in pairs]
        expected[f"psnr{of}"] = [slow_psnr(*pair) for pair in pairs]
        expected[f"ssim{of}"] = [float_ssim(*pair) for pair in pairs]
        expected[f"colourfulness{of}"] = [slow_colourfulness(coloured) for _, coloured in pairs]
    expected["colourfulness_true"] = [slow_colourfulness(picture.permute(1, 2, 0).numpy()) for picture in rgb]
    ratios = zip(expected["colourfulness"], expected["colourfulness_true"])
    expected["colourfulness_ratio"] = [ours / true for ours, true in ratios]
    assert {*expected} == {*of_pictures(found)}
    for name, values in expected.items():
        # Seven digits are written; neutral pictures are within 1 of 255 of no colour, in which 32 bits show.
        np.testing.assert_allclose(found[name], values, rtol=2e-6, atol=1e-4 if "colour" in name else 0, err_msg=name)


def test_mse_is_that_of_the_saved_pictures_opened_by_others(files, lab, tmp_path):
    found = measure(answering(Mild()), files, tmp_path / "rows.csv", part=0)
    _, L, _ = truth(files)
    with torch.no_grad():
        pred_ab = Mild()(L)
    opened = []
    for i, rgb in enumerate(color.lab_to_rgb(L, pred_ab)):
        save(rgb.permute(1, 2, 0).numpy(), tmp_path / f"{i}.png")
        opened.append(rgb2lab(np.asarray(Image.open(tmp_path / f"{i}.png")).astype(np.float64) / 255)[..., 1:])
    mse = ((np.stack(opened) - lab[1]) ** 2).mean(axis=(1, 2, 3)) / 255**2
    # Rounding to 8 bits moves a and b by 0.2, in the dark by up to 0.5; the error is 6 to 20. By the triangle
    # inequality no photo's root can change by more than that, and over photos it goes both ways: under 1 %.
    rounding = ((np.stack(opened) - pred_ab.permute(0, 2, 3, 1).numpy()) ** 2).mean(axis=(1, 2, 3)) ** 0.5
    assert (rounding < 0.5).all()
    assert (np.abs(mse**0.5 - found.mse**0.5) <= rounding / 255).all()
    assert mse.mean() == pytest.approx(found.mse.mean(), rel=0.01)


def test_a_model_that_knows_the_truth_is_perfect_from_the_photos_to_the_table(files, tmp_path):
    files = files[:5]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)
        found = measure(answering(Answer(truth(files)[2])), files, tmp_path / "rows.csv")
        table = tables.table({"truth": found})
        text = tables.readable(table)
        tables.save(table, tmp_path / "table")
    exact = {"mse": 0, "mse_ab": 0, "rmse_ab": 0, "explained": 1, "psnr": np.inf, "ssim": 1, "ciede2000": 0}
    for name, value in (exact | {"colourfulness_ratio": 1}).items():
        assert (found[name] == value).all(), name
    assert found.chroma.equals(found.true_chroma) and found.colourfulness.equals(found.colourfulness_true)
    ours = text.loc["truth"]
    assert ours["PSNR (95 %)"] == "∞" and ours["MSE (95 %)"] == "0.00000"
    assert ours["SSIM (95 %)"] == "1.000" and ours["colourfulness ratio (95 %)"] == "1.00"
    assert "| ∞ |" in (tmp_path / "table.md").read_text(encoding="utf-8")
    assert pd.read_csv(tmp_path / "table.csv", index_col="predictor").PSNR["truth"] == np.inf


def test_all_grey_scores_what_the_grey_floor_does(files, tmp_path):
    files = files[:4]
    found = measure(answering(Answer(torch.zeros(1, 2, 1, 1))), files, tmp_path / "rows.csv")
    for name in ("mse", *metrics.OF_PICTURES):
        assert (found[name] == found[f"{name}_grey"]).all(), name
    assert (found.chroma == 0).all()
    assert (found.colourfulness < 2**0.5).all() and (found.colourfulness_ratio < 0.1).all()  # neutral to 1 of 255
    np.testing.assert_allclose(found.explained, 1 - found.mse_grey / found.mse_train_mean, rtol=1e-5)
    table = tables.table({"grey": found})
    assert table.loc["grey"].equals(table.loc["all grey"])


@pytest.mark.parametrize("swap", ["a and b", "R and B"])
def test_swapped_channels_score_what_they_should(swap, files, lab, tmp_path):
    files = files[:3]
    rgb, L, ab = truth(files)
    guess = ab.flip(1) if swap == "a and b" else color.rgb_to_lab(rgb.flip(1))[1]
    found = measure(answering(Answer(guess)), files, tmp_path / "rows.csv")
    a, b = np.moveaxis(lab[1][:3], 3, 0)
    if swap == "a and b":
        mse, chroma = ((a - b) ** 2).mean(axis=(1, 2)) / 255**2, found.true_chroma
    else:
        swapped = rgb2lab(rgb.flip(1).permute(0, 2, 3, 1).double().numpy() / 255)[..., 1:]
        mse, chroma = ((swapped - lab[1][:3]) ** 2).mean(axis=(1, 2, 3)) / 255**2, np.hypot(*swapped.T).T.mean((1, 2))
    np.testing.assert_allclose(found.mse, mse, rtol=1e-4)
    np.testing.assert_allclose(found.chroma, chroma, rtol=1e-4)
    for i, coloured in enumerate(color.lab_to_rgb(L, guess)):
        pair = [picture.permute(1, 2, 0).numpy() for picture in (rgb[i], coloured)]
        row = found.loc[i, ["ciede2000", "psnr", "ssim", "colourfulness"]].tolist()
        slow = [float_ciede2000(*pair), slow_psnr(*pair), float_ssim(*pair), slow_colourfulness(pair[1])]
        assert row == pytest.approx(slow, rel=1e-5)
        assert row[3] / slow_colourfulness(pair[0]) == pytest.approx(found.colourfulness_ratio[i], rel=1e-5)


def test_photos_without_colour_are_measured_without_a_warning(judged, tmp_path):
    grey = [save(np.full((70, 70, 3), v, dtype=np.uint8), tmp_path / f"{v}.png") for v in (0, 90, 255)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure(dataclasses.replace(judged, train_mean=[0.0, 0.0]), grey, tmp_path / "rows.csv")
    assert (found.fault == "").all() and found.mse.notna().all() and (found.mse_grey < 1e-9).all()
    assert (found.colourfulness_true == 0).all()
    assert np.isinf(found.colourfulness_ratio[1]) and np.isnan(found.colourfulness_ratio[0])  # black shows no colour


def test_size_and_resize_are_the_predictors_unless_told_otherwise(judged, files, tmp_path):
    judged, shapes = answering(judged.model), []
    judged.model.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
    asked = [{}, {"size": 32}, {"size": 32, "resize": "squash"}, {"size": 48, "crop": 20}, {"resize": "squash"}]
    found = [measure(judged, files[:1], tmp_path / f"{i}.csv", **how) for i, how in enumerate(asked)]
    assert shapes == [(1, 2, side, side) for side in (64, 32, 32, 20, 64)]
    assert len({rows.mse[0] for rows in found}) == 5
    for rows, settings in zip(found, [(64, "crop"), (32, "crop"), (32, "squash"), (48, "crop", 20), (64, "squash")]):
        size, resize, crop = (*settings, None)[:3]
        photo_set = Photos(files[:1], size, resize, seed=None, crop=crop)
        np.testing.assert_allclose(rows.mse, evaluate(judged.model, photo_set, MEAN).mse, rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_batches_of_a_file_do_not_matter(judged, files, tmp_path, batch_size):
    found, expected = (measure(judged, files[:5], tmp_path / f"{n}.csv", part=2, batch_size=n) for n in (batch_size, 3))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-5)


def test_no_photos_are_an_error_that_leaves_nothing(judged, tmp_path):
    with pytest.raises(ValueError, match="there are no photos to measure on"):
        measure(judged, [], tmp_path / "rows.csv")
    assert not contents(tmp_path)


def test_a_folder_that_cannot_be_written_to_is_told_before_anything_is_measured(judged, files, blocked):
    sizes = seen(judged.model)
    with pytest.raises(PermissionError, match=f"{blocked}: cannot be written to"):
        measure(judged, files, blocked / "rows.csv")
    assert not sizes


# ---------------------------------------------------------------------------------------------- the part for pictures


@pytest.mark.parametrize("part", [0, 1, 5, 15, 99])
def test_exactly_so_many_photos_have_metrics_of_pictures(judged, files, tmp_path, part):
    found = measure(judged, files, tmp_path / "rows.csv", part=part, batch_size=4)
    pictures = found[of_pictures(found)]
    assert pictures.notna().all(axis=1).sum() == min(part, 15)
    assert pictures.isna().all(axis=1).sum() == 15 - min(part, 15)
    assert found.mse.notna().all()


def test_the_part_depends_on_its_seed_alone(judged, files, tmp_path):
    def drawn(name, predictor=judged, **how):
        found = measure(predictor, files, tmp_path / f"{name}.csv", part=5, **how)
        return frozenset(found.file[found.psnr.notna()])

    same = [drawn("first"), drawn("other model", answering(Mild())), drawn("batches", batch_size=4)]
    assert len({*same}) == 1 and drawn("other seed", seed=1) != same[0]
    seeds = {drawn(f"seed {seed}", seed=seed) for seed in range(2, 8)}
    assert len(seeds) > 3 and len(frozenset().union(*seeds)) > 10  # it is not the first photos, or every third


# ------------------------------------------------------------------------------------------------ broken off, and on


@pytest.fixture(scope="module")
def seven(files):
    """Seven photos: four batches, the last one of a single photo."""
    return files[:7]


@pytest.fixture(scope="module")
def undisturbed(seven, tmp_path_factory):
    """What the files of `judged` are if nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed")
    measure(Predictor("mild", Mild(), MEAN, "ab" * 32, 32, "crop"), seven, folder / "rows.csv", **HOW)
    return contents(folder)


@pytest.fixture
def out(tmp_path):
    (tmp_path / "here").mkdir()
    return tmp_path / "here" / "rows.csv"


def at_call(number, original, error=Killed):
    """A function that fails when it is called for the `number`-th time."""
    calls = itertools.count(1)

    def instead(*args):
        if next(calls) == number:
            raise error
        return original(*args)

    return instead


@contextmanager
def dying(point, number, model, error=Killed):
    """Within it the `number`-th batch is the last."""
    with pytest.MonkeyPatch.context() as patch:
        hook = None
        if point == "in the network":
            hook = model.register_forward_pre_hook(at_call(number, lambda *_: None, error))
        elif point == "before the note":
            patch.setattr(evaluation, "_note", at_call(number, evaluation._note, error))
        else:
            patch.setattr(os, "replace", at_call(number, os.replace, error))
        yield
        if hook:
            hook.remove()


POINTS = ["in the network", "before the note", "in the note"]


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("point", POINTS)
def test_killed_and_started_again_it_ends_with_the_same_bytes(judged, seven, undisturbed, out, point, number, capsys):
    with dying(point, number, judged.model), pytest.raises(Killed):
        measure(judged, seven, out, **HOW)
    sizes = seen(judged.model)
    measure(judged, seven, out, **HOW)
    assert contents(out.parent) == undisturbed
    assert sizes == [2, 2, 2, 1][number - 1 :]  # only what was not noted is measured again
    assert "anew" not in capsys.readouterr().out


@pytest.mark.parametrize("torn", [b'"half a na', b"1.png,,0.5,\n2.png,,", b"\xff\x00\n" * 9999], ids=range(3))
def test_what_was_written_after_the_last_note_is_cut_off(judged, seven, undisturbed, out, torn):
    with dying("in the network", 3, judged.model), pytest.raises(Killed):
        measure(judged, seven, out, **HOW)
    with open(out, "ab") as stream:
        stream.write(torn)
    sizes = seen(judged.model)
    measure(judged, seven, out, **HOW)
    assert contents(out.parent) == undisturbed and sizes == [2, 1]


@pytest.mark.parametrize("point", POINTS)
def test_killed_again_and_again_it_arrives(judged, seven, undisturbed, out, point):
    for done in (2, 4, 6):
        with dying(point, 2, judged.model), pytest.raises(Killed):
            measure(judged, seven, out, **HOW)
        assert json.loads(out.with_suffix(".json").read_text())["done"] == done
    measure(judged, seven, out, **HOW)
    assert contents(out.parent) == undisturbed


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt, OSError("disk full")])
def test_an_error_or_ctrl_c_is_no_other(judged, seven, undisturbed, out, error):
    kind = error if isinstance(error, type) else type(error)
    with dying("in the network", 3, judged.model, error), pytest.raises(kind):
        measure(judged, seven, out, **HOW)
    measure(judged, seven, out, **HOW)
    assert contents(out.parent) == undisturbed


def test_a_process_that_is_killed_leaves_what_the_next_one_goes_on_with(seven, out, tmp_path):
    model = """
import torch
from colorlib.evaluation import Predictor, measure
torch.set_num_threads(1)
torch.manual_seed(0)
judged = Predictor("conv", torch.nn.Conv2d(1, 2, 3, padding=1), [3.0, 8.0], "ab" * 32, 32, "crop")
"""
    kill = f"""
import itertools, os, signal
calls, original = itertools.count(1), os.replace

def replace(*args):
    if next(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args)

os.replace = replace
measure(judged, {[str(file) for file in seven]!r}, {str(out)!r}, **{HOW!r})
"""
    environment = os.environ | {"PYTHONPATH": str(Path(data.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", model + kill], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert json.loads(out.with_suffix(".json").read_text())["done"] == 4
    known = {}
    exec(model, known)
    sizes = seen(known["judged"].model)
    measure(known["judged"], seven, out, **HOW)
    assert sizes == [2, 1]
    (tmp_path / "undisturbed").mkdir()
    measure(known["judged"], seven, tmp_path / "undisturbed" / "rows.csv", **HOW)
    assert contents(out.parent) == contents(tmp_path / "undisturbed")


def test_finished_nothing_is_measured_again(judged, seven, undisturbed, out):
    first = measure(judged, seven, out, **HOW)
    with open(out, "ab") as stream:
        stream.write(b"rubbish")
    sizes = seen(judged.model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Photos, "_read", None)  # nor is a photo opened
        pd.testing.assert_frame_equal(measure(judged, seven, out, **HOW), first)
    assert not sizes and contents(out.parent) == undisturbed


def begin(judged, seven, out, finished, where):
    """Measure to the end, or be killed at the third batch."""
    if finished:
        measure(judged, seven, out, **HOW)
    else:
        with dying(where, 3, judged.model), pytest.raises(Killed):
            measure(judged, seven, out, **HOW)


SPOILT = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "not text": lambda path: path.write_bytes(bytes(range(128, 256))),
    "null": lambda path: path.write_text("null"),
    "without its place": lambda path: path.write_text(json.dumps({"version": 1, "done": 2})),
    "a list": lambda path: path.write_text("[]"),
}


@pytest.mark.parametrize("spoil", SPOILT)
@pytest.mark.parametrize("finished", [False, True])
def test_a_note_that_is_not_whole_does_not_count(judged, seven, undisturbed, out, spoil, finished):
    begin(judged, seven, out, finished, "before the note")
    SPOILT[spoil](out.with_suffix(".json"))
    sizes = seen(judged.model)
    measure(judged, seven, out, **HOW)
    assert contents(out.parent) == undisturbed and sizes == [2, 2, 2, 1]


@pytest.mark.parametrize("keep", [0, 100, -1, None], ids=["empty", "the header", "all but a byte", "missing"])
@pytest.mark.parametrize("finished", [False, True])
def test_a_file_shorter_than_noted_does_not_count(judged, seven, undisturbed, out, keep, finished):
    begin(judged, seven, out, finished, "in the network")
    if keep is None:
        out.unlink()
    else:
        out.write_bytes(out.read_bytes()[:keep])
    sizes = seen(judged.model)
    measure(judged, seven, out, **HOW)
    assert contents(out.parent) == undisturbed and sizes == [2, 2, 2, 1]


CHANGES = {
    "weights": ({"weights": "ef" * 32}, {}),
    "name": ({"name": "another"}, {}),
    "training mean": ({"train_mean": [3.0, 8.5]}, {}),
    "size": ({}, {"size": 48}),
    "the predictor's size": ({"size": 48}, {}),
    "resize": ({}, {"resize": "squash"}),
    "crop": ({}, {"crop": 32}),
    "part": ({}, {"part": 2}),
    "seed": ({}, {"seed": 1}),
    "batch size": ({}, {"batch_size": 3}),
    "fewer photos": ({}, {"files": slice(6)}),
    "photos in another order": ({}, {"files": slice(None, None, -1)}),
    "what columns mean": ({}, {"version": 2}),
}


@pytest.mark.parametrize("change, finished", list(zip(CHANGES, itertools.cycle([False, True]))))
def test_a_file_of_others_is_made_anew_and_said_so(judged, seven, out, change, finished, capsys, monkeypatch):
    if finished:
        measure(judged, seven, out, **HOW)
    else:
        with dying("in the network", 3, judged.model), pytest.raises(Killed):
            measure(judged, seven, out, **HOW)
    assert "anew" not in capsys.readouterr().out
    of_predictor, of_call = CHANGES[change]
    other, how = dataclasses.replace(judged, **of_predictor), HOW | of_call
    files = seven[how.pop("files", slice(None))]
    monkeypatch.setattr(evaluation, "_VERSION", how.pop("version", 1))
    measure(other, files, out, **how)
    told = "rows.csv was made with other weights, photos or settings: it is made anew.\n"
    assert capsys.readouterr().out.count(told) == 1
    fresh = out.parents[1] / "fresh"
    fresh.mkdir()
    measure(other, files, fresh / "rows.csv", **how)
    assert contents(out.parent) == contents(fresh)
    assert "anew" not in capsys.readouterr().out


def test_making_a_file_anew_may_be_broken_off_too(judged, seven, undisturbed, out):
    measure(judged, seven, out, **HOW | {"seed": 1})
    for number in (1, 1, 3):
        with dying("before the note", number, judged.model), pytest.raises(Killed):
            measure(judged, seven, out, **HOW)
    measure(judged, seven, out, **HOW)
    assert contents(out.parent) == undisturbed


def test_a_photo_that_was_replaced_by_another_is_noticed(judged, seven, out, tmp_path, capsys):
    files = [Path(shutil.copy(file, tmp_path)) for file in seven]
    measure(judged, files, out, **HOW)
    shutil.copy(seven[0], files[6])
    again = measure(judged, files, out, **HOW)
    assert "rows.csv was made with other weights, photos or settings: it is made anew." in capsys.readouterr().out
    assert again.mse[6] == again.mse[0]


NAMES = [
    'comma, and "quotes".png',
    "line\nbreak.png",
    "carriage\rreturn.png",
    "写真 🌄.png",
    os.fsdecode(b"caf\xe9.png"),
    " blanks and ' .png",
    "NaN",
    "=1+1.png",
    "",  # a folder, and no photo
]


def test_files_of_any_name_come_back(judged, tmp_path, out):
    for name, rgb in zip(NAMES[:-1], crops(8)):
        save(rgb, tmp_path / "named" / name, format="png")
    files = [tmp_path / "named" / name for name in NAMES]
    files[6:7] = [files[6], f'{tmp_path}/no, such\n"file" {os.fsdecode(bytes([0xE9]))}.png']
    expected = measure(judged, files, tmp_path / "undisturbed.csv", **HOW)
    assert expected.file.tolist() == [str(file) for file in files]
    assert [bool(fault) for fault in expected.fault] == [False] * 7 + [True, False, True]
    assert expected.fault[7].startswith(f'{tmp_path}/no, such "file" {os.fsdecode(bytes([0xE9]))}.png: there is no')
    for number in (2, 2, 2):
        with dying("before the note", number, judged.model), pytest.raises(Killed):
            measure(judged, files, out, **HOW)
    pd.testing.assert_frame_equal(measure(judged, files, out, **HOW), expected)
    assert out.read_bytes() == (tmp_path / "undisturbed.csv").read_bytes()


def test_files_whose_names_are_numbers_come_back(judged, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, rgb in enumerate(crops(2)):
        save(rgb, Path(f"00{i}"), format="png")
    assert measure(judged, ["000", "001"], "rows.csv", part=0).file.tolist() == ["000", "001"]


# ------------------------------------------------------------------------------------------ photos that cannot be read


@pytest.fixture(scope="module")
def bad(files, tmp_path_factory):
    """Four files that are no photos, and words of why."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty.jpg").touch()
    (folder / "cut off.jpg").write_bytes(files[0].read_bytes()[:1500])
    (folder / "text.jpg").write_text("dear diary")
    reasons = {
        "missing.jpg": "there is no such file; check the path.",
        "empty.jpg": "is not an image that can be read here",
        "cut off.jpg": "cannot be read as an image",
        "text.jpg": "is not an image that can be read here",
    }
    return {folder / name: reason for name, reason in reasons.items()}


PLACES = {"spread": (0, 3, 5, 8), "the first two batches": (0, 1, 2, 3), "the last two batches": (5, 6, 7, 8)}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("places", PLACES)
def test_an_unreadable_photo_is_a_row_with_its_reason_and_the_others_are_as_without_it(
    judged, files, bad, tmp_path, places, workers
):
    mixed, good = list(files[:5]), files[:5]
    for place, file in zip(PLACES[places], bad):
        mixed.insert(place, file)
    found = measure(judged, mixed, tmp_path / "mixed.csv", part=99, batch_size=2, workers=workers)
    assert found.file.tolist() == [str(file) for file in mixed]
    for row in found[found.file.isin([str(file) for file in bad])].itertuples():
        assert row.fault.startswith(f"{row.file}: {bad[Path(row.file)]}")
    lines = found[found.fault != ""]
    assert lines.index.tolist() == [*PLACES[places]]
    assert lines[evaluation.COLUMNS].isna().all(axis=None)
    alone = measure(judged, good, tmp_path / "good.csv", part=99, batch_size=2)
    rest = found[found.fault == ""].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, alone, rtol=1e-5)
    pd.testing.assert_frame_equal(tables.table({"x": found}), tables.table({"x": alone}), rtol=1e-5)
    told = tables.counted({"x": found})
    why = lines.fault.iloc[0].rstrip(".")
    assert told.startswith(f"9 photos, 4 of which could not be read and do not count (such as {why}); ")


def test_an_unreadable_photo_changes_nothing_about_who_else_is_in_the_part(judged, files, bad, tmp_path):
    mixed = list(files[:10])
    whole = measure(judged, mixed, tmp_path / "whole.csv", part=5, batch_size=4)
    drawn = {*whole.index[whole.psnr.notna()]}
    for place, file in zip((0, 5, 6, 9), bad):
        mixed[place] = file
    found = measure(judged, mixed, tmp_path / "mixed.csv", part=5, batch_size=4)
    assert {*found.index[found.psnr.notna()]} == drawn - {0, 5, 6, 9} != drawn


def test_two_workers_write_the_same_bytes(judged, files, bad, tmp_path):
    mixed = [*files[:3], *bad, *files[3:6]]
    for workers in (0, 2):
        (tmp_path / str(workers)).mkdir()
        measure(judged, mixed, tmp_path / str(workers) / "rows.csv", workers=workers, **HOW)
    assert contents(tmp_path / "0") == contents(tmp_path / "2")


@pytest.mark.parametrize("workers", [0, 2])
def test_where_no_photo_can_be_read_the_table_says_so(judged, bad, tmp_path, workers):
    sizes = seen(judged.model)
    found = measure(judged, bad, tmp_path / "rows.csv", batch_size=3, workers=workers)
    assert (found.fault != "").all() and found[evaluation.COLUMNS].isna().all(axis=None) and not sizes
    with pytest.raises(ValueError, match="none of the photos could be read: look at the column `fault`"):
        tables.table({"painter": found})
    assert tables.counted({"painter": found}).startswith("4 photos, 4 of which could not be read")


def test_a_photo_too_large_for_the_memory_is_a_row_too(judged, files, tmp_path, monkeypatch):
    def read(photo_set, index, original=Photos._read):
        if index == 1:
            raise MemoryError
        return original(photo_set, index)

    monkeypatch.setattr(Photos, "_read", read)
    found = measure(judged, files[:3], tmp_path / "rows.csv", part=0)
    assert found.fault.tolist() == ["", "MemoryError", ""]


# ----------------------------------------------------------------------------------------------- what is judged on


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("COLORLIB_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def publish(root, monkeypatch):
    """Put a set on a server of this machine: its registry's entry, with small files and their addresses."""
    monkeypatch.setattr(downloads, "_PAUSE", 0)
    with Site() as site, site.redirected(monkeypatch):

        def publish_(name, changed=None):
            entry, files = datasets.DATASETS[name], []
            bodies = OTHER_FILES | {entry.files[0].name: pack(entry.files[0].name, LAYOUTS[name])} | (changed or {})
            for file in entry.files:
                url, body = f"https://example.org/{file.name}", bodies[file.name]
                site.put(url, body)
                files.append(dataclasses.replace(file, urls=(url,), size=len(body), checksum=None))
            entry = dataclasses.replace(entry, files=tuple(files), n_photos=len(LAYOUTS[name]))
            monkeypatch.setitem(datasets.DATASETS, name, entry)

        yield publish_


def test_of_an_own_folder_all_photos_count_whatever_its_folders_are_called(photo_folder, root):
    assert held_out(photo_folder) == held_out(f" {photo_folder} ") == photo_files.find_photos(photo_folder)
    assert len(held_out(photo_folder)) == 21


def test_of_an_archive_all_photos_count_grey_ones_too(root, tmp_path):
    grey = save(np.full((70, 70, 3), 99, dtype=np.uint8), tmp_path / "grey.png").read_bytes()
    members = {"a/train/grey.png": grey, "a/b.png": save(next(crops(1)), tmp_path / "b.png").read_bytes()}
    (tmp_path / "mine.zip").write_bytes(pack(".zip", members))
    found = held_out(tmp_path / "mine.zip")
    assert [file.read_bytes() for file in found] == [members["a/b.png"], grey] and root in found[0].parents


def test_of_a_prepared_folder_the_test_photos_count(prepared, root):
    assert held_out(prepared.folder) == prepared.files("test") and len(prepared.files("test")) == 3


def test_a_prepared_folder_may_lie_in_ones_home(prepared, root, monkeypatch):
    monkeypatch.setenv("HOME", str(prepared.folder.parent))
    assert held_out(f"~/{prepared.folder.name}") == prepared.files("test")


def test_of_the_sample_the_test_photos_count(root):
    found = held_out("sample")
    assert found == data.ready("sample").files("test") and found


def test_of_cvpr09_the_published_test_photos_count_as_they_are(publish, root):
    publish("cvpr09")
    found = held_out("cvpr09")
    assert ["/".join(file.parts[-2:]) for file in found] == sorted(LISTED["test"])
    assert [file.read_bytes() for file in found] == [LAYOUTS["cvpr09"][f"Images/{r}"] for r in sorted(LISTED["test"])]
    assert not (root / "prepared").exists()


def test_of_celeba_the_published_test_photos_count_as_they_are(publish, root):
    publish("celeba")
    found = held_out("celeba")
    assert [file.name for file in found] == [name for name, part in FACES.items() if part == 2]
    assert [file.read_bytes() for file in found] == [LAYOUTS["celeba"][f"img_align_celeba/{f.name}"] for f in found]
    assert not (root / "prepared").exists()


def test_a_folder_of_ones_own_that_is_called_like_a_set_is_ones_own(photo_folder, root, tmp_path):
    (tmp_path / "celeba").symlink_to(photo_folder)
    assert len(held_out(tmp_path / "celeba")) == 21


def test_a_limit_draws_photos_by_the_seed(photo_folder, root):
    whole = held_out(photo_folder)
    drawn = [held_out(photo_folder, limit=6, seed=seed) for seed in (0, 0, 1, 2)]
    assert all(len({*found}) == 6 and found == [file for file in whole if file in found] for found in drawn)
    assert drawn[0] == drawn[1] and len({tuple(found) for found in drawn}) == 3
    assert drawn[0] != whole[:6]
    assert held_out(photo_folder, limit=21) == held_out(photo_folder, limit=99) == whole


def test_a_set_without_test_photos_is_refused(publish, root, photo_folder, tmp_path):
    publish("celeba", {"list_eval_partition.txt": b"000001.jpg 0\n000002.jpg 1\n"})
    (tmp_path / "none").mkdir()
    untested = data.prepare(photo_folder / "train", tmp_path / "prepared", test=0, keep_grey=True)
    for source in ("celeba", untested.folder):
        with pytest.raises(ValueError, match=f"^{source}: has no test photos; give a folder of photos instead"):
            held_out(source)
    with pytest.raises(FileNotFoundError, match="holds no image files"):
        held_out(tmp_path / "none")


@pytest.mark.parametrize("source", ["nowhere", "", "photo.png"])
def test_what_is_no_set_and_no_folder_is_refused(source, root):
    with pytest.raises(ValueError, match="is no data set"):
        held_out(source)


# --------------------------------------------------------------------------------------------- what is judged, and how


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A run's folder with two checkpoints, of which the second is the better one."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    recipe = recipes.Recipe(name="quick", source="test", model=tiny, size=48, resize="crop")
    facts = {"recipe": dataclasses.asdict(recipe), "encoder_weights": "none", "train_mean": [2.5, 7.25]}
    torch.manual_seed(0)
    for step in (3, 5):
        state = {"model": models.build(tiny).state_dict()}
        checkpoints.save(folder, "best", state, facts | {"step": step, "epoch": step, "val_mse": 1 / step})
    return folder


def weights_of(run, step):
    (file,) = run.glob(f"best-{step:08d}-*.pt")
    return file


def same_weights(model, run, step):
    expected = torch.load(weights_of(run, step), weights_only=True)["model"]
    return all(torch.equal(value.cpu(), expected[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", ["a run", "a folder", "a folder's name", "a weights file", "an older weights file"])
def test_predictor_is_what_its_manifest_says(run, kind):
    step = 3 if kind == "an older weights file" else 5
    given = {"a run": runs.Run(run), "a folder": run, "a folder's name": str(run)}.get(kind, weights_of(run, step))
    found = Predictor.of(given)
    assert (found.name, found.size, found.resize, found.train_mean) == ("quick (none)", 48, "crop", [2.5, 7.25])
    assert found.weights == runtime.sha256(weights_of(run, step))
    assert not found.model.training and same_weights(found.model, run, step)
    assert Predictor.of(given, "mine").name == "mine"


def test_eccv16_that_cannot_be_had_is_none(monkeypatch):
    asked = []
    monkeypatch.setattr(models, "eccv16", lambda *args: asked.append(args))
    assert Predictor.eccv16([1.0, 2.0], "some file", "some folder") is None
    assert asked == [("some file", "some folder")]


def test_eccv16_sees_photos_at_256_whatever_size_they_are_judged_at(monkeypatch):
    shapes, model = [], Mild()
    model.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(inputs[0].shape)))
    monkeypatch.setattr(models, "eccv16", lambda *args: (model, "9b330a0b" + "0" * 56))
    found = Predictor.eccv16([1.0, 2.0])
    assert (found.name, found.train_mean, found.weights) == ("eccv16 (weights 9b330a0b)", [1, 2], "9b330a0b" + "0" * 56)
    assert (found.size, found.resize) == (256, "squash")
    ramp = torch.linspace(20, 80, 64).expand(2, 1, 64, 64)
    large = torch.linspace(20, 80, 256).expand(2, 1, 256, 256)
    with torch.no_grad():
        assert torch.equal(found.model(large), model(large))
        small = found.model(ramp)
        assert small.shape == (2, 2, 64, 64) and shapes[-1] == (2, 1, 256, 256)
        assert (small - model(ramp))[..., 3:-3].abs().max() < 0.1  # a smooth picture looks alike at every size


def table_in(text):
    """The lines of the Markdown table in what was printed."""
    return [line for line in text.splitlines() if line.startswith("| ")]


def test_command_prints_a_table_and_writes_it_and_the_rows(run, photo_folder, tmp_path, capsys):
    out, photos_ = tmp_path / "new" / "out", photo_folder / "val"
    main([str(photos_), "--model", str(run), "--out", str(out), "--part", "2"])
    printed = capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {
        *("val-quick-none.csv", "val-quick-none.json", "table-val.csv", "table-val.md"),
    }
    rows = evaluation.read(out / "val-quick-none.csv")
    expected = evaluate(Predictor.of(run).model, Photos(photo_files.find_photos(photos_), 48, "crop"), [2.5, 7.25])
    np.testing.assert_allclose(rows.mse, expected.mse, rtol=1e-6)
    assert rows.file.tolist() == expected.file.tolist() and rows.psnr.notna().sum() == 2
    table = pd.read_csv(out / "table-val.csv", index_col="predictor")
    assert table.index.tolist() == [*metrics.FLOORS.values(), "quick (none)"]
    assert table.MSE["quick (none)"] == pytest.approx(rows.mse.mean())
    text = (out / "table-val.md").read_text(encoding="utf-8")
    assert text in printed and table_in(printed) == text.splitlines() and len(text.splitlines()) == 6
    assert printed.endswith("3 photos; CIEDE2000, PSNR, SSIM and colourfulness on 2 of them, drawn at random.\n")


def test_command_takes_several_runs_and_several_folders(run, photo_folder, tmp_path, capsys):
    models_ = [str(run), str(weights_of(run, 3)), str(weights_of(run, 5))]
    places = [str(photo_folder / name) for name in ("val", "test")]
    main([*places, "--model", *models_, "--out", str(tmp_path), "--part", "0", "--size", "32", "--resize", "squash"])
    printed = capsys.readouterr().out
    for place in ("val", "test"):
        for kind, n in (("table", 3 + 3), ("differences", 2)):  # the floors and the runs; two runs against the first
            text = (tmp_path / f"{kind}-{place}.md").read_text(encoding="utf-8")
            assert text in printed and len(text.splitlines()) == 2 + n
        third = pd.read_csv(tmp_path / f"differences-{place}.csv").iloc[1]
        assert (
            third.iloc[0] == "quick (none) 3" and third.difference == third["first lower"] == 0
        )  # it is the first one
        table = pd.read_csv(tmp_path / f"table-{place}.csv", index_col="predictor")
        assert table.index.tolist()[3:] == ["quick (none)", "quick (none) 2", "quick (none) 3"]
        assert table.MSE.iloc[3] == table.MSE.iloc[5] != table.MSE.iloc[4]
        for slug in ("quick-none", "quick-none-2", "quick-none-3"):
            facts = json.loads((tmp_path / f"{place}-{slug}.json").read_text())
            assert (facts["size"], facts["resize"], facts["crop"], facts["part"]) == (32, "squash", None, 0)


def test_command_started_again_measures_nothing_again(run, photo_folder, tmp_path, capsys, monkeypatch):
    command = [str(photo_folder), "--model", str(run), "--out", str(tmp_path), "--limit", "4", "--part", "1"]
    main(command)
    first = capsys.readouterr().out
    monkeypatch.setattr(evaluation, "_columns", None)
    main(command)
    assert table_in(capsys.readouterr().out) == table_in(first)
    assert len(evaluation.read(tmp_path / f"{photo_folder.name}-quick-none.csv")) == 4


def test_command_counts_the_photos_that_cannot_be_read(run, photo_folder, tmp_path, capsys):
    for photo in (photo_folder / "val").iterdir():
        (tmp_path / photo.name).write_bytes(photo.read_bytes())
    (tmp_path / "z.jpg").write_text("dear diary")
    main([str(tmp_path), "--model", str(run), "--out", str(tmp_path / "out"), "--part", "0"])
    told = f"4 photos, 1 of which could not be read and do not count (such as {tmp_path}/z.jpg: is not an image"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("given", [["--eccv16"], ["--eccv16", "some file"]])
@pytest.mark.parametrize("there", [False, True])
def test_command_compares_with_eccv16_or_leaves_its_line_empty(
    run, photo_folder, tmp_path, capsys, monkeypatch, there, given
):
    asked = []
    monkeypatch.setattr(models, "eccv16", lambda *args: asked.append(args) or (there and (Mild(), "ab" * 32)) or None)
    main([str(photo_folder / "val"), "--model", str(run), *given, "--out", str(tmp_path), "--part", "0"])
    assert [file or None for file, _ in asked] == [given[1] if given[1:] else None]
    (line,) = (line for line in table_in(capsys.readouterr().out) if line.startswith("| eccv16") and "less" not in line)
    table = pd.read_csv(tmp_path / "table-val.csv", index_col="predictor")
    if there:
        assert line.startswith("| eccv16 (weights abababab) | 3 | 0.")
        facts = json.loads((tmp_path / "val-eccv16-weights-abababab.json").read_text())
        # It is judged on the first one's pixels, whatever it sees of them itself.
        assert (facts["size"], facts["resize"], facts["train_mean"]) == (48, "crop", [2.5, 7.25])
        assert (tmp_path / "differences-val.csv").exists()
    else:
        assert not (tmp_path / "differences-val.csv").exists()
        assert line.startswith("| eccv16 (could not be fetched) |") and line.split("|", 2)[2].strip("| ") == "no figure"
        assert table.loc[evaluation.NO_ECCV16].isna().all()
    assert table.MSE["quick (none)"] > 0


def test_command_tells_where_the_first_one_fails_if_asked(run, photo_folder, tmp_path, capsys):
    runs_ = [str(run), str(weights_of(run, 3))]
    main([str(photo_folder / "val"), "--model", *runs_, "--out", str(tmp_path), "--part", "0", "--where"])
    printed = capsys.readouterr().out
    first, files = Predictor.of(run), photo_files.find_photos(photo_folder / "val")
    rows = evaluation.read(tmp_path / "val-quick-none.csv")
    expected = failures.everywhere(first, files, rows, size=48, resize="crop")
    assert expected.keys() >= {"hue", "chroma", "contrast"}
    for kind, table in expected.items():
        text = (tmp_path / f"{kind}-val.md").read_text(encoding="utf-8")
        assert text == tables.markdown(tables.readable(table)) and text in printed


def refused(capsys, *command):
    """What is said of a command that fails: one line."""
    with pytest.raises(SystemExit) as caught:
        main([*map(str, command)])
    assert caught.value.code == 1
    told = capsys.readouterr()
    assert len(told.err.splitlines()) == 1 and "Traceback" not in told.err and not table_in(told.out)
    return told.err


def test_command_says_in_a_sentence_what_is_missing(run, photo_folder, tmp_path, capsys, root, blocked):
    out = ["--out", tmp_path / "out"]
    told = refused(capsys, photo_folder, "--model", tmp_path / "no run", *out)
    assert told == f"{tmp_path}/no run: there is no run's folder and no weights file; check the path.\n"
    (tmp_path / "empty").mkdir()
    told = refused(capsys, photo_folder, "--model", tmp_path / "empty", *out)
    assert told.startswith(f"{tmp_path}/empty: holds no trained model; train at least one epoch in 02_train")
    assert "is no data set" in refused(capsys, tmp_path / "nowhere", "--model", run, *out)
    assert "holds no image files" in refused(capsys, tmp_path / "empty", "--model", run, *out)
    (tmp_path / "alone.pt").write_bytes(weights_of(run, 5).read_bytes())
    told = refused(capsys, photo_folder, "--model", tmp_path / "alone.pt", *out)
    assert told.startswith(f"{tmp_path}/alone.pt: alone.json, the manifest that belongs beside it, cannot be read")
    told = refused(capsys, photo_folder, "--model", run, "--out", blocked)
    assert told.startswith(f"{blocked}: cannot be written to")


def test_command_says_if_no_photo_could_be_read(run, tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("dear diary")
    told = refused(capsys, tmp_path, "--model", run, "--out", tmp_path / "out")
    assert told == "none of the photos could be read: look at the column `fault`.\n"


def test_command_keeps_the_tables_of_two_folders_of_one_name_apart(run, photo_folder, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "test").symlink_to(photo_folder / ("val" if name == "one" else "test"))
    places = [str(tmp_path / name / "test") for name in ("one", "two")]
    main([*places, "--model", str(run), "--out", str(tmp_path / "out"), "--part", "0"])
    assert len([*(tmp_path / "out").glob("table-*.csv")]) == 2


def test_measurements_are_kept_elsewhere_and_come_back(tmp_path, monkeypatch):
    here, drive, again = (tmp_path / name for name in ("here", "drive", "again"))
    here.mkdir()
    for name in ("rows.json", "rows.csv", "table.md"):
        (here / name).write_text(name)
    evaluation.keep(here, None)
    evaluation.keep(here, drive)
    evaluation.keep(drive, again)
    assert contents(again) == contents(drive) == contents(here)
    (here / "rows.csv").write_text("more rows")
    os.utime(here / "rows.csv", (2e9, 2e9))
    copied, real = [], shutil.copyfile
    monkeypatch.setattr(shutil, "copyfile", lambda source, target: copied.append(source.name) or real(source, target))
    evaluation.keep(here, drive)
    assert copied == ["rows.csv"] and contents(drive) == contents(here)


def test_measurements_that_cannot_be_kept_are_said_to_be_here(tmp_path, blocked, capsys):
    (tmp_path / "rows.csv").write_text("rows")
    evaluation.keep(tmp_path, blocked)
    assert f"{blocked}: the measurements could not be copied there" in capsys.readouterr().out
