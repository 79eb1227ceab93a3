"""Every network: sizes, scales, start, whether it learns, what its document says; where starting weights come from."""

import hashlib
import http.server
import itertools
import math
import os
import re
import threading
import types
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from skimage import data as samples
from skimage import transform
from torch import nn

from colorlib import color, losses, models
from colorlib.colorize import colorize
from colorlib.loading import Photos
from colorlib.recipes import RECIPES

pytestmark = pytest.mark.usefixtures("one_thread")
NORM = nn.BatchNorm2d
RESNETS = ("resnet34", "resnet18", "resnet34_x8", "resnet34_deep", "unet34", "unet18")
SIZES = [(32, 32), (97, 61), (1, 1), (1, 50), (50, 1), (7, 9), (33, 8), (224, 224), (256, 256)]


class Classifier(nn.Module):
    """In the place of Inception-ResNet-v2, which takes half a second for a photo."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 1000)

    def forward(self, x):
        return self.head(x.mean(dim=(2, 3)))


def build(name, seed=0, real=False):
    """A fresh network; fusion gets a small classifier unless it is to be the `real` one."""
    torch.manual_seed(seed)
    with pytest.MonkeyPatch.context() as patch:
        if name == "fusion" and not real:
            patch.setattr("timm.create_model", lambda *args, **kwargs: Classifier())
        return models.build(name)


@pytest.fixture(scope="module", params=models.MODELS)
def network(request):
    """Each network in turn, not to be changed."""
    return build(request.param).eval()


@pytest.fixture(scope="module")
def fusion():
    """Fusion with the real classifier, not to be changed."""
    return build("fusion", real=True).eval()


@pytest.fixture
def fresh():
    return build("resnet34")


@pytest.fixture(scope="module")
def lab(prepared):
    """`(L, ab)` of the training photos."""
    photos = Photos(prepared.files("train"), 32)
    return color.rgb_to_lab(torch.stack([photos[0, i] for i in range(len(photos))]))


def noise(size):
    return torch.rand(2 if max(size) < 224 else 1, 1, *size) * 100


def grey_floor(ab):
    return losses.mse_per_photo(torch.zeros_like(ab), ab).mean()


def shapes(name, size, parts=None):
    """`(part, shape of its output)`, in the order of use, of these parts or of all convolutions. Computes nothing."""
    found = []
    with torch.device("meta"), torch.no_grad():
        model = build(name).eval()
        for part, module in model.named_modules():
            if part in parts if parts else isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                module.register_forward_hook(
                    lambda _module, _inputs, output, part=part: found.append((part, tuple(output.shape[1:])))
                )
        model(torch.empty(1, 1, *size))
    return found


def same(state, other):
    return state.keys() == other.keys() and all(torch.equal(state[key], other[key]) for key in state)


# --- sizes


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_output_has_the_size_of_the_input(network, size):
    L = noise(size)
    pred_ab = network(L)
    assert pred_ab.shape == (len(L), 2, *size) and pred_ab.dtype == torch.float32
    assert pred_ab.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("network", ["zhang"], indirect=True)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_scores_have_a_quarter_of_the_size_of_the_input(network, size):
    L = noise(size)
    scores = network(L, logits=True)
    assert scores.shape == (len(L), 261, math.ceil(size[0] / 4), math.ceil(size[1] / 4))
    assert scores.isfinite().all()


@pytest.mark.parametrize("size", [(97, 61), (7, 9), (33, 8), (24, 40)], ids=str)
@pytest.mark.parametrize("name", models.MODELS)
def test_every_layer_sees_photos_of_all_sizes_at_the_same_scale(name, size):
    def scales(size):
        (_, first), *rest = shapes(name, size)
        return [(part, *(Fraction(a, b) for a, b in zip(first[1:], shape[1:]))) for part, shape in rest]

    assert scales(size) == scales((256, 256))  # else colours would be drawn out beside what they belong to


@torch.no_grad()
def test_sizes_that_do_not_divide_by_the_stride_bring_no_frame_into_the_picture(network):
    height, width = network.stride + 1, 2 * network.stride + 1
    plain = network(torch.full((1, 1, 2 * network.stride, 3 * network.stride), 80.0))
    torch.testing.assert_close(network(torch.full((1, 1, height, width), 80.0)), plain[..., :height, :width])


@torch.no_grad()
@pytest.mark.parametrize(("name", "factor"), [("resnet34", 1), ("beta", 2), ("zhang", 4), ("unet34", 4)])
def test_what_is_painted_smaller_is_enlarged_in_place(name, factor):
    model = build(name)
    model.paint = lambda x: torch.arange(x.shape[3] // factor).expand(1, 2, x.shape[2] // factor, -1) / 255
    x = torch.arange(41.0)
    expected = (x + 0.5) / factor - 0.5 if factor == 4 else x // factor  # smoothly, or by repeating pixels
    inside = slice(factor, -factor)
    pred_ab = model(torch.zeros(1, 1, 17, 41))
    assert pred_ab.shape == (1, 2, 17, 41)
    found = pred_ab[..., inside]
    torch.testing.assert_close(found, expected[inside].expand_as(found), rtol=0, atol=1e-4)


def chain(part, *sizes):
    return [(f"{part}.{k}", size) for k, size in enumerate(sizes)]


FIGURE_000 = [
    ("encoder", (128, 28, 28)),
    ("decoder.block1", (128, 56, 56)),
    ("decoder.block2", (64, 56, 56)),
    ("decoder.block3", (64, 112, 112)),
    ("decoder.block4", (64, 112, 112)),
    ("decoder.block5", (32, 224, 224)),
    ("decoder.block6", (16, 224, 224)),
    ("decoder.to_ab", (2, 224, 224)),
]
ENCODER_002 = chain("encoder", (64, 128, 128), (128, 64, 64), (256, 32, 32), (512, 32, 32), (256, 32, 32))
DECODER_002 = [
    *chain("decoder", (256, 64, 64), (128, 64, 64), (64, 64, 64), (64, 128, 128), (32, 128, 128), (16, 128, 128)),
    ("to_ab", (2, 128, 128)),
]
UNET = [
    ("encoder.layer1", (64, 56, 56)),
    ("encoder.layer2", (128, 28, 28)),
    ("encoder.layer3", (256, 14, 14)),
    ("middle", (256, 14, 14)),
    ("up2", (128, 28, 28)),
    ("up1", (64, 56, 56)),
    ("to_ab", (2, 56, 56)),
]
STAGES = {  # the side of the photo, and what comes out where
    "resnet34": (224, FIGURE_000),
    "resnet18": (224, FIGURE_000),
    "simple_cnn": (
        256,
        [
            *chain("features", (64, 128, 128), (128, 64, 64), (256, 32, 32), (512, 32, 32), (512, 32, 32)),
            ("upsample", (512, 256, 256)),
            ("block6", (2, 256, 256)),
        ],
    ),
    "resnet34_x8": (
        256,
        [
            ("encoder.layer1", (64, 64, 64)),
            ("encoder.layer2", (128, 32, 32)),
            ("upsample4", (128, 128, 128)),
            ("encoder.layer3", (256, 64, 64)),
            ("encoder.layer4", (512, 32, 32)),
            ("upsample8", (512, 256, 256)),
            ("block6", (2, 256, 256)),
        ],
    ),
    "resnet34_deep": (
        256,
        [
            ("encoder", (256, 16, 16)),
            *chain("blocks", (256, 32, 32), (128, 32, 32), (128, 64, 64), (64, 64, 64), (64, 128, 128)),
            ("blocks.5", (32, 128, 128)),
            ("blocks.6", (32, 256, 256)),
            ("block6", (2, 256, 256)),
        ],
    ),
    "alpha": (
        400,
        [
            *chain("encoder", (8, 200, 200), (8, 200, 200), (16, 200, 200), (16, 100, 100), (32, 100, 100)),
            ("encoder.5", (32, 50, 50)),
            *chain("decoder", (32, 100, 100), (32, 100, 100), (32, 200, 200), (16, 200, 200), (16, 400, 400)),
            ("to_ab", (2, 400, 400)),
        ],
    ),
    "beta": (256, [*ENCODER_002, *DECODER_002]),
    "fusion": (256, [*ENCODER_002, ("fusion", (256, 32, 32)), *DECODER_002]),
    "zhang": (
        256,
        [
            ("block1", (64, 128, 128)),
            ("block2", (128, 64, 64)),
            ("block3", (256, 32, 32)),
            *((f"block{k}", (512, 32, 32)) for k in range(4, 8)),
            ("block8", (261, 64, 64)),
        ],
    ),
    "autoencoder": (
        256,
        [
            *chain("encoder", (32, 128, 128), (64, 64, 64), (128, 32, 32), (256, 16, 16)),
            *chain("decoder", (256, 32, 32), (128, 32, 32), (128, 64, 64), (64, 64, 64), (64, 128, 128)),
            ("decoder.5", (32, 128, 128)),
            ("to_ab", (2, 128, 128)),
        ],
    ),
    "unet34": (224, UNET),
    "unet18": (224, UNET),
}


@pytest.mark.parametrize("name", models.MODELS)
def test_sizes_inside_are_those_that_the_documents_and_the_comments_give(name):
    side, expected = STAGES[name]
    assert shapes(name, (side, side), [part for part, _ in expected]) == expected


# --- the scales of what goes in and comes out

# What is fed for an L of 0, 50 and 100.
PLAIN, GREY = (0, 0.5, 1), (0, 0.4663, 1)
NORMALISED = tuple((grey - 0.449) / 0.226 for grey in GREY)
FED = {
    "zhang": (-0.5, 0, 0.5),  # Zhang's released code
    **dict.fromkeys(("resnet34", "resnet18"), GREY),
    **dict.fromkeys(("unet34", "unet18"), NORMALISED),
}


@torch.no_grad()
def test_black_to_white_is_fed_on_the_scale_that_the_network_is_made_for(request, network):
    fed = []
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    hook = first.register_forward_hook(lambda _module, inputs, _output: fed.append(inputs[0]))
    network(torch.tensor([0.0, 50, 100]).view(3, 1, 1, 1).expand(3, 1, 16, 16))
    hook.remove()
    expected = torch.tensor(FED.get(request.node.callspec.params["network"], PLAIN))
    torch.testing.assert_close(fed[0], expected.view(3, 1, 1, 1).expand(3, 1, 16, 16), rtol=0, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "last", "bias"),
    [
        ("resnet34", "decoder.to_ab", lambda ab: ab / 255),
        ("unet18", "to_ab", lambda ab: ab / 255),
        ("simple_cnn", "block6.2", lambda ab: ab / 255),
        ("alpha", "to_ab", lambda ab: torch.atanh(ab / 128)),
    ],
)
def test_output_is_in_ab_units(name, last, bias):
    model, ab = build(name), torch.tensor([50.0, -30.0])
    layer = model.get_submodule(last)
    layer.weight.zero_()
    layer.bias.copy_(bias(ab))
    pred_ab = model.eval()(torch.rand(1, 1, 16, 16) * 100)
    torch.testing.assert_close(pred_ab, ab.view(1, 2, 1, 1).expand(1, 2, 16, 16), rtol=0, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("name", ["alpha", "beta", "fusion", "autoencoder"])
def test_tanh_keeps_colours_within_128(name):
    model = build(name)
    model.to_ab.bias.copy_(torch.tensor([1e3, -1e3]))
    pred_ab = model.eval()(torch.rand(1, 1, 16, 16) * 100)
    torch.testing.assert_close(pred_ab, torch.tensor([128.0, -128.0]).view(1, 2, 1, 1).expand(1, 2, 16, 16))


@pytest.mark.parametrize(
    ("name", "last", "std"), [("resnet34", "decoder.to_ab", 0.1), ("alpha", "to_ab", 1), ("unet18", "to_ab", 0.1)]
)
def test_a_photo_and_its_grey_copy_get_the_same_colours(name, last, std):
    photo = samples.astronaut()[40:136, 180:250]
    L, _ = color.rgb_to_lab(torch.from_numpy(photo.copy()).permute(2, 0, 1)[None])
    grey = (color.l_to_grey(L)[0, 0].numpy() * 255).round().astype(np.uint8)[..., None].repeat(3, axis=2)
    model = build(name)
    nn.init.normal_(model.get_submodule(last).weight, std=std)  # far from grey, where an untrained one starts
    one, other = (colorize(model, rgb).astype(int) for rgb in (photo, grey))
    assert np.ptp(one, axis=2).mean() > 20  # else two grey results would do
    assert np.abs(one - other).mean() < 1


# --- the start, and learning


@torch.no_grad()
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", models.MODELS)
def test_first_loss_is_within_a_fifth_of_the_grey_floor(lab, name, seed, training):
    L, ab = lab
    loss = losses.mse_per_photo(build(name, seed).train(training)(L), ab).mean()
    assert 0.8 < loss / grey_floor(ab) < 1.2


def test_16_bits_are_fine_enough_for_colours_near_grey(network, lab):
    with torch.no_grad():
        exact = network(lab[0])
        found = losses.predict(network, lab[0], torch.bfloat16)
    assert found.dtype == torch.float32
    assert 0 < (found - exact).abs().max() < 0.1 + 0.04 * exact.abs().max()


@pytest.mark.parametrize("name", RECIPES)
def test_gradients_reach_every_parameter(lab, name):
    L, ab = (values[::4] for values in lab)
    model = build(RECIPES[name].model).train()
    losses.Loss(RECIPES[name])(model, L, ab, torch.float32).mean().backward()
    dead = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    # A batch norm takes out what the bias before it adds: that gradient is 0, up to rounding.
    pairs = itertools.pairwise(model.named_modules())
    before_norm = {f"{name}.bias" for (name, _), (_, following) in pairs if isinstance(following, NORM)}
    assert dead - before_norm == {name for name, p in model.named_parameters() if not p.requires_grad}


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "lr", "steps"),  # the slower of two seeds took at most two thirds of these
    [
        ("resnet34", 1e-3, 70),
        ("resnet18", 1e-3, 70),
        ("simple_cnn", 3e-3, 60),
        pytest.param("resnet34_x8", 1e-3, 85, marks=SLOW),
        ("resnet34_deep", 3e-3, 60),
        ("alpha", 1e-3, 120),
        ("beta", 1e-3, 70),
        ("fusion", 1e-3, 60),
        pytest.param("zhang", 3e-4, 40, marks=SLOW),
        pytest.param("zhang_mse", 1e-4, 70, marks=SLOW),
        ("autoencoder", 1e-3, 70),
        ("unet34", 1e-3, 30),
        ("unet18", 1e-3, 30),
    ],
)
def test_four_photos_are_learnt_by_heart(lab, name, lr, steps):
    L, ab = (values[::4] for values in lab)
    model, loss = build(RECIPES[name].model), losses.Loss(RECIPES[name])
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr)
    for k in range(steps):
        optimizer.zero_grad()
        loss(model.train(), L, ab, torch.float32).mean().backward()
        optimizer.step()
        if k % 5 == 4:
            with torch.no_grad():
                share = losses.mse_per_photo(model.eval()(L), ab).mean() / grey_floor(ab)
            if share < 1 / 3:  # the mean colour of all would leave a half
                return
    raise AssertionError(f"after {steps} steps {share:.2f} of the grey floor is left")


@SLOW
def test_alpha_learns_its_photo_and_no_other():
    def lab_of(name):
        return color.photo_to_lab((255 * transform.resize(getattr(samples, name)(), (128, 128))).astype(np.uint8))

    def share(name):  # of the MSE that the photo's own mean colour has
        L, ab = lab_of(name)
        own = ab.mean(dim=(2, 3), keepdim=True).expand_as(ab)
        return (losses.mse_per_photo(model(L), ab) / losses.mse_per_photo(own, ab)).item()

    recipe, model = RECIPES["alpha"], build("alpha")
    optimizer = getattr(torch.optim, recipe.optimizer)(model.parameters(), recipe.lr)
    L, ab = lab_of("astronaut")
    for _ in range(recipe.n_epochs * 100):
        optimizer.zero_grad()
        losses.mse_per_photo(model(L), ab).mean().backward()
        optimizer.step()
    with torch.no_grad():
        assert share("astronaut") < 0.1 and share("coffee") > 1


# --- what the documents say


def test_the_figure_of_document_000_has_these_sizes(source_text):
    text = source_text("000").replace("$", "")
    figure = {tuple(map(int, size)) for size in re.findall(r"(\d+) x (\d+) x (\d+)", text)}
    assert figure == {size for _, size in FIGURE_000[1:]} | {(1, 224, 224)}
    assert "first 6 layers of Resnet34" in text and len(build("resnet34").encoder) == 6


def test_resnet18_is_smaller_and_else_the_same():
    small, large = build("resnet18").state_dict(), build("resnet34").state_dict()
    assert small.keys() < large.keys() and all(small[key].shape == large[key].shape for key in small)


def test_the_networks_of_document_001_are_as_it_says(source_text):
    text = source_text("001")
    simple, deep = build("simple_cnn"), build("resnet34_deep")
    six, three = [*simple.features, simple.block6], [part for part in deep.blocks if not isinstance(part, nn.Upsample)]
    assert "6 convolutional blocks, where each block consists of a 3x3 convolution layer, a Relu layer" in text
    assert "Three more blocks were added" in text and len(six) == 6 and len(three) == 3
    for block in (*six, *three, deep.block6, build("resnet34_x8").block6):
        assert [type(layer) for layer in block] == [nn.Conv2d, nn.ReLU, NORM]
        assert block[0].kernel_size == (3, 3) and block[0].dilation == (1, 1)
    (size,) = re.findall(r"5th block is \(batch size, (\d+), (\d+), (\d+)\)", text)
    stages = dict(STAGES["simple_cnn"][1])
    assert stages["features.4"] == tuple(map(int, size)) == dict(STAGES["resnet34_x8"][1])["encoder.layer4"]
    factors = [float(factor) for factor in re.findall(r"scale factor of (\d+)", text)]
    assert [simple.upsample.scale_factor, deep.blocks[0].scale_factor] == factors


@pytest.mark.parametrize("name", ["alpha", "beta", "fusion"])
def test_the_networks_of_document_002_shrink_by_strides_and_keep_sizes_by_padding(source_text, name):
    text = source_text("002")
    assert all(words in text for words in ("instead use stride=2", "Upsampling layers", "padding = 'same'"))
    model = build(name)
    parts = [part for name, part in model.named_modules() if "classifier" not in name]
    assert not any("Pool" in type(part).__name__ for part in parts)
    layers = [part for part in parts if isinstance(part, nn.Conv2d)]
    assert {layer.stride for layer in layers} == {(1, 1), (2, 2)} and model.to_ab.out_channels == 2
    assert all(layer.padding == tuple(side // 2 for side in layer.kernel_size) for layer in layers)
    # Three in all: those of beta and fusion have the last one after the last layer.
    assert sum(isinstance(part, nn.Upsample) for part in parts) == (3 if name == "alpha" else 2)


def test_the_network_of_document_003_is_as_it_says(source_text):
    text, model = source_text("003"), build("zhang")
    assert "over the course of 4 convolutional blocks" in text and "of 2-3 convolutional layers each" in text
    layers = [[layer for layer in getattr(model, f"block{k}") if isinstance(layer, nn.Conv2d)] for k in range(1, 9)]
    assert [len(block) for block in layers[:4]] == [2, 2, 3, 3]
    assert "learn 64 features" in text and "continuously doubled until 512 is the dimension" in text
    assert [block[-1].out_channels for block in layers[:4]] == [64, 128, 256, 512]
    assert "scale down the channels to 256 in block 8" in text and layers[7][0].out_channels == 256
    assert set(re.findall(r"temperature or \$T = ([\d.]+)\$", text)) == {str(model.T)}


# --- Zhang's network


# The public definition of what Zhang et al. released for PyTorch (github.com/richzhang/colorization, at 4bda68f,
# colorizers/eccv16.py): the shapes of the weights, by block and layer, here without `model` before them and `.weight`
# behind. Nothing here was run with the released file itself, which could not be fetched where this was written.
RELEASED = {
    "1.0": (64, 1, 3, 3), "1.2": (64, 64, 3, 3), "1.4": (64,),
    "2.0": (128, 64, 3, 3), "2.2": (128, 128, 3, 3), "2.4": (128,),
    "3.0": (256, 128, 3, 3), "3.2": (256, 256, 3, 3), "3.4": (256, 256, 3, 3), "3.6": (256,),
    "4.0": (512, 256, 3, 3), "4.2": (512, 512, 3, 3), "4.4": (512, 512, 3, 3), "4.6": (512,),
    "5.0": (512, 512, 3, 3), "5.2": (512, 512, 3, 3), "5.4": (512, 512, 3, 3), "5.6": (512,),
    "6.0": (512, 512, 3, 3), "6.2": (512, 512, 3, 3), "6.4": (512, 512, 3, 3), "6.6": (512,),
    "7.0": (512, 512, 3, 3), "7.2": (512, 512, 3, 3), "7.4": (512, 512, 3, 3), "7.6": (512,),
    "8.0": (512, 256, 4, 4), "8.2": (256, 256, 3, 3), "8.4": (256, 256, 3, 3), "8.6": (313, 256, 1, 1),
    "_out": (2, 313, 1, 1),
}  # fmt: skip
HALVE = ("1.2", "2.2", "3.4")  # the layers with a stride


def released_shapes():
    """The public definition's keys, each with its shape."""
    shapes = {}
    for name, shape in RELEASED.items():
        width = shape[1] if name == "8.0" else shape[0]  # the one transposed convolution
        shapes[f"model{name}.weight"] = shape
        if name != "_out":
            shapes[f"model{name}.bias"] = (width,)
        if len(shape) == 1:
            shapes |= {f"model{name}.running_mean": shape, f"model{name}.running_var": shape}
            shapes[f"model{name}.num_batches_tracked"] = ()
    return shapes


def released_like(numbers):
    """A state dict of the public layout, from `numbers(key, shape)`."""
    return {
        key: torch.tensor(7) if key.endswith("tracked") else numbers(key, shape)
        for key, shape in released_shapes().items()
    }


def small():
    """A state dict of the public layout that makes a file of some kB: each tensor is one number, repeated."""
    return released_like(lambda key, shape: torch.rand(1).expand(shape))


def released_forward(state, L, T=1):
    """What the public code computes, layer by layer: `(scores, ab)`. It has no temperature."""
    x = (L - 50) / 100
    *layers, _ = RELEASED.items()
    for name, shape in layers:
        weight, bias = state[f"model{name}.weight"], state[f"model{name}.bias"]
        if name == "8.0":
            x = F.conv_transpose2d(x, weight, bias, stride=2, padding=1).relu()
        elif name == "8.6":
            x = F.conv2d(x, weight, bias)
        elif len(shape) == 1:
            norm = state[f"model{name}.running_mean"], state[f"model{name}.running_var"]
            x = F.batch_norm(x, *norm, weight, bias)
        else:
            dilation = 2 if name[0] in "56" else 1
            x = F.conv2d(x, weight, bias, 2 if name in HALVE else 1, dilation, dilation).relu()
    colours = F.conv2d((x / T).softmax(dim=1), state["model_out.weight"])
    return x, 110 * F.interpolate(colours, scale_factor=4, mode="bilinear", align_corners=False)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """`(state, model, sha256)`: random numbers in the public layout, and what `eccv16` makes of a file of them."""

    def numbers(key, shape):
        if key.startswith("model_out"):
            return torch.rand(shape) * 2 - 1
        if len(shape) == 1:  # a variance of 0 or less would not do
            return torch.rand(shape) + 0.5 if "running_var" in key else torch.rand(shape)
        # So that the scores differ by some units, as after training: neither all colours count the same nor just one.
        return torch.randn(shape) * (0.3 if shape == RELEASED["8.6"] else math.sqrt(2 / math.prod(shape[1:])))

    torch.manual_seed(0)
    state, file = released_like(numbers), tmp_path_factory.mktemp("released") / "any-name.pth"
    torch.save(state, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    model, sha256 = models.eccv16(file)
    file.unlink()  # 129 MB, which pytest would keep
    assert sha256 == digest and not model.training
    # In float64, where another order of the sums makes no difference that matters.
    return {key: value.double() for key, value in state.items()}, model.double()


def test_the_released_weights_fit_into_zhangs_network(released):
    state, model = released
    ours = {f"block{key[5:]}": shape for key, shape in released_shapes().items() if key != "model_out.weight"}
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == ours | {"centres": (313, 2)}
    for key, value in model.state_dict().items():
        if key != "centres":
            assert torch.equal(value, state[key.replace("block", "model")].to(value.dtype)), key
    assert model.T == 1
    torch.testing.assert_close(model.centres, 110 * state["model_out.weight"][:, :, 0, 0].T, rtol=1e-6, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("T", [1, 0.38])  # the released code's, and the paper's, of the same authors
@pytest.mark.parametrize("size", [(24, 40), (27, 13)], ids=str)
def test_zhangs_network_computes_what_the_released_code_does(released, monkeypatch, size, T):
    state, model = released
    monkeypatch.setattr(model, "T", T)
    L = noise(size).double()
    # Theirs takes sides that divide by 8; others are grown first, by repeating the last pixels.
    scores, ab = released_forward(state, F.pad(L, (0, -size[1] % 8, 0, -size[0] % 8), mode="replicate"), T)
    scores = scores[..., : math.ceil(size[0] / 4), : math.ceil(size[1] / 4)]
    torch.testing.assert_close(model(L, logits=True), scores, rtol=0, atol=1e-9)
    assert scores.std(dim=1).mean() > 1 and ab.std() > 10  # else all would be grey
    torch.testing.assert_close(model(L), ab[..., : size[0], : size[1]], rtol=0, atol=2e-5)  # centres were float32


def test_a_file_from_before_batch_norms_counted_is_taken(tmp_path):
    state = {key: value for key, value in small().items() if not key.endswith("tracked")}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    model, _ = models.eccv16(tmp_path / "old.pth")
    assert torch.equal(model.block7[6].running_var, state["model7.6.running_var"])


def without(state, key):
    return {other: value for other, value in state.items() if other != key}


@pytest.mark.parametrize(
    "foreign",  # from the public layout
    [
        lambda state: without(state, "model_out.weight"),
        lambda state: without(state, "model5.2.bias"),
        lambda state: state | {"model9.0.bias": torch.zeros(3)},
        lambda state: state | {"model1.0.weight": torch.zeros(64, 4, 3, 3)},  # as in siggraph17, their later network
        lambda state: state | {"model_out.weight": torch.zeros(2, 261, 1, 1)},
        lambda state: state | {"model_out.weight": torch.zeros(2, 313, 3, 3)},
        lambda state: state | {"model_out.weight": torch.zeros(313, 2, 1, 1)},
        lambda state: state | {"model_out.weight": torch.tensor(1.0)},
        lambda state: state | {"model3.0.bias": "abc"},
        lambda state: {key.replace("model", "block"): value for key, value in state.items()},
        lambda state: {"model": state, "step": 3},  # a checkpoint of ours
        lambda state: list(state.values()),
        lambda state: torch.zeros(3),
        lambda state: {},
        lambda state: nn.Conv2d(1, 1, 1),
    ],
)
def test_a_file_of_another_layout_is_named(tmp_path, foreign):
    torch.save(foreign(small()), tmp_path / "mine.pth")
    with pytest.raises(ValueError, match=r"mine\.pth: does not hold .*eccv16: model1\.0\.weight to .*none to have it"):
        models.eccv16(tmp_path / "mine.pth")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_damaged_file_of_theirs_is_named(tmp_path, legacy):
    torch.save(small(), tmp_path / "whole.pth", _use_new_zipfile_serialization=not legacy)
    whole = (tmp_path / "whole.pth").read_bytes()
    for content in (b"", b"hello", b"<html>404</html>", whole[:10], whole[:200], whole[: len(whole) // 2], whole[:-1]):
        (tmp_path / "mine.pth").write_bytes(content)
        with pytest.raises(ValueError, match=r"mine\.pth: does not hold"):
            models.eccv16(tmp_path / "mine.pth")


def test_code_in_a_file_of_theirs_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    torch.save(small() | {"trap": Trap()}, tmp_path / "mine.pth")
    with pytest.raises(ValueError, match=r"mine\.pth: does not hold"):
        models.eccv16(tmp_path / "mine.pth")
    assert not (tmp_path / "run").exists()


def test_a_missing_file_of_theirs_is_named(web):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        models.eccv16("nowhere.pth")
    assert not web.asked


@torch.no_grad()
def test_where_one_score_is_highest_by_far_its_bin_is_the_colour():
    model = build("zhang").eval()
    model.block8[-1].bias[70] = 1e3
    pred_ab = model(noise((9, 17)))
    torch.testing.assert_close(pred_ab, color.ab_bins()[70].view(1, 2, 1, 1).expand(2, 2, 9, 17), rtol=0, atol=1e-3)


# --- fusion's classifier


@torch.no_grad()
@pytest.mark.parametrize("size", [(256, 256), (97, 61)], ids=str)
def test_the_classifier_is_shown_the_photo_as_it_knows_photos(size):
    model, shown = build("fusion").eval(), []
    model.classifier.register_forward_hook(lambda _module, inputs, _output: shown.append(inputs[0]))
    L = torch.zeros(3, 1, *size)
    L[1], L[2, ..., size[1] // 2 :] = 100, 100
    model(L)
    assert shown[0].shape == (3, 3, 299, 299)
    black, white, half = shown[0]
    for part, value in ((black, -1), (white, 1), (half[..., :100], -1), (half[..., 200:], 1)):
        torch.testing.assert_close(part, torch.full_like(part, value))
    assert torch.equal(half[0], half[1]) and torch.equal(half[0], half[2])


@torch.no_grad()
def test_what_the_classifier_says_reaches_the_colours_of_that_photo(monkeypatch):
    model, L = build("fusion").eval(), torch.full((2, 1, 32, 32), 50.0)
    nn.init.normal_(model.fusion[0].weight)  # untrained it hardly listens

    def painted(*classes):
        said = F.one_hot(torch.tensor(classes), 1000).float()
        monkeypatch.setattr(model, "classify", lambda grey: said)
        return model(L)

    one, other, mixed = painted(3, 3), painted(700, 700), painted(3, 700)
    assert (one - other).abs().mean() > 0.1 * one.abs().mean()
    torch.testing.assert_close(mixed, torch.stack([one[0], other[1]]))


@pytest.mark.parametrize("training", [True, False])
def test_classes_are_inceptions_whatever_the_mode(fusion, training):
    grey = torch.rand(2, 1, 299, 299)
    with torch.no_grad():
        expected = fusion.classifier.eval()((2 * grey - 1).repeat(1, 3, 1, 1)).softmax(dim=1)
    found = fusion.train(training).classify(grey.requires_grad_())
    fusion.eval()
    assert type(fusion.classifier).__name__ == "InceptionResnetV2" and found.shape == (2, 1000)
    assert not found.requires_grad
    torch.testing.assert_close(found, expected)


@torch.no_grad()
@pytest.mark.parametrize("size", [(97, 61), (7, 9)], ids=str)
def test_fusion_with_its_real_classifier_takes_any_size(fusion, size):
    pred_ab = fusion(noise(size))
    assert pred_ab.shape == (2, 2, *size) and pred_ab.isfinite().all()


def test_training_leaves_the_classifier_bit_for_bit_as_it_was(lab):
    L, ab = (values[::8] for values in lab)
    model = build("fusion", real=True)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        losses.mse_per_photo(model.train()(L), ab).mean().backward()
        optimizer.step()
    assert all(p.grad is None and not p.requires_grad for p in model.classifier.parameters())
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {key for key in before if not key.startswith("classifier.")}


def test_timms_weights_go_into_the_classifier_and_nowhere_else():
    import timm

    model, state = build("fusion", real=True), timm.create_model("inception_resnet_v2", pretrained=False).state_dict()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_imagenet(state)
    assert same(model.classifier.state_dict(), state)
    after = model.state_dict()
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    assert changed and all(key.startswith("classifier.") for key in changed)
    with pytest.raises(KeyError, match="classif"):
        model.load_imagenet({key: value for key, value in state.items() if not key.startswith("classif")})


def test_the_published_classifier_has_a_class_more_which_is_left_out():
    model = build("fusion", real=True)
    state = {key: value.clone() for key, value in model.classifier.state_dict().items()}
    longer = dict(state)
    for key in ("classif.weight", "classif.bias"):
        longer[key] = torch.cat([torch.full_like(state[key][:1], 7), state[key]])
    model.load_imagenet(longer)
    assert same(model.classifier.state_dict(), state)


# --- starting weights


def trained(arch):
    """A torchvision ResNet as after training: fresh batch norms would hide a forgotten buffer."""
    model = getattr(torchvision.models, arch)(weights=None)
    for module in model.modules():
        if isinstance(module, NORM):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model


@torch.no_grad()
def test_one_channel_encoder_equals_imagenets_on_a_grey_picture(fresh):
    original = trained("resnet34")
    first_six = nn.Sequential(*list(original.children())[:6]).eval()
    grey = torch.rand(2, 1, 64, 48)
    expected = first_six(grey.repeat(1, 3, 1, 1))
    assert not torch.allclose(fresh.eval().encoder(grey), expected, rtol=1e-2, atol=1e-2)
    fresh.load_imagenet(original.state_dict())
    torch.testing.assert_close(fresh.encoder(grey), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("name", RESNETS)
def test_a_resnets_weights_go_into_the_encoder_and_nowhere_else(name, cut):
    model = build(name)
    parts = dict(model.encoder.named_children())
    state = trained(model.backbone).state_dict()
    if cut:
        state = {key: value for key, value in state.items() if key.split(".")[0] in parts}
    assert cut != ("fc.weight" in state)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_imagenet(state)
    expected = {key: value for key, value in state.items() if key.split(".")[0] in parts}
    expected["conv1.weight"] = state["conv1.weight"].sum(dim=1, keepdim=True)
    assert same(model.encoder.state_dict(), expected)
    others = {key for key in before if not key.startswith("encoder.")}
    assert others and all(torch.equal(model.state_dict()[key], before[key]) for key in others)


def test_weights_that_lack_a_part_of_the_encoder_are_refused(fresh):
    state = {key: value for key, value in trained("resnet34").state_dict().items() if not key.startswith("layer2")}
    with pytest.raises(RuntimeError, match=r"layer2\.0\.conv1"):
        fresh.load_imagenet(state)


def test_networks_that_build_on_others_know_where_to_get_them():
    backbones = {name: build(name).backbone for name in models.MODELS}
    assert {name for name, backbone in backbones.items() if backbone} == {*RESNETS, "fusion"}
    assert {backbone for backbone in backbones.values() if backbone} == models._IMAGENET.keys()
    for url in (*models._IMAGENET.values(), models._ECCV16):
        assert re.fullmatch(r"https://.*/\w+-[0-9a-f]{8}\.pth", url)  # its name ends with the start of its hash


def test_unknown_model_is_answered_with_the_names():
    with pytest.raises(ValueError, match=r"no model 'resnet99'; choose one of .*resnet34.*unet18"):
        models.build("resnet99")


# --- what a network costs


@pytest.mark.parametrize("name", models.MODELS)
def test_the_parameters_that_a_network_costs_are_those_it_has(name):
    parameters, products = models.cost(name)
    assert parameters == sum(p.numel() for p in build(name, real=True).parameters())
    assert products > parameters  # each weight of a convolution is used at many places


@pytest.mark.parametrize(
    ("name", "layers"),  # what comes out of each: channels and side
    [
        ("alpha", [(8, 112), (8, 112), (16, 112), (16, 56), (32, 56), (32, 28), (32, 56), (16, 112), (2, 224)]),
        ("autoencoder", [(32, 112), (64, 56), (128, 28), (256, 14), (128, 28), (64, 56), (32, 112), (2, 112)]),
    ],
)
def test_the_products_that_a_network_costs_are_those_of_its_convolutions(name, layers):
    pairs = itertools.pairwise([(1, 224), *layers])
    assert models.cost(name)[1] == sum(9 * c_in * c_out * side**2 for (c_in, _), (c_out, side) in pairs)


@pytest.mark.parametrize("name", ["alpha", "zhang"])
def test_a_network_can_be_costed_before_anything_else_and_built_after(name):
    color.ab_bins.cache_clear()  # as in a fresh process
    models.cost(name)
    assert {value.device.type for value in build(name).state_dict().values()} == {"cpu"}


# --- where weights come from


@pytest.fixture
def web(request, tmp_path, monkeypatch):
    """Weights on a web of our own: `.state`, `.file`, `.url`, `.asked` (requests), `.stop()`.

    ImageNet's for a resnet34, or with the parameter "eccv16" those of Zhang et al.
    """
    name = getattr(request, "param", "resnet34")
    state = small() if name == "eccv16" else {"conv1.weight": torch.arange(6.0)}
    (tmp_path / "web").mkdir()
    torch.save(state, tmp_path / "web" / "weights")
    digest = hashlib.sha256((tmp_path / "web" / "weights").read_bytes()).hexdigest()
    file = (tmp_path / "web" / "weights").rename(tmp_path / "web" / f"{name}-{digest[:8]}.pth")
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=file.parent)

        def log_message(self, *args):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def stop():
        server.shutdown()
        server.server_close()
        thread.join()

    url = f"http://127.0.0.1:{server.server_port}/{file.name}"
    if name == "eccv16":
        monkeypatch.setattr(models, "_ECCV16", url)
    else:
        monkeypatch.setitem(models._IMAGENET, name, url)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("no_proxy", "*")
    local = tmp_path / "torch" / "hub" / "checkpoints" / file.name
    yield types.SimpleNamespace(state=state, file=file, url=url, asked=asked, stop=stop, local=local)
    if thread.is_alive():
        stop()


def test_weights_are_fetched_once_and_kept_for_the_next_machine(web, tmp_path):
    cache = tmp_path / "drive" / "weights"
    assert same(models.imagenet_state("resnet34", cache=cache), web.state)
    assert same(models.imagenet_state("resnet34", cache=cache), web.state)
    assert len(web.asked) == 1
    assert [f.read_bytes() for f in cache.iterdir()] == [web.file.read_bytes()]
    web.stop()
    web.local.unlink()  # the next machine, without network
    assert same(models.imagenet_state("resnet34", cache=cache), web.state)


def test_without_network_there_is_a_warning_with_the_address(web):
    web.stop()
    with pytest.warns(UserWarning, match="random numbers") as caught:
        assert models.imagenet_state("resnet34") is None
    assert web.url in str(caught[0].message) and str(web.local) in str(caught[0].message)


@pytest.mark.parametrize("network", [True, False])
def test_a_damaged_local_file_is_not_trusted(web, network):
    web.local.parent.mkdir(parents=True)
    torch.save({"conv1.weight": torch.zeros(6)}, web.local)
    if network:
        assert same(models.imagenet_state("resnet34"), web.state)
        assert web.local.read_bytes() == web.file.read_bytes()
    else:
        web.stop()
        with pytest.warns(UserWarning, match="could not be fetched"):
            assert models.imagenet_state("resnet34") is None


def test_a_damaged_cache_is_replaced(web, tmp_path):
    kept = tmp_path / web.file.name
    kept.write_bytes(web.file.read_bytes()[:-1])
    assert same(models.imagenet_state("resnet34", cache=tmp_path), web.state)
    assert kept.read_bytes() == web.file.read_bytes()


def test_a_download_with_the_wrong_hash_is_refused(web):
    torch.save({"conv1.weight": torch.zeros(6)}, web.file)
    with pytest.warns(UserWarning, match="hash"):
        assert models.imagenet_state("resnet34") is None
    assert not web.local.exists()


def test_a_cache_that_cannot_be_written_costs_a_warning_not_the_weights(web, blocked):
    with pytest.warns(UserWarning, match="could not be kept"):
        assert same(models.imagenet_state("resnet34", cache=blocked), web.state)


def test_a_given_file_is_used(web, tmp_path):
    given = {"conv1.weight": torch.ones(3)}
    torch.save(given, tmp_path / "mine.pth")
    assert same(models.imagenet_state("resnet34", tmp_path / "mine.pth"), given)
    assert not web.asked


def test_a_missing_given_file_is_named(web):
    with pytest.raises(FileNotFoundError, match=r"^nowhere\.pth: .*check the path\.$"):
        models.imagenet_state("resnet34", "nowhere.pth")
    assert not web.asked


ECCV16 = pytest.mark.parametrize("web", ["eccv16"], indirect=True)


@ECCV16
def test_zhangs_weights_are_fetched_once_and_kept_for_the_next_machine(web, tmp_path):
    def fetched():
        model, sha256 = models.eccv16(cache=tmp_path / "drive")
        bias = model.state_dict()["block8.6.bias"]
        assert sha256 == hashlib.sha256(web.file.read_bytes()).hexdigest()
        assert torch.equal(bias, web.state["model8.6.bias"])

    fetched()
    fetched()
    assert len(web.asked) == 1
    assert [f.read_bytes() for f in (tmp_path / "drive").iterdir()] == [web.file.read_bytes()]
    web.stop()
    web.local.unlink()  # the next machine, without network
    fetched()


@ECCV16
@pytest.mark.parametrize("network", [True, False])
def test_what_of_zhangs_weights_cannot_be_had_or_trusted_costs_a_warning(web, network):
    if network:
        torch.save(small(), web.file)  # of another hash
    else:
        web.stop()
    with pytest.warns(UserWarning, match=r"of Zhang et al\. could not be fetched .* left out\. To avoid") as caught:
        assert models.eccv16() is None
    assert web.url in str(caught[0].message) and str(web.local) in str(caught[0].message)
    assert ("hash" in str(caught[0].message)) == network and caught[0].filename == __file__
    assert not web.local.exists()
