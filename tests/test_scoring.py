"""The score of a study: against SciPy, closed forms and simulation; the report."""

import io
import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats

from colorlib import collecting, recipes, scoring, study


def written(folder, n=10, n_coloured=5, kind="real"):
    """A study of flat pictures, the coloured ones first."""
    (folder / study.PAGE).parent.mkdir(parents=True)
    rows, entries = [], []
    for i in range(n):
        jpeg = io.BytesIO()
        Image.new("RGB", (24, 16), (20 * i, 90, 200)).save(jpeg, "JPEG")
        data = study.base64.b64encode(jpeg.getvalue()).decode()
        entries.append({"id": f"{i:08x}", "width": 24, "height": 16, "data": [data]})
        rows.append({"photo": f"{i:08x}", "file": f"{i}.jpg", "coloured": i < n_coloured})
    (folder / study.PAGE).write_text(study._page({"title": "T", "photos": entries}))
    (folder / study.KEY).write_text(json.dumps({"study": "ab" * 8, "kind": kind, "photos": rows}))
    return study.Study(folder)


def said(made, *people):
    """Answers from strings with a letter per photo: "c" for coloured and "r" for real, or the grades' first letters."""
    words = {"c": "coloured", "r": "real", "s": "success", "m": "medium", "f": "failure"}
    rows = [
        (f"participant {k}", photo, words[letter], 1.0)
        for k, letters in enumerate(people, start=1)
        for photo, letter in zip(made.key.index, letters)
    ]
    return pd.DataFrame(rows, columns=["participant", "photo", "answer", "seconds"])


def clopper_pearson(right, n):
    """Closed form, from the quantiles of the beta distribution."""
    low = 0.0 if right == 0 else stats.beta.ppf(0.025, right, n - right + 1)
    return low, 1.0 if right == n else stats.beta.ppf(0.975, right + 1, n - right)


@pytest.fixture
def made(tmp_path):
    return written(tmp_path / "study")


@pytest.fixture
def graded(tmp_path):
    return written(tmp_path / "graded", 5, 5, "grade")


# -- accuracy and fool rate ------------------------------------------------------------------------------------


def test_the_score_of_known_answers(made):
    table = scoring.score(made, said(made, "cccccrrrrr", "ccrrrrrrrr", "rrrrrccccc"))
    assert table.index.tolist() == ["participant 1", "participant 2", "participant 3", "all"]
    assert table.right.tolist() == [10, 7, 0, 17] and table.judged.tolist() == [10, 10, 10, 30]
    assert table.fooled.tolist() == [0, 0.6, 1, pytest.approx(8 / 15)]
    assert table["found all"].tolist() == [True, False, False, "1 of 3"]
    for row, fooled in zip(table.itertuples(), [(0, 5), (3, 5), (5, 5), (8, 15)]):
        line = table.loc[row.Index]
        assert (line["accuracy from"], line["accuracy to"]) == pytest.approx(clopper_pearson(row.right, row.judged))
        assert (line["fooled from"], line["fooled to"]) == pytest.approx(clopper_pearson(*fooled))


@pytest.mark.parametrize("n", [1, 10, 50])
def test_shares_have_the_exact_interval(n):
    for right in range(n + 1):
        assert scoring.share(right, n) == pytest.approx((right / n, *clopper_pearson(right, n)), abs=1e-9)


def test_intervals_cover_at_least_at_their_rate():
    """For whatever true share: the exact interval contains it in 95 % of draws or more, and is not absurdly wide."""
    rng, inside = np.random.default_rng(0), []
    ends = [scoring.share(k, 50)[1:] for k in range(51)]
    for p in (0.05, 0.3, 0.5, 0.57, 0.9):
        covered = np.array([low <= p <= high for low, high in ends])
        exact = stats.binom.pmf(np.arange(51), 50, p)[covered].sum()
        drawn = covered[rng.binomial(50, p, 20_000)].mean()
        assert drawn == pytest.approx(exact, abs=4 * np.sqrt(0.05 * 0.95 / 20_000))
        inside.append(exact)
    assert min(inside) >= 0.95 and max(inside) < 0.99


def test_the_whole_way_covers_at_its_rate(made):
    """From simulated people through the score: their true accuracy lies in the interval as often as is said."""
    inside = 0
    for seed in range(300):
        everyone = scoring.score(made, scoring.simulate(made, 5 * [0.57], seed)).loc["all"]
        inside += everyone["accuracy from"] <= 0.57 <= everyone["accuracy to"]
    assert stats.binomtest(inside, 300, 0.967).pvalue > 1e-3  # 0.967 is what the closed form gives for n = 50


@pytest.mark.parametrize("right, low, high", [(28, 0.41255, 0.70009), (29, 0.43207, 0.71813)])
def test_what_57_percent_of_50_answers_can_be(made, right, low, high):
    """Document 000's design, five people and ten photos: 57 % is 28 or 29 right, and neither differs from guessing."""
    letters = list(5 * "cccccrrrrr")
    for i in range(50 - right):
        place = i * 7 % 50  # 7 and 50 have no divisor in common, so that each place comes once
        letters[place] = {"c": "r", "r": "c"}[letters[place]]
    answers = said(made, *("".join(letters[i : i + 10]) for i in range(0, 50, 10)))
    everyone = scoring.score(made, answers).loc["all"]
    assert (everyone.right, everyone.judged) == (right, 50) and round(everyone.accuracy, 2) in (0.56, 0.58)
    assert (everyone["accuracy from"], everyone["accuracy to"]) == pytest.approx((low, high), abs=1e-4)
    text = scoring.report(made, answers).read_text()
    assert f"Right: {right} of 50, {2 * right}.0 % (95 % interval {100 * low:.1f} to {100 * high:.1f} %)" in text
    assert "published by document 000" in text and "<td>0.57</td>" in text


def test_no_answers_are_no_score(made):
    for function in (scoring.score, scoring.grades, scoring.against_chance, scoring.by_photo):
        with pytest.raises(ValueError, match="no answers to score"):
            function(made, said(made))


# -- against chance --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("people", [("cccccrrrrr", "ccccrcrrrr"), ("crcrcrcrcr",), ("rrrrrccccc",), ("cccccccccc",)])
def test_the_test_against_chance_is_that_of_all_keys(made, people):
    """By hand: every way to call five of ten photos coloured, and how many give so extreme an accuracy."""
    answers = said(made, *people)
    yes = np.array([[letter == "c" for letter in letters] for letters in people])
    keys = [np.isin(np.arange(10), key) for key in itertools.combinations(range(10), 5)]
    accuracies = np.array([(yes == key).mean() for key in keys])
    found = scoring.against_chance(made, answers)
    assert len(keys) == 252 and found["accuracy"] == pytest.approx(accuracies[0])
    assert found["chance"] == pytest.approx(accuracies.mean())
    tails = [(accuracies >= accuracies[0] - 1e-9).mean(), (accuracies <= accuracies[0] + 1e-9).mean()]
    assert found["p"] == pytest.approx(min(1, 2 * min(tails)))


def test_chance_follows_how_often_people_say_coloured(tmp_path):
    made = written(tmp_path / "few", 10, 2)
    assert scoring.against_chance(made, said(made, "rrrrrrrrrr"))["chance"] == pytest.approx(0.8)
    assert scoring.against_chance(made, said(made, "cccccccccc"))["chance"] == pytest.approx(0.2)
    assert scoring.against_chance(made, said(made, "cccccrrrrr"))["chance"] == pytest.approx(0.5)


def test_the_test_knows_that_judgements_of_one_photo_are_not_independent(made):
    """Twenty people who all answer alike are no more than one who does; a binomial test would be certain."""
    one, twenty = (scoring.against_chance(made, said(made, *n * ["ccccrcrrrr"]))["p"] for n in (1, 20))
    assert one == pytest.approx(twenty) and one > 0.05
    assert stats.binomtest(160, 200).pvalue < 1e-9


def test_the_test_is_right_about_guessing(made):
    """p-values of people who guess, all in the same way: at most 5 % are below 0.05, and it finds who can tell."""
    rng = np.random.default_rng(0)
    p = []
    for _ in range(200):
        shared = rng.random(10) < 0.5
        people = ["".join("c" if (rng.random() < 0.8) == s else "r" for s in shared) for _ in range(5)]
        p.append(scoring.against_chance(made, said(made, *people))["p"])
    assert np.mean(np.array(p) <= 0.05) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 200)
    assert np.mean(np.array(p) <= 0.5) > 0.3  # it is not simply always large
    assert scoring.against_chance(made, scoring.simulate(made, 10 * [0.95]))["p"] < 0.01


def test_with_many_photos_keys_are_drawn_at_random(tmp_path):
    made = written(tmp_path / "many", 40, 20)
    answers = scoring.simulate(made, 5 * [0.7])
    first, again, other = (scoring.against_chance(made, answers, seed) for seed in (0, 0, 1))
    assert first == again and first["p"] < 0.01 and abs(first["p"] - other["p"]) < 0.005


# -- grades ----------------------------------------------------------------------------------------------------


def test_shares_of_the_grades(graded):
    table = scoring.grades(graded, said(graded, "smmmf", "ssmmm"))
    assert table.loc["all", ["success", "medium", "failure"]].tolist() == [0.3, 0.6, 0.1]
    assert table.loc["participant 2", ["success", "medium", "failure"]].tolist() == [0.4, 0.6, 0]
    for grade, n in (("success", 3), ("medium", 6), ("failure", 1)):
        interval = table.loc["all", [f"{grade} from", f"{grade} to"]].tolist()
        assert interval == pytest.approx(clopper_pearson(n, 10))


# -- photos ----------------------------------------------------------------------------------------------------


def test_photos_that_fooled_most_come_first(made):
    photos = scoring.by_photo(made, said(made, "ccccrrrrrr", "cccrrrrrrr", "ccrrrrrrrr", "crrrrrrrrc"))
    coloured = photos[photos.coloured]
    assert coloured["taken for real"].tolist() == [1, 0.75, 0.5, 0.25, 0] and photos.judged.tolist() == 10 * [4]
    assert coloured.index.tolist() == made.key.index[:5][::-1].tolist()
    ends = scoring.extremes(made, photos, 2)
    assert [list(rows.index) for rows in ends.values()] == [
        coloured.index[:2].tolist(),
        coloured.index[[4, 3]].tolist(),
    ]
    assert list(ends) == ["fooled most", "fooled least"]
    assert scoring.captions(made, ends["fooled most"]) == ["real, say 100%", "real, say 75%"]


@pytest.mark.parametrize("n_coloured", [1, 2, 3, 5])
def test_no_photo_is_among_the_most_and_the_least(tmp_path, n_coloured):
    made = written(tmp_path / "study", 10, n_coloured)
    ends = scoring.extremes(made, scoring.by_photo(made, scoring.simulate(made, 5 * [0.5])))
    shown = [photo for rows in ends.values() for photo in rows.index]
    assert sorted(shown) == sorted(made.key.index[:n_coloured])


def test_graded_photos_are_sorted_by_their_grades(graded):
    photos = scoring.by_photo(graded, said(graded, "fmsms", "fmmms"))
    assert photos.index.tolist() == [graded.key.index[i] for i in (4, 2, 1, 3, 0)]
    assert scoring.captions(graded, photos.iloc[[0, -1]]) == ["success 100%, failure 0%", "success 0%, failure 100%"]


# -- beside the published figures ------------------------------------------------------------------------------


def test_published_figures_stand_beside_ours_and_say_that_they_are(made, graded):
    published = recipes.PUBLISHED[recipes.PUBLISHED.data == "study"].set_index("measure")
    table = scoring.score(made, said(made, "cccccrrrrc", "rrcccrrrrr"))
    beside = scoring.beside_published(made, table)
    assert beside.here.to_dict() == {"accuracy": 0.85, "fool rate": 0.2}
    assert beside.loc["fool rate", ["here from", "here to"]].tolist() == pytest.approx(clopper_pearson(2, 10))
    assert "in pairs" in beside.protocol["fool rate"]  # Zhang's design is another one
    grades = scoring.beside_published(graded, scoring.grades(graded, said(graded, "smmmf")))
    assert grades.here.tolist() == [0.2, 0.6, 0.2] and grades.published.tolist() == [0.1235, 0.6941, 0.1824]
    for frame in (beside, grades):
        assert frame.published.to_dict() == published.published[frame.index].to_dict()
        assert frame.by.str.match(r"published by document 00\d$").all()


# -- simulated answers -----------------------------------------------------------------------------------------


def test_simulated_people_are_right_as_often_as_stated(tmp_path):
    made = written(tmp_path / "study", 100, 50)
    table = scoring.score(made, scoring.simulate(made, 50 * [0.57] + [1.0, 0.0], seed=1))
    assert abs(table.accuracy[:50].mean() - 0.57) < 4 * np.sqrt(0.57 * 0.43 / 5_000)
    assert table.accuracy[50:52].tolist() == [1, 0]


def test_simulated_grades_have_the_stated_shares(tmp_path):
    made = written(tmp_path / "study", 100, 100, "grade")
    shares = [0.1235, 0.6941, 0.1824]
    everyone = scoring.grades(made, scoring.simulate(made, 30 * [shares])).loc["all"]
    for grade, stated in zip(("success", "medium", "failure"), shares):
        assert abs(everyone[grade] - stated) < 4 * np.sqrt(stated * (1 - stated) / 3_000)


# -- the report ------------------------------------------------------------------------------------------------


def test_the_report_says_all_and_leaves_the_data_beside(made):
    answers = said(made, "cccccrrrrr", "ccrrrrrrrr")
    path = scoring.report(made, answers)
    text = path.read_text()
    assert path.name == "report.html" and "simulated" not in text
    for words in (
        "2 participants, 10 photos. Right: 17 of 20, 85.0 % (95 % interval 62.1 to 96.8 %)",
        "Coloured photos taken for real (fool rate): 30.0 % (95 % interval 6.7 to 65.2 %)",
        "Found every coloured photo: 1 of 2",
        "are right in 50.0 % of cases",
        "Fooled most",
        "Fooled least",
        "quoted from Zhang et al. 2016; in pairs",  # tables are not cut at 50 letters
    ):
        assert words in text
    assert text.count("<img ") == 5 and not re.search("https?:|<script", text)
    back = pd.read_csv(made.folder / "answers.csv", dtype={"photo": str}).assign(seconds=1.0)
    pd.testing.assert_frame_equal(back[answers.columns.tolist()], answers, check_dtype=False)
    score = pd.read_csv(made.folder / "score.csv", index_col=0)
    assert score.right["all"] == 17 and len(pd.read_csv(made.folder / "photos.csv")) == 10


def test_everything_in_a_report_of_simulated_answers_says_so(made):
    path = scoring.report(made, scoring.simulate(made, 5 * [0.57]), simulated="drawn at random, <57 %>")
    text = path.read_text()
    titles = re.findall(r"<(?:h1|h2|title)>(.*?)</", text)
    assert len(titles) == 6 and all("(simulated)" in title for title in titles)
    assert "Nobody was asked: drawn at random, &lt;57 %&gt;." in text
    assert all("_simulated" in file.name for file in made.folder.glob("*.*") if file.name != study.KEY)


def test_the_report_of_grades(graded):
    text = scoring.report(graded, said(graded, "smmmf", "ssmmm")).read_text()
    assert "success: 30.0 % (95 % interval 6.7 to 65.2 %), medium: 60.0 %" in text
    assert (
        "<td>0.30 (0.07 to 0.65)</td>" in text
        and "Graded best" in text
        and "permuting" not in text
        and "<td>0.6941</td>" in text
    )


def test_what_others_named_their_files_cannot_act_in_the_report(made, tmp_path):
    (tmp_path / "answers").mkdir()
    evil = "<img src=x onerror=alert(1)>&amp;.json"
    (tmp_path / "answers" / evil).write_text("{}")
    _, found = collecting.collect(made, tmp_path / "answers")
    text = scoring.report(made, said(made, "cccccrrrrr"), found).read_text()
    assert "<img src=x" not in text and "&lt;img src=x onerror=alert(1)&gt;&amp;amp;.json" in text
    assert "holds no answers" in text and "Left out" in text
