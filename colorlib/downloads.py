"""From the web to this machine: downloads that go on where they broke off, verified and safely unpacked."""

import errno
import hashlib
import http.client
import lzma
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from colorlib import runtime

ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
_ATTEMPTS = 6  # in a row that bring nothing, before the next address is tried
_PAUSE = 1.0  # seconds before the second attempt; twice as long before each further one
_BLOCK = 1 << 20
# What the readers of archives raise; RuntimeError: a password is needed. Those of gzip and bz2 raise OSError, too.
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what the system says when no more can be written
_AGENT = {"User-Agent": "Mozilla/5.0 (colorlib)"}  # some servers answer urllib's own name with 403


@dataclass(frozen=True)
class File:
    """A file on the web.

    `urls` are tried in this order; "gdrive:ID" is a file on Google Drive. `size` in bytes and `checksum`, such as
    "md5:e27b…", are None where nobody has published them.
    """

    name: str
    urls: tuple = ()
    size: int | None = None
    checksum: str | None = None

    @property
    def links(self):
        """Its addresses as a browser takes them."""
        return [url.replace("gdrive:", "https://drive.google.com/uc?id=") for url in self.urls]

    @property
    def facts(self):
        """Size and checksum in words."""
        checksum = self.checksum and self.checksum.replace(":", " ").replace("sha", "SHA-").replace("md5", "MD5")
        known = [f"{self.size:,} bytes" if self.size else "", checksum or ""]
        return ", ".join(filter(None, known)) or "size and checksum are not published"

    def fault(self, path):
        """What is wrong with the file at `path`, or ""."""
        size = path.stat().st_size
        with open(path, "rb") as stream:
            if _is_page(stream.read(500)):
                return "is a web page, perhaps a log-in or a quota notice"
            if self.size not in (None, size):
                return f"has {size:,} bytes instead of {self.size:,}"
            if self.checksum:
                kind, expected = self.checksum.split(":")
                stream.seek(0)
                found = hashlib.file_digest(stream, kind).hexdigest()
                if found != expected:
                    return f"has the {kind} {found} instead of {expected}"
        return ""


def _is_page(start):
    return start.lstrip().lower().startswith((b"<!doctype html", b"<html"))


class _Refused(Exception):
    """The server's answer is of no use, and asking again would not change it."""


def fetch(file, folder, places=()):
    """Bring a file to a folder, unless it is there or in one of `places` already: its path.

    What a broken download left is gone on with. Nothing bears the file's own name before it has been verified.

    Raises:
        ConnectionError: if no address gives it; says why for each.
        OSError: if the disk is full.
    """
    faults = []
    for place in (Path(folder), *places):
        path = place / file.name
        if os.path.isfile(path):  # which does not fail where Drive is gone
            fault = file.fault(path)
            if not fault:
                return path
            faults.append(f"{path} {fault}")
    target = Path(folder) / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for url in file.urls:
        for _ in range(2):  # the second time without what an earlier download left
            begun = part.exists()
            try:
                (_from_drive if url.startswith("gdrive:") else _from_web)(url, part, file)
                fault = file.fault(part)
            except _Refused as refused:
                fault = str(refused)
                break
            if not fault:
                part.replace(target)
                return target
            part.unlink()
            if not begun:
                break
        faults.append(f"{url} {fault}")
    raise ConnectionError("; ".join(faults) or "no address is known")


def _from_web(url, part, file):
    failures, pause, most = 0, _PAUSE, 0
    with runtime.bar(file.size, file.name, unit="B", unit_scale=True, unit_divisor=1000) as bar:
        while True:
            have = part.stat().st_size if part.exists() else 0
            most = max(most, have)
            if file.size and have >= file.size:
                return
            bar.initial = bar.n = bar.last_print_n = have  # for the rate and the time left
            try:
                return _stream(url, part, have, file, bar)
            except urllib.error.HTTPError as error:
                if error.code == 416:  # there is nothing after what we have, so that it is of another file
                    part.unlink(missing_ok=True)
                reason = f"answers {error.code} ({_line(error.reason)})"
                if error.code < 500 and error.code not in (416, 429):
                    raise _Refused(reason) from error
            except DiskFull:
                raise
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = f"fails ({_line(getattr(error, 'reason', error)) or type(error).__name__})"
            if part.exists() and part.stat().st_size > most:  # not: than before, or bad answers come for ever
                failures, pause = 0, _PAUSE
            failures += 1
            if failures == _ATTEMPTS:
                raise _Refused(reason)
            bar.set_postfix_str(f"{reason}; trying again")
            time.sleep(pause)
            pause *= 2


def _stream(url, part, have, file, bar):
    headers = _AGENT | ({"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as response:
        if response.status != 206:  # the server cannot go on in the middle
            have = bar.n = 0
        rest = response.headers["Content-Length"]
        total = file.size if rest is None else have + int(rest)
        block = response.read1(_BLOCK)
        if response.headers.get_content_type() == "text/html" or (not have and _is_page(block)):
            raise _Refused("sends a web page instead of the file, perhaps a log-in or a quota notice")
        if file.size and total != file.size:
            raise _Refused(f"offers {total:,} bytes instead of {file.size:,}")
        bar.total = total
        with open(part, "ab" if have else "wb", buffering=0) as stream:  # or closing it could fail once more
            while block:
                _write(stream, block)
                bar.update(len(block))
                block = response.read1(_BLOCK)  # not read: what came before an error would be lost
    if total and part.stat().st_size < total:
        raise ConnectionError(f"breaks off after {part.stat().st_size:,} of {total:,} bytes")


def _write(stream, block):
    try:
        while block:
            block = block[stream.write(block) :]
    except OSError as error:  # told apart from the network's errors, which are of the same class
        raise _full(stream.name, error) from error


class DiskFull(OSError):
    """A file could not be written; what was written so far is kept."""


def _full(path, error):
    return DiskFull(f"{path}: cannot be written ({error.strerror}); make room and run this again.")


def _from_drive(url, part, file):
    try:
        import gdown  # here, since it is needed for few sets
    except ImportError as error:
        raise _Refused("needs gdown: pip install gdown") from error
    whole = part.with_suffix(".gdown")
    try:
        # Without cookies: version 5 cannot save them where it has never been used.
        found = gdown.download(
            id=url.removeprefix("gdrive:"), output=str(whole), quiet=False, resume=True, use_cookies=False
        )
    except Exception as error:  # its two major versions have different ones
        if isinstance(error, OSError) and error.errno in FULL:
            raise _full(whole, error) from error
        text = _line(error)
        quota = any(words in text.lower() for words in ("quota", "too many users", "many accesses"))
        raise _Refused("is over Google Drive's quota for today" if quota else f"fails ({text})") from error
    if found is None or not whole.is_file():
        raise _Refused("gave no file; delete the .part files beside it")
    whole.replace(part)


def _line(text):
    return " ".join(str(text).split())


def need_space(folder, n_bytes, what):
    """See that a disk has room.

    Raises:
        OSError: if not; says how much is missing.
    """
    folder = Path(folder)
    free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free
    if free < n_bytes:
        raise OSError(
            f"{what} needs {n_bytes / 1e9:,.1f} GB below {folder}, where {free / 1e9:,.1f} GB are free: "
            "make room, or set COLORLIB_DATA to a folder on a larger disk."
        )


def unpack(archive, folder):
    """Unpack a zip or tar archive into a folder. Members that point outside the folder are refused.

    Raises:
        ValueError: if it is damaged, protected, or refused; names it.
        OSError: if the disk is full.
    """
    archive, folder = Path(archive), Path(folder)
    try:
        if zipfile.is_zipfile(archive) and not tarfile.is_tarfile(archive):  # a tar may end with a zip
            with zipfile.ZipFile(archive) as bundle:
                members = bundle.infolist()
                with runtime.bar(len(members), "unpacking") as bar:
                    for member in members:
                        place = (folder / member.filename).resolve()
                        if not place.is_relative_to(folder.resolve()):
                            raise tarfile.TarError(f"{member.filename!r} points outside")
                        bundle.extract(member, folder)
                        bar.update()
        else:
            with tarfile.open(archive) as bundle, runtime.bar(None, "unpacking") as bar:
                for member in bundle:
                    bundle.extract(member, folder, filter="data")  # refuses what points outside
                    bar.update()
                if bundle.fileobj.read(512) != bytes(512):  # tarfile takes a torn or wrong header for the end
                    raise tarfile.TarError("it breaks off")
                while bundle.fileobj.read(_BLOCK):  # a compressed one has its checksum at the end
                    pass
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's own; damage has no number
            message = f"{archive} cannot be unpacked to {folder} ({error.strerror}): make room and retry."
            raise DiskFull(message) from error
        raise ValueError(
            f"{archive} cannot be unpacked ({_line(error)}): get it again, or pack it anew if it is yours."
        ) from error
