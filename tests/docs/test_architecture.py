"""The page on the architecture stays short, and names files that exist; so does the glossary."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "pymodules_core"
PAGE = REPOSITORY / "docs" / "architecture.md"
MOST_LINES = 150

# `training/fit/start.py`, `experiment.py`, `checkpoints/store/`
_PATH = re.compile(r"`([a-z_]+(?:/[a-z_]+)*(?:\.py|/))`")
_TERM = re.compile(r"^- \*\*(.+?)\*\*: ", re.MULTILINE)


def named_paths() -> list[str]:
    """Return the paths that the page names below the package, each once."""
    found = dict.fromkeys(_PATH.findall(PAGE.read_text("utf-8")))
    # Of an experiment, not of the package.
    return [path for path in found if path not in {"data/", "task.py"}]


def test_the_page_is_short():
    assert len(PAGE.read_text("utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", named_paths())
def test_a_path_of_the_page_exists(path):
    assert (PACKAGE / path).exists()


def test_every_package_is_on_the_page():
    packages = {f"{file.parent.name}/" for file in PACKAGE.glob("*/__init__.py")}

    assert packages - set(named_paths()) == set()


def test_the_glossary_is_sorted_and_has_each_term_once():
    terms = _TERM.findall((REPOSITORY / "docs" / "glossary.md").read_text("utf-8"))

    assert terms == sorted(set(terms))
    assert len(terms) > 20
