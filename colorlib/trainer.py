"""A model with all that a checkpoint holds, and the step that moves them; the learning-rate range test."""

import copy
import pickle
import traceback
import warnings
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.optim import lr_scheduler, swa_utils

from colorlib import color, distributed, losses, models, runtime
from colorlib.loading import Batches, Photos, loader


class Trainer:
    """Everything of a run that changes from step to step.

    Args:
        recipe: a `recipes.Recipe`.
        steps: how many make an epoch.
    """

    def __init__(self, recipe, steps):
        self.recipe, self.device = recipe, runtime.device()
        known = ("auto", "float64", "float32", "bfloat16", "float16")
        if recipe.precision not in known:
            raise ValueError(f"there is no precision {recipe.precision!r}; choose one of {', '.join(known)}.")
        if not hasattr(torch.optim, recipe.optimizer):
            raise ValueError(f"there is no optimizer {recipe.optimizer!r}; choose Adam, SGD or so (torch.optim).")
        auto = recipe.precision == "auto"
        self.precision = runtime.precision(self.device) if auto else getattr(torch, recipe.precision)
        torch.manual_seed(recipe.seed)
        model = models.build(recipe.model)
        if self.precision == torch.float64:
            model.double()
        if recipe.sync_bn and distributed.world() > 1 and self.device.type == "cuda":
            for name, part in model.named_children():
                if name not in recipe.frozen:  # they do not train, and may be norms of another library
                    setattr(model, name, nn.SyncBatchNorm.convert_sync_batchnorm(part))
        self.model = self.forward = model.to(self.device, memory_format=torch.channels_last)
        self.frozen = [_part(model, name).requires_grad_(False) for name in recipe.frozen]
        self.optimizer = _optimizer(model, recipe)
        self.schedule = _schedule(self.optimizer, recipe, steps)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)
        self.average = None
        if recipe.ema:
            self.average = swa_utils.AveragedModel(model, multi_avg_fn=self._keep, use_buffers=True)
        self.set_prior(None)
        self.step_number = 0
        self.start_epoch()

    def set_prior(self, prior):
        """How often each bin of colour occurs in the training photos; what rebalancing needs to know."""
        self.loss = losses.Loss(self.recipe, prior, self.device, getattr(self.model, "centres", None))

    def start_epoch(self):
        """Begin to count anew: the sum of the photos' losses, their number, the first step that went wrong."""
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.n = 0
        self._bad = torch.full((), -1, device=self.device)
        self._bad_lr = torch.zeros((), dtype=torch.float64, device=self.device)

    def _keep(self, average, current, n):
        # Less at the beginning, or a short run would mostly keep the random weights that it started from.
        n = self.step_number
        swa_utils.get_ema_multi_avg_fn(min(self.recipe.ema, (1 + n) / (10 + n)))(average, current, n)

    @property
    def result(self):
        """The model to validate and to keep: the averaged one, if there is one."""
        return self.average.module if self.average and self.average.n_averaged else self.model

    @property
    def lr(self):
        return self.optimizer.param_groups[0]["lr"]

    def _parts(self):
        parts = {name: getattr(self, name) for name in ("model", "optimizer", "schedule", "scaler", "average")}
        return {name: part for name, part in parts.items() if part}

    def state(self):
        """All of it, as `checkpoints.save` takes it. All processes must call it; the first one's is whole."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        # Of what the processes draw at random, only the first one's is kept.
        cuda = torch.cuda.get_rng_state() if self.device.type == "cuda" else None
        state["rng"] = {"cpu": torch.get_rng_state(), "cuda": cuda}
        state |= {"step": self.step_number, "n": self.n, "loss_sum": sum(distributed.gather(self.loss_sum.item()))}
        return state

    def load(self, state):
        """Go back to a state, or to another machine's."""
        for name, part in self._parts().items():
            if state.get(name):
                part.load_state_dict(state[name])
        torch.set_rng_state(state["rng"]["cpu"])
        if self.device.type == "cuda" and state["rng"]["cuda"] is not None:
            torch.cuda.set_rng_state(state["rng"]["cuda"])
        self.start_epoch()
        self.step_number, self.n = state["step"], state["n"]
        self.loss_sum += state["loss_sum"] if distributed.rank() == 0 else 0

    def go(self, compile=False):
        """Make ready for `step`, when the weights are those to start from."""
        if distributed.rank() > 0:  # so that what is drawn at random (dropout) differs from rank to rank
            key = (self.recipe.seed, distributed.rank(), self.step_number)
            torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        if compile:
            self.forward = self._compiled()
        if distributed.world() > 1:
            gpu = [torch.cuda.current_device()] if self.device.type == "cuda" else None
            self.forward = nn.parallel.DistributedDataParallel(self.forward, device_ids=gpu)

    def _compiled(self):
        """The model compiled, if that works: tried on a batch of noise, after which all is as before."""
        before = copy.deepcopy(self.model.state_dict())
        try:
            compiled = torch.compile(self.model)
            self.model.train()
            size = self.recipe.seen
            with torch.random.fork_rng(devices=runtime.gpus()):
                L = torch.rand(self.recipe.batch_size // distributed.world(), 1, size, size, device=self.device) * 100
                self.loss(compiled, L, L.new_zeros(len(L), 2, size, size), self.precision).sum().backward()
        except Exception as error:  # whatever the compiler of this machine throws
            warnings.warn(f"torch.compile does not work here ({type(error).__name__}): going on without.", stacklevel=2)
            compiled = self.model
        self.model.zero_grad()
        self.model.load_state_dict(before)
        return compiled

    def step(self, rgb, n):
        """Learn from one batch.

        Args:
            rgb: this process's part of the batch, uint8 `(B, 3, H, W)`.
            n: how many photos the whole batch has. With fewer than processes, the last ones' photo does not count.
        """
        self.model.train()
        for part in self.frozen:
            part.eval()  # or batch norms would go on counting
        L, ab = color.rgb_to_lab(rgb.to(self.device, non_blocking=True))
        if self.recipe.gamma:
            exponent = (self.recipe.gamma * torch.randn(len(L), 1, 1, 1, device=self.device)).exp()
            L = 100 * (L / 100).clamp(0, 1) ** exponent
        loss_sum = self.loss(self.forward, L, ab, self.precision).sum() * (distributed.rank() < n)
        # The gradients are averaged over the processes, hence times their number: the mean over the whole batch.
        loss = loss_sum / n * distributed.world()
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.recipe.clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer._opt_called = True  # if the scaler left the first step out too: else the schedule warns
        lr = self.lr
        self.schedule.step()
        if self.average:
            self.average.update_parameters(self.model)
        self.step_number += 1
        self.n += n
        # What the loss was is asked for at the next checkpoint: here it would make us wait for the GPU.
        self.loss_sum += loss_sum.detach()
        first_bad = (self._bad < 0) & ~loss_sum.detach().isfinite()
        self._bad = torch.where(first_bad, self.step_number, self._bad)
        self._bad_lr = torch.where(first_bad, lr, self._bad_lr)

    def mean_loss(self):
        """The mean of the loss over this epoch's photos so far."""
        return sum(distributed.gather(self.loss_sum.item())) / self.n

    def bad_step(self):
        """The first step of this epoch with a loss that is not a number, and its learning rate; else None.

        Or this step, if it left weights that are none.
        """
        bad = (self._bad.item(), self._bad_lr.item())
        if bad[0] < 0 and not all(value.isfinite().all() for value in self.model.state_dict().values()):
            bad = (self.step_number, self.lr)
        return min((bad for bad in distributed.gather(bad) if bad[0] >= 0), default=None)


def _part(model, name):
    try:
        return model.get_submodule(name)
    except AttributeError:
        parts = ", ".join(name for name, _ in model.named_modules() if name.count(".") < 2 and name)
        raise ValueError(f"the model has no part {name!r} that could be frozen; it has {parts}.") from None


def _optimizer(model, recipe):
    encoder = {id(p) for p in getattr(model, "encoder", nn.Module()).parameters()} if recipe.encoder_lr != 1 else set()
    groups = [[], []]
    for p in model.parameters():
        if p.requires_grad:
            groups[id(p) in encoder].append(p)
    rates = recipe.lr, recipe.lr * recipe.encoder_lr
    groups = [{"params": params, "lr": lr} for params, lr in zip(groups, rates) if params]
    return getattr(torch.optim, recipe.optimizer)(groups, lr=recipe.lr, weight_decay=recipe.weight_decay)


def _schedule(optimizer, recipe, steps):
    rates = [group["lr"] for group in optimizer.param_groups]
    if recipe.schedule == "constant":
        return lr_scheduler.ConstantLR(optimizer, factor=1)
    if recipe.schedule == "cyclic":
        half = steps * (recipe.cycle_epochs or recipe.n_epochs) / 2
        # From a 25th of the maximum, as torch's one-cycle starts. Adam's momentum stays as it is.
        low = [lr / 25 for lr in rates]
        return lr_scheduler.CyclicLR(optimizer, low, rates, step_size_up=half, cycle_momentum=False)
    if recipe.schedule == "one-cycle":
        # One more, since after the last step it is asked once again, and would begin to rise.
        return lr_scheduler.OneCycleLR(optimizer, rates, total_steps=recipe.n_epochs * steps + 1)
    raise ValueError(f"there is no schedule {recipe.schedule!r}; choose constant, cyclic or one-cycle.")


@contextmanager
def enough_memory(recipe):
    """Within it, running out of memory becomes a MemoryError that names the batch size to try."""
    full = False
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        signs = ("allocate memory", "out of memory", "ALLOC_FAILED")
        full = isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)
        if not full:
            raise
        traceback.clear_frames(error.__traceback__)  # a notebook keeps the error, and they would keep the memory
    if full:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise MemoryError(
            f"a batch of {recipe.batch_size} photos of {recipe.seen} x {recipe.seen} does not fit into the memory "
            f"of {runtime.device()}: try batch_size={max(1, recipe.batch_size // 2)}."
        )


def load_encoder(model, recipe, mirror=None):
    """Give a fresh model its starting weights; returns a label for the tables that says where they come from.

    ImageNet's weights are kept beside the mirror. Raises a FileNotFoundError or a ValueError about the user's own file.
    """
    if not getattr(model, "backbone", None):
        return "none"
    if recipe.encoder_weights == "none":
        return "none, by choice"
    given = None if recipe.encoder_weights == "imagenet" else recipe.encoder_weights
    cache = Path(mirror).parent / "weights" if mirror else None
    try:
        state = models.imagenet_state(model.backbone, given, cache=cache)
        if state is None:
            return "none, ImageNet's could not be fetched"
        model.load_imagenet(state)
    except (RuntimeError, KeyError, AttributeError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{given or 'the ImageNet file'}: does not hold the weights of {model.backbone}; "
            "give another file, or encoder_weights='none'."
        ) from error
    return f"from {Path(given).name}" if given else "ImageNet"


def range_test(recipe, data, lowest=1e-5, highest=1.0, n_steps=100):
    """Train for some steps with a learning rate that grows from each to the next, and see when the loss explodes.

    A good maximum lies somewhat below the rate at which the loss is lowest (Smith 2017, section 3.3).

    Args:
        recipe: its schedule is not used; a batch has at most as many photos as there are.
        data: a `data.Prepared` set.
        lowest, highest: learning rates, the last one for the last step.
        n_steps: how many; it ends before when the loss is four times its lowest.

    Returns a DataFrame: `lr` and `loss` (the recipe's, not rebalanced), smoothed over the steps before.
    """
    rates = np.geomspace(lowest, highest, n_steps)
    rows, smooth = [], 0.0
    recipe = replace(recipe, schedule="constant")
    with runtime.bar(n_steps, "range test") as bar, trial(recipe, data, n_steps) as (trainer, batches):
        load_encoder(trainer.model, recipe)
        for k, rgb in enumerate(batches):
            for group in trainer.optimizer.param_groups:
                group["lr"] = rates[k] * group["initial_lr"] / recipe.lr
            trainer.start_epoch()
            trainer.step(rgb, len(rgb))
            smooth = 0.9 * smooth + 0.1 * trainer.mean_loss()
            rows.append((rates[k], smooth / (1 - 0.9 ** (k + 1))))  # as if it had not started from 0
            bar.update()
            if not rows[-1][1] < 4 * min(loss for _, loss in rows):
                break
    return pd.DataFrame(rows, columns=["lr", "loss"])


@contextmanager
def trial(recipe, data, n_steps, packed=None):
    """A fresh trainer and the batches of its first steps; the caller's random stream is left alone.

    Args:
        data: a `data.Prepared` set; a batch has at most as many photos as it has.
        packed: what `loading.pack` made of its training photos, if that is there.
    """
    files = data.files("train")
    size = min(recipe.batch_size, len(files))
    photo_set = Photos(files, recipe.size, recipe.resize, recipe.flip, recipe.seed, packed, recipe.seen, recipe.zoom)
    with torch.random.fork_rng(devices=runtime.gpus()), enough_memory(recipe):
        order = Batches(np.arange(n_steps * size) % len(files), size, seed=recipe.seed)
        yield Trainer(recipe, n_steps), loader(photo_set, order, runtime.preset().workers)
