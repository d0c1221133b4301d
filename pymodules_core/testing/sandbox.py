"""Experiments in which one plugin is tried."""

import os
from pathlib import Path

from pymodules_core.discovery import PluginManager, PluginRecord
from pymodules_core.experiment import Experiment
from pymodules_core.initial_weights import load_initial_weights
from pymodules_core.module_pool import ModulePool
from pymodules_core.specs import ModuleSpec
from pymodules_core.testing.experiments import TINY_TASK, write_experiment
from pymodules_core.testing.steps import TrainedSteps, train_steps_with
from pymodules_core.testing.under_test import PluginUnderTest, register_objects

# One optimizer has the parameters of all modules, so that none is reported as left out. Those that
# the task does not use get no gradient, and stay as they are.
_TASK = TINY_TASK.replace(
    "module_pool.net.parameters()",
    "[p for net in module_pool.values() for p in net.parameters() if p.requires_grad]",
).replace(
    "def train_step(module_pool, batch):",
    "def train_step(module_pool, batch, run):\n    run.log_image('x', batch[0][None].sigmoid())",
)
# Three steps an epoch, and a commit within each: a run that stops anywhere has to continue exactly.
_TOML = "[train]\nepochs = 3\nbatch_size = 16\n[checkpoints]\nevery_n_steps = 2\n"


class NonconformityError(Exception):
    """A plugin does not fulfil a check."""


class Sandbox:
    """Makes what a check needs.

    Args:
        tested: The plugin, which is tried alone: no other installed one is loaded beside it.
        folder: An empty folder.

    Attributes:
        environment: That of the process before the plugin was imported.
    """

    def __init__(self, tested: PluginUnderTest, folder: Path) -> None:
        self.tested = tested
        self.folder = folder
        self.environment = dict(os.environ)

    def experiment(self, name: str, *, has_plugin: bool = True) -> Experiment:
        """Return the experiment of that name, which is written when first asked for.

        Args:
            name: Its name.
            has_plugin: Whether the plugin takes part.
        """
        path = self.folder / "experiments" / name
        if not path.exists():
            write_experiment(self.folder, name, task=_TASK, toml=_TOML)
        overrides: dict[str, object] = {"plugins.allow": []}
        if has_plugin:
            table = self.tested.settings
            tables = {self.tested.name: dict(table)} if table else {}
            overrides = {"plugins.allow": [self.tested.name], "plugins.settings": tables}
        return Experiment.open(path, data_home=self.folder, overrides=overrides)

    def plugins(self, experiment: Experiment | None = None) -> PluginManager:
        """Make a fresh plugin manager with the plugin and the files of an experiment.

        Raises:
            SettingsError: The settings do not fit the plugin.
        """
        name, plugin = self.tested.name.partition(":")[2], self.tested.plugin
        plugins = PluginManager.for_experiment(
            experiment or self.experiment("modules"), load_installed=plugin is None
        )
        if plugin is not None:
            register_objects(plugins, {name: plugin})
        return plugins

    def record(self, plugins: PluginManager | None = None) -> PluginRecord:
        """Return what a manager, by default a fresh one, knows of the plugin."""
        records = (plugins or self.plugins()).records
        return next(record for record in records if record.name == self.tested.name)

    def specs(self) -> list[ModuleSpec]:
        """Ask the plugin for its modules, by the hook."""
        plugins = self.plugins()
        record = self.record(plugins)
        specs = [spec for spec in plugins.provided_specs() if spec.origin == record.origin]
        if record.failure is not None:
            raise NonconformityError(record.failure.reason)
        return specs

    def pool(self, *, seed: int = 0) -> ModulePool:
        """Build the pool of the plugin's modules and ``net``, with its initial weights."""
        experiment = self.experiment("modules")
        pool = ModulePool.discover(experiment, plugins=self.plugins(experiment), seed=seed)
        load_initial_weights(pool)
        return pool

    def own_modules(self, pool: ModulePool) -> list[str]:
        """Name the modules of a pool that the plugin provided."""
        origin = self.record().origin
        return [name for name, entry in pool.entries.items() if entry.origin == origin]

    def train(self, name: str, steps: int, *, has_plugin: bool = True) -> TrainedSteps:
        """Train the experiment of that name until so many steps are done."""
        experiment = self.experiment(name, has_plugin=has_plugin)
        plugins = (
            self.plugins(experiment)
            if has_plugin
            else PluginManager.for_experiment(experiment, load_installed=False)
        )
        return train_steps_with(plugins, experiment, steps)
