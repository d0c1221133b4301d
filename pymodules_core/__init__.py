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

_NAMES = {
    "pymodules_core.checkpoints.best": ["BestTracker"],
    "pymodules_core.checkpoints.loading.apply": ["apply_weights"],
    "pymodules_core.checkpoints.loading.match": ["LoadReport", "match_weights"],
    "pymodules_core.checkpoints.loading.pool_reader": ["PoolReader"],
    "pymodules_core.checkpoints.loading.resume_point": ["Resumed"],
    "pymodules_core.checkpoints.manager": ["CheckpointManager"],
    "pymodules_core.checkpoints.saving.commits": ["CommitResult", "Receipt"],
    "pymodules_core.checkpoints.sharded.folder": ["read_state_dict"],
    "pymodules_core.experiment": ["Experiment"],
    "pymodules_core.hookspecs.markers": ["hookimpl", "hookspec"],
    "pymodules_core.initial_weights": ["load_initial_weights"],
    "pymodules_core.module_pool.compiling": ["compile_modules"],
    "pymodules_core.module_pool.pool": ["ModulePool"],
    "pymodules_core.names": ["BEST", "FRZN", "INIT", "LAST", "epoch_pool"],
    "pymodules_core.processes.group": ["Processes"],
    "pymodules_core.settings.module_settings": ["ModuleSettings"],
    "pymodules_core.settings.strict": ["Range"],
    "pymodules_core.specs": ["DiscoveryContext", "ModuleSpec"],
    "pymodules_core.training.run_output.result": ["RunResult"],
    "pymodules_core.training.task.run": ["Run"],
    "pymodules_core.training.trainer": ["Trainer"],
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = list(_HOMES)
__all__ += ["__version__"]

if not TYPE_CHECKING:  # it would make every name there could be one of type Any
    __getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
