"""A plugin system for PyTorch training: one module pool, one trainer, one checkpoint manager.

What is public is here and in ``plugin_api``, ``errors``, ``hookspecs`` and ``testing``; everything
else may change in any version. Names are loaded when first used, so that importing the package
imports no torch.
"""

from typing import TYPE_CHECKING

import pymodules_core.moved  # noqa: F401  old names of modules
from pymodules_core.lazy import lazy_names

if TYPE_CHECKING:
    from pymodules_core.checkpoints.best import BestTracker as BestTracker
    from pymodules_core.checkpoints.loading.apply import apply_weights as apply_weights
    from pymodules_core.checkpoints.loading.match import LoadReport as LoadReport
    from pymodules_core.checkpoints.loading.match import match_weights as match_weights
    from pymodules_core.checkpoints.loading.pool_reader import PoolReader as PoolReader
    from pymodules_core.checkpoints.loading.resume_point import Resumed as Resumed
    from pymodules_core.checkpoints.manager import CheckpointManager as CheckpointManager
    from pymodules_core.checkpoints.saving.commits import CommitResult as CommitResult
    from pymodules_core.checkpoints.saving.commits import Receipt as Receipt
    from pymodules_core.checkpoints.sharded.folder import read_state_dict as read_state_dict
    from pymodules_core.experiment import Experiment as Experiment
    from pymodules_core.hookspecs.markers import hookimpl as hookimpl
    from pymodules_core.hookspecs.markers import hookspec as hookspec
    from pymodules_core.initial_weights import load_initial_weights as load_initial_weights
    from pymodules_core.module_pool.compiling import compile_modules as compile_modules
    from pymodules_core.module_pool.pool import ModulePool as ModulePool
    from pymodules_core.names import BEST as BEST
    from pymodules_core.names import FRZN as FRZN
    from pymodules_core.names import INIT as INIT
    from pymodules_core.names import LAST as LAST
    from pymodules_core.names import epoch_pool as epoch_pool
    from pymodules_core.processes.group import Processes as Processes
    from pymodules_core.settings.module_settings import ModuleSettings as ModuleSettings
    from pymodules_core.settings.strict import Range as Range
    from pymodules_core.specs import DiscoveryContext as DiscoveryContext
    from pymodules_core.specs import ModuleSpec as ModuleSpec
    from pymodules_core.training.run_output.result import RunResult as RunResult
    from pymodules_core.training.task.run import Run as Run
    from pymodules_core.training.trainer import Trainer as Trainer

__version__ = "0.1.0"

_HOMES = {
    "BEST": "pymodules_core.names",
    "BestTracker": "pymodules_core.checkpoints.best",
    "CheckpointManager": "pymodules_core.checkpoints.manager",
    "CommitResult": "pymodules_core.checkpoints.saving.commits",
    "DiscoveryContext": "pymodules_core.specs",
    "Experiment": "pymodules_core.experiment",
    "FRZN": "pymodules_core.names",
    "INIT": "pymodules_core.names",
    "LAST": "pymodules_core.names",
    "LoadReport": "pymodules_core.checkpoints.loading.match",
    "ModulePool": "pymodules_core.module_pool.pool",
    "ModuleSettings": "pymodules_core.settings.module_settings",
    "ModuleSpec": "pymodules_core.specs",
    "PoolReader": "pymodules_core.checkpoints.loading.pool_reader",
    "Processes": "pymodules_core.processes.group",
    "Range": "pymodules_core.settings.strict",
    "Receipt": "pymodules_core.checkpoints.saving.commits",
    "Resumed": "pymodules_core.checkpoints.loading.resume_point",
    "Run": "pymodules_core.training.task.run",
    "RunResult": "pymodules_core.training.run_output.result",
    "Trainer": "pymodules_core.training.trainer",
    "apply_weights": "pymodules_core.checkpoints.loading.apply",
    "compile_modules": "pymodules_core.module_pool.compiling",
    "epoch_pool": "pymodules_core.names",
    "hookimpl": "pymodules_core.hookspecs.markers",
    "hookspec": "pymodules_core.hookspecs.markers",
    "load_initial_weights": "pymodules_core.initial_weights",
    "match_weights": "pymodules_core.checkpoints.loading.match",
    "read_state_dict": "pymodules_core.checkpoints.sharded.folder",
}
__all__ = list(_HOMES)
__all__ += ["__version__"]

if not TYPE_CHECKING:  # it would make every name there could be one of type Any
    __getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
