"""Persists the modules of a pool as plain ``<pool>/<module_name>.pt`` files and reads them back.

Names are loaded when first used: what only looks at records and files needs no torch.
"""

from typing import TYPE_CHECKING

from pymodules_core.lazy import lazy_names

if TYPE_CHECKING:
    from pymodules_core.checkpoints.applying import apply_weights
    from pymodules_core.checkpoints.best import BestTracker
    from pymodules_core.checkpoints.files import read_state_dict
    from pymodules_core.checkpoints.loading import LoadReport, match_weights
    from pymodules_core.checkpoints.manager import CheckpointManager
    from pymodules_core.checkpoints.receipt import Receipt
    from pymodules_core.checkpoints.resuming import Resumed

__all__ = [
    "BestTracker",
    "CheckpointManager",
    "LoadReport",
    "Receipt",
    "Resumed",
    "apply_weights",
    "match_weights",
    "read_state_dict",
]

__getattr__ = lazy_names(
    __name__,
    {
        "BestTracker": "pymodules_core.checkpoints.best",
        "CheckpointManager": "pymodules_core.checkpoints.manager",
        "LoadReport": "pymodules_core.checkpoints.loading",
        "Receipt": "pymodules_core.checkpoints.receipt",
        "Resumed": "pymodules_core.checkpoints.resuming",
        "apply_weights": "pymodules_core.checkpoints.applying",
        "match_weights": "pymodules_core.checkpoints.loading",
        "read_state_dict": "pymodules_core.checkpoints.files",
    },
)
