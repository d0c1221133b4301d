"""What hooks are given, as Protocols: the classes themselves lie in layers above the hooks."""

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor, device
    from torch.nn import Module
    from torch.optim import Optimizer

    from pymodules_core.experiment import Experiment


class ModulePool(Protocol):
    """The modules of a run by name, as ``pool["net"]`` and as ``pool.net``."""

    def __getitem__(self, name: str, /) -> "Module":
        """Return a module."""

    def __getattr__(self, name: str, /) -> "Module":
        """Return a module."""

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""

    def __len__(self) -> int:
        """Return how many there are."""

    def is_frozen(self, name: str, /) -> bool:
        """Return whether a module is frozen."""


class CommitResult(Protocol):
    """What a commit wrote, and what it cost."""

    @property
    def pools(self) -> tuple[str, ...]:
        """Checkpoint pools that were written."""

    @property
    def epoch(self) -> int:
        """The epoch it belongs to; 0 before training."""

    @property
    def step(self) -> int:
        """Train steps so far."""

    @property
    def best_moved(self) -> bool:
        """Whether ``best`` was replaced."""

    @property
    def commit(self) -> int:
        """Its number."""

    @property
    def bytes_written(self) -> int:
        """Bytes of all files written."""

    @property
    def write_ms(self) -> float:
        """Milliseconds from the call until everything was on disk."""


class OptimizeBlock(Protocol):
    """What ``with run.optimize(name) as step`` binds."""

    loss: "Tensor | None"

    def backward(self, loss: "Tensor", /) -> None:
        """Add the gradients of one of several losses."""


class Run(Protocol):
    """The run that a hook is part of; ``pymodules_core.Run`` documents each name."""

    experiment: "Experiment"
    config: Any
    device: "device"
    data_dir: Path
    epoch: int
    step: int
    resumed_step: int | None
    batch_size: int

    @property
    def module_pool(self) -> ModulePool:
        """Its modules."""

    @property
    def state(self) -> MutableMapping[str, Any]:
        """Values that every checkpoint holds and a resume restores."""

    @property
    def seed(self) -> int:
        """The run's seed."""

    @property
    def rank(self) -> int:
        """The number of this process."""

    @property
    def world_size(self) -> int:
        """How many processes train together."""

    @property
    def optimizers(self) -> "Mapping[str, Optimizer]":
        """The optimizers by name."""

    def log(self, name: str, value: Any) -> None:
        """Add a metric of this batch."""

    def log_image(self, name: str, image: "Tensor") -> None:
        """Show an image to the loggers."""

    def gather(self, tensor: "Tensor") -> "Tensor":
        """Return the samples of a whole batch."""

    def optimize(self, name: str = "main") -> AbstractContextManager[OptimizeBlock]:
        """Open a block whose loss updates one optimizer."""
