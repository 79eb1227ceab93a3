"""Where each named data set comes from: download, verify, unpack. Everything lands below one folder."""

import http.client
import shutil
import tarfile
import urllib.error
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data as skimage_data
from torchvision.datasets.utils import download_url

from colorlib import photos, runtime


@dataclass(frozen=True)
class Dataset:
    """An archive of photos on the web."""

    title: str
    url: str
    md5: str
    size: int  # bytes of the archive
    n_photos: int
    terms: str


# Figures: see data/README.md.
DATASETS = {
    "places365": Dataset(
        title="Places365, the validation photos at 256 x 256",
        url="http://data.csail.mit.edu/places/places365/val_256.tar",
        md5="e27b17d8d44f4af9a78502beb927f808",
        size=525_158_400,
        n_photos=36_500,
        terms="research only; the photos belong to their owners",
    ),
    "imagenette": Dataset(
        title="Imagenette: ten easy classes of ImageNet, short side 160",
        url="https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",
        md5="e793b78cc4c9e9a4ccc0c1155377a412",
        size=99_003_388,
        n_photos=13_394,
        terms="as ImageNet: non-commercial research",
    ),
}
NAMES = ("sample", *DATASETS)


def fetch(name, root):
    """Bring a data set to this machine, unless it is there already.

    Args:
        name: "sample", a key of `DATASETS`, or the path of a folder of photos (used where it is).
        root: folder below which named data sets are kept.

    Returns:
        The folder of photos.

    Raises:
        ValueError: if the name is neither a data set nor a folder.
        ConnectionError: if the download fails; says how to do it by hand.
    """
    name = str(name).strip()
    target = Path(root) / name
    if name not in NAMES:
        folder = Path(name).expanduser()
        if name and folder.is_dir():
            return folder
        if name and folder.is_file():
            raise ValueError(f"{name!r} is a file: give the folder that holds your photos.")
        raise ValueError(
            f"{name!r} is neither a data set ({', '.join(NAMES)}) nor a folder on this machine; "
            "correct the name or the path."
        )
    if target.is_dir():
        return target
    # Build beside the target and rename at the end: a half-unpacked set is never taken for a whole one.
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if name == "sample":
        _cut_sample(partial)
    else:
        dataset = DATASETS[name]
        print(f"{dataset.title}: {dataset.size / 1e6:.0f} MB; {dataset.terms}.")
        _unpack(_download(dataset, Path(root)), partial, dataset)
    partial.rename(target)
    return target


def _download(dataset, root):
    archive = root / dataset.url.rsplit("/", 1)[1]
    try:
        with runtime.network_timeout():
            download_url(dataset.url, root, archive.name, dataset.md5)  # trusts a file only if its MD5 is right
    except (urllib.error.URLError, http.client.HTTPException, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConnectionError(
            f"{dataset.url} could not be fetched ({reason}). Download it in a browser ({dataset.size:,} bytes, "
            f"MD5 {dataset.md5}), put it at {archive} and run this again."
        ) from error
    return archive


def _unpack(archive, folder, dataset):
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")  # refuses members that point outside the folder
    except tarfile.TarError as error:
        raise ConnectionError(f"{archive} cannot be unpacked ({error}): delete it and retry.") from error
    found = len(photos.find_photos(folder))
    if found != dataset.n_photos:
        raise ConnectionError(f"{archive} holds {found:,} photos instead of {dataset.n_photos:,}: delete it and retry.")


# The sample: the everyday colour photographs inside scikit-image's wheel, so that no network is needed.
SAMPLE_TRAIN = ("astronaut", "coffee", "motorcycle_left", "motorcycle_right")
SAMPLE_TEST = ("cat", "rocket")
_SAMPLE_BAND = 0.26  # of each training scene's height, in its middle: kept for validation
_CROP = 128  # side in pixels of the smallest crop


def sample_scenes():
    """The sample's scenes by name: uint8 arrays `(H, W, 3)`. The two motorcycles are a stereo pair."""
    left, right, _ = skimage_data.stereo_motorcycle()
    return {
        "astronaut": skimage_data.astronaut(),
        "coffee": skimage_data.coffee(),
        "motorcycle_left": left,
        "motorcycle_right": right,
        "cat": skimage_data.chelsea(),
        "rocket": skimage_data.rocket(),
    }


def _cut_sample(folder):
    """Cut the scenes into square crops in the folders train, val and test.

    Test crops come from scenes of their own. Validation crops come from a band across the middle of the
    training scenes that no training crop touches: the only held-out pixels that so few scenes can give.
    The band is horizontal because the stereo views are shifted sideways, so it is held out of both.
    """
    for name, scene in sample_scenes().items():
        height = len(scene)
        band = max(_CROP, round(_SAMPLE_BAND * height))
        top = (height - band) // 2
        parts = [("train", scene[:top]), ("val", scene[top : top + band]), ("train", scene[top + band :])]
        if name in SAMPLE_TEST:
            parts = [("test", scene)]
        crops = [(split, crop) for split, part in parts for crop in _crops(part, several=split == "train")]
        for n, (split, crop) in enumerate(crops):
            (folder / split).mkdir(exist_ok=True)
            Image.fromarray(np.ascontiguousarray(crop)).save(folder / split / f"{name}_{n:03d}.png")


def _crops(scene, several):
    """Overlapping square windows, of several sizes or of the smallest alone."""
    height, width = scene.shape[:2]
    for side in (_CROP, 160, 192) if several else (_CROP,):
        for y in range(0, height - side + 1, side // 2):
            for x in range(0, width - side + 1, side // 2):
                yield scene[y : y + side, x : x + side]
