"""colorlib.datasets: from the form field's name to batches for every set, and what is said when that fails."""

import dataclasses
import errno
import hashlib
import io
import shutil
import sys
from types import ModuleType, SimpleNamespace

import gdown  # noqa: F401  so that its module is there to be patched
import numpy as np
import pytest
import scipy.io
import skimage.color
import torch
from PIL import Image
from torchvision.datasets import imagenet
from web import Answer, Site, largest_file, pack, photo, tree

from colorlib import data, datasets, downloads, loading, photos
from colorlib.datasets import DATASETS

N = 20  # photos in every tiny set
JPEGS = [photo(i) for i in range(N)]


@pytest.fixture(autouse=True)
def site(monkeypatch, tmp_path):
    monkeypatch.setattr(downloads, "_PAUSE", 0)
    monkeypatch.setenv("COLORLIB_DATA", str(tmp_path / "data"))
    cookies = str(tmp_path / "cookies.txt")
    monkeypatch.setattr(sys.modules["gdown.download"], "DEFAULT_COOKIES_FILE", cookies, raising=False)  # gdown 6
    monkeypatch.setattr(sys.modules["gdown.download"], "home", str(tmp_path / "home"))
    (tmp_path / "home/.cache/gdown").mkdir(parents=True)
    monkeypatch.setitem(sys.modules, "kagglehub", None)  # not installed
    with Site() as site, site.redirected(monkeypatch):
        yield site


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


# ------------------------------------------------------------------------------- the sets' true layouts, in small


def numbered(pattern):
    return {pattern.format(i + 1): JPEGS[i] for i in range(N)}


def imagenette(folder):
    """Classes below train and val, and the lists that the real archives hold: 15 photos to train, 5 to validate."""
    parts = {
        f"{folder}/{'val' if i % 4 == 0 else 'train'}/{'n01440764' if i % 2 else 'n03888257'}/ILSVRC_{i}.JPEG": JPEGS[i]
        for i in range(N)
    }
    return parts | {f"{folder}/noisy_{folder[:10]}.csv": b"path,noisy_labels_0\n"}


ROOMS = [f"{'airport_inside' if i % 2 else 'wine_cellar'}/room_{i:04d}.jpg" for i in range(N)]
LISTED = {"train": ROOMS[:10], "test": ROOMS[10:14]}  # the rest is in no list
LISTS = {f"{part.title()}Images.txt": "\n".join(rooms).encode() for part, rooms in LISTED.items()}
FACES = {f"{i + 1:06d}.jpg": (0 if i < 12 else 1 if i < 15 else 2) for i in range(N)}
PARTITION = "".join(f"{name} {part}\n" for name, part in FACES.items()).encode()
PARTITION_CSV = b"image_id,partition\n" + PARTITION.replace(b" ", b",")
GREY = {
    f"data/{part}_black/image{i}.jpg": JPEGS[i] for i in range(N) for part in ("test" if i >= 14 else "train",)
}  # as in the real set, under the names of those in colour; not looked at
LAYOUTS = {
    "places365": numbered("val_256/Places365_val_{:08d}.jpg"),
    "places365-large": numbered("val_large/Places365_val_{:08d}.jpg"),
    "places365-train": numbered("data_256/t/train_station/platform/{:08d}.jpg"),
    "places205": numbered("testSet_resize/{:032x}.jpg"),
    "imagenette": imagenette("imagenette2-160"),
    "imagenette-320": imagenette("imagenette2-320"),
    "imagenette-full": imagenette("imagenette2"),
    "imagewoof": imagenette("imagewoof2-160"),
    "imagewoof-320": imagenette("imagewoof2-320"),
    "imagewoof-full": imagenette("imagewoof2"),
    "cvpr09": {f"Images/{room}": JPEGS[i] for i, room in enumerate(ROOMS)},
    "celeba": numbered("img_align_celeba/{:06d}.jpg"),
}
ON_KAGGLE = {
    "cvpr09": {f"indoorCVPR_09/Images/{room}": JPEGS[i] for i, room in enumerate(ROOMS)} | LISTS,
    "celeba": numbered("img_align_celeba/img_align_celeba/{:06d}.jpg") | {"list_eval_partition.csv": PARTITION_CSV},
    "kaggle-5739": {name.replace("black", "color"): body for name, body in GREY.items()} | GREY,
}
OTHER_FILES = {"list_eval_partition.txt": PARTITION, **LISTS}
DRAWN = {"train": 16, "val": 2, "test": 2}
SPLITS = {
    "places365-train": {"train": 14, "val": 3, "test": 3},
    "places205": {"train": 17, "val": 3, "test": 0},
    "cvpr09": {"train": 9, "val": 1, "test": 4},
    "celeba": {"train": 12, "val": 3, "test": 5},
    "kaggle-5739": {"train": 13, "val": 1, "test": 6},
} | {name: {"train": 13, "val": 5, "test": 2} for name in DATASETS if "imagenette" in name or "imagewoof" in name}
COUNTED = {"places365-train": {"val": 3, "test": 3}, "places205": {"val": 3}, "imagenet": {"test": 3}}  # not shares


@pytest.fixture
def publish(site, monkeypatch):
    """Put a set on the server, under the registry's own URLs: its entry, with the tiny files' sizes and checksums."""

    def publish_(name, members=None, **changes):
        entry, files = DATASETS[name], []
        for n, file in enumerate(entry.files):
            body = OTHER_FILES[file.name] if n else pack(file.name, members or LAYOUTS[name])
            known = {"size": file.size and len(body)}
            if file.checksum:
                kind = file.checksum.split(":")[0]
                known["checksum"] = f"{kind}:{hashlib.new(kind, body).hexdigest()}"
            files.append(dataclasses.replace(file, **known))
            for url in file.urls:
                drive = url.replace("gdrive:", "https://drive.google.com/uc?id=")
                sent = {"Content-Disposition": f'attachment; filename="{file.name}"'} if drive != url else {}
                site.put(drive, Answer(body, headers=sent))
        entry = dataclasses.replace(entry, files=tuple(files), n_photos=N, **COUNTED.get(name, {}))
        monkeypatch.setitem(DATASETS, name, dataclasses.replace(entry, **changes))
        return DATASETS[name]

    return publish_


def quietly(site, name):
    """Take a set off the server."""
    for file in DATASETS[name].files:
        for url in file.urls:
            site.put(url.replace("gdrive:", "https://drive.google.com/uc?id="), Answer(status=404))


@pytest.fixture
def kaggle(monkeypatch, tmp_path):
    """Kagglehub as it is from outside: it gives a folder that must not be written to."""
    calls, sets = [], {}

    def dataset_download(handle, path=None, *, force_download=False, output_dir=None):
        calls.append((handle, path, force_download, output_dir))
        if handle not in sets:
            raise RuntimeError(f"403 Client Error.\nYou don't have permission to access {handle}.")
        return str(sets[handle])

    def publish_(name, members):
        folder = tmp_path / "kagglehub" / DATASETS[name].kaggle[0] / "versions" / "1"
        for member, body in members.items():
            (folder / member).parent.mkdir(parents=True, exist_ok=True)
            (folder / member).write_bytes(body)
        for path in (*folder.rglob("*"), folder):
            path.chmod(0o555 if path.is_dir() else 0o444)
        sets[DATASETS[name].kaggle[0]] = folder
        return folder

    module = ModuleType("kagglehub")
    module.dataset_download = dataset_download
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    yield SimpleNamespace(publish=publish_, calls=calls, sets=sets)
    for path in (tmp_path / "kagglehub").rglob("*"):
        path.chmod(0o755)


def lab_arrays(n=N, side=64):
    """The arrays of mirflickr-lab, in OpenCV's 8-bit Lab, and the photos they were made from."""
    rgb = np.stack([np.asarray(Image.open(io.BytesIO(JPEGS[i])))[:side, :side] for i in range(n)])
    lab = skimage.color.rgb2lab(rgb) * [2.55, 1, 1] + [0, 128, 128]
    lab = lab.round().astype(np.uint8)
    thirds = np.split(lab[..., 1:], [n // 2, n - 3])
    arrays = {"l/gray_scale.npy": lab[..., 0]} | {f"ab/ab/ab{i + 1}.npy": ab for i, ab in enumerate(thirds)}
    return {name: npy(array) for name, array in arrays.items()}, rgb


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def to_batches(name, mirror=None):
    """The whole way, as the notebooks take it: the prepared set, after a look at its batches."""
    prepared = data.ready(name, mirror)
    files = prepared.files("train")
    batches = list(loading.loader(loading.Photos(files, 64), loading.Batches(range(len(files)), 8, seed=0)))
    assert [len(batch) for batch in batches] == [min(8, len(files) - k) for k in range(0, len(files), 8)]
    assert all(batch.dtype == torch.uint8 and batch.shape[1:] == (3, 64, 64) for batch in batches)
    assert len({batch.numpy().tobytes() for batch in batches}) == len(batches)
    assert prepared.name == name
    return prepared


def counts(prepared):
    return prepared.kept.split.value_counts().reindex(["train", "val", "test"], fill_value=0).to_dict()


def split_of(prepared):
    return dict(zip(prepared.manifest.source, prepared.manifest.split))


# --------------------------------------------------------------------------------------------------- the whole way


@pytest.mark.parametrize("name", LAYOUTS)
def test_set_from_its_name_to_batches(name, publish, site, root, capsys):
    entry = publish(name)
    prepared = to_batches(name)
    assert counts(prepared) == SPLITS.get(name, DRAWN)
    assert entry.terms in capsys.readouterr().out
    assert len(site.log) == len(entry.files) and not list(root.rglob("*.part*"))
    assert not list(root.rglob(entry.files[0].name))  # one archive's room is given back
    assert data.ready(name).folder == prepared.folder and datasets.fetch(name, root) == root / name
    assert len(site.log) == len(entry.files)  # nothing is asked for again
    members = LAYOUTS[name]
    assert {p: b for p, b in tree(root / name).items() if p in members} == members


@pytest.mark.parametrize("name", ON_KAGGLE)
@pytest.mark.parametrize("way", ["kagglehub", "zip in the folder", "zip on Drive"])
def test_set_of_kaggles_from_its_name_to_batches(name, way, publish, site, kaggle, root, tmp_path):
    publish(name)
    quietly(site, name)
    if way == "kagglehub":
        source = kaggle.publish(name, ON_KAGGLE[name])
        before = tree(source)
    else:
        (tmp_path / "drive").mkdir()
        source = (root if "folder" in way else tmp_path / "drive") / f"{name}.zip"
        source.write_bytes(pack(".zip", ON_KAGGLE[name]))
    prepared = to_batches(name, tmp_path / "drive")
    assert counts(prepared) == SPLITS[name]
    if way == "kagglehub":
        assert tree(source) == before and kaggle.calls == [(DATASETS[name].kaggle[0], None, False, None)]
    else:
        assert source.is_file() and not kaggle.calls  # what somebody put there is not ours to delete
    assert data.ready(name).folder == prepared.folder


def test_every_set_is_tried():
    assert {*LAYOUTS, *ON_KAGGLE, "mirflickr-lab", "imagenet", "imagenet-val"} == {*DATASETS}


@pytest.mark.parametrize("way", ["kagglehub", "zip"])
def test_arrays_of_lab_become_photos_of_the_same_colours(way, publish, kaggle, root):
    publish("mirflickr-lab")
    arrays, originals = lab_arrays()
    if way == "zip":
        (root / "mirflickr-lab.zip").write_bytes(pack(".zip", arrays))
    else:
        source = kaggle.publish("mirflickr-lab", arrays)
    assert counts(to_batches("mirflickr-lab")) == DRAWN
    found = np.stack([photos.open_photo(file) for file in sorted((root / "mirflickr-lab").glob("*.png"))])
    assert found.shape == originals.shape
    # Lab was rounded to whole numbers: colours come back to within a few of 255 levels, most of them to one or two.
    error = np.abs(found.astype(int) - originals)
    assert error.mean() < 1.5 and np.quantile(error, 0.99) <= 6
    if way == "kagglehub":
        assert tree(source) == arrays


@pytest.mark.parametrize("fault", ["lacks ab3", "lacks L", "other length", "no array"])
def test_arrays_that_do_not_belong_together_are_refused(fault, publish, kaggle, root):
    arrays, _ = lab_arrays()
    changed = {
        "lacks ab3": {"ab/ab/ab3.npy": None},
        "lacks L": {"l/gray_scale.npy": None},
        "other length": {"ab/ab/ab1.npy": npy(np.zeros((3, 64, 64, 2), np.uint8))},
        "no array": {"l/gray_scale.npy": b"rubbish"},
    }[fault]
    kaggle.publish("mirflickr-lab", {name: body for name, body in (arrays | changed).items() if body is not None})
    assert "Kaggle's shravankumar9892/image-colorization: " in refused("mirflickr-lab", root)


# -------------------------------------------------------------------------------------------- the published splits


@pytest.fixture
def publish_at(publish, site, kaggle):
    """Publish a set at its own addresses, or at Kaggle alone."""

    def publish_at_(name, way):
        publish(name)
        if way == "kaggle":
            quietly(site, name)
            kaggle.publish(name, ON_KAGGLE[name])

    return publish_at_


@pytest.mark.parametrize("way", ["own", "kaggle"])
def test_official_lists_of_cvpr09_are_honoured(way, publish_at):
    publish_at("cvpr09", way)
    prepared = data.ready("cvpr09")
    split = {"/".join(source.split("/")[-2:]): part for source, part in split_of(prepared).items()}
    assert {room for room, part in split.items() if part == "test"} == {*LISTED["test"]}
    assert {room for room, part in split.items() if part in ("train", "val")} == {*LISTED["train"]}
    left_out = prepared.manifest[prepared.manifest.split == ""]
    assert len(left_out) == 6 and {*left_out.reason} == {"not in the published split"}


@pytest.mark.parametrize("way", ["own", "kaggle"])
def test_official_partition_of_celeba_is_honoured(way, publish_at):
    publish_at("celeba", way)
    split = {source.split("/")[-1]: part for source, part in split_of(data.ready("celeba")).items()}
    assert split == {name: ("train", "val", "test")[part] for name, part in FACES.items()}


def test_folders_of_kaggle_5739_are_honoured_and_its_grey_copies_left_out(kaggle):
    kaggle.publish("kaggle-5739", ON_KAGGLE["kaggle-5739"])
    for source, part in split_of(data.ready("kaggle-5739")).items():
        folder = source.split("/")[-2]
        assert part in {"train_color": ("train", "val"), "test_color": ("test",)}.get(folder, ("",))


def test_own_train_and_val_of_imagenette_are_honoured(publish):
    publish("imagenette")
    for source, part in split_of(data.ready("imagenette")).items():
        assert part in {"val": ("val",), "train": ("train", "test")}[source.split("/")[1]]


@pytest.mark.parametrize("name", ["celeba", "kaggle-5739", "places365"])
def test_set_found_again_by_its_settings_is_the_same(name, publish_at):
    publish_at(name, "own" if name == "places365" else "kaggle")
    prepared = data.ready(name)
    again = data.ready_again(prepared.settings)
    assert again.fingerprint == prepared.fingerprint and again.folder == prepared.folder


# ------------------------------------------------------------------------------------------------------- ImageNet

WNIDS = ("n01440764", "n01443537")


@pytest.fixture
def archives(monkeypatch):
    """ImageNet's three archives as torchvision expects them: name -> bytes."""
    synsets = [(1, WNIDS[0], "tench, Tinca tinca", "", 0), (2, WNIDS[1], "goldfish", "", 0), (3, "n0", "all", "", 2)]
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": np.array(synsets, dtype=fields)})
    devkit = {
        "ILSVRC2012_devkit_t12/data/meta.mat": meta.getvalue(),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": b"1\n2\n" * (N // 4),
    }
    val = {f"ILSVRC2012_val_{i + 1:08d}.JPEG": JPEGS[i] for i in range(N // 2)}
    train = {
        f"{wnid}.tar": pack(".tar", {f"{wnid}_{i}.JPEG": JPEGS[i] for i in range(N // 2 + k, N, 2)})
        for k, wnid in enumerate(WNIDS)
    }
    files = {
        "ILSVRC2012_devkit_t12.tar.gz": pack(".tgz", devkit),
        "ILSVRC2012_img_val.tar": pack(".tar", val),
        "ILSVRC2012_img_train.tar": pack(".tar", train),
    }
    for kind, name in (("devkit", "devkit_t12.tar.gz"), ("val", "img_val.tar"), ("train", "img_train.tar")):
        md5 = hashlib.md5(files[f"ILSVRC2012_{name}"]).hexdigest()
        monkeypatch.setitem(imagenet.ARCHIVE_META, kind, (f"ILSVRC2012_{name}", md5))
    for name in ("imagenet", "imagenet-val"):
        monkeypatch.setitem(DATASETS, name, dataclasses.replace(DATASETS[name], test=3))
    return files


@pytest.mark.parametrize(
    "name, parts",
    [("imagenet-val", {"train": 6, "val": 1, "test": 3}), ("imagenet", {"train": 7, "val": 10, "test": 3})],
)
@pytest.mark.parametrize("place", ["data", "drive"])
def test_imagenet_from_the_archives_given_to_batches(place, name, parts, archives, root, tmp_path, monkeypatch):
    (tmp_path / "drive").mkdir()
    for file in DATASETS[name].files:
        (tmp_path / place / file.name).write_bytes(archives[file.name])
    monkeypatch.chdir(tmp_path)  # where "drive" is enough to say
    before = tree(tmp_path / place).keys()
    prepared = to_batches(name, "drive")
    assert counts(prepared) == parts
    assert before <= tree(tmp_path / place).keys()
    if name == "imagenet":
        own = {source: part for source, part in split_of(prepared).items() if source.startswith("val/")}
        assert len(own) == 10 and {*own.values()} == {"val"}
        assert "val/n01443537/ILSVRC2012_val_00000002.JPEG" in own  # sorted by class, as torchvision does it


@pytest.mark.parametrize(
    "given, missing", [("", "img_train"), ("img_val.tar", "devkit"), ("devkit_t12.tar.gz", "img_val")]
)
def test_imagenet_without_an_archive_says_which_is_needed(given, missing, archives, root):
    if given:
        (root / f"ILSVRC2012_{given}").write_bytes(archives[f"ILSVRC2012_{given}"])
    assert f"ILSVRC2012_{missing}" in refused("imagenet", root)


def test_imagenets_damaged_archive_is_named(archives, root):
    for name in ("ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_img_val.tar"):
        (root / name).write_bytes(archives[name])
    (root / "ILSVRC2012_img_val.tar").write_bytes(archives["ILSVRC2012_img_val.tar"][:-1])
    message = refused("imagenet-val", root)
    assert "ILSVRC2012_img_val.tar is not present in the root directory or is corrupted" in message
    (root / "ILSVRC2012_img_val.tar").write_bytes(archives["ILSVRC2012_img_val.tar"])
    assert len(photos.find_photos(datasets.fetch("imagenet-val", root))) == 10


# --------------------------------------------------------------------------------------------------------- faults


def refused(name, root, places=()):
    """Fetch what cannot be fetched: what is said before the two lines on how to do it by hand."""
    with pytest.raises(ConnectionError) as caught:
        datasets.fetch(name, root, places)
    assert not (root / name).exists()  # nothing is left that would be taken for whole
    what, *two_lines = str(caught.value).split("\n")
    assert two_lines == datasets.by_hand(name, root, places).split("\n") and len(two_lines) == 2
    assert what.startswith(f"{name} could not be fetched: ") and what[-2] != "." == what[-1]
    return what


ARCHIVE = pack("val_256.tar", LAYOUTS["places365"])
URL = DATASETS["places365"].files[0].urls[0]
FAULTS = {
    "not there": (Answer(status=404), "answers 404 (Not Found)"),
    "in trouble": (Answer(status=500), "answers 500 (Internal Server Error)"),
    "hangs up": (Answer(ARCHIVE, cut=0), "breaks off after 0 of"),
    "log-in page": (Answer(b"<html>quota</html>", kind="text/html"), "sends a web page instead of the file"),
    "wrong size": (Answer(ARCHIVE[:-512]), f"offers {len(ARCHIVE) - 512:,} bytes instead of {len(ARCHIVE):,}"),
    "wrong bytes": (Answer(bytes(len(ARCHIVE))), "has the sha256 "),
    "loop": (Answer(status=301, headers={"Location": URL}), "answers 301"),
}


@pytest.mark.parametrize("answer, phrase", FAULTS.values(), ids=FAULTS)
def test_failed_download_is_named_and_harms_no_later_one(answer, phrase, publish, site, root):
    publish("places365")
    site.put(URL, answer)
    assert f"{URL} {phrase}" in refused("places365", root) or f"{URL} fails ({phrase}" in refused("places365", root)
    site.put(URL, ARCHIVE)
    assert tree(datasets.fetch("places365", root)) == LAYOUTS["places365"]


def test_list_that_cannot_be_had_is_named_too(publish, site, root):
    publish("cvpr09", kaggle=())
    site.put(DATASETS["cvpr09"].files[2].urls[0], Answer(status=404))
    assert f"{DATASETS['cvpr09'].files[2].urls[0]} answers 404" in refused("cvpr09", root)


@pytest.mark.parametrize("installed", [True, False])
def test_google_drives_quota_and_kaggles_refusal_are_both_named(installed, publish, site, root, kaggle, monkeypatch):
    publish("celeba")
    page = Answer(b"<html>Too many users have viewed or downloaded this file recently.</html>", kind="text/html")
    site.put("https://drive.google.com/uc?id=0B7EVK8r0v71pZjFTYXZWM3FlRnM", page)
    if not installed:
        monkeypatch.setitem(sys.modules, "kagglehub", None)
    message = refused("celeba", root)
    assert "is over Google Drive's quota for today" in message
    assert f"Kaggle's {DATASETS['celeba'].kaggle[0]}: " in message
    assert ("You don't have permission" if installed else "pip install kagglehub") in message


def members_and(name, body):
    return LAYOUTS["places205"] | {name: body}


BAD_ARCHIVES = {  # of a set whose checksum nobody has published
    "points outside": (pack(".tgz", members_and("../evil.jpg", JPEGS[0])), "points outside|outside the destination"),
    "too few": (pack(".tgz", dict(list(LAYOUTS["places205"].items())[1:])), "holds 19 photos instead of 20"),
    "too many": (pack(".tgz", members_and("testSet_resize/more.jpg", JPEGS[0])), "holds 21 photos instead of 20"),
    "no photos": (pack(".tgz", {"readme.txt": b"moved"}), "holds no|holds 0 photos"),
    "half": (pack(".tgz", LAYOUTS["places205"])[:3000], "cannot be unpacked"),
    "no archive": (b"rubbish" * 1000, "cannot be unpacked"),
}


@pytest.mark.parametrize("body, phrase", BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_bad_archive_is_named_and_harms_no_later_one(body, phrase, publish, site, root, tmp_path):
    entry = publish("places205")
    file = entry.files[0]
    site.put(file.urls[0], body)
    DATASETS["places205"] = dataclasses.replace(entry, files=(dataclasses.replace(file, size=len(body)),))
    message = refused("places205", root)
    assert any(part in message for part in phrase.split("|"))
    assert not list(tmp_path.rglob("evil.jpg"))
    publish("places205")
    assert tree(datasets.fetch("places205", root)) == LAYOUTS["places205"]


def test_downloaded_archive_that_turns_out_bad_is_not_used_again(publish, site, root):
    # Right in size, and nobody has published a checksum: what has once been found bad must not stay for ever.
    entry = publish("places205")
    good = pack(".tgz", LAYOUTS["places205"])
    site.put(entry.files[0].urls[0], good[:-100] + bytes(100))
    refused("places205", root)
    site.put(entry.files[0].urls[0], good)
    assert tree(datasets.fetch("places205", root)) == LAYOUTS["places205"]


@pytest.mark.parametrize("name", [name for name in DATASETS if DATASETS[name].files])
def test_how_to_do_it_by_hand_names_every_file_and_its_place(name, tmp_path):
    what, where = datasets.by_hand(name, tmp_path / "data", [tmp_path / "drive"]).split("\n")
    for file in DATASETS[name].files:
        assert file.name in what + where
        for url in file.urls:
            assert url.removeprefix("gdrive:") in what
    if DATASETS[name].kaggle:  # all the files, or what Kaggle has
        assert what.count(" or ") == 1 and f" or https://www.kaggle.com/datasets/{DATASETS[name].kaggle[0]} " in what
    assert str(tmp_path / "data") in where and str(tmp_path / "drive") in where


@pytest.mark.parametrize("name", ["places365", "celeba", "cvpr09"])
@pytest.mark.parametrize("place", ["data", "drive"])
def test_archive_put_there_by_hand_is_used_and_kept(place, name, publish, site, root, tmp_path):
    entry = publish(name)
    (tmp_path / "drive").mkdir()
    for file in entry.files:
        body = OTHER_FILES.get(file.name) or pack(file.name, LAYOUTS[name])
        (tmp_path / place / file.name).write_bytes(body)
    quietly(site, name)
    folder = datasets.fetch(name, root, [tmp_path / "drive"])
    assert len(photos.find_photos(folder)) == N and not site.log
    assert all((tmp_path / place / file.name).is_file() for file in entry.files)


# ------------------------------------------------------------------------------------------------------- the disk


def free(monkeypatch, n_bytes):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=n_bytes))


@pytest.mark.parametrize("name", ["places365", "places205", "celeba", "cvpr09"])
def test_too_little_room_is_said_before_anything_is_downloaded(name, publish, site, root, monkeypatch):
    size = publish(name).files[0].size
    free(monkeypatch, 2 * size - 1)  # an archive plus its contents
    with pytest.raises(OSError, match="are free: make room, or set COLORLIB_DATA") as caught:
        datasets.fetch(name, root)
    assert not isinstance(caught.value, ConnectionError) and not site.log and not (root / name).exists()
    free(monkeypatch, 2 * size)
    assert len(photos.find_photos(datasets.fetch(name, root))) == N


def test_what_is_here_already_needs_no_more_room(publish, site, root, monkeypatch):
    size = publish("places365").files[0].size
    site.put(URL, Answer(ARCHIVE, cut=len(ARCHIVE) - 1000), *[Answer(status=500)] * 6)
    refused("places365", root)
    site.put(URL, ARCHIVE)
    free(monkeypatch, size + 1000)  # the rest of the archive, and its contents
    assert len(photos.find_photos(datasets.fetch("places365", root))) == N
    assert site.log[-1].sent == 1000


@pytest.mark.parametrize("name, limit", [("places365", 30_000), ("places365", 1000), ("celeba", 30_000)])
def test_disk_that_fills_up_is_named_and_harms_no_later_attempt(name, limit, publish, site, root):
    entry = publish(name)
    if limit == 1000:  # the archive is here: it fills up in the unpacking
        (root / entry.files[0].name).write_bytes(ARCHIVE)
    with largest_file(limit), pytest.raises(OSError) as caught:
        datasets.fetch(name, root)
    assert not isinstance(caught.value, ConnectionError) and "make room" in str(caught.value)
    assert not (root / name).exists()
    assert len(photos.find_photos(datasets.fetch(name, root))) == N


# -------------------------------------------------------------------------------------------------- interruptions


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_unpacking_that_is_broken_off_is_done_again_with_the_same_archive(error, publish, site, root, monkeypatch):
    publish("places365")
    with monkeypatch.context() as patch:
        real, seen = downloads.tarfile.TarFile.extract, []

        def extract(*args, **kwargs):
            seen.append(args)
            if len(seen) > 5:
                raise error
            return real(*args, **kwargs)

        patch.setattr(downloads.tarfile.TarFile, "extract", extract)
        with pytest.raises((KeyboardInterrupt, downloads.DiskFull)):
            datasets.fetch("places365", root)
    assert not (root / "places365").exists()
    assert tree(datasets.fetch("places365", root)) == LAYOUTS["places365"]
    assert len(site.log) == 1
    assert not list(root.rglob("val_256.tar"))  # it was downloaded, if by an earlier attempt


def test_interrupted_download_is_gone_on_with(publish, site, root, monkeypatch):
    publish("places365")
    site.put(URL, Answer(ARCHIVE, cut=10_000), ARCHIVE)
    with monkeypatch.context() as patch:
        patch.setattr(downloads.time, "sleep", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            datasets.fetch("places365", root)
    assert not (root / "places365").exists()
    assert tree(datasets.fetch("places365", root)) == LAYOUTS["places365"]
    assert site.log[-1].start == 10_000


def test_kagglehubs_folder_that_is_gone_is_fetched_anew(kaggle, root):
    source = kaggle.publish("kaggle-5739", ON_KAGGLE["kaggle-5739"])
    assert datasets.fetch("kaggle-5739", root).resolve() == source
    kaggle.sets[DATASETS["kaggle-5739"].kaggle[0]] = source.rename(source.with_name("2"))
    assert datasets.fetch("kaggle-5739", root).resolve() == source.with_name("2")


# ---------------------------------------------------------------------------------- the user's own, and the names


@pytest.mark.parametrize("kind", downloads.ARCHIVES)
@pytest.mark.parametrize("upper", [False, True])
def test_own_archive_is_unpacked_once_and_kept(kind, upper, root, tmp_path):
    mine = tmp_path / f"my photos{kind.upper() if upper else kind}"
    mine.write_bytes(pack(kind, numbered("a/{}.jpg")))
    folder = datasets.fetch(mine, root)
    assert folder.parent == root and tree(folder) == numbered("a/{}.jpg") and mine.is_file()
    assert datasets.fetch(str(mine), root) == folder
    mine.write_bytes(pack(kind, {"b.jpg": JPEGS[0]}))  # another one under the same name
    assert tree(datasets.fetch(mine, root)) == {"b.jpg": JPEGS[0]}


def test_own_archive_from_its_path_to_batches(tmp_path):
    mine = tmp_path / "holiday.zip"
    mine.write_bytes(pack(".zip", numbered("{}.jpg")))
    prepared = data.ready(mine)
    assert counts(prepared) == DRAWN and counts(data.ready(f" {mine} ")) == DRAWN


@pytest.mark.parametrize("kind", [".zip", ".tar", ".tgz"])
@pytest.mark.parametrize("fault", ["rubbish", "half", "points outside"])
def test_own_bad_archive_is_named(fault, kind, root, tmp_path):
    mine = tmp_path / f"mine{kind}"
    whole = pack(kind, numbered("{}.jpg"))
    bad = {"rubbish": b"x" * 999, "half": whole[: len(whole) // 2], "points outside": pack(kind, {"../a.jpg": b"x"})}
    mine.write_bytes(bad[fault])
    with pytest.raises(ValueError, match="cannot be unpacked") as caught:
        datasets.fetch(mine, root)
    assert str(mine) in str(caught.value)
    assert all(path.name.endswith(".partial") for path in root.iterdir()) and not (tmp_path / "a.jpg").exists()


def test_own_archive_without_room_is_refused(root, tmp_path, monkeypatch):
    mine = tmp_path / "mine.zip"
    mine.write_bytes(pack(".zip", numbered("{}.jpg")))
    free(monkeypatch, mine.stat().st_size - 1)
    with pytest.raises(OSError, match=r"unpacking mine\.zip needs .* make room"):
        datasets.fetch(mine, root)


@pytest.mark.parametrize("as_type", [str, lambda path: path, "{} ".format], ids=["str", "Path", "blank"])
def test_folder_is_used_where_it_is(as_type, tmp_path, monkeypatch):
    mine = tmp_path / "my photos"
    mine.mkdir()
    assert datasets.fetch(as_type(mine), tmp_path / "data") == mine
    monkeypatch.setenv("HOME", str(tmp_path))
    assert datasets.fetch("~/my photos", tmp_path / "data") == mine
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "name", ["places", "SAMPLE", "", "  ", "/no/such/folder", "/no/such.zip", "imagenette2-160.tgz", "a.jpg", "a.txt"]
)
def test_unknown_name_is_answered_with_the_choices(name, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in ("a.jpg", "a.txt"):  # files that are no archive
        (tmp_path / file).touch()
    with pytest.raises(ValueError) as caught:
        datasets.fetch(name, root)
    assert str(caught.value) == (
        f"{name.strip()!r} is no data set ({', '.join(datasets.NAMES)}), no folder and no zip or tar archive: "
        "correct it."
    )
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("name", DATASETS)
def test_entries_are_complete(name):
    entry = DATASETS[name]
    assert entry.n_photos > 1000 and entry.title and entry.terms and entry.layout and entry.split
    assert entry.files or entry.kaggle
    assert all(handle.count("/") == 1 for handle in entry.kaggle)
    digits = {"md5": 32, "sha1": 40, "sha256": 64}
    for file in entry.files:
        assert all(url.startswith(("http://", "https://", "gdrive:")) for url in file.urls)
        assert file.urls or entry.account != "none"
        kind, _, digest = (file.checksum or "md5:" + 32 * "0").partition(":")
        assert len(digest) == digits[kind] and int(digest, 16) >= 0
    if entry.files and entry.files[0].urls:  # room is asked for by the first one's size
        assert entry.files[0].size > 10**7 and entry.files[0].name.endswith(downloads.ARCHIVES)
