"""What to train and how: one frozen record per system; and what the sources published."""

from dataclasses import asdict, dataclass, fields, replace

import pandas as pd

from colorlib import runtime


@dataclass(frozen=True)
class Recipe:
    """One system: its network, its data treatment and its training procedure."""

    name: str
    source: str  # the document it comes from
    model: str  # a name in models.MODELS
    size: int = 224  # side in pixels of what the network is trained on
    resize: str = "squash"  # to the square, or "crop" its centre
    crop: float = 1.0  # while training, a square with this share of the side is cut out at random
    zoom: float | None = None  # or a square from this share of the short side to all of it, from anywhere in the photo
    flip: bool = True  # mirror at random
    gamma: float = 0.0  # bend L at random, as other exposures would: spread of the logarithm of the exponent
    one_photo: bool = False  # train and validate on the first training photo alone, a hundred batches of it an epoch
    loss: str = "mse"  # on ab_unit; or "cross-entropy" over ab bins
    rebalance: float | None = None  # weigh rare colours more: Zhang's lambda, near 0 fully, 1 not at all
    encoder_weights: str = "imagenet"  # "imagenet", "none", or the path of a state dict
    batch_size: int = 128
    optimizer: str = "Adam"  # a class of torch.optim
    lr: float = 1e-3  # learning rate; with a schedule, its maximum
    encoder_lr: float = 1.0  # the encoder's share of it
    weight_decay: float = 0.0
    schedule: str = "constant"  # or "cyclic" (up and down in straight lines) or "one-cycle" (Smith 2018, by cosines)
    cycle_epochs: int | None = None  # length of a cycle of "cyclic"; None: one cycle over all epochs
    clip: float | None = None  # gradients longer than this are shortened to it
    ema: float | None = None  # per step, the share that a moving average of the weights keeps; it is what counts then
    frozen: tuple[str, ...] = ()  # parts of the model that stay as they start, such as "encoder.layer1"
    n_epochs: int = 40
    subset: float = 1.0  # share of the training photos that one phase uses
    phase_epochs: int = 10  # after so many epochs the subset is drawn anew
    patience: int | None = None  # stop after so many epochs without a better validation loss
    precision: str = "auto"  # of the network's arithmetic: "float32" and so on; auto is what the hardware does best
    sync_bn: bool = False  # with several GPUs: batch norms see the whole batch instead of one GPU's part
    seed: int = 0

    def __post_init__(self):
        parts = [self.frozen] if isinstance(self.frozen, str) else self.frozen  # from JSON it comes as a list
        object.__setattr__(self, "frozen", tuple(parts))

    @property
    def seen(self):
        """Side in pixels of what the network sees while it is trained: the size, or a crop, a multiple of 16.

        A network that only saw photos which had to be grown, to be divided by 16, is lost on others: MSE 0.0042, not
        0.0027.
        """
        return self.size if self.crop == 1 else min(self.size, max(16, 16 * round(self.size * self.crop / 16)))


# Where a document is silent about a setting, it is the one of the code or the article that it builds on, as far as that
# is known, and else ours.
_000 = Recipe(
    name="resnet34", source="document 000", model="resnet34", subset=0.4, phase_epochs=10, n_epochs=40, patience=5
)
# "Cyclic" was one cycle in its authors' code, of cosines with the top at 30 %; here it is straight lines. The code also
# has the decay, the encoder's share of the rate (a third for some other layers, which is left out here), and the first
# network's rate and batch size.
_001 = Recipe(
    name="resnet34_x8", source="document 001", model="resnet34_x8", size=256, flip=False, batch_size=32,
    lr=0.01, encoder_lr=1 / 9, weight_decay=1e-5, schedule="cyclic", n_epochs=10,
)  # fmt: skip
# Document 002 has no numbers. RMSprop with Keras's rate, alpha's size and its thousand steps are those of the article
# that it reports on; batch size and epochs of the others are ours, and the same, so that they can be compared.
_002 = Recipe(
    name="beta", source="document 002", model="beta", size=256, batch_size=32, optimizer="RMSprop", n_epochs=20
)
# Document 003 has no numbers either. Batch size and decay are those of Zhang et al. 2016; their rate, 3e-5, is for half
# a million steps, and here ten times as large. Their Adam's second beta is 0.99; here it is torch's 0.999.
_003 = Recipe(
    name="zhang", source="document 003", model="zhang", size=256, loss="cross-entropy", rebalance=0.5,
    encoder_weights="none", batch_size=40, lr=3e-4, weight_decay=1e-3, n_epochs=20,
)  # fmt: skip
_UNET = Recipe(
    name="unet34", source="ours", model="unet34", size=256, resize="crop", crop=0.875, batch_size=64,
    optimizer="AdamW", lr=1.5e-3, encoder_lr=1 / 3, weight_decay=0.05, schedule="one-cycle", ema=0.998, n_epochs=10,
)  # fmt: skip
_ALL = [
    _000,
    # The system that document 000 sets out to improve; it gives the network and the batch size, no more.
    replace(_000, name="resnet18", model="resnet18", batch_size=64),
    replace(_001, name="simple_cnn", model="simple_cnn", encoder_weights="none", batch_size=30, encoder_lr=1.0,
            weight_decay=0.0, schedule="constant"),
    _001,
    replace(_001, name="resnet34_deep", model="resnet34_deep", batch_size=128),
    replace(_002, name="alpha", model="alpha", size=400, one_photo=True, flip=False, encoder_weights="none",
            batch_size=1, n_epochs=10),
    replace(_002, encoder_weights="none"),
    replace(_002, name="fusion", model="fusion", frozen=("classifier",)),
    _003,
    replace(_003, name="zhang_mse", loss="mse", rebalance=None),
    Recipe(name="autoencoder", source="document 004", model="autoencoder", size=256, flip=False,
           encoder_weights="none", batch_size=32, n_epochs=50),
    _UNET,
    replace(_UNET, name="unet18", model="unet18"),
]  # fmt: skip
RECIPES = {recipe.name: recipe for recipe in _ALL}


def get(name, /, **changes):
    """A recipe by name, with the preset's changes and then yours.

    Raises:
        ValueError: if there is no such recipe or no such field.
    """
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}; choose one of {', '.join(RECIPES)}.")
    unknown = set(changes) - {f.name for f in fields(Recipe)}
    if unknown:
        raise ValueError(f"a recipe has no {', '.join(sorted(unknown))}; it has {', '.join(asdict(RECIPES[name]))}.")
    return replace(RECIPES[name], **{**runtime.preset().recipe_changes, **changes})


_PROTOCOL_000 = "10,000 random photos, neither trained nor validated on; which ones, and grey ones, not said"
_PROTOCOL_001 = "best validation loss while training, on part of 36,500 photos; scale as in its authors' code"

# Every figure that a source states, and nothing of ours. MSE is on `ab_unit` (see color.to_unit).
PUBLISHED = pd.DataFrame(
    [
        ("resnet34", "ImageNet", "MSE", 0.0027, "document 000", _PROTOCOL_000),
        ("resnet34", "CVPR09", "MSE", 0.0047, "document 000", "number and choice of photos not said"),
        ("resnet34", "CelebA", "MSE", 0.0058, "document 000", "number and choice of photos not said"),
        ("simple_cnn", "Places365", "MSE", 0.003039, "document 001", _PROTOCOL_001),
        ("resnet34_x8", "Places365", "MSE", 0.002318, "document 001", _PROTOCOL_001),
        ("resnet34_deep", "Places365", "MSE", 0.002182, "document 001", _PROTOCOL_001),
        ("resnet34", "study", "accuracy", 0.57, "document 000", "5 people, 5 real and 5 coloured photos"),
        ("resnet34_deep", "study", "graded success", 0.1235, "document 001", "graded by its authors"),
        ("resnet34_deep", "study", "graded medium", 0.6941, "document 001", "graded by its authors"),
        ("resnet34_deep", "study", "graded failure", 0.1824, "document 001", "graded by its authors"),
        ("zhang", "study", "fool rate", 0.32, "document 003", "quoted from Zhang et al. 2016; in pairs"),
    ],
    columns=["recipe", "data", "measure", "published", "source", "protocol"],
)

# The floors on photos like those of document 000's three data sets, which are not its photos: measured by us on
# 2026-11-21, on the middle 128 x 128 of photos at short side 144 (README, "How good is it?"). Whole photos squashed to
# 224 x 224, as in the document, give 0.00389, 0.00402 and 0.00353 for all grey. The mean colour is that of 16,000
# training photos of many kinds.
LIKE_000 = pd.DataFrame(
    [
        ("ImageNet", "299 objects, one for each of 299 ImageNet classes", 0.00403, 0.00355, 0.00198),
        ("CVPR09", "300 indoor scenes (SUN)", 0.00418, 0.00309, 0.00163),
        ("CelebA", "200 aligned faces (CelebA, official test part)", 0.00384, 0.00261, 0.00153),
    ],
    columns=["data", "measured by us on", "grey", "train_mean", "oracle"],
).set_index("data")
