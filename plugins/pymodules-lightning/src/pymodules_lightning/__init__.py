"""The module pool and the checkpoint pools of pymodules in Lightning's ``Trainer``, and back.

Names are loaded when first used: the plugin beside them imports neither torch nor Lightning.
"""

from typing import TYPE_CHECKING

from pymodules_core.plugin_api import lazy_names

if TYPE_CHECKING:
    from pymodules_lightning.callback import PoolCheckpoint
    from pymodules_lightning.mixin import PoolMixin

__all__ = ["PoolCheckpoint", "PoolMixin"]

__getattr__ = lazy_names(
    __name__,
    {
        "PoolCheckpoint": "pymodules_lightning.callback",
        "PoolMixin": "pymodules_lightning.mixin",
    },
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
