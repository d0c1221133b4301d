"""Every hook: a signature that is documented, and a call with the arguments it promises."""

import inspect
import sys
from pathlib import Path

import pytest
from support import TINY_TASK, write_experiment

from pymodules_core import Trainer
from pymodules_core.discovery.plugins.implementations import HOOK_NAMES
from pymodules_core.errors import PluginError, StepError
from pymodules_core.hookspecs import HOOK_FAMILIES, RunHooks
from pymodules_core.training.run_output.console import SilentPrinter

RUN_HOOKS = [name for name in HOOK_NAMES if name in vars(RunHooks)]

RECORDER = """
from pymodules_core import hookimpl

calls = []

@hookimpl
def weights_ready(run):
    files = [path.name for path in run.data_dir.iterdir()]
    calls.append(("weights_ready", run.module_pool.net.weight.shape, files))

@hookimpl
def run_started(run):
    calls.append(("run_started", run.epoch))

@hookimpl
def train_step_finished(run, stepped):
    calls.append(("train_step_finished", run.step, sorted(stepped)))

@hookimpl
def epoch_finished(run, metrics):
    calls.append(("epoch_finished", run.epoch, sorted(metrics)))

@hookimpl
def checkpoint_committed(run, receipt):
    calls.append(("checkpoint_committed", receipt.pools, receipt.best_moved))

@hookimpl
def run_finished(run):
    calls.append(("run_finished", run.step))

@hookimpl
def run_failed(run, error):
    calls.append(("run_failed", type(error).__name__))
"""
BROKEN = """
from pymodules_core import hookimpl

@hookimpl
def epoch_finished(run):
    raise OSError("no connection")
"""
BROKEN_PROVIDER = """
from pymodules_core import ModuleSpec, hookimpl

@hookimpl
def provide_module(context):
    return ModuleSpec(name="average", factory="torch.nn:Identity")

@hookimpl
def train_step_finished(run):
    raise OSError("cannot average")
"""


def fit(path: Path, **overrides):
    return Trainer(path, overrides=overrides, reporter=SilentPrinter()).fit()


@pytest.mark.parametrize("name", HOOK_NAMES)
def test_every_hook_documents_each_of_its_arguments(name):
    family = next(family for family in HOOK_FAMILIES if name in vars(family))
    function = vars(family)[name]

    documentation = inspect.getdoc(function) or ""
    for argument in inspect.signature(function).parameters:
        assert argument == "self" or f"{argument}: " in documentation


def test_run_hooks_of_a_package_are_called_in_the_order_of_a_run(install_distribution, tmp_path):
    install_distribution("acme-recorder", RECORDER)
    install_distribution("acme-broken", "raise ValueError('boom')")
    # Else a commit is reported as soon as it is on disk, which may be some steps later.
    synchronous = "[checkpoints]\nasynchronous = false\n"
    path = write_experiment(tmp_path, toml=f"[train]\nepochs = 1\nbatch_size = 20\n{synchronous}")

    fit(path)

    calls = sys.modules["acme_recorder"].calls
    assert [call[0] for call in calls] == [
        "weights_ready",
        "checkpoint_committed",
        "run_started",
        "checkpoint_committed",
        "epoch_finished",
        "train_step_finished",
        "train_step_finished",
        "checkpoint_committed",
        "checkpoint_committed",
        "epoch_finished",
        "run_finished",
    ]
    assert calls[1] == ("checkpoint_committed", ("frzn", "init", "last"), False)
    assert calls[4] == ("epoch_finished", 0, ["loss"])
    assert calls[5] == ("train_step_finished", 1, ["main"])
    assert calls[8] == ("checkpoint_committed", ("last", "best", "epoch_1"), True)


def test_weights_ready_comes_before_any_checkpoint(install_distribution, tmp_path):
    install_distribution("acme-recorder", RECORDER)
    path = write_experiment(tmp_path)

    fit(path)

    name, shape, files = sys.modules["acme_recorder"].calls[0]
    assert (name, tuple(shape)) == ("weights_ready", (1, 4))
    assert files == []


def test_run_failed_gets_the_error(install_distribution, tmp_path):
    install_distribution("acme-recorder", RECORDER)
    path = write_experiment(
        tmp_path, task=TINY_TASK.replace("inputs, targets = batch", "inputs, targets = batch[0]")
    )

    with pytest.raises(StepError):
        fit(path)

    assert sys.modules["acme_recorder"].calls[-1] == ("run_failed", "StepError")


def test_an_accumulating_step_reports_no_optimizer_until_it_updates(install_distribution, tmp_path):
    install_distribution("acme-recorder", RECORDER)
    path = write_experiment(
        tmp_path,
        toml="[train]\nepochs = 1\nbatch_size = 10\n[optimizers.main]\naccumulate = 2\n",
    )

    fit(path)

    steps = [
        call for call in sys.modules["acme_recorder"].calls if call[0] == "train_step_finished"
    ]
    assert [stepped for _, _, stepped in steps] == [[], ["main"], [], ["main"]]


def test_a_logger_that_raises_is_reported_once_and_training_continues(
    install_distribution, tmp_path, caplog
):
    install_distribution("acme-broken", BROKEN)
    install_distribution("acme-recorder", RECORDER)
    path = write_experiment(tmp_path)

    result = fit(path)

    assert result.epochs == 2
    assert caplog.messages == [
        "epoch_finished of plugin acme-broken 1.0 (plugin) raises OSError: no connection "
        "(epoch 0, step 0); training continues without it"
    ]
    assert sys.modules["acme_recorder"].calls[-1][0] == "run_finished"


def test_a_provider_of_a_module_that_raises_fails_the_run(install_distribution, tmp_path):
    install_distribution("acme-broken", BROKEN_PROVIDER)
    path = write_experiment(tmp_path)

    with pytest.raises(PluginError) as caught:
        fit(path)

    assert (
        str(caught.value)
        .splitlines()[0]
        .endswith(
            "train_step_finished of plugin acme-broken 1.0 (plugin) raises OSError: cannot average "
            "(epoch 1, step 1)"
        )
    )


def test_a_provider_whose_module_another_replaced_may_fail(install_distribution, tmp_path, caplog):
    install_distribution("acme-broken", BROKEN_PROVIDER.replace('"average"', '"net"'))
    path = write_experiment(tmp_path, toml='[modules.override]\nnet = "files"\n')

    result = fit(path)

    assert result.stop_reason == "all 10 epochs done"
    assert [m.partition(" raises ")[0] for m in caplog.messages] == [
        "train_step_finished of plugin acme-broken 1.0 (plugin)"
    ]


@pytest.mark.parametrize("name", RUN_HOOKS)
def test_the_task_implements_run_hooks_by_name(tmp_path, name):
    body = f"\n\ndef {name}(run):\n    (run.data_dir / 'called').touch()\n"
    task = TINY_TASK + body
    if name == "run_failed":
        task = task.replace("return mse_loss", "1 / 0\n    return mse_loss", 1)
    if name == "image_logged":
        task = task.replace("_step(module_pool, batch)", "_step(module_pool, batch, run)", 1)
        task = task.replace(
            "inputs, targets", "run.log_image('w', batch[0][None])\n    inputs, targets", 1
        )
    path = write_experiment(tmp_path, task=task)

    if name == "run_failed":
        with pytest.raises(StepError):
            fit(path)
    else:
        fit(path)

    assert (path / "data" / "called").exists()
