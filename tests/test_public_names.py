"""What ``import pymodules_core`` gives, and what it costs."""

import subprocess
import sys

import pytest

import pymodules_core


def imported_by(statement: str) -> set[str]:
    """Run a statement in a fresh interpreter and give the names of all imported packages."""
    script = f"{statement}\nimport sys\nprint(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_the_public_names_are_exactly_the_intended_ones():
    assert sorted(pymodules_core.__all__) == [
        "CheckpointManager",
        "ModulePool",
        "ModuleSpec",
        "Trainer",
        "hookimpl",
        "hookspec",
    ]


@pytest.mark.parametrize("name", pymodules_core.__all__)
def test_every_public_name_resolves_and_is_documented(name):
    assert name in dir(pymodules_core)
    assert getattr(pymodules_core, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Trainr'"):
        _ = pymodules_core.Trainr


def test_importing_the_package_imports_nothing_heavy():
    names = imported_by("import pymodules_core")

    assert not names & {"torch", "rich", "click", "cattrs", "pluggy"}


@pytest.mark.parametrize(
    "module",
    [
        "pymodules_core.cli.main",
        "pymodules_core.discovery",
        "pymodules_core.discovery.selection.catalog",
        "pymodules_core.hookspecs",
        "pymodules_core.run_files",
        "pymodules_core.specs",
    ],
)
def test_what_starts_fast_imports_no_torch(module):
    assert "torch" not in imported_by(f"import {module}")
