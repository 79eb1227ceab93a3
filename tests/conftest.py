"""What several test files need: a handful of real photos, prepared once, and networks that run in a blink."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as samples
from torch import nn

from colorlib import color, data, models

SIZE = (64, 80)  # about the smallest that is kept; not square, so that squashing and cropping differ
_PHOTOS = Path(os.environ.get("COLORLIB_PHOTOS") or Path(__file__).parents[2] / "shared" / "photos")


@pytest.fixture(scope="session")
def real_photos():
    """The folder of real photos; the test is skipped where they are not at hand."""
    if not _PHOTOS.is_dir():
        pytest.skip(f"there are no real photos at {_PHOTOS}; COLORLIB_PHOTOS may point to them")
    return _PHOTOS


@pytest.fixture(scope="session")
def source_text():
    """The text of a source document by its number; the test is skipped where the documents are not at hand."""

    def read(number):
        found = sorted(_PHOTOS.parent.glob(f"sources/{number}_*.txt"))
        if not found:
            pytest.skip(f"document {number} is not here")
        return found[0].read_text()

    return read


def _crops(name, n):
    photo = getattr(samples, name)()
    corners = np.linspace(0, np.subtract(photo.shape[:2], SIZE), n).astype(int)
    return [photo[y : y + SIZE[0], x : x + SIZE[1]] for y, x in corners]


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory):
    """Crops of three photos that ship inside scikit-image: 15 in train, 3 in val, 3 in test."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("astronaut", "chelsea", "coffee"):
        for i, rgb in enumerate(_crops(name, 7)):
            split = {5: "val", 6: "test"}.get(i, "train")
            (folder / split).mkdir(exist_ok=True)
            Image.fromarray(rgb).save(folder / split / f"{name}-{i}.png")
    return folder


@pytest.fixture(scope="session")
def prepared(photo_folder, tmp_path_factory):
    # Grey ones are kept: the crops are too small for the colour check to mean anything.
    return data.prepare(photo_folder, tmp_path_factory.mktemp("prepared"), keep_grey=True)


@pytest.fixture(scope="module")
def one_thread():
    """On pictures this small, several threads mostly wait for each other: ten times as long on a busy machine."""
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """30 good photos in one flat folder, 96 x 72."""
    from pictures import crops, save  # here: most tests do without these photographs

    folder = tmp_path_factory.mktemp("thirty")
    for i, rgb in enumerate(crops(30)):
        save(rgb, folder / f"{i:02d}.png")
    return folder


class Tiny(nn.Module):
    """Two convolutions with a batch norm between, so that a run of several epochs takes a second."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1)
        )

    def forward(self, L):
        return 100 * self.layers(color.l_to_grey(L))


@pytest.fixture(scope="module")
def tiny():
    """Makes `Tiny` known to `models.build`, as "tiny"."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", Tiny)
        yield "tiny"


class Painter(nn.Module):
    """Vivid colours that are a function of L alone, pixel by pixel."""

    def __init__(self):
        super().__init__()
        self.chroma = nn.Parameter(torch.tensor([60.0, 45.0]).view(1, 2, 1, 1))  # a model must have weights

    def forward(self, L):
        return self.chroma * (L / 15).sin()


@pytest.fixture
def painter():
    return Painter()


@pytest.fixture
def blocked(tmp_path):
    """A path that nobody can write to, not even root: it lies below a regular file."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "folder"
