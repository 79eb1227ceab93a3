"""Make the notebooks from their .py twins, and the badges from the one public address.

python tools/sync_notebooks.py                                  after editing a notebooks/*.py
python tools/sync_notebooks.py https://github.com/OWNER/NAME    to set or change the public address
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
NO_ADDRESS = (
    "*In Colab: upload this notebook, put the project's folder into your Drive as `colorization`, tick `use_drive`.*"
)


def badge(url, stem):
    """The line below a notebook's title that opens it in Colab; while there is no address, what to do instead."""
    if not url:
        return NO_ADDRESS
    target = url.replace("https://github.com/", "https://colab.research.google.com/github/")
    image = "https://colab.research.google.com/assets/colab-badge.svg"
    return f"[![Open in Colab]({image})]({target}/blob/main/notebooks/{stem}.ipynb)"


def put(path, pattern, new):
    """Replace the one place of a file that matches, or stop."""
    text, n = re.subn(pattern, lambda _: new, path.read_text(), flags=re.MULTILINE)
    if n != 1:
        sys.exit(f"{path}: {n} places match {pattern}, instead of one")
    path.write_text(text)


def strip(path):
    """Remove what running a notebook leaves in it; keep the cells' ids."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, path)


def main(url=None):
    if url is not None:
        url = url.removesuffix("/").removesuffix(".git")
        if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", url):
            sys.exit(f"{url!r} is not of the form https://github.com/OWNER/NAME\n\n{__doc__}")
        put(ROOT / "pyproject.toml", r'^repository = ".*"$', f'repository = "{url}"')
    url = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["colorlib"]["repository"]
    for twin in sorted((ROOT / "notebooks").glob("*.py")):
        put(twin, r"^# (\*In Colab: |\[!\[Open in Colab\]).*$", f"# {badge(url, twin.stem)}")
        put(twin, r'^REPOSITORY = ".*"', f'REPOSITORY = "{url}"')
        shown = badge(url, twin.stem) if url else "not public yet"
        put(ROOT / "README.md", rf"(?<=<!--{twin.stem}-->).*?(?=<!---->)", shown)
        # --update keeps the cells' ids, without which every run would rewrite the whole notebook.
        subprocess.run([sys.executable, "-m", "jupytext", "--quiet", "--to", "ipynb", "--update", twin], check=True)
        strip(twin.with_suffix(".ipynb"))


if __name__ == "__main__":
    main(*sys.argv[1:])
