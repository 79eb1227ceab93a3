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
    flip: bool = True  # mirror at random
    encoder_weights: str = "imagenet"  # "imagenet", "none", or the path of a state dict
    batch_size: int = 128
    optimizer: str = "Adam"  # a class of torch.optim
    lr: float = 1e-3  # learning rate; with a schedule, its maximum
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


_000 = Recipe(
    name="resnet34", source="document 000", model="resnet34", subset=0.4, phase_epochs=10, n_epochs=40, patience=5
)
RECIPES = {
    "resnet34": _000,
    # The system that document 000 sets out to improve; it gives the network and the batch size, no more.
    "resnet18": replace(_000, name="resnet18", model="resnet18", batch_size=64),
    # Document 001's procedure with document 000's network. "Cyclic" was one cycle in its authors' code.
    "resnet34_cyclic": Recipe(
        name="resnet34_cyclic", source="document 001", model="resnet34", lr=0.01, schedule="cyclic", n_epochs=10
    ),
}


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
