"""A run continues in as many processes, bit for bit; in others, and wrapped otherwise, closely."""

import pytest
import torch
from rank_cases import (
    assert_close,
    assert_same_bits,
    case,
    copy_example,
    exact_example,
    shared,
    stoppable,
    train_alone,
    train_cases,
)
from support import TINY_MODULE, write_experiment

from pymodules_core import ModulePool, PoolReader
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import readable_records
from pymodules_core.run_files import read_run_file

TOLERANCE = 1e-8
EPOCHS = 4
STEPS = 100
# Two windows of two steps each that begin at different ones, and so never end in one.
APART = """
import torch
from torch.optim import Adam
from torch.utils.data import TensorDataset


def train_data():
    return TensorDataset(torch.randn(400, 4, generator=torch.Generator().manual_seed(1)))


def optimizers(module_pool):
    return {name: Adam(module.parameters()) for name, module in module_pool.items()}


def train_step(module_pool, batch, run):
    (inputs,) = batch
    for name, module in module_pool.items():
        if name == "whole" or run.step % 100:
            with run.optimize(name) as step:
                step.loss = module(inputs).square().mean()
"""
APART_TOML = """
[train]
batch_size = 4
[optimizers.parts]
accumulate = 2
[optimizers.whole]
accumulate = 2
[modules.settings.parts]
parallel = "fsdp"
sharded = true
[checkpoints]
every_n_steps = 31
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def stopped(home):
    """Runs of two processes that stop in mid-epoch and between epochs, and their whole twins."""
    cases = []
    for kind in ("ddp", "fsdp"):
        settings = {
            **shared(kind, sharded=kind == "fsdp"),
            "optimizers__main__accumulate": 2,
            "checkpoints__every_n_steps": 7,
        }
        whole, parts = (
            stoppable(copy_example(home, f"{kind}_{one}")) for one in ("whole", "parts")
        )
        cases += [
            case(whole, train__epochs=EPOCHS, **settings),
            case(parts, train__epochs=2, **settings),
            case(parts, existing="resume", train__epochs=EPOCHS, stop_at=52),
            case(parts, existing="resume", train__epochs=EPOCHS),
        ]
    whole, parts, cut = (
        stoppable(
            write_experiment(
                home,
                f"apart_{one}",
                modules={"whole": TINY_MODULE, "parts": TINY_MODULE},
                task=APART,
                toml=APART_TOML,
            )
        )
        for one in ("whole", "parts", "cut")
    )
    cases += [
        case(whole, train__epochs=1),
        case(parts, train__epochs=1, stop_at=13),
        case(parts, existing="resume", train__epochs=1),
        case(cut, train__epochs=1, stop_at=13),
    ]
    train_cases(2, cases, home)
    return home / "experiments"


def test_a_signal_waits_for_no_windows_that_never_end_in_one_step(stopped):
    run = read_run_file(stopped / "apart_cut")

    assert (run.state, run.epoch) == ("interrupted", 1)
    assert 13 <= run.step < STEPS


@pytest.mark.parametrize("kind", ["ddp", "fsdp", "apart"])
def test_a_run_of_two_processes_continues_bit_for_bit(stopped, kind):
    assert_same_bits(stopped / f"{kind}_parts", stopped / f"{kind}_whole")


def test_a_sharded_module_is_a_folder_of_shards_and_reads_like_any_other(stopped):
    path = stopped / "fsdp_whole"
    pools = path / "data" / "module_ckps"
    names = sorted(file.name for file in (pools / "last" / "encoder").iterdir())
    stored = PoolReader(pools).read("last", ["encoder"])["encoder"]

    assert names == [
        "index.pt",
        "shard-00001-model-00001-of-00001.safetensors",
        "shard-00002-model-00001-of-00001.safetensors",
    ]
    assert stored.file == pools / "last" / "encoder"
    assert stored.state.keys() == ModulePool.discover(path).encoder.state_dict().keys()
    assert all(type(value) is torch.Tensor for value in stored.state.values())


@pytest.fixture(scope="module")
def moved(home):
    """A run that goes from 2 sharded processes to 1, 2 with DDP, and 2 that gather; its twin."""
    whole = exact_example(home, "digits_classifier", "exact_whole")
    moving = exact_example(home, "digits_classifier", "exact_moving")
    settings = shared("fsdp", sharded=True)
    train_alone(case(whole, train__epochs=5, **shared("ddp")))
    train_cases(2, [case(moving, train__epochs=1, **settings)], home)
    train_alone(case(moving, existing="resume", train__epochs=2))
    again = {"existing": "resume"}
    with_ddp = case(moving, **again, train__epochs=4, **shared("ddp"))
    train_cases(2, [with_ddp, case(moving, **again, train__epochs=5, **shared("fsdp"))], home)
    return moving, whole


@pytest.mark.long
def test_a_run_continues_in_other_numbers_of_processes_and_otherwise_wrapped(moved):
    assert_close(*moved, tolerance=TOLERANCE)


@pytest.mark.long
def test_gathered_modules_are_plain_files_again(moved):
    last = moved[0] / "data" / "module_ckps" / "last"

    assert sorted(file.name for file in last.iterdir()) == ["encoder.pt", "head.pt"]
    assert all(
        type(value) is torch.Tensor
        for file in last.iterdir()
        for value in torch.load(file, weights_only=True).values()
    )


@pytest.mark.long
def test_optimizer_state_of_modules_in_parts_is_saved_apart_and_comes_back(moved):
    layout = Layout(moved[0] / "data" / "module_ckps")
    record = readable_records(layout)[0]
    states = PoolReader(layout.path).read_module_states(record)

    state = states["encoder"]["main"]["encoder.0.0.weight"]
    assert sorted(states) == ["encoder", "head"]
    assert sorted(state) == ["exp_avg", "exp_avg_sq", "step"]
    assert float(state["step"]) == record.step
