"""What the answers to a study say: tables with exact intervals, a test against chance, and a report of one page."""

import base64
import html
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import stats

from colorlib import recipes, tables
from colorlib.study import KINDS

_RESAMPLES = 9_999  # of the key; where there are no more ways to draw it, all of them are tried


@lru_cache
def share(right, n):
    """A share with its exact (Clopper-Pearson) 95 % interval: `(share, from, to)`.

    Raises:
        ValueError: if there is nothing to count.
    """
    return (right / n, *stats.binomtest(int(right), int(n)).proportion_ci(method="exact"))


def simulate(study, accuracies, seed=0):
    """Answers of imagined people, like those that `study.collect` returns. Not a result, and to be labelled so.

    Args:
        accuracies: for each person; of the kind "real": the probability to judge a photo rightly; of the kind
            "grade": the probabilities of the three grades.
    """
    rng, rows = np.random.default_rng(seed), []
    choices = list(KINDS[study.kind]["choices"])
    for k, accuracy in enumerate(accuracies, start=1):
        if study.kind == "grade":
            given = rng.choice(choices, size=len(study.key), p=np.divide(accuracy, np.sum(accuracy)))
        else:
            right = rng.random(len(study.key)) < accuracy
            given = np.where(study.key.coloured.to_numpy() == right, "coloured", "real")
        rows += [(f"participant {k}", photo, answer, np.nan) for photo, answer in zip(study.key.index, given)]
    return pd.DataFrame(rows, columns=["participant", "photo", "answer", "seconds"])


def _judged(study, answers):
    """The answers with the truth beside them; `said` and `coloured` as booleans, `right` where they agree."""
    if not len(answers):
        raise ValueError("there are no answers to score: collect some, or simulate them.")
    judged = answers.assign(coloured=study.key.coloured.loc[answers.photo].to_numpy())
    judged["said"] = judged.answer == "coloured"
    return judged.assign(right=judged.said == judged.coloured)


def _people(judged):
    """Each participant's rows, in the order of their numbers, and then everyone's."""
    yield from judged.groupby("participant", sort=False)
    yield "all", judged


def score(study, answers):
    """How well people told coloured photos from real ones.

    Args:
        study: a `study.Study` of the kind "real".
        answers: what `study.collect` or `simulate` returned.

    Returns:
        DataFrame with a row per participant and one for all: `right` of `judged`, `accuracy` with its exact 95 %
        interval `accuracy from`, `accuracy to`; `fooled`: the share of coloured photos taken for real, with its
        interval `fooled from`, `fooled to`; and `found all`. Several people's judgements of one photo are not
        independent, so that the intervals of the last row are, if anything, too narrow.

    Raises:
        ValueError: if there are no answers.
    """
    lines = {}
    for who, rows in _people(_judged(study, answers)):
        fooled = ~rows.said[rows.coloured]
        numbers = (rows.right.sum(), len(rows), *share(rows.right.sum(), len(rows)), *share(fooled.sum(), len(fooled)))
        found = ~fooled.groupby(rows.participant).any()
        lines[who] = (*numbers, f"{found.sum()} of {len(found)}" if who == "all" else bool(found.iloc[0]))
    columns = [
        "right",
        "judged",
        "accuracy",
        "accuracy from",
        "accuracy to",
        "fooled",
        "fooled from",
        "fooled to",
        "found all",
    ]
    return pd.DataFrame.from_dict(lines, orient="index", columns=columns).rename_axis("who")


def against_chance(study, answers, seed=0):
    """Whether the accuracy differs from that of people who do not look, by permuting the key over the photos.

    The photos, not the judgements, are exchanged, since what is hard about a photo is so for everyone who sees it.

    Returns:
        `{"chance", "accuracy", "p"}`: the mean accuracy over all keys, the one under the true key, and the two-sided
        p-value (`scipy.stats.permutation_test`): exact if there are at most 9,999 keys, as with ten photos, 252.
    """
    judged = _judged(study, answers)
    said = judged.groupby("photo", sort=False).said.mean()
    coloured = study.key.coloured.loc[said.index].to_numpy()
    share_said, share_coloured = said.mean(), coloured.mean()

    def accuracy(yes, no, axis=-1):
        return (yes.sum(axis=axis) + (1 - no).sum(axis=axis)) / len(said)

    test = stats.permutation_test(
        (said[coloured].to_numpy(), said[~coloured].to_numpy()),
        accuracy,
        n_resamples=_RESAMPLES,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    chance = share_said * share_coloured + (1 - share_said) * (1 - share_coloured)
    return {"chance": chance, "accuracy": float(test.statistic), "p": float(test.pvalue)}


def grades(study, answers):
    """How the coloured photos were graded: a row per participant and one for all, with the share of each grade.

    Each share has its exact 95 % interval, `GRADE from` and `GRADE to`; see `score` about the last row's.

    Raises:
        ValueError: if there are no answers.
    """
    lines = {}
    for who, rows in _people(_judged(study, answers)):
        lines[who] = {"judged": len(rows)}
        for grade in KINDS["grade"]["choices"]:
            lines[who] |= zip((grade, f"{grade} from", f"{grade} to"), share((rows.answer == grade).sum(), len(rows)))
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("who")


def by_photo(study, answers):
    """The photos, those that fooled most first: DataFrame by `photo`.

    Columns: `file`, `coloured`, `judged`, and of the kind "real" `taken for real`, the share, with real photos after
    the coloured ones; of the kind "grade" the shares of the three grades, most successes less failures first.
    """
    judged = _judged(study, answers)
    table = study.key.join(judged.groupby("photo").size().rename("judged"), how="right")
    if study.kind == "grade":
        counts = pd.crosstab(judged.photo, judged.answer, normalize="index")
        table = table.join(counts.reindex(columns=list(KINDS["grade"]["choices"]), fill_value=0.0))
        return table.loc[(table.failure - table.success).sort_values(kind="stable").index]
    table["taken for real"] = 1 - judged.groupby("photo").said.mean()
    return table.sort_values(["coloured", "taken for real"], ascending=False, kind="stable")


def extremes(study, photos, n=4):
    """The first and the last coloured photos of `by_photo`, at most `n` of each and none twice: `{title: rows}`."""
    made = photos[photos.coloured]
    first, last = ("graded best", "graded worst") if study.kind == "grade" else ("fooled most", "fooled least")
    n = min(n, (len(made) + 1) // 2)
    return {first: made.iloc[:n], last: made.iloc[n:].iloc[::-1].iloc[:n]}


def captions(study, photos):
    """A line for each row of `by_photo`: how many fell for it."""
    if study.kind == "grade":
        return [f"success {row.success:.0%}, failure {row.failure:.0%}" for row in photos.itertuples()]
    return [f"real, say {taken:.0%}" for taken in photos["taken for real"]]


def beside_published(study, table):
    """The figures of all participants beside the sources', which are of other photos, other people, other rules.

    Args:
        table: what `score` or `grades` returned.
    """
    everyone, published = table.loc["all"], recipes.PUBLISHED[recipes.PUBLISHED.data == "study"]
    ours = {f"graded {grade}": grade for grade in KINDS["grade"]["choices"]}
    if study.kind == "real":
        ours = {"accuracy": "accuracy", "fool rate": "fooled"}
    lines = []
    for row in published[published.measure.isin(list(ours))].itertuples():
        column = ours[row.measure]
        here = [everyone[name] for name in (column, f"{column} from", f"{column} to")]
        lines.append((row.measure, *here, row.published, f"published by {row.source}", row.protocol))
    columns = ["measure", "here", "here from", "here to", "published", "by", "protocol"]
    return pd.DataFrame(lines, columns=columns).set_index("measure")


def report(study, answers, collected=None, simulated=""):
    """Write what there is to say as one page, `report.html`, and `answers.csv`, `score.csv`, `photos.csv` beside it.

    Args:
        collected: the report of `study.collect`; what was left out is listed.
        simulated: how the answers were drawn, if they were. Then every title says so, and so do the files' names.

    Returns:
        The page's path.
    """
    table = score(study, answers) if study.kind == "real" else grades(study, answers)
    photos, n = by_photo(study, answers), answers.participant.nunique()
    label = " (simulated)" if simulated else ""
    parts = [f"<p>{n} participants, {len(study.key)} photos. {_sentence(study, table)}</p>"]
    if simulated:
        parts = [f"<p><strong>Nobody was asked: {html.escape(simulated)}.</strong></p>", *parts]
    if study.kind == "real":
        test = against_chance(study, answers)
        parts.append(
            f"<p>People who say &ldquo;coloured&rdquo; as often without looking are right in "
            f"{100 * test['chance']:.1f} % of cases. Two-sided test, permuting the key over the photos: "
            f"p = {test['p']:.2g}.</p>"
        )
    parts.append(f"<h2>Participants{label}</h2>{_table(table)}")
    parts.append(
        "<p>Intervals: exact binomial (Clopper-Pearson), 95 %. Those of the last row take every judgement for "
        "independent, which judgements of one photo are not, and are, if anything, too narrow.</p>"
    )
    parts.append(f"<h2>Beside the published figures{label}</h2>{_table(beside_published(study, table))}")
    for title, rows in extremes(study, photos).items():
        pictures = "".join(_figure(study, *pair) for pair in zip(rows.index, captions(study, rows)))
        parts.append(f"<h2>{title.capitalize()}{label}</h2><div>{pictures}</div>")
    if collected is not None and not collected.counted.all():
        left_out = collected[~collected.counted].drop(columns="counted").set_index("where")
        parts.append(f"<h2>Left out</h2>{_table(left_out)}")
    title = f"{KINDS[study.kind]['title']} The result{label}"
    end = "_simulated" if simulated else ""
    for name, frame in (("answers", answers.set_index("participant")), ("score", table), ("photos", photos)):
        frame.to_csv(study.folder / f"{name}{end}.csv")
    path = study.folder / f"report{end}.html"
    path.write_text(_HEAD.format(title=html.escape(title)) + "\n".join(parts) + "\n</html>\n", encoding="utf-8")
    return path


def _sentence(study, table):
    everyone = table.loc["all"]
    if study.kind == "grade":
        return ", ".join(f"{grade}: {_percent(everyone, grade)}" for grade in KINDS["grade"]["choices"]) + "."
    return (
        f"Right: {everyone.right} of {everyone.judged}, {_percent(everyone, 'accuracy')}. Coloured photos taken for "
        f"real (fool rate): {_percent(everyone, 'fooled')}. Found every coloured photo: {everyone['found all']}."
    )


def _percent(row, column):
    value, low, high = (100 * row[f"{column}{end}"] for end in ("", " from", " to"))
    return f"{value:.1f} % (95 % interval {low:.1f} to {high:.1f} %)"


def _table(frame):
    with pd.option_context("display.max_colwidth", None):
        table = tables.readable(frame).rename_axis(None).to_html(border=0)  # escapes
    return f'<div class="wide">{table}</div>'


def _figure(study, photo, caption):
    data = base64.b64encode(study.jpegs[photo][-1]).decode()
    picture = f'<img alt="Photo {photo}" src="data:image/jpeg;base64,{data}">'
    return f"<figure>{picture}<figcaption>{html.escape(caption)}</figcaption></figure>"


_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 70rem; margin: 0 auto; padding: 1rem; }}
.wide {{ overflow-x: auto; }} table {{ border-collapse: collapse; }}
th, td {{ padding: 0.2rem 0.6rem; text-align: right; border-bottom: 1px solid #808080; }}
th {{ white-space: nowrap; }}
figure {{ display: inline-block; margin: 0 0.6rem 0.6rem 0; }} img {{ height: 10rem; max-width: 100%; display: block; }}
</style>
<h1>{title}</h1>
"""
