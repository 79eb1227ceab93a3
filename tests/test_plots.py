"""Figures: saved, shown in a notebook alone, and without windows."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image
from skimage import data
from skimage.color import rgb2lab

from colorlib import color, failures, metrics, plots, recipes


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
    modules = "plots, training, study, scoring, widgets"
    code = f"import sys; from colorlib import {modules}; print('matplotlib.pyplot' in sys.modules)"
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


# --- the figures of 03_evaluate ---


def texts_outside(figure):
    """What is written in a figure, and would be cut off where it ends."""
    figure.draw_without_rendering()
    undrawn = {
        label
        for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis))
        for tick in axis.get_major_ticks()
        for label in (tick.label1, tick.label2)
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    found = {text for text in figure.findobj(Text) if text.get_text() and text.get_visible()} - undrawn
    width, height = figure.canvas.get_width_height()
    boxes = {text.get_text(): text.get_window_extent() for text in found}
    return [
        text for text, box in boxes.items() if min(box.x0, box.y0) < -1 or box.x1 > width + 1 or box.y1 > height + 1
    ]


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


INFERNO = np.round(255 * colormaps["inferno"](np.arange(256))[:, :3]).astype(np.uint8)


def test_an_error_map_is_black_where_the_colour_is_right():
    photo = data.chelsea()
    found = plots.error_map(photo, photo)
    assert found.shape == photo.shape and found.dtype == np.uint8
    assert (found == INFERNO[0]).all() and INFERNO[0].max() < 5


@pytest.mark.parametrize(
    ("coloured", "truth", "distance"),
    [
        ((0, 0, 0), (255, 255, 255), 0),  # lightness is not what is asked
        ((200, 200, 200), (60, 60, 60), 0),
        ((255, 0, 0), (0, 255, 0), 167.0),
        ((128, 128, 128), (255, 0, 0), 104.6),
        ((128, 128, 128), (150, 120, 110), 14.2),
        ((150, 120, 110), (110, 125, 140), 23.3),
    ],
)
def test_an_error_map_shows_the_distance_in_ab_up_to_60(coloured, truth, distance):
    pictures = [np.full((3, 5, 3), rgb, dtype=np.uint8) for rgb in (coloured, truth)]
    ab, truth_ab = (rgb2lab(picture.astype(float) / 255)[0, 0, 1:] for picture in pictures)
    assert np.hypot(*(ab - truth_ab)) == pytest.approx(distance, abs=0.1)
    found = plots.error_map(*pictures)
    place = min(int(distance / 60 * 256), 255)
    assert (found == found[0, 0]).all() and found.shape == (3, 5, 3)
    assert found[0, 0].tolist() in INFERNO[max(place - 1, 0) : place + 2].tolist()
    assert (found == plots.error_map(*reversed(pictures))).all()


def test_an_error_map_is_right_pixel_by_pixel():
    """From grey along a, at one lightness: the further, the brighter, and nothing is brighter than 60."""
    a = torch.tensor([0.0, 10, 20, 30, 40, 50, 60, 70])
    ab = torch.stack([a, torch.zeros(8)]).view(1, 2, 1, 8)
    coloured = color.lab_to_rgb(torch.full_like(ab[:, :1], 55), ab)[0].permute(1, 2, 0).numpy()
    grey = plots.grey(coloured)
    found = plots.error_map(coloured, grey)[0].astype(int)
    places = [np.abs(INFERNO.astype(int) - rgb).sum(axis=1).argmin() for rgb in found]
    np.testing.assert_allclose(places, np.minimum(a.numpy() / 60 * 256, 255), atol=4)  # 8-bit colours are 1 off in ab
    assert places[0] <= 1 and places[-1] == 255 and (np.diff(places[:6]) > 30).all()
    assert (np.diff(found.sum(axis=1)[:7]) > 0).all()
    sooner = plots.error_map(coloured, grey, most=30)[0]
    assert (sooner[4:] == INFERNO[-1]).all() and (sooner[:2] != INFERNO[-1]).all()


def with_intervals(column, values, low, high, names):
    return pd.DataFrame({column: values, f"{column} from": low, f"{column} to": high, "photos": 7}, index=names)


NAN = float("nan")
SCENES = {
    "one, val": with_intervals("explained", [0.5, 0.2, -0.1], [0.4, 0.1, -0.4], [0.55, 0.25, 0.1], ["a b", "c", "d"]),
    "two": with_intervals("explained", [0.3, -0.2], [NAN, -0.3], [NAN, -0.1], ["e", "the last"]),
}


def drawn_intervals(ax):
    """Of each line: its value and both ends, from the top down."""
    (container,) = ax.containers
    points, _, (bars,) = container.lines
    assert points.get_ydata().tolist() == list(range(len(points.get_ydata())))
    ends = [segment if len(segment) else np.full((2, 2), NAN) for segment in bars.get_segments()]
    assert all((segment[:, 1] == y).all() for y, segment in enumerate(ends) if not np.isnan(segment).all())
    return [(value, *segment[:, 0]) for value, segment in zip(points.get_xdata(), ends)]


@pytest.mark.filterwarnings("error")
def test_intervals_are_those_of_the_tables_and_none_where_there_is_none():
    figure = plots.intervals(SCENES, "explained", reference=0)
    assert texts_outside(figure) == []
    assert [ax.get_title() for ax in figure.axes] == list(SCENES)
    for ax, table in zip(figure.axes, SCENES.values()):
        assert tick_labels(ax.yaxis) == table.index.tolist() and ax.get_xlabel() == "explained"
        assert ax.yaxis_inverted()  # the first one is at the top
        values = table["explained"]
        low, high = (table[f"explained {end}"].fillna(values) for end in ("from", "to"))
        np.testing.assert_allclose(drawn_intervals(ax), np.stack([values, low, high], axis=1))
        assert [line.get_xdata() for line in ax.lines if line.get_linestyle() == "--"] == [[0, 0]]


@pytest.mark.filterwarnings("error")
def test_intervals_of_one_table_without_a_reference_and_with_a_label():
    table = with_intervals("MSE", [2e-3], [1e-3], [4e-3], ["only"])
    (ax,) = plots.intervals({"it": table}, "MSE", label="MSE on ab_unit").axes
    assert drawn_intervals(ax) == [(2e-3, pytest.approx(1e-3), pytest.approx(4e-3))]
    assert ax.get_xlabel() == "MSE on ab_unit" and not [line for line in ax.lines if line.get_linestyle() == "--"]


@pytest.mark.filterwarnings("error")
def test_a_line_of_which_nothing_is_known_stays_empty():
    table = with_intervals("explained", [0.1, NAN], [0.0, NAN], [0.2, NAN], ["known", "unknown"])
    figure = plots.intervals({"it": table.astype(object)}, "explained")  # as tables with an empty line may be
    assert texts_outside(figure) == []
    first, second = drawn_intervals(figure.axes[0])
    assert first == pytest.approx((0.1, 0.0, 0.2)) and np.isnan(np.float64(second)).all()


def test_intervals_may_end_within_rounding_of_the_value():
    """The ratio may be the same in all photos: then the ends are the value, but for the last digit."""
    value = 0.25
    table = with_intervals("explained", [value], [np.nextafter(value, 1)], [np.nextafter(value, 0)], ["always"])
    figure = plots.intervals({"it": table}, "explained")
    assert drawn_intervals(figure.axes[0]) == [pytest.approx((value, value, value))]


@pytest.fixture
def like_000():
    """The table as 03 makes it."""
    stated = recipes.PUBLISHED.query("source == 'document 000' and measure == 'MSE'").set_index("data")
    like = recipes.LIKE_000.rename(columns=metrics.FLOORS)
    like.insert(1, "published by document 000", stated.published)
    return like


@pytest.mark.filterwarnings("error")
def test_published_errors_are_bars_and_the_floors_lines_across(like_000):
    figure = plots.beside_floors(like_000)
    assert texts_outside(figure) == []
    (ax,) = figure.axes
    assert tick_labels(ax.xaxis) == ["ImageNet", "CVPR09", "CelebA"] and ax.get_ylabel() == "MSE on ab_unit"
    (bars,) = ax.containers
    assert [bar.get_height() for bar in bars] == [0.0027, 0.0047, 0.0058]
    assert [bar.get_x() + bar.get_width() / 2 for bar in bars] == [0, 1, 2] == ax.get_xticks().tolist()
    lines = {lines.get_label(): lines for lines in ax.collections}
    assert list(lines) == list(metrics.FLOORS.values())
    for name, label in metrics.FLOORS.items():
        segments = np.array(lines[label].get_segments())
        np.testing.assert_array_equal(segments[:, :, 1], np.repeat(recipes.LIKE_000[[name]], 2, axis=1))
        assert (segments[:, 0, 0] < np.arange(3) - 0.25).all() and (segments[:, 1, 0] > np.arange(3) + 0.25).all()
    assert len({tuple(line.get_colors()[0]) for line in lines.values()}) == 3
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert set(legend) == {"published by document 000", *metrics.FLOORS.values()}
    top = ax.transData.transform([(0, max(0.0027, 0.00403))])[0, 1]
    assert ax.get_legend().get_window_extent().y0 > top  # it covers nothing at the left


WHEEL = pd.DataFrame(
    {
        "share of pixels": [0.1, 0.2, 0.05, 0.01],
        "MSE ratio to grey": [0.5, 0.8, 1.3, 2.0],
        "chroma ratio": [0.4, 0.6, 1.1, 0.9],
        "MSE ratio to grey from": [0.4, 0.7, 1.2, 1.5],
    },
    index=pd.Index(["0", "45", "90", "285"], name="pixels"),
)


@pytest.mark.filterwarnings("error")
def test_the_hue_wheel_has_a_sector_for_each_line_in_the_colour_that_it_is_about():
    figure = plots.hue_wheel(WHEEL)
    assert texts_outside(figure) == []
    titles = ["share of the pixels", "error / error of all grey", "chroma / true chroma"]
    assert [ax.get_title() for ax in figure.axes] == titles
    for ax, column in zip(figure.axes, WHEEL):
        (bars,) = ax.containers
        np.testing.assert_array_equal([bar.get_height() for bar in bars], WHEEL[column])
        begins = np.rad2deg([bar.get_x() for bar in bars])
        np.testing.assert_allclose(begins, [0, 45, 90, 285], atol=1e-9)
        np.testing.assert_allclose(np.rad2deg([bar.get_width() for bar in bars]), 15)
        for begin, bar in zip(begins, bars):
            ab = color.photo_to_lab(np.uint8(np.round(255 * np.array(to_rgb(bar.get_facecolor()))))[None, None])[1]
            assert begin < failures.hue_angle(ab).item() < begin + 15 and torch.linalg.vector_norm(ab) > 30
        assert tick_labels(ax.xaxis) == ["+a", "+b", "-a", "-b"]
        np.testing.assert_allclose(np.rad2deg(ax.get_xticks()), [0, 90, 180, 270])
        rings = [line.get_ydata() for line in ax.lines]
        assert len(rings) == (column != "share of pixels") and all((ring == 1).all() for ring in rings)


def test_the_hue_wheel_leaves_out_what_too_few_photos_have():
    rare = pd.DataFrame({column: 30.0 for column in WHEEL} | {"MSE ratio to grey from": np.nan}, index=["195"])
    drawn, without = (plots.hue_wheel(table).axes[1].containers[0] for table in (pd.concat([WHEEL, rare]), WHEEL))
    assert [bar.get_height() for bar in drawn] == [bar.get_height() for bar in without]


def test_the_hue_wheel_may_have_fewer_sectors():
    figure = plots.hue_wheel(WHEEL, width=45)
    for ax in figure.axes:
        np.testing.assert_allclose(np.rad2deg([bar.get_width() for bar in ax.containers[0]]), 45)
        np.testing.assert_allclose(np.rad2deg([bar.get_x() for bar in ax.containers[0]]), [0, 45, 90, 285], atol=1e-9)


@pytest.mark.filterwarnings("error")
def test_saturation_shows_each_network_its_intervals_and_the_diagonal():
    names = ["0 to 10", "10 to 20", "60 to 200"]
    one = [pd.Series(values, index=names) for values in ([4, 15, 70], [5, 9, 12], [4, 8, NAN], [6, 10, NAN])]
    two = [values * 1.2 for values in one]
    figure = plots.saturation({"one": one, "two (random)": two})
    assert texts_outside(figure) == []
    (ax,) = figure.axes
    lines = {line.get_label(): line.get_xydata() for line in ax.lines}
    assert list(lines) == ["one", "two (random)", "the truth"]
    for name, (true, predicted, _, _) in {"one": one, "two (random)": two}.items():
        np.testing.assert_array_equal(lines[name], np.stack([true, predicted], axis=1))
    assert lines["the truth"].tolist() == [[0, 0], [84, 84]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(lines)
    for band, (true, _, low, high) in zip(ax.collections, (one, two)):
        corners = {tuple(corner) for corner in band.get_paths()[0].vertices}
        assert corners == {*zip(true[:2], low[:2]), *zip(true[:2], high[:2])}  # and nothing where there is none
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("true chroma", "predicted chroma")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_swatches_paint_the_very_colours(kind):
    rgb = np.array([[[255, 0, 0], [12, 200, 40], [1, 2, 3]], [[255, 255, 255], [0, 0, 0], [120, 60, 30]]], np.uint8)
    rows = {}
    for name, row in zip(("first", "second"), rgb):
        L, ab = color.photo_to_lab(row[None])
        rows[name] = kind(L[0, 0, 0].tolist()), kind(ab[0, :, 0].T.tolist())
    figure = plots.swatches(rows, ["x", "y", "z"])
    (ax,) = figure.axes
    np.testing.assert_array_equal(ax.images[0].get_array(), rgb)
    assert tick_labels(ax.yaxis) == ["first", "second"]
    assert [tick.label2.get_text() for tick in ax.xaxis.get_major_ticks()] == ["x", "y", "z"]
    assert all(tick.label2.get_visible() and not tick.label1.get_visible() for tick in ax.xaxis.get_major_ticks())
    assert texts_outside(figure) == []


def test_swatches_have_room_for_the_labels_of_03():
    labels = ["the mean (squared error)", "the likeliest", "the mean, rare ones weighted", "sharpened to T = 0.38"]
    rows = dict.fromkeys(labels, (torch.linspace(5, 95, 9), torch.zeros(9, 2)))
    assert texts_outside(plots.swatches(rows, [f"L {k}" for k in range(5, 95, 10)])) == []
