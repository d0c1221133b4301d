"""Fixtures of all tests."""

import os
import sys

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
