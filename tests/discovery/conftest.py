"""Installed distributions: real ``dist-info`` folders on ``sys.path``."""

import sys

import pytest


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Write a distribution with a ``pymodules`` entry point into a folder on ``sys.path``."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    packages = []

    def write(name, source, *, version="1.0", entry_point="plugin", target=None, folder=None):
        package = name.replace("-", "_")
        packages.append(package)
        root = folder or site
        root.mkdir(exist_ok=True)
        (root / f"{package}.py").write_text(source)
        info = root / f"{package}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(
            f"[pymodules]\n{entry_point} = {target or package}\n"
        )
        return info

    yield write
    for package in packages:
        sys.modules.pop(package, None)
