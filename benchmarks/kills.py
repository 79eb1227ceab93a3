"""Kill training runs by SIGKILL, at named points and in between, start them again, and compare what comes out.

    python benchmarks/kills.py --kills 60 --seed 0

A small network (a batch norm, a dropout) is trained with everything on that could make an interrupted run end
differently: flips, a subset drawn anew, an averaged model, a one-cycle schedule, a mirror, 0 or 2 worker processes.
Each run is killed twice, at calls drawn from the seed, and started again until it is finished. After one of the two
kills its folder is lost too, as when a virtual machine goes away, and the mirror has to serve. Then:

- the last and the best checkpoint must be those of a run that nothing interrupted (with 0 workers), every number bit
  for bit, and so must the history but for its times;
- where the folder is kept, no more steps may be lost than lie between two checkpoints (the clock that decides when to
  save counts steps here); where it is lost, the run must go on from the newest whole checkpoint of the mirror, and what
  had not been copied is lost;
- where a file was cut in half, the half must really have lain there when the run was started again.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from contextlib import redirect_stdout
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import torch
from PIL import Image
from skimage import data as samples
from torch import nn
from torch.optim import swa_utils

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from colorlib import checkpoints, color, data, evaluation, models, recipes, runtime, training
from colorlib.trainer import Trainer

EVERY = 2  # steps between two checkpoints in the middle of an epoch
# Children are forked from a server that has imported torch already, which takes seconds.
START = multiprocessing.get_context("forkserver")
START.set_forkserver_preload(["torch", "colorlib.training"])


class Net(nn.Module):
    """Two convolutions, with what draws at random and what counts batches between."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.drop, self.last = nn.Dropout(0.2), nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, L):
        return 100 * self.last(self.drop(self.norm(self.first(color.l_to_grey(L))).relu()))


def recipe(**changes):
    """Four epochs of five steps, the last one of a single photo, on the tests' 15 photos."""
    names = dict(name="test", source="test", model="net", encoder_weights="none", precision="float32")
    settings = dict(size=16, resize="crop", batch_size=2, lr=1e-2, n_epochs=4, subset=0.6, phase_epochs=2)
    return recipes.Recipe(**{**names, **settings, "schedule": "one-cycle", "ema": 0.8, **changes})


def prepared(folder):
    """Photos as the tests have them: 15 to train on, 3 for validation."""
    for name in ("astronaut", "chelsea", "coffee"):
        for i in range(6):
            path = folder / "photos" / ("val" if i == 5 else "train") / f"{name}-{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(getattr(samples, name)()[40 * i : 40 * i + 64, 40 * i : 40 * i + 80]).save(path)
    return data.prepare(folder / "photos", folder / "prepared", test=0, keep_grey=True)


# --- the child: where it dies


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def half(path, content):
    """Write half of it, so that it is on the disk, and die."""
    with open(path, "wb") as stream:
        stream.write(content[: len(content) // 2])
        stream.flush()
        os.fsync(stream.fileno())
        die()


def at_call(k, owner, name, act, counts=lambda *args: True):
    """Have the `k`-th call of a function, of those that count, do something else."""
    real, seen = getattr(owner, name), itertools.count(1)

    def wrapped(*args, **kwargs):
        if counts(*args) and next(seen) == k:
            return act(real, *args, **kwargs)
        return real(*args, **kwargs)

    setattr(owner, name, wrapped)


def after(real, *args, **kwargs):
    real(*args, **kwargs)
    die()


def instead(real, *args, **kwargs):
    die()


def half_state(real, state, stream):
    real(state, stream)
    stream.flush()
    half(stream.name, Path(stream.name).read_bytes())


def half_manifest(real, facts, stream, indent):
    half(stream.name, json.dumps(facts).encode())


def half_bytes(real, path, content):
    half(path, content)


def half_copy(real, source, target):
    half(target, Path(source).read_bytes())


def half_removed(real, path, *_):
    os.truncate(path, 0)
    die()


def ours(folder):
    """Tells the calls that copy to a folder."""
    return lambda source, target: target.parent == folder


# What to have happen at the `k`-th call, given the folders of the run and of its mirror; and how many calls there are
# for sure in half a run.
POINTS = {
    "in a step, before the weights move": (lambda k, run, mirror: at_call(k, torch.optim.Adam, "step", instead), 9),
    "in a step, before the average moves": (
        lambda k, run, mirror: at_call(k, swa_utils.AveragedModel, "update_parameters", instead),
        9,
    ),
    "in the validation": (lambda k, run, mirror: at_call(k, evaluation, "evaluate", instead), 2),
    "in a checkpoint write": (lambda k, run, mirror: at_call(k, torch, "save", half_state), 6),
    "before a checkpoint's manifest": (
        lambda k, run, mirror: at_call(k, os, "replace", after, lambda source, target: target.suffix == ".pt"),
        6,
    ),
    "in a manifest's write": (lambda k, run, mirror: at_call(k, json, "dump", half_manifest), 6),
    "between the best and the last": (
        lambda k, run, mirror: at_call(k, checkpoints, "save", after, lambda folder, name, *_: name == "best"),
        1,
    ),
    "in the removal of an old checkpoint": (
        lambda k, run, mirror: at_call(
            k, checkpoints, "_remove", half_removed, lambda path, *_: path.parent == mirror and path.suffix == ".pt"
        ),
        2,
    ),
    "in the copy to the mirror": (lambda k, run, mirror: at_call(k, shutil, "copyfile", half_copy, ours(mirror)), 3),
    "before the mirror's manifest": (lambda k, run, mirror: at_call(k, shutil, "copyfile", after, ours(mirror)), 3),
    "in the mirror's manifest": (
        lambda k, run, mirror: at_call(k, Path, "write_bytes", half_bytes, lambda path, _: path.parent == mirror),
        3,
    ),
    "in the copy back from the mirror": (
        lambda k, run, mirror: at_call(k, shutil, "copyfile", half_copy, ours(run)),
        2,
    ),
}
OUTSIDE = "at any moment, from outside"
# Where they die no file is being written, but for the mirror's thread, which goes on by itself.
NO_HALVES = {*list(POINTS)[:3], "between the best and the last", OUTSIDE}


def child(prepared, folder, log, workers, point, k):
    """One start of a run, in a process of its own; without a `point` it lives."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # bit for bit is promised on the CPU
    multiprocessing.set_start_method("fork", force=True)  # for the workers; not a server of their own for each child
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(log, "w", buffering=1)
    models.MODELS["net"] = Net
    runtime.preset = lambda: runtime.Preset("kills", "none", workers=workers)
    go, step, steps = Trainer.go, Trainer.step, [0]

    def told_go(trainer, *args):
        print("training")
        go(trainer, *args)

    def told_step(trainer, *args):
        step(trainer, *args)
        steps[0] += 1
        print(f"\nafter step {trainer.step_number}")

    Trainer.go, Trainer.step = told_go, told_step
    training.time = SimpleNamespace(monotonic=lambda: steps[0], perf_counter=time.perf_counter)
    if point:
        POINTS[point][0](k, folder / "run", folder / "mirror")
    training.fit(recipe(), prepared, folder / "run", folder / "mirror", minutes=EVERY / 60)


# --- the parent


def start(prepared, folder, workers, point=None, k=0):
    """Run a child to its end; returns whether it was killed, and what it printed."""
    log = folder / f"log-{len(list(folder.glob('log-*')))}"
    outside = point == OUTSIDE
    process = START.Process(target=child, args=(prepared, folder, log, workers, None if outside else point, k))
    process.start()
    process.join(k if outside else None)
    process.kill()
    process.join()
    text = log.read_text() if log.exists() else ""
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"a child failed:\n{text}")
    return process.exitcode != 0, text


def kill_and_compare(prepared, folder, workers, kills, reference):
    """Start a run, kill it, start it again, until it is finished.

    Args:
        prepared: a `data.Prepared` set, 15 photos to train on.
        folder: where; made if need be.
        workers: processes that read photos.
        kills: for each `(point, k, lose)`: at which call, or for OUTSIDE after how many seconds; and whether the run's
            folder is lost as well.
        reference: the folder of an uninterrupted run.

    Returns:
        DataFrame: a row per kill that happened: `point`; `workers`; `gone`, whether the folder was lost; `half`,
        whether files lay there of which a part was written; `lost`, how many steps had to be made again; `right`,
        whether it went on from the newest whole checkpoint that there was; `alike`, whether the run ended as the
        reference.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run, mirror, rows, reached = folder / "run", folder / "mirror", [], 0
    for point, k, gone in [*kills, (None, 0, False)]:
        killed, text = start(prepared, folder, workers, point, k)
        going_on = re.findall(r"going on after step (\d+)", text)
        if going_on or "training" in text:
            begun = int((going_on or [0])[0])
            for row in rows:
                if "lost" not in row:
                    row |= {"lost": max(0, reached - begun), "right": begun == row["expected"]}
            reached = begun
        reached = int((re.findall(r"after step (\d+)", text) or [reached])[-1])
        if not killed:
            break
        half = any(map(parts, (run, mirror)))
        if gone:
            shutil.rmtree(run, ignore_errors=True)
        whole = [checkpoints.newest(place, "last")[0] for place in (run, mirror)]
        expected = max((facts["step"] for facts in whole if facts), default=0)
        rows.append({"point": point, "workers": workers, "gone": gone, "half": half, "expected": expected})
    return pd.DataFrame(rows).assign(alike=alike(run, reference / "run"))


def parts(folder):
    """The files in a run's folder or its mirror that are no part of a whole checkpoint."""
    found = list(folder.glob("*.partial"))
    for path in folder.glob("*-*-*.*"):
        try:
            fault = checkpoints._fault(folder, json.loads(path.with_suffix(".json").read_bytes()))
        except (OSError, ValueError):
            fault = "no manifest"
        found += [path] * bool(fault)
    return found


def alike(one, other):
    """Whether two runs ended with the same numbers: the whole state, the best weights, the history without times."""
    ends = []
    for run in (one, other):
        (last, facts), (best, best_facts) = (checkpoints.load(run, name) for name in ("last", "best"))
        history = [{k: v for k, v in row.items() if k not in ("seconds", "waiting")} for row in facts["history"]]
        ends.append((last, best, history, best_facts["step"], facts["floors"], facts["train_mean"]))
    return same(*ends)


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def drawn(random, point, seconds):
    """Two kills at a point, of which one loses the folder; the copy back comes after another kill that does."""
    if point == OUTSIDE:
        calls = [random.uniform(0, seconds) for _ in range(2)]
    else:
        calls = [random.randint(1, POINTS[point][1]) for _ in range(2)]
    if point == "in the copy back from the mirror":
        first = "in a step, before the weights move"
        return [(first, random.randint(7, POINTS[first][1]), True), (point, calls[1], False)]
    gone = random.random() < 0.5
    return [(point, calls[0], gone), (point, calls[1], not gone)]


def table(rows):
    """A row per point and number of workers."""
    lines = []
    for (point, workers), group in rows.groupby(["point", "workers"], sort=False):
        kept, gone = group[~group.gone], group[group.gone]
        lines.append(
            {
                "killed": point,
                "workers": workers,
                "kills": len(group),
                "restarts": len(group),
                "left half a file": int(group.half.sum()),
                "identical": "yes" if group.alike.all() and group.right.all() else "NO",
                "most steps lost": kept.lost.max() if len(kept) else "",
                "folder gone": len(gone),
                "most steps lost then": gone.lost.max() if len(gone) else "",
            }
        )
    return pd.DataFrame(lines)


def faults(rows):
    """What is not as it must be: sentences."""
    told = {
        "runs ended differently": ~rows.alike,
        "went on from another checkpoint than the newest whole one": ~rows.right,
        f"lost more than {EVERY} steps": ~rows.gone & (rows.lost > EVERY),
        "left no half file": ~rows.half & ~rows.point.isin(NO_HALVES),
    }
    return [f"{wrong.sum()} {text}" for text, wrong in told.items() if wrong.any()]


def machine():
    """The processor's name and the number of cores."""
    try:
        name = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1]
    except (OSError, TypeError):  # no Linux, or another kind of processor
        name = platform.machine()
    return f"{os.cpu_count()} cores of {name}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="at least so many")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw, rows, begun = random.Random(given.seed), [], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        with redirect_stdout(sys.stderr):
            photos = prepared(folder)
        reference = folder / "reference"
        reference.mkdir()
        start(photos, reference, 0)  # packs the photos, and wakes the server
        shutil.rmtree(reference)
        reference.mkdir()
        before = time.perf_counter()
        start(photos, reference, 0)
        seconds = time.perf_counter() - before
        places = itertools.cycle(itertools.product((*POINTS, *[OUTSIDE] * 3), (0, 2)))
        while (n := sum(map(len, rows))) < given.kills:
            point, workers = next(places)
            kills = drawn(draw, point, seconds)
            rows.append(kill_and_compare(photos, folder / f"run-{len(rows)}", workers, kills, reference))
            print(f"\r{n} kills", end="", file=sys.stderr)
    rows = pd.concat([part for part in rows if len(part)], ignore_index=True)
    shown = table(rows)
    for line in (shown.columns, ["---"] * shown.shape[1], *shown.to_numpy()):
        print(f"| {' | '.join(map(str, line))} |")
    wrong = faults(rows)
    print(
        f"{len(rows)} kills (seed {given.seed}), {rows.gone.sum()} of them with the folder: "
        f"{'; '.join(wrong) or 'all as it must be'}. {date.today()}, {machine()}, torch {torch.__version__}, "
        f"{time.perf_counter() - begun:.0f} seconds."
    )
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
