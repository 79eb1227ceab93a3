"""requirements.txt: what it asks for is met by what Colab has, so that installing never swaps torch or numpy."""

from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
ABSENT_ON_COLAB = {"nbval"}  # only the tests of the notebooks need it


def lines(path):
    return [text for line in path.read_text().splitlines() if (text := line.split("#")[0].strip())]


REQUIREMENTS = {r.name: r for r in map(Requirement, lines(ROOT / "requirements.txt"))}
COLAB = dict(line.split("==") for line in lines(ROOT / "tests" / "colab_versions.txt"))


@pytest.mark.parametrize("name", sorted(REQUIREMENTS.keys() - ABSENT_ON_COLAB))
def test_colab_meets_the_requirement(name):
    assert name in COLAB, f"{name} has no version in tests/colab_versions.txt"
    assert REQUIREMENTS[name].specifier.contains(COLAB[name])


def test_known_to_be_absent_on_colab():
    assert ABSENT_ON_COLAB == REQUIREMENTS.keys() - COLAB.keys()


@pytest.mark.parametrize("name", sorted(REQUIREMENTS))
def test_requirements_are_lower_bounds_only(name):
    requirement = REQUIREMENTS[name]
    assert [s.operator for s in requirement.specifier] == [">="]
    assert requirement.url is None and requirement.marker is None
