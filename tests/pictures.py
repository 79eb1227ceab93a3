"""Colourful pictures, all different, for the tests of preparing and of loading."""

from PIL import Image

from colorlib import sample

SCENES = sample.scenes()


def crops(n, height=72, width=96):
    """`n` uint8 arrays cut from the sample's scenes."""
    for i in range(n):
        scene = SCENES[("coffee", "motorcycle_left", "astronaut")[i % 3]]
        y, x = 40 + 11 * (i // 3), 60 + 7 * i
        yield scene[y : y + height, x : x + width]


def save(rgb, path, **options):
    """Write a picture; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path, **options)
    return path
