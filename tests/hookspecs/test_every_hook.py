"""Each hook by itself: real metadata on disk, a broken neighbour, called as the host calls it.

A hook without a case here fails the first test.
"""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import TINY_TASK, write_experiment
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import TensorDataset

from pymodules_core import (
    CommitResult,
    DiscoveryContext,
    Experiment,
    ModulePool,
    ModuleSpec,
    Run,
    Trainer,
)
from pymodules_core.discovery import PluginManager
from pymodules_core.discovery.plugins.implementations import HOOK_NAMES
from pymodules_core.discovery.plugins.task_file import register_task
from pymodules_core.errors import StepError
from pymodules_core.training.run_output.console import SilentPrinter

# When a recorder of each run hook was called last, as (epoch, step), and what with.
RUN_HOOKS: dict[str, tuple[tuple[int, int], dict[str, Callable[[Any], bool]]]] = {
    "weights_ready": ((0, 0), {}),
    "run_started": ((0, 0), {}),
    "train_step_finished": (
        (1, 2),
        {
            "stepped": lambda stepped: stepped == frozenset({"main"}),
            "metrics": lambda metrics: (
                list(metrics) == ["loss", "size"] and not metrics["loss"].requires_grad
            ),
        },
    ),
    "epoch_finished": (
        (1, 2),
        {
            "metrics": lambda metrics: list(metrics) == ["loss"],
            "train_metrics": lambda metrics: list(metrics) == ["loss", "size"],
            "is_evaluated": lambda is_evaluated: is_evaluated is True,
        },
    ),
    "image_logged": (
        (1, 2),
        {
            "name": lambda name: name == "weights",
            "image": lambda image: image.shape == (1, 1, 4) and not image.requires_grad,
        },
    ),
    "checkpoint_committed": (
        (1, 2),
        {"receipt": lambda receipt: isinstance(receipt, CommitResult) and receipt.durable},
    ),
    "run_finished": ((1, 2), {}),
    "run_failed": ((1, 0), {"error": lambda error: isinstance(error, StepError)}),
}
MODULE_HOOKS = {"provide_module", "migrate_state"}
# What the host passes to a task's functions, and what the task below gives back.
TASK_HOOKS: dict[str, Callable[[Any], bool]] = {
    "train_data": lambda data: len(data) == 40,
    "eval_data": lambda data: len(data) == 40,
    "optimizers": lambda optimizer: isinstance(optimizer, SGD),
    "schedulers": lambda scheduler: isinstance(scheduler, StepLR),
    "train_step": lambda loss: loss.requires_grad and loss.numel() == 1,
    "eval_step": lambda metrics: list(metrics) == ["loss"],
}

TASK = f"""{TINY_TASK}
from torch.optim.lr_scheduler import StepLR

def schedulers(optimizers, config, epochs, steps_per_epoch):
    assert (epochs, steps_per_epoch, config) == (1, 3, {{}})
    return StepLR(optimizers["main"], 1)
"""
# A run of two steps, whose task logs an image and a second metric.
LOGGING_TASK = TINY_TASK.replace(
    "def train_step(module_pool, batch):",
    "def epoch_finished(run):\n"
    "    run.log_image('weights', run.module_pool.net.weight[None])\n\n\n"
    "def train_step(module_pool, batch, run):\n"
    "    if run.step == 1:\n        run.log('size', len(batch[0]))",
)


def test_each_hook_has_a_case():
    assert {*RUN_HOOKS, *MODULE_HOOKS, *TASK_HOOKS} == set(HOOK_NAMES)


def hook(name: str, arguments: str, body: str) -> str:
    head = "from pymodules_core import hookimpl\ncalls = []\n@hookimpl\n"
    return f"{head}def {name}({arguments}):\n    {body}\n"


@pytest.mark.parametrize("name", RUN_HOOKS)
def test_a_run_hook_of_a_package_gets_what_it_is_promised(
    install_distribution, tmp_path, caplog, name
):
    moment, expected = RUN_HOOKS[name]
    arguments = ", ".join(["run", *expected])
    given = ", ".join(f"{argument}={argument}" for argument in expected)
    install_distribution("acme-broken", hook(name, "run", "raise OSError('no connection')"))
    install_distribution(
        "acme-recorder",
        hook(name, arguments, f"calls.append((run, (run.epoch, run.step), dict({given})))"),
    )
    task = LOGGING_TASK
    if name == "run_failed":
        task = task.replace("return mse_loss", "1 / 0\n    return mse_loss", 1)
    path = write_experiment(
        tmp_path,
        task=task,
        toml="[train]\nepochs = 1\nbatch_size = 20\n[checkpoints]\nasynchronous = false\n",
    )

    if name == "run_failed":
        with pytest.raises(StepError):
            Trainer(path, reporter=SilentPrinter()).fit()
    else:
        Trainer(path, reporter=SilentPrinter()).fit()

    origins = [str(i.record.origin) for i in PluginManager().implementations(name)]
    assert origins == ["acme-broken 1.0 (plugin)", "acme-recorder 1.0 (plugin)"]
    run, at, more = sys.modules["acme_recorder"].calls[-1]
    assert isinstance(run, Run)
    assert at == moment
    assert [argument for argument, fits in expected.items() if not fits(more[argument])] == []
    (told,) = [message for message in caplog.messages if "plugin" in message]
    assert told.startswith(
        f"{name} of plugin acme-broken 1.0 (plugin) raises OSError: no connection (epoch "
    )


def test_provide_module_gives_specs_that_know_where_they_are_from(install_distribution, tmp_path):
    install_distribution(
        "acme-broken", hook("provide_module", "context", "raise OSError('no connection')")
    )
    install_distribution(
        "acme-nets",
        "from pymodules_core import ModuleSpec, hookimpl\ncalls = []\n@hookimpl\n"
        "def provide_module(context):\n    calls.append(context)\n"
        "    yield ModuleSpec(name='one', factory='torch.nn:Identity')\n"
        "    yield ModuleSpec(name='two', factory='torch.nn:Identity')\n",
        version="2.1",
    )
    plugins = PluginManager(data_home=tmp_path)

    specs = plugins.provided_specs()

    assert [type(spec) for spec in specs] == [ModuleSpec] * 2
    assert [(spec.name, str(spec.origin)) for spec in specs] == [
        ("one", "acme-nets 2.1 (plugin)"),
        ("two", "acme-nets 2.1 (plugin)"),
    ]
    (context,) = sys.modules["acme_nets"].calls
    assert context == DiscoveryContext(
        experiment_dir=None, data_home=tmp_path, settings={}, settings_key="plugins.settings.plugin"
    )
    (failed,) = [record for record in plugins.records if record.failure]
    assert failed.failure.reason == "OSError: no connection"


def test_migrate_state_is_asked_of_the_provider_only(install_distribution):
    arguments = "module_name, state, from_version, to_version"
    provide = (
        "from pymodules_core import ModuleSpec\n@hookimpl\ndef provide_module(context):\n"
        "    return ModuleSpec(name='net', factory='torch.nn:Identity', state_version=3)\n"
    )
    install_distribution("acme-broken", hook("migrate_state", arguments, "raise OSError"))
    install_distribution(
        "acme-nets",
        hook("migrate_state", arguments, f"calls.append(({arguments})); return {{'new': 1}}")
        + provide,
    )
    path_free = PluginManager()
    (spec,) = path_free.provided_specs()
    found = {str(i.record.origin): i for i in path_free.implementations("migrate_state")}

    result = found[str(spec.origin)](
        {"module_name": "net", "state": {"old": 1}, "from_version": 1, "to_version": 3}
    )

    assert result == {"new": 1}
    assert list(found) == ["acme-broken 1.0 (plugin)", "acme-nets 1.0 (plugin)"]
    assert sys.modules["acme_nets"].calls == [("net", {"old": 1}, 1, 3)]


@pytest.mark.parametrize("name", TASK_HOOKS)
def test_a_tasks_function_in_a_package_is_the_runs(install_distribution, tmp_path, name):
    group = "pymodules.tasks"
    install_distribution("acme-broken", "raise ValueError('boom')")
    install_distribution("acme-broken-task", "raise ValueError('boom')", group=group)
    install_distribution("acme-tasks", TASK, version="1.2", group=group)
    path = write_experiment(
        tmp_path, toml='[experiment]\ntask = "acme-tasks:plugin"\n[train]\nepochs = 1\n'
    )
    (path / "pymodules" / "task.py").unlink()
    experiment = Experiment.open(path)
    plugins = PluginManager.for_experiment(experiment)
    pool = ModulePool.discover(experiment, plugins=plugins)
    register_task(plugins, experiment)

    (implementation,) = plugins.implementations(name)
    result = implementation(
        {
            "module_pool": pool,
            "batch": TensorDataset(torch.ones(2, 4), torch.ones(2, 1))[:],
            "config": {},
            "optimizers": {"main": SGD(pool.net.parameters(), lr=0.1)},
            "epochs": 1,
            "steps_per_epoch": 3,
        }
    )

    assert TASK_HOOKS[name](result)
    assert str(implementation.record.origin) == "acme-tasks 1.2 (plugin)"
    assert [r.name for r in plugins.records if r.failure] == ["acme-broken:plugin"]
