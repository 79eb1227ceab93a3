"""The sample: crops of the everyday colour photographs inside scikit-image's wheel, so that no network is needed."""

import numpy as np
from PIL import Image
from skimage import data as skimage_data

TRAIN = ("astronaut", "coffee", "motorcycle_left", "motorcycle_right")
TEST = ("cat", "rocket")
_BAND = 0.26  # of each training scene's height, in its middle: kept for validation
_CROP = 128  # side in pixels of the smallest crop


def scenes():
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


def cut(folder):
    """Cut the scenes into square crops in the folders train, val and test.

    Test crops come from scenes of their own. Validation crops come from a band across the middle of the
    training scenes that no training crop touches: the only held-out pixels that so few scenes can give.
    The band is horizontal because the stereo views are shifted sideways, so it is held out of both.
    """
    for name, scene in scenes().items():
        height = len(scene)
        band = max(_CROP, round(_BAND * height))
        top = (height - band) // 2
        parts = [("train", scene[:top]), ("val", scene[top : top + band]), ("train", scene[top + band :])]
        if name in TEST:
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
