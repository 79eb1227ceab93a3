"""`python -m colorlib`: what it makes, what it says, and how it ends."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as samples

import colorlib.__main__ as command
from colorlib import color, evaluation, loading, models, photos
from conftest import Painter

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def painted(monkeypatch):
    """The command with a network that is there at once."""
    painter = Painter()
    monkeypatch.setattr(models, "shipped", lambda: (painter, {"recipe": {"size": 32}}))
    return painter


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "scans" / "1938").mkdir(parents=True)
    for name in ("a.jpg", "b.png", "1938/c.jpg"):
        Image.fromarray(samples.coffee()[:40, :60]).save(tmp_path / "scans" / name)
    return tmp_path / "scans"


def run(*arguments):
    return command.main([str(argument) for argument in arguments])


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_one_photo_lies_beside_it_and_its_path_is_printed(painted, folder, capsys):
    assert run(folder / "a.jpg") == 0
    assert capsys.readouterr().out == f"{folder / 'a_coloured.jpg'}\n"
    assert names(folder) == ["1938/c.jpg", "a.jpg", "a_coloured.jpg", "b.png"]
    assert np.ptp(photos.open_photo(folder / "a_coloured.jpg").astype(int), axis=2).mean() > 20


def test_a_folder_and_again(painted, folder, capsys):
    assert run(folder) == 0
    out = folder.with_name("scans_coloured")
    assert names(out) == ["1938/c_coloured.jpg", "a_coloured.jpg", "b_coloured.png"]
    assert "3 photos coloured, 0 were there already, 0 could not be" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*")}
    assert run(folder) == 0
    said = capsys.readouterr()
    assert "0 photos coloured, 3 were there already" in said.out
    assert said.err.count("--overwrite") == 1  # and not for each of them
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.*")} == before
    assert run(folder, "--overwrite") == 0
    assert all(path.stat().st_mtime_ns > before[path] for path in before if path.is_file())


def test_a_broken_photo_is_reported_at_the_end_and_the_rest_is_coloured(painted, folder, capsys):
    (folder / "aa.jpg").write_text("no photo")
    assert run(folder, "-o", folder.parent / "out") == 1
    said = capsys.readouterr()
    assert f"{folder / 'aa.jpg'}: is not an image" in said.err
    assert "3 photos coloured, 0 were there already, 1 could not be coloured" in said.out
    assert len(names(folder.parent / "out")) == 3


def test_what_8_bits_do_not_hold_is_said_once(painted, folder, capsys):
    for k in range(3):
        deep = samples.camera()[: 40 + k, :60].astype(np.uint16) * 257
        Image.fromarray(deep).save(folder / f"deep-{k}.png")
    assert run(folder) == 0
    assert capsys.readouterr().err.count("more than 8 bits") == 1


def test_options_change_the_result(painted, folder, tmp_path):
    def made(*options):
        target = tmp_path / f"{len(names(tmp_path))}.png"
        assert run(folder / "b.png", "-o", target, *options) == 0
        return photos.open_photo(target)

    def chroma(rgb):
        return color.chroma(color.photo_to_lab(rgb)[1]).mean()

    plain = made()
    assert chroma(made("-s", 0)) < 1 < chroma(made("-s", 0.2)) < chroma(plain) - 3
    assert made("--beside").shape[1] > 2 * plain.shape[1]
    assert (made("--side", 16) != plain).any()
    assert run(folder / "b.png", "-f", "webp") == 0
    assert Image.open(folder / "b_coloured.webp").format == "WEBP"


def test_temperature_is_for_networks_that_choose(painted, folder, capsys):
    assert run(folder / "b.png", "--temperature", 0.2) == 1
    assert "does not choose among colours" in capsys.readouterr().err
    painted.T = 0.38
    assert run(folder / "b.png", "--temperature", 0.2) == 0
    assert painted.T == 0.2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "required: PHOTO_OR_FOLDER"),
        (["x.jpg", "-s", "-1"], "must be from 0 to 10"),
        (["x.jpg", "-s", "lots"], "invalid"),
        (["x.jpg", "--side", "5"], "must be from 16 to 4096"),
        (["x.jpg", "-f", "bmp"], "invalid choice: 'bmp'"),
    ],
)
def test_wrong_arguments_end_with_2(arguments, text, capsys):
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    assert text in capsys.readouterr().err


def test_what_cannot_be_done_ends_with_1_and_a_sentence(painted, folder, tmp_path, capsys, blocked):
    for arguments, text in (
        ([tmp_path / "no.jpg"], "no.jpg: there is no such f"),
        ([folder / "a.jpg", "-o", tmp_path / "x.heic"], "x.heic: results are written as .jpg"),
        ([folder, "-o", blocked], "cannot be written to"),
        ([folder / "a.jpg", "--model", tmp_path / "no-run"], "there is no run's folder and no weights file"),
    ):
        assert run(*arguments) == 1
        said = capsys.readouterr().err
        assert text in said and "Traceback" not in said
        assert said.count(text) == 1  # once, and not for each photo


def test_help_needs_no_torch_and_names_everything():
    code = (
        "import sys, runpy; sys.argv = ['colorlib', '--help']\ntry: runpy.run_module('colorlib', run_name='__main__')"
    )
    code += "\nexcept SystemExit as end: print(end.code, 'torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.endswith("0 False\n")
    for word in (
        "PHOTO_OR_FOLDER",
        "--out",
        "--strength",
        "--format",
        "--beside",
        "--overwrite",
        "--model",
        "exit status",
    ):
        assert word in said


def test_a_trained_run_of_ones_own_can_be_used(folder, prepared, tiny, tmp_path, capsys):
    from colorlib import recipes, training

    recipe = recipes.Recipe("tiny", "ours", tiny, size=32, batch_size=5, n_epochs=1, encoder_weights="none")
    trained = training.fit(recipe, prepared, tmp_path / "run")
    assert run(folder / "b.png", "--model", trained.dir, "-o", tmp_path / "run.png") == 0
    assert photos.open_photo(tmp_path / "run.png").shape == (40, 60, 3)


# --- as a program, with the weights that come with it


def started(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "colorlib", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, **options,
    )  # fmt: skip


def test_a_folder_run_that_is_interrupted_says_so_and_goes_on(tmp_path):
    folder, out = tmp_path / "scans", tmp_path / "scans_coloured"
    folder.mkdir()
    photo = np.tile(samples.astronaut(), (2, 2, 1))
    for k in range(12):
        Image.fromarray(photo[k:]).save(folder / f"{k:02d}.png")
    process = started(folder)
    while process.poll() is None and len(list(out.glob("*_coloured.png"))) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "the same command goes on" in said and "Traceback" not in said
    done = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert 2 <= len(done) < 12 and all(path.suffix == ".png" for path in done)  # nothing half written
    process = started(folder)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert f"{12 - len(done)} photos coloured, {len(done)} were there already" in said
    assert len(names(out)) == 12
    assert all(path.stat().st_mtime_ns == then for path, then in done.items())


@pytest.mark.parametrize("harm", ["one bit", "cut", "missing"])
def test_damaged_weights_are_told(tmp_path, harm, monkeypatch, capsys, folder):
    weights = tmp_path / "weights"
    shutil.copytree(models.SHIPPED, weights)
    (file,) = weights.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    if harm == "one bit":
        content[len(content) // 2] ^= 1
    file.write_bytes(content[:-1] if harm == "cut" else content)
    if harm == "missing":
        file.unlink()
    shipped = models.shipped
    monkeypatch.setattr(models, "shipped", lambda: shipped(weights))
    assert run(folder / "a.jpg") == 1
    said = capsys.readouterr().err
    assert str(file) in said and ("is damaged" in said or "No such file" in said) and "Traceback" not in said
    assert names(folder) == ["1938/c.jpg", "a.jpg", "b.png"]


def test_weights_are_small_numbers_without_code_and_the_network_is_the_one_of_the_facts():
    model, facts = models.shipped()
    files = list(models.SHIPPED.iterdir())
    assert sum(path.stat().st_size for path in files) <= 25e6
    assert {"README.md", "facts.json", facts["file"]} <= {path.name for path in files}
    assert not any(path.read_bytes()[:2] in (b"PK", b"\x80\x02") for path in files)  # no pickles
    assert not model.training and all(p.dtype == torch.float32 for p in model.parameters())
    with torch.no_grad():
        L = color.photo_to_lab(samples.chelsea())[0][..., :288, :448]
        both = [member(L) for member in model.members]
    assert len(both) == len(facts["members"])
    assert torch.allclose(model(L), sum(both) / len(both), atol=1e-3)
    assert color.chroma(model(L)).mean() > 3


@pytest.mark.slow
@pytest.mark.parametrize("family", ["objects", "indoor", "faces"])
def test_the_model_card_says_what_the_weights_reach(family, real_photos):
    card = (models.SHIPPED / "README.md").read_text()
    row = next(line for line in card.splitlines() if line.startswith("|") and family in line)
    _, _, told, relative, chroma = (cell.strip(" *") for cell in row.strip("|").split("|"))
    model, facts = models.shipped()
    files = photos.find_photos(real_photos / "test" / family)
    photo_set = loading.Photos(files, 144, "crop", seed=None, crop=128)
    rows = evaluation.evaluate(model, photo_set, facts["train_mean"])
    assert rows.mse.mean() == pytest.approx(float(told), abs=1e-5)
    assert rows.mse.mean() / rows.mse_train_mean.mean() == pytest.approx(float(relative), abs=1e-3)
    assert rows.chroma.mean() / rows.true_chroma.mean() == pytest.approx(float(chroma), abs=0.01)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="only Linux tells the peak memory in this way")
@pytest.mark.parametrize("mode", ["RGBA", "16 bits"])
def test_100_megapixels_pass_and_take_less_than_4_gb(tmp_path, mode):
    rgb = np.tile(samples.astronaut(), (20, 20, 1))[:10_000, :10_000]
    image = Image.fromarray(rgb[..., 0].astype(np.uint16) * 257 if mode == "16 bits" else rgb)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(tmp_path / "photo.png", compress_level=1)
    del rgb, image
    code = "import sys, colorlib.__main__ as c; end = c.main(sys.argv[1:]); print(open('/proc/self/status').read())"
    code += "; sys.exit(end)"
    command = [sys.executable, "-c", code, tmp_path / "photo.png", "-o", tmp_path / "coloured.jpg"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "coloured.jpg").size == (10_000, 10_000)
    peak = int(done.stdout.split("VmHWM:")[1].split()[0]) / 1e6
    assert 1 < peak < 4  # GB
