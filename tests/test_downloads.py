"""colorlib.downloads: whatever a server, a connection, an archive or a disk does, a file is right or not there."""

import errno
import hashlib
import inspect
import random
import shutil
import sys
import tarfile
from types import SimpleNamespace

import gdown
import pytest
from web import Answer, Site, largest_file, pack, photo, tree

from colorlib import downloads

URL, MIRROR = "https://host.example/sets/set.bin", "http://mirror.example/set.bin"
DRIVE = "https://drive.google.com/uc?id=0B7EVK8r0v71p"
BODY = random.Random(0).randbytes(40_000)
OTHER = random.Random(1).randbytes(40_000)
PAGE = b"\n<!DOCTYPE html><html>Please log in</html>"


def described(body=BODY, *urls, **changes):
    facts = {"size": len(body), "checksum": f"sha256:{hashlib.sha256(body).hexdigest()}"} | changes
    return downloads.File("set.bin", urls or (URL,), **facts)


FILE = described()
UNKNOWN = described(size=None, checksum=None)


@pytest.fixture(autouse=True)
def site(monkeypatch, tmp_path):
    monkeypatch.setattr(downloads, "_PAUSE", 0)
    cookies = str(tmp_path / "cookies.txt")
    monkeypatch.setattr(sys.modules["gdown.download"], "DEFAULT_COOKIES_FILE", cookies, raising=False)  # gdown 6
    monkeypatch.setattr(sys.modules["gdown.download"], "home", str(tmp_path / "home"))
    (tmp_path / "home/.cache/gdown").mkdir(parents=True)
    with Site() as site, site.redirected(monkeypatch):
        site.put(URL, BODY)
        yield site


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


def refused(file, folder, places=()):
    """Fetch what cannot be fetched: the message, one line without the words of a lost program."""
    with pytest.raises(ConnectionError) as caught:
        downloads.fetch(file, folder, places)
    message = str(caught.value)
    assert "\n" not in message and message != ""
    assert not (folder / file.name).exists()
    return message


def starts(site):
    return [request.start for request in site.log]


# ------------------------------------------------------------------------------------- good and bad connections


@pytest.mark.parametrize("file", [FILE, UNKNOWN, described(size=None), described(checksum=None)])
def test_file_is_fetched_once(file, site, folder):
    assert downloads.fetch(file, folder) == folder / "set.bin"
    assert downloads.fetch(file, folder) == folder / "set.bin"
    assert tree(folder) == {"set.bin": BODY}
    assert [request.sent for request in site.log] == [len(BODY)]


@pytest.mark.parametrize("file", [FILE, UNKNOWN], ids=["known", "unknown"])
@pytest.mark.parametrize("seed", range(3))
def test_connection_that_breaks_again_and_again_sends_nothing_twice(seed, file, site, folder):
    rng, rest, answers = random.Random(seed), len(BODY), []
    for _ in range(15):  # many more than are allowed without progress
        answers.append(Answer(BODY, cut=rng.randint(1, rest // 4)))
        rest -= answers[-1].cut
    site.put(URL, *answers, BODY)
    assert downloads.fetch(file, folder).read_bytes() == BODY
    ends = [request.start + request.sent for request in site.log]
    assert starts(site) == [0, *ends[:-1]] and ends[-1] == len(BODY) and len(ends) == 16


@pytest.mark.parametrize("how", ["reset", "stall"])
def test_what_came_before_an_error_is_kept(how, site, folder):
    site.patience = 0.3
    site.put(URL, *[Answer(BODY, cut=4000, how=how)] * 8, BODY)
    assert downloads.fetch(FILE, folder).read_bytes() == BODY
    assert starts(site) == sorted(set(starts(site)))  # every attempt goes on where the last one ended


@pytest.mark.parametrize("answer", [Answer(BODY, cut=9000, length=False), Answer(BODY[:9000], length=False)])
def test_end_that_comes_too_soon_is_noticed_without_a_length(answer, site, folder):
    site.put(URL, answer, BODY)
    assert downloads.fetch(FILE, folder).read_bytes() == BODY
    assert starts(site) == [0, 9000]


def test_dead_process_is_gone_on_with_by_the_next(site, folder):
    site.put(URL, Answer(BODY, cut=12_345), *[Answer(status=500)] * 6)
    refused(FILE, folder)
    assert tree(folder) == {"set.bin.part": BODY[:12_345]}  # under another name than the whole
    site.put(URL, BODY)
    assert downloads.fetch(FILE, folder).read_bytes() == BODY
    assert site.log[-1].start == 12_345 and tree(folder).keys() == {"set.bin"}


@pytest.mark.parametrize("file", [FILE, UNKNOWN], ids=["known", "unknown"])
def test_server_that_cannot_begin_in_the_middle_sends_all_again(file, site, folder):
    site.put(URL, *[Answer(BODY, cut=cut, ranges=False) for cut in (9000, 5000, 20_000)], Answer(BODY, ranges=False))
    assert downloads.fetch(file, folder).read_bytes() == BODY
    assert starts(site) == [0, 9000, 5000, 20_000]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_server_in_trouble_is_asked_again(status, site, folder):
    site.put(URL, Answer(status=status), Answer(status=status), BODY)
    assert downloads.fetch(FILE, folder).read_bytes() == BODY
    assert len(site.log) == 3


def test_redirect_to_another_host_is_followed_and_gone_on_with(site, folder):
    site.put(URL, Answer(status=302, headers={"Location": MIRROR}))
    site.put(MIRROR, Answer(BODY, cut=10_000), BODY)
    assert downloads.fetch(FILE, folder).read_bytes() == BODY
    assert [request.start for request in site.log if "mirror" in request.url] == [0, 10_000]


FAULTS = {  # what the server answers for ever, what is said about it, and how often it may be asked
    "not there": (Answer(status=404), "answers 404 (Not Found)", 1),
    "forbidden": (Answer(status=403), "answers 403 (Forbidden)", 1),
    "in trouble": (Answer(status=500), "answers 500 (Internal Server Error)", 6),
    "nothing after the end": (Answer(status=416), "answers 416", 6),
    "hangs up": (Answer(b"", length=False), "fails (breaks off after 0 of 40,000 bytes)", 6),
    "bad length": (Answer(BODY, headers={"Content-Length": "many"}), "fails (", 6),
    "log-in page": (Answer(PAGE, kind="text/html; charset=utf-8"), "web page", 1),
    "page called a file": (Answer(PAGE), "web page", 6),
    "page without a length": (Answer(PAGE, length=False), "web page", 6),
    "too short": (Answer(BODY[:-1]), "offers 39,999 bytes instead of 40,000", 1),
    "too long": (Answer(BODY + b"!"), "offers 40,001 bytes instead of 40,000", 1),
    "other bytes": (Answer(OTHER), f"has the sha256 {hashlib.sha256(OTHER).hexdigest()} instead of ", 1),
    "loop": (Answer(status=302, headers={"Location": URL}), "answers 302", 12),
    "redirect into this machine": (Answer(status=302, headers={"Location": "file:///etc/passwd"}), "answers 302", 1),
}
each_fault = pytest.mark.parametrize("answer, phrase, asked", FAULTS.values(), ids=FAULTS)


@each_fault
def test_fault_is_named_and_leaves_nothing_that_harms_later(answer, phrase, asked, site, folder):
    site.put(URL, answer)
    message = refused(FILE, folder)
    assert message.startswith(URL) and phrase in message
    assert len(site.log) <= asked
    site.put(URL, BODY)
    assert downloads.fetch(FILE, folder).read_bytes() == BODY
    assert tree(folder).keys() == {"set.bin"}


@each_fault
def test_next_mirror_is_used_after_a_fault_and_both_are_named_if_it_fails_too(answer, phrase, asked, site, folder):
    file = described(BODY, URL, MIRROR)
    site.put(URL, answer)
    message = refused(file, folder)
    assert phrase in message and f"; {MIRROR} answers 404 (Not Found)" in message
    site.put(MIRROR, BODY)
    assert downloads.fetch(file, folder).read_bytes() == BODY


@pytest.mark.parametrize("headers", [{}, {"Content-Type": None}], ids=["some type", "no type"])
def test_page_instead_of_a_file_of_which_nothing_is_known_is_recognised(headers, site, folder):
    site.put(URL, Answer(PAGE, headers=headers))
    assert "a web page" in refused(UNKNOWN, folder)


def test_next_mirror_goes_on_where_the_first_stopped(site, folder):
    site.put(URL, Answer(BODY, cut=30_000), *[Answer(status=500)] * 6)
    site.put(MIRROR, BODY)
    assert downloads.fetch(described(BODY, URL, MIRROR), folder).read_bytes() == BODY
    assert site.log[-1] == (MIRROR.split("://")[1], 30_000, 10_000)


@pytest.mark.parametrize("size", [FILE.size, None], ids=["size known", "size unknown"])
@pytest.mark.parametrize("left", [1, 9000, 39_999, 40_000, 50_000])
def test_part_of_another_file_is_thrown_away(left, size, site, folder):
    folder.mkdir()
    (folder / "set.bin.part").write_bytes((OTHER + OTHER)[:left])
    assert downloads.fetch(described(size=size), folder).read_bytes() == BODY
    assert tree(folder).keys() == {"set.bin"}
    assert len(site.log) <= 3


def test_server_that_is_down_is_named(site, folder):
    site.address = ("127.0.0.1", 1)
    assert f"{URL} fails (" in refused(FILE, folder)


def test_without_an_address_it_says_so(folder):
    assert refused(downloads.File("set.bin"), folder) == "no address is known"


# ------------------------------------------------------------------------------------------- put there by hand


@pytest.mark.parametrize("place", ["data", "drive"])
def test_file_put_there_by_hand_is_used_without_network(place, site, folder, tmp_path):
    (tmp_path / place).mkdir()
    (tmp_path / place / "set.bin").write_bytes(BODY)
    assert downloads.fetch(FILE, folder, [tmp_path / "drive"]) == tmp_path / place / "set.bin"
    assert not site.log


def test_wrong_file_put_there_by_hand_is_named_or_replaced(site, folder, tmp_path):
    (tmp_path / "drive").mkdir()
    (tmp_path / "drive" / "set.bin").write_bytes(OTHER)
    site.put(URL, Answer(status=404))
    message = refused(FILE, folder, [tmp_path / "drive"])
    assert message.startswith(f"{tmp_path / 'drive' / 'set.bin'} has the sha256 ")
    site.put(URL, BODY)
    assert downloads.fetch(FILE, folder, [tmp_path / "drive"]) == folder / "set.bin"
    assert tree(tmp_path / "drive") == {"set.bin": OTHER}  # theirs is left alone
    (folder / "set.bin").write_bytes(BODY[:100])
    assert downloads.fetch(FILE, folder).read_bytes() == BODY


# ----------------------------------------------------------------------------------------------------- the disk


@pytest.mark.parametrize("piece", [3000, 10_000])  # smaller and larger than Python's buffer
@pytest.mark.parametrize("file", [FILE, UNKNOWN], ids=["known", "unknown"])
def test_disk_that_fills_up_stops_the_download_and_keeps_what_there_is(file, piece, site, folder):
    site.put(URL, *[Answer(BODY, cut=piece)] * 9, BODY)
    with largest_file(25_000), pytest.raises(downloads.DiskFull, match="make room and run this again") as caught:
        downloads.fetch(file, folder)
    assert "set.bin.part" in str(caught.value) and not isinstance(caught.value, ConnectionError)
    assert not (folder / "set.bin").exists()
    kept = (folder / "set.bin.part").read_bytes()
    assert len(kept) >= 20_000 and BODY.startswith(kept)
    site.put(URL, BODY)
    assert downloads.fetch(file, folder).read_bytes() == BODY
    assert site.log[-1].start == len(kept)


def test_too_little_room_is_said_in_gigabytes(folder, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=25 * 10**8))
    downloads.need_space(folder / "not yet" / "there", 25 * 10**8, "it")
    with pytest.raises(OSError, match=r"^it needs 2\.6 GB below .*, where 2\.5 GB are free: make room") as caught:
        downloads.need_space(folder, 26 * 10**8, "it")
    assert not isinstance(caught.value, ConnectionError)


# ---------------------------------------------------------------------------------------------------- unpacking

MEMBERS = {f"set/train/{i}.jpg": photo(i) for i in range(3)}
TARS = [kind for kind in downloads.ARCHIVES if kind != ".zip"]


def wrap(body, kind, tmp_path, name="set"):
    path = tmp_path / f"{name}{kind}"
    path.write_bytes(body)
    return path


@pytest.mark.parametrize("kind", downloads.ARCHIVES)
def test_archive_is_unpacked(kind, tmp_path, folder):
    downloads.unpack(wrap(pack(kind, MEMBERS), kind, tmp_path), folder)
    assert tree(folder) == MEMBERS


def test_tar_that_ends_with_a_zip_is_still_a_tar(tmp_path, folder):
    members = MEMBERS | {"more.zip": pack(".zip", {"other.jpg": b"x"})}
    downloads.unpack(wrap(pack(".tar", members), ".tar", tmp_path), folder)
    assert tree(folder) == members


LINKS = {
    "symlink up": (tarfile.SYMTYPE, "../../secret"),
    "symlink to the root": (tarfile.SYMTYPE, "/etc"),
    "hard link up": (tarfile.LNKTYPE, "../../secret"),
    "hard link to the root": (tarfile.LNKTYPE, "/etc/passwd"),
    "device": (tarfile.CHRTYPE, ""),
    "pipe": (tarfile.FIFOTYPE, ""),
}
OUTSIDE = [(kind, {name: b"evil"}) for kind in (".tar", ".tgz", ".zip") for name in ("../evil", "set/../../evil")]
OUTSIDE += [(".tar", {"set/link": link}) for link in LINKS.values()]
OUTSIDE += [(".tar", {"up": (tarfile.SYMTYPE, ".."), "up/evil": b"evil"}), (".zip", {"/evil-colorlib": b"evil"})]


@pytest.mark.parametrize("kind, members", OUTSIDE)
def test_archive_that_points_outside_is_refused(kind, members, tmp_path, folder):
    (tmp_path / "secret").write_bytes(b"secret")
    path = wrap(pack(kind, MEMBERS | members), kind, tmp_path)
    before = tree(tmp_path).keys()
    with pytest.raises(ValueError, match="cannot be unpacked"):
        downloads.unpack(path, folder)
    written = {tmp_path / name for name in tree(tmp_path).keys() - before}
    assert all(file.is_relative_to(folder) for file in written)
    assert not any(file.is_symlink() for file in folder.rglob("*"))


def test_absolute_path_in_a_tar_lands_inside(tmp_path, folder):
    downloads.unpack(wrap(pack(".tar", {"/evil-colorlib/a.jpg": b"x"}), ".tar", tmp_path), folder)
    assert tree(folder) == {"evil-colorlib/a.jpg": b"x"}


def flipped(body, place):
    return body[:place] + bytes([body[place] ^ 0xFF]) + body[place + 1 :]


def _header(n, body=pack(".tar", MEMBERS)):  # noqa: B008  where the n-th member of the tar begins
    return [i for i in range(0, len(body), 512) if body[i : i + 10] == b"set/train/"][n]


def damaged():
    for kind in downloads.ARCHIVES:
        body = pack(kind, MEMBERS)
        yield pytest.param(kind, body[: len(body) // 2], id=f"half a {kind}")
        yield pytest.param(kind, b"", id=f"empty {kind}")
        yield pytest.param(kind, BODY, id=f"rubbish called {kind}")
    for kind in (".zip", ".tgz", ".tar.bz2", ".tar.xz"):
        body = pack(kind, MEMBERS)
        yield pytest.param(kind, flipped(body, len(body) // 2), id=f"a wrong bit in a {kind}")
    yield pytest.param(".tgz", flipped(pack(".tgz", MEMBERS), -8), id="a .tgz whose checksum is wrong")
    tar = pack(".tar", MEMBERS)
    yield pytest.param(".tar", flipped(tar, _header(1) + 3), id="a wrong header in a .tar")
    yield pytest.param(".tar", tar[: _header(2) + 100], id="a .tar cut in a header")
    yield pytest.param(".tar", tar[: _header(2)], id="a .tar cut before a header")
    locked = bytearray(pack(".zip", MEMBERS))  # with the flag that says "encrypted", in both places
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = locked.find(mark)
        while place >= 0:
            locked[place + offset] |= 1
            place = locked.find(mark, place + 1)
    yield pytest.param(".zip", bytes(locked), id="a .zip with a password")


@pytest.mark.parametrize("kind, body", list(damaged()))
def test_damaged_archive_is_named_in_a_sentence(kind, body, tmp_path, folder):
    path = wrap(body, kind, tmp_path)
    with pytest.raises(
        ValueError, match=r"cannot be unpacked \(.+\): get it again, or pack it anew if it is yours\.$"
    ) as caught:
        downloads.unpack(path, folder)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [".tar", ".tgz", ".zip"])
def test_disk_that_fills_up_stops_the_unpacking(kind, tmp_path, folder):
    path = wrap(pack(kind, MEMBERS), kind, tmp_path)
    with largest_file(1000), pytest.raises(downloads.DiskFull, match="make room") as caught:
        downloads.unpack(path, folder)
    assert str(path) in str(caught.value)
    downloads.unpack(path, folder)
    assert tree(folder) == MEMBERS


# ------------------------------------------------------------------------------------------------- Google Drive

ON_DRIVE = described(BODY, "gdrive:0B7EVK8r0v71p")
SENT = {"Content-Disposition": 'attachment; filename="set.bin"'}
PARAMETERS = {  # of gdown.download
    "5.2.2": "url output quiet proxy speed use_cookies verify id fuzzy resume format user_agent log_messages",
    "6.5.1": "url output quiet proxy speed use_cookies verify id resume format user_agent log_messages progress "
    "skip_download cookies_file hasher timeout retries cancel",
}


@pytest.fixture
def calls(monkeypatch, site):
    """The keywords of every call of gdown."""
    seen, real = [], gdown.download

    def download(*args, **kwargs):
        assert not args
        seen.append(kwargs)
        return real(**kwargs)

    monkeypatch.setattr(gdown, "download", download)
    site.put(DRIVE, Answer(BODY, headers=SENT))
    return seen


def test_gdowns_two_major_versions_know_every_keyword_of_the_call(calls, folder):
    real = inspect.signature(inspect.getclosurevars(gdown.download).nonlocals["real"])
    downloads.fetch(ON_DRIVE, folder)
    (call,) = calls
    real.bind(**call)
    for known in PARAMETERS.values():
        assert call.keys() <= set(known.split())
    assert call["id"] == "0B7EVK8r0v71p" and call["resume"] is True


def test_file_comes_from_google_drive_by_way_of_its_warning(site, folder):
    ask = (
        '<html><form id="download-form" action="https://drive.usercontent.google.com/download" method="get">'
        '<input type="hidden" name="id" value="0B7EVK8r0v71p"><input type="hidden" name="confirm" value="t"></form>'
    )
    site.put(DRIVE, Answer(ask.encode(), kind="text/html"))
    confirmed = "https://drive.usercontent.google.com/download?id=0B7EVK8r0v71p&confirm=t"
    site.put(confirmed, Answer(BODY, headers=SENT))
    assert downloads.fetch(ON_DRIVE, folder).read_bytes() == BODY
    assert tree(folder).keys() == {"set.bin"}


QUOTA = (
    '<html><p class="uc-error-caption">Sorry, you can\'t view or download this file at this time.</p>'
    '<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p></html>'
)
ON_DRIVE_FAULTS = {
    "quota": (Answer(QUOTA.encode(), kind="text/html; charset=utf-8"), "is over Google Drive's quota for today"),
    "many accesses": (Answer(b"<html>no form</html>", kind="text/html"), "is over Google Drive's quota for today"),
    "gone": (Answer(b"", 404, headers=SENT), "fails (404" if gdown.__version__ >= "6" else "has 0 bytes"),
    "other bytes": (Answer(OTHER, headers=SENT), "has the sha256 "),
    "fewer bytes": (Answer(BODY[:100], headers=SENT), "has 100 bytes instead of 40,000"),
    "broken off": (Answer(BODY, cut=100, headers=SENT), "fails ("),
}


@pytest.mark.parametrize("answer, phrase", ON_DRIVE_FAULTS.values(), ids=ON_DRIVE_FAULTS)
def test_google_drives_faults_are_named_and_the_next_address_is_tried(answer, phrase, site, folder):
    site.put(DRIVE, answer)
    assert f"gdrive:0B7EVK8r0v71p {phrase}" in refused(ON_DRIVE, folder)
    assert downloads.fetch(described(BODY, *ON_DRIVE.urls, URL), folder).read_bytes() == BODY


@pytest.mark.parametrize("answer, phrase", ON_DRIVE_FAULTS.values(), ids=ON_DRIVE_FAULTS)
def test_google_drives_faults_leave_nothing_that_harms_later(answer, phrase, site, folder):
    site.put(DRIVE, answer)
    refused(ON_DRIVE, folder)
    site.put(DRIVE, Answer(BODY, headers=SENT))
    assert downloads.fetch(ON_DRIVE, folder).read_bytes() == BODY


def test_google_drives_broken_download_is_gone_on_with(site, folder):
    large = random.Random(2).randbytes(1_500_000)  # gdown keeps whole pieces of half a mebibyte
    site.put(DRIVE, Answer(large, cut=1_200_000, headers=SENT), Answer(large, headers=SENT))
    file = described(large, *ON_DRIVE.urls)
    refused(file, folder)
    assert downloads.fetch(file, folder).read_bytes() == large
    assert starts(site)[-1] > 0 and tree(folder).keys() == {"set.bin"}


@pytest.mark.parametrize("found", [None, "said to be there"])
def test_gdown_that_gives_nothing_is_named(found, folder, monkeypatch):
    monkeypatch.setattr(gdown, "download", lambda **call: found)  # None: gdown 5 with several .part files
    assert refused(ON_DRIVE, folder) == "gdrive:0B7EVK8r0v71p gave no file; delete the .part files beside it"


def test_full_disk_is_not_taken_for_google_drives_fault(site, folder):
    site.put(DRIVE, Answer(BODY, headers=SENT))
    with largest_file(25_000), pytest.raises(OSError) as caught:
        downloads.fetch(ON_DRIVE, folder)
    assert not isinstance(caught.value, ConnectionError)
    assert isinstance(caught.value, downloads.DiskFull) or caught.value.errno in (errno.ENOSPC, errno.EFBIG)
    assert not (folder / "set.bin").exists()
    assert downloads.fetch(ON_DRIVE, folder).read_bytes() == BODY
