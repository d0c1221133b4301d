"""Names that plugins import from where they were: they work, with a warning that has the new place.

Modules are found by their old name; what was renamed inside a module that is still there, through
the module's ``__getattr__``.
"""

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# A module to the one that took its place.
MOVED_MODULES = {
    "pymodules_core.checkpoints.lineage": "pymodules_core.checkpoints.tools.lineage",
    "pymodules_core.checkpoints.reading": "pymodules_core.checkpoints.loading.pool_reader",
    "pymodules_core.checkpoints.state_dicts": "pymodules_core.checkpoints.file_format.state_dict",
    "pymodules_core.processes.sharding": "pymodules_core.processes.dtensor",
    "pymodules_core.training.reporting": "pymodules_core.training.run_output.console",
    "pymodules_core.training.state.random_state": "pymodules_core.rng",
    "pymodules_core.training.run": "pymodules_core.training.task.run",
}
# A name, with the module that had it, to the public place of it.
MOVED_NAMES = {
    "pymodules_core.checkpoints.Receipt": "pymodules_core.CommitResult",
    "pymodules_core.processes.dtensor.local_part": "pymodules_core.plugin_api.local_tensor",
    "pymodules_core.training.run_output.console.SilentReporter": (
        "pymodules_core.training.run_output.console.SilentPrinter"
    ),
    "pymodules_core.training.Run": "pymodules_core.Run",
    "pymodules_core.training.RunResult": "pymodules_core.RunResult",
    "pymodules_core.training.Trainer": "pymodules_core.Trainer",
}


def moved_names(module: str, otherwise: Callable[[str], Any] | None = None) -> Callable[[str], Any]:
    """Return a ``__getattr__`` that finds what a module had before.

    Args:
        module: Its name.
        otherwise: The ``__getattr__`` for all other names.
    """

    def find(name: str) -> Any:
        old = f"{module}.{name}"
        if old in MOVED_NAMES:
            warnings.warn(f"{old} is now {MOVED_NAMES[old]}", DeprecationWarning, stacklevel=2)
            place, _, new = MOVED_NAMES[old].rpartition(".")
            return getattr(importlib.import_module(place), new)
        if otherwise is not None:
            return otherwise(name)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find


class MovedModules(MetaPathFinder, Loader):
    """Finds a module by its old name and loads the one that took its place."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Return a spec for an old name, None for any other."""
        del path, target
        return ModuleSpec(fullname, self) if fullname in MOVED_MODULES else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to Python: ``exec_module`` replaces what it makes."""

    def exec_module(self, module: ModuleType) -> None:
        """Let the old name stand for the new module, which is one object with two names."""
        old = module.__name__
        # Frames of the import system do not count: the warning is at the line that imports.
        warnings.warn(f"{old} is now {MOVED_MODULES[old]}", DeprecationWarning, stacklevel=2)
        sys.modules[old] = importlib.import_module(MOVED_MODULES[old])


if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
    sys.meta_path.append(MovedModules())
