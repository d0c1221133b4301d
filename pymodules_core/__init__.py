"""A plugin system for PyTorch training: one module pool, one trainer, one checkpoint manager.

The public names are loaded when first used, so that importing the package imports no torch.
"""

from typing import TYPE_CHECKING

import pymodules_core.moved  # noqa: F401  old names of modules
from pymodules_core.lazy import lazy_names

if TYPE_CHECKING:
    from pymodules_core.checkpoints import CheckpointManager
    from pymodules_core.hookspecs import hookimpl, hookspec
    from pymodules_core.module_pool import ModulePool
    from pymodules_core.specs import ModuleSpec
    from pymodules_core.training import Trainer

__all__ = ["CheckpointManager", "ModulePool", "ModuleSpec", "Trainer", "hookimpl", "hookspec"]

__getattr__ = lazy_names(
    __name__,
    {
        "CheckpointManager": "pymodules_core.checkpoints",
        "ModulePool": "pymodules_core.module_pool",
        "ModuleSpec": "pymodules_core.specs",
        "Trainer": "pymodules_core.training",
        "hookimpl": "pymodules_core.hookspecs",
        "hookspec": "pymodules_core.hookspecs",
    },
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
