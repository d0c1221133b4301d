"""Modules that plugins of earlier commits import from where they were."""

import importlib
import subprocess
import sys

import pytest

from pymodules_core.moved import MOVED


@pytest.fixture
def forgotten(monkeypatch):
    """Forget the old names: a module warns where it is first imported."""
    for old in MOVED:
        monkeypatch.delitem(sys.modules, old, raising=False)
        monkeypatch.delattr(old, raising=False)


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_an_old_name_is_the_new_module_and_the_warning_names_it(old, new):
    with pytest.warns(DeprecationWarning, match=f"^{old} is now {new}$") as warned:
        found = importlib.import_module(old)

    assert found is importlib.import_module(new)
    assert found.__name__ == found.__spec__.name == new
    assert len(warned) == 1


@pytest.mark.usefixtures("forgotten")
def test_the_warning_is_at_the_line_that_imports_the_old_name(tmp_path):
    file = tmp_path / "plugin.py"
    file.write_text("\nfrom pymodules_core.training.run import Run\n", "utf-8")

    done = subprocess.run(
        [sys.executable, "-W", "always::DeprecationWarning:__main__", file],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stderr.startswith(
        f"{file}:2: DeprecationWarning: pymodules_core.training.run is now "
        "pymodules_core.training.task.run\n"
    )
