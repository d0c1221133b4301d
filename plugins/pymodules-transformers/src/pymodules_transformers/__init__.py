"""Models of Hugging Face transformers as modules of a pymodules pool.

The public names are loaded when first used: the plugin beside them imports neither torch nor
transformers, and listing modules stays fast.
"""

from typing import TYPE_CHECKING

from pymodules_core.plugin_api import lazy_names

if TYPE_CHECKING:
    from pymodules_transformers.export import save_folder
    from pymodules_transformers.models import build_model

__all__ = ["build_model", "save_folder"]

__getattr__ = lazy_names(
    __name__,
    {
        "build_model": "pymodules_transformers.models",
        "save_folder": "pymodules_transformers.export",
    },
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
