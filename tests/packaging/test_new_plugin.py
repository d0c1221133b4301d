"""What ``new-plugin`` of the installed wheel writes installs, conforms and passes its tests."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from wheel_cases import Environment

# pip asks no index, and builds with the hatchling that is there.
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def package(environment, tmp_path) -> Path:
    environment.run("pymodules", "new-plugin", "acme-nets", cwd=tmp_path)
    return tmp_path / "acme-nets"


def build_sdist(package: Path) -> str:
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", package]
    subprocess.run(command, capture_output=True, check=True)
    (archive,) = (package / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as content:
        assert "acme_nets-0.1.0/tests/test_plugin.py" in content.getnames()
    return str(archive)


@pytest.mark.parametrize("how", ["folder", "editable", "sdist"])
def test_it_installs_lists_conforms_and_trains(environment, package, tmp_path, how):
    what = {"folder": ["."], "editable": ["-e", "."], "sdist": []}[how]
    if how == "sdist":
        what = [build_sdist(package)]
    offline = ("--no-index", "--no-build-isolation", "--no-deps", "--quiet")
    environment.run("python", "-m", "pip", "install", *offline, *what, cwd=package)
    try:
        output = environment.run("pymodules", "plugins", "--json", cwd=tmp_path).stdout
        (plugin,) = [one for one in json.loads(output) if one["name"].startswith("acme-nets:")]
        assert plugin["modules"] == ["acme_nets_edges"]
        assert plugin["editable"] is (how == "editable")
        if how == "folder":  # 10 s; the other two install the same files
            checked = environment.run("pymodules", "check", "--plugin", "acme-nets", cwd=tmp_path)
            assert checked.stdout.endswith("acme-nets fulfils all that a plugin has to\n")
        environment.run("pymodules", "new", "mine", cwd=tmp_path)
        environment.run("pymodules", "train", "mine", "--epochs", "1", cwd=tmp_path)
        frozen = tmp_path / "data/experiments/mine/data/module_ckps/frzn/acme_nets_edges.pt"
        assert frozen.is_file()
    finally:
        environment.pip("uninstall", "--yes", "--quiet", "acme-nets")


def test_make_test_of_the_new_package_passes(environment: Environment, package):
    try:
        result = subprocess.run(
            ["make", "test", f"VENV={environment.folder}"],
            cwd=package,
            env={**os.environ, **OFFLINE, "PYTHONNOUSERSITE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert " 9 passed" in result.stdout
    finally:
        (environment.folder / ".installed").unlink(missing_ok=True)
        environment.pip("uninstall", "--yes", "--quiet", "acme-nets")
