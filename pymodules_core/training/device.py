"""Chooses the device and moves batches to it."""

import re
from collections.abc import Mapping
from typing import Any

import torch

from pymodules_core.errors import SettingsError, closest_match

_CHOICES = ("auto", "cpu", "cuda")


def choose_device(name: str) -> torch.device:
    """Turn ``[train] device`` into a device.

    Args:
        name: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:<index>``.

    Raises:
        SettingsError: Another word, or a device this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise SettingsError(
            f"train.device: {name!r} is no device; there are: auto, cpu, cuda, cuda:<index>",
            key="train.device",
            found=name,
            closest=closest_match(name, _CHOICES),
        )
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(
            f"train.device: {name!r} is not on this machine, which has "
            f"{torch.cuda.device_count()} CUDA devices",
            key="train.device",
            found=name,
            fix='device = "auto" takes what there is',
        )
    return device


def move_batch(batch: Any, device: torch.device) -> Any:
    """Move every tensor in nested lists, tuples and dicts to ``device``.

    Copies overlap with compute where the loader pinned the memory.
    """
    if hasattr(batch, "to") and callable(batch.to):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        moved = {key: move_batch(value, device) for key, value in batch.items()}
        return moved if type(batch) is dict else type(batch)(moved)  # type: ignore[call-arg]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(move_batch(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(move_batch(value, device) for value in batch)
    return batch


def batch_length(batch: Any) -> int:
    """Give the samples of a batch: the length of its first tensor, or of its first list.

    A batch that tells no length counts as one sample.
    """
    if isinstance(batch, torch.Tensor):
        return batch.shape[0] if batch.ndim else 1
    if isinstance(batch, Mapping):
        return batch_length(next(iter(batch.values()))) if batch else 1
    if isinstance(batch, tuple | list) and batch:
        first = batch[0]
        if isinstance(first, torch.Tensor | Mapping | list | tuple):
            return batch_length(first)
        return len(batch)
    return 1
