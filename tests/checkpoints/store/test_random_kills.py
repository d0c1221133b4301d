"""Writers that are killed whenever it may be: the store opens, and holds one whole moment."""

import itertools
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from store_cases import RUNGS, check_whole, commit, images, open_store, write_in_threads
from torch import nn

from pymodules_core import LAST, CheckpointManager, ModulePool, PoolReader
from pymodules_core.checkpoints.file_format.read import digest_of_file
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import record_numbers
from pymodules_core.checkpoints.store.store import Store
from pymodules_core.checkpoints.store.verification import verify_store


def kill_after(delay_s: float, run: Callable[[], object]) -> None:
    """Run in a child that has no other end than being killed."""
    child = os.fork()
    if child == 0:
        try:
            run()
        finally:
            os._exit(1)
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def kill_a_store_often(folder: Path, rung: str, times: int) -> int:
    """Commit as fast as it goes, from kill to kill; give the number of the last commit."""
    weights = [images(epoch) for epoch in range(10)]
    store = open_store(folder, rung)
    commit(store, 0, weights[0])
    commit(store, 1, weights[1])
    store.close()
    choice = random.Random(0)

    def run() -> None:
        store = open_store(folder, rung)
        assert store.record is not None
        for epoch in itertools.count(store.record.epoch + 1):
            commit(store, epoch, weights[epoch % 10])

    number, most_s = 2, 0.03
    for _ in range(times):
        kill_after(choice.uniform(0, most_s), run)
        found = check_whole(folder, rung)
        assert found >= number
        # A machine that is busy is given more time, so that kills come at every place.
        most_s *= 1.3 if found == number else 0.9
        number = found
    return number


@pytest.mark.parametrize("rung", RUNGS)
def test_a_store_survives_kills_at_any_time(tmp_path, monkeypatch, rung):
    write_in_threads(monkeypatch)

    assert kill_a_store_often(tmp_path, rung, 20) > 4


@pytest.mark.long
@pytest.mark.parametrize("rung", RUNGS)
def test_a_store_survives_a_thousand_kills(tmp_path, monkeypatch, rung):
    write_in_threads(monkeypatch)

    assert kill_a_store_often(tmp_path, rung, 1000) > 200


def commit_for_ever(folder: Path) -> None:
    """Save beside training, every weight of every module being the number of the epoch."""
    torch.set_num_threads(1)  # others did not survive the fork
    pool = ModulePool.from_modules({name: nn.Linear(300, 300) for name in "ab"})
    checkpoints = CheckpointManager(folder, pool, keep_epochs=2)
    with torch.no_grad():
        for epoch in itertools.count():
            for parameter in itertools.chain(*(pool[name].parameters() for name in pool)):
                parameter.fill_(epoch)
            if epoch == 0:
                checkpoints.start()
            checkpoints.commit(
                LAST, "best", f"epoch_{epoch + 1}", epoch=epoch, metrics={"loss": 1 / (epoch + 1)}
            )


def kill_managers(folder: Path, times: int) -> set[int]:
    """Kill one run after the other; give the epochs at which they were found.

    On a machine that is busy, more of them: until they were found at two epochs.
    """
    choice = random.Random(1)
    found, most_s = set[int](), 0.15
    for number in range(10 * times):
        if number >= times and len(found) > 1:
            break
        ckps = folder / str(number)
        kill_after(choice.uniform(0.005, most_s), lambda path=ckps: commit_for_ever(path))
        most_s *= 0.95 if record_numbers(Layout(ckps)) else 1.3
        if not record_numbers(Layout(ckps)):
            continue  # killed before the first commit
        Store(Layout(ckps)).close()
        reader = PoolReader(ckps)
        values = {
            (pool, name): {
                float(value) for tensor in one.state.values() for value in tensor.unique()
            }
            for pool in reader.pools()
            for name, one in reader.read(pool).items()
        }
        assert all(len(value) == 1 for value in values.values())
        assert values[LAST, "a"] == values[LAST, "b"]
        if ("best", "a") in values:
            assert values["best", "a"] == values[LAST, "a"]
        assert verify_store(Layout(ckps), digest_of_file).damages == []
        found |= {int(value) for value in values[LAST, "a"]}
    return found


def test_a_manager_survives_kills_at_any_time(tmp_path):
    assert len(kill_managers(tmp_path, 12)) > 1


@pytest.mark.long
def test_a_manager_survives_hundreds_of_kills(tmp_path):
    assert len(kill_managers(tmp_path, 500)) > 10
