"""What authors of plugins and packages need beside the names of ``pymodules_core`` itself.

Settings of their own, names and paths that come from a person, states that have to come back, and
modules as wrappers and processes leave them. Names are loaded when first used.
"""

from typing import TYPE_CHECKING

from pymodules_core.lazy import lazy_names as lazy_names

if TYPE_CHECKING:
    from pymodules_core.checkpoints.file_format.state_dict import (
        check_initialized as check_initialized,
    )
    from pymodules_core.checkpoints.file_format.state_dict import unwrap as unwrap
    from pymodules_core.discovery.plugins.manager import PluginManager as PluginManager
    from pymodules_core.names import check_module_name as check_module_name
    from pymodules_core.names import check_path_name as check_path_name
    from pymodules_core.names import resolve_inside as resolve_inside
    from pymodules_core.processes.dtensor import local_tensor as local_tensor
    from pymodules_core.rng import random_state as random_state
    from pymodules_core.rng import restore_random_state as restore_random_state
    from pymodules_core.run_files import checkpoints_dir as checkpoints_dir
    from pymodules_core.settings.structure import format_value as format_value
    from pymodules_core.settings.structure import structure as structure
    from pymodules_core.settings.structure import unstructure as unstructure
    from pymodules_core.training.state.encoding import decode_state as decode_state
    from pymodules_core.training.state.encoding import encode_state as encode_state

_NAMES = {
    "pymodules_core.checkpoints.file_format.state_dict": ["check_initialized", "unwrap"],
    "pymodules_core.discovery.plugins.manager": ["PluginManager"],
    "pymodules_core.lazy": ["lazy_names"],
    "pymodules_core.names": ["check_module_name", "check_path_name", "resolve_inside"],
    "pymodules_core.processes.dtensor": ["local_tensor"],
    "pymodules_core.rng": ["random_state", "restore_random_state"],
    "pymodules_core.run_files": ["checkpoints_dir"],
    "pymodules_core.settings.structure": ["format_value", "structure", "unstructure"],
    "pymodules_core.training.state.encoding": ["decode_state", "encode_state"],
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = list(_HOMES)

if not TYPE_CHECKING:  # it would make every name there could be one of type Any
    __getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
