"""``PoolMixin``: a ``LightningModule`` whose networks are the module pool of an experiment."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from torch import nn

from pymodules_core import Experiment, ModulePool, compile_modules, load_initial_weights
from pymodules_core.errors import SettingsError, list_words
from pymodules_core.hookspecs import RunHooks
from pymodules_core.plugin_api import PluginManager
from pymodules_lightning.pool_modules import PoolModules

# Below the host's logger, which shows it as it shows its own.
logger = logging.getLogger("pymodules_core.lightning")


class PoolMixin(nn.Module):
    """Builds the pool of an experiment and holds its modules: ``self.module_pool.encoder``.

    To be named before ``LightningModule``: ``class Gan(PoolMixin, LightningModule)``. Modules come
    with the weights that pymodules' own trainer would start with, and are frozen as their settings
    say: without gradients, and in eval mode whatever mode the rest is put in.

    Args:
        experiment: A name in the data home, a folder, or an opened experiment.
        args: For the next class.
        data_home: Overrides the environment variable and ``./data``.
        seed: Seed of the weights; overrides ``[train] seed``.
        overrides: Dotted keys laid over ``experiment.toml``.
        load_weights: Whether to load the initial weights that settings ask for. A resumed run
            does not need them: give False where their source is gone.
        kwargs: For the next class.

    Attributes:
        experiment: The experiment; ``experiment.settings.task`` is its ``[task]`` table.
        module_pool: The modules, registered.
        plain_pool: The same modules as a ``ModulePool``, with their settings and origins; what
            ``CheckpointManager`` takes.

    Raises:
        PymodulesError: Anything that keeps a module from being built or loaded.
    """

    experiment: Experiment
    module_pool: PoolModules
    plain_pool: ModulePool

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # By name, so that nothing of Lightning is imported for the mixin.
        order = [base.__name__ for base in cls.__mro__]
        if "LightningModule" in order[: order.index(PoolMixin.__name__)]:
            raise SettingsError(
                f"{cls.__name__} names LightningModule before PoolMixin, which then builds no pool",
                found=cls.__name__,
                fix=f"class {cls.__name__}(PoolMixin, LightningModule)",
            )

    def __init__(
        self,
        experiment: str | Path | Experiment,
        *args: Any,
        data_home: str | Path | None = None,
        seed: int | None = None,
        overrides: Mapping[str, Any] | None = None,
        load_weights: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.experiment = Experiment.open(
            experiment,
            data_home=None if data_home is None else Path(data_home),
            overrides=overrides,
        )
        plugins = PluginManager.for_experiment(self.experiment)
        self.plain_pool = ModulePool.discover(self.experiment, seed=seed, plugins=plugins)
        _warn_of_run_hooks(plugins, self.plain_pool)
        if load_weights:
            load_initial_weights(self.plain_pool)
        compile_modules(self.plain_pool)
        self.module_pool = PoolModules(self.plain_pool)
        # A fit leaves every module in the mode that it finds it in.
        self.module_pool.train()

    def trained_parameters(self, *names: str) -> list[nn.Parameter]:
        """Return the parameters that an optimizer is to update, shared ones once.

        Args:
            names: Modules; by default all of the pool that are not frozen.

        Raises:
            UnknownModuleError: No such module.
            SettingsError: A named module is frozen, or there is nothing to train.
        """
        pool = self.plain_pool
        modules = {name: pool[name] for name in names or pool}
        if frozen := [name for name in names if pool.is_frozen(name)]:
            raise SettingsError(
                f"an optimizer is to train what is frozen: {list_words(frozen)}",
                key="frozen",
                found=frozen,
                fix='leave it out, or set "frozen": False in its settings',
            )
        found = {
            parameter: None
            for module in modules.values()
            for parameter in module.parameters()
            if parameter.requires_grad
        }
        if not found:
            raise SettingsError(
                f"nothing to train: no parameter that takes a gradient in {list_words(modules)}",
                found=list(modules),
                fix="name a module that has parameters and is not frozen",
            )
        return list(found)

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002  # torch's signature
        """Set the mode; frozen modules and those of mode ``eval`` stay in eval mode.

        Args:
            mode: Whether the others train.
        """
        super().train(mode)
        # Last: a module of the pool may also be an attribute of its own.
        self.module_pool.train(mode)
        return self

    def unfreeze(self) -> Self:
        """Undo ``freeze``: all parameters take gradients but those of frozen modules."""
        for parameter in self.parameters():
            parameter.requires_grad = True
        for name, module in self.plain_pool.items():
            if self.plain_pool.is_frozen(name):
                module.requires_grad_(requires_grad=False)
        return self.train()


def _warn_of_run_hooks(plugins: PluginManager, pool: ModulePool) -> None:
    """Tell of modules that hooks of pymodules' own trainer keep up to date, averages for one."""
    for record in plugins.records:
        kept = [name for name, entry in pool.entries.items() if entry.origin == record.origin]
        if kept and {*record.hooks} & {*vars(RunHooks)}:
            logger.warning(
                "%s of plugin %s is kept up to date by hooks that Lightning does not call. Fix: "
                "use a callback of Lightning's, or leave it out: [plugins] disable = [%r]",
                ", ".join(kept),
                record.origin,
                record.origin.provider,
            )
