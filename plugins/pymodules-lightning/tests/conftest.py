"""Fixtures of all tests."""

import importlib.metadata
import os

import pytest
import torch
from lightning_projects import train_lightning

PACKAGE = "pymodules-lightning"


@pytest.fixture(autouse=True)
def _same_surroundings(monkeypatch):
    """One torch thread, and no variable of pymodules from whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("PYMODULES_"):
            monkeypatch.delenv(name)
    torch.set_num_threads(1)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The data home ``data`` in an empty working directory: paths in messages are relative."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


@pytest.fixture
def installed(tmp_path_factory, monkeypatch):
    """Put the package's metadata on the path, where it is only on the path and not installed."""
    try:
        importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        site = tmp_path_factory.mktemp("site")
        info = site / "pymodules_lightning-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 0.1.0\n")
        (info / "entry_points.txt").write_text(
            "[pymodules]\nlightning = pymodules_lightning.plugin\n"
        )
        monkeypatch.syspath_prepend(str(site))


@pytest.fixture
def trained(home):
    """A LightningModule that Lightning trained, and the checkpoint that it wrote."""
    return train_lightning(home, width=6)
