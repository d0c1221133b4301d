"""Data of which every process has its own part: how it is declared, and what is refused."""

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
