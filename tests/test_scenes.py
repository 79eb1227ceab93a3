"""colorlib.scenes: every class of the known sets has one group, and no path is too odd to be answered."""

import hashlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from torchvision.datasets import Places365
from web import Answer, Site, pack, tree

from colorlib import downloads, scenes
from colorlib.scenes import scene_of

# --------------------------------------------------------------------------------------------------- the lists

PLACES = {group: classes.split() for group, classes in scenes._PLACES_GROUPS.items()}
MIT = {group: classes.split() for group, classes in scenes._MIT_GROUPS.items()}
BOTH = """auditorium bar bathroom bedroom bookstore classroom closet corridor dining_room fastfood_restaurant kitchen
laundromat lobby locker_room nursery office operating_room pantry restaurant restaurant_kitchen""".split()


def test_every_class_has_one_group():
    for groups, sizes in ((PLACES, [159, 73, 133]), (MIT, [12, 14, 15, 11, 15])):
        names = [name for classes in groups.values() for name in classes]
        assert [len(classes) for classes in groups.values()] == sizes
        assert len(names) == len(set(names)) == len({scenes._key(name) for name in names})
        assert all(classes == sorted(classes) for classes in groups.values())
    assert (len(scenes._PLACES), len(scenes._MIT)) == (365, 67)
    assert sorted(scenes._PLACES.keys() & scenes._MIT.keys()) == BOTH


@pytest.mark.parametrize("group", PLACES)
def test_places365s_folders_are_known(group):
    for name in PLACES[group]:
        path = f"data_256/{name[0]}/{name}/00000001.jpg"
        assert scene_of(path) == group, path
        for written in (name.replace("/", "_"), name.replace("/", "-"), name.replace("_", " ").title()):
            assert scene_of(f"places/{written}/x.jpg") == group


def test_group_agrees_with_what_the_name_says():
    says = {"indoor": "indoor", "outdoor": "outdoor, ", "exterior": "outdoor, ", "natural": "outdoor, natural"}
    for group, classes in PLACES.items():
        for name in classes:
            assert group.startswith(says.get(name.split("/")[-1], "")), name


@pytest.mark.parametrize("group", MIT)
def test_mit_indoor_67s_folders_are_known(group):
    for name in MIT[group]:
        assert scene_of(f"Images/{name}/a_0001.jpg") == group
        assert scene_of(f"indoorCVPR_09/Images/{name}/a_0001.jpg") == group
        if name not in BOTH:
            assert scene_of(f"{name}/a_0001.jpg") == group


@pytest.mark.parametrize("name", BOTH)
def test_name_that_two_sets_have_is_mits_only_below_its_folder(name):
    assert scene_of(f"Images/{name}/a.jpg").startswith("indoor: ")
    for path in (f"{name}/a.jpg", f"images/{name}/a.jpg", f"{name}/Images/a.jpg"):
        assert scene_of(path) == "indoor"


# ----------------------------------------------------------------------------------------------------- ImageNet

WORDNET = [  # the first and the last class of each range, and what is easily taken for something else
    ("n01440764", "animals: other"),  # tench
    ("n02077923", "animals: other"),  # sea lion
    ("n02085620", "animals: dogs"),  # Chihuahua
    ("n02113978", "animals: dogs"),  # Mexican hairless
    ("n02114367", "animals: other"),  # timber wolf
    ("n02115641", "animals: other"),  # dingo
    ("n02510455", "animals: other"),  # giant panda
    ("n02655020", "animals: other"),  # puffer
    ("n02666196", "things"),  # abacus
    ("n03028079", "things"),  # church
    ("n04613696", "things"),  # yurt
    ("n06359193", "print and signs"),  # web site
    ("n06874185", "print and signs"),  # traffic light
    ("n07248320", "print and signs"),  # book jacket
    ("n07565083", "food"),  # menu
    ("n07730033", "food"),  # cardoon
    ("n07802026", "food"),  # hay
    ("n07932039", "food"),  # eggnog
    ("n09193705", "scenery"),  # alp
    ("n09256479", "scenery"),  # coral reef
    ("n09472597", "scenery"),  # volcano
    ("n09835506", "people"),  # ballplayer
    ("n10148035", "people"),  # groom
    ("n10565667", "people"),  # scuba diver
    ("n11879895", "plants and fungi"),  # rapeseed
    ("n12144580", "plants and fungi"),  # corn
    ("n12620546", "plants and fungi"),  # hip
    ("n13054560", "plants and fungi"),  # bolete
    ("n13133613", "plants and fungi"),  # ear
    ("n15075141", "things"),  # toilet tissue
]


@pytest.mark.parametrize("wnid, group", WORDNET)
def test_wordnet_id_gives_the_group(wnid, group):
    paths = [
        f"train/{wnid}/{wnid}_10026.JPEG",
        f"ILSVRC/Data/CLS-LOC/train/{wnid}/x.JPEG",
        f"{wnid}_10026.JPEG",
        f"{wnid}.jpg",
        f"flat/imagenette2__train__{wnid}_25706.jpg",
        f"val/ILSVRC2012_val_00000293_{wnid}.JPEG",
        f"C:\\photos\\{wnid}\\x.JPEG",
        f"church/outdoor/{wnid}/x.JPEG",  # the id wins
        f"Images/bakery/{wnid}_1.jpg",
    ]
    assert {scene_of(path) for path in paths} == {group}


def test_ranges_do_not_overlap_but_for_the_dogs():
    dogs, *ranges = scenes._WORDNET
    assert ranges[0][0] < dogs[0] < dogs[1] < ranges[0][1]
    assert all(a[0] <= a[1] < b[0] for a, b in pairwise(ranges))


@pytest.mark.parametrize("wnid", ["n0144076", "n014407644", "n20240101", "n00007846", "n05578911", "n00000000"])
def test_what_only_looks_like_an_id_tells_nothing(wnid):
    assert scene_of(f"{wnid}/{wnid}_1.jpg") == ""
    assert scene_of(f"{wnid}/kitchen/{wnid}_1.jpg") == "indoor"
    assert scene_of("xn01440764/x.jpg") == "xn01440764"


# -------------------------------------------------------------------------------------------------- other paths

PATHS = {
    "data_256/a/apartment_building/outdoor/00000001.jpg": "outdoor, built",
    "/s/sky/00000001.jpg": "outdoor, natural",
    "u\\underwater\\ocean_deep\\x.jpg": "outdoor, natural",
    "street/church/indoor/x.jpg": "indoor",
    "beach/kitchen/x.jpg": "indoor",
    "t/train_station/platform/x.jpg": "indoor",
    "s/swimming_hole/x.jpg": "outdoor, natural",
    "v/vineyard/x.jpg": "outdoor, natural",
    "v/viaduct/x.jpg": "outdoor, built",
    "Images/beach/x.jpg": "outdoor, natural",
    "Images/winecellar/x.jpg": "indoor: home",
    "winecellar/x.jpg": "indoor: home",
    "img_align_celeba/000001.jpg": "faces",
    "img_align_celeba\\img_align_celeba\\000001.jpg": "faces",
    "cats/x.jpg": "cats",
    "train/Cats/tabby/x.jpg": "Cats",
    "data/train_color/image1.jpg": "image",
    "val_256/Places365_val_00000001.jpg": "Places365_val",
    "test/cat_000.png": "cat",
    "test/cat_2.tar_000.png": "cat_2.tar",
    "cats/dog_000.png": "cats",
    "testSet_resize/0123456789abcdef.jpg": "",
    "train2017/000000000009.jpg": "",
    "SUN397/a/abbey/sun_aaalbzqrimafwbiv.jpg": "SUN397",
    "a/abbey/sun_aaalbzqrimafwbiv.jpg": "abbey",
    "kitchen.jpg": "",  # a file's own name is no class
    "sky": "",
    "": "",
    "/": "",
    "../../x.jpg": "",
    ".//./x.jpg": "",
    "C:\\Photos\\x.jpg": "",
    "C:\\Photos\\Été à Nîmes\\Forêt\\x.jpg": "Été à Nîmes",
    "猫/写真.jpg": "猫",
    "空sky/x.jpg": "空sky",
    "photos/фото 2024/x y.jpg": "фото 2024",
    "train/🐈/x.jpg": "",  # without a letter it says nothing here
    "two\nlines/x.jpg": "two\nlines",
    "x" * 5000 + "/x.jpg": "x" * 5000,
}


@pytest.mark.parametrize("path, expected", PATHS.items(), ids=[repr(path[:40]) for path in PATHS])
def test_other_paths(path, expected):
    assert scene_of(path) == expected
    if path and "\\" not in path:
        assert scene_of(Path(path)) == expected


def test_folders_that_all_files_share_tell_nothing(tmp_path):
    of = scenes.of_files
    assert of([f"{tmp_path}/mine/cats/1.jpg", tmp_path / "mine/dogs/1.jpg"]) == ["cats", "dogs"]
    assert of(["/home/park/library/x.jpg", "/home/park/library/y.jpg"]) == ["indoor: public"] * 2
    assert of(["/home/park/library/cats/x.jpg", "/home/park/library/dogs/y.jpg"]) == ["cats", "dogs"]
    assert of(["/mine/1.jpg", "/mine/2.jpg"]) == ["mine", "mine"]
    assert of(["/mine/Images/kitchen/1.jpg", "/mine/Images/bar/1.jpg"]) == ["indoor: home", "indoor: leisure"]
    assert of(["/mine/img_align_celeba/1.jpg", "/mine/img_align_celeba/2.jpg"]) == ["faces", "faces"]


# ------------------------------------------------------------------------------------------------ prepared photos


def photos_of(folder, sources):
    """As much of a prepared set as is asked for: files, and the manifest that says where each came from."""
    files = [f"photos/000/{i:07d}.jpg" for i in range(len(sources))]
    rows = pd.DataFrame({"source": sources, "file": files}).assign(width=1, height=1, split="test")
    rows.to_csv(folder / "manifest.csv", index=False)
    return [folder / file for file in files]


def test_prepared_photos_are_what_their_originals_were(tmp_path):
    sources = ["val/n09193705/x.JPEG", "k/kitchen/2.jpg", "n02085620_1.JPEG", "val_256/Places365_val_00000001.jpg"]
    files = photos_of(tmp_path, sources)
    assert scenes.of_files(files) == ["scenery", "indoor", "animals: dogs", "Places365_val"]
    assert scenes.of_files(files[::-1]) == ["Places365_val", "animals: dogs", "indoor", "scenery"]
    classes = {"Places365_val_00000001.jpg": "/s/sky", "2.jpg": "/b/barn", "other.jpg": "/s/street"}
    assert scenes.of_files(files, classes) == [
        "scenery",
        "indoor",
        "animals: dogs",
        "outdoor, natural",
    ]  # a path tells more


def test_groups_of_a_real_prepared_set(prepared):
    assert scenes.of_files(prepared.files("test")) == ["astronaut", "chelsea", "coffee"]


# -------------------------------------------------------------------------------------- Places365's validation list

NAMES = ["/a/airfield", "/a/apartment_building/outdoor", "/k/kitchen", "/s/sky"]
LISTS = {
    "categories_places365.txt": "".join(f"{name} {i}\n" for i, name in enumerate(NAMES)).encode(),
    "places365_val.txt": b"Places365_val_00000001.jpg 3\nPlaces365_val_00000002.jpg 1\nPlaces365_val_00000003.jpg 3\n",
    "places365_train_standard.txt": b"/a/airfield/00000001.jpg 0\n",
}
TAR = pack(".tar", LISTS)
CLASSES = {
    "Places365_val_00000001.jpg": "/s/sky",
    "Places365_val_00000002.jpg": "/a/apartment_building/outdoor",
    "Places365_val_00000003.jpg": "/s/sky",
}
URL = "http://data.csail.mit.edu/places/places365/filelist_places365-standard.tar"


def md5(body):
    return f"md5:{hashlib.md5(body).hexdigest()}"


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(downloads, "_PAUSE", 0)
    monkeypatch.setattr(scenes, "_LISTS", [replace(file, checksum=md5(LISTS[file.name])) for file in scenes._LISTS])
    monkeypatch.setattr(scenes, "_ARCHIVE", replace(scenes._ARCHIVE, checksum=md5(TAR)))
    with Site() as site, site.redirected(monkeypatch):
        site.put(URL, TAR)
        yield site


def test_lists_are_those_that_torchvision_knows():
    known = {*Places365._DEVKIT_META.values(), Places365._CATEGORIES_META, *Places365._FILE_LIST_META.values()}
    for file in (*scenes._LISTS, scenes._ARCHIVE):
        assert (file.name, file.checksum.removeprefix("md5:")) in known
    assert scenes._ARCHIVE.urls == (f"{Places365._BASE_URL}{scenes._ARCHIVE.name}",)


def test_list_is_fetched_once_and_little_of_it_kept(site, tmp_path):
    root = tmp_path / "data"
    assert scenes.places_val_classes(root) == CLASSES
    assert tree(root).keys() == {"downloads/categories_places365.txt", "downloads/places365_val.txt"}
    assert scenes.places_val_classes(str(root)) == CLASSES
    assert len(site.log) == 1
    files = photos_of(tmp_path, [f"val_256/{name}" for name in CLASSES])
    found = scenes.of_files(files, scenes.places_val_classes(root))
    assert found == ["outdoor, natural", "outdoor, built", "outdoor, natural"]


def test_broken_connection_is_gone_on_with(site, tmp_path):
    site.put(URL, Answer(TAR, cut=3000), TAR)
    assert scenes.places_val_classes(tmp_path) == CLASSES
    assert site.log[-1].start == 3000


@pytest.mark.parametrize("names", [[URL.split("/")[-1]], list(LISTS)[:2]], ids=["archive", "lists"])
def test_what_was_put_there_by_hand_is_used_and_stays(names, site, tmp_path):
    drive = tmp_path / "drive"
    drive.mkdir()
    for name in names:
        (drive / name).write_bytes(LISTS.get(name, TAR))
    before = tree(drive)
    assert scenes.places_val_classes(tmp_path / "data", [str(drive)]) == CLASSES
    assert tree(drive) == before and site.log == []


def test_no_network_is_a_connection_error_and_harms_nothing(site, tmp_path):
    site.put(URL, Answer(b"gone", 404))
    with pytest.raises(ConnectionError, match="404"):
        scenes.places_val_classes(tmp_path)
    site.put(URL, b"<!DOCTYPE html><html>Please log in</html>")
    with pytest.raises(ConnectionError, match="web page"):
        scenes.places_val_classes(tmp_path)
    site.put(URL, TAR)
    assert scenes.places_val_classes(tmp_path) == CLASSES


def test_damaged_list_is_replaced(site, tmp_path):
    scenes.places_val_classes(tmp_path)
    (tmp_path / "downloads/places365_val.txt").write_bytes(b"Places365_val_0000")
    assert scenes.places_val_classes(tmp_path) == CLASSES
    assert len(site.log) == 2
