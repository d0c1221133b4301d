"""What each process of a run builds for itself: device, plugins, modules, task."""

import attrs
import torch

from pymodules_core.checkpoints import LoadReport
from pymodules_core.checkpoints.file_format.state_dict import refuse_lazy
from pymodules_core.discovery import PluginManager
from pymodules_core.errors import SettingsError, UninitializedModuleError
from pymodules_core.experiment import Experiment
from pymodules_core.initial_weights import load_initial_weights
from pymodules_core.module_pool import ModulePool
from pymodules_core.processes.environment import RankInfo
from pymodules_core.specs import FileOrigin
from pymodules_core.training.task.device import choose_device
from pymodules_core.training.task.task import Task


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
        _refuse_lazy(pool)
        reports = load_initial_weights(pool) if load_weights else []
        pool.to(device)
        return cls(device=device, plugins=plugins, pool=pool, reports=reports, task=task)


def _refuse_lazy(pool: ModulePool) -> None:
    """Refuse modules without a shape: nothing would give them one before the first commit."""
    for name, entry in pool.entries.items():
        try:
            refuse_lazy(entry.module, name=name)
        except UninitializedModuleError as error:
            if isinstance(entry.origin, FileOrigin):
                error.file = entry.origin.file
            raise
