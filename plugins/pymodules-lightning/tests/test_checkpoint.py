"""The checkpoint pools of a fit."""

from pathlib import Path

import pytest
import pytorch_lightning
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_cases import (
    NETS,
    TOML,
    Distill,
    copy_of,
    make_trainer,
    same_weights,
    weights_in,
    write_experiment,
)
from pymodules_lightning import PoolCheckpoint

from pymodules_core import CheckpointManager, ModulePool, load_initial_weights
from pymodules_core.checkpoints.tools.lineage import newest_record
from pymodules_core.errors import (
    CheckpointError,
    ExistingRunError,
    FrozenModuleError,
    MonitorError,
    SettingsError,
)


class Watch(Callback):
    """Calls a function at a hook, such as ``Watch(on_train_epoch_end=...)``."""

    def __init__(self, **hooks):
        for name, function in hooks.items():
            setattr(self, name, function)


class Scripted(Distill):
    """Logs ``val_loss`` as it is reported, validation by validation."""

    def __init__(self, *args, losses, **options):
        super().__init__(*args, **options)
        self.losses = list(losses)
        self.weights = []

    def validation_step(self, _):
        pass

    def on_validation_epoch_end(self):
        self.weights.append(copy_of(self.module_pool.student))
        self.log("val_loss", self.losses[len(self.weights) - 1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.trained_parameters(), lr=0.1)


@pytest.fixture
def pools(home) -> Path:
    """The folder of the pools of an experiment ``distill``."""
    return write_experiment(home, "distill", NETS) / "data" / "module_ckps"


def names_in(pools):
    return sorted({name.partition("/")[0] for name in weights_in(pools)})


def test_a_fit_writes_every_pool_as_plain_files(home, pools):
    model = Distill("distill", data_home=home)
    begun = copy_of(model.module_pool.student)
    ended = []
    watch = Watch(
        on_train_epoch_end=lambda _, module: ended.append(copy_of(module.module_pool.student))
    )

    make_trainer(home, 2, watch, PoolCheckpoint(), num_sanity_val_steps=1).fit(model)

    found = weights_in(pools)
    trained = ("best", "epoch_1", "epoch_2", "init", "last")
    assert set(found) == {
        "frzn/teacher",
        *(f"{pool}/{name}" for pool in trained for name in ("scale", "student")),
    }
    assert same_weights(found["init/student"], begun)
    assert same_weights(found["epoch_1/student"], ended[0])
    assert same_weights(found["epoch_2/student"], ended[1])
    assert same_weights(found["last/student"], ended[1])
    assert same_weights(found["frzn/teacher"], model.module_pool.teacher.state_dict())
    record = newest_record(pools.parents[1])
    assert (record.epoch, record.step) == (2, 8)
    assert record.pools["epoch_2"].metrics.keys() == {"train_loss", "val_loss", "val_accuracy"}


def test_an_epoch_is_one_commit_and_lightning_adds_no_checkpoint_of_its_own(home, pools):
    trainer = make_trainer(home, 2, PoolCheckpoint())

    trainer.fit(Distill("distill", data_home=home))

    assert newest_record(pools.parents[1]).number == 3
    assert not any(isinstance(callback, ModelCheckpoint) for callback in trainer.callbacks)
    assert list(home.rglob("*.ckpt")) == []


@pytest.mark.parametrize(
    ("options", "losses", "best"),
    [
        ({}, [3.0, 2.0, 2.5], 2),
        ({}, [3.0, float("nan"), 2.5], 3),
        ({"mode": "max"}, [3.0, 2.0, 2.5], 1),
        ({"min_delta": 0.75}, [3.0, 2.5, 2.4], 1),
        ({"min_delta": 0.75}, [3.0, 2.5, 2.0], 3),
    ],
)
def test_best_moves_when_the_metric_improves(home, pools, options, losses, best):
    model = Scripted("distill", data_home=home, losses=losses)
    checkpoint = PoolCheckpoint(**options)

    make_trainer(home, 3, checkpoint).fit(model)

    assert (checkpoint.best_epoch, checkpoint.best_value) == (best, losses[best - 1])
    assert same_weights(weights_in(pools)["best/student"], model.weights[best - 1])


def test_what_is_not_given_is_the_experiments(home, pools):
    toml = """
        [train]
        monitor = "val_accuracy"
        mode = "max"
        min_delta = 0.5
        [checkpoints]
        keep_epochs = 2
        every_n_epochs = 2
        """
    folder = write_experiment(home, "other", NETS, toml)
    model = Distill("other", data_home=home)
    checkpoint, given = PoolCheckpoint(), PoolCheckpoint("given", keep_epochs=1, monitor="val_loss")

    make_trainer(home, 7, checkpoint).fit(model)
    make_trainer(home, 2, given).fit(Distill("distill", data_home=home))

    record = newest_record(folder)
    assert (record.best.metric, record.best.mode) == ("val_accuracy", "max")
    written = names_in(folder / "data/module_ckps")
    assert written == ["best", "epoch_4", "epoch_6", "frzn", "init", "last"]
    assert names_in(Path("given")) == ["best", "epoch_2", "frzn", "init", "last"]
    assert not pools.exists()


def test_nothing_is_written_while_lightning_checks_its_sanity(home, pools):
    seen = []
    model = Scripted("distill", data_home=home, losses=[0.0, 3.0])
    watch = Watch(on_sanity_check_end=lambda *_: seen.append(names_in(pools)))

    make_trainer(home, 1, watch, PoolCheckpoint(), num_sanity_val_steps=1).fit(model)

    assert seen == [["frzn", "init", "last"]]
    assert newest_record(pools.parents[1]).best.value == 3.0


def test_fast_dev_run_writes_nothing(home, pools):
    make_trainer(home, 1, PoolCheckpoint(), fast_dev_run=2).fit(Distill("distill", data_home=home))

    assert not pools.exists()


def test_a_metric_that_is_not_logged_is_reported_with_those_that_are(home):
    folder = write_experiment(home, "distill", NETS, TOML.replace("val_loss", "val_los"))

    with pytest.raises(MonitorError) as error:
        make_trainer(home, 1, PoolCheckpoint()).fit(Distill("distill", data_home=home))
    with pytest.raises(MonitorError) as given:
        make_trainer(home, 1, PoolCheckpoint(existing="resume", monitor="accuracy")).fit(
            Distill("distill", data_home=home)
        )

    assert str(error.value) == (
        "data/experiments/distill/experiment.toml:4: train.monitor: 'val_los' is not among the "
        "metrics that were logged: train_loss, val_accuracy, val_loss\n"
        "  closest match: val_loss\n"
        "  fix: [train] monitor = \"val_loss\", or self.log('val_los', ...) in validation_step, or "
        "PoolCheckpoint(monitor=False) to keep no best"
    )
    assert str(given.value).startswith("monitor: 'accuracy' is not among the metrics")
    assert names_in(folder / "data/module_ckps") == ["frzn", "init", "last"]


def test_a_run_that_is_there_is_refused_and_stays(home, pools):
    make_trainer(home, 1, PoolCheckpoint()).fit(Distill("distill", data_home=home))
    before = weights_in(pools)

    with pytest.raises(ExistingRunError) as error:
        make_trainer(home, 1, PoolCheckpoint()).fit(Distill("distill", data_home=home))

    assert str(error.value) == (
        "data/experiments/distill/data/module_ckps: a run is there already\n"
        '  fix: PoolCheckpoint(existing="resume") resumes it; else give another folder, or '
        "move this one aside"
    )
    after = weights_in(pools)
    assert list(before) == list(after)
    assert all(same_weights(before[name], after[name]) for name in before)


def test_a_fit_that_fails_leaves_what_was_committed_and_lets_others_in(home, pools):
    def fail(trainer, _):
        if trainer.current_epoch == 1:
            raise OSError("no more data")

    model = Distill("distill", data_home=home)
    ended = []

    with pytest.raises(OSError, match="no more data"):
        make_trainer(
            home,
            3,
            Watch(
                on_train_epoch_start=lambda *_: ended.append(copy_of(model.module_pool.student)),
                on_validation_start=fail,
            ),
            PoolCheckpoint(),
        ).fit(model)

    assert names_in(pools) == ["best", "epoch_1", "frzn", "init", "last"]
    assert same_weights(weights_in(pools)["last/student"], ended[1])
    pool = Distill("distill", data_home=home).plain_pool
    with CheckpointManager(pools, pool, monitor="val_loss") as checkpoints:
        assert checkpoints.resume().epoch == 1


def test_a_frozen_module_that_changes_fails_the_fit(home, pools):
    def change(_, module):
        module.module_pool.teacher[0].weight.data += 1

    with pytest.raises(FrozenModuleError) as error:
        make_trainer(home, 2, Watch(on_train_epoch_end=change), PoolCheckpoint()).fit(
            Distill("distill", data_home=home)
        )

    assert "'teacher' is frozen and has changed" in error.value.what
    assert names_in(pools) == ["frzn", "init", "last"]


def test_without_validation_what_training_logs_decides(home, pools):
    checkpoint = PoolCheckpoint(monitor="train_loss")
    model = Scripted("distill", data_home=home, losses=[])

    make_trainer(home, 2, checkpoint, limit_val_batches=0).fit(model)

    assert checkpoint.best_epoch == 2
    assert names_in(pools) == ["best", "epoch_1", "epoch_2", "frzn", "init", "last"]


def test_monitor_false_keeps_no_best(home, pools):
    make_trainer(home, 1, PoolCheckpoint(monitor=False)).fit(Distill("distill", data_home=home))

    assert names_in(pools) == ["epoch_1", "frzn", "init", "last"]


def test_an_epoch_without_validation_commits_last_alone(home, pools):
    losses = [3.0, 2.0]
    seen = []
    watch = Watch(on_train_epoch_start=lambda *_: seen.append(newest_record(pools.parents[1])))

    make_trainer(home, 4, watch, PoolCheckpoint(asynchronous=False), check_val_every_n_epoch=2).fit(
        Scripted("distill", data_home=home, losses=losses)
    )

    assert [list(record.changed) for record in (*seen, newest_record(pools.parents[1]))] == [
        ["frzn", "init", "last"],
        ["last"],
        ["last", "best", "epoch_2"],
        ["last"],
        ["last", "best", "epoch_4"],
    ]
    # What was measured of other weights is not said of today's.
    metrics = [record.pools["last"].metrics for record in (*seen, newest_record(pools.parents[1]))]
    assert [found.get("val_loss") for found in metrics] == [None, None, 3.0, None, 2.0]


def test_a_validation_within_an_epoch_may_be_best(home, pools):
    model = Scripted("distill", data_home=home, losses=[2.0, 3.0, 1.0, 4.0, 5.0, 6.0])
    checkpoint = PoolCheckpoint()

    make_trainer(home, 3, checkpoint, val_check_interval=0.5).fit(model)

    found = weights_in(pools)
    assert (checkpoint.best_epoch, checkpoint.best_value) == (2, 1.0)
    assert same_weights(found["best/student"], model.weights[2])
    assert same_weights(found["epoch_2/student"], model.weights[3])
    assert same_weights(found["last/student"], model.weights[5])
    # One at the start and at each epoch's end, and one for each of two that were better.
    assert newest_record(pools.parents[1]).number == 6


def test_a_validation_that_is_not_of_the_last_step_does_not_judge_the_epochs_end(home, pools):
    # Batches 3 and 6 of 8; the epoch's end is measured by none of them.
    model = Scripted("distill", data_home=home, losses=[2.0, 1.0])
    loader = torch.utils.data.DataLoader(model.train_dataloader().dataset, batch_size=32)

    make_trainer(home, 1, PoolCheckpoint(), val_check_interval=3).fit(model, loader)

    found = weights_in(pools)
    assert same_weights(found["best/student"], model.weights[1])
    assert not same_weights(found["last/student"], model.weights[1])
    assert same_weights(found["last/student"], found["epoch_1/student"])
    assert newest_record(pools.parents[1]).pools["epoch_1"].metrics == {}


def test_another_experiment_starts_from_a_pool(home, pools):
    make_trainer(home, 1, PoolCheckpoint()).fit(Distill("distill", data_home=home))
    source = """
        settings = {"load_weights_from_exp": {
            "exp_name": "distill", "ckp_pool_name": "best", "module_name": "student"}}
        """
    write_experiment(home, "next", {"student": NETS["student"] + source})

    pool = ModulePool.discover("next", data_home=home)
    load_initial_weights(pool)

    assert same_weights(pool.student.state_dict(), weights_in(pools)["best/student"])


def test_best_is_loaded_by_the_manager_where_lightning_would_ask_for_its_checkpoint(home, pools):
    model = Distill("distill", data_home=home)
    trainer = make_trainer(home, 1, PoolCheckpoint())
    trainer.fit(model)

    with pytest.raises(SettingsError) as error:
        trainer.validate(model, ckpt_path="best", verbose=False)
    with torch.no_grad():
        model.module_pool.student[0].weight.zero_()
    CheckpointManager(pools, model.plain_pool).load("best")

    assert 'CheckpointManager(folder, model.plain_pool).load("best")' in error.value.fix
    assert same_weights(model.module_pool.student.state_dict(), weights_in(pools)["best/student"])


class Unsaveable(Distill):
    def on_save_checkpoint(self, checkpoint):
        checkpoint["mine"] = object()


def test_what_no_checkpoint_can_hold_is_reported_before_training(home, pools):
    with pytest.raises(CheckpointError) as error:
        make_trainer(home, 1, PoolCheckpoint()).fit(Unsaveable("distill", data_home=home))

    assert error.value.what == (
        "the state of Lightning's Trainer['mine'] is object, which a checkpoint cannot hold"
    )
    assert not pools.exists()


def test_hyperparameters_of_any_kind_are_no_state(home, pools):
    class WithParameters(Distill):
        def __init__(self, experiment, *, data_home, factory):
            super().__init__(experiment, data_home=data_home)
            self.factory = factory
            self.save_hyperparameters()

    make_trainer(home, 1, PoolCheckpoint()).fit(
        WithParameters("distill", data_home=home, factory=object())
    )

    assert "last" in names_in(pools)


def test_arguments_and_programs_that_cannot_work_are_refused(home, pools):
    with pytest.raises(SettingsError) as existing:
        PoolCheckpoint(existing="resum")
    with pytest.raises(SettingsError) as epochs:
        PoolCheckpoint(every_n_epochs=0)
    with pytest.raises(SettingsError) as mode:
        make_trainer(home, 1, PoolCheckpoint(mode="maximum")).fit(
            Distill("distill", data_home=home)
        )
    with pytest.raises(SettingsError) as plain:
        make_trainer(home, 1, PoolCheckpoint()).fit(NoPoolTrains())
    with pytest.raises(SettingsError) as other:
        PoolCheckpoint().setup(pytorch_lightning.Trainer(logger=False), NoPoolTrains(), "fit")

    assert existing.value.closest == "resume"
    assert epochs.value.key == "every_n_epochs"
    assert mode.value.key == "mode"
    assert other.value.fix == "from lightning.pytorch import Trainer, LightningModule"
    assert plain.value.fix.startswith("class NoPoolTrains(PoolMixin, LightningModule)")
    assert not pools.exists()


class NoPoolTrains(LightningModule):
    def training_step(self, _):
        return None

    def configure_optimizers(self):
        return None

    def train_dataloader(self):
        return [0]
