"""fit(): the training loop of 02_train, made safe, fast and parallel.

As a program: `python -m colorlib.training RECIPE DATA RUN_DIR`; started by torchrun, on several GPUs or machines.
"""

import argparse
import ast
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from colorlib import checkpoints, distributed, evaluation, losses, metrics, recipes, runtime
from colorlib.data import ready, ready_again
from colorlib.loading import Batches, Photos, draw_subset, loader, mean_ab, pack
from colorlib.runs import Run, Shipped, Strip, newest_run, restore
from colorlib.trainer import Trainer, enough_memory, load_encoder


def fit(recipe, data, run_dir, mirror=None, *, minutes=10, hours=None, compile=False, after_epoch=None):
    """Train a recipe, or go on with it: call it again after an interruption and it resumes.

    The order of photos, the subset of each phase and every flip are functions of the recipe's seed, the
    epoch and the photo. So a run that was killed at any moment and resumed ends with the same weights as one that
    was not: bit for bit on a CPU, and on a GPU, so is the expectation, after `runtime.deterministic`.

    Args:
        recipe: a `recipes.Recipe`.
        data: a `data.Prepared` set with training and validation photos.
        run_dir: local folder of this run; made if need be.
        mirror: a folder that outlives this machine, on Drive say; checkpoints are copied there, and
            restored from there if they are newer than those in `run_dir`.
        minutes: save this often in the middle of an epoch; at the end of each it is saved anyway.
        hours: stop cleanly, with a checkpoint, so long after this call; None for never.
        compile: use `torch.compile`, if it works here.
        after_epoch: called after each epoch with the history (see `Run.history`) and the floors.

    Returns:
        The `Run`, finished or stopped: Ctrl-C, the stop button and SIGTERM end it cleanly after the current step.

    Raises:
        ValueError: if the photos are too few, or not the same on all machines, or `run_dir` or `mirror` holds a run of
            another recipe or data set.
        OSError: if `run_dir` cannot be written to, or the mirror not be read and `run_dir` holds nothing to go on with.
        FloatingPointError: if the loss stops being a number.
        MemoryError: if a batch does not fit into the device's memory.
    """
    run_dir = runtime.writable(run_dir)
    with torch.random.fork_rng(devices=runtime.gpus()), enough_memory(recipe):  # the caller's stream is left alone
        _Job(recipe, data, run_dir, mirror).train(minutes, hours, compile, after_epoch)
    return Run(run_dir)


class _Job:
    """One call of `fit`."""

    def __init__(self, recipe, data, run_dir, mirror):
        self.begin, self.recipe, self.run_dir, self.first = time.monotonic(), recipe, run_dir, distributed.rank() == 0
        self.files, self.val_files, self.packs = data.files("train"), data.files("val"), data.folder / "packs"
        if recipe.one_photo:
            self.val_files = self.files[:1]
            self.files = self.val_files * (100 * recipe.batch_size)
        n = len(draw_subset(len(self.files), recipe.subset, recipe.seed, 0)) if self.files else 0
        _check_sizes(recipe, n, self.val_files, data)
        if len(set(distributed.gather(data.fingerprint))) > 1:
            raise ValueError(f"{data.name!r} is not the same on all machines: prepare the same photos on each.")
        self.steps, self.workers = math.ceil(n / recipe.batch_size), runtime.preset().workers
        self.facts = {
            "recipe": asdict(recipe) | {"frozen": list(recipe.frozen)},
            "data": {"fingerprint": data.fingerprint, "settings": data.settings},
        }
        previous = distributed.first_of_all(lambda: restore(run_dir, mirror, self.facts))
        self.trainer = Trainer(recipe, self.steps)
        self.mirror = checkpoints.Mirror(run_dir, mirror if self.first else None)
        if previous:
            state, saved = previous
            self.trainer.load(state)
            self.history, self.timing = saved["history"], saved["timing"]
            self.facts |= {key: saved[key] for key in ("train_mean", "prior", "floors", "encoder_weights")}
            self.mirror.update()  # what did not arrive when it was away
        else:
            self.history, self.timing = [], {"seconds": 0.0, "waiting": 0.0}
            given = distributed.first_of_all(lambda: load_encoder(self.trainer.model, recipe, mirror))
            mean = distributed.first_of_all(lambda: mean_ab(self.files, workers=self.workers).tolist())
            prior = None
            if recipe.rebalance is not None:
                prior = distributed.first_of_all(
                    lambda: losses.prior_of(self.files, self.workers, recipe.size).tolist()
                )
            self.facts |= {"encoder_weights": given, "train_mean": mean, "prior": prior, "floors": {}}
        self.trainer.set_prior(self.facts["prior"])
        precision = str(self.trainer.precision).removeprefix("torch.")
        self.facts |= {"device": str(self.trainer.device), "precision": precision}
        known = previous[1] if previous else self.facts
        before, now = (f"in {facts['precision']} on {facts['device']}" for facts in (known, self.facts))
        if self.first and before != now:
            print(f"So far it was trained {before}, from now on {now}: the weights will not be quite the same.")

    def train(self, minutes, hours, compile, after_epoch):
        """Go on until the recipe is finished, or someone or the clock asks to stop."""
        try:
            if _finished(self.recipe, self.history):
                if self.first:
                    print(f"{self.run_dir.name}: finished after epoch {len(self.history)}.")
                return
            self.open_photos()
            self.trainer.go(compile)
            with runtime.stop_requests() as asked:
                stopped = self.train_epochs(60 * minutes, self.begin + 3600 * (hours or math.inf), asked, after_epoch)
            if stopped and self.first:
                why = "as asked" if asked else f"after {hours:g} hours"
                why += f", at step {self.trainer.step_number}"
                print(f"{self.run_dir.name}: stopped {why}. Start it again and it goes on.")
        finally:
            self.mirror.close()

    def train_epochs(self, save_every, end, asked, after_epoch):
        """Returns whether it had to stop before the recipe was finished."""
        if self.first:
            self.strip = Strip(self.run_dir, self.val_files, self.recipe.size)
            self.strip.save("truth")
            if not self.trainer.step_number:
                self.strip.save("epoch-00000", self.trainer.model)
        numbers = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
        settings = {"initial": self.trainer.step_number, "disable": not self.first, "bar_format": numbers}
        with runtime.bar(self.recipe.n_epochs * self.steps, self.recipe.name, **settings) as bar:
            line = _Line(bar)
            while not _finished(self.recipe, self.history):
                if self.train_epoch(line, save_every, end, asked):
                    return True
                begin = time.perf_counter()
                with self.workers_gone(asked) as gone:
                    self.finish_epoch()
                if gone:
                    return True
                if self.first and after_epoch:
                    after_epoch(pd.DataFrame(self.history), self.facts["floors"])
                line.since += time.perf_counter() - begin  # it is about training alone
        return False

    def open_photos(self):
        """The training and the validation photos; packed, if each is read more than once and there is room."""
        recipe, packs = self.recipe, [None, None]
        if recipe.n_epochs * recipe.subset > 1:
            for k, files in enumerate((self.files, self.val_files)):
                if k or not recipe.zoom:  # what it cuts out differs each time
                    make = partial(pack, files, recipe.size, recipe.resize, self.packs)
                    packs[k] = distributed.first_of_machine(make)
        how = recipe.size, recipe.resize, recipe.flip, recipe.seed
        self.train_set = Photos(self.files, *how, packs[0], recipe.seen, recipe.zoom)
        self.val_set = Photos(self.val_files, recipe.size, recipe.resize, pack=packs[1])

    def train_epoch(self, line, save_every, end, asked):
        """Train to the end of the epoch; or, if it has to stop before, save and return True."""
        recipe, trainer, epoch = self.recipe, self.trainer, len(self.history)
        chosen = draw_subset(len(self.files), recipe.subset, recipe.seed, epoch // recipe.phase_epochs)
        ranks = {"rank": distributed.rank(), "world": distributed.world()}
        done = trainer.step_number - epoch * self.steps
        order = Batches(chosen, recipe.batch_size, epoch=epoch, seed=recipe.seed, start=done, **ranks)
        before, saved = time.perf_counter(), time.monotonic()
        batches = iter(loader(self.train_set, order, self.workers))
        for n in order.sizes():
            with self.workers_gone(asked) as gone:
                rgb = next(batches)
            if gone:
                return True
            waiting = time.perf_counter() - before
            trainer.step(rgb, n)
            self.timing["waiting"] += waiting
            self.timing["seconds"] += time.perf_counter() - before
            line.update(n, waiting, self.history)
            self.mirror.tell()
            if distributed.world() == 1 or trainer.step_number % 10 == 0:  # to agree takes time
                now = time.monotonic()
                save, stop = distributed.any_of([now - saved >= save_every, bool(asked) or now >= end])
                if save or stop:
                    self.check_loss()
                    self.save("last")
                    saved = time.monotonic()
                if stop:
                    return True
            before = time.perf_counter()  # saving is no waiting for photos
        return False

    @contextmanager
    def workers_gone(self, asked):
        """Within it, what asked us to stop may have ended the worker processes too: then save, and fill the list."""
        gone = []
        try:
            yield gone
        except RuntimeError:
            if not asked:
                raise
            self.check_loss()
            self.save("last")
            gone.append(True)

    def finish_epoch(self):
        """Validate, and save."""
        trainer, recipe, begin = self.trainer, self.recipe, time.perf_counter()
        self.check_loss()
        distributed.same_buffers(trainer.result)
        mine = distributed.share(range(len(self.val_files)))
        how = {"precision": trainer.precision, "chosen": mine, "loss": trainer.loss}
        mean = self.facts["train_mean"]
        rows = evaluation.evaluate(trainer.result, self.val_set, mean, recipe.batch_size, self.workers, **how)
        rows = pd.concat(distributed.gather(rows)).sort_index()
        row = {"epoch": len(self.history) + 1, "train_loss": trainer.mean_loss()}
        row |= {"val_loss": float(rows.loss.mean()), "val_mse": float(rows.mse.mean()), "lr": trainer.lr}
        if not math.isfinite(row["val_loss"]):  # the last step can break what no later one tells
            raise FloatingPointError(self.not_a_number(trainer.step_number, trainer.lr))
        self.facts["floors"] = {name: float(rows[f"mse_{name}"].mean()) for name in metrics.FLOORS}
        row["seconds"] = self.timing["seconds"] + time.perf_counter() - begin
        row["waiting"] = self.timing["waiting"] / max(self.timing["seconds"], 1e-9)
        self.history.append(row)
        self.timing = {"seconds": 0.0, "waiting": 0.0}
        trainer.start_epoch()
        if row["val_loss"] < min((row["val_loss"] for row in self.history[:-1]), default=math.inf):
            self.save("best")
        if self.first:
            self.strip.save(f"epoch-{len(self.history):05d}", trainer.result)
            pd.DataFrame(self.history).to_csv(self.run_dir / "history.csv", index=False)
        self.save("last")

    def save(self, name):
        state = {"model": self.trainer.result.state_dict()} if name == "best" else self.trainer.state()
        if not self.first:
            return
        progress = {"epoch": len(self.history), "step": self.trainer.step_number, "timing": self.timing}
        values = {key: self.history[-1][key] if self.history else None for key in ("val_loss", "val_mse")}
        facts = {**self.facts, **progress, **values, "history": self.history}
        checkpoints.save(self.run_dir, name, state, facts)
        if name == "last":
            self.mirror.update()

    def check_loss(self):
        bad = self.trainer.bad_step()
        if bad is not None:
            raise FloatingPointError(self.not_a_number(*bad))

    def not_a_number(self, step, lr):
        good = checkpoints.newest(self.run_dir, "last")[0]
        kept = f"the last good checkpoint is {self.run_dir / good['file']}" if good else "nothing was saved before"
        return (
            f"the loss is not a number at step {step} (epoch {len(self.history) + 1}), at a learning rate of "
            f"{lr:.3g}; {kept}. A new run with a smaller rate than {self.recipe.lr:g} usually helps."
        )


class _Line:
    """The progress line: photos per second and the share of the time spent waiting for them, over the last seconds."""

    def __init__(self, bar):
        self.bar = bar
        self.start()

    def start(self):
        self.since, self.n, self.waiting = time.perf_counter(), 0, 0.0

    def update(self, n, waiting, history):
        self.n, self.waiting = self.n + n, self.waiting + waiting
        passed = time.perf_counter() - self.since
        if passed > 2:
            text = f"{self.n / passed:.0f} photos/s, waiting {self.waiting / passed:.0%}, epoch {len(history) + 1}"
            if history:
                loss = "{train_loss:.5g} val {val_loss:.5g}".format(**history[-1])
                text += f", loss train {loss}, MSE {history[-1]['val_mse']:.5f}"
            self.bar.set_postfix_str(text, refresh=False)
            self.start()
        self.bar.update()


def _check_sizes(recipe, n, val_files, data):
    if n < recipe.batch_size:
        raise ValueError(
            f"the batch size {recipe.batch_size} is larger than the {n} training photos of an epoch in {data.name!r}: "
            f"use batch_size={max(n, 1)} or less, or more photos."
        )
    if not val_files:
        raise ValueError(f"{data.name!r} has no validation photos: prepare it with a share of them (val=0.1).")
    if distributed.world() > min(recipe.batch_size, len(val_files)):
        raise ValueError(
            f"{distributed.world()} processes are more than the photos of a batch ({recipe.batch_size}) or of the "
            f"validation ({len(val_files)}): start fewer."
        )


def _finished(recipe, history):
    """Whether all epochs are done, or the last `patience` of them brought no better validation loss."""
    if len(history) >= recipe.n_epochs:
        return True
    if not history or not recipe.patience:
        return False
    found = [row["val_loss"] for row in history]
    return len(found) - 1 - found.index(min(found)) >= recipe.patience


def newest_or_shipped(mirror=None):
    """A trained run and its photos for the notebooks that need one: the newest, else the weights that are shipped.

    And in a copy of the project without these: a minute's training on the sample.

    Args:
        mirror: a folder that outlives this machine, with the folders `runs` and `data`.

    Returns:
        `(run, photos)`: the `Run`, and the `data.Prepared` set that it was trained on, if it is here, or the sample.
    """
    root, mirror = runtime.runs_dir(), mirror and Path(mirror)
    run = newest_run(root, mirror and mirror / "runs")
    if run:
        print(f"Using the newest run, {run}.")
        try:
            photos = ready_again(run.facts["data"]["settings"], mirror and mirror / "data")
        except (ValueError, OSError) as error:
            print(f"Its photos are not on this machine ({error}) The sample's photos are shown instead.")
            photos = ready("sample")
        else:
            if photos.fingerprint != run.facts["data"]["fingerprint"]:
                print("Its folder of photos has changed since: some that are shown may have been trained on.")
        return run, photos
    photos = ready("sample")
    try:
        run = Shipped()
        print(f"There is no trained run yet: using {run}, and the sample's photos, which it has not been trained on.")
    except FileNotFoundError:
        print("There is no trained run and no weights come with this copy: training on the sample for about a minute.")
        recipe = recipes.get("resnet34", **runtime.PRESETS["sample"].recipe_changes)
        run = fit(recipe, photos, root / "resnet34-sample", mirror and mirror / "runs" / "resnet34-sample")
    return run, photos


def main(arguments=None):
    """The command line; every process that torchrun starts comes through here."""
    parser = argparse.ArgumentParser(prog="python -m colorlib.training", description="Train, or go on with it.")
    parser.add_argument("recipe", choices=recipes.RECIPES, help="which system")
    parser.add_argument("data", help="a data set by name, a folder of photos, or a prepared set's folder")
    parser.add_argument("run_dir", type=Path, help="where the run is kept; what is there is gone on with")
    parser.add_argument("--mirror", type=Path, help="a folder that outlives this machine: checkpoints are copied there")
    parser.add_argument("--hours", type=float, help="stop cleanly after so long")
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    parser.add_argument("--set", nargs="*", action="extend", default=[], metavar="FIELD=VALUE", help="other settings")
    given = parser.parse_args(arguments)
    prefer_published(given.data)
    distributed.start()
    try:
        changes = dict(change(pair) for pair in given.set)
        recipe = recipes.get(given.recipe, **changes)
        data = distributed.first_of_machine(lambda: ready(given.data))
        run = fit(recipe, data, given.run_dir, given.mirror, hours=given.hours, compile=given.compile)
        if distributed.rank() == 0 and checkpoints.newest(run.dir, "best")[0]:
            print(run)
        distributed.stop()
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        print(error, file=sys.stderr, flush=True)
        if distributed.world() > 1:
            os._exit(1)  # to leave in order would mean to wait for the others, which wait for us
        sys.exit(1)


def prefer_published(data):
    """For a command line: whoever types one wants the published settings, wherever it is, unless for the sample."""
    if data != "sample":
        os.environ.setdefault("COLORLIB_PRESET", "t4")


def change(pair):
    """`FIELD=VALUE` of the command line as a name and a value."""
    field, equals, text = pair.partition("=")
    if not equals:
        raise ValueError(f"--set takes FIELD=VALUE, not {pair!r}.")
    try:
        return field, ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return field, text


def launch(recipe, data, run_dir, mirror=None, *, n=None, hours=None, compile=False):
    """`fit` with `n` processes, or one for each GPU, from a notebook: starts torchrun and shows what it prints.

    Raises:
        subprocess.CalledProcessError: if it fails; what went wrong stands above.
    """
    changes = [f"{name}={value!r}" for name, value in asdict(recipe).items()]
    options = ["--mirror", str(mirror)] * bool(mirror) + ["--hours", str(hours)] * bool(hours)
    options += ["--compile"] * compile
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(n or torch.cuda.device_count()), "-m", "colorlib.training"]
    command += [next(iter(recipes.RECIPES)), str(data.folder), str(run_dir), *options, "--set", *changes]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # or it may not find colorlib
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    # In a session of its own, so that the stop button reaches it once, from here: the second time would be "at once".
    with subprocess.Popen(command, **pipes, env=environment, start_new_session=True) as process:
        part, stopped = b"?", False
        while part:
            try:
                part = process.stdout.read1(4096)  # not a line: the progress line has no end
                print(part.decode(errors="replace"), end="", flush=True)
            except KeyboardInterrupt:  # torchrun passes it on, and they end with a checkpoint
                process.send_signal(signal.SIGINT)
                stopped = True
    if process.returncode and not stopped:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Run(Path(run_dir))


if __name__ == "__main__":
    main()
