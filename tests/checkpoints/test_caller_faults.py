"""What callers of the manager give, and the state of torch they call it in."""

import enum
import math
from collections import defaultdict, namedtuple

import numpy as np
import pytest
import torch
from torch import nn

from pymodules_core import CheckpointManager, ModulePool
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import readable_records
from pymodules_core.checkpoints.store.store import Store
from pymodules_core.errors import CheckpointError, ExistingRunError, SettingsError

Pair = namedtuple("Pair", "a b")


class Level(enum.IntEnum):
    """An int with a class of its own."""

    LOW = 1


class Extra(nn.Linear):
    """Has an extra state that a test sets."""

    extra: object = 1

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, state):
        self.extra = state


def make_pool(**modules: nn.Module) -> ModulePool:
    return ModulePool.from_modules({"net": nn.Linear(2, 2), **modules})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"mode": "minimize"},
            "mode: expected 'min' or 'max', got 'minimize'\n  fix: mode='min'",
        ),
        (
            {"link": "hardlink"},
            "link: expected 'auto' or 'copy', got 'hardlink'\n  fix: link='auto'",
        ),
        (
            {"keep_epochs": 0},
            "keep_epochs: expected 'all' or a number of at least 1, got 0\n"
            "  fix: keep_epochs='all'",
        ),
        (
            {"keep_epochs": True},
            "keep_epochs: expected 'all' or a number of at least 1, got True\n"
            "  fix: keep_epochs='all'",
        ),
        (
            {"min_delta": math.nan},
            "min_delta: expected a finite number of at least 0, got nan\n  fix: min_delta=0.0",
        ),
        (
            {"min_delta": "0.1"},
            "min_delta: expected a finite number of at least 0, got '0.1'\n  fix: min_delta=0.0",
        ),
    ],
)
def test_an_argument_that_is_none_there_is_is_refused(tmp_path, arguments, message):
    with pytest.raises(SettingsError) as caught:
        CheckpointManager(tmp_path, make_pool(), **arguments)

    assert str(caught.value) == message


@pytest.mark.parametrize("value", [torch.tensor(0.5), np.float32(0.5), np.float64(0.5), True])
def test_a_metric_of_one_number_is_taken_as_that(tmp_path, value):
    with CheckpointManager(tmp_path, make_pool()) as checkpoints:
        checkpoints.start()
        checkpoints.commit("last", "best", epoch=1, metrics={"loss": value})

    assert readable_records(Layout(tmp_path))[0].pools["best"].metrics == {"loss": float(value)}


@pytest.mark.parametrize("value", [torch.ones(2), "low", None])
def test_a_metric_that_is_not_a_number_is_refused_before_anything_is_taken(tmp_path, value):
    with CheckpointManager(tmp_path, make_pool()) as checkpoints:
        checkpoints.start()

        with pytest.raises(CheckpointError, match="metric 'loss' is not a number but"):
            checkpoints.commit("last", "best", epoch=1, metrics={"loss": value})

        assert checkpoints.best.value is None


@pytest.mark.parametrize(
    "value",
    [np.float64(1e-3), Level.LOW, defaultdict(int), Pair(1, 2), {"deep": [np.int64(1)]}, b""],
    ids=["numpy", "enum", "defaultdict", "namedtuple", "deep", "no bytes"],
)
def test_what_a_file_would_not_give_back_is_refused(tmp_path, value):
    odd = Extra(2, 2)
    odd.extra = value

    with pytest.raises(CheckpointError, match="a checkpoint holds tensors and primitives only"):
        CheckpointManager(tmp_path / "module", make_pool(odd=odd)).start()

    with CheckpointManager(tmp_path / "state", make_pool()) as checkpoints:
        checkpoints.start()
        with pytest.raises(CheckpointError, match="the training state: lr is"):
            checkpoints.commit("last", epoch=1, state={"lr": value})


def test_a_state_without_last_is_refused(tmp_path):
    with CheckpointManager(tmp_path, make_pool()) as checkpoints:
        checkpoints.start()

        with pytest.raises(CheckpointError, match="belongs to the weights of 'last'"):
            checkpoints.commit("epoch_1", epoch=1, state={"a": 1})


def test_a_commit_without_last_does_not_move_what_a_run_resumes_from(tmp_path):
    pool = make_pool()
    with CheckpointManager(tmp_path, pool) as checkpoints:
        checkpoints.start()
        pool.net.weight.data.fill_(1)
        checkpoints.commit("last", epoch=1, step=10, state={"moment": 1})
        pool.net.weight.data.fill_(2)
        checkpoints.commit("best", "epoch_2", epoch=2, step=20, metrics={"loss": 1.0})

    with CheckpointManager(tmp_path, pool) as checkpoints:
        resumed = checkpoints.resume()

    assert (resumed.epoch, resumed.step, resumed.state) == (1, 10, {"moment": 1})
    assert torch.equal(pool.net.weight, torch.ones(2, 2))


@pytest.mark.parametrize(
    ("mode", "value", "worse"), [("max", math.inf, 30.0), ("min", -math.inf, 0.1)]
)
def test_an_infinite_best_stays_the_best(tmp_path, mode, value, worse):
    pool = make_pool()
    with CheckpointManager(tmp_path, pool, mode=mode) as checkpoints:
        checkpoints.start()
        checkpoints.commit("last", "best", epoch=1, metrics={"loss": value})

    with CheckpointManager(tmp_path, pool, mode=mode) as checkpoints:
        checkpoints.resume()
        receipt = checkpoints.commit("last", "best", epoch=2, metrics={"loss": worse})

        assert not receipt.best_moved
        assert checkpoints.best.value == value


def test_a_failed_commit_does_not_bring_another_monitors_best_back(tmp_path, monkeypatch):
    pool = make_pool()
    with CheckpointManager(tmp_path, pool) as checkpoints:
        checkpoints.start()
        checkpoints.commit("last", "best", epoch=1, metrics={"loss": 2.3})
    checkpoints = CheckpointManager(
        tmp_path, pool, monitor="accuracy", mode="max", asynchronous=False
    )
    checkpoints.resume()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as failing:
        failing.setattr(Store, "_commit", fail)
        with pytest.raises(CheckpointError, match="No space left on device"):
            checkpoints.commit("best", epoch=2, metrics={"accuracy": 0.8})

    assert checkpoints.commit("best", epoch=2, metrics={"accuracy": 0.9}).best_moved
    checkpoints.close()


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_run_gets_its_own_weights_back_whatever_they_are(tmp_path, value):
    pool = make_pool()
    with CheckpointManager(tmp_path, pool) as checkpoints:
        checkpoints.start()
        pool.net.weight.data[0, 0] = value
        checkpoints.commit("last", epoch=1)
    again = make_pool()

    with CheckpointManager(tmp_path, again) as checkpoints:
        checkpoints.resume()

    assert torch.equal(again.net.weight.isfinite(), pool.net.weight.isfinite())


def test_a_start_that_fails_leaves_nothing_open(tmp_path, monkeypatch):
    pool = make_pool()
    checkpoints = CheckpointManager(tmp_path, pool)

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as failing:
        failing.setattr(Store, "_commit", fail)
        with pytest.raises(CheckpointError, match="No space left on device"):
            checkpoints.start()

    with pytest.raises(CheckpointError, match=r"before start\(\)"):
        checkpoints.commit("last", epoch=1)
    assert checkpoints.start().durable
    checkpoints.close()


def test_a_run_that_another_finished_meanwhile_is_not_started_over(tmp_path, monkeypatch):
    with CheckpointManager(tmp_path, make_pool()) as other:
        other.start()
        other.commit("last", epoch=7)
    late = CheckpointManager(tmp_path, make_pool())
    # It looked before the other began.
    monkeypatch.setattr(late, "pools", list)

    with pytest.raises(ExistingRunError, match="holds a run already"):
        late.start()

    assert readable_records(Layout(tmp_path))[0].pools["last"].epoch == 7
    CheckpointManager(tmp_path, make_pool()).resume()


def test_commits_in_and_after_inference_mode_are_alike(tmp_path):
    pool = make_pool()
    with CheckpointManager(tmp_path, pool) as checkpoints:
        checkpoints.start()
    with CheckpointManager(tmp_path, pool) as checkpoints:
        checkpoints.resume()
        with torch.inference_mode():
            checkpoints.commit("last", "best", epoch=1, metrics={"loss": 1.0})
        with torch.no_grad():
            pool.net.weight.fill_(4)
        checkpoints.commit("last", epoch=2)

    assert torch.load(tmp_path / "last" / "net.pt")["weight"][0, 0] == 4


def test_a_default_device_does_not_reach_the_files(tmp_path):
    pool = make_pool()
    with torch.device("meta"), CheckpointManager(tmp_path, pool) as checkpoints:
        checkpoints.start()

    read = torch.load(tmp_path / "last" / "net.pt")
    assert torch.equal(read["weight"], pool.net.weight)


def test_tensors_without_memory_are_refused(tmp_path):
    pool = make_pool(empty=nn.Linear(2, 2, device="meta"))

    with pytest.raises(CheckpointError, match="weight is a meta tensor") as caught:
        CheckpointManager(tmp_path / "ckps", pool).start()

    assert "to_empty" in str(caught.value.fix)
    assert not (tmp_path / "ckps").exists()


def test_tensors_made_of_others_are_refused(tmp_path):
    from torch.testing._internal.two_tensor import TwoTensor

    odd = nn.Linear(2, 2)
    odd.weight = nn.Parameter(TwoTensor(torch.ones(2, 2), torch.ones(2, 2)))

    with pytest.raises(CheckpointError, match="weight is a TwoTensor tensor"):
        CheckpointManager(tmp_path / "ckps", make_pool(odd=odd)).start()
