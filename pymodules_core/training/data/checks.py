"""What a task may return as data, checked before the first epoch."""

from collections.abc import Iterable, Iterator, Sized
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset

from pymodules_core.errors import TaskError
from pymodules_core.settings import TrainSettings


def check_data(data: Any, name: str, settings: TrainSettings) -> None:
    """Refuse what cannot be iterated once an epoch.

    Args:
        data: What the task gave.
        name: The function that gave it.
        settings: How many epochs there are.

    Raises:
        TaskError: The data is empty, no iterable, or can be read only once.
    """
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
    if not isinstance(data, IterableDataset) and _is_empty(data):
        raise _without_a_batch(data, name)
    # The evaluation at the start is one more pass over the evaluation data.
    passes = settings.epochs + (name == "eval_data" and settings.eval_at_start)
    if isinstance(data, Iterator) and passes > 1:
        unit = "epoch" if passes == settings.epochs else "pass"
        raise TaskError(
            f"{name} returns an iterator, which is exhausted after one {unit} of {passes}",
            key=name,
            fix=f"return list(...), or an object whose __iter__ starts again; {kinds}",
        )


def _is_empty(data: Any) -> bool:
    try:
        return isinstance(data, Sized) and len(data) == 0
    except TypeError:  # a DataLoader has a length only where its dataset has one
        return False


def _without_a_batch(data: Any, name: str) -> TaskError:
    found = f"{name} returns {type(data).__name__}"
    if isinstance(data, DataLoader) and data.drop_last:
        there = data.dataset if isinstance(data.dataset, IterableDataset) else data.sampler
        if samples := len(there):  # type: ignore[arg-type]  # what is empty has a length
            return TaskError(
                f"{found}, which drops its only batch: it has {samples} of {data.batch_size} "
                "samples",
                key=name,
                fix=f"a batch_size of {samples} at most, or drop_last=False",
            )
    return TaskError(
        f"{found} without a sample",
        key=name,
        fix="look at the path or the filter that its samples come through",
    )
