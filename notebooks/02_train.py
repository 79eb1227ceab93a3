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
# # 02 · Train the network
# *In Colab: upload this notebook, put the project's folder into your Drive as `colorization`, tick `use_drive`.*
#
# A network learns to guess a and b from L, before your eyes.
#
# **What you will do**
# - choose one of thirteen systems, read its recipe, and see the network's sizes, layer by layer;
# - write a training loop of a dozen lines and see it learn one batch;
# - look for a good learning rate;
# - train for real with `fit`, which is that loop made safe and fast, and watch the colours come;
# - let one network learn a single photo by heart, and another choose from 261 colours instead of computing one;
# - give several systems the same time on the same photos, and compare.
#
# **What you will learn:** what the loss rewards, how to tell learning from memorising, why the colours are often dull,
# and how a run goes on after an interruption.
#
# **What you need:** the photos of `01_data` (they are prepared again if missing). The sample takes about three minutes
# on two CPU cores. The published settings are meant for a T4; their time there has not been measured yet. It leaves a
# trained model for `03_evaluate` and `04_qualitative_study`.

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
# Well-known libraries first.

# %%
from dataclasses import asdict

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from skimage import data as samples
from skimage import transform

print(f"PyTorch {torch.__version__}, NumPy {np.__version__}, pandas {pd.__version__}")

# %% [markdown]
# Helpers come from `colorlib`; everything that is the lesson stands in this notebook.

# %%
from colorlib import color, colorize, comparison, data, loading, losses, models, photos
from colorlib import plots, recipes, runtime, trainer, training

print(runtime.describe())

# %% [markdown]
# - `recipe_name`: the system to train; the table below shows them all. `dataset`, `max_photos` and `keep_grey` are those
#   of `01_data`; empty and 0 mean the preset's.
# - `encoder_weights`: where the encoder starts: `imagenet`, `none`, or the path of a file with torchvision's weights.
# - `batch_size`, `n_epochs` and `learning_rate` replace the recipe's if they are not 0: smaller ones for few photos or
#   little time. So does `rebalance`: 0.5 lets rare colours count more, as the last section explains; 1 lets none.
# - `hours` ends the training cleanly so long after its cell was started; 0 is the preset's (11 with a GPU on Colab or
#   Kaggle, whose machines go away after 12: give less if the photos took long). `compile_network` tries `torch.compile`.
# - `compare`: the systems to compare, such as `beta, fusion`, and `compare_minutes`: how long each is trained; empty and
#   0 mean the preset's.
# - `run_name`: a run is kept in a folder of its own. To train the same recipe with other settings, give it a new name.

# %%
recipe_name = "resnet34"  # @param ["resnet34", "resnet18", "simple_cnn", "resnet34_x8", "resnet34_deep", "alpha", "beta", "fusion", "zhang", "zhang_mse", "autoencoder", "unet34", "unet18"]
dataset = ""  # @param ["", "sample", "places365", "places365-large", "places365-train", "places205", "imagenet", "imagenet-val", "imagenette", "imagenette-320", "imagenette-full", "imagewoof", "imagewoof-320", "imagewoof-full", "cvpr09", "celeba", "mirflickr-lab", "kaggle-5739"] {allow-input: true}
max_photos = 0  # @param {type: "integer"}
encoder_weights = "imagenet"  # @param ["imagenet", "none"] {allow-input: true}
keep_grey = False  # @param {type: "boolean"}
batch_size = 0  # @param {type: "integer"}
n_epochs = 0  # @param {type: "integer"}
learning_rate = 0.0  # @param {type: "number"}
rebalance = 0.0  # @param {type: "number"}
hours = 0.0  # @param {type: "number"}
compile_network = False  # @param {type: "boolean"}
compare = ""  # @param {type: "string"}
compare_minutes = 0.0  # @param {type: "number"}
run_name = ""  # @param {type: "string"}

# %% [markdown]
# The photos, from `01_data` if it has run:

# %%
dataset = dataset or runtime.preset().dataset
prepared = data.ready(
    dataset, mirror and mirror / "data", limit=max_photos or None, keep_grey=keep_grey
)
run_name = run_name or f"{recipe_name}-{prepared.name}"
print(f"{len(prepared.files('train')):,} photos to train on; the run is called {run_name}.")

# %% [markdown]
# ## Thirteen systems in one table
# Five students' documents describe these networks; two are ours. `parameters` are in millions, `multiply-adds` in
# billions for a photo of 224 x 224, `photos/s` is how fast this machine colours such photos, and `checkpoint` is the size
# in MB of what has to be saved to go on. `fusion` contains a classifier of 56 million numbers that is not trained.

# %%
systems = comparison.overview()
plots.show_table(systems)

# %% [markdown]
# What they have in common: L goes in, ab comes out, at the same size. What they differ in:
#
# - **Where they start.** From weights that know ImageNet's classes (`resnet…`, `unet…`), or from noise.
# - **What is in the middle.** 001's `simple_cnn` repeats each of its last findings over 8 x 8 pixels; 002's `fusion` asks
#   a classifier what the photo shows; the `unet`s hand edges across and add the average of the whole photo.
# - **What they are asked.** Most compute a colour and are judged by its squared error. `zhang` gives a probability to
#   each of 261 colours, and rare ones count more. `zhang_mse` is the same network, judged by the squared error: what the
#   author of document 003 fell back to.
#
# ## Read the recipe
# The settings of the chosen system are the `published` column: its document's, and where that is silent, those of the
# code or article behind it, or ours (the comments in `colorlib/recipes.py` tell which). Document 000 "unfroze more
# layers" of the encoder and does not say which; here all are trained. On a laptop, the preset `sample` makes everything
# smaller, so that the whole study takes minutes. On a Colab GPU both columns are the same, unless the photos are the few
# of the sample.

# %%
small = (
    dict(runtime.PRESETS["sample"].recipe_changes)
    if prepared.settings["source"] == "sample"
    else {}
)
chosen = {"batch_size": batch_size, "n_epochs": n_epochs, "lr": learning_rate}
chosen["rebalance"] = rebalance
changes = small | {name: value for name, value in chosen.items() if value}
if recipes.RECIPES[recipe_name].encoder_weights != "none":
    changes["encoder_weights"] = encoder_weights
recipe = recipes.get(recipe_name, **changes)
settings = pd.DataFrame({"published": asdict(recipes.RECIPES[recipe_name]), "here": asdict(recipe)})
settings["changed"] = ["*" if a != b else "" for a, b in zip(settings.published, settings.here)]
plots.show_table(settings)

# %% [markdown]
# ## Follow a photo through the network
# The first half makes the picture smaller while it finds out what is where. The second half turns these findings into
# two numbers for each pixel, and makes the picture large again.
#
# The first layer of a ResNet expects three colour channels. Ours gets one: grey. Document 000 sums the layer's weights
# over the colour channels, which is what the original computes when all three are equal. It fed `rgb2gray` of the
# photo; here the grey is the one whose lightness is the photo's L. The two are the same for neutral pixels, and differ
# a little for coloured ones.

# %%
model = models.build(recipe.model).eval()
sizes = []
for name, part in model.named_modules():
    last = name and not list(part.children())  # without parts of its own
    if name.count(".") == 1 or ("." not in name and last):  # such as encoder.layer1, or to_ab
        note = lambda _part, _x, y, name=name: sizes.append([name, tuple(y.shape[1:])])  # noqa: E731
        part.register_forward_hook(note)
with torch.no_grad():
    model(torch.full((1, 1, 224, 224), 50.0))  # a grey photo
sizes = pd.DataFrame(sizes, columns=["part", "output for (1, 224, 224)"])
plots.show_table(sizes.set_index("part"))
print(f"{sum(p.numel() for p in model.parameters()):,} parameters")

# %% [markdown]
# ## Train on one batch
# This is all there is to training. The photos arrive as bytes and are converted to L and ab on the device. The model
# sees L, its guess is compared with ab, and every weight moves a little in the direction that lowers the error.
# Learning eight photos by heart is no achievement, but a network that cannot even do that has a bug.

# %%
device = runtime.device()
photo_set = loading.Photos(prepared.files("train"), recipe.size, recipe.resize)
first = [photo_set[0, i] for i in range(min(8, len(photo_set)))]
rgb = torch.stack(first).to(device)  # (8, 3, size, size) uint8
L, ab = color.rgb_to_lab(rgb)  # (8, 1, size, size), (8, 2, size, size)
grey_floor = F.mse_loss(color.to_unit(torch.zeros_like(ab)), color.to_unit(ab)).item()
print(f"All grey has an MSE of {grey_floor:.5f} on these photos.")

# %% [markdown]
# And the loop:

# %%
torch.manual_seed(0)
model = models.build(recipe.model).to(device).train()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(31):
    loss = F.mse_loss(color.to_unit(model(L)), color.to_unit(ab))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 0:
        share = loss.item() / grey_floor
        print(f"step {step:2}: MSE {loss.item():.5f}, {share:.2f} of the all-grey floor")
assert loss.item() < grey_floor, "the network cannot learn eight photos: something is wrong"

# %% [markdown]
# ## Look for a good learning rate
# Too small a rate wastes time, too large a one breaks the network. A range test finds the border in a few dozen steps:
# the rate grows from each step to the next until the loss explodes. Where the loss is lowest, the rate is already close
# to too large. So a third to a tenth of that one is a maximum to try for the schedules that go up and down (`cyclic`,
# `one-cycle`); a constant rate has no calm end and wants to be nearer to the tenth. Document 001 tried several maxima
# for its cyclic rate and kept 0.01; document 000 has a constant 0.001. It depends on the data, the batch and the
# starting weights, so that it is worth a look. To use another rate than the recipe's, set `learning_rate`.

# %%
test = trainer.range_test(recipe, prepared, lowest=1e-4, highest=1.0, n_steps=60)
plots.show(plots.range_test(test), "02_range_test", "The loss while the learning rate grows")

# %% [markdown]
# ## Train for real
# `fit` is this loop over all photos, many times, with what a long run needs. Photos are mirrored at random; the network
# computes in 16-bit numbers where the hardware can; after every epoch come the validation error, the curves below and a
# strip of coloured photos; and a checkpoint is written then and every ten minutes.
#
# If the machine goes away or you press stop, **run this cell again**: it goes on where it was, and ends with the very
# weights of a run that nothing interrupted (on a CPU bit for bit). With `use_drive`, that also works on a new machine.
# The progress line says how fast it is and what share of the time it waits for photos: much waiting means that the
# processor cannot keep up with the GPU.
#
# The encoder starts from weights that learned ImageNet's thousand classes, if they can be fetched. If not, there is a
# warning, training starts from scratch, and the tables say so.
#
# Where there are several GPUs, as Kaggle's two T4s, `launch` starts a process for each: every one computes its part of
# each batch. In a terminal you do the same by this line, with a data set's name or a folder of photos for `DATA`, and
# for `RUN_DIR` the folder that is to hold the run:
#
# `torchrun --nproc-per-node 2 -m colorlib.training resnet34 DATA RUN_DIR`

# %%
what = recipe, prepared, runtime.runs_dir() / run_name, mirror and mirror / "runs" / run_name
how = {"hours": hours or runtime.preset().hours, "compile": compile_network}
watch = plots.live_curves("02_curves", "MSE by epoch, with the floors")
if torch.cuda.device_count() > 1 and not recipe.one_photo:
    run = training.launch(*what, **how)
else:
    run = training.fit(*what, after_epoch=watch, **how)
watch(run.history, run.facts["floors"], pause=0)
print(run)

# %% [markdown]
# ## Compare with the floors
# If the training error falls and the validation error does not, the network is learning the photos by heart. The
# circle in the figure marks the weights that are kept: those with the lowest validation error. The grey lines are the
# floors of `01_data`, on the same validation photos.

# %%
floors = run.facts["floors"]
best, mean_floor = run.facts["val_mse"], floors["train_mean"]
verdict = "beats" if best < mean_floor else "does NOT beat"
print(f"On its validation photos the network {verdict} the mean-colour floor:")
print(f"{best:.5f} against {mean_floor:.5f}; all grey is {floors['grey']:.5f}.")
print(f"The encoder's starting weights: {run.facts['encoder_weights']}.")
plots.show_table(run.history.tail(5).set_index("epoch"))

# %% [markdown]
# ## Watch the colours come
# The same validation photos, coloured after some of the epochs; the truth is in the last row. Early on everything
# gets the one mean colour. Then large areas part from each other, and small things come last, if at all.

# %%
strips = run.strips
shown = sorted({0, 1, 3, 10, run.facts["epoch"], max(strips)} & set(strips))
rows = [[photos.open_photo(path)] for path in [*(strips[epoch] for epoch in shown), run.truth]]
names = [f"after epoch {epoch}" if epoch else "before training" for epoch in shown] + ["the truth"]
figure = plots.grid(rows, captions=names, side=8)
plots.show(figure, "02_progress", "The same photos after some of the epochs")

# %% [markdown]
# ## Learn one photo by heart
# Document 002's first network, `alpha`, is trained and tested on one image, on purpose. Here is its thousand steps, at
# 128 x 128 (the article that the document reports on has 400 x 400, which takes ten times as long).


# %%
def lab_of(name):
    small_photo = transform.resize(getattr(samples, name)(), (128, 128))
    return color.photo_to_lab((255 * small_photo).astype(np.uint8))


torch.manual_seed(0)
L, ab = lab_of("astronaut")
alpha = models.build("alpha")
optimizer = torch.optim.RMSprop(alpha.parameters(), lr=1e-3)
for _ in range(1000):
    loss = losses.mse_per_photo(alpha(L), ab).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"MSE after 1,000 steps: {loss.item():.5f}")

# %% [markdown]
# The photo it knows, and one that it does not; MSE relative to the photo's own mean colour, the best that a single
# colour can do.

# %%
rows = []
for name in ("astronaut", "coffee"):
    L, ab = lab_of(name)
    with torch.no_grad():
        guess = alpha(L)
    mean = ab.mean(dim=(2, 3), keepdim=True).expand_as(ab)
    share = (losses.mse_per_photo(guess, ab) / losses.mse_per_photo(mean, ab)).item()
    print(f"{name}: {share:.2f} of its own mean colour's MSE")
    rows.append([plots.to_rgb(L, 0 * ab), plots.to_rgb(L, ab), plots.to_rgb(L, guess)])
figure = plots.grid(rows, ["grey", "the truth", "alpha"], side=2.2)
plots.show(figure, "02_alpha", "A photo learnt by heart, and another one")

# %% [markdown]
# On its own photo the error is a small part of what the best single colour leaves. The other photo gets the colours of
# the first one, wherever its greys happen to look alike: nothing ever told the network which of its findings hold for
# other photos. A low training error proves that a network can learn. It does not prove that it has learnt to colour.
#
# ## Compare the systems
# Each system gets the same time on the same photos, at the same size. The time is turned into a number of steps after
# 50 timed ones, and the recipe's schedule is stretched to fit. Run it again and it goes on where it was.
# A few seconds on the sample show how it works, and no more; on a GPU with thousands of photos it is ten minutes each.
# What 20 minutes on 16,000 photos gave stands in the project's README, with the command for a terminal.

# %%
preset = runtime.PRESETS["sample"] if prepared.settings["source"] == "sample" else runtime.preset()
names = [name.strip() for name in compare.split(",") if name.strip()] or preset.compare
seconds, side = 60 * compare_minutes or preset.compare_seconds, min(recipe.size, 128)
print(f"{len(names)} systems, {seconds:g} seconds of training each, and more for validation.")
folder = f"comparison-{prepared.name}-{side}-{seconds:g}s"
how = small | {"size": side, "resize": "squash", "mirror": mirror and mirror / "runs" / folder}
how["weights"] = dict.fromkeys(names, "none") if encoder_weights == "none" else {}
runs = comparison.compare(names, prepared, runtime.runs_dir() / folder, seconds, **how)
val_photos = loading.Photos(prepared.files("val"), side)
plots.show_table(comparison.table(runs, val_photos))

# %% [markdown]
# Read the error beside the floors, and then the last column, `chroma`: how colourful the guesses are on average,
# compared with the truth. An average over what might be is duller than any of it. That is why document 002 says of its
# `beta` that it colours everything brown, and why it adds a classifier in `fusion`: with both in `compare`, this column
# shows what that brings. It needs the classifier's weights, and more than seconds.

# %%
figure = plots.comparison(runs)
plots.show(figure, "02_comparison", "Validation MSE against training time, with the floors")
files = prepared.files("val")
rows = comparison.pictures(runs, files[:: max(1, len(files) // 6)])
figure = plots.grid(rows, captions=["grey", "the truth", *runs])
plots.show(figure, "02_systems", "The same photos, coloured by each of the systems")

# %% [markdown]
# ## Choose a colour instead of computing one
# If an apple may be red or green, the guess with the lowest squared error is a brown between the two, which no apple
# has. Zhang's way out is to ask for probabilities: how likely is each of a set of colours, here the 261 points of a grid
# (of size 10, in the ab plane) that come nearest to some sRGB colour? Only 229 of them
# are sRGB colours themselves, and Zhang's list has 313; the network takes any. A true colour between the points counts partly
# for each of its five nearest. And since most of the world is nearly grey, rare colours get a larger weight in the loss.
# The authors of document 001 wished for that too, for red and yellow: with `rebalance` any system gets it.

# %%
prior = losses.prior_of(prepared.files("train"))
weights = losses.class_weights(prior)
common, rare = weights[prior.argmax()], weights.max()
print(f"The commonest bin has {prior.max():.0%} of the colours and counts {common:.2f} times;")
print(f"the rarest counts {rare:.1f} times. Over all colours the mean is {prior @ weights:.3f}.")
figure = plots.ab_bins(prior.numpy(), weights.numpy())
plots.show(figure, "02_bins", "The bins of colour, how often they occur, and their weights")

# %% [markdown]
# How to make one colour of the probabilities? Their mean (T = 1) is dull again. The likeliest (T = 0) is vivid, and
# jumps from patch to patch. Zhang sharpens the probabilities a little and then takes the mean: T = 0.38. One photo at
# several temperatures, by the network just compared; after some seconds on the sample it knows next to nothing:

# %%
rgb, temperatures = photos.open_photo(files[0]), [1, 0.7, 0.38, 0.2, 0.1, 0]
if "zhang" not in runs:
    runs |= comparison.compare(["zhang"], prepared, runtime.runs_dir() / folder, seconds, **how)
model, row = runs["zhang"].model(), []
for model.T in temperatures:
    row.append(colorize.colorize(model, rgb, side))
figure = plots.grid([[*row, rgb]], [*(f"T = {T}" for T in temperatures), "the truth"])
plots.show(figure, "02_temperature", "One photo decoded at temperatures from 1 to 0")

# %% [markdown]
# ## Recap
# - The recipe is one record; the network looks first and then paints.
# - The loop fits on a page, and `fit` is that loop with saving, resuming and validation.
# - A range test shows how large a learning rate may be.
# - A validation error counts only beside the floors; the curves show when learning turns into memorising.
# - What the loss rewards is what comes out: squared error makes dull colours, and probabilities leave the choice open.
#
# Next: [`03_evaluate`](03_evaluate.ipynb) measures the trained network on photos that it has never seen.
