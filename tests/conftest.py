"""Fixtures of all tests."""

import os
import sys
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _same_surroundings(monkeypatch):
    """One torch thread, and no variable of this package from whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("PYMODULES_"):
            monkeypatch.delenv(name)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """The data home ``data`` in an empty working directory: paths in messages are relative."""
    monkeypatch.chdir(tmp_path)
    return Path("data")
