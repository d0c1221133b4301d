"""Persists the modules of a pool as plain ``<pool>/<module_name>.pt`` files and reads them back.

Names are loaded when first used: what only looks at records and files needs no torch.
"""

from typing import TYPE_CHECKING

from pymodules_core.lazy import lazy_names
from pymodules_core.moved import moved_names

if TYPE_CHECKING:
    from pymodules_core.checkpoints.best import BestTracker as BestTracker
    from pymodules_core.checkpoints.loading.apply import apply_weights as apply_weights
    from pymodules_core.checkpoints.loading.match import LoadReport as LoadReport
    from pymodules_core.checkpoints.loading.match import match_weights as match_weights
    from pymodules_core.checkpoints.loading.resume_point import Resumed as Resumed
    from pymodules_core.checkpoints.manager import CheckpointManager as CheckpointManager
    from pymodules_core.checkpoints.saving.commits import CommitResult as CommitResult
    from pymodules_core.checkpoints.sharded.folder import read_state_dict as read_state_dict

_HOMES = {
    "BestTracker": "pymodules_core.checkpoints.best",
    "CheckpointManager": "pymodules_core.checkpoints.manager",
    "LoadReport": "pymodules_core.checkpoints.loading.match",
    "CommitResult": "pymodules_core.checkpoints.saving.commits",
    "Resumed": "pymodules_core.checkpoints.loading.resume_point",
    "apply_weights": "pymodules_core.checkpoints.loading.apply",
    "match_weights": "pymodules_core.checkpoints.loading.match",
    "read_state_dict": "pymodules_core.checkpoints.sharded.folder",
}
__all__ = list(_HOMES)

if not TYPE_CHECKING:  # it would make every name there could be one of type Any
    __getattr__ = moved_names(__name__, lazy_names(__name__, _HOMES))
