"""Chooses the device and moves batches to it."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from pymodules_core.errors import PymodulesError, SettingsError, TrainingError, closest_match
from pymodules_core.processes.environment import RankInfo

_CHOICES = ("auto", "cpu", "cuda")


def choose_device(name: str, ranks: RankInfo | None = None) -> torch.device:
    """Turn ``[train] device`` into a device.

    Args:
        name: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:<index>``.
        ranks: Which of several processes this is: each of a machine takes a device of its own.

    Raises:
        SettingsError: Another word, a device this machine does not have, or one device for several
            processes.
    """
    ranks = ranks or RankInfo()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and ranks.size > 1:
        name = f"cuda:{ranks.local_rank}"
    elif name.startswith("cuda:") and ranks.local_size > 1:
        raise _refusal(
            name,
            f"is one device, and {ranks.local_size} processes of this machine would share it",
            fix='device = "cuda" gives each process its own',
        )
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise _refusal(
            name,
            "is not a device; there are: auto, cpu, cuda, cuda:<index>",
            closest="cuda" if name.lower() == "gpu" else closest_match(name, _CHOICES),
        )
    device = torch.device(name)
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise _refusal(name, f"is not on this machine, which has {count} CUDA devices")
    return device


def _refusal(
    name: str,
    why: str,
    *,
    closest: str | None = None,
    fix: str = 'device = "auto" takes what there is',
) -> SettingsError:
    what = f"train.device: {name!r} {why}"
    return SettingsError(what, key="train.device", found=name, closest=closest, fix=fix)


def move_batch(batch: Any, device: torch.device) -> Any:
    """Move every tensor in nested lists, tuples and dicts to ``device``.

    Copies overlap with compute where the loader pinned the memory.
    """
    if hasattr(batch, "to") and callable(batch.to):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        moved = {key: move_batch(value, device) for key, value in batch.items()}
        return moved if type(batch) is dict else type(batch)(moved)  # type: ignore[call-arg]  # as a dict
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(move_batch(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(move_batch(value, device) for value in batch)
    return batch


def batch_length(batch: Any) -> int:
    """Return the samples of a batch: the length of its first array, or else of its first list.

    Arrays are tensors and whatever else has a shape of at least one dimension; they are looked for
    depth first, in lists, tuples and the values of mappings. A batch without an array or a list
    counts as one sample.
    """
    length = _array_length(batch)
    if length is None:
        length = _list_length(batch)
    return 1 if length is None else length


def _array_length(batch: Any) -> int | None:
    shape = getattr(batch, "shape", None)
    if isinstance(shape, tuple):
        return int(shape[0]) if shape else None
    items: Iterable[Any] = ()
    if isinstance(batch, Mapping):
        items = batch.values()
    elif isinstance(batch, list | tuple):
        items = batch
    return next((n for item in items if (n := _array_length(item)) is not None), None)


def _list_length(batch: Any) -> int | None:
    if isinstance(batch, Mapping):
        return next((n for item in batch.values() if (n := _list_length(item)) is not None), None)
    if not isinstance(batch, list | tuple) or not batch:
        return None
    nested = _list_length(batch[0]) if isinstance(batch[0], list | tuple) else None
    return len(batch) if nested is None else nested


def out_of_memory(error: Exception) -> TrainingError | None:
    """Return an error that reports a lack of memory; None for others."""
    # torch has a class of its own for devices only.
    is_torch = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    is_known = isinstance(error, MemoryError | torch.OutOfMemoryError) or is_torch
    if not is_known or isinstance(error, PymodulesError):
        return None
    reason = f": {error}".rstrip(": ")
    return TrainingError(
        f"there is not enough memory{reason}",
        fix="free memory, or train on a machine that has more; checkpoints saved before are intact",
    )
