"""The notebooks themselves: twins, set-up cell, badges, form, and each one alone as a plain script."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pandas as pd
import pytest

from colorlib import datasets, recipes

ROOT = Path(__file__).resolve().parents[1]
TWINS = sorted((ROOT / "notebooks").glob("*.py"))
NAMES = ["01_data", "02_train", "03_evaluate", "04_qualitative_study"]

each_twin = pytest.mark.parametrize("twin", TWINS, ids=lambda p: p.stem)


def code_cells(path):
    return [cell.source for cell in jupytext.read(path).cells if cell.cell_type == "code"]


def setup_cell(path):
    return code_cells(path)[0]


def address(root=ROOT):
    return re.search(r'^repository = "(.*)"$', (root / "pyproject.toml").read_text(), re.M)[1]


def test_there_are_four():
    assert [twin.stem for twin in TWINS] == NAMES


@each_twin
def test_twins_are_equal(twin):
    def cells(path):
        return [(c.cell_type, c.source, c.metadata.get("tags", [])) for c in jupytext.read(path).cells]

    # Compared in meaning, not in bytes: an .ipynb also has cell ids, which the .py does not know.
    assert cells(twin) == cells(twin.with_suffix(".ipynb")), "run: python tools/sync_notebooks.py"


@each_twin
def test_no_output_is_committed_and_a_gpu_is_asked_for(twin):
    notebook = nbformat.read(twin.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert notebook.metadata.kernelspec.name == "python3"
    assert (notebook.metadata.accelerator, notebook.metadata.colab.gpuType) == ("GPU", "T4")


@each_twin
def test_form(twin):
    """One title; words before each code cell; cells short; nothing that only shows inside a notebook."""
    cells = jupytext.read(twin).cells
    assert sum(re.findall(r"^# ", cell.source, re.M) != [] for cell in cells if cell.cell_type == "markdown") == 1
    for before, cell in zip([None, *cells], cells):
        if cell.cell_type != "code":
            continue
        assert before.cell_type == "markdown", f"no words before: {cell.source[:60]}"
        lines = [line for line in cell.source.splitlines() if line.strip()]
        most = 22 if "REPOSITORY" in cell.source else 15  # the set-up cell is the one exception
        assert 2 <= len(lines) <= most, f"{len(lines)} lines: {cell.source[:60]}"
        assert not re.search(r"^\s*[%!]", cell.source, re.M), "a magic passes silently when it fails"
        last = ast.parse(cell.source).body[-1]
        if isinstance(last, ast.Expr):  # a call that returns nothing; a value would show in a notebook alone
            shows = ("plots.show", "plots.show_table", "widgets.show_page", "widgets.show_slider")
            assert ast.unparse(last.value.func) in ("print", "extremes", *shows)


def test_setup_cell_is_the_same_in_all():
    assert len({setup_cell(twin) for twin in TWINS}) == 1


@pytest.mark.parametrize("twin", TWINS[:2], ids=lambda p: p.stem)
def test_form_lists_every_data_set_and_recipe(twin):
    def choices(field):
        return json.loads(re.search(rf"^{field} = .*# @param (\[.*?\])", twin.read_text(), re.M)[1])

    assert choices("dataset") == ["", *datasets.NAMES]
    if "recipe_name" in twin.read_text():
        assert choices("recipe_name") == list(recipes.RECIPES)


# -- the set-up cell on Colab, against a fake google.colab ------------------------------------------------------

FAKE_COLAB = """
import pathlib, sys, types
google, colab, drive = (types.ModuleType(n) for n in ("google", "google.colab", "google.colab.drive"))
drive.mount = lambda where: print("mounted", pathlib.Path(where).mkdir(parents=True, exist_ok=True) or where)
colab.drive, google.colab = drive, colab
sys.modules.update({"google": google, "google.colab": colab, "google.colab.drive": drive})
"""


def on_colab(folder, cell, repository="", use_drive=False, then=""):
    """Run the set-up cell as a fresh machine would, in a folder that stands for /content."""
    cell = re.sub(r'^REPOSITORY = ".*"', f"REPOSITORY = {str(repository)!r}", cell, flags=re.M)
    cell = cell.replace("use_drive = False", f"use_drive = {use_drive}").replace("/content", str(folder))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", FAKE_COLAB + cell + then], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture
def content(tmp_path):
    (tmp_path / "content").mkdir()
    return tmp_path / "content"


IMPORT = "\nimport colorlib\nprint('imported from', colorlib.__file__, 'mirror', mirror)"


def test_setup_fetches_the_project_and_can_be_run_again(content, tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so there is nothing to clone")
    repository = tmp_path / "public"  # a small repository of this tree, so that uncommitted work is tested too
    shutil.copytree(ROOT / "colorlib", repository / "colorlib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", repository)
    git = ["git", "-C", repository, "-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", "init", "-q", repository], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "public"], check=True)
    for _ in range(2):
        done = on_colab(content, setup_cell(TWINS[0]), repository=repository.as_uri(), then=IMPORT)
        assert done.returncode == 0, done.stderr
        assert f"imported from {content / 'colorization' / 'colorlib'}" in done.stdout
        assert "mirror None" in done.stdout and "mounted" not in done.stdout


def test_setup_uses_a_copy_in_drive_and_keeps_runs_there(content):
    drive = content / "drive" / "MyDrive" / "colorization"
    shutil.copytree(ROOT / "colorlib", drive / "colorlib", ignore=shutil.ignore_patterns("__pycache__"))
    done = on_colab(content, setup_cell(TWINS[0]), use_drive=True, then=IMPORT)
    assert done.returncode == 0, done.stderr
    assert f"mounted {content}/drive" in done.stdout
    assert f"imported from {drive / 'colorlib'}" in done.stdout and f"mirror {drive}" in done.stdout


def test_setup_without_address_and_copy_says_what_to_do(content):
    done = on_colab(content, setup_cell(TWINS[0]))
    assert done.returncode != 0
    assert "copy the project to" in done.stderr.strip().splitlines()[-1] and "use_drive" in done.stderr


def test_setup_stops_where_drive_is_wanted_and_not_mounted(content):
    """`fit` could not tell it from an empty one, and would begin anew."""
    cell = setup_cell(TWINS[0]).replace("drive.mount(", "str(")  # as if the mount had failed without a word
    done = on_colab(content, cell, use_drive=True)
    assert done.returncode != 0 and "Drive is not mounted: run this cell again" in done.stderr


def test_setup_does_not_take_a_half_copied_folder_for_the_project(content):
    (content / "drive" / "MyDrive" / "colorization").mkdir(parents=True)
    done = on_colab(content, setup_cell(TWINS[0]), use_drive=True)
    assert done.returncode != 0 and "copy the project to" in done.stderr


def test_setup_elsewhere_does_not_write_to_colabs_folders():
    done = on_colab(ROOT / "notebooks", setup_cell(TWINS[0]), then="\nprint('mirror', mirror)")
    assert done.returncode == 0, done.stderr
    assert f"Using the project in {ROOT}" in done.stdout and "mirror None" in done.stdout


def test_setup_that_cannot_clone_stops(content):
    done = on_colab(content, setup_cell(TWINS[0]), repository=content / "nowhere")
    assert done.returncode != 0 and "CalledProcessError" in done.stderr


# -- the one public address ------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path):
    """A copy of what tools/sync_notebooks.py reads and writes."""
    for name in ("notebooks", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def sync(folder, *arguments):
    return subprocess.run(
        [sys.executable, folder / "tools" / "sync_notebooks.py", *arguments], capture_output=True, text=True
    )


def check_address(root):
    """Badges, set-up cells and README all say what pyproject.toml says."""
    url = address(root)
    readme = (root / "README.md").read_text()
    for twin in sorted((root / "notebooks").glob("*.py")):
        target = (
            f"{url.replace('github.com', 'colab.research.google.com/github')}/blob/main/notebooks/{twin.stem}.ipynb"
        )
        badge = f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({target})"
        text = twin.read_text()
        assert f'REPOSITORY = "{url}"' in text
        assert (f"# {badge}\n" in text) == bool(url) and (badge in readme) == bool(url)
        assert ("*In Colab: upload" in text) == (not url) and text.count("Open in Colab") == bool(url)
        assert jupytext.read(twin.with_suffix(".ipynb")).cells[0].source == jupytext.read(twin).cells[0].source


def test_badges_and_setup_agree_with_the_address():
    check_address(ROOT)


def test_one_command_sets_and_changes_the_address(copy):
    def ids():
        return [[c.id for c in nbformat.read(p, 4).cells] for p in sorted((copy / "notebooks").glob("*.ipynb"))]

    before = ids()
    for url in ("https://github.com/someone/colorization", "https://github.com/other.one/re-named_2"):
        done = sync(copy, url + ".git")  # as GitHub's own button gives it
        assert done.returncode == 0, done.stderr
        assert address(copy) == url
        check_address(copy)
    assert ids() == before  # else every change of a word would rewrite every cell


def test_syncing_again_changes_nothing(copy):
    files = [*copy.rglob("*.ipynb"), *copy.rglob("notebooks/*.py"), copy / "README.md", copy / "pyproject.toml"]
    before = [path.read_bytes() for path in files]
    assert sync(copy).returncode == 0
    assert [path.read_bytes() for path in files] == before


def test_syncing_takes_an_edit_over_and_strips_outputs(copy):
    twin, path = copy / "notebooks" / "01_data.py", copy / "notebooks" / "01_data.ipynb"
    twin.write_text(twin.read_text().replace("max_photos = 0", "max_photos = 7"))
    notebook = nbformat.read(path, 4)
    code = next(cell for cell in notebook.cells if cell.cell_type == "code")
    code.outputs, code.execution_count = [nbformat.v4.new_output("stream", text="left over")], 3
    nbformat.write(notebook, path)
    assert sync(copy).returncode == 0
    assert "max_photos = 7" in path.read_text() and "left over" not in path.read_text()


@pytest.mark.parametrize(
    "url", ["github.com/a/b", "https://github.com/a", "https://gitlab.com/a/b", 'https://github.com/a/b"']
)
def test_a_wrong_address_is_refused_and_nothing_changed(copy, url):
    before = (copy / "pyproject.toml").read_text()
    done = sync(copy, url)
    assert done.returncode != 0 and "https://github.com/OWNER/NAME" in done.stderr
    assert (copy / "pyproject.toml").read_text() == before


# -- each alone, as a plain script -----------------------------------------------------------------------------


@pytest.mark.slow
@each_twin
def test_twin_runs_alone_as_a_script(twin, tmp_path):
    """In a fresh machine's folders, from elsewhere, without PYTHONPATH; figures go to files.

    They train for few epochs and seconds here: as notebooks they do so for as long as they say.
    """
    script = tmp_path / "project" / "notebooks" / twin.name
    script.parent.mkdir(parents=True)
    (tmp_path / "project" / "colorlib").symlink_to(ROOT / "colorlib")
    short = {"n_epochs = 0 ": "n_epochs = 3 ", "compare_minutes = 0.0 ": "compare_minutes = 0.02 "}
    script.write_text(re.sub("|".join(map(re.escape, short)), lambda found: short[found[0]], twin.read_text()))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"COLORLIB_RUNS": str(tmp_path / "runs"), "COLORLIB_DATA": str(tmp_path / "data")}
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = re.findall(r"^Figure: (.*)$", done.stdout, re.M)
    assert len(figures) >= 2 and all(Path(figure).stat().st_size > 10_000 for figure in figures)
    assert {Path(figure).parent for figure in figures} == {tmp_path / "runs" / "figures"}


def fill_in(text, **fields):
    """A notebook's text with other values in the fields of its form."""
    for name, value in fields.items():
        (line,) = re.findall(rf"^{name} = .*?(?=  # @param)", text, re.M)
        text = text.replace(line, f"{name} = {value!r}")
    return text


@pytest.fixture
def given_photos(tmp_path):
    """Photos laid out like CVPR09's, and a folder of photos of which one is broken: two paths."""
    from pictures import crops, save

    cvpr09, celeba = tmp_path / "mit", tmp_path / "people"
    for i, rgb in enumerate(crops(10)):
        room = cvpr09 / "Images" / ("kitchen", "bookstore")[i % 2]
        save(rgb, room / f"{i}.jpg" if i < 6 else celeba / f"{i:06d}.jpg")
    (celeba / "000007x.jpg").write_bytes(b"no picture")
    return cvpr09, celeba


@pytest.mark.slow
def test_03_measures_what_its_form_asks_for_and_a_second_time_nothing_anew(tmp_path, given_photos):
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    environment |= dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")  # where nobody answers
    environment |= {"TORCH_HOME": str(tmp_path / "torch"), "COLORLIB_RUNS": str(tmp_path / "runs")}
    how = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    for name in ("zhang", "autoencoder"):  # the second one is the newest
        tiny = ["--set", "n_epochs=1", "size=32", "batch_size=8", "subset=0.1"]
        command = [sys.executable, "-m", "colorlib.training", name, "sample", tmp_path / "runs" / name, *tiny]
        done = subprocess.run(command, **how)
        assert done.returncode == 0, done.stderr

    script, missing = tmp_path / "project" / "notebooks" / "03_evaluate.py", tmp_path / "missing"
    script.parent.mkdir(parents=True)
    (tmp_path / "project" / "colorlib").symlink_to(ROOT / "colorlib")
    cvpr09, celeba = map(str, given_photos)
    form = {"every_recipe": True, "released_network": "yes", "max_photos": 5, "picture_photos": 3}
    form |= {"imagenet_photos": str(missing), "cvpr09_photos": cvpr09, "celeba_photos": celeba}
    script.write_text(fill_in((ROOT / "notebooks" / "03_evaluate.py").read_text(), **form))
    out = tmp_path / "runs" / "evaluation" / "autoencoder"

    def run():
        done = subprocess.run([sys.executable, script], **how)
        assert done.returncode == 0, done.stderr
        notes = out.glob("*.json")  # how far each measurement got: written after every batch
        rows = {path.stem: (path.stat().st_mtime_ns, path.with_suffix(".csv").read_bytes()) for path in notes}
        return re.sub("^measuring.*\n", "", done.stdout, flags=re.M), done.stderr, rows

    text, warned, rows = run()
    released = "eccv16 (could not be fetched)"
    assert f"To be measured: autoencoder, zhang, {released}" in text
    assert "The released weights of Zhang et al. could not be fetched" in warned
    assert re.search(rf"^ImageNet is left out: '?{re.escape(str(missing))}", text, re.M)
    assert "Measured: CVPR09, CelebA" in text
    assert "5 photos, 1 of which could not be read and do not count" in text
    sets = ("val", "test", "CVPR09", "CelebA")
    assert set(rows) == {f"{name}-{network}" for name in sets for network in ("autoencoder", "zhang")}

    kinds = [f"pixels-{way}" for way in ("hue", "wheel", "chroma", "contrast", "detail")]
    kinds += [f"scenes-{name}" for name in ("val", "test", "cvpr09", "celeba")] + ["temperatures"]
    kinds += [f"table-{name}" for name in ("val", "test", "document-000", "document-001")]
    kinds += ["table-floors-of-document-000", "table-grades-of-document-001", "differences-val", "differences-test"]
    for name in kinds:
        lines = (out / f"{name}.md").read_text().splitlines()
        assert len(lines) == 2 + len(pd.read_csv(out / f"{name}.csv")) > 2, name
    for part in ("val", "test"):
        table = pd.read_csv(out / f"table-{part}.csv", index_col=0)
        assert table.index.tolist()[3:] == ["autoencoder", "zhang", released]
        assert table.loc[released].isna().all()
        assert table.iloc[:5][["photos", "MSE", "MSE from", "explained", "CIEDE2000"]].notna().all(axis=None)
        *_, last = (out / f"table-{part}.md").read_text().splitlines()
        assert last.strip("| ") == f"{released} |  | no figure"
    groups = pd.read_csv(out / "scenes-cvpr09.csv", index_col=0)
    assert set(groups.index) == {"indoor: home", "indoor: store"} and groups.photos.sum() == 5
    table = pd.read_csv(out / "table-document-000.csv", index_col=[0, 1])
    mine = [(name, data) for data in ("CVPR09", "CelebA") for name in ("autoencoder", "zhang")]
    assert table.index[table.photos.notna()].tolist() == mine
    assert table.photos[mine].tolist() == [5, 5, 4, 4]
    assert table["published by document 000"].dropna().index.tolist() == [
        ("resnet34", name) for name in ("ImageNet", "CVPR09", "CelebA")
    ]
    figures = re.findall(r"^Figure: (.*)$", text, re.M)
    assert [Path(figure).stem for figure in figures] == [
        f"03_{name}" for name in ("floors", "scenes", "hues", "saturation", "brown", "details", "val", "test")
    ]
    assert all(Path(figure).stat().st_size > 10_000 for figure in figures)
    assert str(tmp_path / "runs" / "zhang") in text  # the network that chooses, at several temperatures

    assert run() == (text, warned, rows)  # the same words, and no measurement goes on


@pytest.mark.slow
def test_04_says_simulated_until_there_are_answers(tmp_path):
    script = tmp_path / "project" / "notebooks" / "04_qualitative_study.py"
    script.parent.mkdir(parents=True)
    (tmp_path / "project" / "colorlib").symlink_to(ROOT / "colorlib")
    text = (ROOT / "notebooks" / script.name).read_text()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"COLORLIB_RUNS": str(tmp_path / "runs"), "COLORLIB_DATA": str(tmp_path / "data")}

    def run(**form):
        """What the study's part prints."""
        script.write_text(fill_in(text, **form))
        done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        out = done.stdout.replace(str(tmp_path), "HERE")  # the folder has this test's name
        return out[out.index("photos to draw from") :]

    for kind in ("real", "grade"):
        folder = tmp_path / "runs" / "study" / f"first-{kind}"
        out = run(study_kind=kind, all_at_once=kind == "grade")
        assert "No answers yet: answers drawn at random" in out
        for title in ("what each participant said", "our figures beside published ones"):
            assert f"simulated: {title}" in out
        report = folder / "report_simulated.html"
        assert f"Page: {report}".replace(str(tmp_path), "HERE") in out and "(simulated)" in report.read_text()

        key = json.loads((folder / "key-do-not-send.json").read_text())
        answer = {"real": "coloured", "grade": "medium"}[kind]
        record = {"format": "colorlib answers 1", "study": key["study"], "kind": kind, "participant": 16 * "a"}
        record["answers"] = [[photo["photo"], answer, 1.0] for photo in key["photos"]]
        (folder / "answers" / "a.json").write_text(json.dumps(record))
        out = run(study_kind=kind)  # the page that was sent is found again, and not made anew
        assert "Answers of real people" in out and "participant 1" in out and "simulated" not in out
        assert json.loads((folder / "key-do-not-send.json").read_text()) == key
        table = pd.read_csv(folder / "score.csv", index_col=0)
        assert table.loc["all", {"real": "accuracy", "grade": "medium"}[kind]] == {"real": 0.5, "grade": 1}[kind]
    assert "participant 1" in run(study_kind="grade", answers=json.dumps(record))  # pasted
