"""Digests of modules: equal where keys, dtypes, shapes and every bit of the values are."""

from torch import nn

from pymodules_core.checkpoints.file_format.digest import Content
from pymodules_core.checkpoints.file_format.state_dict import live_state_dict
from pymodules_core.module_pool import ModulePool


def digest_of_module(module: nn.Module, *, name: str) -> str:
    """Return the digest of a module's state dict, which the checkpoint store names its file by.

    Args:
        module: The module.
        name: Its name, for messages.

    Raises:
        CheckpointError: It has what a checkpoint cannot hold.
    """
    return Content(live_state_dict(module, name=name)).digest_now()


def digests_of_pool(pool: ModulePool) -> dict[str, str]:
    """Return the digest of each module of a pool."""
    return {name: digest_of_module(module, name=name) for name, module in pool.items()}
