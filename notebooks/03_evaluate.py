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
# How good is the network, on photos that it has never seen, compared with what, and where does it fail?
#
# **What you will do**
# - measure each photo in several ways, beside the floors, and put intervals around the means;
# - fill in the tables of documents 000 and 001, for the data sets that you have;
# - test what the documents say about failures: by kind of scene, by colour, by saturation, by detail;
# - look at the best, the middle and the worst results, with maps of the errors.
#
# **What you will learn:** how to read a published error, and why the photos behind it matter more than its digits.
#
# **What you need:** a run of `02_train`, the newest is taken; without one, the weights that come with the project.
# A GPU helps with large test sets only; the time on a T4 has not been measured. It leaves tables and the numbers of
# each photo in `runs/evaluation/`, and in Drive with `use_drive`.

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
import torch

from colorlib import color, evaluation, failures, loading, losses, metrics, photos, plots, recipes
from colorlib import runs, runtime, scenes, tables, training
from colorlib.colorize import colorize

# %% [markdown]
# The last four fields take data sets by name, or folders with photos of them or like them: `cvpr09` and `celeba` fetch
# their official test parts, the name of the set that the network was trained on means its test photos, and any other
# name a set that is prepared whole for it, which may take long. An empty field leaves its lines without figures of ours. At most `max_photos` of each are used, drawn at random (document 000 used
# 10,000 of ImageNet), and for the slower measures at most `picture_photos` of these. With `every_recipe` the newest run
# of each recipe is measured that was trained on the same photos; `released_network` adds Zhang's own, a download of
# 129 MB.

# %%
every_recipe = False  # @param {type: "boolean"}
released_network = "auto"  # @param ["auto", "yes", "no"]
imagenet_photos = ""  # @param {type: "string"}
cvpr09_photos = ""  # @param {type: "string"}
celeba_photos = ""  # @param {type: "string"}
places365_photos = ""  # @param {type: "string"}
max_photos = 10000  # @param {type: "integer"}
picture_photos = 1000  # @param {type: "integer"}

print(runtime.describe())
run, prepared = training.newest_or_shipped(mirror)
recipe, workers = run.recipe, runtime.preset().workers

# %% [markdown]
# The networks to measure.

# %%
chosen = {recipe.name: run}
for other in runs.all_runs(runtime.runs_dir(), mirror and mirror / "runs") if every_recipe else ():
    if other.facts["data"]["fingerprint"] == run.facts["data"]["fingerprint"]:
        chosen.setdefault(other.recipe.name, other)
networks = {name: evaluation.Predictor.of(each) for name, each in chosen.items()}
mine, mean = networks[recipe.name], run.facts["train_mean"]
if {"yes": True, "no": False}.get(released_network, runtime.preset().released):
    released = evaluation.Predictor.eccv16(mean, cache=mirror and mirror / "data")
    networks[released.name if released else evaluation.NO_ECCV16] = released
print("To be measured:", ", ".join(networks))

# %% [markdown]
# ## Measure, photo by photo
# The numbers of each photo are kept, not only their means, because the question is always "which photos?". They go
# into a file as they are found: stopped, this cell goes on where it was. A photo that cannot be read is a row with its
# reason. (Places205 has no test photos in its published split: then only validation is measured.)


# %%
out, kept = (root and root / "evaluation" / run.name for root in (runtime.runs_dir(), mirror))
if kept and not out.is_dir():  # what an earlier session measured
    evaluation.keep(kept, out)


def measure(files, name):
    """For each network a row per photo, also in a file."""
    how = {"size": recipe.size, "resize": recipe.resize, "part": picture_photos, "workers": workers}
    rows = {}
    for label, network in networks.items():
        path = out / f"{name}-{runtime.slug(label)}.csv"
        rows[label] = network and evaluation.measure(network, files, path, **how)
        evaluation.keep(out, kept)
    print(f"{name}: {tables.counted(rows)}")
    return rows


# %% [markdown]
# What is known of one photo, here the first validation photo: the error on the scale of all published figures (`mse`, on
# `ab_unit`), the same in plain `ab` units (`mse_ab`, `rmse_ab`), and the errors of answers that need no network: all
# grey, the training photos' mean colour, and an oracle's, the photo's own mean. `explained` is 1 less the error's
# ratio to that of the training photos' mean colour: 1 is perfect, 0 no better than that colour. `chroma` is how far the colours are from grey. The rest is about the picture put
# together: the difference as people see it (CIEDE2000), PSNR and SSIM, and how colourful it looks.

# %%
files = {part: prepared.files(part) for part in ("val", "test") if prepared.files(part)}
measured = {part: measure(files[part], part) for part in files}
first = measured["val"][recipe.name].iloc[:1]
plots.show_table(first[["file", "fault", *evaluation.COLUMNS]].T)

# %% [markdown]
# ## Set it beside the floors
# Means over photos. The bracket behind each tells how far it would move with other photos of the same kind: the photos
# are drawn anew 2,000 times, with replacement, and 95 % of the means lie in it. `explained` is the line that matters, a
# skill score: 1 - MSE / MSE of the training photos' mean colour, both of them means over all photos. Above 0 the network
# knows something about colour, below 0 its guesses do harm. The sample's crops overlap and come from few scenes, so for
# them the brackets are narrower than they should be. For fewer than 20 photos there are none: they could not be believed.

# %%
for part, rows in measured.items():
    table = tables.table(rows)
    tables.save(table, out / f"table-{part}")
    print(f"{prepared.name}, {part}")
    plots.show_table(tables.readable(table).T)

# %% [markdown]
# Look at the line of all grey: many a measure is kind to it. Most of a picture is its lightness, which is given, so that
# SSIM and PSNR are high whatever the colour; and a dull answer is never far from anything. That is why a number without
# its floors says so little. In words, with the difference to the mean colour photo by photo, which is known better than
# the two means are; and so are other networks compared with the first one, if there are any:

# %%
for part, rows in measured.items():
    ours = rows[recipe.name]
    floor = ours.assign(mse=ours.mse_train_mean)
    gap = tables.difference(ours, floor)
    verdict = "BETTER" if gap["to"] < 0 else "WORSE" if gap["from"] > 0 else "not clearly different"
    print(f"{part}: {verdict} than the mean colour; the MSE differs by {gap.difference:+.5f}")
    low, high, share = gap["from"], gap["to"], gap["first lower"]
    print(f"({low:+.5f} to {high:+.5f}), and is lower on {share:.0%} of the photos.")
    if len(rows) > 1:
        table = tables.differences(rows)
        tables.save(table, out / f"differences-{part}")
        plots.show_table(tables.readable(table))

# %% [markdown]
# With the sample, expect a gap. Its validation photos are parts of the scenes that the network was trained on; its test
# photos are a cat and a rocket at night, and nothing in three scenes tells what colour those are. The training photos'
# mean colour does not help there either. More photos of more kinds are the cure: choose `places365` in `01_data`.
#
# ## Fill in the published tables
# Document 000 reports one number for each of three data sets, document 001 one for each of three networks. Published
# figures are labelled as published, with what is unknown about them. Ours stand beside them only where you gave photos,
# with the floors on those same photos. All networks are measured on the same pixels, at the side that the newest run was
# trained on (224 in document 000).

# %%
sources = {"ImageNet": imagenet_photos, "CVPR09": cvpr09_photos, "CelebA": celeba_photos}
sources["Places365"] = places365_photos
given = {}
for name, source in sources.items():
    try:
        if source:
            own = prepared.folder if source == prepared.name else source
            tested = evaluation.held_out(own, mirror and mirror / "data", max_photos)
            rows = measure(tested, name)
            tables.table(rows)  # an error, if none of them could be read
            given[name] = rows
    except (OSError, ValueError) as error:
        print(f"{name} is left out: {error}")
print("Measured:", ", ".join(given) or "nothing, no photos were given")

# %% [markdown]
# The two tables:

# %%
known = {}
for name, found in given.items():
    known |= {(label, name): rows for label, rows in found.items() if rows is not None}
for source in ("document 000", "document 001"):
    table = tables.beside_published(source, known)
    tables.save(table, out / f"table-{runtime.slug(source)}")
    plots.show_table(tables.readable(table))

# %% [markdown]
# ## What nobody noticed
# Document 000 gives 0.0058 on CelebA and 0.0047 on CVPR09, and says that its network does poorly with people and
# indoors. How poorly? Here are the floors on photos like those of the three data sets. They are not the document's
# photos, which it does not name; they are ours, measured as the README says.

# %%
stated = recipes.PUBLISHED.query("source == 'document 000' and measure == 'MSE'").set_index("data")
like = recipes.LIKE_000.rename(columns=metrics.FLOORS)
like.insert(1, "published by document 000", stated.published)
grey, flat = like[metrics.FLOORS["grey"]], like[metrics.FLOORS["train_mean"]]
like["published / all grey"] = (stated.published / grey).round(2)
like["published / mean colour"] = (stated.published / flat).round(2)
tables.save(like, out / "table-floors-of-document-000")
plots.show_table(like)
plots.show(
    plots.beside_floors(like), "03_floors", "Published errors of document 000 beside the floors"
)

# %% [markdown]
# If its faces were like these, **a network with an error of 0.0058 is worse than leaving them grey**, which costs 0.0038;
# and so is one with 0.0047 indoors, where grey costs 0.0042. If its ImageNet photos were like these, its 0.0027 is 0.76 of
# the mean colour's error, and that network did learn something. These are the middles of photos; whole ones squashed to
# 224 x 224, as in the document, say it louder: 1.64 and 1.17 of all grey, and 0.78 of the mean colour. Without the floors,
# the three numbers look like three grades of good. (Other explanations are possible: other photos, or another scale. With
# the floors printed, there would be no doubt.)
#
# Document 001 also graded its results by eye, in "estimated percentages". It gives no count. If the estimate was made by
# counting, the decimals tell of how many:

# %%
graded = recipes.PUBLISHED[recipes.PUBLISHED.measure.str.startswith("graded")]
graded = graded.set_index("measure").published.rename_axis("kind")
n = next(n for n in range(1, 10_000) if ((graded * n).round() / n).round(4).equals(graded))
counts = (graded * n).round().astype(int).to_dict()
print(f"The smallest number of photos with these percentages is {n} (inferred, not published).")
tables.save(tables.shares(counts), out / "table-grades-of-document-001")
plots.show_table(tables.readable(tables.shares(counts)))

# %% [markdown]
# So "around 82 % with an acceptable quality" is 139 of 170 photos, if there were so few, judged by the network's authors.
#
# ## Where it fails: by kind of scene
# Document 000: "performs well with animals and scenery but poorly with people and in-door scenes". Groups come from the
# folders' names, for ImageNet, Places, CVPR09 and CelebA in coarse kinds; else each folder, or each series of files, is
# one. A group's own floor counts: an error may be low because there is little colour to miss.

# %%
classes = {}
if prepared.name in ("places365", "places365-large"):  # their paths do not tell the kind of scene
    try:
        classes = scenes.places_val_classes(runtime.data_dir(), [mirror / "data"] if mirror else [])
    except OSError as error:
        print(f"Without the official list of classes: {error}")
by_scene = {}
for name, rows in (measured | given).items():
    rows = rows[recipe.name]
    groups = [group or name for group in scenes.of_files(rows.file, classes)]
    by_scene[name] = tables.by_group(rows, groups)

# %% [markdown]
# The best first, by the share of the mean colour's error that the network does away with:

# %%
for name, table in by_scene.items():
    tables.save(table, out / f"scenes-{runtime.slug(name)}")
    print(name)
    plots.show_table(tables.readable(table))
figure = plots.intervals(by_scene, "explained", reference=0)
plots.show(figure, "03_scenes", "Share of the mean colour's error explained, by kind of scene")

# %% [markdown]
# ## By colour
# Document 001: good "at predicting green and blue", not good "at predicting yellow and red", because there are fewer of
# these to learn from, "one possible reason". So the pixels of the validation and test photos are sorted by their true hue
# (nothing was trained on them; validation only chose the epoch). Beware of the floor here: the training photos' mean
# colour is a warm one, so that it is a hard rival where the truth is yellow and an easy one where it is blue. All grey
# takes no side: below 1, `MSE ratio to grey` says that a network's guess helps with that hue.

# %%
looked_at = [file for part in files.values() for file in part]
looked_at = loading.evenly(looked_at, min(len(looked_at), 2000))
how = {"size": recipe.size, "resize": recipe.resize, "workers": workers}
sums = failures.by_pixel(mine, looked_at, **how)
by = {way: failures.table_of(part) for way, part in sums.items()}
for way, table in by.items():
    tables.save(table, out / f"pixels-{way}")
plots.show_table(tables.readable(by["hue"]))
plots.show(
    plots.hue_wheel(by["wheel"]), "03_hues", "Share, error and colour strength by the true hue"
)

# %% [markdown]
# The dashed circle is 1: as wrong as grey, and as strong as the truth. Near grey (in most sets nearly half of the
# pixels) nearly any colour is too much, and a network that never dares to paint is best.
#
# ## By saturation, and why it is brown
# How strong are the guesses where the truth is strong? On the dashed line they would be as strong as the truth.

# %%
sums_of = {recipe.name: sums["chroma"]}
for label, network in networks.items():
    if network and label != recipe.name:
        sums_of[label] = failures.by_pixel(network, looked_at, **how)["chroma"]
plots.show_table(tables.readable(by["chroma"]))
figure = plots.saturation({name: failures.strength(part) for name, part in sums_of.items()})
plots.show(figure, "03_saturation", "Predicted chroma against true chroma")

# %% [markdown]
# The stronger the true colour, the more of it is missing; only the sample's network, which knows its three scenes by
# heart, keeps up for a while. That is no accident: it is what squared error asks for. Think
# of a network that sees a single pixel, its lightness and nothing else. It can only learn how often each colour occurs at
# that lightness, here counted in the training photos. The row shows what it paints, from dark to light.

# %%
limits, counts = failures.colours_by_lightness(prepared.files("train"), workers=workers)
bins, L = color.ab_bins(), torch.tensor(limits[1:] + limits[:-1]) / 2
counts[counts.sum(dim=1) == 0] += counts.sum(dim=0)  # a band no photo has: as all of them
logits = counts.clamp(min=1e-9).log().float()
rare = losses.class_weights(counts.sum(0) / counts.sum()).log().float()
answers = {"the mean (squared error)": (0, 1), "the likeliest": (0, 0)}
answers |= {"the mean, rare ones weighted": (rare, 1), "sharpened to T = 0.38": (rare, 0.38)}
rows = {}
for name, (weight, T) in answers.items():
    ab = losses.annealed_mean((logits + weight).T[None, :, :, None], bins, T)[0, :, :, 0].T
    rows[name] = L, ab
figure = plots.swatches(rows, [f"L {value:.0f}" for value in L])
plots.show(figure, "03_brown", "What a network paints that knows nothing but a pixel's lightness")

# %% [markdown]
# **The mean of all colours is brown**: that is the whole secret. A network that sees more than one pixel does the same
# wherever it is in doubt. Choosing the likeliest colour instead makes grey of nearly everything, since grey is what occurs
# most. With rare colours weighted, as in Zhang's loss, and a sharpened mean, colour comes back, at the price of a larger
# squared error. With a network that was trained to choose (02 compares some), the price can be measured:

# %%
folders = (runtime.runs_dir(), mirror and mirror / "runs")
found = (each for pattern in ("*", "*/*") for each in runs.all_runs(*folders, pattern))
alike = (each for each in found if each.facts["data"]["fingerprint"] == prepared.fingerprint)
chooser = next((each for each in alike if each.recipe.loss == "cross-entropy"), None)
if chooser:
    network = evaluation.Predictor.of(chooser)
    table = failures.by_temperature(network, looked_at, [1, 0.7, 0.38, 0.2, 0], **how)
    tables.save(table, out / "temperatures")
    print(f"{chooser.dir}, {len(looked_at)} photos:")
    plots.show_table(tables.readable(table))
else:
    print("No network that chooses was trained on these photos: train `zhang`, or compare in 02.")

# %% [markdown]
# ## Small things before busy or blurred backgrounds
# Document 000: "fails to capture small details when the background is complex or blurred". A small thing is, here, what
# fills less than half of a square around it (about a 6th of the photo's side), in another colour than the rest of it. The
# rest is busy or plain by how much lightness varies in it; blurred, it would count as plain. Only pixels with a chroma of
# over 15 are compared, so that small and large are about as colourful. The second table and figure ask of all pixels: does
# the error grow with the contrast around them?

# %%
for way in ("detail", "contrast"):
    plots.show_table(tables.readable(by[way]))
two = {"small things": by["detail"], "contrast of lightness": by["contrast"]}
figure = plots.intervals(two, "explained", reference=0)
plots.show(figure, "03_details", "Share explained, for small things and by local contrast")

# %% [markdown]
# ## Look at the best, the middle, the worst, and some at random
# The photos are chosen by their error and by a seed, never by hand. Beside each: grey, truth, prediction, and where it is
# wrong, from black (right) to yellow (off by 60 or more). First the validation photos.


# %%
def extremes(rows, part, per_row=2):
    ranked = rows.dropna(subset="mse").sort_values("mse")
    half, n = len(ranked) // 2, min(per_row, len(ranked))
    groups = {"best": ranked[:n], "middle": ranked[half:][:n], "worst": ranked[-n:]}
    groups["random"] = ranked.sample(n, random_state=0)
    pictures, captions = [], []
    for group, chosen in groups.items():
        pictures.append([])
        for truth in map(photos.open_photo, chosen.file):
            painted = colorize(mine.model, truth, recipe.size)
            pictures[-1] += [plots.grey(truth), truth, painted, plots.error_map(painted, truth)]
        captions.append([x for mse in chosen.mse for x in (f"{group}: MSE {mse:.5f}", "", "", "")])
    figure = plots.grid(pictures, ["grey", "truth", "prediction", "error"] * n, captions)
    plots.show(figure, f"03_{part}", f"Best, middle, worst and random {part} photos")


extremes(measured["val"][recipe.name], "val")

# %% [markdown]
# And the test photos:

# %%
if "test" in measured:
    extremes(measured["test"][recipe.name], "test")

# %% [markdown]
# ## Recap
# - An error is a mean over photos: it needs an interval, and the floors on the same photos.
# - Published figures without floors cannot be judged, and without the photos cannot be repeated.
# - Squared error asks for the mean of what might be, and that is brown.
# - What a document says about its failures can be tested: sort the pixels or the photos, and measure.

# %%
evaluation.keep(out, kept)
tables_made = sorted(path.name for path in out.glob("*.md"))
print(f"In {kept or out}: the numbers of each photo, and {', '.join(tables_made)}")

# %% [markdown]
# Next: [`04_qualitative_study`](04_qualitative_study.ipynb) asks people instead of numbers.
