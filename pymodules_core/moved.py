"""Names that plugins import from where they were: they work, with a warning that has the new place.

``MOVED`` is the one table. A module that is gone is found by its old name, and has what moved out
of it; one that is still there has it through its ``__getattr__``.
"""

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from pymodules_core.lazy import lazy_names

_API = "pymodules_core.plugin_api"
_CONSOLE = "pymodules_core.training.run_output.console"
_STATE = "pymodules_core.training.state"
_STATE_DICT = "pymodules_core.checkpoints.file_format.state_dict"
MOVED = {
    "pymodules_core.checkpoints.Receipt": "pymodules_core.CommitResult",
    f"{_STATE_DICT}.refuse_lazy": f"{_API}.check_initialized",
    "pymodules_core.checkpoints.lineage.newest_record": (
        "pymodules_core.checkpoints.tools.lineage.newest_record"
    ),
    "pymodules_core.checkpoints.reading.PoolReader": "pymodules_core.PoolReader",
    "pymodules_core.checkpoints.state_dicts.refuse_lazy": f"{_API}.check_initialized",
    "pymodules_core.checkpoints.state_dicts.unwrap": f"{_API}.unwrap",
    "pymodules_core.processes.dtensor.local_part": f"{_API}.local_tensor",
    "pymodules_core.processes.sharding.local_part": f"{_API}.local_tensor",
    "pymodules_core.settings.structure.show": f"{_API}.format_value",
    "pymodules_core.training.Run": "pymodules_core.Run",
    "pymodules_core.training.RunResult": "pymodules_core.RunResult",
    "pymodules_core.training.Trainer": "pymodules_core.Trainer",
    "pymodules_core.training.reporting.SilentReporter": f"{_CONSOLE}.SilentPrinter",
    "pymodules_core.training.run.Run": "pymodules_core.Run",
    f"{_CONSOLE}.SilentReporter": f"{_CONSOLE}.SilentPrinter",
    f"{_STATE}.encoding.decode": f"{_API}.decode_state",
    f"{_STATE}.encoding.encode": f"{_API}.encode_state",
    f"{_STATE}.random_state.random_state": f"{_API}.random_state",
    f"{_STATE}.random_state.restore_random_state": f"{_API}.restore_random_state",
}
_MODULES = {old.rpartition(".")[0] for old in MOVED}


def moved_names(module: str, otherwise: Callable[[str], Any] | None = None) -> Callable[[str], Any]:
    """Return a ``__getattr__`` that finds what a module had before.

    Args:
        module: Its name.
        otherwise: The ``__getattr__`` for all other names.
    """
    others = otherwise or lazy_names(module, {})

    def find(name: str) -> Any:
        old = f"{module}.{name}"
        if old in MOVED:
            warnings.warn(f"{old} is now {MOVED[old]}", DeprecationWarning, stacklevel=2)
            place, _, new = MOVED[old].rpartition(".")
            return getattr(importlib.import_module(place), new)
        return others(name)

    return find


class MovedModules(MetaPathFinder, Loader):
    """Finds a module that is gone by its old name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for an old name that no finder before this one has found."""
        del path, target
        return ModuleSpec(fullname, self) if fullname in _MODULES else None

    def exec_module(self, module: ModuleType) -> None:
        """Give the module what moved out of it."""
        module.__getattr__ = moved_names(module.__name__)  # type: ignore[method-assign]  # PEP 562


if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
    sys.meta_path.append(MovedModules())
