"""Every wheel and sdist carries its licence, that of a new plugin too."""

import subprocess
import sys
import tarfile
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest
from wheel_cases import REPOSITORY, build_wheel

from pymodules_core.cli.main import run

LICENSE = (REPOSITORY / "LICENSE").read_bytes()
SOURCES = [REPOSITORY, *sorted(path.parent for path in REPOSITORY.glob("plugins/*/pyproject.toml"))]


def check_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (file,) = (n for n in archive.namelist() if n.endswith(".dist-info/licenses/LICENSE"))
        content = archive.read(file)
        info = file.removesuffix("licenses/LICENSE")
        metadata = BytesParser().parsebytes(archive.read(f"{info}METADATA"))

    assert content == LICENSE
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert metadata["License-Expression"] == "Apache-2.0"


def check_sdist(source: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", folder]
    subprocess.run([*command, source], capture_output=True, check=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as content:
        file = content.extractfile(f"{archive.name.removesuffix('.tar.gz')}/LICENSE")
        assert file is not None
        assert file.read() == LICENSE


def test_each_wheel_has_its_licence(core_wheel, plugin_wheels):
    for wheel in (core_wheel, *plugin_wheels.values()):
        check_wheel(wheel)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_each_sdist_has_its_licence(source, tmp_path):
    check_sdist(source, tmp_path)


def test_a_new_plugin_has_the_licence_that_it_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["new-plugin", "acme-nets"]) == 0
    (tmp_path / "wheel").mkdir()

    check_wheel(build_wheel(tmp_path / "acme-nets", tmp_path / "wheel"))
    check_sdist(tmp_path / "acme-nets", tmp_path / "sdist")
