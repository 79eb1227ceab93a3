"""Every architecture, by name. A model takes L, of any size, and returns ab of the same size."""

import json
import math
import shutil
import urllib.error
import warnings
from collections import OrderedDict
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from colorlib import color, losses, runtime

UP = "up"  # in a list of widths: twice as high and wide, by repeating pixels


class Colorizer(nn.Module):
    """What all networks share: they are given L of any size, and what they paint becomes ab of that size.

    A subclass has `paint`, from what `see` makes of L to `(B, 2, h, w)`: the difference to grey on the scale of
    `ab_unit` (around 0, numbers of 16 bits are fine enough), at the size of L or a fraction of it.
    """

    stride = 8  # what the encoder divides the size by; L is grown to a multiple of it
    backbone = None  # whose ImageNet weights it can start from: a key of `_IMAGENET`
    enlarge = "nearest-exact"  # how a smaller painting is brought to L's size

    def forward(self, L):
        """L: float `(B, 1, H, W)` in [0, 100] -> pred_ab: float `(B, 2, H, W)` in `ab` units."""
        height, width = L.shape[-2:]
        L = losses.grown(L, self.stride)
        painted = self.paint(self.see(L)).to(L.dtype)
        painted = F.interpolate(painted, L.shape[-2:], mode=self.enlarge)[..., :height, :width]
        return color.from_unit(painted + color.to_unit(0))

    def see(self, L):
        """What the network is fed, from L: here in [0, 1]."""
        return L / 100


def block(c_in, c_out, stride=1, norm=True):
    """3x3 convolution, ReLU and batch norm, in this order (documents 001, 002, 003); "same" padding."""
    layers = [nn.Conv2d(c_in, c_out, 3, stride, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, *([nn.BatchNorm2d(c_out)] if norm else []))


def conv_block(c_in, c_out, scale=1):
    """3x3 convolution, batch norm, ReLU (ResNet's order); then, with a scale, nearest-neighbour upsampling."""
    layers = [nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, *([nn.Upsample(scale_factor=scale)] if scale > 1 else []))


def blocks(c_in, widths, norm=True):
    """A chain of `block`s: for each width one, for each `(width, stride)` one with a stride, `UP` between them."""
    chain = nn.Sequential()
    for width in widths:
        if width == UP:
            chain.append(nn.Upsample(scale_factor=2))
        else:
            width, stride = width if isinstance(width, tuple) else (width, 1)
            chain.append(block(c_in, width, stride, norm))
            c_in = width
    return chain


def near_grey(layer, std=1e-3):
    """Let a last layer start near 0, that is, near grey: a chroma of about 3, where torch's own start has about 100."""
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer


def resnet_encoder(arch, last):
    """The children of a torchvision ResNet from conv1 up to `last`, for one channel instead of three.

    The first layer's weights are summed over the input channels, as document 000 says: that is what the original
    computes for a grey picture.
    """
    resnet = getattr(torchvision.models, arch)(weights=None)
    resnet.conv1.weight = nn.Parameter(resnet.conv1.weight.detach().sum(dim=1, keepdim=True))
    resnet.conv1.in_channels = 1
    children = list(resnet.named_children())
    n = 1 + [name for name, _ in children].index(last)
    return nn.Sequential(OrderedDict(children[:n]))


class ResNetStart:
    """For networks whose `encoder` is a `resnet_encoder`: how ImageNet's weights get in."""

    def load_imagenet(self, state):
        """Take over the encoder's part of a torchvision ResNet state dict (three-channel conv1)."""
        names = dict(self.encoder.named_children())
        mine = {key: value for key, value in state.items() if key.split(".")[0] in names}
        mine["conv1.weight"] = mine["conv1.weight"].sum(dim=1, keepdim=True)
        self.encoder.load_state_dict(mine)


class ResNetColorizer(ResNetStart, Colorizer):
    """Document 000's network: the first six children of a ResNet as encoder, convolutions as decoder.

    The sizes are those of the document's figure, read in order; at 224 x 224 each line below ends with
    the size it produces. Where a block enlarges, it convolves first and then repeats pixels, as in the
    ResNet18 system that the document improves on; the figure does not say which comes first.
    """

    def __init__(self, arch="resnet34"):
        super().__init__()
        self.backbone = arch
        # 1 x 224 x 224 -> conv1: 64 x 112 x 112 -> maxpool, layer1: 64 x 56 x 56 -> layer2: 128 x 28 x 28
        self.encoder = resnet_encoder(arch, "layer2")  # "first 6 layers"
        self.decoder = nn.Sequential(
            OrderedDict(
                block1=conv_block(128, 128, scale=2),  # 128 x 56 x 56
                block2=conv_block(128, 64),  # 64 x 56 x 56
                block3=conv_block(64, 64, scale=2),  # 64 x 112 x 112
                block4=conv_block(64, 64),  # 64 x 112 x 112
                block5=conv_block(64, 32, scale=2),  # 32 x 224 x 224
                block6=conv_block(32, 16),  # 16 x 224 x 224
                to_ab=near_grey(nn.Conv2d(16, 2, 3, padding=1)),  # 2 x 224 x 224
            )
        )

    def see(self, L):
        return color.l_to_grey(L)  # for the document's rgb2gray; see there

    def paint(self, grey):
        return self.decoder(self.encoder(grey))


def sixth_block(c_in):
    """Document 001's last block, to two channels; its batch norm starts near grey (its authors' did not)."""
    last = block(c_in, 2)
    nn.init.constant_(last[-1].weight, 0.01)
    return last


class SimpleCNN(Colorizer):
    """Document 001's first network: six blocks, after Zhang's without the dilated layers; at 256 x 256.

    The document states the size after the fifth block and the upsampling; widths and strides before are Zhang's.
    """

    def __init__(self):
        super().__init__()
        # 64 x 128 x 128 -> 128 x 64 x 64 -> 256 x 32 x 32 -> 512 x 32 x 32 -> 512 x 32 x 32
        self.features = blocks(1, [(64, 2), (128, 2), (256, 2), 512, 512])
        self.upsample = nn.Upsample(scale_factor=8)  # 512 x 256 x 256
        self.block6 = sixth_block(512)  # 2 x 256 x 256

    def paint(self, x):
        return self.block6(self.upsample(self.features(x)))


class ResNetX8(ResNetStart, Colorizer):
    """Document 001's second network: a ResNet34 in place of the simple CNN's first five blocks; at 256 x 256.

    What replaces them has to end with 512 x 32 x 32 too, and a ResNet34 ends with 8 x 8. Its authors repeat pixels
    between the third and the fourth quarter (github.com/usfzhou2/Image-Colorization), which makes it slow.
    """

    backbone, stride = "resnet34", 8

    def __init__(self):
        super().__init__()
        self.encoder = resnet_encoder("resnet34", "layer4")
        self.upsample4 = nn.Upsample(scale_factor=4)
        self.upsample8 = nn.Upsample(scale_factor=8)
        self.block6 = sixth_block(512)

    def paint(self, x):
        x = self.encoder[:6](x)  # 128 x 32 x 32
        x = self.encoder[6:](self.upsample4(x))  # 128 x 128 x 128 -> layer3: 256 x 64 x 64 -> layer4: 512 x 32 x 32
        return self.block6(self.upsample8(x))  # 2 x 256 x 256


class ResNetDeep(ResNetStart, Colorizer):
    """Document 001's third network: three more blocks with upsampling by 2 between them; at 256 x 256.

    The document gives no widths; these and the encoder's end are its authors' (as above).
    """

    backbone, stride = "resnet34", 16

    def __init__(self):
        super().__init__()
        self.encoder = resnet_encoder("resnet34", "layer3")  # 256 x 16 x 16
        # 256 x 32 x 32 -> 128 x 32 x 32 -> 64 x 64 x 64 -> 32 x 128 x 128 -> 32 x 256 x 256
        self.blocks = blocks(256, [UP, 128, UP, 64, UP, 32, UP])
        self.block6 = sixth_block(32)  # 2 x 256 x 256

    def paint(self, x):
        return self.block6(self.blocks(self.encoder(x)))


class EncoderDecoder(Colorizer):
    """Strided convolutions that shrink the photo, then upsampling ones that enlarge it again (documents 002, 004).

    Args:
        encoder: widths of its blocks, or `(width, 2)` with a stride of 2.
        decoder: widths of its blocks, with `UP` between them; what remains to L's size comes after the last layer.
        norm: with batch norms.
    """

    def __init__(self, encoder, decoder, norm=True):
        super().__init__()
        self.stride = 2 ** sum(isinstance(width, tuple) for width in encoder)
        self.encoder = blocks(1, encoder, norm)
        c_in = [w[0] if isinstance(w, tuple) else w for w in encoder][-1]
        self.decoder = blocks(c_in, decoder, norm)
        self.to_ab = near_grey(nn.Conv2d([width for width in decoder if width != UP][-1], 2, 3, padding=1))

    def paint(self, x):
        return self.decode(self.encoder(x))

    def decode(self, x):
        # tanh, on ab / 128 as in document 002's article
        return torch.tanh(self.to_ab(self.decoder(x))) * (128 / 255)


# Document 002's alpha, widths from the article that it reports on; on a photo of 400 x 400:
# 8 x 200 x 200, 8, 16, 16 x 100 x 100, 32, 32 x 50 x 50 -> 32 x 100 x 100, 16 x 200 x 200, 2 x 400 x 400
_ALPHA = partial(EncoderDecoder, [(8, 2), 8, 16, (16, 2), 32, (32, 2)], [UP, 32, UP, 16, UP], norm=False)

# Its beta and the two ends of its fusion: the same, so that the middle is all that they differ in. Widths of the
# article's fusion; its beta has more layers. At 256 x 256:
# 64 x 128 x 128, 128 x 64 x 64, 256 x 32 x 32, 512, 256 -> 128 x 64 x 64, 64, 32 x 128 x 128, 16, 2 x 128 x 128
_BETA = ([(64, 2), (128, 2), (256, 2), 512, 256], [UP, 128, 64, UP, 32, 16])

# Document 004 says "encoder", "lower-dimensional" and "upscale in the decoder", no more. The widths are ours; at 256:
# 32 x 128 x 128, 64 x 64 x 64, 128 x 32 x 32, 256 x 16 x 16 -> 128 x 32 x 32, 64 x 64 x 64, 32 x 128 x 128, 2
_AUTOENCODER = partial(EncoderDecoder, [(32, 2), (64, 2), (128, 2), (256, 2)], [UP, 128, UP, 64, UP, 32])


class Fusion(EncoderDecoder):
    """Document 002's final network: beta, with what a frozen Inception-ResNet-v2 sees in the photo in its middle."""

    backbone = "inception_resnet_v2"

    def __init__(self):
        super().__init__(*_BETA)
        with warnings.catch_warnings(action="ignore"):  # about progress bars
            import timm  # takes a second, and nothing else needs it

        self.classifier = timm.create_model("inception_resnet_v2", pretrained=False).requires_grad_(False)
        self.fusion = nn.Sequential(nn.Conv2d(256 + 1000, 256, 1), nn.ReLU(inplace=True))

    def paint(self, x):
        features = self.encoder(x)  # 256 x 32 x 32
        classes = self.classify(color.l_to_grey(100 * x))[:, :, None, None]
        classes = classes.expand(-1, -1, *features.shape[-2:])  # 1000 x 32 x 32
        return self.decode(self.fusion(torch.cat([features, classes], dim=1)))  # fusion: 256 x 32 x 32

    @torch.no_grad()
    def classify(self, grey):
        """Probabilities of ImageNet's classes, `(B, 1000)`. It wants 299 x 299 and values in [-1, 1]."""
        seen = F.interpolate(grey, (299, 299), mode="bilinear", antialias=True).clamp(0, 1)
        self.classifier.eval()  # whatever the rest does: it is no part of the training
        return self.classifier((2 * seen - 1).expand(-1, 3, -1, -1)).softmax(dim=1)

    def load_imagenet(self, state):
        """Take over timm's state dict of the classifier; the published file has a class more, "background", first."""
        extra = len(state["classif.bias"]) - 1000
        self.classifier.load_state_dict({k: v[extra:] if k.startswith("classif.") else v for k, v in state.items()})


class Zhang(Colorizer):
    """Zhang et al. 2016, whom document 003 follows: eight blocks, then a score for each of Q colours; at 256 x 256.

    From the scores to two channels document 003 learns a layer; here, as in the paper, it is their annealed mean.

    A block is convolutions with ReLU, and one batch norm at its end; the eighth has none. No pooling: the blocks'
    last layers have a stride. Inner names and sizes are those of the released PyTorch weights, with `block` for
    `model`, so that these fit in; see `eccv16`.

    Attributes:
        centres: the colours that are chosen from, `(Q, 2)` in `ab` units.
        T: temperature at which the scores become a colour; see `losses.annealed_mean`.
    """

    stride, enlarge = 8, "bilinear"

    def __init__(self, centres=None, T=0.38):
        super().__init__()
        centres = color.ab_bins() if centres is None else centres
        self.register_buffer("centres", centres.clone())
        self.T = T
        self.block1 = self.block([1, 64, 64], stride=2)  # 64 x 128 x 128
        self.block2 = self.block([64, 128, 128], stride=2)  # 128 x 64 x 64
        self.block3 = self.block([128, 256, 256, 256], stride=2)  # 256 x 32 x 32
        self.block4 = self.block([256, 512, 512, 512])  # 512 x 32 x 32, as the next three
        self.block5 = self.block([512, 512, 512, 512], dilation=2)
        self.block6 = self.block([512, 512, 512, 512], dilation=2)
        self.block7 = self.block([512, 512, 512, 512])
        self.block8 = nn.Sequential(
            nn.ConvTranspose2d(512, 256, 4, stride=2, padding=1),  # 256 x 64 x 64
            nn.ReLU(inplace=True),
            *self.block([256, 256, 256])[:-1],
            near_grey(nn.Conv2d(256, len(centres), 1)),  # Q x 64 x 64
        )
        with torch.no_grad():  # near grey here: the further from it, the less likely a colour is
            self.block8[-1].bias -= (self.centres**2).sum(dim=1) / 15**2 / 2

    @staticmethod
    def block(widths, stride=1, dilation=1):
        layers = []
        for c_in, c_out in pairwise(widths):
            last = len(layers) == 2 * (len(widths) - 2)
            layer = nn.Conv2d(c_in, c_out, 3, stride if last else 1, padding=dilation, dilation=dilation)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # or little is left after so many without norm
            layers += [layer, nn.ReLU(inplace=True)]
        return nn.Sequential(*layers, nn.BatchNorm2d(widths[-1]))

    def see(self, L):
        return (L - 50) / 100

    def forward(self, L, logits=False):
        """As for every model; with `logits`, the scores instead: `(B, Q, ceil(H / 4), ceil(W / 4))`."""
        if not logits:
            return super().forward(L)
        height, width = L.shape[-2:]
        scores = self.scores(self.see(losses.grown(L, self.stride))).to(L.dtype)
        return scores[..., : math.ceil(height / 4), : math.ceil(width / 4)]

    def scores(self, x):
        for k in range(1, 9):
            x = self.get_submodule(f"block{k}")(x)
        return x

    def paint(self, x):
        return losses.annealed_mean(self.scores(x).to(self.centres.dtype), self.centres, self.T) / 255


class UNet(ResNetStart, Colorizer):
    """Ours: a ResNet that looks, skip connections that keep edges, and the whole photo's average for context.

    It paints at a quarter of the size, since colour is smoother than lightness, and the rest is bilinear, which leaves
    no checkerboards. Sizes at 224 x 224.
    """

    stride, enlarge = 16, "bilinear"

    def __init__(self, arch="resnet34", dropout=0.2):
        super().__init__()
        self.backbone = arch
        self.encoder = resnet_encoder(arch, "layer3")
        self.context = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 256), nn.ReLU(inplace=True), nn.Linear(256, 256)
        )
        self.drop = nn.Dropout2d(dropout)
        self.middle = conv_block(256, 256)
        self.up2 = conv_block(256 + 128, 128)
        self.up1 = nn.Sequential(conv_block(128 + 64, 96), conv_block(96, 64))
        self.to_ab = near_grey(nn.Conv2d(64, 2, 3, padding=1))

    def see(self, L):
        # As the encoder knows it from ImageNet, whose three channels have about this mean and spread.
        return (color.l_to_grey(L) - 0.449) / 0.226

    def paint(self, grey):
        x1 = self.encoder[:5](grey)  # 64 x 56 x 56
        x2 = self.encoder[5](x1)  # 128 x 28 x 28
        x3 = self.encoder[6](x2)  # 256 x 14 x 14
        x = self.middle(self.drop(x3 + self.context(x3)[:, :, None, None]))  # 256 x 14 x 14
        x = self.up2(torch.cat([self.double(x), x2], dim=1))  # 128 x 28 x 28
        x = self.up1(torch.cat([self.double(x), x1], dim=1))  # 64 x 56 x 56
        return self.to_ab(x)  # 2 x 56 x 56

    @staticmethod
    def double(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear")


class Mean(nn.Module):
    """The mean of what several networks of one kind predict: each is wrong in its own way, and part of that cancels.

    They are trained one by one, and put together by tools/ship_weights.py.
    """

    def __init__(self, name, n):
        super().__init__()
        self.members = nn.ModuleList(build(name) for _ in range(n))

    def forward(self, L):
        """L: float `(B, 1, H, W)` in [0, 100] -> pred_ab: float `(B, 2, H, W)` in `ab` units."""
        return torch.stack([member(L) for member in self.members]).mean(dim=0)


def build(name):
    """A fresh model by name, with random weights.

    Raises:
        ValueError: if there is no such model; lists the names.
    """
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}; choose one of {', '.join(MODELS)}.")
    return MODELS[name]()


MODELS = {
    "resnet34": partial(ResNetColorizer, "resnet34"),
    "resnet18": partial(ResNetColorizer, "resnet18"),
    "simple_cnn": SimpleCNN,
    "resnet34_x8": ResNetX8,
    "resnet34_deep": ResNetDeep,
    "alpha": _ALPHA,
    "beta": partial(EncoderDecoder, *_BETA),
    "fusion": Fusion,
    "zhang": Zhang,
    "autoencoder": _AUTOENCODER,
    "unet34": partial(UNet, "resnet34"),
    "unet18": partial(UNet, "resnet18"),
}


def cost(name):
    """What a model needs: `(parameters, multiply-adds for a photo of 224 x 224)`. Nothing is computed for it."""
    with torch.device("meta"):
        model = build(name).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 1, 224, 224))
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2


SHIPPED = Path(__file__).with_name("weights")


def shipped(folder=SHIPPED):
    """The network that comes with this package, see weights/README.md, and the facts about it.

    The weights are kept as safetensors, which hold numbers and no code, mostly of 16 bits, and verified by their hash.

    Returns:
        `(model, facts)`: in evaluation mode on the CPU; and a dict with what a run's manifest has.

    Raises:
        OSError: if a file is missing.
        ValueError: if it is damaged.
    """
    facts = json.loads((folder / "facts.json").read_text())
    file = folder / facts["file"]
    if runtime.sha256(file) != facts["sha256"]:
        raise ValueError(f"{file}: is damaged or another version (its SHA-256 is wrong); get colorlib anew.")
    with torch.device("meta"):  # to draw random weights first would take longer than to read these
        model = Mean(facts["recipe"]["model"], len(facts["members"]))
    state = {name: values.float() if values.is_floating_point() else values for name, values in load_file(file).items()}
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False), facts


# These files end their names with the first digits of their SHA-256. The third one is timm's, of 223 MB.
_IMAGENET = {
    "resnet34": torchvision.models.ResNet34_Weights.IMAGENET1K_V1.url,
    "resnet18": torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url,
    "inception_resnet_v2": "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-weights/"
    "inception_resnet_v2-940b1cd6.pth",
}


def imagenet_state(arch, file=None, cache=None):
    """The ImageNet weights of a network that others build on, if they can be had.

    Looked for in `file` if given; else in torch's own cache, then in `cache`, then on the web. What was
    fetched is also put into `cache`. The hash is verified wherever the file came from.

    Args:
        arch: a model's `backbone`.
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
    found = _fetched(
        _IMAGENET[arch],
        cache,
        "ImageNet weights",
        arch,
        "It starts from random numbers, and the result will be worse for it.",
    )
    return found and torch.load(found, map_location="cpu", weights_only=True)


# github.com/richzhang/colorization, colorizers/eccv16.py at 4bda68f: about 129 MB, named in the same way.
_ECCV16 = "https://colorizers.s3.us-east-2.amazonaws.com/colorization_release_v2-9b330a0b.pth"


def eccv16(file=None, cache=None):
    """Zhang et al.'s own network: our `Zhang` with the weights that they released for PyTorch, if they can be had.

    Its 313 colours come from the file too, and its temperature is 1: the released code takes the plain mean. Meant for
    photos of 256 x 256. Sides that do not divide by 8 are grown first, as for all of ours, which theirs does not do.

    Not run with the released file itself, which could not be fetched where this was written: the tests put random
    numbers into the published layout, and compare with the published forward pass, written out a second time.

    Args:
        file: the released file, given by the user, who answers for what it holds: its hash is told, not verified.
        cache: as in `imagenet_state`, where a file that is not given is looked for in the same places.

    Returns:
        `(model, sha256)`: the network, in evaluation mode on the CPU, and the file's SHA-256 in hexadecimal digits, to
        say what was measured; the released one's begins with the last part of its name. Or None (after a warning that
        says where to put the file) when there is no network.

    Raises:
        OSError: if `file` was given and cannot be read, such as a FileNotFoundError.
        ValueError: if it holds something else.
    """
    file = file or _fetched(_ECCV16, cache, "released weights", "Zhang et al.", "Their network is left out.")
    if file is None:
        return None
    sha256 = runtime.sha256(file)  # first, so that a file that cannot be read says so itself
    model = Zhang(torch.zeros(313, 2), T=1)
    try:
        state = dict(torch.load(file, map_location="cpu", weights_only=True))
        colours = state.pop("model_out.weight")  # 2 x 313 x 1 x 1, from shares to ab / 110
        state = {"block" + key.removeprefix("model"): value for key, value in state.items()}
        model.load_state_dict({**state, "centres": 110 * colours.flatten(1).T})
    except Exception as error:  # of nearly any kind, when torch reads a damaged file
        raise ValueError(
            f"{file}: does not hold Zhang et al.'s released weights (eccv16: model1.0.weight to model8.6.bias, and "
            f"model_out.weight for 313 colours); give the file from {_ECCV16}, or none to have it fetched."
        ) from error
    return model.eval(), sha256


def _fetched(url, cache, kind, whose, without):
    """The path of a file whose name ends with the first digits of its SHA-256, verified; see `imagenet_state`.

    Looked for in torch's own cache, then in `cache`, then on the web, and kept in both. When it cannot be had: None,
    after a warning made of `kind` and `whose`, that says what `without` it happens.
    """
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
            f"The {kind} of {whose} could not be fetched from {url} ({error}). {without} "
            f"To avoid that, put the file at {local} and start again.",
            stacklevel=3,
        )
        return None
    try:
        if kept and not _hash_is(kept, prefix):
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(local, kept)
    except OSError as error:  # a full Drive is no reason to do without them
        warnings.warn(f"{kept}: the {kind} could not be kept there ({error}); going on.", stacklevel=3)
    return local


def _hash_is(path, prefix):
    return path.is_file() and runtime.sha256(path).startswith(prefix)
