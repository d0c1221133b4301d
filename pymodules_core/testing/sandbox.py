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
from pymodules_core.testing.subject import Subject

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
        subject: The plugin.
        folder: An empty folder.

    Attributes:
        environment: That of the process before the plugin was imported.
    """

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.subject = subject
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
        overrides = self.subject.overrides() if has_plugin else {"plugins.allow": []}
        return Experiment.open(path, data_home=self.folder, overrides=overrides)

    def plugins(self) -> PluginManager:
        """Make a fresh plugin manager with the plugin."""
        return self.subject.manager(self.experiment("modules"))

    def record(self) -> PluginRecord:
        """Return what a fresh manager knows of the plugin."""
        return self.subject.record_in(self.plugins())

    def specs(self) -> list[ModuleSpec]:
        """Ask the plugin for its modules, by the hook."""
        plugins = self.plugins()
        record = self.subject.record_in(plugins)
        specs = [spec for spec in plugins.provided_specs() if spec.origin == record.origin]
        if record.failure is not None:
            raise NonconformityError(record.failure.reason)
        return specs

    def pool(self, *, seed: int = 0) -> ModulePool:
        """Build the pool of the plugin's modules and ``net``, with its initial weights."""
        experiment = self.experiment("modules")
        plugins = self.subject.manager(experiment)
        pool = ModulePool.discover(experiment, plugins=plugins, seed=seed)
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
            self.subject.manager(experiment)
            if has_plugin
            else PluginManager.for_experiment(experiment, load_installed=False)
        )
        return train_steps_with(plugins, experiment, steps)
