"""Several processes on one folder of pools: one writes, many may read."""

import errno
import os
import platform
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import store_cases
from torch import nn

from pymodules_core import CheckpointManager, ModulePool, PoolReader
from pymodules_core.checkpoints.file_format.read import digest_of_file
from pymodules_core.checkpoints.store import verification
from pymodules_core.checkpoints.store.file_system import Disk
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import record_numbers
from pymodules_core.checkpoints.store.store import Store
from pymodules_core.checkpoints.store.verification import verify_store
from pymodules_core.errors import CheckpointError, StoreLockedError

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


def load_often(folder: Path, times: int, *, epochs_wanted: int) -> set[int]:
    """Load ``last`` into live modules; give the epochs that were found, each a whole one.

    Goes on until enough epochs were found: the disk may hold the writer up.
    """
    pool = ModulePool.from_modules({name: nn.Linear(8, 8) for name in "abc"})
    reader = CheckpointManager(folder, pool)
    epochs: set[int] = set()
    until = time.monotonic() + 60
    done = 0
    while done < times or (len(epochs) < epochs_wanted and time.monotonic() < until):
        done += 1
        reader.load("last")
        (value,) = {
            v for name in pool for p in pool[name].parameters() for v in p.unique().tolist()
        }
        epochs.add(int(value))
    return epochs


def test_a_reader_never_sees_mixed_epochs(tmp_path, writer):
    epochs = load_often(tmp_path / "ckps", 500, epochs_wanted=11)

    assert writer.poll() is None
    assert len(epochs) > 10


@pytest.mark.long
def test_a_reader_never_sees_mixed_epochs_ten_thousand_times(tmp_path, writer):
    epochs = load_often(tmp_path / "ckps", 10_000, epochs_wanted=101)

    assert writer.poll() is None
    assert len(epochs) > 100


def test_a_second_process_is_refused_and_the_first_continues(tmp_path, writer):
    folder = tmp_path / "ckps"

    with pytest.raises(StoreLockedError, match=f"is being written by process {writer.pid} on "):
        open_store(folder)

    before = read_epoch(folder)
    deadline = time.monotonic() + 60
    while read_epoch(folder) <= before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert read_epoch(folder) > before
    assert writer.poll() is None


def test_folders_that_another_process_makes_at_the_same_moment_are_no_obstacle(tmp_path):
    class SharedDisk(Disk):
        def make_folder(self, path: Path) -> None:
            path.mkdir()
            super().make_folder(path)

    store = Store(Layout(tmp_path), disk=SharedDisk())

    assert store.record is None
    store.close()


def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path, writer):
    folder = tmp_path / "ckps"
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()

    open_store(folder)

    assert read_epoch(folder) >= 1


@pytest.mark.parametrize(
    "holder",
    [
        '{"host": "elsewhere", "process": 1, "since": "2026-01-01"}',
        f'{{"host": "{platform.node()}", "process": {os.getpid()}, "since": "2026-01-01"}}',
        "no JSON",
    ],
    ids=["another host", "a process that runs", "damaged"],
)
def test_the_word_of_a_writer_that_is_gone_holds_nobody_up(tmp_path, holder):
    open_store(tmp_path)
    word = Layout(tmp_path).holder
    word.write_text(holder)

    open_store(tmp_path)

    assert not word.exists()


def test_a_slow_disk_holds_one_commit_at_a_time_and_the_receipts_report(tmp_path, monkeypatch):
    synced = Disk.sync
    monkeypatch.setattr(Disk, "sync", lambda *them: time.sleep(0.02) or synced(*them))
    pool = ModulePool.from_modules({"a": nn.Linear(30, 30)})
    with CheckpointManager(tmp_path, pool) as checkpoints:
        checkpoints.start()
        receipts, undone = [], []
        for epoch in range(1, 6):
            pool.a.weight.data.fill_(epoch)
            receipts.append(checkpoints.commit("last", epoch=epoch))
            undone.append(sum(not receipt.durable for receipt in receipts))

    # The memory of one commit is all there is: the next waits until it is written.
    assert max(undone) == 1
    assert min(receipt.write_ms for receipt in receipts) > 20
    assert receipts[-1].stall_ms > 20
    assert read_epoch_of(tmp_path) == 5


def read_epoch_of(folder: Path) -> int:
    return PoolReader(folder).read("last")["a"].epoch


class SlowDisk(store_cases.LinkingDisk):
    """Takes half a second to put a folder in its place."""

    def rename(self, source: Path, target: Path) -> None:
        """Wait, and move it."""
        if source.is_dir():
            time.sleep(0.5)
        super().rename(source, target)


def test_a_commit_that_takes_its_time_is_not_damage(tmp_path):
    store = Store(Layout(tmp_path), disk=SlowDisk())
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(store_cases.commit, store, 0, store_cases.images(0))
        while not record_numbers(Layout(tmp_path)):
            time.sleep(0.01)

        assert verify_store(Layout(tmp_path), digest_of_file).damages == []

    done.result()
    store.close()


def test_damage_is_reported_while_a_run_writes(tmp_path, writer, monkeypatch):
    monkeypatch.setattr(verification, "_SETTLES_S", 1.0)
    file = tmp_path / "ckps" / "init" / "a.pt"
    content = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(content[:-40] + bytes(40))

    (damage,) = verify_store(Layout(tmp_path / "ckps"), digest_of_file).damages

    # The object, where the view is a hard link to it.
    assert damage.path == file or damage.used_by == ("init/a",)
    assert writer.poll() is None


def test_a_store_is_whole_while_it_is_written(tmp_path, writer):
    until = time.monotonic() + 20
    for number in range(100):
        if number and time.monotonic() > until:
            break
        assert verify_store(Layout(tmp_path / "ckps"), digest_of_file).damages == []

    assert writer.poll() is None


def test_pools_and_modules_are_reported_while_they_come_and_go(tmp_path, writer):
    reader = PoolReader(tmp_path / "ckps")
    for _ in range(300):
        for pool in reader.pools():
            # A pool of an epoch may be gone by now.
            assert reader.modules(pool) in (["a", "b", "c"], [])

    assert writer.poll() is None


def test_a_disk_that_cannot_lock_does_not_blame_another_process(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.lockf", refuse)
    pool = ModulePool.from_modules({"a": nn.Linear(1, 1)})

    with pytest.raises(CheckpointError, match="cannot be written: No locks available"):
        CheckpointManager(tmp_path / "ckps", pool).start()
