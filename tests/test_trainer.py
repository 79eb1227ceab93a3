"""One step of the training against the same by hand: optimizer, schedules, precision, averages, frozen parts."""

import copy
import random
import warnings

import numpy as np
import pytest
import torch
from kills import same

from colorlib import color, losses, models, recipes, runtime
from colorlib.loading import Photos
from colorlib.trainer import Trainer, load_encoder, range_test

pytestmark = pytest.mark.usefixtures("one_thread")

PRECISIONS = ("float64", "float32", "bfloat16", "float16")


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch, tiny):
    monkeypatch.setattr(runtime, "device", lambda: torch.device("cpu"))
    with torch.random.fork_rng():  # a trainer seeds the stream of all
        yield


def recipe(**changes):
    names = dict(name="test", source="test", model="tiny", encoder_weights="none", precision="float32")
    return recipes.Recipe(**{**names, "size": 16, "batch_size": 5, "lr": 1e-2, "n_epochs": 10, **changes})


@pytest.fixture(scope="module")
def photos(prepared):
    """Training photos, `(15, 3, 16, 16)`."""
    return Photos(prepared.files("train"), 16).__getitems__([(0, i) for i in range(15)])


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def rates(schedule, steps, **changes):
    """The learning rate of every step of a run, and the one that is left after it."""
    job = Trainer(recipe(schedule=schedule, **changes), steps)
    found = [job.lr]
    for _ in range(steps * changes.get("n_epochs", 10)):
        job.optimizer.step()
        job.schedule.step()
        found.append(job.lr)
    return np.array(found[:-1]), found[-1]


# --- optimizer and schedule


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
@pytest.mark.parametrize("clip", [None, 1e-3, 1e3])
def test_steps_are_those_of_torchs_optimizer(photos, name, clip):
    job = Trainer(recipe(optimizer=name, clip=clip, precision="float64"), 3)
    model = copy.deepcopy(job.model)
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=1e-2, weight_decay=0)
    L, ab = color.rgb_to_lab(photos)
    for k in range(3):
        optimizer.zero_grad()
        loss = ((color.to_unit(model(L.double())) - color.to_unit(ab)) ** 2).mean()
        loss.backward()
        if clip:
            norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
            assert 2e-3 < norm < 1e3  # else there is nothing to clip, or nothing but
            for p in model.parameters():
                p.grad *= min(1, clip / norm)
        optimizer.step()
        job.step(photos, len(photos))
        assert job.step_number == k + 1
        for p, q in zip(job.model.parameters(), model.parameters()):
            torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-9)
    assert job.n == 45 and 0 < job.mean_loss() < 1


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_clipped_step_is_as_long_as_the_limit_says(photos, precision):
    job = Trainer(recipe(optimizer="SGD", lr=1.0, clip=1e-3, precision=precision), 3)
    before = [p.detach().clone() for p in job.model.parameters()]
    job.step(photos, 15)
    moved = torch.cat([(p - q).flatten() for p, q in zip(job.model.parameters(), before)])
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("n", [None, 20])
def test_the_loss_is_the_mean_over_the_whole_batch(photos, n):
    job = Trainer(recipe(), 3)
    L, ab = color.rgb_to_lab(photos)
    loss = losses.mse_per_photo(copy.deepcopy(job.model)(L), ab).sum().item()
    job.step(photos, n or len(photos))
    assert job.mean_loss() == pytest.approx(loss / (n or len(photos)))


def test_a_constant_rate_is_constant():
    assert set(rates("constant", 3)[0]) == {1e-2}


@pytest.mark.parametrize(("steps", "n_epochs"), [(7, 10), (5, 3)])
def test_a_cycle_goes_up_and_down_in_straight_lines(steps, n_epochs):
    found, left = rates("cyclic", steps, n_epochs=n_epochs)
    half = steps * n_epochs / 2
    share = 1 - abs(np.arange(steps * n_epochs) - half) / half
    np.testing.assert_allclose(found, 4e-4 + share * (1e-2 - 4e-4))
    assert left == pytest.approx(4e-4)


def test_cycles_repeat():
    whole, _ = rates("cyclic", 3, cycle_epochs=2)
    cycle, _ = rates("cyclic", 3, n_epochs=2)
    np.testing.assert_allclose(whole, np.tile(cycle, 5))


def test_one_cycle_rises_over_three_tenths_and_ends_at_nothing():
    found, left = rates("one-cycle", 10)
    top = found.argmax()
    assert found[0] == pytest.approx(1e-2 / 25) and abs(top - 30) <= 1
    assert found[top] == pytest.approx(1e-2, rel=1e-3)
    assert (np.diff(found[: top + 1]) > 0).all() and (np.diff([*found[top:], left]) < 0).all()
    assert left < 1e-7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "steps"}, r"^there is no schedule 'steps'; choose constant, cyclic or one-cycle\.$"),
        ({"optimizer": "Adman"}, r"^there is no optimizer 'Adman'; choose Adam, SGD or so"),
        ({"precision": "half"}, r"^there is no precision 'half'; choose one of auto, float64, .* float16\.$"),
        ({"frozen": ("layers.9",)}, r"no part 'layers\.9' that could be frozen; it has layers, layers\.0, .*layers\.3"),
        ({"model": "resnet34", "frozen": ("encoder.layer9",)}, r"it has encoder, encoder\.conv1, .*decoder\.to_ab\.$"),
    ],
    ids=str,
)
def test_what_does_not_exist_is_answered_with_what_does(changes, message):
    with pytest.raises(ValueError, match=message):
        Trainer(recipe(**changes), 3)


@pytest.mark.parametrize("schedule", ["constant", "cyclic", "one-cycle"])
def test_the_encoder_has_its_share_of_the_rate_and_all_decay(photos, schedule):
    settings = {"encoder_lr": 0.25, "weight_decay": 0.1, "optimizer": "AdamW", "schedule": schedule}
    job = Trainer(recipe(model="resnet18", frozen=("encoder.bn1",), **settings), 3)
    rest, encoder = job.optimizer.param_groups
    assert {id(p) for p in rest["params"]} == {id(p) for p in job.model.decoder.parameters()}
    trained = {id(p) for p in job.model.encoder.parameters()} - {id(p) for p in job.model.encoder.bn1.parameters()}
    assert {id(p) for p in encoder["params"]} == trained
    assert rest["weight_decay"] == encoder["weight_decay"] == 0.1
    for _ in range(3):
        assert encoder["lr"] == pytest.approx(rest["lr"] / 4) and job.lr == rest["lr"]
        job.step(photos[:5], 5)


def test_rare_colours_count_more_in_the_gradient(photos):
    even, rare = (Trainer(recipe(rebalance=0.5), 3) for _ in range(2))
    prior = torch.linspace(1, 2, 261) / torch.linspace(1, 2, 261).sum()
    rare.set_prior(prior.tolist())
    L, ab = color.rgb_to_lab(photos)
    weights = losses.class_weights(prior).float()
    loss = losses.mse_per_photo(rare.model(L), ab, weights).mean().item()
    for job in (even, rare):
        job.step(photos, len(photos))
    assert rare.mean_loss() == pytest.approx(loss, rel=1e-5) and even.mean_loss() != pytest.approx(loss, rel=1e-3)
    assert any(not torch.equal(p, q) for p, q in zip(even.model.parameters(), rare.model.parameters()))


# --- averaged weights


@pytest.mark.parametrize("keep", [0.15, 0.99])
def test_the_average_is_a_moving_average(photos, keep):
    job = Trainer(recipe(ema=keep), 3)
    assert job.result is job.model  # nothing to average yet
    mean = {}
    for k in range(4):
        job.step(photos[k : k + 9], 9)
        now = weights(job.model)
        share = min(keep, (1 + k) / (10 + k))  # less while there is little to keep
        mean = {key: share * mean.get(key, now[key]) + (1 - share) * now[key] for key in now}
    found = weights(job.result)
    assert job.result is not job.model and not same(found, now)
    for key in found:
        if not key.endswith("num_batches_tracked"):  # running means and variances are averaged too
            torch.testing.assert_close(found[key], mean[key])


# --- frozen parts


@pytest.mark.parametrize("frozen", [("layers.0",), ("layers.1", "layers.3"), ("encoder.layer1", "decoder.block1")])
def test_frozen_parts_stay_bit_for_bit(photos, frozen):
    model = "tiny" if frozen[0].startswith("layers") else "resnet34"
    job = Trainer(recipe(model=model, frozen=frozen, ema=0.9, optimizer="AdamW"), 3)
    before = weights(job.model)
    for _ in range(2):
        job.step(photos, 15)
        job.model.eval().train()  # as a validation leaves it
    for after in (weights(job.model), weights(job.result)):
        changed = {key for key in after if not torch.equal(after[key], before[key])}
        assert changed == {key for key in after if not key.startswith(tuple(f"{part}." for part in frozen))}


# --- precision


@pytest.mark.parametrize("precision", [*PRECISIONS, "auto"])
def test_the_network_computes_in_the_precision_asked_for(photos, precision, monkeypatch):
    monkeypatch.setattr(runtime, "precision", lambda device: torch.bfloat16)
    job, used = Trainer(recipe(precision=precision), 3), []
    job.model.layers[3].register_forward_hook(lambda module, inputs, output: used.append(output.dtype))
    job.step(photos, 15)
    expected = torch.bfloat16 if precision == "auto" else getattr(torch, precision)
    assert used == [expected] == [job.precision]
    kept = torch.float64 if precision == "float64" else torch.float32
    assert {value.dtype for value in job.model.parameters()} == {kept}
    assert job.scaler.is_enabled() == (precision == "float16")


def test_a_step_of_float16_that_overflows_is_left_out_and_the_scale_made_smaller(photos):
    job = Trainer(recipe(precision="float16"), 3)
    before, scale = weights(job.model)["layers.0.weight"], job.scaler.get_scale()
    job.model.layers[3].weight.register_hook(lambda grad: grad * torch.inf)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch takes the schedule's step for one too early
        job.step(photos, 15)
    assert torch.equal(weights(job.model)["layers.0.weight"], before)
    assert job.scaler.get_scale() == scale / 2 and job.bad_step() is None


def test_weights_lie_as_tensor_cores_like_them():
    job = Trainer(recipe(model="resnet34", ema=0.9), 3)
    for model in (job.model, job.average.module):
        assert model.decoder.block1[0].weight.is_contiguous(memory_format=torch.channels_last)
        assert not model.decoder.block1[0].weight.is_contiguous()


# --- a loss that is not a number


def test_the_first_bad_step_is_told_with_its_rate(photos):
    job = Trainer(recipe(schedule="cyclic"), 3)
    for k in range(6):
        rate = job.lr
        if k == 3:
            told = (4, rate)
            job.model.layers[0].weight.data.fill_(torch.nan)
        assert job.bad_step() == (None if k < 3 else (3, rate) if k == 3 else told)
        job.step(photos, 15)
    assert job.bad_step() == told
    job.start_epoch()
    job.model.load_state_dict(weights(Trainer(recipe(), 3).model))
    assert job.bad_step() is None


def test_weights_that_are_no_numbers_are_told_before_any_loss_is(photos):
    job = Trainer(recipe(), 3)
    job.model.layers[3].weight.register_hook(lambda grad: grad * torch.nan)
    job.step(photos, 15)
    assert np.isfinite(job.mean_loss()) and job.bad_step() == (1, 1e-2)


# --- torch.compile


class Compiler:
    """Instead of torch.compile: counts its calls; fails at once, when the model is used, or not at all."""

    def __init__(self, fails):
        self.fails, self.calls = fails, 0

    def __call__(self, model):
        if self.fails == "at once":
            raise RuntimeError("Dynamo is not supported here")

        def forward(L):
            self.calls += 1
            if self.fails == "when used":
                raise OSError("no C++ compiler")
            return model(L)

        return forward


@pytest.mark.parametrize("fails", ["at once", "when used", None])
def test_compiling_changes_nothing_in_the_weights(photos, monkeypatch, fails):
    compiler = Compiler(fails)
    monkeypatch.setattr(torch, "compile", compiler)
    jobs = [Trainer(recipe(), 3), Trainer(recipe(), 3)]
    before, stream = weights(jobs[1].model), torch.get_rng_state()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        jobs[1].go(compile=True)
    assert [str(w.message).split(" (")[0] for w in caught] == ["torch.compile does not work here"] * bool(fails)
    assert same(weights(jobs[1].model), before) and torch.equal(torch.get_rng_state(), stream)
    for job in jobs:
        job.step(photos, 15)
    assert same(weights(jobs[0].model), weights(jobs[1].model))
    assert compiler.calls == {"at once": 0, "when used": 1, None: 2}[fails]  # tried, and used


def disturbed(photos, **changes):
    """`(L, what the network saw of it in two steps)`, having checked that the truth is as it was."""
    job, seen, asked = Trainer(recipe(**changes), 3), [], []
    job.model.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    loss = job.loss
    job.loss = lambda model, L, ab, *rest: asked.append(ab) or loss(model, L, ab, *rest)
    for _ in range(2):
        job.step(photos, 15)
    L, ab = color.rgb_to_lab(photos)
    assert all(torch.equal(found, ab) for found in asked)
    assert all(0 <= found.min() and found.max() <= 100 for found in seen)
    return L, torch.stack(seen)


def test_unless_asked_the_network_sees_l_as_it_is(photos):
    L, seen = disturbed(photos)
    assert seen.equal(L.clamp(0, 100).expand_as(seen))


def test_other_exposures_bend_l_by_an_exponent_for_each_photo(photos):
    L, seen = disturbed(photos, gamma=0.3)
    middle = (L > 10) & (L < 90)
    exponents = [((found / 100).log() / (L / 100).log())[i][middle[i]] for found in seen for i in range(15)]
    assert all(e.std() < 1e-3 for e in exponents)  # one for each photo
    exponents = torch.stack([e.mean() for e in exponents])
    assert 0.15 < exponents.log().std() < 0.5 and len(exponents.unique()) == 30


def test_sharpness_blurs_and_sharpens_each_photo_by_a_share_of_its_detail(photos):
    L, seen = disturbed(photos, sharpness=0.8)
    means = torch.nn.functional.unfold(L, 3).view(15, 9, 14, 14).mean(dim=1)
    detail, L = (L[:, 0, 1:-1, 1:-1] - means), L[:, 0, 1:-1, 1:-1]
    clear = (detail.abs() > 3) & (L > 25) & (L < 75)
    shares = [((found[i, 0, 1:-1, 1:-1] - L[i]) / detail[i])[clear[i]] for found in seen for i in range(15)]
    shares = [share for share in shares if len(share) > 3]
    assert len(shares) > 15 and all(share.std() < 1e-3 for share in shares)
    shares = torch.stack([share.mean() for share in shares])
    assert -0.801 < shares.min() < -0.3 and 0.3 < shares.max() < 0.801 and len(shares.unique()) == len(shares)


def test_grain_is_noise_of_another_strength_for_each_photo(photos):
    L, seen = disturbed(photos, grain=6.0)
    middle = (L > 30) & (L < 70)
    noise = [(found - L)[i][middle[i]] for found in seen for i in range(15)]
    spreads = torch.stack([values.std() for values in noise])
    assert torch.cat(noise).mean().abs() < 0.5
    assert spreads.min() < 2 and 4 < spreads.max() < 8
    assert not torch.equal(noise[0], noise[15])  # and in each step another


# --- state


@pytest.mark.parametrize("precision", ["float32", "float16", "float64"])
@pytest.mark.parametrize("schedule", ["constant", "cyclic", "one-cycle"])
def test_another_trainer_goes_on_from_a_state_bit_for_bit(photos, tmp_path, precision, schedule):
    settings = recipe(
        precision=precision,
        schedule=schedule,
        ema=0.9,
        clip=0.01,
        frozen=("layers.0",),
        gamma=0.2,
        sharpness=1.0,
        grain=3.0,
    )
    job = Trainer(settings, 4)
    for _ in range(3):
        job.step(photos, 15)
    torch.save(job.state(), tmp_path / "state")
    ends = []
    for _ in range(2):
        for _ in range(2):
            job.step(photos[:7], 7)
        ends.append((torch.rand(3).tolist(), job.lr, job.mean_loss(), job.state()))
        job = Trainer(settings, 4)
        job.load(torch.load(tmp_path / "state", weights_only=True))
        assert job.step_number == 3
    assert same(*ends)


# --- starting weights


@pytest.mark.parametrize(
    ("asked", "found", "label", "first"),
    [
        ("none", True, "none, by choice", None),
        ("imagenet", True, "ImageNet", None),
        ("imagenet", False, "none, ImageNet's could not be fetched", None),
        ("my.pth", True, "from my.pth", "my.pth"),
    ],
)
@pytest.mark.parametrize("drive", [True, False])
def test_starting_weights_are_loaded_and_told(tmp_path, monkeypatch, asked, found, label, first, drive):
    calls, loaded = [], []

    def imagenet_state(*args, **kwargs):
        calls.append((args, kwargs))
        return {"a": 1} if found else None

    monkeypatch.setattr(models, "imagenet_state", imagenet_state)
    monkeypatch.setattr(models.MODELS["tiny"], "load_imagenet", lambda self, state: loaded.append(state), raising=False)
    monkeypatch.setattr(models.MODELS["tiny"], "backbone", "other", raising=False)
    job = Trainer(recipe(encoder_weights=asked), 3)
    assert load_encoder(job.model, job.recipe, tmp_path / "drive" / "run" if drive else None) == label
    cache = tmp_path / "drive" / "weights" if drive else None
    assert calls == ([] if asked == "none" else [(("other", first), {"cache": cache})])
    assert loaded == [{"a": 1}] * (found and asked != "none")


@pytest.mark.parametrize("asked", ["imagenet", "my.pth"])
@pytest.mark.parametrize("model", ["tiny", "zhang"])
def test_a_network_without_a_part_for_them_is_left_without(monkeypatch, asked, model):
    monkeypatch.setattr(models, "imagenet_state", None)  # nobody asks for any
    job = Trainer(recipe(model=model, encoder_weights=asked), 3)
    before = weights(job.model)
    assert load_encoder(job.model, job.recipe) == "none"
    assert same(weights(job.model), before)


@pytest.mark.parametrize("content", ["garbage", "other weights"])
def test_a_file_without_the_right_weights_is_named(tmp_path, content):
    file = tmp_path / "mine.pth"
    if content == "garbage":
        file.write_bytes(b"no weights")
    else:
        torch.save({"conv1.weight": torch.zeros(1, 1)}, file)
    job = Trainer(recipe(model="resnet34", encoder_weights=str(file)), 3)
    with pytest.raises(ValueError, match=r"mine\.pth: does not hold the weights of resnet34; give an"):
        load_encoder(job.model, job.recipe)


# --- the range test


def states():
    return torch.random.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


def test_the_range_test_raises_the_rate_until_the_loss_explodes(prepared):
    before = states()
    table = range_test(recipe(batch_size=128, ema=0.9), prepared, 1e-4, 1e4, n_steps=60)
    assert states() == before
    assert table.columns.tolist() == ["lr", "loss"] and 10 < len(table) < 60
    np.testing.assert_allclose(table.lr, np.geomspace(1e-4, 1e4, 60)[: len(table)])
    limit = 4 * table.loss.cummin()
    assert (table.loss[:-1] < limit[:-1]).all() and not table.loss.iloc[-1] < limit.iloc[-1]
    assert table.loss.idxmin() > 5  # first it learns


def test_the_range_test_trains_at_these_rates_on_batches_of_all_photos(prepared, monkeypatch):
    rates, sizes, step = [], [], Trainer.step
    monkeypatch.setattr(
        Trainer, "step", lambda self, rgb, n: [rates.append(self.lr), sizes.append(len(rgb)), step(self, rgb, n)]
    )
    table = range_test(recipe(schedule="cyclic", batch_size=4), prepared, 1e-6, 1e-4, n_steps=9)
    assert len(table) == 9 and rates == pytest.approx(table.lr.tolist()) and sizes == [4] * 9
    assert table.lr.iloc[[0, -1]].tolist() == [pytest.approx(1e-6), pytest.approx(1e-4)]


def test_the_range_test_ends_at_a_loss_that_is_no_number(prepared, monkeypatch):
    class Broken(models.MODELS["tiny"]):
        def forward(self, L):
            return super().forward(L) * torch.nan

    monkeypatch.setitem(models.MODELS, "broken", Broken)
    assert len(range_test(recipe(model="broken"), prepared, n_steps=5)) == 1
