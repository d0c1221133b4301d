"""What a wheel imports is what it declares, and what it declares is enough for every command."""

import ast
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import importlib_metadata
import pytest
from support import write_experiment
from wheel_cases import Environment, link_declared, requirements

from pymodules_core.discovery.plugins.records import normalise
from pymodules_core.discovery.scan.import_files import EXAMPLE_LIBRARIES

# The template of `new-plugin` is the wheel of pymodules-example, which is looked at by itself.
NOT_ITS_OWN = "pymodules_core/templates/pymodules-example/"
# pytest loads this file, and nothing else does.
LOADED_BY_PYTEST = "pymodules_core/testing/plugin.py: pytest"

COMMANDS = """
train e --nproc 2
train e --resume --epochs 3
train f
eval e
check e
compare e f
plot e
ckpt export e last --to apart
ckpt export e last --to apart_pt --format pt
ckpt export e last --to merged.pt --merged
ckpt export e last --to merged.safetensors --merged
ckpt diff e last epoch_1
ckpt verify e
"""
# In one process, which imports torch once.
RUN_ALL = """
import sys
from pymodules_core.cli.main import run

for line in sys.argv[1].strip().splitlines():
    assert run(line.split()) == 0, line
    print("done:", line)
"""


def imports_of(source: str) -> Iterator[str]:
    """Yield each package that a file imports: at the top, in functions, for annotations."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name.partition(".")[0] for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.partition(".")[0]
            case ast.Call(
                func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(module)), *_]
            ):
                yield module.partition(".")[0]


def undeclared_imports(wheel: Path) -> set[str]:
    owners = importlib_metadata.packages_distributions()
    # `dev` is for work on this repository.
    declared = {name for name, extra in requirements(wheel) if extra != "dev"}
    found = set()
    with zipfile.ZipFile(wheel) as archive:
        files = [n for n in archive.namelist() if n.endswith(".py") and NOT_ITS_OWN not in n]
        # `modules` is how the files of an experiment name each other.
        own = {"modules", *(PurePosixPath(file).parts[0] for file in files)}
        for file in files:
            for package in imports_of(archive.read(file).decode()):
                names = {normalise(name) for name in owners.get(package, [package])}
                if not (package in sys.stdlib_module_names | own or names & declared):
                    found.add(f"{file}: {package}")
    return found


def test_what_the_core_imports_is_declared(core_wheel):
    assert undeclared_imports(core_wheel) == {LOADED_BY_PYTEST}


def test_what_each_package_imports_is_declared(plugin_wheels):
    assert {name: undeclared_imports(wheel) for name, wheel in plugin_wheels.items()} == {
        name: set() for name in plugin_wheels
    }


def test_each_way_to_import_is_seen():
    source = """
        from typing import TYPE_CHECKING
        import a.b, c as d
        from e.f import g
        from . import h
        if TYPE_CHECKING:
            from i import j
        def f():
            import k
            return importlib.import_module("l.m")
        """

    found = imports_of(re.sub(r"^ {8}", "", source, flags=re.MULTILINE))

    assert {*found} == {"typing", "a", "c", "e", "i", "k", "l"}


@pytest.fixture(scope="module")
def bare(core_wheel, tmp_path_factory) -> Environment:
    """An environment of the core's wheel and what that declares."""
    environment = Environment(tmp_path_factory.mktemp("bare") / "venv", sees_libraries=False)
    environment.pip("install", "--no-index", "--no-deps", str(core_wheel))
    link_declared(core_wheel, environment)
    return environment


def test_what_the_core_declares_is_enough_for_every_command(bare, tmp_path):
    for name in ("e", "f"):
        write_experiment(tmp_path / "data", name)

    result = bare.run("python", "-c", RUN_ALL, COMMANDS, cwd=tmp_path)

    assert result.stdout.endswith("done: ckpt verify e\n")
    assert "numpy" not in result.stderr.lower()


@pytest.mark.parametrize(
    ("template", "library"), [("classifier", "scikit-learn"), ("gan", "pillow")]
)
def test_an_example_without_its_libraries_names_their_extra(bare, tmp_path, template, library):
    bare.run("pymodules", "new", "mine", "--template", template, cwd=tmp_path)

    refused = bare.run("pymodules", "check", "mine", cwd=tmp_path, code=2)

    assert (
        f'  fix: pip install {library}, or pip install "pymodules-core[examples]" for all that the '
        "examples import\n"
    ) in refused.stderr


def test_the_extra_of_the_examples_is_what_they_import(core_wheel):
    extra = {name for name, extra in requirements(core_wheel) if extra == "examples"}

    owners = importlib_metadata.packages_distributions()
    assert {normalise(owner) for name in EXAMPLE_LIBRARIES for owner in owners[name]} == extra
