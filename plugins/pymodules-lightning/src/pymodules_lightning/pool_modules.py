"""``PoolModules``: a module pool as one ``nn.Module``, which others can hold."""

from typing import Any, Self

from torch import nn

from pymodules_core import ModulePool


class PoolModules(nn.ModuleDict):
    """Registers the modules of a pool, so that they are moved, found, saved and trained.

    ``modules.encoder`` and ``modules["encoder"]`` are the pool's own module.

    Args:
        pool: The pool; what its settings say of modes continues to hold.
    """

    def __init__(self, pool: ModulePool) -> None:
        super().__init__(pool)
        self._pool = pool

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002  # torch's signature
        """Set the mode; frozen modules and those of mode ``eval`` stay in eval mode.

        Args:
            mode: Whether the others train.
        """
        self.training = mode
        self._pool.set_training(training=mode)
        return self

    def __getitem__(self, key: str) -> nn.Module:
        """Return a module by name.

        Raises:
            UnknownModuleError: No such module.
        """
        return self._pool[key]

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            # Private names are never modules; while it is unpickled, there is no pool to ask.
            if name.startswith("_"):
                raise
            return self._pool[name]
