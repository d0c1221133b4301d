"""How the processes of a run share its work: modules, batches, decisions."""

from pymodules_core.training.parallel.modules import SharedModules

__all__ = ["SharedModules"]
