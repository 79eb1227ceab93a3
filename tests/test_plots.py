"""Figures: saved, shown in a notebook alone, and without windows."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage import data

from colorlib import color, plots


@pytest.fixture
def figure():
    return plots.grid([[data.chelsea(), data.coffee()], [data.chelsea()]], ["one", "two"], ["first", ["second"]])


def test_show_saves_below_the_runs_folder(figure, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLORLIB_RUNS", str(tmp_path / "runs"))
    plots.show(figure, "name", "a cat and a cup")
    path = tmp_path / "runs" / "figures" / "name.png"
    assert capsys.readouterr().out == f"Figure: {path}\n"
    picture = np.asarray(Image.open(path).convert("RGB"))
    assert picture.shape[0] > 200 and picture.std() > 20  # something is drawn


def test_show_into_an_unwritable_folder_says_which_variable(figure, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("COLORLIB_RUNS", str(tmp_path / "file" / "runs"))
    with pytest.raises(PermissionError, match="COLORLIB_RUNS"):
        plots.show(figure, "name", "")


def test_no_window_can_open():
    """pyplot is what opens windows; drawing and saving must not even import it."""
    code = "import sys; from colorlib import plots, training, study; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_grid_has_a_place_for_each_picture_with_titles_and_captions(figure):
    figure.draw_without_rendering()
    axes = figure.axes
    assert len(axes) == 4 and [len(ax.images) for ax in axes] == [1, 1, 1, 0]
    assert [ax.get_title() for ax in axes[:2]] == ["one", "two"]
    assert [[t.get_text() for t in ax.texts] for ax in axes] == [["first"], [], ["second"], []]


def test_grey_keeps_lightness_and_drops_colour():
    rgb = data.chelsea()
    grey = plots.grey(rgb)
    assert (grey == grey[..., :1]).all()
    # Half an 8-bit step of grey moves L by under 0.25 in mid-tones.
    assert (color.photo_to_lab(grey)[0] - color.photo_to_lab(rgb)[0]).abs().max() < 0.5


def training_history(train_loss, val_mse, val_loss=None):
    epoch = range(1, len(val_mse) + 1)
    return pd.DataFrame({"epoch": epoch, "train_loss": train_loss, "val_loss": val_loss or val_mse, "val_mse": val_mse})


def test_a_loss_that_is_not_mse_gets_axes_of_its_own_and_decides_what_is_best():
    history = training_history([5.0, 4, 3], [4e-3, 2e-3, 3e-3], [4.5, 4.2, 4.1])
    mse, loss = plots.curves(history, FLOORS).axes
    assert [line.get_ydata().tolist() for line in mse.lines[:2]] == [[4e-3, 2e-3, 3e-3], [3e-3]]
    assert [line.get_ydata().tolist() for line in loss.lines] == [[5.0, 4, 3], [4.5, 4.2, 4.1], [4.1]]


def test_curves_show_history_and_floors():
    history = training_history([3e-3, 2e-3, 1e-3], [4e-3, 2e-3, 3e-3])
    ax = plots.curves(history, {"grey": 5e-3, "train_mean": 4e-3, "oracle": 2e-3}).axes[0]
    drawn = [line.get_ydata() for line in ax.lines]
    assert np.array_equal(drawn[0], history.train_loss) and np.array_equal(drawn[1], history.val_mse)
    assert np.ravel(drawn[2]).tolist() == [2e-3]  # the best epoch is marked
    assert [y[0] for y in drawn[3:]] == [5e-3, 4e-3, 2e-3]


def test_ab_density_draws_the_plane_and_the_counts():
    edges = np.linspace(-110, 110, 45)
    counts = np.zeros((44, 44))
    counts[22, 30] = 1
    left, right = plots.ab_density(counts, edges).axes[:2]
    assert right.collections[0].get_array().count() == 1  # empty cells stay empty on the logarithmic scale
    plane = left.images[0].get_array()
    red, green = plane[22, 32], plane[22, 16]  # rows are b, columns a
    assert int(red[0]) - int(red[1]) > 50 and int(green[1]) - int(green[0]) > 50


def test_tables_are_shown_whole_outside_a_notebook(capsys):
    plots.show_table(pd.DataFrame({f"a long column name {i}": [i] for i in range(20)}))
    assert "a long column name 19" in capsys.readouterr().out and "..." not in capsys.readouterr().out


@pytest.fixture
def page(monkeypatch, tmp_path):
    """What a notebook would show: a list of (display or update, HTML)."""
    shown = []

    class Handle:
        def display(self, content):
            shown.append(("display", content.data))

        def update(self, content):
            shown.append(("update", content.data))

    monkeypatch.setenv("COLORLIB_RUNS", str(tmp_path))
    monkeypatch.setattr("IPython.display.DisplayHandle", Handle)
    monkeypatch.setattr(plots.runtime, "in_notebook", lambda: True)
    return shown


FLOORS = {"grey": 5e-3, "train_mean": 4e-3, "oracle": 2e-3}


def test_live_curves_redraw_in_one_place_and_not_too_often(page):
    history = training_history([3e-3, 2e-3], [4e-3, 2e-3])
    draw = plots.live_curves("live", "MSE by epoch")
    draw(history[:1], FLOORS)
    draw(history, FLOORS)  # too soon
    assert [how for how, _ in page] == ["display"]
    draw(history, FLOORS, pause=0)
    assert [how for how, _ in page] == ["display", "update"]
    assert page[0][1] != page[1][1] and all('alt="MSE by epoch"' in content for _, content in page)


def test_live_curves_outside_a_notebook_write_the_file_and_say_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLORLIB_RUNS", str(tmp_path))
    history = training_history([3e-3], [4e-3])
    plots.live_curves("live", "")(history, FLOORS)
    assert (tmp_path / "figures" / "live.png").is_file() and not capsys.readouterr().out


def test_range_test_marks_the_lowest_loss_and_the_rates_below_it():
    frame = pd.DataFrame({"lr": [1e-3, 1e-2, 1e-1, 1], "loss": [4e-3, 2e-3, 3e-3, 9e-3]})
    ax = plots.range_test(frame).axes[0]
    assert [line.get_xydata().tolist() for line in ax.lines] == [frame.to_numpy().tolist(), [[1e-2, 2e-3]]]
    assert ax.texts[0].get_text() == "lowest at 0.01"
    (band,) = ax.patches
    assert [band.get_x(), band.get_x() + band.get_width()] == pytest.approx([1e-3, 1e-2 / 3])
