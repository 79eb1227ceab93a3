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
# # 04 · Ask people
# *In Colab: upload this notebook, put the project's folder into your Drive as `colorization`, tick `use_drive`.*
#
# A squared error does not know what looks right. People do.
#
# **What you will do**
# - colour photos from outside the training set, and real grey ones that never had colours;
# - colour photos of your own;
# - make a blinded sheet of real and coloured photos, and score what people say about it.
#
# **What you will learn:** how to ask people without telling them the answer, and how little ten photos and five
# people prove.
#
# **What you need:** a run of `02_train`, the newest is taken; without one, the weights that come with the project.
# No GPU; the time on a T4 has not been measured. It leaves coloured photos, a sheet and its key in the runs folder.

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
import shutil
import time

import numpy as np
import skimage
from scipy import stats

from colorlib import loading, photos, plots, recipes, runs, runtime, study, training
from colorlib.colorize import colorize, colorize_files

# %% [markdown]
# `own_photos` is a photo or a folder of yours, in colour or not: only its lightness is used. In Colab, tick `upload`
# to choose files on your computer. They are coloured by the weights that come with the project, or by your newest run.
# `strength` multiplies the colours, `beside` puts each photo beside its result, and `temperature` is for networks that
# choose among colours: lower is more vivid. `answers` is for the study at the end; another `sheet_seed` draws another
# sheet.

# %%
own_photos = ""  # @param {type: "string"}
upload = False  # @param {type: "boolean"}
colour_with = "shipped weights"  # @param ["shipped weights", "newest run"]
strength = 1.0  # @param {type: "slider", min: 0, max: 2, step: 0.05}
beside = False  # @param {type: "boolean"}
temperature = 0.38  # @param {type: "slider", min: 0, max: 1, step: 0.02}
sheet_seed = 1  # @param {type: "integer"}
answers = ""  # @param {type: "string"}

print(runtime.describe())
run, prepared = training.newest_or_shipped(mirror)
model, side = run.model(), run.recipe.size  # the network sees photos as large as in training
model_name = f"{run.name}-{run.facts['sha256'][:8]}"  # a later model's results go elsewhere

# %% [markdown]
# ## Colour photos that the network has never seen
# Test photos, spread evenly over the set (validation photos, if it has no others): what the network was given, the
# truth, and its guess.

# %%
files = prepared.files("test") or prepared.files("val")
truths = [photos.open_photo(file) for file in loading.evenly(files, 6)]
rows = [[plots.grey(rgb) for rgb in truths], truths, [colorize(model, rgb, side) for rgb in truths]]
figure = plots.grid(rows, captions=["grey", "truth", "prediction"])
plots.show(figure, "04_test_photos", "Test photos: grey, truth, prediction")

# %% [markdown]
# ## Colour photos that never had colours
# These grey pictures come with scikit-image. Nobody knows their truth, so there is no error to compute, only the
# question whether one would believe the result. (A network that was trained on the sample's three scenes will not
# convince you.)

# %%
greys = [skimage.data.camera(), skimage.data.coins(), skimage.data.grass(), skimage.data.page()]
greys = [np.repeat(grey[..., None], 3, axis=2) for grey in greys]
figure = plots.grid([greys, [colorize(model, grey, side) for grey in greys]], side=2.4)
plots.show(figure, "04_grey_photos", "Grey photos, and the same coloured")

# %% [markdown]
# ## Colour your own
# The network looks at a small copy; the colour is brought back to full size along the edges of lightness, and joined
# with the photo's own lightness, so that no detail is lost. Results are new files of the same kind with the photo's
# metadata; yours are only read. Files that are no photos are listed with the reason. In a terminal,
# `python -m colorlib PHOTO_OR_FOLDER` does the same.

# %%
if upload and runtime.platform() == "colab":
    from google.colab import files as colab_files

    uploads = runtime.data_dir() / "uploads" / time.strftime("%Y-%m-%d_%H-%M-%S")
    own_photos = str(runtime.writable(uploads, "COLORLIB_DATA"))
    for name, content in colab_files.upload().items():
        (uploads / name).write_bytes(content)
print("Your photos:", own_photos or "none given")

# %% [markdown]
# Each network, each setting and each folder of photos has its own folder of results, below `runs/coloured`.

# %%
painter = runs.open_run("shipped") if colour_with == "shipped weights" else run
settings = (
    f"{painter.name}-{painter.facts['sha256'][:8]}-strength-{strength:g}" + "-beside" * beside
)
if own_photos:
    network = painter.model()
    if hasattr(network, "T"):
        network.T, settings = temperature, f"{settings}-temperature-{temperature:g}"
    source = "_".join(Path(own_photos).expanduser().resolve().parts[1:])
    out = runtime.runs_dir() / "coloured" / settings / source
    coloured = colorize_files(
        network, own_photos, out, painter.recipe.size, strength, beside=beside
    )
    plots.show_table(coloured)
else:
    print("Give the path of a photo or a folder as own_photos above, or tick upload in Colab.")

# %% [markdown]
# The first of them. What was uploaded to Colab comes back as one archive.

# %%
if own_photos:
    good = coloured[coloured.coloured != ""].head(4)[["photo", "coloured"]]
    pairs = [[photos.open_photo(path) for path in pair] for pair in good.to_numpy()]
    if pairs:
        figure = plots.grid(pairs, ["the photo", "coloured"], side=3)
        plots.show(figure, "04_own_photos", "Your photos, and the same coloured")
    if pairs and upload and runtime.platform() == "colab":
        colab_files.download(shutil.make_archive(str(out), "zip", out))

# %% [markdown]
# ## Make a blinded sheet
# Document 000 showed five people five real and five coloured photos and asked which ones a machine had coloured. Here
# is such a sheet, from the test photos. Nothing on it tells the answer: a draw decides which photos are coloured, no
# photo appears in both forms, and all go through the same resizing. The key goes to a file of its own. Do not open it.
# (The sample's test photos are overlapping crops of two scenes, so that its sheet is an exercise only.)

# %%
n_photos = min(10, len(files))
order = np.random.default_rng((sheet_seed, 1)).permutation(len(files))[:n_photos]
key = study.draw_key(n_photos, n_photos // 2, sheet_seed)
folder = runtime.writable(runtime.runs_dir() / "study" / f"{model_name}-sheet{sheet_seed}")
key.to_csv(folder / "key.csv", index=False)
print(f"The key is in {folder}")

# %% [markdown]
# The sheet:

# %%
truths = [photos.open_photo(files[i]) for i in order]
made = [
    colorize(model, rgb, side) if coloured else rgb for rgb, coloured in zip(truths, key.coloured)
]
tiles, numbers = [study.tile(rgb) for rgb in made], key.number.astype(str).tolist()
rows = [tiles[i : i + 5] for i in range(0, n_photos, 5)]
captions = [numbers[i : i + 5] for i in range(0, n_photos, 5)]
plots.show(plots.grid(rows, captions=captions, side=2.2), "04_sheet", "The sheet: numbered photos")

# %% [markdown]
# ## Score the answers
# Show the sheet to some people, each alone. Each names the numbers that a machine coloured. Write one person after
# the other into `answers` above, with semicolons between them: `1 4 7 8; 2 3; none`, and run the notebook from there.
#
# As long as there are no answers, **simulated** people answer, who are right as often as the published 57 %. Then the
# table below is an exercise and not a result.

# %%
given = study.parse_answers(answers, n_photos) if answers.strip() else None
label = "answers of real people" if given else "SIMULATED answers, right with probability 0.57"
score = study.score(key, given or study.simulate_answers(key, 5, 0.57))
score.to_csv(folder / ("score.csv" if given else "score_simulated.csv"))
print(f"{len(score) - 1} participants, {label}")
plots.show_table(score.round(2))

# %% [markdown]
# Guessing gives 0.5. If the interval of the last row contains that, the answers do not show that anyone can tell.

# %%
everyone = score.loc["all"]
low, high = everyone["from"], everyone["to"]
tells = "contains" if low <= 0.5 <= high else "does not contain"
print(f"{label}: accuracy {everyone.accuracy:.2f}, interval {low:.2f} to {high:.2f}.")
print(f"The interval {tells} 0.5, the accuracy of guessing.")

# %% [markdown]
# And this is what others published. If each of the five people judged all ten photos, the 57 % come from 50 judgements:
# 28 right would be 56 %, 29 would be 58 %, and with either the interval reaches well below one half.

# %%
published = recipes.PUBLISHED[recipes.PUBLISHED.data == "study"].drop(columns="data")
plots.show_table(published.reset_index(drop=True))
for right in (28, 29):
    low, high = stats.binomtest(right, 50).proportion_ci(method="exact")
    print(f"{right} right of 50 is {right / 50:.0%}, 95 % interval {low:.2f} to {high:.2f}")

# %% [markdown]
# ## Recap
# - Photos from outside the training set show what the error hides.
# - A sheet is blind when a draw decides, both kinds are treated alike, and the key stays away.
# - With five people and ten photos the interval is so wide that 57 % says almost nothing.
#
# Back to [`01_data`](01_data.ipynb): choose more photos, and see how much changes.
