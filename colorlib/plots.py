"""Every figure. Drawn without pyplot, so that no window opens and nothing is left behind in memory."""

import base64
import html
import math
import time

import numpy as np
import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from colorlib import color, runtime

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


def show_table(frame):
    """Show a DataFrame whole: as a table in a notebook, as text elsewhere."""
    if runtime.in_notebook():
        from IPython.display import display

        display(frame)
    else:
        print(frame.to_string())


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
    ax.plot(frame.lr, frame.mse, color="tab:blue")
    lowest = frame.loc[frame.mse.idxmin()]
    ax.plot(lowest.lr, lowest.mse, "o", color="tab:orange")
    text = f"lowest at {lowest.lr:.2g}"
    ax.annotate(text, (lowest.lr, lowest.mse), (0, -12), textcoords="offset points", ha="center")
    ax.axvspan(lowest.lr / 10, lowest.lr / 3, color="tab:orange", alpha=0.15, label="rates to try")
    ax.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="MSE on ab_unit, smoothed")
    ax.margins(y=0.15)
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def curves(history, floors):
    """Training and validation MSE by epoch, against the floors.

    Args:
        history: DataFrame with `epoch`, `train_mse` and `val_mse`.
        floors: `{"grey": mse, "train_mean": mse, "oracle": mse}` on the validation photos.
    """
    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    ax = figure.subplots()
    ax.plot(history.epoch, history.train_mse, color="tab:blue", marker=".", label="training")
    ax.plot(history.epoch, history.val_mse, color="tab:orange", marker=".", label="validation")
    best = history.loc[history.val_mse.idxmin()]
    ax.plot(best.epoch, best.val_mse, "o", color="tab:orange", mfc="none", ms=11)
    ax.annotate("best", (best.epoch, best.val_mse), (0, -14), textcoords="offset points", ha="center", fontsize=8)
    for name, mse in floors.items():
        label, style = FLOOR_STYLE[name]
        ax.axhline(mse, color="0.4", linestyle=style, linewidth=1)
        ax.annotate(label, (1, mse), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=8)
    ax.set(xlabel="epoch", ylabel="MSE on ab_unit", yscale="log")
    ax.legend(frameon=False, loc="upper right")
    ax.spines[["top", "right"]].set_visible(False)
    return figure
