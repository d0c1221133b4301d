"""Ctrl-C while a commit waits for the one before: nothing may touch what is still being written."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import pytest
import torch
from torch import nn

from pymodules_core import CheckpointManager, ModulePool
from pymodules_core.checkpoints.file_buffer.buffer import FileBuffer
from pymodules_core.checkpoints.file_format.read import digest_of_file
from pymodules_core.checkpoints.saving.writer_thread import Writer
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.verification import verify_store
from pymodules_core.errors import CheckpointError, StoreLockedError


def interrupt_where_it_waits(then: Callable[[], None] = lambda: None) -> None:
    """Press Ctrl-C once the main thread waits for the writer's, and do something later."""

    def is_waiting() -> bool:
        frame = sys._current_frames()[threading.main_thread().ident]
        names = []
        while frame is not None:
            names.append(frame.f_code)
            frame = frame.f_back
        return names[0] is threading.Condition.wait.__code__ and Writer.wait.__code__ in names

    def interrupt() -> None:
        until = time.monotonic() + 60
        while not is_waiting() and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        then()

    threading.Thread(target=interrupt).start()


@pytest.fixture
def gate(monkeypatch) -> threading.Event:
    """Holds back the first half of every checksum until it is set."""
    gate, finish = threading.Event(), FileBuffer.finish
    gate.set()

    def finish_behind_the_gate(image: FileBuffer, *more: object):
        gate.wait(90)
        return finish(image, *more)

    monkeypatch.setattr(FileBuffer, "finish", finish_behind_the_gate)
    return gate


def test_a_job_that_was_waited_for_in_vain_is_still_waited_for():
    done, writer = threading.Event(), Writer(is_asynchronous=True)
    writer.submit(lambda: done.wait(90))
    interrupt_where_it_waits()

    with pytest.raises(KeyboardInterrupt):
        writer.wait()

    assert not writer.is_idle
    done.set()
    writer.close()
    assert writer.is_idle


def test_an_interrupted_commit_leaves_the_one_before_whole(tmp_path, gate):
    net = nn.Linear(50, 50)
    checkpoints = CheckpointManager(tmp_path, ModulePool.from_modules({"net": net}))
    checkpoints.start()
    gate.clear()
    net.weight.data.fill_(1)
    checkpoints.commit("last", "best", epoch=1, metrics={"loss": 1.0})
    net.weight.data.fill_(2)
    interrupt_where_it_waits()

    with pytest.raises(KeyboardInterrupt):
        checkpoints.commit("last", "best", epoch=2, metrics={"loss": 0.5})

    assert checkpoints.best.value == 1.0
    gate.set()
    net.weight.data.fill_(3)
    checkpoints.commit("last", epoch=3)
    checkpoints.close()
    assert verify_store(Layout(tmp_path), digest_of_file).damages == []
    values = {
        pool: set(torch.load(tmp_path / pool / "net.pt")["weight"].flatten().tolist())
        for pool in ("best", "last")
    }
    assert values == {"best": {1.0}, "last": {3.0}}


def test_an_interrupted_close_keeps_others_out_until_all_is_written(tmp_path, gate):
    net = nn.Linear(5, 5)
    pool = ModulePool.from_modules({"net": net})
    checkpoints = CheckpointManager(tmp_path, pool)
    checkpoints.start()
    gate.clear()
    net.weight.data.fill_(1)
    checkpoints.commit("last", epoch=1)
    interrupt_where_it_waits(gate.set)

    with pytest.raises(KeyboardInterrupt):
        checkpoints.close()

    # Its thread has ended, or nobody else may write.
    try:
        resumed = CheckpointManager(tmp_path, pool).resume()
    except StoreLockedError:
        checkpoints.close()
        resumed = CheckpointManager(tmp_path, pool).resume()
    assert resumed.epoch == 1


def test_after_close_nothing_is_written(tmp_path):
    pool = ModulePool.from_modules({"net": nn.Linear(2, 2)})
    checkpoints = CheckpointManager(tmp_path, pool)
    checkpoints.start()
    checkpoints.close()

    with pytest.raises(CheckpointError, match=r"before start\(\)"):
        checkpoints.commit("last", epoch=1)
