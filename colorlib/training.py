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
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch

from colorlib import checkpoints, distributed, evaluation, recipes, runtime
from colorlib.data import Batches, Photos, Prepared, draw_subset, loader, mean_ab, pack, ready, ready_again
from colorlib.runs import Run, Strip, newest_run, restore
from colorlib.trainer import Trainer, load_encoder


def fit(recipe, data, run_dir, mirror=None, *, minutes=10, hours=None, compile=False, after_epoch=None):
    """Train a recipe, or go on with it: call it again after an interruption and it resumes.

    The order of photos, the subset of each phase and every flip are functions of the recipe's seed, the
    epoch and the photo. So a run that was killed at any moment and resumed ends with the same weights as one that
    was not: bit for bit on a CPU, and on a GPU if `runtime.deterministic` was called before.

    Args:
        recipe: a `recipes.Recipe`.
        data: a `data.Prepared` set with training and validation photos.
        run_dir: local folder of this run; made if need be.
        mirror: a folder that outlives this machine, on Drive say; checkpoints are copied there, and
            restored from there if they are newer than those in `run_dir`.
        minutes: save this often in the middle of an epoch; at the end of each it is saved anyway.
        hours: stop cleanly, with a checkpoint, after so long; None for never.
        compile: use `torch.compile`, if it works here.
        after_epoch: called after each epoch with the history (see `Run.history`) and the floors.

    Returns:
        The `Run`, finished or stopped: Ctrl-C, the stop button and SIGTERM end it cleanly after the current step.

    Raises:
        ValueError: if the photos are too few, or `run_dir` or `mirror` holds a run of another recipe or data set.
        PermissionError: if `run_dir` cannot be written to.
        OSError: if the mirror cannot be read and `run_dir` holds nothing to go on with.
        FloatingPointError: if the loss stops being a number.
        MemoryError: if a batch does not fit into the device's memory.
    """
    run_dir = runtime.writable(run_dir)
    with torch.random.fork_rng(devices=runtime.gpus()), _stop_requests() as asked:  # the caller's stream is left alone
        job = _Job(recipe, data, run_dir, mirror)
        try:
            job.train(minutes, hours, asked, compile, after_epoch)
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and "allocate memory" not in str(error):
                raise
            raise MemoryError(
                f"a batch of {recipe.batch_size} photos of {recipe.size} x {recipe.size} does not fit into the memory "
                f"of {job.trainer.device}: try batch_size={max(1, recipe.batch_size // 2)}."
            ) from error
        finally:
            job.mirror.close()
    return Run(run_dir)


class _Job:
    """One call of `fit`."""

    def __init__(self, recipe, data, run_dir, mirror):
        self.begin, self.recipe, self.run_dir, self.first = time.monotonic(), recipe, run_dir, distributed.rank() == 0
        self.files, self.val_files, self.packs = data.files("train"), data.files("val"), data.folder / "packs"
        n = len(draw_subset(len(self.files), recipe.subset, recipe.seed, 0)) if self.files else 0
        _check_sizes(recipe, n, self.val_files, data)
        self.steps, self.workers = math.ceil(n / recipe.batch_size), runtime.preset().workers
        self.facts = {
            "recipe": asdict(recipe) | {"frozen": list(recipe.frozen)},
            "data": {"fingerprint": data.fingerprint, "settings": data.settings},
        }
        previous = distributed.first_of_all(lambda: restore(run_dir, mirror, self.facts))
        self.trainer = Trainer(recipe, self.steps)
        self.mirror = checkpoints.Mirror(run_dir, mirror if self.first else None)
        self.strip = Strip(run_dir, self.val_files)
        if previous:
            state, saved = previous
            self.trainer.load(state)
            self.history, self.timing = saved["history"], saved["timing"]
            self.facts |= {key: saved[key] for key in ("train_mean", "floors", "encoder_weights")}
            self.mirror.update()  # what did not arrive when it was away
        else:
            self.history, self.timing = [], {"seconds": 0.0, "waiting": 0.0}
            given = distributed.first_of_all(lambda: load_encoder(self.trainer.model, recipe, mirror))
            mean = distributed.first_of_all(lambda: mean_ab(self.files, workers=self.workers).tolist())
            self.facts |= {"encoder_weights": given, "train_mean": mean, "floors": {}}
        precision = str(self.trainer.precision).removeprefix("torch.")
        self.facts |= {"device": str(self.trainer.device), "precision": precision}

    def train(self, minutes, hours, asked, compile, after_epoch):
        """Go on until the recipe is finished, or someone or the clock asks to stop."""
        recipe, name = self.recipe, self.run_dir.name
        if _finished(recipe, self.history):
            return self.say(f"{name}: finished after epoch {len(self.history)}.")
        if self.first:
            self.strip.save("truth")
            if not self.trainer.step_number:
                self.strip.save("epoch-00000", self.trainer.model)
        self.open_photos()
        self.trainer.go(compile)
        end, stop = self.begin + 3600 * (hours or math.inf), False
        numbers = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
        settings = {"initial": self.trainer.step_number, "disable": not self.first, "bar_format": numbers}
        with runtime.bar(recipe.n_epochs * self.steps, recipe.name, **settings) as bar:
            line = _Line(bar)
            while not stop and not _finished(recipe, self.history):
                stop = self.train_epoch(line, 60 * minutes, end, asked)
                if not stop:
                    self.finish_epoch()
                    if self.first and after_epoch:
                        after_epoch(pd.DataFrame(self.history), self.facts["floors"])
        if stop:
            why = "as asked" if asked else f"after {hours:g} hours"
            self.say(f"{name}: stopped {why}, at step {self.trainer.step_number}. Start it again and it goes on.")

    def say(self, text):
        if self.first:
            print(text)

    def open_photos(self):
        """The training and the validation photos; packed, if each is read more than once and there is room."""
        recipe, packs = self.recipe, [None, None]
        if recipe.n_epochs * recipe.subset > 1:
            packs = [
                distributed.first_of_machine(lambda files=files: pack(files, recipe.size, recipe.resize, self.packs))
                for files in (self.files, self.val_files)
            ]
        self.train_set = Photos(self.files, recipe.size, recipe.resize, recipe.flip, recipe.seed, packs[0])
        self.val_set = Photos(self.val_files, recipe.size, recipe.resize, pack=packs[1])

    def train_epoch(self, line, save_every, end, asked):
        """Train to the end of the epoch; or, if it has to stop before, save and return True."""
        recipe, trainer, epoch = self.recipe, self.trainer, len(self.history)
        chosen = draw_subset(len(self.files), recipe.subset, recipe.seed, epoch // recipe.phase_epochs)
        ranks = {"rank": distributed.rank(), "world": distributed.world()}
        done = trainer.step_number - epoch * self.steps
        order = Batches(chosen, recipe.batch_size, epoch=epoch, seed=recipe.seed, start=done, **ranks)
        before, saved = time.perf_counter(), time.monotonic()
        for rgb, n in zip(loader(self.train_set, order, self.workers), order.sizes()):
            waiting = time.perf_counter() - before
            trainer.step(rgb, n)
            seconds, before = time.perf_counter() - before, time.perf_counter()
            self.timing["waiting"] += waiting
            self.timing["seconds"] += seconds
            line.update(n, waiting, self.history)
            self.mirror.tell()
            if distributed.world() == 1 or trainer.step_number % 10 == 0:  # to agree takes time
                now = time.monotonic()
                save, stop = distributed.any_of([now - saved >= save_every, bool(asked) or now >= end])
                if save or stop:
                    self.save("last")
                    saved = time.monotonic()
                if stop:
                    return True
            before = time.perf_counter()  # saving is no waiting for photos
        return False

    def finish_epoch(self):
        """Validate, and save."""
        trainer, recipe, begin = self.trainer, self.recipe, time.perf_counter()
        self.check_loss()
        distributed.same_buffers(trainer.result)
        mine = distributed.share(range(len(self.val_files)))
        mean, precision = self.facts["train_mean"], trainer.precision
        rows = evaluation.evaluate(trainer.result, self.val_set, mean, recipe.batch_size, self.workers, precision, mine)
        rows = pd.concat(distributed.gather(rows)).sort_index()
        train_mse, val_mse = trainer.mean_loss(), float(rows.mse.mean())
        if not math.isfinite(val_mse):  # the last step can break what no later one tells
            raise FloatingPointError(self.not_a_number(trainer.step_number, trainer.lr))
        self.facts["floors"] = {name: float(rows[name].mean()) for name in evaluation.FLOORS}
        timing = {
            "seconds": self.timing["seconds"] + time.perf_counter() - begin,
            "waiting": self.timing["waiting"] / max(self.timing["seconds"], 1e-9),
        }
        losses = {"epoch": len(self.history) + 1, "train_mse": train_mse, "val_mse": val_mse, "lr": trainer.lr}
        self.history.append({**losses, **timing})
        self.timing = {"seconds": 0.0, "waiting": 0.0}
        trainer.start_epoch()
        if val_mse < min((row["val_mse"] for row in self.history[:-1]), default=math.inf):
            self.save("best")
        if self.first:
            self.strip.save(f"epoch-{len(self.history):05d}", trainer.result)
            pd.DataFrame(self.history).to_csv(self.run_dir / "history.csv", index=False)
        self.save("last")

    def save(self, name):
        self.check_loss()
        state = self.trainer.state()
        if not self.first:
            return
        if name == "best":
            state = {"model": self.trainer.result.state_dict()}
        progress = {"epoch": len(self.history), "step": self.trainer.step_number, "timing": self.timing}
        val_mse = self.history[-1]["val_mse"] if self.history else None
        facts = {**self.facts, **progress, "val_mse": val_mse, "history": self.history}
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
                text += f", MSE train {history[-1]['train_mse']:.5f} val {history[-1]['val_mse']:.5f}"
            self.bar.set_postfix_str(text, refresh=False)
            self.start()
        self.bar.update()


@contextmanager
def _stop_requests():
    """Within it Ctrl-C, the stop button and SIGTERM are noted in the list it gives; a second Ctrl-C stops at once."""
    asked = []

    def note(number, frame):
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield asked
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
    losses = [h["val_mse"] for h in history]
    return len(losses) - 1 - losses.index(min(losses)) >= recipe.patience


def newest_or_sample(mirror=None):
    """A trained run and its photos for the notebooks that need one: the newest, else a minute's training.

    Returns:
        `(run, photos)`: the `Run` and the `data.Prepared` set that it was trained on.
    """
    root = runtime.runs_dir()
    run = newest_run(root, mirror)
    if run:
        print(f"Using the newest run, {run}.")
        try:
            photos = ready_again(run.facts["data"]["settings"])
        except (ValueError, OSError) as error:
            print(f"Its photos are not on this machine ({error}) The sample's photos are shown instead.")
            photos = ready("sample")
        else:
            if photos.fingerprint != run.facts["data"]["fingerprint"]:
                print("Its folder of photos has changed since: some that are shown may have been trained on.")
    else:
        print("There is no trained run yet: training on the sample for about a minute.")
        photos = ready("sample")
        recipe = recipes.get("resnet34", **runtime.PRESETS["sample"].recipe_changes)
        run = fit(recipe, photos, root / "resnet34-sample", mirror and Path(mirror) / "resnet34-sample")
    return run, photos


def main(arguments=None):
    """The command line; every process that torchrun starts comes through here."""
    parser = argparse.ArgumentParser(
        prog="python -m colorlib.training", description="Train a recipe, or go on with it."
    )
    parser.add_argument("recipe", choices=recipes.RECIPES, help="which system")
    parser.add_argument("data", help="a data set by name, a folder of photos, or a prepared set's folder")
    parser.add_argument("run_dir", type=Path, help="where the run is kept; what is there is gone on with")
    parser.add_argument(
        "--mirror", type=Path, help="a folder that outlives this machine, for copies of the checkpoints"
    )
    parser.add_argument("--hours", type=float, help="stop cleanly after so long")
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    parser.add_argument(
        "--set", nargs="*", action="extend", default=[], metavar="FIELD=VALUE", help="other settings of the recipe"
    )
    given = parser.parse_args(arguments)
    distributed.start()
    try:
        changes = dict(_change(pair) for pair in given.set)
        recipe = recipes.get(given.recipe, **changes)
        is_prepared = (Path(given.data) / "settings.json").is_file()
        data = Prepared(Path(given.data)) if is_prepared else distributed.first_of_machine(lambda: ready(given.data))
        run = fit(recipe, data, given.run_dir, given.mirror, hours=given.hours, compile=given.compile)
        if distributed.rank() == 0 and checkpoints.newest(run.dir, "best")[0]:
            print(run)
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        sys.exit(f"{error}")
    finally:
        distributed.stop()


def _change(pair):
    field, equals, text = pair.partition("=")
    if not equals:
        raise ValueError(f"--set takes FIELD=VALUE, not {pair!r}.")
    try:
        return field, ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return field, text


def launch(recipe, data, run_dir, mirror=None, *, n=None, hours=None):
    """`fit` with a process for each GPU, from a notebook: starts torchrun, shows what it prints, waits for it.

    Args:
        recipe, data, run_dir, mirror, hours: as for `fit`.
        n: how many processes; by default as many as there are GPUs.

    Raises:
        subprocess.CalledProcessError: if it fails; what went wrong stands above.
    """
    changes = [f"{name}={value!r}" for name, value in asdict(recipe).items() if name != "name"]
    options = ["--mirror", str(mirror)] * bool(mirror) + ["--hours", str(hours)] * bool(hours)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(n or torch.cuda.device_count()), "-m", "colorlib.training"]
    command += [recipe.name, str(data.folder), str(run_dir), *options, "--set", *changes]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # or it may not find colorlib
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    # In a session of its own, so that the stop button reaches it once, from here: the second time would be "at once".
    with subprocess.Popen(command, **pipes, env=environment, start_new_session=True) as process:
        try:
            _show(process)
        except KeyboardInterrupt:  # torchrun passes it on, and they end with a checkpoint
            process.send_signal(signal.SIGINT)
            return _show(process)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def _show(process):
    for part in iter(lambda: process.stdout.read1(4096), b""):  # not by lines: the progress line has no end
        print(part.decode(errors="replace"), end="", flush=True)


if __name__ == "__main__":
    main()
