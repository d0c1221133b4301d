"""Modules that plugins import and that lie elsewhere now: their old names work, with a warning."""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "pymodules_core.checkpoints.lineage": "pymodules_core.checkpoints.tools.lineage",
    "pymodules_core.checkpoints.reading": "pymodules_core.checkpoints.loading.pool_reader",
    "pymodules_core.checkpoints.state_dicts": "pymodules_core.checkpoints.file_format.state_dict",
    "pymodules_core.processes.sharding": "pymodules_core.processes.dtensor",
    "pymodules_core.training.reporting": "pymodules_core.training.run_output.console",
    "pymodules_core.training.run": "pymodules_core.training.task.run",
}


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
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to Python: ``exec_module`` replaces what it makes."""

    def exec_module(self, module: ModuleType) -> None:
        """Let the old name stand for the new module, which is one object with two names."""
        old = module.__name__
        # Frames of the import system do not count: it is told where the old name is imported.
        warnings.warn(f"{old} is now {MOVED[old]}", DeprecationWarning, stacklevel=2)
        sys.modules[old] = importlib.import_module(MOVED[old])


if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
    sys.meta_path.append(MovedModules())
