"""A plugin system for PyTorch training: one module pool, one trainer, one checkpoint manager.

The public names are loaded when first used, so that importing the package imports no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pymodules_core.checkpoints import CheckpointManager
    from pymodules_core.hookspecs import hookimpl, hookspec
    from pymodules_core.module_pool import ModulePool
    from pymodules_core.specs import ModuleSpec
    from pymodules_core.training import Trainer

__all__ = ["CheckpointManager", "ModulePool", "ModuleSpec", "Trainer", "hookimpl", "hookspec"]

_HOMES = {
    "CheckpointManager": "pymodules_core.checkpoints",
    "ModulePool": "pymodules_core.module_pool",
    "ModuleSpec": "pymodules_core.specs",
    "Trainer": "pymodules_core.training",
    "hookimpl": "pymodules_core.hookspecs",
    "hookspec": "pymodules_core.hookspecs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
