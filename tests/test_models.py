"""Document 000's network: its sizes, its encoder, its start; and where ImageNet's weights come from."""

import hashlib
import http.server
import itertools
import threading
import types

import numpy as np
import pytest
import torch
import torchvision
from skimage import data as samples

from colorlib import color, evaluation, models
from colorlib.colorize import colorize
from colorlib.data import Photos

pytestmark = pytest.mark.usefixtures("one_thread")
NORM = torch.nn.BatchNorm2d


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return models.build("resnet34").eval()


@pytest.fixture
def fresh():
    torch.manual_seed(0)
    return models.build("resnet34")


@pytest.fixture(scope="module")
def lab(prepared):
    """`(L, ab)` of the training photos."""
    photos = Photos(prepared.files("train"), 32)
    return color.rgb_to_lab(torch.stack([photos[0, i] for i in range(len(photos))]))


@torch.no_grad()
def test_sizes_are_those_of_the_figure(model):
    sizes = []
    hooks = [
        part.register_forward_hook(lambda _module, _input, output: sizes.append(tuple(output.shape[1:])))
        for part in (model.encoder, *model.decoder)
    ]
    model(torch.full((1, 1, 224, 224), 50.0))
    for hook in hooks:
        hook.remove()
    assert sizes == [
        (128, 28, 28),
        (128, 56, 56),
        (64, 56, 56),
        (64, 112, 112),
        (64, 112, 112),
        (32, 224, 224),
        (16, 224, 224),
        (2, 224, 224),
    ]


@torch.no_grad()
def test_one_channel_encoder_equals_imagenets_on_a_grey_picture(fresh):
    original = torchvision.models.resnet34(weights=None)
    for module in original.modules():  # as after training: fresh batch norms would hide a forgotten buffer
        if isinstance(module, NORM):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    first_six = torch.nn.Sequential(*list(original.children())[:6]).eval()
    grey = torch.rand(2, 1, 64, 48)
    expected = first_six(grey.repeat(1, 3, 1, 1))
    assert not torch.allclose(fresh.eval().encoder(grey), expected, rtol=1e-2, atol=1e-2)
    fresh.load_imagenet(original.state_dict())
    torch.testing.assert_close(fresh.encoder(grey), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 32), (97, 61), (224, 224), (1, 1), (1, 50), (50, 1), (7, 9), (33, 8)])
def test_output_has_the_size_of_the_input(model, size):
    inside = []
    hooks = [
        model.encoder.register_forward_hook(lambda _module, inputs, _output: inside.append(inputs[0].shape[-2:])),
        model.decoder.register_forward_hook(lambda _module, _inputs, output: inside.append(output.shape[-2:])),
    ]
    pred_ab = model(torch.rand(2, 1, *size) * 100)
    for hook in hooks:
        hook.remove()
    assert pred_ab.shape == (2, 2, *size)
    assert pred_ab.isfinite().all()
    assert inside[0] == inside[1]  # else colours would be drawn out beside what they belong to


@torch.no_grad()
def test_sizes_that_do_not_divide_by_8_bring_no_frame_into_the_picture(model):
    plain = model(torch.full((1, 1, 16, 24), 80.0))
    torch.testing.assert_close(model(torch.full((1, 1, 9, 17), 80.0)), plain[..., :9, :17])


@torch.no_grad()
def test_output_is_in_ab_units(fresh):
    fresh.decoder[-1].weight.zero_()
    fresh.decoder[-1].bias.copy_(torch.tensor([50 / 255, -30 / 255]))  # the difference to grey, on ab_unit
    pred_ab = fresh.eval()(torch.rand(1, 1, 16, 16) * 100)
    torch.testing.assert_close(pred_ab, torch.tensor([50.0, -30.0]).view(1, 2, 1, 1).expand(1, 2, 16, 16))


@torch.no_grad()
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("training", [True, False])
def test_first_loss_is_within_a_fifth_of_the_grey_floor(lab, seed, training):
    torch.manual_seed(seed)
    L, ab = lab
    loss = evaluation.mse_per_photo(models.build("resnet34").train(training)(L), ab).mean()
    floor = evaluation.mse_per_photo(torch.zeros_like(ab), ab).mean()
    assert 0.8 < loss / floor < 1.2


def test_gradients_reach_every_parameter(fresh, lab):
    L, ab = lab
    evaluation.mse_per_photo(fresh.train()(L), ab).mean().backward()
    dead = [name for name, p in fresh.named_parameters() if p.grad is None or not p.grad.any()]
    # A batch norm takes out what the bias before it adds: that gradient is 0, up to rounding.
    pairs = itertools.pairwise(fresh.named_modules())
    before_norm = {f"{name}.bias" for (name, _), (_, following) in pairs if isinstance(following, NORM)}
    assert set(dead) <= before_norm


def test_a_photo_and_its_grey_copy_get_the_same_colours(fresh):
    photo = samples.astronaut()[40:136, 180:250]
    L, _ = color.rgb_to_lab(torch.from_numpy(photo.copy()).permute(2, 0, 1)[None])
    grey = (color.l_to_grey(L)[0, 0].numpy() * 255).round().astype(np.uint8)[..., None].repeat(3, axis=2)
    torch.nn.init.normal_(fresh.decoder[-1].weight, std=0.1)  # far from grey, where an untrained one starts
    one, other = (colorize(fresh, rgb).astype(int) for rgb in (photo, grey))
    assert np.ptp(one, axis=2).mean() > 20  # else two grey results would do
    assert np.abs(one - other).mean() < 1


def test_16_bits_are_fine_enough_for_colours_near_grey(model, lab):
    with torch.no_grad():
        exact = model(lab[0])
        found = evaluation.predict(model, lab[0], torch.bfloat16)
    assert found.dtype == torch.float32 and 0 < (found - exact).abs().max() < 0.2


def test_resnet18_has_the_same_sizes_and_fewer_weights(model):
    small = models.build("resnet18")
    weights = small.state_dict()
    assert weights.keys() < model.state_dict().keys() and len(small.encoder.layer2) == 2
    assert small(torch.rand(2, 1, 16, 24) * 100).shape == (2, 2, 16, 24)
    small.load_imagenet(torchvision.models.resnet18(weights=None).state_dict())


def test_unknown_model_is_answered_with_the_names():
    with pytest.raises(ValueError, match=r"no model 'resnet99'; choose one of .*resnet34"):
        models.build("resnet99")


@pytest.fixture
def web(tmp_path, monkeypatch):
    """ImageNet's weights on a web of our own: `.state`, `.file`, `.url`, `.asked` (requests), `.stop()`."""
    state = {"conv1.weight": torch.arange(6.0)}
    (tmp_path / "web").mkdir()
    torch.save(state, tmp_path / "web" / "weights")
    digest = hashlib.sha256((tmp_path / "web" / "weights").read_bytes()).hexdigest()
    file = (tmp_path / "web" / "weights").rename(tmp_path / "web" / f"resnet34-{digest[:8]}.pth")
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
    monkeypatch.setitem(models._IMAGENET, "resnet34", types.SimpleNamespace(url=url))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("no_proxy", "*")
    local = tmp_path / "torch" / "hub" / "checkpoints" / file.name
    yield types.SimpleNamespace(state=state, file=file, url=url, asked=asked, stop=stop, local=local)
    if thread.is_alive():
        stop()


def same(state, other):
    return state.keys() == other.keys() and all(torch.equal(state[key], other[key]) for key in state)


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
    with pytest.warns(UserWarning, match="scratch") as caught:
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
