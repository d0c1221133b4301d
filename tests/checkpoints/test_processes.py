"""Several processes on one folder of pools: one writes, many may read."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch import nn

from pymodules_core import CheckpointManager, ModulePool
from pymodules_core.checkpoints.reading import PoolReader
from pymodules_core.checkpoints.store.layout import Layout
from pymodules_core.checkpoints.store.store import Store
from pymodules_core.errors import StoreLockedError

# Commits as fast as it can; every weight of every module is the number of the epoch.
WRITER = """
import itertools
import sys

import torch
from torch import nn

from pymodules_core import CheckpointManager, ModulePool

pool = ModulePool.from_modules({name: nn.Linear(8, 8) for name in "abc"})
with CheckpointManager(sys.argv[1], pool, keep_epochs=1) as checkpoints:
    checkpoints.start()
    for epoch in itertools.count(1):
        with torch.no_grad():
            for name in pool:
                for parameter in pool[name].parameters():
                    parameter.fill_(epoch)
        checkpoints.commit("last", f"epoch_{epoch}", epoch=epoch)
        if epoch == 1:
            checkpoints.wait()
            print("ready", flush=True)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that commits to ``ckps`` until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "ckps")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def open_store(folder: Path) -> None:
    Store(Layout(folder)).close()


def read_epoch(folder: Path) -> int:
    """Read ``last``, and check that all of it is from one epoch."""
    found = PoolReader(folder).read("last")
    values = {value for one in found.values() for t in one.state.values() for value in t.unique()}
    epochs = {one.epoch for one in found.values()}
    (value,), (epoch,) = {float(value) for value in values}, epochs
    assert value == epoch
    return int(value)


def load_often(folder: Path, times: int) -> set[int]:
    """Load ``last`` into live modules; give the epochs that were found, each a whole one."""
    pool = ModulePool.from_modules({name: nn.Linear(8, 8) for name in "abc"})
    reader = CheckpointManager(folder, pool)
    epochs = set()
    for _ in range(times):
        reader.load("last")
        (value,) = {
            v for name in pool for p in pool[name].parameters() for v in p.unique().tolist()
        }
        epochs.add(int(value))
    return epochs


def test_a_reader_never_sees_mixed_epochs(tmp_path, writer):
    epochs = load_often(tmp_path / "ckps", 500)

    assert writer.poll() is None
    assert len(epochs) > 10


@pytest.mark.long
def test_a_reader_never_sees_mixed_epochs_ten_thousand_times(tmp_path, writer):
    epochs = load_often(tmp_path / "ckps", 10_000)

    assert writer.poll() is None
    assert len(epochs) > 100


def test_a_second_process_is_refused_and_the_first_goes_on(tmp_path, writer):
    folder = tmp_path / "ckps"

    with pytest.raises(StoreLockedError, match=f"is being written by process {writer.pid} on "):
        open_store(folder)

    before = read_epoch(folder)
    deadline = time.monotonic() + 30
    while read_epoch(folder) <= before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert read_epoch(folder) > before
    assert writer.poll() is None


def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path, writer):
    folder = tmp_path / "ckps"
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()

    open_store(folder)

    assert read_epoch(folder) >= 1
