"""The answers to a study, as they come back: from a folder, a zip archive or pasted text. Nothing of it is trusted."""

import json
import os
import re
import zipfile
from pathlib import Path

import pandas as pd

from colorlib.study import FORMAT, KINDS

_MAX_FILE, _MAX_FILES, _MAX_TOTAL = 300_000, 5_000, 50_000_000  # bytes; the answers to 40 photos take 1,500


class _Refused(ValueError):
    """Why something does not count, in words for the maker."""


def collect(study, source):
    """The answers to a study, from wherever they were put.

    Sizes are limited before anything is read, and what is not exactly one whole set of answers to this page is left
    out with the reason. People are numbered in the order of the files' names.

    Args:
        study: the `study.Study`.
        source: a folder (searched with all below it), a file, a zip archive, or the text itself, with the answers of
            several people one after the other and anything in between.

    Returns:
        `(answers, report)`. `answers` has a row for each judgement: `participant` ("participant 1", ...), `photo`,
        `answer` and `seconds` (NaN where not measured). `report` has a row for everything that was found: `where`,
        `counted` and `reason`.

    Raises:
        FileNotFoundError: if there is no such path.
    """
    taken, rows, report, total = {}, [], [], 0
    for n, (where, content) in enumerate(_documents(source)):
        total += 0 if isinstance(content, _Refused) else len(content)
        if n >= _MAX_FILES or total > _MAX_TOTAL:
            reason = f"all from here on: more than {_MAX_FILES:,} files or {_MAX_TOTAL:,} bytes"
            report.append((where, False, reason))
            break
        where = "".join(c if c.isprintable() else "?" for c in where[:200])  # the names are theirs, too
        try:
            if isinstance(content, _Refused):
                raise content
            records = list(_records(_decode(content)))
        except _Refused as error:
            report.append((where, False, str(error)))
            continue
        for record in records:
            try:
                who, judged = _read(study, record)
                if who in taken:
                    same = judged == taken[who]
                    raise _Refused("the same answers once more" if same else "other answers by someone counted already")
                taken[who] = judged
                name = f"participant {len(taken)}"
                rows += [(name, photo, answer, seconds) for photo, (answer, seconds) in judged.items()]
                report.append((where, True, name))
            except _Refused as error:
                report.append((where, False, str(error)))
    answers = pd.DataFrame(rows, columns=["participant", "photo", "answer", "seconds"])
    return answers.astype({"seconds": float}), pd.DataFrame(report, columns=["where", "counted", "reason"])


def _documents(source):
    """`(where, bytes)` of everything that may hold answers; a `_Refused` in place of what may not be read."""
    text = str(source)
    if not isinstance(source, os.PathLike) and "{" in text:
        yield "the text", text.encode(errors="replace")
        return
    path = Path(text.strip()).expanduser()
    if "\0" in text or not path.exists():
        raise FileNotFoundError(f"{text[:200]!r}: no folder or file, and no answers: text with answers contains {{.")
    if path.is_dir():
        found = sorted(file for parent, _, names in os.walk(path) for file in (Path(parent, n) for n in names))
        found = [file for file in found if not file.name.startswith(".")]
    else:
        found = [path]
    for file in found:
        where = str(file.relative_to(path)) if path.is_dir() else file.name
        if not file.is_file():  # a pipe or a device would never end
            yield where, _Refused("no regular file")
        elif file.suffix.lower() == ".zip" and file.stat().st_size <= _MAX_TOTAL:
            yield from _members(file, where)
        else:
            with open(file, "rb") as stream:
                yield where, _limited(stream)


def _members(archive, where):
    try:
        with zipfile.ZipFile(archive) as bundle:
            for member in bundle.infolist():
                if member.is_dir() or "__MACOSX" in member.filename:
                    continue
                place = f"{where}: {member.filename}"
                try:
                    with bundle.open(member) as stream:
                        yield place, _limited(stream)
                except Exception as error:  # damage of any kind, encryption, a method that is not known
                    yield place, _Refused(f"cannot be unpacked ({type(error).__name__})")
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        yield where, _Refused(f"no zip archive that can be read ({type(error).__name__})")


def _limited(stream):
    content = stream.read(_MAX_FILE + 1)  # whatever size it says it has
    return content if len(content) <= _MAX_FILE else _Refused(f"larger than {_MAX_FILE:,} bytes")


def _decode(content):
    try:
        wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Refused("no text in UTF-8") from error
    # What mail programs and phones do to a pasted text.
    text = re.sub(r"[“”„‟«»]", '"', text).replace("\xa0", " ")
    return re.sub(r"^[> \t]*>", "", text, flags=re.M)


def _records(text):
    """Every JSON object in a text that calls itself answers; None for one that cannot be read."""
    decoder = json.JSONDecoder(object_pairs_hook=_no_twice, parse_constant=_no_constant)
    # Each piece ends where the next one begins, so that one that was broken off does not swallow it.
    pieces = re.split(r'(?=\{\s*"format")', text)[1:]
    if not pieces:
        raise _Refused("holds no answers")
    for piece in pieces[:_MAX_FILES]:
        try:
            yield decoder.raw_decode(piece)[0]
        except (ValueError, RecursionError):
            yield None


def _no_twice(pairs):
    if len(dict(pairs)) < len(pairs):
        raise ValueError
    return dict(pairs)


def _no_constant(name):  # NaN and Infinity are no JSON
    raise ValueError


def _read(study, record):
    """A record -> `(participant, {photo: (answer, seconds)})`, if it is a whole set of answers to this study."""
    if record is None:
        raise _Refused("malformed: broken off or changed on the way")
    if record.get("format") != FORMAT:
        raise _Refused("of another version of the page")
    if record.get("study") != study.id or record.get("kind") != study.kind:
        raise _Refused("answers to another page")
    who, rows = record.get("participant"), record.get("answers")
    if not (isinstance(who, str) and re.fullmatch(r"[0-9a-f]{16}", who) and isinstance(rows, list)):
        raise _Refused("malformed: not what the page writes")
    judged = {}
    for row in rows[: len(study.key) + 1]:
        if not (isinstance(row, list) and len(row) == 3):
            raise _Refused("malformed: not what the page writes")
        photo, answer, seconds = row
        if not isinstance(photo, str) or photo not in study.key.index or photo in judged:
            raise _Refused("malformed: photos that the page does not have, or twice")
        if not isinstance(answer, str) or answer not in KINDS[study.kind]["choices"]:
            raise _Refused("malformed: an answer that the page does not offer")
        number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if seconds is not None and not (number and 0 <= seconds <= 1e6):
            raise _Refused("malformed: a time that cannot be")
        judged[photo] = (answer, None if seconds is None else float(seconds))
    if len(judged) < len(study.key):
        raise _Refused(f"half-filled: {len(judged)} of {len(study.key)} photos")
    return who, judged
