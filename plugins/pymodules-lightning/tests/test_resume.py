"""A run that continues is, bit for bit, the run that was never interrupted."""

import os
import signal
import subprocess
import sys

import lightning_cases
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping
from lightning_cases import (
    PROGRAMS,
    Distill,
    make_model,
    make_trainer,
    same_weights,
    train,
    weights_in,
)
from pymodules_lightning import PoolCheckpoint

from pymodules_core import CheckpointManager
from pymodules_core.errors import CheckpointError, ExistingRunError, SettingsError


class Crash(Callback):
    """Ends a fit at the first batch of an epoch but one."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_end(self, trainer, _module, _outputs, _batch, batch_idx):
        if trainer.current_epoch + 1 == self.epoch and batch_idx == 1:
            raise OSError("the power is off")


def pools_of(program, home):
    return weights_in(home / "experiments" / program / "data" / "module_ckps")


def assert_same_pools(program, home, other):
    pools, wanted = pools_of(program, home), pools_of(program, other)
    assert list(pools) == list(wanted)
    for name, state in pools.items():
        assert same_weights(state, wanted[name]), name


def optimizer_tensors(trainer):
    return {
        f"{number}.{index}.{key}": value
        for number, optimizer in enumerate(trainer.optimizers)
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }


@pytest.mark.parametrize("program", PROGRAMS)
def test_two_epochs_and_two_more_are_four_epochs(home, program):
    stopping = EarlyStopping(PROGRAMS[program][2].split('"')[1], patience=9)
    whole, model, checkpoint = train(program, home / "whole", 4)

    train(program, home, 2)
    # Another trainer, model and random streams, as of another process.
    resumed, other, other_checkpoint = train(program, home, 4, stopping, seed=77)

    assert_same_pools(program, home, home / "whole")
    assert "epoch_4/student" in pools_of("distill", home) or program == "gan"
    assert same_weights(model.state_dict(), other.state_dict())
    assert same_weights(optimizer_tensors(whole), optimizer_tensors(resumed))
    assert len(optimizer_tensors(whole)) > 0
    assert (checkpoint.best_epoch, checkpoint.best_value) == (
        other_checkpoint.best_epoch,
        other_checkpoint.best_value,
    )
    assert (whole.current_epoch, whole.global_step) == (resumed.current_epoch, resumed.global_step)


def test_a_learning_rate_that_falls_at_the_end_of_an_epoch_falls_once(home):
    whole, *_ = train("distill", home / "whole", 4)

    rates = [
        train("distill", home, epochs)[0].optimizers[0].param_groups[0]["lr"]
        for epochs in (1, 2, 3, 4)
    ]

    assert rates == [0.1, 0.05, 0.025, 0.0125]
    assert whole.optimizers[0].param_groups[0]["lr"] == rates[-1]


def test_what_the_module_holds_besides_the_pool_comes_back(home):
    _, model, _ = train("distill", home, 1)
    trained = model.temperature.item()

    _, other, _ = train("distill", home, 1)

    assert trained != 1.0
    assert other.temperature.item() == trained


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_fit_that_crashes_resumes_from_its_last_whole_epoch(home, program, epoch):
    train(program, home / "whole", 3)
    with pytest.raises(OSError, match="the power is off"):
        train(program, home, 3, Crash(epoch))
    after_crash = pools_of(program, home)

    train(program, home, 3, seed=77)

    assert ("epoch_2/student" in after_crash) == (epoch == 3 and program == "distill")
    assert_same_pools(program, home, home / "whole")


def test_the_state_has_no_weights_of_the_pool(home):
    _, model, _ = train("distill", home, 1)
    model.again = model.module_pool.student  # an attribute of its own
    train("distill", home, 2, model=model)

    folder = home / "experiments/distill/data/module_ckps"
    with CheckpointManager(folder, model.plain_pool, monitor="val_loss") as checkpoints:
        state = checkpoints.resume().state

    assert list(state["trainer"]["state_dict"]) == ["temperature"]


def test_best_is_taken_along(home):
    """A worse epoch after a resume leaves ``best`` where the first process put it."""
    train("distill", home, 2)
    best = pools_of("distill", home)["best/student"]

    class Worse(Distill):
        def log(self, name, value, **options):
            super().log(name, value + 100.0, **options)

    _, _, checkpoint = train("distill", home, 3, model=Worse("distill", data_home=home))

    assert checkpoint.best_epoch == 2
    assert same_weights(pools_of("distill", home)["best/student"], best)
    assert not same_weights(pools_of("distill", home)["last/student"], best)


def test_a_run_that_is_done_stays_as_it_is(home):
    train("distill", home, 2)
    folder = home / "experiments/distill/data/module_ckps/.store/commits"
    before = sorted(path.name for path in folder.iterdir())

    trainer, *_ = train("distill", home, 2)

    assert trainer.current_epoch == 2
    assert sorted(path.name for path in folder.iterdir()) == before


def test_one_trainer_continues_in_a_second_fit(home):
    train("distill", home / "whole", 4)

    trainer, model, _ = train("distill", home, 2)
    trainer.fit_loop.max_epochs = 4
    trainer.fit(model)

    assert_same_pools("distill", home, home / "whole")


def test_lightnings_ckpt_path_and_a_run_are_two_moments(home):
    trainer, *_ = train("distill", home, 1)
    trainer.save_checkpoint(home / "lightning.ckpt")
    train("distill", home, 2)
    before = pools_of("distill", home)

    trainer = make_trainer(home, 3, PoolCheckpoint(existing="resume"))
    with pytest.raises(SettingsError) as error:
        trainer.fit(make_model("distill", home), ckpt_path=home / "lightning.ckpt")

    assert error.value.key == "ckpt_path"
    assert "leave ckpt_path out" in error.value.fix
    after = pools_of("distill", home)
    assert all(same_weights(before[name], after[name]) for name in before)


def test_a_run_may_begin_from_a_checkpoint_of_lightnings(home):
    """And its first commit has optimizers and loops of that checkpoint, not new ones."""
    trainer, *_ = train("distill", home / "first", 2)
    trainer.save_checkpoint(home / "lightning.ckpt")
    source = home / "first/experiments/distill/data/module_ckps/last/student.pt"

    trainer = make_trainer(home, 4, PoolCheckpoint(), Crash(3))
    with pytest.raises(OSError, match="the power is off"):
        trainer.fit(make_model("distill", home), ckpt_path=home / "lightning.ckpt")
    began_with = pools_of("distill", home)["init/student"]
    trainer, *_ = train("distill", home, 3)

    assert same_weights(began_with, torch.load(source, weights_only=True))
    assert trainer.global_step == 12
    assert sorted({name.partition("/")[0] for name in pools_of("distill", home)}) == [
        "best",
        "epoch_3",
        "frzn",
        "init",
        "last",
    ]


def test_a_run_of_pymodules_own_is_not_lightnings(home):
    model = make_model("distill", home)
    folder = home / "experiments/distill/data/module_ckps"
    with CheckpointManager(folder, model.plain_pool) as checkpoints:
        checkpoints.start(state={"optimizer": {}})

    with pytest.raises(ExistingRunError) as error:
        train("distill", home, 1, model=model)

    assert "is not Lightning's" in error.value.what
    assert "load_weights_from_exp" in error.value.fix


class OtherOptimizers(Distill):
    def configure_optimizers(self):
        return torch.optim.AdamW(self.trained_parameters("student"), lr=0.1)


class OtherParameters(Distill):
    def configure_optimizers(self):
        found = super().configure_optimizers()
        found["optimizer"].add_param_group({"params": self.trained_parameters("scale")})
        return found


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (OtherOptimizers, "the run has 1 lr schedulers, and configure_optimizers gives 0"),
        (OtherParameters, "what the run saved does not fit today's program: ValueError: "),
    ],
)
def test_another_program_is_reported_before_it_trains(home, kind, told):
    train("distill", home, 1)

    with pytest.raises(CheckpointError) as error:
        train("distill", home, 2, model=kind("distill", data_home=home))

    assert error.value.what.startswith(told)
    assert "epoch_2/student" not in pools_of("distill", home)


def run_process(*arguments):
    return subprocess.run(
        [sys.executable, lightning_cases.__file__, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )


def lines_of_processes(*arguments):
    """Return the lines that processes print: the epoch, and the sum of all parameters."""
    result = run_process(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_a_new_process_continues(home):
    train("gan", home / "whole", 2)
    train("gan", home, 1)

    (line,) = lines_of_processes("gan", home, 2, 1)

    assert line.startswith("2 ")
    assert_same_pools("gan", home, home / "whole")


def test_two_processes_write_once_and_both_continue(home):
    _, model, _ = train("distill", home, 1)

    first, second = lines_of_processes("distill", home, 3, 2)
    pools = pools_of("distill", home)
    resumed, _, checkpoint = train("distill", home, 3)

    assert first == second  # the same weights in both, which only a common start gives
    assert resumed.current_epoch == checkpoint.best_epoch == 3
    assert sorted({name.partition("/")[0] for name in pools}) == [
        "best",
        "epoch_1",
        "epoch_2",
        "epoch_3",
        "frzn",
        "init",
        "last",
    ]
    assert same_weights(pools["epoch_1/student"], model.module_pool.student.state_dict())
    assert not same_weights(pools["epoch_1/student"], pools["epoch_3/student"])


def test_two_processes_both_end_where_the_first_one_fails(home):
    _, model, _ = train("distill", home, 1)
    folder = home / "experiments/distill/data/module_ckps"

    with CheckpointManager(folder, model.plain_pool, monitor="val_loss") as writer:
        writer.resume()  # and holds the lock
        result = run_process("distill", home, 3, 2)

    # Where Python ends with an error, threads of gloo may abort the process after it was reported.
    assert result.returncode in {1, -signal.SIGABRT}
    assert "StoreLockedError: " in result.stderr
    assert "CheckpointError: the first process failed: " in result.stderr
    assert "epoch_2/student" not in pools_of("distill", home)
