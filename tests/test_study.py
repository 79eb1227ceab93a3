"""The study's page: what is drawn, what the key says, and that nothing but the pictures tells the truth."""

import base64
import hashlib
import io
import json
import re
import warnings

import numpy as np
import pytest
from pictures import crops, save
from PIL import Image
from scipy import stats

from colorlib import color, photos, recipes, registry, study


def swap(rgb):
    """Colours a photo, and plainly: a and b change places."""
    L, ab = color.photo_to_lab(rgb)
    return color.lab_to_rgb(L, ab.flip(1))[0].permute(1, 2, 0).numpy()


def content(made):
    """What stands in the page for its script."""
    text = made.page.read_text()
    return json.loads(re.search(r'<script type="application/json" id="study">(.*?)</script>', text, re.S)[1])


def pool(n, height=72, width=96):
    return {f"photo {i}": rgb for i, rgb in enumerate(crops(n, height, width))}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Twelve pages of each kind, of ten photos and two for practice: `{kind: [Study, ...]}`."""
    folder = tmp_path_factory.mktemp("pages")
    return {
        kind: [study.make(folder / kind / str(i), pool(16), swap, kind=kind) for i in range(12)] for kind in study.KINDS
    }


def both_kinds(pages):
    """Every judged photo of the pages of "real or coloured?": `[(coloured, entry, place), ...]`."""
    return [
        (made.key.coloured[entry["id"]], entry, place)
        for made in pages["real"]
        for place, entry in enumerate(content(made)["photos"])
    ]


# -- what is drawn ---------------------------------------------------------------------------------------------


def test_a_page_has_what_was_asked_for_and_the_key_says_what_it_is(pages):
    for made in pages["real"]:
        page, names = content(made), set(pool(16))
        assert (len(page["photos"]), len(page["practice"])) == (10, 2)
        assert made.key.coloured.sum() == 5 and set(made.key.index) == {p["id"] for p in page["photos"]}
        assert set(made.key.file) <= names and made.key.file.is_unique
        assert page["study"] == made.id and sorted(p["answer"] for p in page["practice"]) == ["coloured", "real"]
    for made in pages["grade"]:
        assert made.key.coloured.all() and all(len(p["data"]) == 2 for p in content(made)["photos"])


def test_the_key_is_true(tmp_path):
    """What it calls coloured looks like the coloured photo, what it calls real like the real one."""
    given = pool(8)
    made = study.make(tmp_path, given, swap, n_photos=6)
    for photo, row in made.key.iterrows():
        shown = made.picture(photo).astype(float)
        size = shown.shape[1::-1]
        off = [
            np.abs(np.asarray(Image.fromarray(rgb).resize(size), float) - shown).mean()
            for rgb in (given[row.file], swap(given[row.file]))
        ]
        assert (off[1] < off[0]) == row.coloured


def test_draws_differ(pages):
    drawn = [tuple(sorted(made.key.file[made.key.coloured])) for made in pages["real"]]
    assert len(set(drawn)) > 6 and len({made.id for made in pages["real"]}) == 12


def test_each_photo_is_coloured_as_often_as_another(tmp_path):
    names = [study.make(tmp_path / str(i), pool(4), swap, n_photos=4, n_practice=0).key for i in range(75)]
    times = sum(key.set_index("file").coloured for key in names)
    assert times.sum() == 150 and stats.chisquare(times).pvalue > 1e-4


def test_no_photo_is_there_twice_not_even_as_a_copy(tmp_path):
    rgb = next(crops(1, 160, 160))
    files = [save(rgb, tmp_path / "one.png"), save(rgb, tmp_path / "copy.jpg", quality=60)]
    files.append(save(np.asarray(Image.fromarray(rgb).resize((100, 100))), tmp_path / "small.png"))
    with pytest.raises(ValueError, match="2 photos are needed, practice included, and 1 of 3 will do"):
        study.make(tmp_path / "study", files, swap, n_photos=2, n_practice=0)


def test_grey_and_broken_photos_are_passed_over(tmp_path):
    files = [save(rgb, tmp_path / f"{i}.png") for i, rgb in enumerate(crops(4))]
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    files += [tmp_path / "broken.jpg", save(np.full((90, 90, 3), 128, np.uint8), tmp_path / "grey.png")]
    made = study.make(tmp_path / "study", files, swap, n_photos=3, n_practice=1)
    assert not set(made.key.file) & {str(file) for file in files[4:]}
    with pytest.raises(ValueError, match="5 photos are needed, practice included, and 4 of 6 will do"):
        study.make(tmp_path / "other", files, swap, n_photos=4, n_practice=1)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"kind": "guess"}, "there is no kind 'guess'; choose one of real, grade"),
        ({"n_coloured": 0}, "0 of 4 photos coloured: a page needs at least one of either kind"),
        ({"n_coloured": 4}, "4 of 4 photos coloured"),
        ({"n_coloured": -1}, "-1 of 4 photos coloured"),
        ({"kind": "grade", "n_photos": 0}, "0 photos and 2 for practice"),
        ({"n_practice": -1}, "4 photos and -1 for practice"),
        ({"seconds": 0}, "0 seconds: give a number above 0"),
        ({"seconds": float("nan")}, "nan seconds: give a number above 0"),
        ({"seconds": 1, "together": True}, "a time for each photo needs one photo at a time"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        study.make(tmp_path, pool(8), swap, **({"n_photos": 4} | wrong))
    assert not any(tmp_path.iterdir())


def test_a_page_that_was_sent_is_not_overwritten(tmp_path):
    made = study.make(tmp_path, pool(6), swap, n_photos=4)
    before = made.page.read_bytes()
    with pytest.raises(FileExistsError, match="choose another name for a new one"):
        study.make(tmp_path, pool(6), swap, n_photos=4)
    assert made.page.read_bytes() == before


def test_photos_of_research_sets_are_warned_about(tmp_path):
    terms = registry.DATASETS["celeba"].terms
    with pytest.warns(UserWarning, match=f"These photos are of .*{re.escape(terms)}.*use photos of your own"):
        made = study.make(tmp_path / "a", pool(6), swap, n_photos=4, source="celeba")
    assert terms in made.facts["terms"]
    prepared = [save(rgb, tmp_path / "places365-0123abcd" / f"{i}.png") for i, rgb in enumerate(crops(6))]
    with pytest.warns(UserWarning, match="Places365"):
        study.make(tmp_path / "b", prepared, swap, n_photos=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study.make(tmp_path / "c", pool(6), swap, n_photos=4)


@pytest.mark.parametrize("kind, n_practice", [("real", 2), ("grade", 0)])
def test_forty_photos_stay_under_eight_megabytes(tmp_path, kind, n_practice):
    """The worst there are: noise, which does not compress, on patches of colour that make them different photos."""
    rng, noise = np.random.default_rng(0), {}
    for i in range(42):
        patches = np.kron(rng.integers(0, 128, (12, 12, 3)), np.ones((50, 50, 1), int))
        noise[str(i)] = (patches + rng.integers(0, 128, (600, 600, 3))).astype(np.uint8)
    made = study.make(tmp_path, noise, lambda rgb: rgb, kind, n_photos=40, n_practice=n_practice)
    assert 5_000_000 < made.page.stat().st_size < 8_000_000
    assert max(made.picture(made.key.index[0]).shape) == study.SIDE  # not by making them smaller


# -- blind -----------------------------------------------------------------------------------------------------


def segments(jpeg):
    """The header of a JPEG, up to its compressed data: `[(marker, bytes), ...]`."""
    at, found = 2, []
    while not found or found[-1][0] != 0xDA:
        assert jpeg[at] == 0xFF
        size = int.from_bytes(jpeg[at + 2 : at + 4], "big")
        found.append((jpeg[at + 1], jpeg[at + 4 : at + 2 + size]))
        at += 2 + size
    return found


def test_all_data_has_one_length_and_one_header(pages):
    for made in [*pages["real"], *pages["grade"]]:
        page = content(made)
        data = [d for p in page["photos"] + page["practice"] for d in p["data"]]
        assert len({len(d) for d in data}) == 1
        # All photos here have one size. Markers in order, tables, subsampling, and nothing like EXIF or comments.
        headers = {str(segments(base64.b64decode(d))) for d in data}
        assert len(headers) == 1
        assert {marker for marker, _ in segments(base64.b64decode(data[0]))} <= {0xE0, 0xDB, 0xC0, 0xC4, 0xDA}


def test_the_photos_size_is_all_that_their_headers_differ_in(tmp_path):
    wide, tall = pool(8, 72, 96), {f"tall {name}": rgb.transpose(1, 0, 2) for name, rgb in pool(8, 72, 96).items()}
    made = study.make(tmp_path, wide | tall, swap, n_photos=14)
    headers = [segments(jpeg) for (jpeg,) in made.jpegs.values()]
    assert len({str([s for s in header if s[0] != 0xC0]) for header in headers}) == 1
    sizes = {next(s for s in header if s[0] == 0xC0)[1] for header in headers}
    assert len({size[:1] + size[5:] for size in sizes}) == 1  # what is left without height and width
    assert len(sizes) == 2


def test_entries_differ_in_nothing_but_name_and_data(pages):
    for made in pages["real"]:
        entries = [{k: v for k, v in p.items() if k not in ("id", "data")} for p in content(made)["photos"]]
        assert all(entry == entries[0] == {"width": 90, "height": 68} for entry in entries)


def test_names_and_order_tell_nothing(pages):
    kinds = both_kinds(pages)
    coloured = np.array([made for made, _, _ in kinds])
    ids = np.array([int(entry["id"], 16) for _, entry, _ in kinds], float)
    places = np.array([place for _, _, place in kinds])
    for clue in (ids, places):  # 60 against 60; a difference would be there in every run of this test
        assert stats.mannwhitneyu(clue[coloured], clue[~coloured]).pvalue > 1e-4
    for made in pages["real"]:
        names = [p["id"] for p in content(made)["photos"]]
        assert names == sorted(names) and all(re.fullmatch("[0-9a-f]{8}", name) for name in names)
    assert len({entry["id"] for _, entry, _ in kinds}) == 120


def test_the_padding_does_not_show_where_it_begins(tmp_path, monkeypatch):
    """With a "network" that paints all over, whose data is far shorter."""

    def kept(jpeg, length):
        lengths.append(len(jpeg))
        return pad(jpeg, length)

    pad, lengths = study._pad, []
    monkeypatch.setattr(study, "_pad", kept)
    made = study.make(tmp_path, pool(40, 160, 200), lambda rgb: np.full_like(rgb, 99), n_photos=40, n_practice=0)
    assert max(lengths[:20]) < min(lengths[20:])  # the coloured ones come first there: a clue indeed
    for (jpeg,) in made.jpegs.values():
        scan = jpeg[jpeg.index(b"\xff\xda") + 14 : -2]
        # The end is at the end, and nothing before it is a marker.
        assert jpeg[-2:] == b"\xff\xd9" and set(re.findall(rb"\xff+(.)", scan, re.S)) <= {b"\0"}


def test_padding_has_the_bytes_of_the_data_that_it_follows():
    (plain,) = study._encode([next(crops(1, 150, 210))])
    padded = study._pad(plain, 2 * len(plain))
    own, filling = plain[plain.index(b"\xff\xda") + 14 : -2], padded[len(plain) - 2 : -2]
    counts = [np.bincount(np.frombuffer(part, np.uint8), minlength=256) for part in (own, filling)]
    often = np.minimum(*counts) >= 5
    assert often.sum() > 200 and stats.chi2_contingency([count[often] for count in counts]).pvalue > 1e-4


def test_padding_changes_no_pixel():
    for rgb in crops(3, 150, 210):
        (plain,) = study._encode([rgb])
        padded = study._pad(plain, len(plain) + 5_000)
        assert len(padded) == len(plain) + 5_000
        assert np.array_equal(photos.open_photo(io.BytesIO(padded)), photos.open_photo(io.BytesIO(plain)))


def test_both_kinds_go_through_lab_and_through_the_same_resizing(monkeypatch):
    """With a network that gives the true colours back, real and coloured are one picture, bit for bit."""

    def true_colours(rgb):
        L, ab = color.photo_to_lab(rgb)
        return color.lab_to_rgb(L, ab)[0].permute(1, 2, 0).numpy()

    for rgb in (next(crops(1)), next(crops(1, 300, 350)), np.tile(next(crops(1, 300, 350)), (3, 3, 1))):
        rgb = study._shrink(rgb, 1024)
        assert np.array_equal(study._picture(rgb), study._picture(rgb, true_colours))


def test_blocks_of_an_earlier_jpeg_do_not_show(tmp_path):
    """A photo that is no larger than the page allows is resized all the same: its 8 x 8 blocks leave no grid."""

    def grid(rgb):  # steps across block borders, relative to those elsewhere
        steps = np.abs(np.diff(rgb[..., 1].astype(float), axis=1)).mean(axis=0)
        return steps[7::8].mean() / np.delete(steps, np.s_[7::8]).mean()

    path = save(next(crops(1, 200, 300)), tmp_path / "photo.jpg", quality=20)
    rgb = photos.open_photo(path)
    assert grid(rgb) > 1.3 and grid(study._picture(rgb)) < 1.15


def test_the_page_holds_nothing_of_the_key(pages, tmp_path):
    files = [save(rgb, tmp_path / "holiday" / f"beach {i}.png") for i, rgb in enumerate(crops(6))]
    made = study.make(tmp_path / "study", files, swap, n_photos=4, weights="resnet34-4711")
    text = made.page.read_text()
    without_data = re.sub(r'"data": \[[^]]*\]', "", text)
    for word in ("beach", "holiday", "resnet34", "4711", str(tmp_path)):
        assert word in (made.folder / study.KEY).read_text() and word not in text
    # "coloured" stands in the words for everyone and beside practice photos, and nowhere with a judged photo.
    assert [set(p) for p in content(made)["photos"]] == 4 * [{"id", "width", "height", "data"}]
    shared = re.sub(r'"(study|id)": "[0-9a-f]+"', "", without_data)
    other = re.sub(r'"data": \[[^]]*\]', "", pages["real"][0].page.read_text())
    assert not set(re.findall(r"\w+", shared)) - set(re.findall(r"\w+", other)) - {"90", "68"}
    assert made.page.parent != (made.folder / study.KEY).parent  # so that the folder that is sent has no key in it


def test_no_photo_appears_in_both_forms(pages):
    for made in pages["real"]:
        page = content(made)
        assert all(len(p["data"]) == 1 for p in page["photos"] + page["practice"])
        entries = page["photos"] + page["practice"]
        pictures = [photos.open_photo(io.BytesIO(base64.b64decode(p["data"][0]))) for p in entries]
        light = [color.photo_to_lab(rgb)[0].numpy() for rgb in pictures]
        apart = [np.abs(a - b).mean() for i, a in enumerate(light) for b in light[:i]]
        assert len(apart) == 66 and min(apart) > 3


# -- the file --------------------------------------------------------------------------------------------------


def test_the_page_is_one_file_that_may_fetch_nothing(pages):
    text = pages["real"][0].page.read_text()
    words = re.sub(r'"data": \[[^]]*\]', "", text)
    assert not re.search(r"https?:|[\"'(]//|@import|url\(|srcset|<link(?! rel=\"icon\" href=\"data:,\")", words)
    assert not re.search(r"\{\{|\}\}", re.sub(r"<script>.*</script>", "", text, flags=re.S))  # nothing left to fill in
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src 'none'; img-src data:; ") and "unsafe" not in policy
    for tag in ("style", "script"):  # only these very texts are allowed to run
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_words_cannot_break_out_of_the_data(tmp_path, monkeypatch):
    evil = "</script><script>alert(1)</script>"
    monkeypatch.setitem(study.KINDS, "real", study.KINDS["real"] | {"about": evil})
    made = study.make(tmp_path, pool(6), swap, n_photos=4)
    assert evil not in made.page.read_text() and content(made)["about"] == evil


def test_a_study_is_found_again(pages):
    made = pages["grade"][0]
    again = study.Study(made.folder)
    assert again.key.equals(made.key) and (again.id, again.kind) == (made.id, "grade")
    assert again.picture(again.key.index[0]).shape == (68, 90, 3)


def test_the_command_line_makes_a_page_from_photos_and_weights(tmp_path, monkeypatch, capsys, painter):
    for i, rgb in enumerate(crops(6)):
        save(rgb, tmp_path / "photos" / f"{i}.png")
    asked = []

    class Run:
        recipe = recipes.get("resnet34")

        def model(self):
            return painter

    monkeypatch.setattr(study.runs, "open_run", lambda path: asked.append(path) or Run())
    weights = str(tmp_path / "best.pt")
    study.main([str(tmp_path / "photos"), weights, str(tmp_path / "study"), "--n-photos", "4", "--kind", "grade"])
    made = study.Study(tmp_path / "study")
    assert asked == [weights] and weights in made.facts["weights"]
    assert (made.kind, len(made.key), len(content(made)["practice"])) == ("grade", 4, 2)
    out = capsys.readouterr().out
    assert f"Send this file: {made.page}\nKeep this one to yourself: {made.folder / study.KEY}\n" == out
