"""Fixtures of all tests."""

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says what else the machine does, and nothing of the code.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

# It is ignored where a script starts the tests in the background, and by all that they start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _use_one_thread() -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """One torch thread for what the fixtures of a file train, as for its tests."""
    _use_one_thread()


@pytest.fixture(autouse=True)
def _same_surroundings(monkeypatch):
    """One torch thread, and no variable of this package from whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("PYMODULES_"):
            monkeypatch.delenv(name)
    _use_one_thread()


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """The data home ``data`` in an empty working directory: paths in messages are relative."""
    monkeypatch.chdir(tmp_path)
    return Path("data")


def pytest_collection_modifyitems(items):
    """Start with the tests of wheels, the longest: no process waits for them at the end."""
    items.sort(key=lambda item: "packaging" not in item.path.parts)
