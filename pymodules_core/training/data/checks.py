"""What a task may give as data, told before the first epoch."""

from collections.abc import Iterable, Iterator, Sized
from typing import Any

from torch.utils.data import Dataset, IterableDataset

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


def _is_empty(data: Any) -> bool:
    try:
        return isinstance(data, Sized) and len(data) == 0
    except TypeError:  # a DataLoader has a length only where its dataset has one
        return False
