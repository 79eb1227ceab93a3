"""Every figure. Drawn without pyplot, so that no window opens and nothing is left behind in memory."""

import base64
import html
import math
import time

import numpy as np
import pandas as pd
import torch
from matplotlib import colormaps
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from colorlib import color, runtime
from colorlib.metrics import FLOORS

FLOOR_STYLE = {"grey": ("all grey", ":"), "train_mean": ("mean colour", "--"), "oracle": ("own mean (oracle)", "-.")}


def show(figure, name, alt):
    """Save a figure as `figures/NAME.png` in the runs folder; in a notebook, show it, with `alt` for who cannot see."""
    path = _save(figure, name)
    if runtime.in_notebook():
        from IPython.display import display

        display(_as_html(path, alt))
    else:
        print(f"Figure: {path}")


def _save(figure, name):
    path = runtime.writable(runtime.runs_dir() / "figures") / f"{name}.png"
    figure.savefig(path, dpi=110)
    return path


def _as_html(path, alt):
    from IPython.display import HTML

    # A plain picture would lose its alternative text on the way to a page.
    data = base64.b64encode(path.read_bytes()).decode()
    return HTML(f'<img alt="{html.escape(alt)}" style="max-width: 100%" src="data:image/png;base64,{data}">')


def show_table(frame, title=""):
    """Show a DataFrame whole, below its title if it has one: as a table in a notebook, as text elsewhere."""
    if runtime.in_notebook():
        from IPython.display import HTML, display

        with pd.option_context("display.max_colwidth", None):
            caption = f"<caption>{html.escape(title)}</caption>"
            display(HTML(frame.to_html().replace("<thead>", f"{caption}<thead>", 1)) if title else frame)
    else:
        print(*filter(None, [title, frame.to_string()]), sep="\n")


def grid(rows, columns=(), captions=(), side=1.7):
    """Pictures in rows.

    Args:
        rows: list of rows of uint8 arrays `(H, W, 3)`.
        columns: titles above the first row.
        captions: for each row a text below its first picture, or a list of texts, one below each picture.
        side: width of each picture in inches.
    """
    n_columns = max(len(row) for row in rows)
    captions = [[c] if isinstance(c, str) else c for c in captions] or [[]] * len(rows)
    heights = [side * max(p.shape[0] / p.shape[1] for p in row) + 0.25 * bool(c) for row, c in zip(rows, captions)]
    figure = Figure(figsize=(side * n_columns, sum(heights) + 0.25 * bool(columns)), layout="constrained")
    axes = figure.subplots(len(rows), n_columns, squeeze=False, height_ratios=heights)
    for ax in axes.flat:
        ax.axis("off")
    for line, row, texts in zip(axes, rows, captions):
        for ax, picture in zip(line, row):
            ax.imshow(picture)
        for ax, text in zip(line, texts):
            # Left-aligned, since a caption for a whole row is often wider than its first picture.
            ax.text(0, -0.02, text, transform=ax.transAxes, va="top", fontsize=9)
    for ax, title in zip(axes[0], columns):
        ax.set_title(title, fontsize=9)
    return figure


def grey(rgb):
    """The neutral photo with the same lightness: uint8 `(H, W, 3)` -> uint8 `(H, W, 3)`."""
    value = (color.l_to_grey(color.photo_to_lab(rgb)[0])[0, 0] * 255).round().to(torch.uint8).numpy()
    return np.repeat(value[..., None], 3, axis=2)


def to_rgb(L, ab):
    """`(L, ab)` of a batch of one -> uint8 `(H, W, 3)`. The colour is repeated over L's size if it is smaller."""
    return color.lab_to_rgb(L, ab.expand(1, 2, *L.shape[-2:]))[0].permute(1, 2, 0).cpu().numpy()


def channels(rgb):
    """A photo and its L, a and b; a and b shown as the colours they stand for, at one lightness."""
    L, ab = color.photo_to_lab(rgb)
    flat = torch.full_like(L, 65)
    only_a, only_b = (ab * torch.tensor(mask).view(1, 2, 1, 1) for mask in ([1.0, 0.0], [0.0, 1.0]))
    pictures = [rgb, grey(rgb), to_rgb(flat, only_a), to_rgb(flat, only_b)]
    titles = ["the photo", "L: lightness", "a: green to red", "b: blue to yellow"]
    return grid([pictures], titles, side=2.4)


def ab_density(counts, edges):
    """How often each colour occurs, on a logarithmic scale, beside the colours themselves.

    Args:
        counts: `(n, n)`, pixels per cell; rows along a, columns along b.
        edges: the n + 1 limits of the cells, on both axes, in `ab` units.
    """
    centres = (edges[1:] + edges[:-1]) / 2
    a, b = np.meshgrid(centres, centres, indexing="ij")
    ab = torch.from_numpy(np.stack([a, b])[None]).float()
    L = torch.full_like(ab[:, :1], 65)
    shown = color.lab_to_rgb(L, ab)
    inside = ((color.rgb_to_lab(shown)[1] - ab).abs() < 2).all(dim=1)[0].numpy()
    plane = np.where(inside[..., None], shown[0].permute(1, 2, 0).numpy(), 255).transpose(1, 0, 2)

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    box = (edges[0], edges[-1], edges[0], edges[-1])
    left.imshow(plane, origin="lower", extent=box, interpolation="bilinear")
    left.set(title="the ab plane, at L = 65", xlabel="a (green to red)", ylabel="b (blue to yellow)")
    mesh = right.pcolormesh(edges, edges, np.ma.masked_equal(counts.T, 0), norm=LogNorm(), cmap="viridis")
    right.contour(centres, centres, inside.T, levels=[0.5], colors="0.4", linewidths=0.8)
    right.set(title="share of the pixels (outline: sRGB at L = 65)", xlabel="a", ylabel="b", aspect="equal")
    figure.colorbar(mesh, ax=right)
    return figure


def ab_bins(prior, weights):
    """The bins of colour: what they look like, how often they occur, and how much each counts in training.

    Args:
        prior, weights: `(Q,)`, of `color.ab_bins`.
    """
    bins = color.ab_bins()
    shown = color.lab_to_rgb(torch.full((1, 1, 1, len(bins)), 65.0), bins.T[None, :, None])[0, :, 0].T.numpy() / 255
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    titles = [f"the {len(bins)} bins, at L = 65", "share of the training colours", "weight in the loss"]
    for ax, values, title in zip(figure.subplots(1, 3), [None, prior, weights], titles):
        look = {"c": shown} if values is None else {"c": values, "norm": LogNorm(), "cmap": "viridis"}
        if values is not None:  # colours that never occur have no logarithm
            look["c"] = np.maximum(values, np.min(values[values > 0]))
        mesh = ax.scatter(*bins.T, s=36, marker="s", **look)
        ax.set(title=title, xlabel="a", ylabel="b", aspect="equal")
        if values is not None:
            figure.colorbar(mesh, ax=ax)
    return figure


def live_curves(name, alt):
    """A function for `training.fit(after_epoch=...)`: draws `curves` anew, in the same place, every few seconds.

    Call it once more with `pause=0` when the training has ended. Outside of notebooks it only writes the file.
    """
    place, drawn = None, -math.inf

    def draw(history, floors, pause=5):
        nonlocal place, drawn
        if time.monotonic() - drawn < pause:  # on a small machine drawing takes time from the training
            return
        path, drawn = _save(curves(history, floors), name), time.monotonic()
        if runtime.in_notebook():
            from IPython.display import DisplayHandle

            first, place = place is None, place or DisplayHandle()
            (place.display if first else place.update)(_as_html(path, alt))

    return draw


def range_test(frame):
    """The loss by learning rate: what `trainer.range_test` returns, with the rate of the lowest loss marked."""
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    ax = figure.subplots()
    ax.plot(frame.lr, frame.loss, color="tab:blue")
    lowest = frame.loc[frame.loss.idxmin()]
    ax.plot(lowest.lr, lowest.loss, "o", color="tab:orange")
    text = f"lowest at {lowest.lr:.2g}"
    ax.annotate(text, (lowest.lr, lowest.loss), (0, -12), textcoords="offset points", ha="center")
    ax.axvspan(lowest.lr / 10, lowest.lr / 3, color="tab:orange", alpha=0.15, label="rates to try")
    ax.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="loss, smoothed")
    ax.margins(y=0.15)
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def curves(history, floors):
    """Validation MSE by epoch, against the floors, and the training loss; on axes of its own if it is not MSE.

    Args:
        history: DataFrame with `epoch`, `train_loss`, `val_loss` and `val_mse`.
        floors: `{"grey": mse, "train_mean": mse, "oracle": mse}` on the validation photos.
    """
    other = not np.allclose(history.val_loss, history.val_mse, rtol=1e-3)
    figure = Figure(figsize=(11, 3.6) if other else (7.5, 3.6), layout="constrained")
    axes = figure.subplots(1, 1 + other, squeeze=False)[0]
    best = history.loc[history.val_loss.idxmin()]
    axes[-1].plot(history.epoch, history.train_loss, color="tab:blue", marker=".", label="training")
    for ax, column in zip(axes, ["val_mse", "val_loss"]):
        ax.plot(history.epoch, history[column], color="tab:orange", marker=".", label="validation")
        ax.plot(best.epoch, best[column], "o", color="tab:orange", mfc="none", ms=11)
        ax.annotate("best", (best.epoch, best[column]), (0, -14), textcoords="offset points", ha="center", fontsize=8)
        ax.set(xlabel="epoch", ylabel="the recipe's own loss")
        ax.spines[["top", "right"]].set_visible(False)
    draw_floors(axes[0], floors)
    axes[0].set(ylabel="MSE on ab_unit", yscale="log")
    axes[-1].legend(frameon=False, loc="upper right")
    return figure


def comparison(runs):
    """Validation MSE against the time it took, a line for each run, with the floors.

    Args:
        runs: `{name: Run}`, trained on the same photos.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    ax = figure.subplots()
    for k, (name, run) in enumerate(runs.items()):
        history = run.history
        ax.plot(
            history.seconds.cumsum() / 60, history.val_mse, color=f"C{k % 10}", marker="os^"[k // 10], ms=4, label=name
        )
    floors = next(iter(runs.values())).facts["floors"]
    draw_floors(ax, floors)
    # A first validation may be far above everything else.
    lowest = [run.history.val_mse.min() for run in runs.values()]
    limits = 0.9 * min(floors["oracle"], *lowest), 1.15 * max(floors["grey"], *lowest)
    ax.set(xlabel="minutes", ylabel="validation MSE on ab_unit", ylim=limits)
    figure.legend(frameon=False, ncols=7, fontsize=8, loc="outside lower center")
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def draw_floors(ax, floors):
    """Lines for `{"grey": mse, "train_mean": mse, "oracle": mse}`, named at the right."""
    for name, mse in floors.items():
        label, style = FLOOR_STYLE[name]
        ax.axhline(mse, color="0.4", linestyle=style, linewidth=1)
        ax.annotate(label, (1, mse), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=8)


def error_map(coloured, truth, most=60):
    """Where the colour is wrong: uint8 `(H, W, 3)`, from black (right) to yellow (off by `most` or more, in `ab`).

    Args:
        coloured, truth: uint8 `(H, W, 3)`.
    """
    distance = color.chroma(color.photo_to_lab(coloured)[1] - color.photo_to_lab(truth)[1])[0]
    return (colormaps["inferno"](distance.clamp(max=most).numpy() / most)[..., :3] * 255).round().astype(np.uint8)


def beside_floors(table):
    """Published errors as bars, with the floors on photos like theirs as lines across.

    Args:
        table: by data set, with a column that begins with "published by", and the floors' by their labels.
    """
    figure = Figure(figsize=(7.5, 3.4), layout="constrained")
    ax, place = figure.subplots(), np.arange(len(table))
    name = next(column for column in table if column.startswith("published by"))
    ax.bar(place, table[name], 0.5, color="tab:blue", label=name)
    for floor, colour in zip(FLOORS.values(), ("0.1", "tab:orange", "tab:green")):
        ax.hlines(table[floor], place - 0.35, place + 0.35, color=colour, linewidth=2, label=floor)
    ax.set(xticks=place, xticklabels=table.index, ylabel="MSE on ab_unit")
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    ax.margins(y=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def intervals(tables, column, reference=None, label=None):
    """A column of tables with its 95 % intervals, a line for each row.

    Args:
        tables: `{title: table}`, side by side, with `COLUMN`, `COLUMN from` and `COLUMN to`.
        reference: where to draw a line of comparison.
        label: of the axis, instead of the column's name.
    """
    rows = max(map(len, tables.values()))
    figure = Figure(figsize=(2.2 + 3.4 * len(tables), 1.1 + 0.26 * rows), layout="constrained")
    for ax, (title, table) in zip(np.atleast_1d(figure.subplots(1, len(tables))), tables.items()):
        value, low, high = (table[f"{column}{end}"].to_numpy(float) for end in ("", " from", " to"))
        place = np.arange(len(table))
        ax.errorbar(
            value,
            place,
            xerr=np.nan_to_num([value - low, high - value]).clip(min=0),
            fmt="o",
            ms=4,
            capsize=2,
        )
        if reference is not None:
            ax.axvline(reference, color="0.6", linestyle="--", linewidth=1)
        ax.set(
            yticks=place, yticklabels=table.index, ylim=(len(table) - 0.5, -0.5), title=title, xlabel=label or column
        )
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def hue_wheel(table, width=15):
    """What a table says of the sectors of the hue angle, as wheels in the colours that they are about.

    Args:
        table: by the sectors' first degree, as text; what `failures.table_of` made of the "wheel". Sectors without an
            interval, since too few photos have them, are not drawn.
        width: of the sectors, in degrees.
    """
    table = table[table["MSE ratio to grey from"].notna()]
    start = table.index.astype(float).to_numpy()
    middle = np.deg2rad(start + width / 2)
    ab = torch.from_numpy(45 * np.stack([np.cos(middle), np.sin(middle)])).float().view(1, 2, 1, -1)
    colours = color.lab_to_rgb(torch.full_like(ab[:, :1], 65), ab)[0, :, 0].T.numpy() / 255
    titles = {
        "share of pixels": "share of the pixels",
        "MSE ratio to grey": "error / error of all grey",
        "chroma ratio": "chroma / true chroma",
    }
    figure = Figure(figsize=(10.8, 3.8), layout="constrained")
    for ax, (column, title) in zip(figure.subplots(1, 3, subplot_kw={"projection": "polar"}), titles.items()):
        ax.bar(middle, table[column], np.deg2rad(width), color=colours, edgecolor="white", linewidth=0.5)
        if column != "share of pixels":  # ratios: at 1 it is as wrong as grey, as strong as the truth
            ax.plot(np.linspace(0, 2 * np.pi, 200), np.ones(200), color="0.3", linestyle="--", linewidth=1)
        ax.set(title=title, xticks=np.deg2rad([0, 90, 180, 270]), xticklabels=["+a", "+b", "-a", "-b"])
        ax.yaxis.set_major_locator(MaxNLocator(3))
        ax.tick_params(labelsize=8)
    return figure


def saturation(tables):
    """Predicted against true chroma, with the diagonal that a perfect network would follow.

    Args:
        tables: `{name: (true, predicted, from, to)}`, mean chroma by class of true chroma.
    """
    figure = Figure(figsize=(5, 4), layout="constrained")
    ax, most = figure.subplots(), 0
    for name, (true, predicted, low, high) in tables.items():
        ax.plot(true, predicted, "o-", ms=4, label=name)
        ax.fill_between(true, low, high, alpha=0.2)
        most = max(most, *true)
    ax.plot([0, most], [0, most], color="0.6", linestyle="--", linewidth=1, label="the truth")
    ax.set(xlabel="true chroma", ylabel="predicted chroma")
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def swatches(rows, columns, side=0.62):
    """Flat colours in a table.

    Args:
        rows: `{label: (L, ab)}`, float `(n,)` and `(n, 2)`.
        columns: n titles.
    """
    labels, pictures = list(rows), []
    for L, ab in rows.values():
        L, ab = torch.as_tensor(L).float().view(1, 1, 1, -1), torch.as_tensor(ab).float().T[None, :, None]
        pictures.append(color.lab_to_rgb(L, ab)[0].permute(1, 2, 0).numpy())
    room = 0.5 + 0.08 * max(map(len, labels))  # inches: the layout leaves too little beside a picture
    figure = Figure(figsize=(2 * room + side * len(columns), 0.5 + side * len(rows)), layout="constrained")
    ax = figure.subplots()
    ax.imshow(np.concatenate(pictures), aspect="equal")
    ax.set(xticks=range(len(columns)), xticklabels=columns, yticks=range(len(labels)), yticklabels=labels)
    ax.tick_params(length=0, labelsize=9, top=True, labeltop=True, bottom=False, labelbottom=False)
    ax.spines[:].set_visible(False)
    return figure
