"""Several processes train as one does; here over gloo, on the CPU."""

import os
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from colorlib import checkpoints, distributed, models, recipes, runs, training
from colorlib.trainer import Trainer

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
kills = import_module("kills")


def recipe(**changes):
    """Six epochs of four steps, of 3, 3, 3 and 1 photos; nothing in it depends on which process sees which photo."""
    settings = dict(optimizer="SGD", lr=0.1, schedule="cyclic", clip=0.5, precision="float64", frozen=("norm", "drop"))
    return kills.recipe(**{**settings, "batch_size": 3, "subset": 0.67, "n_epochs": 6, **changes})


# --- what a process does


def run_rank(rank, n, port, log, function, *args):
    """One of `n` processes, as torchrun would start it."""
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n)}
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(log, "w", buffering=1)
    models.MODELS["net"] = kills.Net
    recipes.RECIPES["net"] = recipe()
    distributed.start()
    try:
        function(*args)
    finally:
        distributed.stop()


def train(recipe, prepared, run_dir, stop_at=None):
    """Train to the end, or until so many steps are made; only the first process may write."""
    if distributed.rank():
        runs.Strip.save = checkpoints.save = checkpoints.copy = None
    if stop_at:
        step, clock = Trainer.step, SimpleNamespace(now=0, perf_counter=training.time.perf_counter)
        clock.monotonic = lambda: clock.now

        def counted(trainer, *args):
            step(trainer, *args)
            clock.now = trainer.step_number

        Trainer.step, training.time = counted, clock
    training.fit(recipe, prepared, run_dir, run_dir.with_name("mirror"), hours=stop_at and stop_at / 3600)


def words():
    """Each of the helpers once; the error of the first process in all."""
    rank = distributed.rank()
    assert distributed.first_of_all(lambda: f"from {rank}") == "from 0"
    assert distributed.gather(rank) == [0, 1]
    assert distributed.any_of([rank == 1, rank == 0, False]) == [True, True, False]
    assert distributed.share("abc") == ["ac", "b"][rank]
    for together in (distributed.first_of_all, distributed.first_of_machine):
        with pytest.raises(FileNotFoundError, match="from 0"):
            together(lambda: fail(f"from {rank}"))


def fail(text):
    raise FileNotFoundError(text)


# --- what starts them


def start(n, folder, function, *args):
    """Run a function in `n` processes; returns their exit codes and what each printed."""
    folder.mkdir(exist_ok=True)
    logs = [folder / f"log-{rank}" for rank in range(n)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        kills.START.Process(target=run_rank, args=(rank, n, port, logs[rank], function, *args)) for rank in range(n)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        process.kill()  # it hangs
        process.join()
    return [process.exitcode for process in processes], [log.read_text() for log in logs]


def trained(n, folder, prepared, stop_at=None, **changes):
    """Train with `n` processes, all of which must end well; returns the `Run` and what each printed."""
    codes, told = start(n, folder, train, recipe(**changes), prepared, folder / "run", stop_at)
    assert codes == [0] * n, told
    return runs.Run(folder / "run"), told


@pytest.fixture(scope="module")
def alone(prepared, tmp_path_factory):
    """The history of the run in one process."""
    return trained(1, tmp_path_factory.mktemp("alone"), prepared)[0].history


def same_losses(history, other):
    for column in ("train_loss", "val_loss", "val_mse", "lr"):
        assert history[column].tolist() == pytest.approx(other[column].tolist(), rel=1e-5)


# --- tests


def test_the_words(tmp_path):
    assert start(2, tmp_path, words)[0] == [0, 0], [log.read_text() for log in tmp_path.iterdir()]


def test_two_processes_train_as_one(alone, prepared, tmp_path):
    run, (first, second) = trained(2, tmp_path, prepared)
    assert alone.val_mse.iloc[-1] < 0.9 * alone.val_mse.iloc[0]  # there is something to compare
    same_losses(run.history, alone)
    assert "24/24" in first and second == ""


def test_a_run_goes_on_with_another_number_of_processes(alone, prepared, tmp_path):
    for n, stop_at in ((2, 10), (1, 17), (2, None)):
        run, told = trained(n, tmp_path, prepared, stop_at)
        assert not stop_at or f"stopped after {stop_at / 3600:g} hours, at step {stop_at}." in told[0]
    assert "going on after step 17" in told[0]
    same_losses(run.history, alone)


def test_an_error_reaches_every_process_as_one_sentence(prepared, tmp_path):
    trained(1, tmp_path, prepared, n_epochs=1)
    arguments = ["net", str(prepared.folder), str(tmp_path / "run"), "--set", "size=16", "batch_size=3", "n_epochs=6"]
    codes, told = start(2, tmp_path, training.main, [*arguments, "subset=0.67"])
    assert codes == [1, 1]
    for text in told:
        assert "holds another run (n_epochs was 1 and is 6): give this one another name" in text
        assert text.count("\n") == 1


@pytest.mark.slow
def test_launch_and_torchrun(prepared, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    settings = dict(size=32, batch_size=4, n_epochs=1, encoder_weights="none")
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "colorlib.training", "resnet34"]
    command += [prepared.folder, tmp_path / "run", "--set", *(f"{name}={value}" for name, value in settings.items())]
    told = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert "run: resnet34, best after epoch 1" in told.stdout
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    training.launch(recipes.get("resnet34", **settings), prepared, tmp_path / "run", n=2)
    assert "run: finished after epoch 1." in capsys.readouterr().out
    with pytest.raises(subprocess.CalledProcessError):
        training.launch(recipes.get("resnet34", **settings, seed=1), prepared, tmp_path / "run", n=2)
    assert "holds another run (seed was 0 and is 1)" in capsys.readouterr().out
