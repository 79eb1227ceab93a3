"""data/README.md: made from the registry, and with all that is in it."""

import runpy
from pathlib import Path

import pytest

from colorlib import datasets

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "data" / "README.md").read_text()


def test_page_is_the_registrys():
    made = runpy.run_path(str(ROOT / "tools" / "data_readme.py"))["text"]()
    assert PAGE == made, "run python tools/data_readme.py"


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_page_tells_all_that_is_known_of_a_set(name):
    entry = datasets.DATASETS[name]
    section = PAGE.split(f"### `{name}`\n")[1].split("###")[0]
    row = next(line for line in PAGE.split("\n") if line.startswith(f"| `{name}` |"))
    assert entry.title in row and entry.terms in row and f"{entry.n_photos:,}" in row
    assert entry.layout in section and entry.split in section
    for file in entry.files:
        assert file.name in section and file.facts in section
        assert all(url.split(":")[-1] in section for url in file.urls)
    assert all(handle in section for handle in entry.kaggle)
