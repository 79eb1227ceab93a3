"""From a row per photo to tables: means with 95 % intervals over photos, beside the floors; paired differences."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from colorlib import recipes
from colorlib.metrics import FLOORS

# How tables call what has an interval, and the digits after the point of every number.
MEANS = {"mse": "MSE", "ciede2000": "CIEDE2000", "psnr": "PSNR", "ssim": "SSIM", "colourfulness": "colourfulness"}
_DIGITS = {
    "MSE": 5, "MSE in ab": 1, "RMSE": 2, "explained": 2, "share": 3, "CIEDE2000": 2, "PSNR": 2, "SSIM": 3,
    "colourfulness": 1, "colourfulness ratio": 2, "chroma ratio": 2, "MSE ratio to grey": 2, "share of pixels": 3,
    "accuracy": 2, "fooled": 2, "success": 2, "medium": 2, "failure": 2, "here": 3,
}  # fmt: skip


FEWEST = 20  # photos below which there is no interval: of exponential values, that of 5 holds the mean in 78 % of cases


def interval(values, below=None, level=0.95, seed=0):
    """Bootstrap interval of the mean over photos (percentile, 2,000 resamples): `(low, high)`.

    With fewer than `FEWEST` photos, or values that are not finite, there is none: `(nan, nan)`.

    Args:
        values: one for each photo.
        below: one for each photo too; then it is the interval of the ratio of the two means. Photos with 0 there do
            not count as photos.
    """
    parts = [np.asarray(part, dtype=float) for part in (values, below) if part is not None]
    n = len(parts[0]) if below is None else np.count_nonzero(parts[1])
    if n < FEWEST or not np.isfinite(parts).all():
        return np.nan, np.nan
    how = {"n_resamples": 2000, "batch": 100, "method": "percentile", "rng": np.random.default_rng(seed)}
    statistic = np.mean if below is None else _ratio
    # Where one of the resamples has no ratio, neither has the interval ends: they are NaN.
    with warnings.catch_warnings(action="ignore", category=stats.DegenerateDataWarning), np.errstate(all="ignore"):
        found = stats.bootstrap(parts, statistic, paired=below is not None, confidence_level=level, **how)
    return found.confidence_interval


def _ratio(above, below, axis=-1):
    with np.errstate(all="ignore"):
        return above.mean(axis=axis) / below.mean(axis=axis)


def table(measured):
    """The floors, and then each predictor, on the same photos.

    Args:
        measured: `{name: rows}`, what `evaluation.measure` or `evaluation.evaluate` returned for each predictor; None
            instead, but not for the first, leaves its line empty.

    Returns:
        DataFrame by predictor. Each of MSE (on `ab_unit`), explained, CIEDE2000, PSNR, SSIM, colourfulness and its
        ratio to the truth's is followed by its 95 % interval over photos (`MSE from`, `MSE to`).
        "MSE in ab" is the MSE x 255^2 and RMSE its root. "explained" is a skill score: 1 - MSE / MSE of the training
        photos' mean colour, of the means over photos (the mean of the photos' own shares is something else). The floors
        are the first predictor's: if another one was trained on other photos, its training mean is another, and it is
        that one from which its own "explained" counts.

    Raises:
        ValueError: if they were not measured on the same photos, or no photo could be read.
    """
    firsts = next(iter(measured.values()))
    lines = {label: _line(_good(firsts), f"_{name}") for name, label in FLOORS.items()}
    for name, rows in measured.items():
        if rows is not None and not _same_photos(rows, firsts):
            raise ValueError(f"{name} was not measured on the same pixels as {next(iter(measured))}.")
        lines[name] = {} if rows is None else _line(_good(rows), "")
    return pd.DataFrame(lines).T.rename_axis("predictor")


def _same_photos(rows, others):
    # The errors of all grey depend on the pixels alone: another size or crop would show.
    same = rows.file.tolist() == others.file.tolist()
    return same and np.allclose(rows.mse_grey, others.mse_grey, rtol=1e-3, atol=1e-9, equal_nan=True)


def _good(rows):
    good = rows[rows.fault == ""] if "fault" in rows else rows
    if good.empty:
        raise ValueError("none of the photos could be read: look at the column `fault`.")
    return good


def _line(rows, of):
    """The numbers of one predictor, or of the floor `of`: a dict."""
    line = {"photos": len(rows)}
    for name, label in MEANS.items():
        if f"{name}{of}" not in rows:
            continue
        values = rows[f"{name}{of}"]
        if name != "mse":  # those of pictures are only known of the part; an error that is no number has to show
            values = values.dropna()
        line |= _with_interval(label, values.mean(skipna=False), interval(values))
        if name == "mse":
            line |= {"MSE in ab": line["MSE"] * 255**2, "RMSE": line["MSE"] ** 0.5 * 255}
            line |= ratio("explained", values, rows.mse_train_mean, lambda ratio: 1 - ratio)
        if name == "colourfulness":
            line |= ratio("colourfulness ratio", values, rows.loc[values.index, "colourfulness_true"])
    return line


def _with_interval(label, value, ends):
    return {label: value, f"{label} from": min(ends), f"{label} to": max(ends)}


def ratio(label, values, below, change=lambda ratio: ratio):
    """The ratio of two means over photos with its interval, as parts of a table's line.

    Args:
        label: the column's name; "LABEL from" and "LABEL to" are the others.
        values, below: one for each photo.
        change: a monotone function of the ratio, which is shown instead of it.
    """
    value = _ratio(np.asarray(values), np.asarray(below)) if len(values) else np.nan
    return _with_interval(label, change(value), [change(end) for end in interval(values, below)])


def by_group(rows, groups):
    """The same by group of photos: DataFrame with `photos`, MSE, floor, explained and colour strength.

    The best come first, and last those of fewer than `FEWEST` photos, which have no intervals.

    Args:
        rows: as for `table`.
        groups: for each row the name of its group; "" leaves the photo out.

    Raises:
        ValueError: if no photo is left.
    """
    lines = {}
    for group, part in rows.assign(group=list(groups)).groupby("group", sort=True):
        part = part[part.fault == ""] if "fault" in part else part
        if group and len(part):
            lines[group] = {"photos": len(part)}
            lines[group] |= _with_interval("MSE", part.mse.mean(skipna=False), interval(part.mse))
            lines[group]["mean colour"] = part.mse_train_mean.mean()
            lines[group] |= ratio("explained", part.mse, part.mse_train_mean, lambda ratio: 1 - ratio)
            lines[group] |= ratio("chroma ratio", part.chroma, part.true_chroma)
    if not lines:
        raise ValueError("none of the photos belongs to a group that could be measured.")
    frame = pd.DataFrame(lines).T.sort_values("explained", ascending=False).rename_axis("group")
    return frame.sort_values("photos", key=lambda n: n < FEWEST, kind="stable")


def difference(first, second, measure="mse"):
    """The paired difference between two predictors: mean of `first - second` over the photos that both have.

    Returns:
        Series: `photos`; `difference` with its 95 % interval `from`, `to`; and `first lower`, the share of the photos
        on which the first one's value is the lower one.

    Raises:
        ValueError: if they have no photo in common.
    """
    first, second = (rows.drop_duplicates("file").set_index("file")[measure] for rows in (first, second))
    with np.errstate(invalid="ignore"):
        less = (first - second).dropna()
    if less.empty:
        raise ValueError("they were measured on different photos, and cannot be compared in pairs.")
    low, high = interval(less)
    found = {"photos": len(less), "difference": less.mean(), "from": low, "to": high, "first lower": (less < 0).mean()}
    return pd.Series(found)


def differences(measured):
    """Each predictor against the first, photo by photo: `difference` in MSE and in CIEDE2000 (below 0: better).

    Args:
        measured: as for `table`.

    Returns:
        DataFrame by predictor and measure.
    """
    (first, firsts), *others = measured.items()
    lines = {
        (name, f"{MEANS[measure]}, less that of {first}"): difference(rows, firsts, measure)
        for name, rows in others
        if rows is not None
        for measure in ("mse", "ciede2000")
        if measure in rows and rows[measure].notna().any()
    }
    return pd.DataFrame(lines).T.rename(columns={end: f"difference {end}" for end in ("from", "to")})


def beside_published(source, measured):
    """What a document states, and what we found, in one table; "published" marks what is not ours.

    Args:
        source: "document 000" and so on.
        measured: `{(recipe, data): rows}`; what is of other data sets than the document's is passed over.

    Returns:
        DataFrame by recipe and data: what was published, what is unknown about it, and ours with its floors; numbers
        are missing where nothing was measured.
    """
    stated = recipes.PUBLISHED.query("source == @source and measure == 'MSE'").set_index(["recipe", "data"])
    sets, lines = set(stated.index.get_level_values("data")), {}
    for key in dict.fromkeys([*stated.index, *(key for key in measured if key[1] in sets)]):
        known = key in stated.index
        line = {f"published by {source}": stated.published[key] if known else np.nan}
        if key in measured:
            rows = _good(measured[key])
            line |= _with_interval("MSE", rows.mse.mean(skipna=False), interval(rows.mse)) | {"photos": len(rows)}
            line |= {label: rows[f"mse_{name}"].mean() for name, label in FLOORS.items()}
        lines[key] = line | {"about the published one": stated.protocol[key] if known else "it states none"}
    columns = [f"published by {source}", "MSE", "MSE from", "MSE to", "photos", *FLOORS.values()]
    frame = pd.DataFrame(lines).T.reindex(columns=[*columns, "about the published one"]).infer_objects()
    return frame.rename_axis(["recipe", "data"]) if lines else frame


def shares(counts):
    """Counts of kinds as shares, with exact (Clopper-Pearson) 95 % intervals: a DataFrame."""
    n, lines = sum(counts.values()), {}
    for kind, k in counts.items():
        low, high = stats.binomtest(k, n).proportion_ci(method="exact")
        lines[kind] = {"count": k, "share": k / n, "share from": low, "share to": high}
    return pd.DataFrame(lines).T.astype({"count": int}).rename_axis("kind")


def counted(measured):
    """A sentence on how many photos there were, how many of them could not be read, and the size of the part."""
    rows = next(iter(measured.values()))
    bad = rows[rows.fault != ""] if "fault" in rows else rows[:0]
    text = f"{len(rows)} photos"
    if len(bad):
        text += f", {len(bad)} of which could not be read and do not count (such as {bad.fault.iloc[0].rstrip('.')})"
    n = rows.psnr.notna().sum() if "psnr" in rows else 0
    if n:
        some = f"{n} of them, drawn at random" if n < len(rows) - len(bad) else "all of them"
        text += f"; CIEDE2000, PSNR, SSIM and colourfulness on {some}"
    return f"{text}."


def readable(frame):
    """A table for reading: text, rounded, each interval in brackets behind its number. A missing MSE says so."""
    shown = pd.DataFrame(index=frame.index)
    for column in frame.columns:
        if column.endswith((" from", " to")) and column.rsplit(" ", 1)[0] in frame:
            continue
        text = _number(frame[column], column)
        if f"{column} from" in frame:
            low, high = (_number(frame[f"{column} {end}"], f"{column} {end}") for end in ("from", "to"))
            text = [f"{value} ({a} to {b})" if a and b else value for value, a, b in zip(text, low, high)]
        shown[column] = text
    return shown.rename(columns={column: f"{column} (95 %)" for column in shown if f"{column} from" in frame})


def _number(values, column):
    if not pd.api.types.is_numeric_dtype(values):
        return values.tolist()
    look = f".{_DIGITS.get(column.removesuffix(' from').removesuffix(' to'), 5)}f"
    if column.startswith("published"):
        look = "g"  # as many digits as were given
    elif column in ("photos", "count", "right", "judged"):
        look = ".0f"
    missing = "no figure" if column == "MSE" else ""
    return [missing if np.isnan(value) else f"{value:{look}}".replace("inf", "∞") for value in values.astype(float)]


def markdown(shown):
    """A table of text as Markdown."""
    shown = shown.reset_index()
    lines = [shown.columns, ["---"] * len(shown.columns), *shown.astype(str).to_numpy()]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def save(frame, path):
    """Write a table as PATH.csv, in full, and as PATH.md, for reading.

    Raises:
        OSError: if it cannot be written.
    """
    frame.to_csv(f"{path}.csv", encoding="utf-8")
    Path(f"{path}.md").write_text(markdown(readable(frame)), encoding="utf-8")


def unused(name, names):
    """The name, with a number behind it if it is among `names` already."""
    numbers = [name, *(f"{name} {k}" for k in range(2, len(names) + 2))]
    return next(candidate for candidate in numbers if candidate not in names)
