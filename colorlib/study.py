"""A colour Turing test to send around: one HTML page of photos, and the key that stays behind.

Two kinds. "real": is this photo real, or did a machine colour it? Some are, some not, and no photo appears in both
forms. "grade": the original beside the coloured photo, to be graded success, medium or failure as in document 001.

What one could read out of the page's file instead of looking tells nothing: every picture takes the same way to the
same encoder, is padded to the same length, has a random name, and stands in the order of these names. What is left is
what the picture itself holds, such as how well it compresses: who decodes the data can find that a network whose
colours are paler than true ones saved 7 % of it, and going by that alone is right about two photos, one of each kind,
in 56 % of cases (a `unet18`, 240 photos).

    python -m colorlib.study PHOTOS WEIGHTS FOLDER
"""

import argparse
import base64
import hashlib
import io
import json
import math
import os
import re
import secrets
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from colorlib import color, photos, registry, runs
from colorlib.colorize import colorize

FORMAT = "colorlib answers 1"
PAGE, KEY, ANSWERS = "send/colour-study.html", "key-do-not-send.json", "answers"  # in a study's folder
SIDE = 512  # long side of a picture on the page
_WORKING_SIDE = 1024  # larger photos are coloured at this size
_MAX_DATA = 5_800_000  # bytes of all pictures together: 7.7 MB in base64, which a mail takes
_TEMPLATE = Path(__file__).with_name("study.html")

KINDS = {
    "real": {
        "title": "Real or coloured?",
        "about": "You will see photos. Some are as the camera took them. The others were grey, and a machine made up "
        "their colours. Say of each what you believe; how many there are of either kind is not told.",
        "question": "Is this photo real, or did a machine colour it?",
        "choices": {"real": "Real", "coloured": "Coloured"},
        "definitions": {},
        "told": {"real": "this photo is real.", "coloured": "a machine coloured this photo."},
        "captions": [],
    },
    "grade": {
        "title": "How good are the colours?",
        "about": "A machine saw these photos without colour and made colours up. Compare them with the originals, and "
        "grade each.",
        "question": "How good are the machine's colours?",
        "choices": {"success": "Success", "medium": "Medium", "failure": "Failure"},
        # Document 001's three groups, in our words.
        "definitions": {
            "success": "The colours are better than the original's: richer, or with a truer white.",
            "medium": "They are as good as the original's, or a little worse.",
            "failure": "Most things in the photo were not coloured, or much of the colours' detail is lost.",
        },
        "told": {},
        "captions": ["The original", "Coloured"],
    },
}


def make(
    folder,
    files,
    colour,
    kind="real",
    n_photos=10,
    n_coloured=None,
    n_practice=2,
    together=False,
    seconds=None,
    source="",
    weights="",
):
    """Make a page, and the key that stays with its maker.

    Which photos are taken and which of them are coloured is drawn anew each time, from the system's random numbers:
    a seed would let anyone with this code repeat the draw.

    Args:
        folder: where to; a folder for each study. Answers are expected in its folder `answers` later.
        files: photos to draw from: paths, or `{name: uint8 (H, W, 3)}`. Unreadable and grey ones are passed over, and
            copies of one that was drawn.
        colour: a function that colours a photo: uint8 `(H, W, 3)` -> uint8 `(H, W, 3)`.
        kind: "real" or "grade".
        n_photos: how many to judge.
        n_coloured: how many of them are coloured, for the kind "real"; half of them, unless given.
        n_practice: other photos that come first and do not count. For the kind "real" the page tells the truth about
            them, as in Zhang et al. 2016.
        together: all photos at once instead of one at a time.
        seconds: how long each photo is shown; answering may take longer, as in Zhang et al. 2016 (one second).
        source: the name of the data set that the photos are from, for the warning if it may not be passed on.
        weights: which weights colour, for the key.

    Returns:
        The `Study`.

    Raises:
        ValueError: if what is asked for makes no sense, or there are too few photos.
        FileExistsError: if the folder has a study already: answers that were given to it would be lost.
    """
    folder, n_coloured = Path(folder), n_photos // 2 if n_coloured is None else n_coloured
    _check(kind, n_photos, n_coloured, n_practice, together, seconds)
    if (folder / KEY).exists():
        raise FileExistsError(f"{folder / KEY}: a page was made here already; choose another name for a new one.")
    if terms := research_terms(source, files):
        warnings.warn(terms, stacklevel=2)
    files = files if isinstance(files, dict) else {str(file): file for file in files}
    drawn = _draw(files, n_photos + n_practice)
    coloured = np.arange(n_photos) < (n_photos if kind == "grade" else n_coloured)
    coloured = np.concatenate([coloured, np.arange(n_practice) % 2 == 0])  # of the practice photos every other one
    pictures = [
        [_picture(rgb), _picture(rgb, colour)] if kind == "grade" else [_picture(rgb, colour if made else None)]
        for rgb, made in zip(drawn.values(), coloured)
    ]
    encoded = iter(_encode([picture for row in pictures for picture in row]))
    rows = []
    for i, (name, made, row) in enumerate(zip(drawn, coloured, pictures)):
        height, width = row[0].shape[:2]
        data = [base64.b64encode(next(encoded)).decode() for _ in row]
        entry = {"id": secrets.token_hex(4), "width": width, "height": height, "data": data}
        rows.append((i >= n_photos, entry, {"file": name, "coloured": bool(made)}))
    rows.sort(key=lambda row: row[1]["id"])  # random, so that the order tells nothing
    for practice, entry, truth in rows:
        if practice and kind == "real":
            entry["answer"] = "coloured" if truth["coloured"] else "real"
    judged = [(entry, truth) for practice, entry, truth in rows if not practice]
    content = {"format": FORMAT, "study": secrets.token_hex(8), "kind": kind, **KINDS[kind]}
    if seconds:
        content["about"] += f" Each is shown for {seconds:g} second{'s' * (seconds != 1)}; answer when you like."
    content |= {"together": together, "seconds": seconds or 0}
    content |= {
        "photos": [entry for entry, _ in judged],
        "practice": [entry for practice, entry, _ in rows if practice],
    }
    key = {"study": content["study"], "kind": kind, "weights": weights, "source": source, "terms": terms}
    key |= {"photos": [{"photo": entry["id"], **truth} for entry, truth in judged]}

    (folder / PAGE).parent.mkdir(parents=True, exist_ok=True)
    (folder / ANSWERS).mkdir(exist_ok=True)
    (folder / PAGE).write_text(_page(content), encoding="utf-8")
    (folder / KEY).write_text(json.dumps(key, indent=1), encoding="utf-8")  # last: a study without it is not one
    return Study(folder)


def _check(kind, n_photos, n_coloured, n_practice, together, seconds):
    if kind not in KINDS:
        raise ValueError(f"there is no kind {kind!r}; choose one of {', '.join(KINDS)}.")
    if kind == "real" and not 0 < n_coloured < n_photos:
        raise ValueError(f"{n_coloured} of {n_photos} photos coloured: a page needs at least one of either kind.")
    if n_photos < 1 or n_practice < 0:
        raise ValueError(f"{n_photos} photos and {n_practice} for practice: there must be one, and none fewer than 0.")
    if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"{seconds} seconds: give a number above 0, or None for no limit.")
    if seconds and together:
        raise ValueError("a time for each photo needs one photo at a time.")


def research_terms(source, files=()):
    """What to say before photos are sent around: the terms, if they are of a data set for research, else ""."""
    parts = {part.lower() for file in files if isinstance(file, os.PathLike) for part in file.parts}
    for name, dataset in sorted(registry.DATASETS.items(), reverse=True):  # places365-large before places365
        if name == source or any(part == name or part.startswith(f"{name}-") for part in parts):
            return (
                f"These photos are of {dataset.title} ({dataset.terms}). To send the page is to pass them on: "
                "use photos of your own instead."
            )
    return ""


def _draw(files, n):
    """`n` of the photos in random order, as `{name: uint8 (H, W, 3)}`, all different and all in colour."""
    drawn, seen = {}, []
    names = list(files)
    for i in np.random.default_rng().permutation(len(names)):
        if len(drawn) == n:
            break
        rgb = files[names[i]]
        try:
            rgb = _shrink(rgb if isinstance(rgb, np.ndarray) else photos.open_photo(rgb), _WORKING_SIDE)
        except photos.PhotoError:
            continue
        small = np.asarray(Image.fromarray(rgb).convert("L").resize((16, 16), Image.Resampling.BOX), dtype=float)
        copy = any(np.abs(small - other).mean() < 3 for other in seen)  # of 255: survives resizing and compression
        if copy or photos.colour_fault(rgb):
            continue
        drawn[names[i]] = rgb
        seen.append(small)
    if len(drawn) < n:
        raise ValueError(
            f"{n} photos are needed, practice included, and {len(drawn)} of {len(files)} will do (readable, in colour, "
            "no two the same): give more photos, or ask for fewer."
        )
    return drawn


def _shrink(rgb, side, most=1.0):
    """A photo whose long side is `side` at most, and `most` of what it was."""
    height, width = rgb.shape[:2]
    scale = min(most, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).resize(size, Image.Resampling.LANCZOS))


def _picture(rgb, colour=None):
    """A photo as the page shows it: uint8 `(H, W, 3)`.

    A real one, too, is taken apart and put together from Lab; and each is resized at least a little, since the blocks
    of an earlier JPEG would show in the colours of the real ones and only in the lightness of the others.
    """
    if colour is None:
        L, ab = color.photo_to_lab(rgb)
        made = color.lab_to_rgb(L, ab)[0].permute(1, 2, 0).numpy()
    else:
        made = colour(rgb)
    return _shrink(made, SIDE, most=15 / 16)


def _encode(pictures):
    """uint8 arrays -> JPEGs of one length, all from the same quantisation and Huffman tables."""
    for quality in range(92, 20, -4):  # the first one at which the largest is small enough
        jpegs = [io.BytesIO() for _ in pictures]
        for rgb, jpeg in zip(pictures, jpegs):
            Image.fromarray(rgb).save(jpeg, "JPEG", quality=quality, subsampling="4:2:0", optimize=False)
        longest = max(jpeg.tell() for jpeg in jpegs)
        if longest * len(pictures) <= _MAX_DATA:
            break
    return [_pad(jpeg.getvalue(), longest) for jpeg in jpegs]


def _pad(jpeg, length):
    """A JPEG made longer, in front of its end: there decoders have all they need, and skip to the end's marker.

    The filling is drawn from the picture's own compressed bytes, so that where it begins does not show either, neither
    as zeros in the text nor in how often a byte occurs.
    """
    scan = jpeg[jpeg.rindex(b"\xff\xda") + 14 : -2].replace(b"\xff\x00", b"\xff")
    filling = np.random.default_rng().choice(np.frombuffer(scan, np.uint8), length).tobytes()
    filling = filling.replace(b"\xff", b"\xff\x00")[: length - len(jpeg)]  # as in a scan, where 255 would be a marker
    return jpeg[:-2] + filling + jpeg[-2:]


def _page(content):
    template = _TEMPLATE.read_text(encoding="utf-8")
    parts = {"data": json.dumps(content).replace("<", "\\u003c"), "title": content["title"]}
    for name, tag in (("style", "<style>"), ("script", "<script>")):
        inside = template.split(tag)[1].split(f"</{name}>")[0]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        parts[f"{name} hash"] = f"sha256-{digest}"
    return re.sub(r"\{\{([a-z ]+)\}\}", lambda found: parts[found[1]], template)


@dataclass(frozen=True)
class Study:
    """A page that was made: its folder, with the key in it.

    `key` is a DataFrame by `photo` (its random name): `coloured`, and `file`, the photo it was made from.
    """

    folder: Path

    @cached_property
    def facts(self):
        return json.loads((self.folder / KEY).read_text(encoding="utf-8"))

    @property
    def id(self):
        return self.facts["study"]

    @property
    def kind(self):
        return self.facts["kind"]

    @property
    def page(self):
        return self.folder / PAGE

    @cached_property
    def key(self):
        return pd.DataFrame(self.facts["photos"]).set_index("photo")

    @cached_property
    def jpegs(self):
        """What the page shows of each photo: `{photo: [bytes, ...]}`."""
        text = self.page.read_text(encoding="utf-8")
        content = json.loads(re.search(r'<script type="application/json" id="study">(.*?)</script>', text, re.S)[1])
        return {p["id"]: [base64.b64decode(data) for data in p["data"]] for p in content["photos"]}

    def picture(self, photo):
        """The photo as the page shows it, the coloured one of a pair: uint8 `(H, W, 3)`."""
        return photos.open_photo(io.BytesIO(self.jpegs[photo][-1]))


def main(arguments=None):
    """The command line: a page from a folder of photos and a weights file."""
    parser = argparse.ArgumentParser(prog="python -m colorlib.study", description="Make the page of a study.")
    parser.add_argument("photos", type=Path, help="a folder of photos, best your own")
    parser.add_argument("weights", help="a weights file, a run's folder, or shipped")
    parser.add_argument("folder", type=Path, help="where the study is kept")
    parser.add_argument("--kind", choices=KINDS, default="real", help="real or coloured, or grade the colours")
    parser.add_argument("--n-photos", type=int, default=10, help="photos to judge")
    parser.add_argument("--n-coloured", type=int, help="how many of them are coloured; half, unless given")
    parser.add_argument("--n-practice", type=int, default=2, help="other photos that come first")
    parser.add_argument("--together", action="store_true", help="all photos at once")
    parser.add_argument("--seconds", type=float, help="how long each photo is shown")
    given = vars(parser.parse_args(arguments))
    weights, files = given.pop("weights"), photos.find_photos(given.pop("photos"))
    run = runs.open_run(weights)
    model = run.model()
    made = make(
        files=files, colour=lambda rgb: colorize(model, rgb, run.recipe.size), weights=f"{run} ({weights})", **given
    )
    print(f"Send this file: {made.page}\nKeep this one to yourself: {made.folder / KEY}")


if __name__ == "__main__":
    main()
