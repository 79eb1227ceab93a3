# ---
# jupyter:
#   accelerator: GPU
#   colab:
#     gpuType: T4
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 · Choose and prepare the photos
# *In Colab: upload this notebook, put the project's folder into your Drive as `colorization`, tick `use_drive`.*
#
# Every later notebook learns from, or is judged on, the photos that you choose here.
#
# **What you will do**
# - choose a data set and have every photo checked, resized and put into one of three splits;
# - take a photo apart into lightness and colour, and see how colours are spread over a data set;
# - find out how well one can do *without* a network.
#
# **What you will learn:** why colorization is done in CIELAB, why photos are mostly brownish, and why an error
# means nothing until a trivial answer stands beside it.
#
# **What you need:** no GPU. Seconds for the sample; for Places365 on Colab a download of 525 MB and some minutes.
# It leaves prepared photos for `02_train`.

# %% [markdown]
# ## Set up
# This cell finds `colorlib`: in this copy of the project, in one in your Drive, or on the web. In Colab, tick
# `use_drive` to keep photos and training when the machine goes away. The cell can be run again at any time.

# %%
import subprocess
import sys
from pathlib import Path

use_drive = False  # @param {type: "boolean"}
REPOSITORY = ""  # written by tools/sync_notebooks.py
DRIVE = Path("/content/drive/MyDrive/colorization")

if use_drive and "google.colab" in sys.modules:
    from google.colab import drive

    drive.mount("/content/drive")
if use_drive and not DRIVE.parent.is_dir():
    raise FileNotFoundError("Drive is not mounted: run this cell again, or untick use_drive")
here = Path(globals().get("__file__", "notebook")).resolve().parent
places = [here, *here.parents, DRIVE, Path("colorization").resolve()]
root = next((place for place in places if (place / "colorlib").is_dir()), None)
if root is None and not REPOSITORY:
    raise FileNotFoundError(f"no colorlib here: copy the project to {DRIVE}, tick use_drive")
if root is None:
    root = places[-1]
    subprocess.run(["git", "clone", "--depth", "1", REPOSITORY, str(root)], check=True)
sys.path.insert(0, str(root))
mirror = DRIVE if use_drive else None
print(f"Using the project in {root}")

# %% [markdown]
# ## Import and configure
# Helpers come from `colorlib`; everything that is the lesson stands in this notebook.

# %%
import numpy as np
import pandas as pd
import torch

from colorlib import color, data, loading, losses, metrics, photos, plots, runtime

# %% [markdown]
# - `dataset`: `sample` (five everyday scenes that come with scikit-image, no download); or one of the sets that the
#   five documents and their neighbours used, listed in `data/README.md` with sizes and terms; or **the path of a folder,
#   or of a zip or tar archive, of photos of yours**, on this machine or in Drive. Empty means: `sample` on a laptop,
#   `places365` (36,500 photos, 525 MB, no account) on a Colab GPU.
# - `max_photos` draws some of the photos at random; 0 means all.
# - `keep_grey` keeps grey and sepia photos, as document 000 did.

# %%
dataset = ""  # @param ["", "sample", "places365", "places365-large", "places365-train", "places205", "imagenet", "imagenet-val", "imagenette", "imagenette-320", "imagenette-full", "imagewoof", "imagewoof-320", "imagewoof-full", "cvpr09", "celeba", "mirflickr-lab", "kaggle-5739"] {allow-input: true}
max_photos = 0  # @param {type: "integer"}
keep_grey = False  # @param {type: "boolean"}

dataset = dataset or runtime.preset().dataset
print(runtime.describe())

# %% [markdown]
# ## Check, resize and split
# Some photos cannot teach colour. A grey one, saved as RGB, teaches that grey is always right; a sepia print teaches
# brown. Both look like ordinary files, so each photo is examined in CIELAB. Broken files, exact duplicates and photos
# under 64 pixels are left out as well. What remains is scaled to a short side of at most 256 and saved once, because
# decoding large JPEGs again in every epoch is what a GPU usually waits for. With `use_drive` the result is also kept in
# Drive, as one archive: tomorrow this cell brings it back, without download and check.
# (Drive uploads in the background: leave the machine on for some minutes.)

# %%
prepared = data.ready(
    dataset, mirror and mirror / "data", limit=max_photos or None, keep_grey=keep_grey
)
print(f"{len(prepared.kept)} of {len(prepared.manifest)} photos are in {prepared.folder}")
plots.show_table(prepared.report())

# %% [markdown]
# Each photo belongs to one split alone. **Training** photos teach; **validation** photos choose when to stop; **test**
# photos are for the final figures. Our five sample scenes cannot give that: their validation crops are held-out bands
# of the *training* scenes, which is easier than a new photo; only the test crops are scenes of their own.

# %%
splits = [split for split in ("train", "val", "test") if prepared.files(split)]
counts = prepared.kept.groupby("pixels").split.nunique()
assert (counts == 1).all(), "a photo is in two splits"
some = {split: prepared.files(split) for split in splits}
captions = [f"{split}: {len(files)} photos" for split, files in some.items()]
every = {split: max(1, len(files) // 7) for split, files in some.items()}
rows = [[photos.open_photo(f) for f in some[split][:: every[split]][:7]] for split in splits]
plots.show(plots.grid(rows, captions=captions), "01_splits", "Some photos of each split")

# %% [markdown]
# And these were left out; the manifest lists them all. (Some sets have many that are in no part of their published
# split.)

# %%
left_out = prepared.manifest[prepared.manifest.split == ""]
plots.show_table(left_out[["source", "reason"]].head(12))
print(f"{len(left_out)} photos were left out; all are listed in {prepared.folder / 'manifest.csv'}")

# %% [markdown]
# Judge for yourself, by up to eight pictures for each reason: a clear sky and a sepia print both have one colour that
# follows the lightness, so a few skies go too.

# %%
examples = left_out[left_out.file != ""]
kinds = list(examples.groupby(examples.reason.str.split(":").str[0]).file)
rows = [[photos.open_photo(prepared.folder / file) for file in files] for _, files in kinds]
if rows:
    figure = plots.grid(rows, captions=[kind for kind, _ in kinds])
    plots.show(figure, "01_left_out", "Photos that were left out")

# %% [markdown]
# ## Take a photo apart
# CIELAB describes a colour by three numbers: **L**, how light it is (0 to 100), **a**, from green to red, and **b**,
# from blue to yellow. L alone is the grey photo. It is given to the network, and it is also used as it is in the
# result, so that only a and b need to be guessed.

# %%
photo = photos.open_photo(prepared.files("train")[0])
rgb = torch.from_numpy(photo).permute(2, 0, 1)[None]  # (1, 3, H, W) uint8
L, ab = color.rgb_to_lab(rgb)  # (1, 1, H, W) and (1, 2, H, W)
for name, channel in {"L": L, "a": ab[:, :1], "b": ab[:, 1:]}.items():
    print(f"{name}: {tuple(channel.shape)}, from {channel.min():.1f} to {channel.max():.1f}")
assert L.min() >= 0 and L.max() <= 100
plots.show(plots.channels(photo), "01_channels", "A photo and its L, a and b")

# %% [markdown]
# Putting the channels together again gives back the very same bytes. So whatever is wrong with a coloured photo
# later on, the conversion is not to blame.

# %%
back = color.lab_to_rgb(L, ab)
assert torch.equal(back, rgb)
print("L, a and b give back every byte of the photo.")

# %% [markdown]
# ## See how colour is distributed
# Count how often each (a, b) pair occurs in the training photos. The scale is logarithmic, and has to be: the neutral
# middle is thousands of times as frequent as a strong colour, and what surrounds it leans towards orange. A network that
# minimises squared error is pulled to that middle, which is why careless colorizations are brown.

# %%
edges = np.linspace(-110, 110, 111)
chosen = prepared.files("train")[:: max(1, len(prepared.files("train")) // 1000)]
photo_set = loading.Photos(chosen, size=64)
density = np.zeros((110, 110))
for rgb in loading.loader(photo_set, loading.Batches(range(len(chosen)), 64)):
    a, b = color.rgb_to_lab(rgb)[1].movedim(1, 0).flatten(1).numpy()
    density += np.histogram2d(a, b, bins=[edges, edges])[0]
figure = plots.ab_density(density / density.sum(), edges)
plots.show(figure, "01_ab_density", "The ab plane, and how often each colour occurs")

# %% [markdown]
# How much of the data is colourful? Chroma is the distance from the neutral middle; a ripe orange has about 80. Usually
# around two thirds of the pixels have less than 20.

# %%
centres = (edges[1:] + edges[:-1]) / 2
chroma = np.hypot(*np.meshgrid(centres, centres, indexing="ij"))
density = density / density.sum()
share = {f"chroma under {c}": f"{density[chroma < c].sum():.0%}" for c in (5, 10, 20, 40)}
plots.show_table(pd.Series(share).to_frame("share of the pixels"))

# %% [markdown]
# ## Measure the floors
# Before any network is trained, three trivial answers set the scale. **All grey** predicts a = b = 0. **The mean
# colour** of the training photos is one constant for every pixel. **Each photo's own mean colour** looks at the
# answer, so nobody can use it, but it shows how far one colour per photo could go. The error is the one that the
# source documents state: the mean squared difference of `ab_unit = (ab + 128) / 255`.

# %%
mean = loading.mean_ab(prepared.files("train")).view(1, 2, 1, 1)
val_set = loading.Photos(prepared.files("val"), size=128)
floors = []
for rgb in loading.loader(val_set, loading.Batches(range(len(val_set)), 64)):
    ab = color.rgb_to_lab(rgb)[1]
    own = ab.mean(dim=(2, 3), keepdim=True)
    guesses = [torch.zeros_like(ab), mean.expand_as(ab), own.expand_as(ab)]
    floors.append(torch.stack([losses.mse_per_photo(guess, ab) for guess in guesses], dim=1))
floors = pd.DataFrame(torch.cat(floors).numpy(), columns=list(metrics.FLOORS.values()))
plots.show_table(floors.mean().to_frame("MSE on ab_unit, validation photos").round(5))

# %% [markdown]
# And this is what such errors look like: a photo, and the same photo by each of the three answers. The published
# error of document 000 on ImageNet is 0.0027. Whether that is good depends on the floors, and no document has them. (On
# 1,000 ImageNet photos, one of each class, all grey scores 0.00423 and the mean colour 0.00363.)

# %%
n = int(floors["all grey"].argmax())
L, ab = color.photo_to_lab(photos.open_photo(prepared.files("val")[n]))
guesses = [ab, torch.zeros(1, 2, 1, 1), mean, ab.mean(dim=(2, 3), keepdim=True)]
captions = ["MSE 0"] + [f"MSE {mse:.5f}" for mse in floors.loc[n]]
titles = ["the photo", "all grey", "mean colour", "its own mean"]
figure = plots.grid([[plots.to_rgb(L, guess) for guess in guesses]], titles, [captions], side=2.2)
plots.show(figure, "01_floors", "A photo, grey, in the mean colour and in its own mean colour")

# %% [markdown]
# ## Recap
# - Photos were checked, resized and split once; the manifest says where each came from and why others are missing.
# - A photo is L, which is given, and a and b, which are to be guessed; most pixels are close to neutral.
# - The floors are the scale for every error from here on.
#
# Next: [`02_train`](02_train.ipynb) trains a network to beat them.
