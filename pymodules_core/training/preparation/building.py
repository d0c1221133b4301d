"""What each process of a run builds for itself: device, plugins, modules, task, data."""

import logging
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pymodules_core.checkpoints import LoadReport
from pymodules_core.checkpoints.file_format.state_dict import check_initialized
from pymodules_core.discovery import PluginManager
from pymodules_core.errors import (
    SettingsError,
    TaskError,
    UninitializedModuleError,
    closest_match,
    list_words,
)
from pymodules_core.experiment import Experiment
from pymodules_core.initial_weights import load_initial_weights
from pymodules_core.module_pool import ModulePool
from pymodules_core.processes.environment import RankInfo
from pymodules_core.processes.group import Processes
from pymodules_core.specs import FileOrigin
from pymodules_core.training.data import Batches, Phase
from pymodules_core.training.optim.managed_optimizer import ManagedOptimizer
from pymodules_core.training.optim.named_state import parameter_names, parameters_of
from pymodules_core.training.task.device import choose_device
from pymodules_core.training.task.task import Task

logger = logging.getLogger("pymodules_core")


@attrs.frozen(kw_only=True)
class BuiltParts:
    """What a process builds without the others.

    Attributes:
        device: Where modules and batches are.
        plugins: All plugins, the task among them.
        pool: The modules, on the device, with initial weights.
        reports: How those fitted.
        task: The functions of the task.
    """

    device: torch.device
    plugins: PluginManager
    pool: ModulePool
    reports: list[LoadReport]
    task: Task

    @classmethod
    def build(
        cls,
        experiment: Experiment,
        *,
        plugins: PluginManager | None,
        load_installed: bool,
        load_weights: bool,
        ranks: RankInfo,
    ) -> "BuiltParts":
        """Build them; the arguments are those of ``Session.prepare``.

        Args:
            experiment: The experiment.
            plugins: Plugins loaded already.
            load_installed: Whether to load installed plugins else.
            load_weights: Whether modules get initial weights.
            ranks: Which of several processes this is.

        Raises:
            PymodulesError: Anything that keeps one from being built.
        """
        try:
            device = choose_device(experiment.settings.train.device, ranks)
        except SettingsError as error:
            experiment.locate(error)
            raise
        plugins = plugins or PluginManager.for_experiment(experiment, load_installed=load_installed)
        # First: modules are built in what it sets for the process, such as the default dtype.
        task = Task.load(plugins, experiment)
        pool = ModulePool.discover(experiment, plugins=plugins)
        _check_initialized(pool)
        reports = load_initial_weights(pool) if load_weights else []
        pool.to(device)
        return cls(device=device, plugins=plugins, pool=pool, reports=reports, task=task)


def _check_initialized(pool: ModulePool) -> None:
    """Refuse modules without a shape: nothing would give them one before the first commit."""
    for name, entry in pool.entries.items():
        try:
            check_initialized(entry.module, name=name)
        except UninitializedModuleError as error:
            if isinstance(entry.origin, FileOrigin):
                error.file = entry.origin.file
            raise


def make_batches(
    task: Task, phase: Phase, experiment: Experiment, device: torch.device, processes: Processes
) -> Batches:
    """Call the task for the data of a phase and build its batches."""
    data = task.data(phase, processes.ranks)
    with task.errors(f"{phase}_data", TaskError):
        return Batches(
            data,
            phase=phase,
            settings=experiment.settings.train,
            pin_memory=device.type == "cuda",
            ranks=processes.ranks,
        )


def check_optimizer_settings(
    experiment: Experiment, optimizers: Mapping[str, Optimizer], schedulers: Mapping[str, Any]
) -> None:
    """Refuse settings of optimizers that the task does not have.

    Raises:
        SettingsError: There is one, or a schedule does not fit.
    """
    for name, settings in experiment.settings.optimizers.items():
        if name not in optimizers:
            near = closest_match(name, optimizers)
            raise experiment.locate(
                SettingsError(
                    f"optimizers.{name}: there is no optimizer {name!r}; "
                    f"there are: {list_words(optimizers)}",
                    key=f"optimizers.{name}",
                    found=name,
                    closest=near,
                    fix=f"write [optimizers.{near or next(iter(optimizers))}]",
                )
            )
        if settings.schedule == "step" and isinstance(schedulers.get(name), ReduceLROnPlateau):
            raise experiment.locate(
                SettingsError(
                    f"optimizers.{name}.schedule: 'step' does not fit ReduceLROnPlateau, which "
                    "needs the metric of an epoch",
                    key=f"optimizers.{name}.schedule",
                    found="step",
                    fix='schedule = "epoch"',
                )
            )


def report_untrained(pool: ModulePool, optimizers: Mapping[str, ManagedOptimizer]) -> None:
    """Warn of modules with parameters that may learn and that no optimizer updates."""
    updated = {one for managed in optimizers.values() for one in parameters_of(managed.optimizer)}
    owners = {
        name.partition(".")[0]
        for parameter, name in parameter_names(pool).items()
        if parameter.requires_grad and parameter not in updated
    }
    if idle := sorted(name for name in owners if not pool.is_frozen(name)):
        logger.warning(
            "no optimizer updates all parameters of: %s. Fix: add them in optimizers(), or set "
            '"frozen": True',
            list_words(idle),
        )
