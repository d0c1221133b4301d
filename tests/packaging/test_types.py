"""What a type checker knows of the installed packages."""

import subprocess
import sys
import zipfile
from pathlib import Path

USER = """\
from pathlib import Path
from typing import assert_type

from torch import nn

from pymodules_core import CheckpointManager, LoadReport, ModulePool, RunResult, Trainer
from pymodules_core.errors import closest_match
from pymodules_core.plugin_api import check_module_name

pool = ModulePool.from_modules({"net": nn.Linear(2, 2)})
checkpoints = CheckpointManager(Path("pools"), pool)
assert_type(checkpoints.load("best"), dict[str, LoadReport])
assert_type(Trainer("digits_classifier").fit(), RunResult)
assert_type(closest_match("encodr", pool), str | None)
check_module_name("encoder")
"""
PLUGIN = """\
from typing import Annotated

import attrs
from pymodules_example.plugin import Settings as EdgeSettings

from pymodules_core import DiscoveryContext, ModuleSpec, Range, Run, hookimpl


@attrs.frozen
class Settings:
    width: Annotated[int, Range(1)] = 4
    edges: EdgeSettings = attrs.field(factory=EdgeSettings)


@hookimpl
def provide_module(context: DiscoveryContext) -> ModuleSpec:
    return ModuleSpec(name="net", factory="torch.nn:Identity", settings={"frozen": True})


@hookimpl
def epoch_finished(run: Run) -> None:
    run.log("width", 1.0)
"""
WRONG = 'from pymodules_core import Trainer, Trainr\n\nTrainer("tiny").fit().best_epoc\n'


def check_types(environment, *files: Path) -> str:
    """Run mypy on files, with the packages of an environment."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file="),
            *("--python-executable", environment.folder / "bin" / "python", *files),
        ],
        cwd=files[0].parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_every_wheel_says_that_it_has_types(core_wheel, plugin_wheels):
    for wheel in (core_wheel, *plugin_wheels.values()):
        package = wheel.name.partition("-")[0]
        assert f"{package}/py.typed" in zipfile.ZipFile(wheel).namelist()


def test_the_types_of_installed_packages_are_checked(environment, example_wheel, tmp_path):
    environment.pip("install", "--no-index", "--no-deps", "--quiet", str(example_wheel))
    files = [tmp_path / name for name in ("user.py", "plugin.py", "wrong.py")]
    for file, code in zip(files, (USER, PLUGIN, WRONG), strict=True):
        file.write_text(code, "utf-8")
    try:
        printed = check_types(environment, *files)
    finally:
        environment.pip("uninstall", "--yes", "--quiet", "pymodules-example")

    assert printed == (
        'wrong.py:1: error: Module "pymodules_core" has no attribute "Trainr"; maybe "Trainer"?  '
        "[attr-defined]\n"
        'wrong.py:3: error: "RunResult" has no attribute "best_epoc"; maybe "best_epoch"?  '
        "[attr-defined]\nFound 2 errors in 1 file (checked 3 source files)\n"
    )
