"""Answers that come back: read from wherever they are, and left out with the reason if they are not right."""

import io
import json
import os
import zipfile

import numpy as np
import pandas as pd
import pytest

from colorlib import collecting, study

PHOTOS = ["00000001", "00000002", "00000003", "00000004"]
COLOURED = [True, False, True, False]


def written(folder, kind="real"):
    """A study's folder with a key alone: a page is not needed to read answers."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"photo": p, "file": f"{p}.jpg", "coloured": c or kind == "grade"} for p, c in zip(PHOTOS, COLOURED)]
    facts = {"study": "ab" * 8, "kind": kind, "photos": rows}
    (folder / study.KEY).write_text(json.dumps(facts))
    return study.Study(folder)


def record(answers=("coloured", "real", "real", "real"), who="1", **changes):
    rows = [[photo, answer, 1.5] for photo, answer in zip(PHOTOS, answers)]
    facts = {"format": study.FORMAT, "study": "ab" * 8, "kind": "real", "participant": (16 * who)[:16], "answers": rows}
    return facts | changes


def text(*arguments, **changes):
    return json.dumps(record(*arguments, **changes), indent=1)


@pytest.fixture
def made(tmp_path):
    return written(tmp_path / "study")


def reasons(made, source):
    answers, report = collecting.collect(made, source)
    assert answers.empty and not report.counted.any()
    return report.reason.tolist()


# -- from where ------------------------------------------------------------------------------------------------


def test_answers_are_read_from_a_folder_a_zip_and_text(made, tmp_path):
    folder = tmp_path / "answers"
    (folder / "below").mkdir(parents=True)
    (folder / "a.json").write_text(text(who="1"))
    (folder / "below" / "b.txt").write_text(text(who="2"))
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as bundle:
        for path in folder.rglob("*.*"):
            bundle.write(path, path.relative_to(folder))
    pasted = f"Anna: {text(who='1')} and\nBen wrote: {text(who='2')}"
    expected = [("participant 1", "00000001", "coloured", 1.5), ("participant 1", "00000002", "real", 1.5)]
    for source in (folder, str(folder), archive, f" {archive} ", pasted):
        answers, report = collecting.collect(made, source)
        assert len(answers) == 8 and report.counted.tolist() == [True, True]
        assert list(answers.head(2).itertuples(index=False, name=None)) == expected
    folder.joinpath("c.zip").write_bytes(archive.read_bytes())  # a zip in the folder: all of it a second time
    answers, report = collecting.collect(made, folder)
    assert answers.participant.nunique() == 2
    assert report[~report.counted].reason.tolist() == 2 * ["the same answers once more"]


def test_an_empty_folder_holds_no_answers(made, tmp_path):
    answers, report = collecting.collect(made, tmp_path / "study")  # nothing but a key
    assert answers.empty and answers.columns.tolist() == ["participant", "photo", "answer", "seconds"]
    assert report.reason.tolist() == ["holds no answers"]


@pytest.mark.parametrize("source", ["nowhere", "", "1 4 7; 2 3", "a\0b"])
def test_what_is_neither_a_path_nor_answers_is_said(made, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if source:
        with pytest.raises(FileNotFoundError, match="no folder or file, and no answers"):
            collecting.collect(made, source)
    else:  # an empty path is the folder one stands in
        assert collecting.collect(made, source)[0].empty


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.replace('"', "“"),
        lambda t: "".join("”" if c == '"' and i % 2 else c for i, c in enumerate(t)),
        lambda t: "\n".join(f"> {line}" for line in t.splitlines()),
        lambda t: "\n".join(f"> > {line}" for line in t.splitlines()),
        lambda t: t.replace("\n", "\r\n"),
        lambda t: t.replace("\n", " "),
        lambda t: t.replace(" ", "\xa0"),
        lambda t: f"\n\nSent from my phone {{1}}\n{t}\nRegards",
    ],
)
def test_what_mail_programs_and_phones_do_is_undone(made, change):
    answers, report = collecting.collect(made, change(text()))
    assert report.reason.tolist() == ["participant 1"] and len(answers) == 4


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom"])
def test_encodings_that_editors_write_are_read(made, tmp_path, encoding):
    mark = "\ufeff" if encoding.endswith("-bom") else ""
    (tmp_path / "a.txt").write_bytes(f"{mark}Größe: {text()}".encode(encoding.removesuffix("-bom")))
    assert len(collecting.collect(made, tmp_path / "a.txt")[0]) == 4


def test_both_kinds_of_answers_and_times_that_were_not_measured(tmp_path):
    made = written(tmp_path, "grade")
    grades = record(["success", "medium", "failure", "medium"], kind="grade")
    grades["answers"] = [[photo, answer, None] for photo, answer, _ in grades["answers"]]
    answers, _ = collecting.collect(made, json.dumps(grades))
    assert answers.answer.tolist() == ["success", "medium", "failure", "medium"] and answers.seconds.isna().all()
    assert answers.seconds.dtype == float


# -- what is left out ------------------------------------------------------------------------------------------


def half(facts):
    return facts | {"answers": facts["answers"][:3]}


def row(*values):
    facts = record()
    facts["answers"][2] = list(values)
    return facts


@pytest.mark.parametrize(
    "facts, reason",
    [
        (half(record()), "half-filled: 3 of 4 photos"),
        (record(study="cd" * 8), "answers to another page"),
        (record(kind="grade"), "answers to another page"),
        (record(format="colorlib answers 2"), "of another version of the page"),
        (record(format=None), "of another version of the page"),
        (record(who="<b>"), "malformed: not what the page writes"),
        (record(participant=1), "malformed: not what the page writes"),
        (record(participant="１" * 16), "malformed: not what the page writes"),
        (record() | {"answers": {"00000001": "real"}}, "malformed: not what the page writes"),
        (row("00000003", "real"), "malformed: not what the page writes"),
        (row("00000003", "real", 1, 2), "malformed: not what the page writes"),
        (row("00000001", "real", 1), "malformed: photos that the page does not have, or twice"),
        (row("99999999", "real", 1), "malformed: photos that the page does not have, or twice"),
        (row(["00000003"], "real", 1), "malformed: photos that the page does not have, or twice"),
        (row(3, "real", 1), "malformed: photos that the page does not have, or twice"),
        (row("00000003", "success", 1), "malformed: an answer that the page does not offer"),
        (row("00000003", "<script>alert(1)</script>", 1), "malformed: an answer that the page does not offer"),
        (row("00000003", ["real"], 1), "malformed: an answer that the page does not offer"),
        (row("00000003", "real", "1"), "malformed: a time that cannot be"),
        (row("00000003", "real", True), "malformed: a time that cannot be"),
        (row("00000003", "real", -1), "malformed: a time that cannot be"),
        (row("00000003", "real", 10**400), "malformed: a time that cannot be"),
    ],
)
def test_what_is_not_one_whole_set_of_answers_is_left_out(made, facts, reason):
    assert reasons(made, json.dumps(facts)) == [reason]


@pytest.mark.parametrize(
    "broken",
    [
        text()[:200],
        text().replace(",", ";"),
        text().replace("1.5", "NaN"),
        text().replace("1.5", "1" * 5_000),
        text().replace('"answers"', '"kind": "real", "answers"'),  # a name twice
        '{"format": ' + 90_000 * "[",
        '{"format": ' + 5_000 * '{"format": ',
    ],
)
def test_broken_json_is_left_out(made, broken):
    found = reasons(made, broken)
    assert set(found) == {"malformed: broken off or changed on the way"}


def test_a_number_without_end_is_a_time_that_cannot_be(made):
    assert reasons(made, text().replace("1.5", "1e999")) == ["malformed: a time that cannot be"]


@pytest.mark.parametrize("cut", [20, 120, 200, 250, 300])
def test_a_text_that_breaks_off_does_not_take_the_next_one_along(made, cut):
    answers, report = collecting.collect(made, text(who="1")[:cut] + text(who="2"))
    assert len(answers) == 4 and report.counted.sum() == 1 and len(report) == 2


def test_the_first_of_two_different_answers_by_one_person_counts(made):
    both = text(["coloured"] * 4) + text(["real"] * 4)
    answers, report = collecting.collect(made, both)
    assert answers.answer.tolist() == ["coloured"] * 4
    assert report.reason.tolist() == ["participant 1", "other answers by someone counted already"]


def test_a_half_filled_one_does_not_keep_the_whole_one_out(made):
    answers, report = collecting.collect(made, json.dumps(half(record())) + text())
    assert len(answers) == 4 and report.counted.tolist() == [False, True]


def test_the_order_in_which_photos_were_shown_does_not_matter(made):
    turned = record()
    turned["answers"] = turned["answers"][::-1]
    found = [collecting.collect(made, json.dumps(r))[0].set_index("photo").answer for r in (record(), turned)]
    pd.testing.assert_series_equal(found[0].sort_index(), found[1].sort_index())
    assert collecting.collect(made, text() + json.dumps(turned))[1].reason[1] == "the same answers once more"


# -- hostile ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe\x00", text().encode("utf-16-le")[1:], "größe".encode("latin-1"), bytes(range(256)), b"\x80" * 100],
)
def test_what_is_not_text_is_left_out(made, tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    assert reasons(made, tmp_path / "a.txt")[0] in ("no text in UTF-8", "holds no answers")


def test_large_files_are_not_read(made, tmp_path):
    with open(tmp_path / "large.json", "wb") as stream:
        stream.truncate(50_000_000_000)  # a hole, which takes no room
    assert reasons(made, tmp_path / "large.json") == ["larger than 300,000 bytes"]


def test_a_zip_bomb_does_no_harm(made, tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as bundle:
        with bundle.open("a.json", "w") as member:
            for _ in range(50):
                member.write(bytes(1_000_000))
        bundle.writestr("b.json", text())
    assert (tmp_path / "bomb.zip").stat().st_size < 100_000
    answers, report = collecting.collect(made, tmp_path / "bomb.zip")
    assert report.reason.tolist() == ["larger than 300,000 bytes", "participant 1"] and len(answers) == 4


def test_too_many_files_are_not_read(made, tmp_path, monkeypatch):
    monkeypatch.setattr(collecting, "_MAX_FILES", 3)
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as bundle:
        for i in range(5):
            bundle.writestr(f"{i}.json", text(who=str(i)))
            (tmp_path / "many").mkdir(exist_ok=True)
            (tmp_path / "many" / f"{i}.json").write_text(text(who=str(i)))
    for source in (tmp_path / "many.zip", tmp_path / "many"):
        answers, report = collecting.collect(made, source)
        assert answers.participant.nunique() == 3
        assert len(report) == 4 and "all from here on: more than 3 files" in report.reason[3]


def test_all_together_may_not_be_too_large(made, tmp_path, monkeypatch):
    monkeypatch.setattr(collecting, "_MAX_TOTAL", 2_000)
    for k in range(3):  # zips in a folder count, too, by what is in them
        with zipfile.ZipFile(tmp_path / f"{k}.zip", "w", zipfile.ZIP_DEFLATED) as bundle:
            bundle.writestr("a.json", text(who=str(k)) + 500 * " ")
    _, report = collecting.collect(made, tmp_path)
    assert report.counted.tolist() == [True, True, False] and "2,000 bytes" in report.reason[2]
    assert reasons(made, text() + 2_000 * " ") == [report.reason[2]]
    with open(tmp_path / "0.zip", "wb") as stream:
        stream.truncate(50_000_000_000)
    assert reasons(made, tmp_path / "0.zip") == ["larger than 300,000 bytes"]  # not opened as a zip at all


def test_damaged_zips_and_members_are_left_out(made, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        bundle.writestr("a.json", text())
    whole = buffer.getvalue()
    (tmp_path / "1.zip").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "2.zip").write_bytes(whole.replace(b"coloured", b"COLOURED"))  # the checksum does not fit
    (tmp_path / "3.zip").write_bytes(b"")
    found = reasons(made, tmp_path)
    assert [reason.split(" (")[0] for reason in found if "zip" in reason] == 2 * ["no zip archive that can be read"]
    assert "cannot be unpacked (BadZipFile)" in found


def test_names_are_cut_and_cleaned(made, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as bundle:
        bundle.writestr("../../etc/" + 300 * "x", "")
        bundle.writestr("a\x1b[31m\u202egnp.json", "")
    places = collecting.collect(made, tmp_path / "a.zip")[1]["where"]
    assert places.str.len().max() <= 200 and all(place.isprintable() for place in places)
    assert not (tmp_path.parents[1] / "etc").exists()  # nothing is written at all


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are not known here")
def test_a_pipe_is_not_waited_for(made, tmp_path):
    (tmp_path / "answers").mkdir()
    os.mkfifo(tmp_path / "answers" / "pipe.json")
    assert reasons(made, tmp_path / "answers") == ["no regular file"]


def test_names_of_undecodable_bytes_are_reported(made, tmp_path):
    try:
        (tmp_path / os.fsdecode(b"a\xff.json")).write_text("{}")
    except OSError:
        pytest.skip("this file system has no such names")
    _, report = collecting.collect(made, tmp_path / os.fsdecode(b"a\xff.json"))
    assert report["where"].tolist() == ["a?.json"]


def test_random_damage_never_raises(made):
    """Whatever is changed in a text: it counts in whole or not at all."""
    rng, whole = np.random.default_rng(0), text()
    counted = 0
    for _ in range(500):
        damaged = list(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 4)):
            damaged[place] = chr(rng.choice([34, 44, 48, 58, 91, 93, 123, 125, 0, 0xD800, 0x1F600, 101]))
        answers, report = collecting.collect(made, "".join(damaged) + "{")
        assert len(answers) in (0, 4) and len(report) >= 1
        counted += len(answers) == 4
    assert 0 < counted < 500
