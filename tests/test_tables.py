"""Tables against slow computations of the same: means, intervals, paired differences, and how they are written."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

from colorlib import metrics, recipes, runtime, tables
from colorlib.tables import interval, table

FLOORS = [*metrics.FLOORS.values()]


def rows(n=40, seed=0, part=None, unreadable=(), files=None):
    """Rows as `evaluation.measure` writes them: skewed errors, metrics of pictures on the first `part` photos."""
    rng = np.random.default_rng(seed)
    # The spread of log errors over 300 photos is 0.7 to 0.8, for the floors and for networks.
    found = {"mse_train_mean": rng.lognormal(-6, 0.75, n)}
    found |= {f"mse_{name}": found["mse_train_mean"] * factor for name, factor in (("grey", 1.5), ("oracle", 0.6))}
    found |= {"mse": found["mse_train_mean"] * rng.beta(4, 2, n)}
    found |= {"chroma": rng.gamma(4, 3, n), "true_chroma": rng.gamma(4, 4, n)}
    for name, scale in {"ciede2000": 8, "psnr": 25, "ssim": 0.9, "colourfulness": 30}.items():
        for of in ("", *(f"_{floor}" for floor in metrics.FLOORS)):
            found[f"{name}{of}"] = scale * rng.uniform(0.5, 1.1, n)
    found["colourfulness_true"] = rng.uniform(20, 60, n)
    frame = pd.DataFrame({"file": files or [f"{i}.png" for i in range(n)], "fault": "", **found})
    of_pictures = [name for name in frame if name.startswith(metrics.OF_PICTURES)]
    frame.loc[frame.index >= (n if part is None else part), of_pictures] = np.nan
    for i in unreadable:
        frame.loc[i, "fault"] = f"{i}.png: there is no such file; check the path."
        frame.loc[i, list(found)] = np.nan
    return frame


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # a user does not see these
        yield


# ------------------------------------------------------------------------------------------------------ intervals


def test_interval_holds_the_mean_and_is_reproducible():
    values = np.random.default_rng(0).exponential(size=200)
    low, high = interval(values)
    assert low < values.mean() < high
    assert (low, high) == tuple(interval(pd.Series(values, index=range(7, 207))))
    assert (low, high) != tuple(interval(values, seed=1))
    # On 200 photos the bootstrap must agree with the textbook.
    error = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    np.testing.assert_allclose((low, high), (values.mean() - error, values.mean() + error), rtol=0.05)


def slow_interval(values, below=None, n=20_000):
    """The same by hand, with other random numbers."""
    drawn = np.random.default_rng(99).integers(0, len(values), (n, len(values)))
    values, below = (None if part is None else np.asarray(part)[drawn].mean(axis=1) for part in (values, below))
    return np.percentile(values if below is None else values / below, [2.5, 97.5])


@pytest.mark.parametrize("ratio", [False, True], ids=["mean", "ratio of means"])
def test_interval_is_the_percentile_bootstrap_over_photos(ratio):
    found = rows(tables.FEWEST)  # so few that it is lopsided, and other kinds of bootstrap give other ends
    parts = (found.mse, found.mse_train_mean) if ratio else (found.mse,)
    expected = slow_interval(*parts)
    # 2,000 resamples leave the ends a standard error of up to 0.1 standard deviations, 0.025 of the interval's length.
    np.testing.assert_allclose(interval(*parts), expected, rtol=0, atol=0.06 * (expected[1] - expected[0]))


def test_interval_of_a_ratio_is_paired():
    values = np.random.default_rng(0).lognormal(size=50)
    np.testing.assert_allclose(interval(values / 2, values), [0.5, 0.5], rtol=1e-12)  # photo by photo it is a half
    low, high = interval(values / 2, np.random.default_rng(1).permutation(values))
    assert low < 0.4 and high > 0.6


def test_interval_grows_with_its_level():
    values = np.arange(20.0)
    (low, high), (lower, higher) = interval(values, level=0.8), interval(values, level=0.99)
    assert lower < low < high < higher


@pytest.mark.parametrize("below", [False, True], ids=["mean", "ratio"])
@pytest.mark.parametrize("n", [0, 1, tables.FEWEST - 1, tables.FEWEST])
def test_there_is_no_interval_of_few_photos(n, below):
    found = rows(n)
    ends = interval(found.mse, found.mse_train_mean if below else None)
    assert np.isfinite(ends).all() if n == tables.FEWEST else np.isnan(ends).all()


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_there_is_no_interval_of_what_is_not_finite(odd):
    good, bad = np.arange(1.0, 31), np.append(np.arange(1.0, 30), odd)
    for parts in ((bad,), (bad, good), (good, bad)):
        assert np.isnan(interval(*parts)).all()
    assert np.isfinite(interval(good, good)).all()


def test_photos_that_nothing_is_below_do_not_count_towards_an_interval_of_a_ratio():
    values, below = np.ones(40), np.ones(40)
    below[tables.FEWEST :] = 0
    assert np.isfinite(interval(values, below)).all()
    below[tables.FEWEST - 1] = 0
    assert np.isnan(interval(values, below)).all()


def test_interval_of_equal_photos_is_a_point():
    low, high = interval([0.1] * tables.FEWEST)
    assert low == high == pytest.approx(0.1)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    # 100 photos with errors as skewed as real ones: lognormal with 0.75 for the spread of the logarithm, a skewness of
    # 3.3; the model's are a share of the floor's. Over 1,000 repetitions the share of intervals that cover has a
    # standard error of sqrt(0.95 x 0.05 / 1000) = 0.007: three of them below and above 0.945 are the bounds.
    n, rng = 1000, np.random.default_rng(0)
    floor = rng.lognormal(0, 0.75, (n, 100))
    errors = floor * rng.beta(4, 2, floor.shape)
    truths = {"mean": 4 / 6 * np.exp(0.75**2 / 2), "ratio of means": 4 / 6}
    for kind, truth in truths.items():
        ends = np.array([interval(*parts) for parts in (zip(errors, floor) if "ratio" in kind else zip(errors))])
        covered = ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean()
        assert 0.92 < covered < 0.97, kind


# --------------------------------------------------------------------------------------------------------- tables

LABELS = {"mse": "MSE", "ciede2000": "CIEDE2000", "psnr": "PSNR", "ssim": "SSIM", "colourfulness": "colourfulness"}


def test_table_is_what_a_slow_computation_gives():
    found = rows(40, part=25)
    shown = table({"ours": found})
    assert shown.index.tolist() == [*FLOORS, "ours"] and shown.index.name == "predictor"
    assert (shown.photos == 40).all()
    for line, of in zip(shown.index, [*(f"_{name}" for name in metrics.FLOORS), ""]):
        row = shown.loc[line]
        for name, label in LABELS.items():
            values = [v for v in found[f"{name}{of}"] if not np.isnan(v)]
            assert len(values) == (40 if name == "mse" else 25)
            assert row[label] == pytest.approx(sum(values) / len(values))
            assert (row[f"{label} from"], row[f"{label} to"]) == tuple(interval(values))
        mse, floor = sum(found[f"mse{of}"]) / 40, sum(found.mse_train_mean) / 40
        assert row["MSE in ab"] == pytest.approx(mse * 65025) and row["RMSE"] == pytest.approx((mse * 65025) ** 0.5)
        assert row["explained"] == pytest.approx(1 - mse / floor)
        low, high = interval(found[f"mse{of}"], found.mse_train_mean)
        assert (row["explained from"], row["explained to"]) == pytest.approx((1 - high, 1 - low))
        truth = found.colourfulness_true[:25]
        assert row["colourfulness ratio"] == pytest.approx(sum(found[f"colourfulness{of}"][:25]) / sum(truth))
        ends = interval(found[f"colourfulness{of}"][:25], truth)
        assert (row["colourfulness ratio from"], row["colourfulness ratio to"]) == pytest.approx(tuple(ends))


def test_intervals_hold_what_they_are_of():
    shown = table({"ours": rows()})
    for label in (*LABELS.values(), "explained", "colourfulness ratio"):
        held = shown.loc[["ours", "all grey"]]
        assert (held[f"{label} from"] <= held[label]).all() and (held[label] <= held[f"{label} to"]).all()
        assert (shown.loc["ours", f"{label} from"] < shown.loc["ours", f"{label} to"]).all()


def test_the_training_mean_explains_nothing_and_the_truth_all():
    shown = table({"truth": rows().assign(mse=0.0)})
    ends = ["explained", "explained from", "explained to"]
    assert shown.loc["the training photos' mean colour", ends].tolist() == [0, 0, 0]
    assert shown.loc["truth", ends].tolist() == [1, 1, 1]
    assert shown.loc["each photo's own mean colour (oracle)", "explained"] == pytest.approx(0.4)


def test_photos_that_could_not_be_read_do_not_count():
    spoilt = table({"ours": rows(20, unreadable=(0, 7, 19))})
    good = rows(20).drop(index=[0, 7, 19])
    pd.testing.assert_frame_equal(spoilt, table({"ours": good}))
    assert (spoilt.photos == 17).all()


def test_floors_are_those_of_the_first_and_each_explains_against_its_own():
    first = rows(seed=0)
    second = rows(seed=1).assign(mse_grey=first.mse_grey)  # which shows that they saw the same pixels
    shown = table({"first": first, "second": second})
    assert shown.index.tolist() == [*FLOORS, "first", "second"]
    for name, label in metrics.FLOORS.items():
        assert shown.MSE[label] == pytest.approx(first[f"mse_{name}"].mean())
        assert shown.PSNR[label] == pytest.approx(first[f"psnr_{name}"].mean())
    for name, found in (("first", first), ("second", second)):
        assert shown.explained[name] == pytest.approx(1 - found.mse.mean() / found.mse_train_mean.mean())


OTHERS = {
    "fewer": rows(39),
    "other names": rows(files=[f"{i}.jpg" for i in range(40)]),
    "another order": rows()[::-1],
    "other pixels": rows().assign(mse_grey=rows().mse_grey * 1.01),
    "one unreadable": rows(unreadable=(3,)),
}


@pytest.mark.parametrize("other", OTHERS)
def test_predictors_on_different_photos_are_refused(other):
    with pytest.raises(ValueError, match=r"^second was not measured on the same pixels as first\.$"):
        table({"first": rows(), "second": OTHERS[other]})


def test_predictors_on_the_same_photos_may_be_measured_on_different_machines():
    table({"first": rows(), "second": rows().assign(mse_grey=rows().mse_grey * 1.0001)})
    spoilt = rows(unreadable=(3,))
    table({"first": spoilt, "second": spoilt})


def test_a_predictor_that_could_not_be_had_is_an_empty_line():
    shown = table({"ours": rows(), "theirs": None})
    assert shown.loc["theirs"].isna().all()
    pd.testing.assert_frame_equal(shown.drop(index="theirs"), table({"ours": rows()}))
    assert tables.markdown(tables.readable(shown)).splitlines()[-1] == "| theirs |  | no figure |" + "  |" * 8


def test_rows_of_evaluate_make_a_table_too():
    columns = ["file", "mse", *(f"mse_{name}" for name in metrics.FLOORS), "chroma", "true_chroma"]
    shown = table({"ours": rows()[columns]})
    labels = ["photos", "MSE", "MSE from", "MSE to", "MSE in ab", "RMSE", "explained", "explained from", "explained to"]
    assert shown.columns.tolist() == labels
    pd.testing.assert_frame_equal(shown, table({"ours": rows()})[labels])


def test_table_of_one_photo_has_no_interval():
    shown = table({"ours": rows(1)})
    ends = [column for column in shown if column.endswith((" from", " to"))]
    assert len(ends) == 14 and shown[ends].isna().all(axis=None)
    assert shown.drop(columns=ends).notna().all(axis=None)
    assert all("(" not in text for text in tables.readable(shown).to_numpy().ravel())


def test_table_without_a_part_has_no_metrics_of_pictures():
    shown = tables.readable(table({"ours": rows(part=0)}))
    of_pictures = ["CIEDE2000 (95 %)", "PSNR (95 %)", "SSIM (95 %)", "colourfulness ratio (95 %)"]
    assert (shown[of_pictures] == "").all(axis=None)
    assert (shown["MSE (95 %)"] != "").all()


@pytest.mark.parametrize("found", [rows(3, unreadable=(0, 1, 2)), rows(0)], ids=["all unreadable", "none"])
def test_no_readable_photo_is_an_error(found):
    for make in (
        lambda: table({"ours": found}),
        lambda: tables.beside_published("document 001", {("simple_cnn", "Places365"): found}),
    ):
        with pytest.raises(ValueError, match="none of the photos could be read: look at the column `fault`"):
            make()


def test_a_network_that_breaks_down_on_some_photos_is_not_given_the_mean_of_the_others():
    found = rows(10)
    found.loc[3, ["mse", "chroma"]] = np.nan  # the photo was read; the network's answer was not a number
    shown = table({"ours": found})
    assert np.isnan(shown.MSE["ours"])
    assert shown.MSE[FLOORS].notna().all()


def test_a_colourless_folder_has_no_ratio_to_the_truth():
    found = rows(10).assign(colourfulness_true=0.0)
    shown = tables.readable(table({"ours": found.assign(colourfulness=0.0)}))
    assert shown["colourfulness ratio (95 %)"]["ours"] == ""


# --------------------------------------------------------------------------------------------------------- groups


def test_groups_are_what_a_slow_computation_gives_the_best_first():
    found = rows(100, unreadable=(4, 31))
    groups = np.array(["sea", "room", "", "face"] * 25)
    shown = tables.by_group(found, groups)
    assert shown.index.name == "group" and {*shown.index} == {"sea", "room", "face"}
    assert shown.explained.is_monotonic_decreasing
    for group, row in shown.iterrows():
        part = found[(groups == group) & (found.fault == "")]
        assert row.photos == len(part) == {"sea": 24, "room": 25, "face": 24}[group]
        mse, floor = sum(part.mse) / len(part), sum(part.mse_train_mean) / len(part)
        assert (row.MSE, row["mean colour"], row.explained) == pytest.approx((mse, floor, 1 - mse / floor))
        assert (row["MSE from"], row["MSE to"]) == tuple(interval(part.mse))
        low, high = interval(part.mse, part.mse_train_mean)
        assert (row["explained from"], row["explained to"]) == pytest.approx((1 - high, 1 - low))
        assert row["chroma ratio"] == pytest.approx(sum(part.chroma) / sum(part.true_chroma))
        ends = tuple(interval(part.chroma, part.true_chroma))
        assert (row["chroma ratio from"], row["chroma ratio to"]) == pytest.approx(ends)


def test_a_group_of_one_photo_has_no_interval_and_one_without_photos_no_line():
    shown = tables.by_group(rows(5, unreadable=(4,)), pd.Series(["a", "a", "a", "b", "c"]))
    assert {*shown.index} == {"a", "b"}
    assert np.isnan(shown["MSE from"]["b"]) and shown.MSE["b"] == pytest.approx(rows(5).mse[3])
    assert tables.readable(shown)["MSE (95 %)"]["b"] == f"{rows(5).mse[3]:.5f}"


def test_groups_of_few_photos_come_last_however_good_they_are():
    found = rows(70)
    groups = np.array(["good"] * 25 + ["bad"] * 25 + ["few"] * 19 + ["one"])
    share = {"good": 0.5, "bad": 0.9, "few": 0.3, "one": 0.1}
    found["mse"] = found.mse_train_mean * [share[group] for group in groups]
    shown = tables.by_group(found, groups)
    assert shown.index.tolist() == ["good", "bad", "one", "few"]
    assert shown.explained.tolist() == pytest.approx([0.5, 0.1, 0.9, 0.7])
    assert shown["MSE from"].notna().tolist() == [True, True, False, False]


def test_a_group_with_an_answer_that_is_no_number_has_no_mean():
    found = rows(6)
    found.loc[1, "mse"] = np.nan
    shown = tables.by_group(found, list("ababab"))
    assert np.isnan(shown.MSE["b"]) and shown.MSE["a"] == pytest.approx(rows(6).mse[::2].mean())


def test_no_group_at_all_is_said():
    with pytest.raises(ValueError, match="none of the photos"):
        tables.by_group(rows(3), ["", "", ""])


# ------------------------------------------------------------------------------------------------ paired differences


def test_difference_is_what_a_slow_computation_gives():
    first, second = rows(seed=0), rows(seed=1)
    found = tables.difference(first, second)
    less = [a - b for a, b in zip(first.mse, second.mse)]
    assert [*found.index] == ["photos", "difference", "from", "to", "first lower"]
    assert (found.photos, found.difference) == (40, pytest.approx(sum(less) / 40))
    assert (found["from"], found["to"]) == pytest.approx(tuple(interval(less)))
    assert found["first lower"] == sum(d < 0 for d in less) / 40


def test_difference_the_other_way_round_is_its_negative():
    one, other = tables.difference(rows(seed=0), rows(seed=1)), tables.difference(rows(seed=1), rows(seed=0))
    expected = [-other.difference, -other["to"], -other["from"], 1 - other["first lower"]]
    assert one[["difference", "from", "to", "first lower"]].tolist() == pytest.approx(expected)
    assert one["from"] < one.difference < one["to"] and one.difference != 0


def test_a_paired_difference_is_surer_than_two_intervals_where_photos_are_hard_for_both():
    first = rows(200)
    second = first.assign(mse=first.mse * 1.05 + np.random.default_rng(3).normal(0, 1e-5, 200))
    paired = tables.difference(first, second)
    lengths = [high - low for low, high in (interval(found.mse) for found in (first, second))]
    assert paired["to"] - paired["from"] < np.hypot(*lengths) / 5
    assert paired["to"] < 0 and paired["first lower"] > 0.8
    # Two unrelated sets of errors gain nothing from pairs.
    loose = tables.difference(first, rows(200, seed=5))
    lengths = [high - low for low, high in (interval(found.mse) for found in (first, rows(200, seed=5)))]
    assert loose["to"] - loose["from"] == pytest.approx(np.hypot(*lengths), rel=0.15)


def test_difference_takes_the_photos_that_both_have_in_any_order():
    first, second = rows(30, unreadable=(2,)), rows(40, seed=1, unreadable=(3, 4))[::-1]
    common = [i for i in range(30) if i not in (2, 3, 4)]
    expected = (rows(30).mse[common] - rows(40, seed=1).mse[common]).mean()
    found = tables.difference(first, second)
    assert (found.photos, found.difference) == (27, pytest.approx(expected))


def test_difference_of_a_metric_of_pictures_is_over_the_part():
    found = tables.difference(rows(part=12), rows(seed=1, part=12), "psnr")
    expected = (rows().psnr[:12] - rows(seed=1).psnr[:12]).mean()
    assert (found.photos, found.difference) == (12, pytest.approx(expected))


def test_difference_to_perfection_has_no_interval():
    found = tables.difference(rows(5), rows(5).assign(psnr=np.inf), "psnr")
    assert found.difference == -np.inf and np.isnan(found["from"]) and found["first lower"] == 1


def test_difference_of_one_photo_has_no_interval():
    found = tables.difference(rows(1), rows(1, seed=1))
    assert found.photos == 1 and np.isnan(found[["from", "to"]].tolist()).all() and not np.isnan(found.difference)


@pytest.mark.parametrize("measure", ["mse", "psnr"])
def test_difference_without_a_common_photo_is_refused(measure):
    other = rows(files=[f"{i}.jpg" for i in range(40)])
    with pytest.raises(ValueError, match="on different photos"):
        tables.difference(rows(), other, measure)


def test_differences_are_those_of_each_to_the_first():
    found = {"first": rows(30), "second": rows(30, seed=1), "gone": None, "third": rows(30, seed=2, part=0)}
    shown = tables.differences(found)
    expected = {("second", "MSE"): "mse", ("second", "CIEDE2000"): "ciede2000", ("third", "MSE"): "mse"}
    assert shown.index.tolist() == [(name, f"{label}, less that of first") for name, label in expected]
    for (name, measure), row in zip(expected.items(), shown.itertuples(index=False)):
        alone = tables.difference(found[name[0]], found["first"], measure)
        assert list(row) == pytest.approx(alone.tolist())
    text = tables.readable(shown)
    assert text.columns.tolist() == ["photos", "difference (95 %)", "first lower"] and "(" in text.iloc[0, 1]


# ----------------------------------------------------------------------------------------- beside what is published

STATED = {
    "document 000": {("resnet34", "ImageNet"): 0.0027, ("resnet34", "CVPR09"): 0.0047, ("resnet34", "CelebA"): 0.0058},
    "document 001": {
        ("simple_cnn", "Places365"): 0.003039,
        ("resnet34_x8", "Places365"): 0.002318,
        ("resnet34_deep", "Places365"): 0.002182,
    },
}


@pytest.mark.parametrize("source", STATED)
def test_published_numbers_stand_there_even_if_nothing_was_measured(source):
    shown = tables.beside_published(source, {})
    assert shown[f"published by {source}"].to_dict() == STATED[source]
    assert shown[["MSE", "MSE from", "MSE to", "photos", *FLOORS]].isna().all(axis=None)
    protocols = recipes.PUBLISHED.query("source == @source and measure == 'MSE'").protocol
    assert shown["about the published one"].tolist() == protocols.tolist()
    text = tables.readable(shown)
    assert text["MSE (95 %)"].tolist() == ["no figure"] * 3 and (text[f"published by {source}"] != "").all()


def test_ours_stands_beside_the_published_number_and_never_instead_of_it():
    key, found = ("resnet34_x8", "Places365"), rows(30, unreadable=(3,))
    more = {("unet34", "Places365"): rows(5), ("resnet34_x8", "sample"): rows(5)}  # the last is none of the document's
    shown = tables.beside_published("document 001", {key: found} | more)
    assert shown.index.tolist() == [*STATED["document 001"], ("unet34", "Places365")]
    assert shown.index.names == ["recipe", "data"]
    published = shown["published by document 001"]
    assert published[:3].to_dict() == STATED["document 001"] and np.isnan(published.iloc[3])
    row, good = shown.loc[key], found[found.fault == ""]
    assert (row.photos, row.MSE) == (29, pytest.approx(sum(good.mse) / 29))
    assert (row["MSE from"], row["MSE to"]) == tuple(interval(good.mse))
    for name, label in metrics.FLOORS.items():
        assert row[label] == pytest.approx(sum(good[f"mse_{name}"]) / 29)
    assert shown.loc[("unet34", "Places365"), "about the published one"] == "it states none"
    assert shown.loc[("simple_cnn", "Places365"), ["MSE", "photos"]].isna().all()
    assert shown.columns[0].startswith("published by ") and "published" not in " ".join(shown.columns[1:-1])


def test_a_document_without_numbers_states_none():
    assert tables.beside_published("document 002", {}).empty


# ---------------------------------------------------------------------------------------------------------- shares

GRADES = {"success": 21, "medium": 118, "failure": 31}  # of document 001: 12.35, 69.41 and 18.24 %


def test_document_001_graded_170_photos_at_least():
    stated = (12.35, 69.41, 18.24)
    fits = [n for n in range(1, 400) if all(round(100 * round(p / 100 * n) / n, 2) == p for p in stated)]
    assert fits[0] == 170 == sum(GRADES.values())
    assert tuple(round(100 * k / 170, 2) for k in GRADES.values()) == stated


def test_grades_are_those_that_recipes_has_published():
    graded = recipes.PUBLISHED[recipes.PUBLISHED.measure.str.startswith("graded ")].set_index("measure").published
    assert graded.to_dict() == {f"graded {kind}": round(k / 170, 4) for kind, k in GRADES.items()}


def test_shares_have_exact_intervals():
    shown = tables.shares(GRADES)
    assert shown.index.tolist() == [*GRADES] and shown["count"].tolist() == [21, 118, 31]
    for kind, k in GRADES.items():
        ends = beta.ppf(0.025, k, 170 - k + 1), beta.ppf(0.975, k + 1, 170 - k)  # Clopper and Pearson's
        row = shown.loc[kind]
        assert (row.share, row["share from"], row["share to"]) == pytest.approx((k / 170, *ends), rel=1e-6)
    assert tables.readable(shown).loc["success"].tolist() == ["21", "0.124 (0.078 to 0.183)"]


def test_shares_of_none_and_of_all_go_to_the_end():
    shown = tables.shares({"none": 0, "all": 12})
    assert shown.loc["none", ["share", "share from"]].tolist() == [0, 0]
    assert shown.loc["all", ["share", "share to"]].tolist() == [1, 1]
    end = 1 - 0.025 ** (1 / 12)
    assert (shown.loc["none", "share to"], 1 - shown.loc["all", "share from"]) == pytest.approx((end, end))


# --------------------------------------------------------------------------------------------- in words and in files


@pytest.mark.parametrize(
    "found, told",
    [
        (rows(5), "5 photos; CIEDE2000, PSNR, SSIM and colourfulness on all of them."),
        (rows(5, part=2), "5 photos; CIEDE2000, PSNR, SSIM and colourfulness on 2 of them, drawn at random."),
        (rows(5, part=0), "5 photos."),
        (rows(5)[["file", "mse"]], "5 photos."),
        (
            rows(5, unreadable=(1, 3)),
            "5 photos, 2 of which could not be read and do not count (such as 1.png: there is no such file; check the "
            "path); CIEDE2000, PSNR, SSIM and colourfulness on all of them.",
        ),
        (
            rows(5, part=3, unreadable=(4,)),
            "5 photos, 1 of which could not be read and do not count (such as 4.png: there is no such file; check the "
            "path); CIEDE2000, PSNR, SSIM and colourfulness on 3 of them, drawn at random.",
        ),
    ],
    ids=["all", "part", "none", "of evaluate", "unreadable", "part and unreadable"],
)
def test_photos_are_counted_in_a_sentence(found, told):
    assert tables.counted({"first": found, "second": rows(9)}) == told


def test_readable_rounds_for_reading_only():
    shown = table({"ours": rows(30)})
    before = shown.copy()
    text = tables.readable(shown)
    pd.testing.assert_frame_equal(shown, before)
    labels = ["MSE", "explained", "CIEDE2000", "PSNR", "SSIM", "colourfulness", "colourfulness ratio"]
    assert {*text.columns} == {"photos", "MSE in ab", "RMSE", *(f"{label} (95 %)" for label in labels)}
    for label, digits in zip(labels, (5, 2, 2, 2, 3, 1, 2)):
        value, low, high = (f"{shown[column]['ours']:.{digits}f}" for column in (label, f"{label} from", f"{label} to"))
        assert text[f"{label} (95 %)"]["ours"] == f"{value} ({low} to {high})"
    ours = shown.loc["ours"]
    assert text.loc["ours", ["photos", "MSE in ab", "RMSE"]].tolist() == [
        "30",
        f"{ours['MSE in ab']:.1f}",
        f"{ours.RMSE:.2f}",
    ]


def test_what_is_not_there_is_empty_and_what_is_infinite_is_a_sign():
    frame = pd.DataFrame({"PSNR": [np.inf, np.nan, 20], "PSNR from": [np.nan, np.nan, 19], "PSNR to": [np.nan] * 3})
    assert tables.readable(frame)["PSNR (95 %)"].tolist() == ["∞", "", "20.00"]
    assert tables.readable(-frame[["PSNR"]])["PSNR"].tolist() == ["-∞", "", "-20.00"]


def test_words_stay_as_they_are_and_from_and_to_count_only_behind_a_number():
    frame = pd.DataFrame({"kind": ["sea", "nan"], "made from": [1.0, 2.0], "count": [3, 4]})
    assert tables.readable(frame).to_dict("list") == {
        "kind": ["sea", "nan"],
        "made from": ["1.00000", "2.00000"],
        "count": ["3", "4"],
    }


def test_markdown_is_a_table_whatever_the_names_are():
    frame = pd.DataFrame({"a|b": ["1 | 2", ""], "c": ["x", "∞"]}, index=pd.Index(["p|q", "r"], name="predictor"))
    assert tables.markdown(frame) == (
        "| predictor | a\\|b | c |\n| --- | --- | --- |\n| p\\|q | 1 \\| 2 | x |\n| r |  | ∞ |\n"
    )


def test_saved_csv_holds_full_numbers_and_reads_back(tmp_path):
    shown = table({"ours": rows().assign(psnr=np.inf), "theirs": rows().assign(mse=1.0), "gone": None})
    tables.save(shown, tmp_path / "table 1.0")
    assert {path.name for path in tmp_path.iterdir()} == {"table 1.0.csv", "table 1.0.md"}
    again = pd.read_csv(tmp_path / "table 1.0.csv", index_col="predictor")
    pd.testing.assert_frame_equal(again, shown, rtol=1e-14)
    text = (tmp_path / "table 1.0.md").read_text(encoding="utf-8")
    assert text == tables.markdown(tables.readable(shown)) and "∞" in text


def test_saving_where_nothing_can_be_written_is_an_os_error(blocked):
    with pytest.raises(OSError):
        tables.save(table({"ours": rows(3)}), blocked / "table")


@pytest.mark.parametrize(
    "name, expected",
    [
        ("unet34 (imagenet)", "unet34-imagenet"),
        ("eccv16 (weights 9b330a0b)", "eccv16-weights-9b330a0b"),
        ("A/B", "a-b"),
    ],
)
def test_slug_is_part_of_a_files_name(name, expected):
    assert runtime.slug(name) == expected


def test_a_name_that_is_taken_gets_a_number():
    names = []
    for _ in range(3):
        names.append(tables.unused("unet34", names))
    assert names == ["unet34", "unet34 2", "unet34 3"]
    assert tables.unused("unet34", {"unet34": 0, "unet34 2": 0, "x": 0}) == "unet34 3"
    assert tables.unused("unet34 2", ["unet34"]) == "unet34 2"
