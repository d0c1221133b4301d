"""Data that every process has a part of its own of: what says so, and what is refused."""

from typing import Any

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from pymodules_core.errors import TaskError

_ORDERLY = (SequentialSampler, RandomSampler)


def is_sharded(data: Any, name: str) -> bool:
    """Tell whether several processes get parts that the data itself makes, or ours are to be made.

    Ours can be made of map-style datasets in an order that is the same in every process. Whatever
    else has to say that it gives each process its own part, by an attribute ``sharded = True``.

    Args:
        data: A ``DataLoader``, or an iterable of batches.
        name: The function that gave it.

    Raises:
        TaskError: It does not say so, and its batches cannot be split.
    """
    said, what = _declaration(data)
    if said is True:
        return True
    if type(data) is DataLoader and not isinstance(data.dataset, IterableDataset):
        if data.batch_sampler is not None and (said is False or _is_orderly(data)):
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


def _declaration(data: Any) -> tuple[object, str]:
    """Give what the data says of itself, and what it is."""
    if not isinstance(data, DataLoader):
        return getattr(data, "sharded", None), f"an iterable of batches ({type(data).__name__})"
    parts = [data, data.dataset, data.batch_sampler, data.sampler]
    parts += [getattr(part, "sampler", None) for part in parts]
    if any(isinstance(part, DistributedSampler) for part in parts):
        return True, "a DistributedSampler"
    words = [getattr(part, "sharded", None) for part in parts]
    said = next((word for word in words if word is not None), None)
    if isinstance(data.dataset, IterableDataset):
        return said, f"an IterableDataset ({type(data.dataset).__name__})"
    if type(data) is not DataLoader:
        return said, f"a DataLoader of its own class ({type(data).__name__})"
    own = data.batch_sampler if type(data.batch_sampler) is not BatchSampler else data.sampler
    return said, f"a sampler of its own ({type(own).__name__})"


def _is_orderly(loader: "DataLoader[Any]") -> bool:
    return type(loader.batch_sampler) is BatchSampler and type(loader.sampler) in _ORDERLY
