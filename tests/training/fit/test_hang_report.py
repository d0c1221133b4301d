"""Processes that wait for ever are reported where each of them is."""

import sys
import threading
import time
from pathlib import Path

import pytest
import torch.distributed as dist
from rank_cases import launch
from support import TINY_MODULE, TINY_TASK, write_experiment

from pymodules_core import Processes
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import readable_records
from pymodules_core.processes.environment import RankInfo
from pymodules_core.training.fit import hang_report
from pymodules_core.training.fit.hang_report import HangReport

HERE = Path(__file__)
# What the processes call in their fourth step is not the same; the second ends later by itself.
OTHERWISE = """

import os, threading

from pymodules_core.training.fit import hang_report

hang_report._LOOK_EVERY_S = 0.2


def optimizers(module_pool):
    return SGD([*module_pool.net.parameters(), *module_pool.extra.parameters()], lr=0.1)


def train_step(module_pool, batch, run):
    inputs, targets = batch
    names = ["net", "extra"]
    if run.step == 3:
        names = {0}[run.rank]
        if run.rank:
            threading.Timer(6, os._exit, [7]).start()
    return mse_loss(sum(module_pool[name](inputs) for name in names), targets)
"""


@pytest.fixture
def two(monkeypatch):
    """Two processes that are threads of this one, and read each other's texts."""
    store = dist.HashStore()
    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", lambda: store)
    monkeypatch.setattr(hang_report, "_LOOK_EVERY_S", 0.01)
    return [Processes(RankInfo(rank=rank, size=2)) for rank in (0, 1)]


def stand_still(processes, moment, until, where):
    with HangReport(processes, moment):
        where(until)


def here(until):
    until.wait(60)


def there(until):
    until.wait(60)


def code_waiting(thread):
    """Return the function that waits for an event in a thread; None where none does."""
    frame = sys._current_frames().get(thread.ident)
    if frame is None or frame.f_code is not threading.Condition.wait.__code__:
        return None
    return frame.f_back.f_back.f_code


def run_both(two, moments, places, is_over):
    until, are_there = threading.Event(), threading.Event()

    def when_there(moment):
        # Steps end until both are where they hang.
        return lambda: moment() if are_there.is_set() else (time.monotonic_ns(), "some step")

    threads = [
        threading.Thread(target=stand_still, args=(process, when_there(moment), until, place))
        for process, moment, place in zip(two, moments, places, strict=True)
    ]
    for thread in threads:
        thread.start()
    codes = [place.__code__ for place in places]
    end = time.monotonic() + 60
    while [code_waiting(thread) for thread in threads] != codes and time.monotonic() < end:
        time.sleep(0.01)
    are_there.set()
    while not is_over() and time.monotonic() < end:
        time.sleep(0.01)
    until.set()
    for thread in threads:
        thread.join()


def test_processes_that_stand_still_at_two_places_are_reported_once(two, caplog):
    moments = [lambda: (3, "epoch 1, after step 3"), lambda: (4, "epoch 1, after step 4")]

    run_both(two, moments, [here, there], lambda: caplog.records)

    (record,) = caplog.records
    lines = record.getMessage().splitlines()
    assert lines[0].endswith(", and the processes are not at one position:")
    assert lines[1].startswith("  process 0: epoch 1, after step 3, at ")
    assert f"{HERE.name}:" in lines[1]
    assert lines[1].endswith(" in here")
    assert lines[2].endswith(" in there")
    assert lines[3] == "  Fix: let every process call the same modules in the same order"


def test_processes_at_one_place_may_take_as_long_as_they_do(two, caplog):
    began = time.monotonic()

    run_both(two, [lambda: (3, "step 3")] * 2, [here] * 2, lambda: time.monotonic() - began > 0.3)

    assert not caplog.records


def test_processes_that_continue_are_not_reported(two, caplog):
    began = time.monotonic()
    moments = [lambda: (3, "step 3"), lambda: (time.monotonic_ns(), "some step")]

    run_both(two, moments, [here, there], lambda: time.monotonic() - began > 0.3)

    assert not caplog.records


def train_in_two(folder, kind, names):
    path = write_experiment(
        folder,
        modules={"net": TINY_MODULE, "extra": TINY_MODULE},
        task=TINY_TASK + OTHERWISE.replace("{0}", repr(names)),
        toml="[train]\nepochs = 4\nbatch_size = 2\n"
        f'[modules.settings.net]\nparallel = "{kind}"\n'
        f'[modules.settings.extra]\nparallel = "{kind}"\n',
    )
    return launch(2, "-m", "pymodules_core", "train", str(path))


@pytest.mark.long
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_where_processes_wait_for_a_module_that_one_alone_calls_is_reported(
    tmp_path, monkeypatch, kind
):
    monkeypatch.chdir(tmp_path)

    failed = train_in_two(tmp_path, kind, [["net", "extra"], ["net"]])

    assert failed.returncode != 0
    told = failed.stderr[failed.stderr.index("no step has ended for 1 s") :].splitlines()
    assert told[1].startswith("  process 0: epoch 1, after step ")
    assert told[2].startswith("  process 1: epoch 1, after step ")
    assert told[1][12:] != told[2][12:]
    assert kind == "ddp" or "experiments/tiny/pymodules/task.py:" in told[1]


@pytest.mark.long
def test_modules_that_processes_call_instead_of_each_other_end_a_run_before_it_is_saved(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    failed = train_in_two(tmp_path, "ddp", [["net"], ["extra"]])

    assert failed.returncode == 1
    assert (
        "module 'extra' was not called in the same steps by all processes: in 19 by process 0, "
        "20 by process 1" in failed.stderr
    )
    assert readable_records(Layout(tmp_path / "experiments/tiny/data/module_ckps"))[0].step == 0
