"""What a training state holds: values, optimizers, schedulers, random numbers, ``run.state``."""

import io
import random
from collections import OrderedDict, deque
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import TINY_TASK, write_experiment
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel

from pymodules_core import ModulePool, Trainer
from pymodules_core.checkpoints.file_format.state_dict import refuse_unsaveable
from pymodules_core.errors import StepError, TaskError, UnassignedStateError
from pymodules_core.rng import random_state, restore_random_state
from pymodules_core.testing import train_steps
from pymodules_core.training.optim.named_state import (
    load_optimizer_state,
    optimizer_state,
    parameter_names,
)
from pymodules_core.training.run_output.console import SilentPrinter
from pymodules_core.training.state.encoding import decode_state, encode_state
from pymodules_core.training.state.user_state import UserState


def through_a_file(value):
    """Save and load as a checkpoint does."""
    refuse_unsaveable({"value": value}, owner="the test")
    file = io.BytesIO()
    torch.save({"value": value}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)["value"]


PRIMITIVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
)
KEYS = st.one_of(st.text(), st.integers(), st.booleans(), st.just("$"))
VALUES = st.recursive(
    PRIMITIVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3).map(deque),
        st.lists(inner, max_size=3).map(lambda items: deque(items, maxlen=5)),
        st.dictionaries(KEYS, inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3).map(OrderedDict),
        st.sets(PRIMITIVES, max_size=3),
        st.frozensets(PRIMITIVES, max_size=3),
    ),
    max_leaves=12,
)


def same(first, second):
    """Compare values and their types all the way down."""
    if type(first) is not type(second):
        return False
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple | deque):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


@given(VALUES)
def test_nested_values_come_back_through_a_file_as_they_were(value):
    assert same(decode_state(through_a_file(encode_state(value, name="x"))), value)


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype=np.uint32).reshape(2, 3),
        np.array([], dtype=np.float64),
        np.array([True, False]),
        np.float32(0.1),
        np.int64(-3),
        np.bool_(True),
        np.arange(10)[::-2],
    ],
)
def test_arrays_and_numbers_of_numpy_come_back(value):
    found = decode_state(through_a_file(encode_state(value, name="x")))

    assert type(found) is type(value)
    assert found.dtype == value.dtype
    assert np.array_equal(found, value)


def test_paths_sizes_and_tensors_come_back():
    value = {
        "path": Path("a/b"),
        "size": torch.Size([2, 3]),
        "tensor": torch.ones(2).requires_grad_(),
    }

    found = decode_state(through_a_file(encode_state(value, name="x")))

    assert (found["path"], found["size"]) == (value["path"], value["size"])
    assert torch.equal(found["tensor"], torch.ones(2))


KEEP = (
    "fix: keep tensors, arrays, numbers, texts, lists or dicts of them, or an object with "
    "state_dict and load_state_dict"
)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"a": [1, object()]},
            f"x['a'][1] is object, which a checkpoint cannot hold\n  {KEEP}",
        ),
        (
            torch.nn.Parameter(torch.ones(1)),
            f"x is Parameter, which a checkpoint cannot hold\n  {KEEP}",
        ),
        (
            {(1, 2): 3},
            "x has the key (1, 2), a tuple, which a checkpoint cannot hold\n"
            "  fix: use texts or numbers as keys",
        ),
        (
            np.array(["a"]),
            f"x is ndarray, which a checkpoint cannot hold\n  {KEEP}",
        ),
    ],
)
def test_what_would_not_come_back_is_refused_by_name(value, message):
    with pytest.raises(TaskError) as caught:
        encode_state(value, name="x")

    assert str(caught.value) == message


def test_random_streams_continue_where_they_were():
    random.gauss(0, 1)  # leaves a second number for the next call
    np.random.standard_normal()
    state = through_a_file(random_state())
    expected = (torch.rand(3).tolist(), random.gauss(0, 1), np.random.standard_normal())
    torch.manual_seed(9)
    random.seed(9)
    np.random.seed(9)

    restore_random_state(state)

    found = (torch.rand(3).tolist(), random.gauss(0, 1), np.random.standard_normal())
    assert found == expected


def make_pool():
    torch.manual_seed(0)
    return ModulePool.from_modules({"a": nn.Linear(3, 3), "b": nn.Linear(3, 2)})


def step(pool, optimizer):
    torch.manual_seed(1)

    def closure():
        optimizer.zero_grad()
        loss = pool.b(pool.a(torch.randn(5, 3))).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)


def parameters_of(pool):
    return [*pool.a.parameters(), *pool.b.parameters()]


OPTIMIZERS = {
    name: getattr(torch.optim, name)
    for name in (
        *("Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "LBFGS", "NAdam"),
        *("RAdam", "RMSprop", "Rprop", "SGD"),
    )
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("steps", [0, 3])
def test_an_optimizer_continues_as_if_it_had_not_stopped(name, steps):
    more = {"momentum": 0.9} if name == "SGD" else {}
    whole, stopped = make_pool(), make_pool()
    first, second = (
        OPTIMIZERS[name](parameters_of(pool), lr=0.01, **more) for pool in (whole, stopped)
    )
    for _ in range(steps):
        step(whole, first)
        step(stopped, second)
    before = [p.clone() for p in parameters_of(stopped)]
    state = through_a_file(optimizer_state(second, parameter_names(stopped), name="main"))
    assert all(map(torch.equal, before, parameters_of(stopped)))

    again = OPTIMIZERS[name](parameters_of(stopped), lr=1.0, **more)
    load_optimizer_state(again, state, parameter_names(stopped), name="main")

    for _ in range(3):
        step(whole, first)
        step(stopped, again)
    assert all(map(torch.equal, parameters_of(whole), parameters_of(stopped)))


def test_optimizer_state_is_by_name():
    pool = make_pool()
    optimizer = torch.optim.SGD(
        [{"params": pool.a.parameters(), "lr": 0.1}, {"params": pool.b.parameters(), "lr": 0.2}],
        momentum=0.9,
    )
    step(pool, optimizer)

    state = optimizer_state(optimizer, parameter_names(pool), name="main")

    assert [(group["params"], group["lr"]) for group in state["param_groups"]] == [
        (["a.weight", "a.bias"], 0.1),
        (["b.weight", "b.bias"], 0.2),
    ]
    assert set(state["state"]) == {"a.weight", "a.bias", "b.weight", "b.bias"}


def test_state_of_parameters_that_came_or_went_is_reported(caplog):
    pool = make_pool()
    optimizer = torch.optim.Adam(pool.a.parameters())
    optimizer.zero_grad()
    pool.a(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    names = parameter_names(pool)
    state = optimizer_state(optimizer, names, name="main")

    other = torch.optim.Adam([pool.a.weight, *pool.b.parameters()])
    loaded = load_optimizer_state(other, state, names, name="main")

    assert set(other.state) == {pool.a.weight}
    assert caplog.messages == [
        "optimizer 'main': no state for b.weight, b.bias: it starts without state"
    ]
    assert loaded.lost == ["optimizer 'main': no parameter for the state of a.bias"]


def test_state_of_a_parameter_that_was_removed_stays_and_comes_back():
    pool = make_pool()
    parts = [{"params": list(module.parameters())} for module in pool.values()]
    optimizer = torch.optim.SGD(parts, lr=0.1, momentum=0.9)
    step(pool, optimizer)
    optimizer.param_groups.pop()
    names = parameter_names(pool)
    kept = optimizer.state[pool.b.weight]["momentum_buffer"].clone()

    state = through_a_file(optimizer_state(optimizer, names, name="main"))
    again = torch.optim.SGD(pool.a.parameters(), lr=0.1, momentum=0.9)
    loaded = load_optimizer_state(again, state, names, name="main")

    assert torch.equal(optimizer.state[pool.b.weight]["momentum_buffer"], kept)
    assert torch.equal(again.state[pool.b.weight]["momentum_buffer"], kept)
    assert loaded.lost == []


def test_state_in_another_dtype_than_its_parameter_keeps_its_bits():
    class Master(torch.optim.SGD):
        """Keeps weights in fp32 beside parameters in bf16."""

        def step(self):
            for parameter in self.param_groups[0]["params"]:
                self.state[parameter]["master"] = torch.tensor([1.0000001])

    module = nn.Linear(1, 1, bias=False).bfloat16()
    pool = ModulePool.from_modules({"a": module})
    optimizer = Master(module.parameters(), lr=0.1)
    optimizer.step()
    names = parameter_names(pool)
    state = optimizer_state(optimizer, names, name="main")

    again = Master(module.parameters(), lr=0.1)
    load_optimizer_state(again, state, names, name="main")

    assert again.state[module.weight]["master"].dtype is torch.float32
    assert torch.equal(again.state[module.weight]["master"], torch.tensor([1.0000001]))


SCHEDULERS = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 4]),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, total_iters=3),
    "LinearLR": lr_scheduler.LinearLR,
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 6, 2.0),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 3),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.5, total_steps=20),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda n: 0.9**n),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda _: 0.9),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.9)], [3]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_continues_as_if_it_had_not_stopped(name):
    def advance(optimizer, scheduler, times):
        rates = []
        for _ in range(times):
            optimizer.step()
            if name == "ReduceLROnPlateau":
                scheduler.step(1.0)
            else:
                scheduler.step()
            rates.append([group["lr"] for group in optimizer.param_groups])
        return rates

    pool = make_pool()
    names = parameter_names(pool)
    optimizer = torch.optim.SGD(parameters_of(pool), lr=0.1, momentum=0.5)
    scheduler = SCHEDULERS[name](optimizer)
    advance(optimizer, scheduler, 4)
    saved = through_a_file(
        {
            "optimizer": optimizer_state(optimizer, names, name="main"),
            "scheduler": encode_state(scheduler.state_dict(), name="scheduler"),
        }
    )
    expected = advance(optimizer, scheduler, 6)

    again = torch.optim.SGD(parameters_of(pool), lr=0.1, momentum=0.5)
    other = SCHEDULERS[name](again)
    load_optimizer_state(again, saved["optimizer"], names, name="main")
    other.load_state_dict(decode_state(saved["scheduler"]))

    assert advance(again, other, 6) == expected


def test_values_that_are_merged_into_run_state_are_checked_as_assigned_ones():
    state = UserState()

    state |= {"seen": 3}
    with pytest.raises(TaskError):
        state |= {3: "seen"}

    assert dict(state) == {"seen": 3}


def test_run_state_brings_values_and_objects_back():
    state = UserState()
    average = AveragedModel(nn.Linear(2, 2))
    average.update_parameters(nn.Linear(2, 2))
    state["average"] = average
    state["seen"] = {"ids": deque([1, 2], maxlen=2), "scores": np.array([0.5])}
    saved = through_a_file(state.state_dict())

    again = UserState()
    again.load_state_dict(saved)

    assert list(again) == ["seen"]
    assert again["seen"]["ids"] == deque([1, 2], maxlen=2)
    assert "average" not in again
    fresh = AveragedModel(nn.Linear(2, 2))
    again["average"] = fresh
    assert torch.equal(fresh.module.weight, average.module.weight)
    assert fresh.n_averaged == 1


def test_run_state_takes_generators():
    state = UserState()
    state["noise"] = torch.Generator().manual_seed(3)
    torch.rand(2, generator=state["noise"])
    saved = through_a_file(state.state_dict())
    expected = torch.rand(2, generator=state["noise"])

    again = UserState()
    again.load_state_dict(saved)
    again["noise"] = torch.Generator()

    assert torch.equal(torch.rand(2, generator=again["noise"]), expected)


def test_run_state_keeps_what_nobody_took_back():
    state = UserState()
    state["average"] = nn.Linear(1, 1)
    saved = state.state_dict()

    again = UserState()
    again.load_state_dict(saved)

    assert through_a_file(again.state_dict()).keys() == {"average"}


def test_run_state_refuses_at_the_assignment_what_it_could_not_save(tmp_path):
    task = TINY_TASK.replace(
        "def train_step(module_pool, batch):",
        "def train_step(module_pool, batch, run):\n    run.state['made'] = iter([])",
    )
    path = write_experiment(tmp_path, task=task)

    with pytest.raises(TaskError) as caught:
        Trainer(path, reporter=SilentPrinter()).fit()

    assert caught.value.line == 1 + task.splitlines().index("    run.state['made'] = iter([])")
    assert "run.state['made'] is list_iterator, which a checkpoint cannot hold" in str(caught.value)


def test_a_key_that_is_not_text_is_refused():
    with pytest.raises(TaskError) as caught:
        UserState()[3] = 1

    assert caught.value.fix == "call it '3'"


def test_a_value_that_became_something_else_fails_the_run_at_its_commit(tmp_path):
    task = TINY_TASK + (
        "\n\ndef run_started(run):\n    run.state['log'] = []\n"
        "\n\ndef train_step_finished(run):\n    run.state['log'].append(run)\n"
    )
    path = write_experiment(tmp_path, task=task)

    with pytest.raises((TaskError, StepError), match=r"run\.state\['log'\]\[0\] is Run"):
        Trainer(path, reporter=SilentPrinter()).fit()


def test_a_list_that_holds_itself_is_refused():
    value = []
    value.append(value)

    with pytest.raises(TaskError, match="x holds itself, or is nested too deep"):
        encode_state(value, name="x")


def test_a_class_is_not_an_object_with_state():
    with pytest.raises(TaskError, match=r"run.state\['x'\] is type"):
        UserState()["x"] = nn.Linear


def test_an_object_that_is_not_made_yet_is_named():
    state = UserState()
    state["average"] = nn.Linear(1, 1)
    again = UserState()
    again.load_state_dict(state.state_dict())

    with pytest.raises(UnassignedStateError) as caught:
        again["average"]

    assert str(caught.value) == (
        "run.state['average'] is the saved state of an object that is not made yet\n"
        "  fix: assign it first, in run_started(run): run.state['average'] = ..."
    )
    made = again.setdefault("average", nn.Linear(1, 1))
    assert torch.equal(made.weight, state["average"].weight)


def test_a_schedule_that_begins_after_a_resume_brings_no_warning_of_torchs(tmp_path):
    # Warnings are errors here: torch warns where a schedule moves before its optimizer did, and
    # the process that continues after an epoch's last step has not stepped it.
    task = TINY_TASK.replace(
        "def train_step(",
        "def schedulers(optimizers):\n"
        "    return torch.optim.lr_scheduler.StepLR(optimizers['main'], 1)\n\n\ndef train_step(",
    )
    path = write_experiment(tmp_path, task=task)
    train_steps(path, 3)

    train_steps(path)

    rows = train_steps(path).rows
    rates = [row["learning_rates"]["main"] for row in rows if "learning_rates" in row]
    assert rates == [0.1, pytest.approx(0.01)]
