"""What a task may return as data, checked before the first epoch, and how it is shared out."""

from collections.abc import Iterable, Iterator, Sized
from typing import Any

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from pymodules_core.errors import TaskError
from pymodules_core.settings import TrainSettings

_ORDERLY = (SequentialSampler, RandomSampler)


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


def is_sharded(data: Any, name: str) -> bool:
    """Return whether the data shards itself over several processes, or is to be split here.

    Map-style datasets in an order that is the same in every process can be split. Anything else
    has to declare that it gives each process its own part, by an attribute ``sharded = True``.

    Args:
        data: A ``DataLoader``, or an iterable of batches.
        name: The function that gave it.

    Raises:
        TaskError: It does not say so, and its batches cannot be split.
    """
    declared, what = _declaration(data)
    if declared is True:
        return True
    if type(data) is DataLoader and not isinstance(data.dataset, IterableDataset):
        if data.batch_sampler is not None and (declared is False or _is_orderly(data)):
            return False
        if data.batch_sampler is None:
            what = "a DataLoader that makes no batches (batch_size=None)"
    raise TaskError(
        f"{name} gives {what}, which several processes cannot split",
        key=name,
        found=type(data).__name__,
        fix="return a Dataset; or let it give each process its own part, by the arguments rank and "
        f"world_size of {name}, and say so: sharded = True as its attribute",
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


def _declaration(data: Any) -> tuple[object, str]:
    """Return what the data declares, and what it is."""
    if not isinstance(data, DataLoader):
        return getattr(data, "sharded", None), f"an iterable of batches ({type(data).__name__})"
    sources = [data, data.dataset, data.batch_sampler, data.sampler]
    sources += [getattr(one, "sampler", None) for one in sources]
    if any(isinstance(one, DistributedSampler) for one in sources):
        return True, "a DistributedSampler"
    found = [getattr(one, "sharded", None) for one in sources]
    declared = next((one for one in found if one is not None), None)
    if isinstance(data.dataset, IterableDataset):
        return declared, f"an IterableDataset ({type(data.dataset).__name__})"
    if type(data) is not DataLoader:
        return declared, f"a DataLoader of its own class ({type(data).__name__})"
    own = data.batch_sampler if type(data.batch_sampler) is not BatchSampler else data.sampler
    return declared, f"a sampler of its own ({type(own).__name__})"


def _is_orderly(loader: "DataLoader[Any]") -> bool:
    return type(loader.batch_sampler) is BatchSampler and type(loader.sampler) in _ORDERLY
