"""Per-photo errors against slow computations of the same, the floors, and the table."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab

from colorlib import color, evaluation, loading, losses
from colorlib.evaluation import evaluate, interval, style, table
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
        "grey": np.zeros(2),
        "train_mean": train_mean.double().numpy(),
        "oracle": ab.mean(axis=(1, 2), keepdims=True),
    }
    assert rows.columns.tolist() == ["file", *predictions, "chroma", "true_chroma"]
    assert rows.file.tolist() == [str(f) for f in files]
    for name, pred_ab in predictions.items():
        unit = [(x + 128) / 255 for x in (pred_ab, ab)]
        np.testing.assert_allclose(rows[name], ((unit[0] - unit[1]) ** 2).mean(axis=(1, 2, 3)), rtol=1e-4)


def test_grey_row_is_the_mean_square_of_ab(rows, lab):
    np.testing.assert_allclose(rows.grey, ((lab[1] / 255) ** 2).mean(axis=(1, 2, 3)), rtol=1e-4)


def test_no_constant_beats_the_oracle(rows):
    assert (rows.oracle <= rows.grey).all()
    assert (rows.oracle <= rows.train_mean).all()


def test_the_truth_scores_zero(photos, train_mean):
    _, ab = color.rgb_to_lab(torch.stack([photos[0, i] for i in range(len(photos))]))
    rows = evaluate(Answer(ab), photos, train_mean, batch_size=len(photos))
    assert (rows.mse == 0).all()
    assert (rows.oracle > 0).all()


def test_a_constant_model_reaches_exactly_its_floor(photos, train_mean):
    rows = evaluate(Answer(train_mean.view(1, 2, 1, 1)), photos, train_mean.tolist())
    assert (rows.mse == rows.train_mean).all()
    assert table(rows)["of the mean-colour floor"]["model"] == 1


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
    np.testing.assert_array_equal(rows.oracle, exact.oracle)  # only the network's arithmetic is coarser


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


def test_table_has_the_floors_and_then_the_model(rows):
    shown = table(rows, model="painter")
    assert shown.index.tolist() == [*evaluation.FLOORS.values(), "painter"]
    assert shown.columns.tolist() == ["MSE", "from", "to", "raw ab", "of the mean-colour floor"]
    means = rows[["grey", "train_mean", "oracle", "mse"]].mean().to_numpy()
    np.testing.assert_allclose(shown["MSE"], means)
    np.testing.assert_allclose(shown["raw ab"], means * 65025)
    np.testing.assert_allclose(shown["of the mean-colour floor"], means / rows.train_mean.mean())
    assert ((shown["from"] < shown["MSE"]) & (shown["MSE"] < shown["to"])).all()


def test_style_rounds_for_reading_only(rows):
    shown = table(rows)
    styled = style(shown)
    assert styled.columns.equals(shown.columns) and styled.index.equals(shown.index)
    assert (styled["MSE"] == shown["MSE"].round(5)).all()
    assert (styled["raw ab"] == shown["raw ab"].round(1)).all()
    assert style(shown[["MSE"]]).columns.tolist() == ["MSE"]


def test_interval_holds_the_mean_and_is_reproducible():
    values = np.random.default_rng(0).exponential(size=200)
    low, high = interval(values)
    assert low < values.mean() < high
    assert (low, high) == tuple(interval(pd.Series(values, index=range(7, 207))))
    assert (low, high) != tuple(interval(values, seed=1))
    # On 200 photos the bootstrap must agree with the textbook.
    error = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    np.testing.assert_allclose((low, high), (values.mean() - error, values.mean() + error), rtol=0.05)


def test_interval_grows_with_its_level():
    values = np.arange(20.0)
    (low, high), (lower, higher) = interval(values, 0.8), interval(values, 0.99)
    assert lower < low < high < higher


@pytest.mark.parametrize("values", [[], [0.1], [0.1, 0.1, 0.1]], ids=["none", "one", "equal ones"])
def test_interval_of_few_or_equal_photos_does_not_warn(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low, high = interval(values)
    if len(values) < 2:
        assert np.isnan(low) and np.isnan(high)
    else:
        assert low == high == pytest.approx(0.1)


def test_table_of_one_photo_has_no_interval(rows):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = table(rows[:1])
    assert shown[["from", "to"]].isna().all(axis=None)
    assert shown["MSE"].notna().all()
