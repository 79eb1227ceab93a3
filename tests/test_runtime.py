"""colorlib.runtime: what it takes this machine for, and the folders that it offers."""

import os
import sys
import types

import pytest
import torch

from colorlib import datasets, runtime

VARIABLES = ("COLORLIB_PRESET", "COLORLIB_RUNS", "COLORLIB_DATA", "KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG")


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """A local machine without a GPU on which nothing is set."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def pretend(monkeypatch, place, gpu=False):
    if place == "kaggle":
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    if place != "local":
        monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab_20260801")
    if place == "colab":
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    if gpu:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *args: "Tesla T4")


PLACES = ("local", "colab", "colab-subprocess", "kaggle")


@pytest.mark.parametrize("place", PLACES)
def test_platform(place, monkeypatch):
    pretend(monkeypatch, place)
    assert runtime.platform() == place


@pytest.mark.parametrize("gpu", [True, False], ids=["GPU", "no GPU"])
@pytest.mark.parametrize("place", PLACES)
def test_preset_is_t4_only_on_a_lent_gpu(place, gpu, monkeypatch):
    pretend(monkeypatch, place, gpu)
    assert runtime.preset().name == ("t4" if gpu and place != "local" else "sample")


@pytest.mark.parametrize("name", ["sample", "t4"])
@pytest.mark.parametrize("place", PLACES)
def test_preset_asked_for_wins(name, place, monkeypatch):
    pretend(monkeypatch, place, gpu=name == "sample")
    monkeypatch.setenv("COLORLIB_PRESET", name)
    assert runtime.preset().name == name


def test_empty_preset_counts_as_unset(monkeypatch):
    monkeypatch.setenv("COLORLIB_PRESET", "")
    assert runtime.preset().name == "sample"


def test_wrong_preset_is_answered_with_the_choices(monkeypatch):
    monkeypatch.setenv("COLORLIB_PRESET", "T4")
    with pytest.raises(ValueError, match=r"^COLORLIB_PRESET is 'T4': set it to t4 or sample, or remove it\.$"):
        runtime.preset()


@pytest.mark.parametrize("name", runtime.PRESETS)
def test_presets_offer_a_data_set_that_exists(name):
    preset = runtime.PRESETS[name]
    assert preset.name == name
    assert preset.dataset in datasets.NAMES


def test_device_follows_the_gpu(monkeypatch):
    assert runtime.device() == torch.device("cpu")
    pretend(monkeypatch, "local", gpu=True)
    assert runtime.device() == torch.device("cuda")


@pytest.mark.parametrize(
    ("capability", "fastest"),
    [((6, 1), torch.float16), ((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
    ids=["P4", "T4", "A100", "H100"],
)
def test_precision_of_a_gpu_follows_its_compute_capability(capability, fastest, monkeypatch):
    pretend(monkeypatch, "local", gpu=True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *args: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *args: True)  # it counts emulation too
    assert runtime.precision(runtime.device()) == fastest


@pytest.mark.parametrize(
    ("flags", "fastest"),
    [
        ("flags : fpu avx2 avx512_bf16 amx_tile", torch.bfloat16),
        ("flags : fpu avx2 amx_bf16\nbugs : none", torch.bfloat16),
        ("flags : fpu avx2 avx512f no_avx512_bf16", torch.float32),
        (OSError("no such file"), torch.float32),
    ],
    ids=["AVX", "AMX", "neither", "no Linux"],
)
def test_precision_of_a_cpu_follows_its_instructions(flags, fastest, monkeypatch):
    def read_text(path):
        assert str(path) == "/proc/cpuinfo"
        if isinstance(flags, OSError):
            raise flags
        return flags

    monkeypatch.setattr(runtime.Path, "read_text", read_text)
    assert runtime.precision(runtime.device()) == fastest


def test_deterministic_asks_torch_for_the_same_bits_every_time(monkeypatch):
    asked = []
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", asked.append)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    runtime.deterministic()
    assert asked == [True] and not torch.backends.cudnn.benchmark
    assert os.environ.pop("CUBLAS_WORKSPACE_CONFIG") == ":4096:8"


def test_gpus_names_the_one_in_use(monkeypatch):
    assert runtime.gpus() == []
    pretend(monkeypatch, "local", gpu=True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert runtime.gpus() == [3]


FOLDERS = [(runtime.runs_dir, "COLORLIB_RUNS", "runs"), (runtime.data_dir, "COLORLIB_DATA", "data")]


@pytest.mark.parametrize("folder, variable, default", FOLDERS)
def test_folders_come_from_the_environment(folder, variable, default, tmp_path, monkeypatch):
    monkeypatch.setenv(variable, str(tmp_path / "there"))
    assert folder() == tmp_path / "there"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(variable, "~/mine")
    assert folder() == tmp_path / "mine"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "relative")
    assert folder() == tmp_path / "relative"
    assert not any(tmp_path.iterdir())  # asking makes nothing


@pytest.mark.parametrize("folder, variable, default", FOLDERS)
def test_folders_default_to_the_project_wherever_it_is_started(folder, variable, default, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert folder().name == default
    assert (folder().parent / "pyproject.toml").is_file()
    monkeypatch.setenv(variable, "")
    assert folder().name == default


def test_writable_makes_the_folder_and_leaves_nothing_in_it(tmp_path):
    assert runtime.writable(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert runtime.writable(str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("variable", ["COLORLIB_RUNS", "COLORLIB_DATA"])
def test_folder_below_a_file_is_refused_in_a_sentence(variable, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(PermissionError) as caught:
            runtime.writable(folder, variable)
        message = str(caught.value)
        assert message.startswith(f"{folder}: cannot be written to (")
        assert message.endswith(f"; choose another folder or set {variable} to one.")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission_is_refused_in_a_sentence(tmp_path):
    tmp_path.chmod(0o555)
    try:
        for folder in (tmp_path, tmp_path / "new"):
            with pytest.raises(PermissionError, match=r"cannot be written to .*set COLORLIB_RUNS to one"):
                runtime.writable(folder)
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize(
    "place, advice",
    [
        ("local", "for the published settings open this notebook in Colab"),
        ("colab", "For a free GPU choose Runtime > Change runtime type > T4 GPU"),
        ("kaggle", "Settings > Accelerator"),
    ],
)
def test_describe_says_what_to_do_without_a_gpu(place, advice, tmp_path, monkeypatch):
    pretend(monkeypatch, place)
    monkeypatch.setenv("COLORLIB_RUNS", str(tmp_path))
    text = runtime.describe()
    assert "Device: CPU" in text and advice in text
    assert f"torch {torch.__version__.split('+')[0]}" in text
    assert f"Preset: sample (data set: sample). Results go to {tmp_path}" in text


def test_describe_names_the_gpu(monkeypatch):
    pretend(monkeypatch, "colab", gpu=True)
    text = runtime.describe()
    assert "Device: Tesla T4" in text and "Preset: t4 (data set: places365)" in text
    assert "Change runtime type" not in text


def test_bar_goes_to_standard_output(capsys):
    with runtime.bar(3, "checking photos") as bar:
        for _ in range(3):
            bar.update()
    out, err = capsys.readouterr()
    assert "checking photos" in out and "3/3" in out and err == ""
