"""What worker processes do differently: seed the streams of items, and outlive signals."""

import signal
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from torch.utils.data import Dataset

from pymodules_core.rng import derive_seed, seed_streams
from pymodules_core.training.data.sampling import length_of

_OWN = {"inner", "_sample_seed"}


class SeededItems(Dataset[Any]):
    """A dataset whose items draw from streams that their batch, or their index, decides.

    Indices come with a tag before them: the seed of the batch, or the epoch where each sample has
    its own. Everything else is the user's dataset, so that a ``worker_init_fn`` may open its files.

    Args:
        dataset: The user's.
        sample_seed: Seed each item by (this, epoch, index); None seeds each batch by its tag.

    Attributes:
        inner: The user's dataset.
    """

    def __init__(self, dataset: "Dataset[Any]", sample_seed: int | None) -> None:
        self.inner = dataset
        self._sample_seed = sample_seed

    def __getitems__(self, tagged: Sequence[Any]) -> Sequence[Any]:
        tag, *indices = tagged
        dataset = self.inner
        if self._sample_seed is not None:
            return [self._one(self._sample_seed, tag, index) for index in indices]
        seed_streams(tag)
        whole_batch = getattr(dataset, "__getitems__", None)
        if whole_batch:
            items: Sequence[Any] = whole_batch(indices)
            return items
        return [dataset[index] for index in indices]

    def __getitem__(self, tagged: tuple[int, Any]) -> Any:
        tag, index = tagged
        if self._sample_seed is not None:
            return self._one(self._sample_seed, tag, index)
        seed_streams(tag)
        return self.inner[index]

    def __len__(self) -> int:
        return length_of(self.inner)

    def __getattr__(self, name: str) -> Any:
        if name in _OWN or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            super().__setattr__(name, value)
        else:
            setattr(self.inner, name, value)

    def _one(self, seed: int, epoch: int, index: Any) -> Any:
        seed_streams(derive_seed(seed, "sample", epoch, index))
        return self.inner[index]


class WorkerStart:
    """Called in each new worker process: signals that end the run are for its main process.

    Ctrl-C and ``kill -- -<group>`` reach workers too; one that ends takes the step at hand with it.

    Args:
        then: The user's ``worker_init_fn``.
    """

    def __init__(self, then: Callable[[int], None] | None) -> None:
        self._then = then

    def __call__(self, worker: int) -> None:
        """Prepare worker number ``worker``."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # The second one ends it: a worker that hangs has to be ended by the loader.
        signal.signal(signal.SIGTERM, _ignore_once)
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if self._then is not None:
            self._then(worker)


def _ignore_once(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
