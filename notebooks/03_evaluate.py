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
# # 03 · Evaluate it
# *In Colab: upload this notebook, put the project's folder into your Drive as `colorization`, tick `use_drive`.*
#
# How good is the network, on photos that it has never seen, and compared with what?
#
# **What you will do**
# - measure the error on test photos, beside the floors, with an interval;
# - fill in the table of document 000, for the data sets that you have;
# - look at the best, the middle and the worst results.
#
# **What you will learn:** how to read a published error, and why the photos behind it matter more than its digits.
#
# **What you need:** a run of `02_train`, the newest is taken; without one, the sample is trained for about a minute.
# A GPU helps with large test sets only; the time on a T4 has not been measured. It leaves tables in the runs folder.

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
import pandas as pd

from colorlib import data, evaluation, loading, photos, plots, recipes, runtime, training
from colorlib.colorize import colorize

# %% [markdown]
# The three fields name folders with photos of the data sets that document 000 was tested on, or folders of other
# photos like them. An empty field leaves its row without a figure of ours; nothing is downloaded. At most `max_photos`
# of each folder are used, drawn at random; document 000 used 10,000 of ImageNet.

# %%
imagenet_photos = ""  # @param {type: "string"}
cvpr09_photos = ""  # @param {type: "string"}
celeba_photos = ""  # @param {type: "string"}
max_photos = 10000  # @param {type: "integer"}

print(runtime.describe())
run, prepared = training.newest_or_sample(mirror)
model, recipe, workers = run.model(), run.recipe, runtime.preset().workers

# %% [markdown]
# ## Measure the error, photo by photo
# The error of each photo is kept, not only the mean, because the question is always "which photos?". The interval
# tells how much the mean would move with other photos of the same kind: it is found by drawing the photos anew, with
# replacement, 2,000 times. (Places205 has no test photos in its published split: then only validation is measured.)


# %%
def measure(files):
    photo_set = loading.Photos(files, recipe.size, recipe.resize)
    return evaluation.evaluate(model, photo_set, run.facts["train_mean"], workers=workers)


splits = {"val": "validation", "test": "test"}
errors = {
    name: measure(prepared.files(split)) for split, name in splits.items() if prepared.files(split)
}
for split, rows in errors.items():
    rows.to_csv(runtime.writable(run.dir) / f"{split}_errors.csv", index=False)
    print(f"{len(rows)} {split} photos; all their errors are in {run.dir / f'{split}_errors.csv'}")
    plots.show_table(rows.describe().loc[["mean", "min", "50%", "max"]].round(5))

# %% [markdown]
# ## Set it beside the floors
# First the validation photos, then the test photos. `of the mean-colour floor` is the ratio that matters: below 1 the
# network knows something about colour, at 1 it knows nothing, above 1 its guesses do harm. The sample's crops overlap
# and come from few scenes, so for them the intervals are narrower than they should be.

# %%
name = f"{recipe.name} (starting weights: {run.facts['encoder_weights']})"
tables = {split: evaluation.table(rows, name) for split, rows in errors.items()}
for split, table in tables.items():
    table.to_csv(run.dir / f"table_{split}.csv")
    print(f"{prepared.name}, {split} photos")
    plots.show_table(evaluation.style(table))

# %% [markdown]
# In words:

# %%
for split, table in tables.items():
    ratio = table["of the mean-colour floor"].iloc[-1]
    grey = table.MSE.iloc[-1] / table.MSE.iloc[0]
    verdict = "better" if ratio < 1 else "WORSE"
    print(f"{split}: {verdict} than the mean colour, with {ratio:.2f} of its error,")
    print(f"and with {grey:.2f} of the error of all grey.")

# %% [markdown]
# With the sample, expect a gap. Its validation photos are parts of the scenes that the network was trained on; its test
# photos are a cat and a rocket at night, and nothing in three scenes tells what colour those are. The training photos'
# mean colour does not help there either. More photos of more kinds are the cure: choose `places365` in `01_data`.

# %% [markdown]
# ## Fill in the published table
# Document 000 reports one number for each of three data sets. It does not say which photos they were, nor how well a
# trivial answer does on them. Published figures are labelled as published. Ours stand beside them only where you gave
# photos, with the floors on those same photos. Grey photos are kept here, since the document kept them, and each is
# measured at the side in pixels that the network was trained on (224 in the document).

# %%
folders = {"ImageNet": imagenet_photos, "CVPR09": cvpr09_photos, "CelebA": celeba_photos}
measured = {}
for name, folder in folders.items():
    if folder:
        store = mirror and mirror / "data"
        tested = data.ready(folder, store, val=0, test=1, keep_grey=True, limit=max_photos)
        measured[name] = measure(tested.files("test"))
        measured[name].to_csv(run.dir / f"errors_{name}.csv", index=False)
print("Measured:", ", ".join(measured) or "nothing, no folder was given")

# %% [markdown]
# And the table:

# %%
published = recipes.PUBLISHED.query("source == 'document 000' and measure == 'MSE'")
lines = published.set_index("data")[["published"]].add_suffix(" by document 000")
columns = ["ours", "from", "to", *evaluation.FLOORS.values()]
ours = pd.DataFrame(index=lines.index, columns=columns, dtype=float)
for name, rows in measured.items():
    floors = [rows[floor].mean() for floor in evaluation.FLOORS]
    ours.loc[name] = [rows.mse.mean(), *evaluation.interval(rows.mse), *floors]
comparison = lines.join(ours)
comparison["photos"] = [len(measured.get(name, [])) for name in comparison.index]
comparison["side"] = recipe.size
comparison.to_csv(run.dir / "table_published.csv")
shown = comparison.round(5).astype(object)
plots.show_table(shown.fillna({"ours": "no photos given"}).fillna(""))

# %% [markdown]
# ## Look at the best, the middle and the worst
# The photos are chosen by their error alone, never by hand. First the validation photos, where the sample's network
# does well, then the test photos.


# %%
def extremes(rows, split, per_row=2):
    ranked = rows.sort_values("mse")
    starts = {"best": 0, "middle": (len(rows) - per_row) // 2, "worst": len(rows) - per_row}
    pictures, captions = [], []
    for group, start in starts.items():
        pictures.append([])
        captions.append([])
        for row in ranked[start : start + per_row].itertuples():
            truth = photos.open_photo(row.file)
            pictures[-1] += [plots.grey(truth), truth, colorize(model, truth, recipe.size)]
            captions[-1] += [f"{group}: MSE {row.mse:.5f}", "", ""]
    figure = plots.grid(pictures, ["grey", "truth", "prediction"] * per_row, captions)
    plots.show(figure, f"03_{split}", f"Grey, truth and prediction of {split} photos")


for split, rows in errors.items():
    extremes(rows, split)

# %% [markdown]
# ## Recap
# - An error is a mean over photos: it needs an interval, and the floors on the same photos.
# - Validation on the training scenes flatters; test photos from elsewhere tell the truth.
# - Published figures without floors cannot be judged, and without the photos cannot be repeated.
#
# Next: [`04_qualitative_study`](04_qualitative_study.ipynb) asks people instead of numbers.
