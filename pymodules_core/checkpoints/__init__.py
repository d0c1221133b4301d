"""Persists the modules of a pool as plain ``<pool>/<module_name>.pt`` files and reads them back."""

from pymodules_core.checkpoints.applying import apply_weights
from pymodules_core.checkpoints.best import BestTracker
from pymodules_core.checkpoints.files import read_state_dict
from pymodules_core.checkpoints.loading import LoadReport, match_weights
from pymodules_core.checkpoints.manager import CheckpointManager
from pymodules_core.checkpoints.receipt import Receipt

__all__ = [
    "BestTracker",
    "CheckpointManager",
    "LoadReport",
    "Receipt",
    "apply_weights",
    "match_weights",
    "read_state_dict",
]
