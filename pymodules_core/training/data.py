"""Turns what a task gives as data into batches; their order is a function of seed and epoch."""

from collections.abc import Iterable, Iterator, Sized
from typing import Any, Literal

import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
)

from pymodules_core.errors import TaskError
from pymodules_core.module_pool import derive_seed
from pymodules_core.settings import TrainSettings

Phase = Literal["train", "eval"]


class EpochSampler(Sampler[int]):
    """Shuffles the indices of a dataset by (seed, epoch) and nothing else.

    Args:
        length: Samples in the dataset.
        seed: The run's seed.

    Attributes:
        epoch: Set before an epoch starts.
    """

    def __init__(self, length: int, seed: int) -> None:
        self._length = length
        self._seed = seed
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "order", self.epoch))
        return iter(torch.randperm(self._length, generator=generator).tolist())

    def __len__(self) -> int:
        return self._length


class Batches:
    """The batches of one phase, iterated once an epoch.

    Args:
        data: What the task's function returned.
        phase: ``train`` shuffles.
        settings: Batch size, workers and seed.
        pin_memory: Whether batches go to a CUDA device.

    Raises:
        TaskError: The data is empty, no iterable, or can be read only once.
    """

    def __init__(
        self, data: Any, *, phase: Phase, settings: TrainSettings, pin_memory: bool
    ) -> None:
        self._phase: Phase = phase
        self._seed = settings.seed
        self._sampler: EpochSampler | None = None
        self._generator: torch.Generator | None = None
        _check_data(data, f"{phase}_data", settings)
        self._is_own_loader = isinstance(data, Dataset) and not isinstance(data, IterableDataset)
        if isinstance(data, Dataset):
            self._generator = torch.Generator()
            if phase == "train" and not isinstance(data, IterableDataset):
                self._sampler = EpochSampler(_length(data), settings.seed)
            data = DataLoader(
                data,
                batch_size=settings.batch_size,
                sampler=self._sampler,
                num_workers=settings.num_workers,
                generator=self._generator,
                pin_memory=pin_memory,
            )
        elif isinstance(data, DataLoader):
            self._generator = _own_generator(data)
        self._batches: Iterable[Any] = data

    @property
    def promised(self) -> int | None:
        """Batches that an epoch has to give: known where the trainer batches a dataset itself."""
        return self.length if self._is_own_loader else None

    @property
    def length(self) -> int | None:
        """Batches in an epoch, or None where the data does not know."""
        try:
            return len(self._batches)  # type: ignore[arg-type]  # TypeError is the answer
        except TypeError:
            return None

    def epoch(self, epoch: int) -> Iterator[Any]:
        """Start the batches of an epoch."""
        if self._sampler is not None:
            self._sampler.epoch = epoch
        if self._generator is not None:
            self._generator.manual_seed(derive_seed(self._seed, self._phase, epoch))
        return iter(self._batches)


def _own_generator(loader: "DataLoader[Any]") -> torch.Generator | None:
    """Give a user's loader a generator of its own, so that it draws nothing from the run's."""
    if loader.generator is not None:
        return None
    generator = torch.Generator()
    loader.generator = generator
    if isinstance(loader.sampler, RandomSampler) and loader.sampler.generator is None:
        loader.sampler.generator = generator
    return generator


def _length(dataset: "Dataset[Any]") -> int:
    return len(dataset) if isinstance(dataset, Sized) else 0


def _check_data(data: Any, name: str, settings: TrainSettings) -> None:
    kinds = "a Dataset, a DataLoader or an iterable of batches"
    if data is None or not isinstance(data, Iterable | Dataset):
        found = "None" if data is None else type(data).__name__
        raise TaskError(
            f"{name} returns {found}, expected {kinds}",
            key=name,
            found=data,
            fix="return torch.utils.data.TensorDataset(inputs, targets), or what you have",
        )
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset | Sized):
        raise TaskError(
            f"{name} returns {type(data).__name__}, which has no length",
            key=name,
            fix="give it __len__, or derive it from torch.utils.data.IterableDataset",
        )
    if isinstance(data, Sized) and not isinstance(data, IterableDataset) and len(data) == 0:
        raise TaskError(
            f"{name} returns {type(data).__name__} without a sample",
            key=name,
            fix="look at the path or the filter that its samples come through",
        )
    # The evaluation at the start is one more pass over the evaluation data.
    passes = settings.epochs + (name == "eval_data" and settings.eval_at_start)
    if isinstance(data, Iterator) and passes > 1:
        unit = "epoch" if passes == settings.epochs else "pass"
        raise TaskError(
            f"{name} returns an iterator, which is exhausted after one {unit} of {passes}",
            key=name,
            fix=f"return list(...), or an object whose __iter__ starts anew; {kinds}",
        )
