"""The blinded sheet: its draw, its tiles, the reading of answers and the score."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from colorlib import study


@pytest.fixture
def key():
    return pd.DataFrame({"number": [1, 2, 3, 4], "coloured": [True, False, True, False]})


def test_the_draw_has_the_asked_number_and_follows_the_seed():
    keys = [study.draw_key(10, 4, seed) for seed in (0, 0, 1)]
    assert all(k.coloured.sum() == 4 and k.number.tolist() == list(range(1, 11)) for k in keys)
    assert keys[0].equals(keys[1]) and not keys[0].equals(keys[2])


def test_the_draw_favours_no_place():
    share = np.mean([study.draw_key(10, 5, seed).coloured for seed in range(2000)], axis=0)
    assert np.abs(share - 0.5).max() < 4 * np.sqrt(0.25 / 2000)  # four standard errors


@pytest.mark.parametrize("coloured", [0, 10, 11, -1])
def test_a_sheet_of_one_kind_is_refused(coloured):
    with pytest.raises(ValueError, match="at least one of either kind"):
        study.draw_key(10, coloured)


@pytest.mark.parametrize("size", [(300, 200), (64, 128), (1000, 999)])
def test_tiles_of_every_photo_have_one_size(size):
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    tile = study.tile(rgb)
    assert tile.shape == (study.SHEET_SIDE, study.SHEET_SIDE, 3) and tile.dtype == np.uint8


def test_a_tile_shows_the_centre():
    rgb = np.zeros((100, 300, 3), dtype=np.uint8)
    rgb[:, 100:200] = 255
    assert study.tile(rgb).min() == 255


@pytest.mark.parametrize(
    "text, answers",
    [
        ("1 4", [{1, 4}]),
        ("1, 4; 2 2;", [{1, 4}, {2}]),
        (" 3 ;None; 1,2,3,4 ", [{3}, set(), {1, 2, 3, 4}]),
        ("1, 4,\n2 3", [{1, 4}, {2, 3}]),
    ],
)
def test_answers_are_read(text, answers):
    assert study.parse_answers(text, 4) == answers


@pytest.mark.parametrize("wrong", ["5", "0", "-1", "two", "1.5", "²", "<b>", "9" * 500, "none"])
def test_a_wrong_answer_names_the_participant(wrong):
    with pytest.raises(ValueError, match=r"participant 2: .* is not a number from 1 to 4; write numbers, or none"):
        study.parse_answers(f"1 2; 3 {wrong}", 4)


@pytest.mark.parametrize("text", ["", " ; ", "1; ,; 2"])
def test_an_empty_answer_is_not_taken_for_none(text):
    with pytest.raises(ValueError, match="'' is not a number"):
        study.parse_answers(text, 4)


def test_the_score_of_known_answers(key):
    score = study.score(key, [{1, 3}, {1, 2}, set()])
    assert score.right.tolist() == [4, 2, 2, 8] and score.judged.tolist() == [4, 4, 4, 12]
    assert score.fooled.tolist() == [0, 0.5, 1, 0.5]
    assert score["found all"].tolist() == [True, False, False, "1 of 3"]
    assert score.accuracy["all"] == pytest.approx(8 / 12)


def test_intervals_are_clopper_pearson(key):
    score = study.score(key, [{1, 3}, {1, 2}, set()])
    for row in score.itertuples():
        right, n = row.right, row.judged
        low = stats.beta.ppf(0.025, right, n - right + 1)
        high = 1.0 if right == n else stats.beta.ppf(0.975, right + 1, n - right)
        assert (score.loc[row.Index, "from"], row.to) == pytest.approx((low, high), abs=1e-6)


def test_no_answers_are_no_score(key):
    with pytest.raises(ValueError, match="no answers"):
        study.score(key, [])


def test_simulated_people_are_right_as_often_as_asked():
    key = study.draw_key(100, 50)
    score = study.score(key, study.simulate_answers(key, 100, 0.57, seed=1))
    assert abs(score.accuracy["all"] - 0.57) < 4 * np.sqrt(0.57 * 0.43 / 10_000)
    sure = study.score(key, study.simulate_answers(key, 2, 1.0))
    assert sure.accuracy.tolist() == [1, 1, 1] and sure["found all"]["all"] == "2 of 2"
