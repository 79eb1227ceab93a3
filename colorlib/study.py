"""A blinded sheet of real and machine-coloured photos, and its score."""

import re

import numpy as np
import pandas as pd
from PIL import Image
from scipy import stats

SHEET_SIDE = 224  # both kinds of photo go through the same resizing, so that sharpness tells nothing


def draw_key(n_photos, n_coloured, seed=0):
    """Which of the numbered photos will be machine-coloured: DataFrame with `number` from 1 and `coloured`.

    Raises:
        ValueError: unless there are photos of both kinds.
    """
    if not 0 < n_coloured < n_photos:
        raise ValueError(f"{n_coloured} of {n_photos} photos coloured: a sheet needs at least one of either kind.")
    coloured = np.arange(n_photos) < n_coloured
    return pd.DataFrame(
        {"number": np.arange(1, n_photos + 1), "coloured": np.random.default_rng(seed).permutation(coloured)}
    )


def tile(rgb):
    """A photo as it stands on the sheet: its central square, uint8 `(224, 224, 3)`."""
    side = min(rgb.shape[:2])
    top, left = (rgb.shape[0] - side) // 2, (rgb.shape[1] - side) // 2
    square = Image.fromarray(rgb[top : top + side, left : left + side])
    return np.asarray(square.resize((SHEET_SIDE, SHEET_SIDE), Image.Resampling.LANCZOS))


def parse_answers(text, n_photos):
    """Answers such as "1 4 7; 2, 3; none": for each participant the numbers taken for coloured, as a list of sets.

    Participants are parted by semicolons or line breaks; "none" stands for one who took all for real.

    Raises:
        ValueError: if something is no photo's number; names the participant.
    """
    answers = []
    for k, part in enumerate(re.split(r"[;\n]+", text.strip("; \n\t")), start=1):
        words = re.findall(r"[^\s,]+", part)
        if [word.lower() for word in words] == ["none"]:
            words = []
        elif wrong := [w for w in words or [""] if not (w.isdecimal() and 1 <= int(w) <= n_photos)]:
            raise ValueError(
                f"participant {k}: {wrong[0]!r} is not a number from 1 to {n_photos}; write numbers, or none."
            )
        answers.append({int(w) for w in words})
    return answers


def simulate_answers(key, n_people, accuracy, seed=0):
    """Answers of imagined participants who judge each photo rightly with the given probability."""
    rng = np.random.default_rng(seed)
    right = rng.random((n_people, len(key))) < accuracy
    return [set(key.number[(key.coloured == r).to_numpy()]) for r in right]


def score(key, answers):
    """How well people told coloured photos from real ones.

    Args:
        key: what `draw_key` returned.
        answers: for each participant the set of numbers taken for coloured.

    Returns:
        DataFrame with a row per participant and one for all: `right` of `judged`, `accuracy` with its exact
        (Clopper-Pearson) 95 % interval `from`, `to`, `fooled`: the share of coloured photos taken for real,
        and `found all`. Judgements of one photo by several people are not independent, so the interval of
        the last row is, if anything, too narrow.

    Raises:
        ValueError: if there are no answers.
    """
    if not answers:
        raise ValueError("there are no answers to score: collect some, or simulate them.")
    coloured = key.coloured.to_numpy()
    said = np.array([key.number.isin(a).to_numpy() for a in answers])  # (people, photos)
    right, fooled = said == coloured, ~said[:, coloured]
    found = ~fooled.any(axis=1)
    groups = [(f"participant {k + 1}", right[k], fooled[k], bool(found[k])) for k in range(len(answers))]
    groups.append(("all", right, fooled, f"{found.sum()} of {len(answers)}"))
    lines = []
    for who, r, f, found_all in groups:
        interval = stats.binomtest(int(r.sum()), r.size).proportion_ci(method="exact")
        lines.append((who, r.sum(), r.size, r.mean(), *interval, f.mean(), found_all))
    columns = ["who", "right", "judged", "accuracy", "from", "to", "fooled", "found all"]
    return pd.DataFrame(lines, columns=columns).set_index("who")
