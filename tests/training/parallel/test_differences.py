"""Processes that are about to train different things are refused before the first step."""

import json
from pathlib import Path

import pytest
from rank_cases import run_script
from support import TINY_MODULE, TINY_TASK, write_experiment

from pymodules_core.testing.distributions import write_distribution

SCRIPT = Path(__file__).with_name("each_in_its_own.py")
PROVIDER = """
from pymodules_core import ModuleSpec, hookimpl

@hookimpl
def provide_module(context):
    return ModuleSpec(name="more", factory="torch.nn:Identity", settings={"frozen": True})
"""
SIZED_BY_PROCESS = """
    import os
    from torch import nn

    module = nn.Sequential(nn.Linear(3, 2 + int(os.environ["OWN_SEED"])), nn.Identity())
    settings = {}
"""
UNSEEDED = """
    import os
    from torch import nn

    module = nn.Linear(3, 2)
    nn.init.constant_(module.bias, float(os.environ["OWN_SEED"]))
    settings = {}
"""
FLAGGED = f"""
import os

import torch

torch.backends.cudnn.benchmark = bool(int(os.environ["OWN_SEED"]))
{TINY_TASK}"""
FIX = "let all machines see the same experiment, and install the same packages on each"


# Name to what is written otherwise for the second process, and how the differences begin.
DIFFERENT = {
    "a module file": (
        {"module": f"{TINY_MODULE}\n    # another one\n"},
        ["file pymodules/modules/net.py: "],
    ),
    "a version of a plugin": (
        {"version": "2.0"},
        ["files of acme-more: 2.0 (", "plugin acme-more:plugin: "],
    ),
    "a setting": ({"toml": "seed = 3\n"}, ["setting train.seed: 3 in process 1, 0 in"]),
}


def write_for(folder, rank, *, module=TINY_MODULE, task=TINY_TASK, version="1.0", toml=""):
    write_experiment(
        folder / str(rank) / "data",
        "exp",
        modules={"net": module},
        task=task,
        toml=f"[train]\nepochs = 1\n{toml}",
    )
    write_distribution(folder / str(rank) / "site", "acme-more", PROVIDER, version=version)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Case to what each of two processes raised."""
    home = tmp_path_factory.mktemp("differing")
    for name, (second, _) in DIFFERENT.items():
        write_for(home / name, 0)
        write_for(home / name, 1, **second)
    for rank in (0, 1):
        write_for(home / "weights", rank, module=UNSEEDED)
        write_for(home / "shapes", rank, module=SIZED_BY_PROCESS)
        # The last by name: what a task sets stays in the process.
        write_for(home / "with flags", rank, task=FLAGGED)
        broken = {"module": "raise ValueError('not here')"} if rank else {}
        write_for(home / "broken", rank, **broken)
    lines = run_script(2, SCRIPT, *map(str, sorted(home.iterdir())))
    # Nothing is written by any of them.
    assert not list(home.glob("*/*/data/experiments/exp/data"))
    return dict(json.loads(line) for line in lines if line.startswith("["))


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_difference_is_named_and_nothing_is_written(outcomes, name):
    (kind, text), (other_kind, _) = outcomes[name]

    assert (kind, other_kind) == ("ProcessesError", "RankFailedError")
    what, *lines, last = text.splitlines()
    assert what == "the processes differ, and would not train one model"
    assert last == f"  fix: {FIX}"
    for line, difference in zip(lines, DIFFERENT[name][1], strict=True):
        assert line.strip().startswith(difference)
        assert " in process 1, " in line


def test_flags_of_torch_that_differ_are_refused(outcomes):
    (kind, text), _ = outcomes["with flags"]

    assert kind == "ProcessesError"
    assert "  torch flag cudnn.benchmark: True in process 1, False in process 0\n" in text


def test_shapes_that_differ_are_reported_with_their_keys(outcomes):
    (kind, text), _ = outcomes["shapes"]

    assert kind == "ProcessesError"
    assert text == (
        "the processes differ, and would not train one model\n"
        "  tensor net.0.bias: float32 [3] in process 1, float32 [2] in process 0\n"
        "  tensor net.0.weight: float32 [3, 3] in process 1, float32 [2, 3] in process 0\n"
        "  fix: let build and __init__ give the same module in each process: a size hangs on "
        "something that differs between them, such as the rank, the machine or its environment"
    )


def test_weights_that_are_no_function_of_the_seed_are_reported(outcomes):
    (kind, text), _ = outcomes["weights"]

    assert kind == "ProcessesError"
    assert "  weights of net: " in text
    assert "  fix: let build and __init__ draw from torch, random or numpy" in text


def test_what_one_process_cannot_build_that_one_reports(outcomes):
    (kind, text), (other_kind, other) = outcomes["broken"]

    assert (kind, other_kind) == ("RankFailedError", "ModuleFileError")
    assert text.startswith("process 1 failed: raises when imported: ValueError: not here")
    assert other.splitlines()[0].endswith("net.py:1: raises when imported: ValueError: not here")
