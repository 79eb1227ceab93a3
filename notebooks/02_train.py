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
# - read the recipe of a published system and the network's sizes, layer by layer;
# - write a training loop of a dozen lines and see it learn one batch;
# - look for a good learning rate;
# - train for real with `fit`, which is that loop made safe and fast, and watch the colours come.
#
# **What you will learn:** what the loss rewards, how to tell learning from memorising, and how a run goes on after
# an interruption.
#
# **What you need:** the photos of `01_data` (they are prepared again if missing). The sample takes about a minute on
# two CPU cores. The published settings are meant for a T4; their time there has not been measured yet. It leaves a
# trained model for `03_evaluate` and `04_qualitative_study`.

# %% [markdown]
# ## Set up
# This cell finds `colorlib`: in this copy of the project, in one in your Drive, or on the web. In Colab, tick
# `use_drive` to keep what you train when the machine goes away. The cell can be run again at any time.

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
here = Path(globals().get("__file__", "notebook")).resolve().parent
places = [here, *here.parents, DRIVE, Path("colorization").resolve()]
root = next((place for place in places if (place / "colorlib").is_dir()), None)
if root is None and not REPOSITORY:
    raise FileNotFoundError(f"no colorlib here: copy the project to {DRIVE}, tick use_drive")
if root is None:
    root = places[-1]
    subprocess.run(["git", "clone", "--depth", "1", REPOSITORY, str(root)], check=True)
sys.path.insert(0, str(root))
mirror = DRIVE / "runs" if use_drive and DRIVE.parent.is_dir() else None
print(f"Using the project in {root}")

# %% [markdown]
# ## Import and configure
# Helpers come from `colorlib`; everything that is the lesson stands in this notebook.

# %%
from dataclasses import asdict

import pandas as pd
import torch
import torch.nn.functional as F

from colorlib import color, data, models, photos, plots, recipes, runtime, trainer, training

# %% [markdown]
# `recipe_name` names the system to train. `dataset` and `max_photos` are those of `01_data`; empty means the preset's.
# `encoder_weights` is where the encoder starts: `imagenet`, `none`, or the path of a file with torchvision's weights.
# `batch_size`, `n_epochs` and `learning_rate` replace the recipe's if they are not 0: smaller ones for few photos or
# little time. `hours` ends the training cleanly so long after its cell was started; 0 is the preset's (11 with a GPU on
# Colab or Kaggle, whose machines go away after 12: give less if the photos took long). `compile_network` tries `torch.compile`.
# A run is kept in a folder of its own: to train the same recipe again with other settings, give the new run a name.

# %%
recipe_name = "resnet34"  # @param ["resnet34", "resnet18", "resnet34_cyclic"]
dataset = ""  # @param ["", "sample", "places365", "imagenette"] {allow-input: true}
max_photos = 0  # @param {type: "integer"}
encoder_weights = "imagenet"  # @param ["imagenet", "none"] {allow-input: true}
keep_grey = False  # @param {type: "boolean"}
batch_size = 0  # @param {type: "integer"}
n_epochs = 0  # @param {type: "integer"}
learning_rate = 0.0  # @param {type: "number"}
hours = 0.0  # @param {type: "number"}
compile_network = False  # @param {type: "boolean"}
run_name = ""  # @param {type: "string"}

print(runtime.describe())
dataset = dataset or runtime.preset().dataset
prepared = data.ready(dataset, limit=max_photos or None, keep_grey=keep_grey)
run_name = run_name or f"{recipe_name}-{prepared.name}"

# %% [markdown]
# ## Read the recipe
# Document 000 improves on an older student system by a deeper encoder and a larger batch. Its settings are the
# `published` column, completed by ours where it is silent (the seed, say). It unfroze "more layers" of the encoder and
# does not say which; here all are trained. On a laptop, the preset `sample` makes everything smaller, so that the whole
# study takes minutes. On a Colab GPU both columns are the same, unless the photos are the few of the sample.

# %%
changes = dict(runtime.PRESETS["sample"].recipe_changes) if prepared.name == "sample" else {}
chosen = {"batch_size": batch_size, "n_epochs": n_epochs, "lr": learning_rate}
changes |= {name: value for name, value in chosen.items() if value}
recipe = recipes.get(recipe_name, encoder_weights=encoder_weights, **changes)
settings = pd.DataFrame({"published": asdict(recipes.RECIPES[recipe_name]), "here": asdict(recipe)})
settings["changed"] = ["*" if a != b else "" for a, b in zip(settings.published, settings.here)]
plots.show_table(settings)

# %% [markdown]
# ## Follow a photo through the network
# The encoder is the first 15 of a ResNet34's 34 layers. It makes the picture eight times smaller while it finds out what
# is where. The decoder turns these findings into two numbers for each pixel and makes the picture large again.
#
# The first layer of a ResNet expects three colour channels. Ours gets one: grey. Document 000 sums the layer's weights
# over the colour channels, which is what the original computes when all three are equal. It fed `rgb2gray` of the
# photo; here the grey is the one whose lightness is the photo's L. The two are the same for neutral pixels, and differ
# a little for coloured ones.

# %%
model = models.build(recipe.model).eval()
parts = {f"encoder.{name}": part for name, part in model.encoder.named_children()}
parts |= {f"decoder.{name}": part for name, part in model.decoder.named_children()}
x, sizes = torch.full((1, 1, 224, 224), 0.5), {}  # a grey photo
for name, part in parts.items():
    x = part(x)
    sizes[name] = tuple(x.shape[1:])
plots.show_table(pd.Series(sizes, name="output for (1, 224, 224)").to_frame())
print(f"{sum(p.numel() for p in model.parameters()):,} parameters")

# %% [markdown]
# ## Train on one batch
# This is all there is to training. The photos arrive as bytes and are converted to L and ab on the device. The model
# sees L, its guess is compared with ab, and every weight moves a little in the direction that lowers the error.
# Learning eight photos by heart is no achievement, but a network that cannot even do that has a bug.

# %%
device = runtime.device()
photo_set = data.Photos(prepared.files("train"), recipe.size, recipe.resize)
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
optimizer = torch.optim.Adam(model.parameters(), lr=recipe.lr)
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
what = recipe, prepared, runtime.runs_dir() / run_name, mirror and mirror / run_name
how = {"hours": hours or runtime.preset().hours, "compile": compile_network}
watch = plots.live_curves("02_curves", "MSE by epoch, with the floors")
if torch.cuda.device_count() > 1:
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
# ## Recap
# - The recipe is one record; the network is an encoder that looks and a decoder that paints.
# - The loop fits on a page, and `fit` is that loop with saving, resuming and validation.
# - A range test shows how large a learning rate may be.
# - A validation error counts only beside the floors; the curves show when learning turns into memorising.
#
# Next: [`03_evaluate`](03_evaluate.ipynb) measures the trained network on photos that it has never seen.
