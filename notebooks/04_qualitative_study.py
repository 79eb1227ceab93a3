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
# - make a page of real and coloured photos to send to friends, and score what they answer.
#
# **What you will learn:** how to ask people without telling them the answer, and how little ten photos and five
# people prove.
#
# **What you need:** a run of `02_train`, the newest is taken; without one, the weights that come with the project.
# No GPU; the time on a T4 has not been measured. It leaves coloured photos, the page of the study, its key and a report
# in the runs folder.

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

from colorlib import collecting, loading, photos, plots, recipes, runs, runtime, sample, scoring
from colorlib import study, tables, training, widgets
from colorlib.colorize import colorize, colorize_files

# %% [markdown]
# `own_photos` is a photo or a folder of yours, in colour or not: only its lightness is used. In Colab, tick `upload`
# to choose files on your computer. They are coloured by the weights that come with the project, or by your newest run.
# `strength` multiplies the colours, `beside` puts each photo beside its result, and `temperature` is for networks that
# choose among colours: lower is more vivid.

# %%
own_photos = ""  # @param {type: "string"}
upload = False  # @param {type: "boolean"}
colour_with = "shipped weights"  # @param ["shipped weights", "newest run"]
strength = 1.0  # @param {type: "slider", min: 0, max: 2, step: 0.05}
beside = False  # @param {type: "boolean"}
temperature = 0.38  # @param {type: "slider", min: 0, max: 1, step: 0.02}

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
# question whether one would believe the result. The last row is by the weights that come with the project, which have
# seen 16,000 photos. (A network that was trained on the sample's three scenes will not convince you.)

# %%
greys = [skimage.data.camera(), skimage.data.coins(), skimage.data.grass(), skimage.data.page()]
greys = [np.repeat(grey[..., None], 3, axis=2) for grey in greys]
networks = {f"coloured by {r.name}": r for r in (run, runs.open_run("shipped"))}
rows = [greys]
for network in networks.values():
    rows.append([colorize(network.model(), grey, network.recipe.size) for grey in greys])
figure = plots.grid(rows, captions=["grey", *networks], side=2.4)
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
how = {"side": painter.recipe.size, "strength": strength, "beside": beside}
settings = f"{painter.name}-{painter.facts['sha256'][:8]}-{strength:g}{'-beside' * beside}"
if own_photos:
    network = painter.model()
    if hasattr(network, "T"):
        network.T, settings = temperature, f"{settings}-T{temperature:g}"
    source = "_".join(Path(own_photos).expanduser().resolve().parts[1:])
    out = runtime.runs_dir() / "coloured" / settings / source
    coloured = colorize_files(network, own_photos, out, **how)
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
# ## Compare two pictures
# The truth and the guess, one over the other. Move the border with the mouse, a finger or the arrow keys. (A run
# on the sample does not train on the cat.)

# %%
rgb = skimage.data.chelsea()
widgets.show_slider(rgb, colorize(model, rgb, side), ("the truth", "the prediction"), "04_slider")

# %% [markdown]
# ## A colour Turing test with five friends
# Document 000 showed five people five real and five coloured photos; none found all the coloured ones. Here is how to
# do that again: this notebook makes one file, a page with the photos in it, which works without network, on a phone
# too. You send it to your friends, they send back a small file or a text, and the cells below score it.
#
# `study_kind` is `real` (real or coloured?) or `grade` (success, medium or failure, beside the original, as in
# document 001); `n_coloured` of the `n_photos` are coloured. `study_photos` is a folder of photos of yours; without
# one, scikit-image's eight are used, on which you can try everything, but not prove anything: they are few, and a run
# on the sample is trained on three of them. With `seconds_per_photo` each photo goes away after so long. Another
# `study_name` makes another page; the same name finds the one that you have sent.

# %%
study_name = "first"  # @param {type: "string"}
study_kind = "real"  # @param ["real", "grade"]
study_photos = ""  # @param {type: "string"}
n_photos = 10  # @param {type: "integer"}
n_coloured = 5  # @param {type: "integer"}
n_practice = 2  # @param {type: "integer"}
all_at_once = False  # @param {type: "boolean"}
seconds_per_photo = 0.0  # @param {type: "number"}
answers = ""  # @param {type: "string"}

# %% [markdown]
# Use photos of yours that nobody has seen and that nobody minds you sending. Photos of most data sets are for research
# and may not be passed on; if they come from one that this project knows, making the page warns you.

# %%
if study_photos:
    pool = photos.find_photos(study_photos)
else:
    others = ("hubble_deep_field", "retina", "immunohistochemistry")
    pool = sample.scenes() | {name: getattr(skimage.data, name)() for name in others}
    del pool["motorcycle_right"]  # the other eye's view of the left one
n_asked, n_photos = n_photos, min(n_photos, len(pool) - n_practice)
n_coloured = n_coloured * n_photos // max(n_asked, 1)  # as many of the fewer that there are
print(f"{len(pool)} photos to draw from: {n_photos} to judge, {n_practice} to practise on")

# %% [markdown]
# Which photos are coloured is drawn anew for each page. Nothing in the file tells which: all photos go through the same
# resizing and the same encoder, their data has one length, their names and their order are random, and no photo appears
# in both forms. The key is in a file of its own, which stays with you. Do not look into it before you have answered
# yourself. (With `use_drive` both are in Drive, and tomorrow's machine finds them.)

# %%
folder = (mirror or runtime.runs_dir()) / "study" / f"{runtime.slug(study_name)}-{study_kind}"
if (folder / study.KEY).exists():
    page = study.Study(folder)
else:
    how = {"together": all_at_once, "seconds": seconds_per_photo or None, "weights": model_name}
    how |= {"n_photos": n_photos, "n_coloured": n_coloured, "n_practice": n_practice}
    page = study.make(folder, pool, lambda rgb: colorize(model, rgb, side), study_kind, **how)
print(f"{len(page.key)} photos, made with {page.facts['weights']}. {page.facts['terms']}")
print(f"Send this file: {page.page} ({page.page.stat().st_size / 1e6:.1f} MB)")
print(f"Keep this one to yourself: {folder / study.KEY}")

# %% [markdown]
# Try it here. In Colab, find the file in the folder pane on the left and download it; attach it to a message. A phone
# must open it with a browser: where the mail program shows nothing but one line, save the file first.

# %%
title = f"The page of the study {study_name}, to try"
widgets.show_page(page.page, title)

# %% [markdown]
# ## Score the answers
# Put what your friends send back into the study's folder `answers` (files or zip archives), or give another folder, an
# archive or the pasted text as `answers` above, and run the notebook from there. What is broken, half-filled, there
# twice or from another page is left out, with the reason.
#
# As long as there are no answers, **simulated** people answer, as the sources say that theirs did: right in 57 % of
# cases, or grading 12 %, 69 % and 18 %. What follows is then an exercise and not a result, and says so. (It also shows
# some of the coloured photos: if you want to take part yourself, do so first.)

# %%
given, found = collecting.collect(page, answers if answers.strip() else folder / study.ANSWERS)
simulated, label = "", ""
if given.empty:
    shares = recipes.PUBLISHED[recipes.PUBLISHED.data == "study"].set_index("measure").published
    stated = shares.filter(like="graded" if study_kind == "grade" else "accuracy").tolist()
    given = scoring.simulate(page, 5 * [stated if study_kind == "grade" else stated[0]])
    simulated, label = "answers drawn at random with the published shares", "simulated: "
print(f"No answers yet: {simulated}" if simulated else "Answers of real people")
plots.show_table(found, "What was found in the answers")

# %% [markdown]
# Every interval is the exact one of Clopper and Pearson, 95 %. The last row's treats all judgements as independent;
# since several people judge the same photo, it is, if anything, too narrow.

# %%
table = (scoring.score if study_kind == "real" else scoring.grades)(page, given)
plots.show_table(tables.readable(table), f"{label}what each participant said")

# %% [markdown]
# With as many real photos as coloured ones, guessing is right half of the time. The test exchanges the photos' truth
# in every possible way and asks how often chance alone would be as far from that as these people are: unlike the
# interval, it knows that a photo which is easy for one is easy for all.

# %%
test = scoring.against_chance(page, given) if study_kind == "real" else None
column, chance = ("accuracy", test["chance"]) if test else ("success", None)
if test:
    print(f"{label}accuracy {test['accuracy']:.2f}, by chance {chance:.2f}, p = {test['p']:.2g}")
figure = plots.intervals({f"{label}95 % intervals": table}, column, chance)
plots.show(figure, "04_intervals", f"{label}{column} of each participant with its interval")

# %% [markdown]
# The coloured photos that fooled most people, and those that fooled fewest; or those that were graded best and worst.

# %%
rows = scoring.extremes(page, scoring.by_photo(page, given))
pictures = [[page.picture(photo) for photo in row.index] for row in rows.values()]
captions = [scoring.captions(page, row) for row in rows.values()]
figure = plots.grid(pictures, captions=captions, side=2.4)
figure.suptitle(f"{label}above: {', below: '.join(rows)}")
plots.show(figure, "04_fooled", f"{label}coloured photos that fooled most, and least")

# %% [markdown]
# This is what others published, beside it. Their photos, people and rules were others; Zhang's people saw each photo
# together with its coloured version and chose. If each of document 000's five people judged all ten photos, its 57 %
# come from 50 judgements: 28 right would be 56 %, 29 would be 58 %, and with either the interval contains one half.

# %%
compared = scoring.beside_published(page, table)
plots.show_table(tables.readable(compared), f"{label}our figures beside published ones")
for right in (28, 29):
    value, low, high = scoring.share(right, 50)
    print(f"{right} right of 50 is {value:.0%}, 95 % interval {low:.2f} to {high:.2f}")

# %% [markdown]
# All of this as one page to keep or to send, and the data as CSV beside it.

# %%
report = scoring.report(page, given, found, simulated)
print(f"The report: {report}")
widgets.show_page(report, f"{label}the report", height=700)

# %% [markdown]
# ## Recap
# - Photos from outside the training set show what the error hides.
# - A page is blind when a draw decides, both kinds are treated alike, and the key stays away.
# - With five people and ten photos the interval is so wide that 57 % says almost nothing.
#
# Back to [`01_data`](01_data.ipynb): choose more photos, and see how much changes.
