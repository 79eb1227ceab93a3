"""Every architecture, by name. A model takes L, of any size, and returns ab of the same size."""

import shutil
import urllib.error
import warnings
from collections import OrderedDict
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from colorlib import color, runtime


def conv_block(c_in, c_out, scale=1):
    """3x3 convolution, batch norm, ReLU; then, with a scale, nearest-neighbour upsampling."""
    layers = [nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, *([nn.Upsample(scale_factor=scale)] if scale > 1 else []))


class ResNetColorizer(nn.Module):
    """Document 000's network: the first six children of a ResNet as encoder, convolutions as decoder.

    The sizes are those of the document's figure, read in order; at 224 x 224 each line below ends with
    the size it produces. Where a block enlarges, it convolves first and then repeats pixels, as in the
    ResNet18 system that the document improves on; the figure does not say which comes first.
    """

    children_used = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2")  # "first 6 layers"
    stride = 8  # what they divide the size by

    def __init__(self, arch="resnet34"):
        super().__init__()
        resnet = getattr(torchvision.models, arch)(weights=None)
        # One input channel instead of three: the sum over the input channels of the ImageNet weights,
        # that is, what the original layer computes for a grey picture.
        resnet.conv1.weight = nn.Parameter(resnet.conv1.weight.detach().sum(dim=1, keepdim=True))
        resnet.conv1.in_channels = 1
        # 1 x 224 x 224 -> conv1: 64 x 112 x 112 -> maxpool, layer1: 64 x 56 x 56 -> layer2: 128 x 28 x 28
        self.encoder = nn.Sequential(OrderedDict((name, getattr(resnet, name)) for name in self.children_used))
        self.decoder = nn.Sequential(
            OrderedDict(
                block1=conv_block(128, 128, scale=2),  # 128 x 56 x 56
                block2=conv_block(128, 64),  # 64 x 56 x 56
                block3=conv_block(64, 64, scale=2),  # 64 x 112 x 112
                block4=conv_block(64, 64),  # 64 x 112 x 112
                block5=conv_block(64, 32, scale=2),  # 32 x 224 x 224
                block6=conv_block(32, 16),  # 16 x 224 x 224
                to_ab=nn.Conv2d(16, 2, 3, padding=1),  # 2 x 224 x 224
            )
        )
        # Start near grey, with a chroma of about 3; torch's own start has about 100.
        nn.init.normal_(self.decoder.to_ab.weight, std=1e-3)
        nn.init.zeros_(self.decoder.to_ab.bias)

    def forward(self, L):
        """L: float `(B, 1, H, W)` in [0, 100] -> pred_ab: float `(B, 2, H, W)` in `ab` units."""
        height, width = L.shape[-2:]
        # Grown at the right and the bottom to a multiple of the stride; cut off again at the end.
        grey = F.pad(color.l_to_grey(L), (0, -width % self.stride, 0, -height % self.stride), mode="replicate")
        # The decoder gives the difference to grey's ab_unit: around 0, numbers of 16 bits are fine enough.
        offset = self.decoder(self.encoder(grey))[..., :height, :width]
        return color.from_unit(offset.to(L.dtype) + color.to_unit(0))

    def load_imagenet(self, state):
        """Take over the encoder's part of a torchvision ResNet state dict (three-channel conv1)."""
        mine = {key: value for key, value in state.items() if key.split(".")[0] in self.children_used}
        mine["conv1.weight"] = mine["conv1.weight"].sum(dim=1, keepdim=True)
        self.encoder.load_state_dict(mine)


def build(name):
    """A fresh model by name, with random weights.

    Raises:
        ValueError: if there is no such model; lists the names.
    """
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}; choose one of {', '.join(MODELS)}.")
    return MODELS[name]()


MODELS = {arch: partial(ResNetColorizer, arch) for arch in ("resnet34", "resnet18")}

# torchvision's files end their names with the first digits of their SHA-256.
_IMAGENET = {
    "resnet34": torchvision.models.ResNet34_Weights.IMAGENET1K_V1,
    "resnet18": torchvision.models.ResNet18_Weights.IMAGENET1K_V1,
}


def imagenet_state(arch, file=None, cache=None):
    """The ImageNet weights of a torchvision architecture, if they can be had.

    Looked for in `file` if given; else in torch's own cache, then in `cache`, then on the web. What was
    fetched is also put into `cache`. The hash is verified wherever the file came from.

    Args:
        arch: "resnet34".
        file: a state dict saved by torch, given by the user.
        cache: a folder that outlives the machine, such as one on Drive.

    Returns:
        The state dict, or None (after a warning) when there is no network.

    Raises:
        FileNotFoundError: if `file` was given and is missing.
    """
    if file:
        if not Path(file).is_file():
            raise FileNotFoundError(f"{file}: there are no starting weights there; check the path.")
        return torch.load(file, map_location="cpu", weights_only=True)
    url = _IMAGENET[arch].url
    name = url.rsplit("/", 1)[1]
    prefix = name.rsplit("-", 1)[1].split(".")[0]
    local = Path(torch.hub.get_dir()) / "checkpoints" / name
    kept = Path(cache) / name if cache else None
    try:
        if not _hash_is(local, prefix):
            local.parent.mkdir(parents=True, exist_ok=True)
            if kept and _hash_is(kept, prefix):
                shutil.copyfile(kept, local)
            else:
                with runtime.network_timeout():
                    torch.hub.download_url_to_file(url, local, hash_prefix=prefix)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        warnings.warn(
            f"The ImageNet weights of {arch} could not be fetched from {url} ({error}). Training starts from "
            f"scratch and will be worse for it. To avoid that, put the file at {local} and start again.",
            stacklevel=2,
        )
        return None
    try:
        if kept and not _hash_is(kept, prefix):
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(local, kept)
    except OSError as error:  # a full Drive is no reason to train without them
        warnings.warn(f"{kept}: the ImageNet weights could not be kept there ({error}); going on.", stacklevel=2)
    return torch.load(local, map_location="cpu", weights_only=True)


def _hash_is(path, prefix):
    return path.is_file() and runtime.sha256(path).startswith(prefix)
