"""Plain state dicts: what is saved of a module, free of wrappers and of memory it only views."""

from collections import OrderedDict
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy

from pymodules_core.errors import CheckpointError, UninitializedModuleError, list_words

Primitive = str | bytes | int | float | bool | None

_DEEPEST = 100
_LONGEST_SHOWN = 100


def unwrap(module: nn.Module) -> nn.Module:
    """Give the module inside DDP, ``DataParallel`` and ``torch.compile`` wrappers.

    By type of the wrapper, never by the text of a key: a module may well have a child ``module``.
    """
    while True:
        if isinstance(module, DistributedDataParallel | DataParallel):
            module = module.module
        elif isinstance(module, torch._dynamo.eval_frame.OptimizedModule):
            module = module._orig_mod
        else:
            return module


def refuse_lazy(module: nn.Module, *, name: str) -> None:
    """Refuse a module that cannot be saved or loaded yet.

    Raises:
        UninitializedModuleError: A lazy parameter has no shape yet.
    """
    inner = unwrap(module)
    tensors: chain[tuple[str, Any]] = chain(inner.named_parameters(), inner.named_buffers())
    lazy = [key for key, value in tensors if is_lazy(value)]
    if lazy:
        raise UninitializedModuleError(
            f"module {name!r} has lazy parameters without a shape: {list_words(lazy)}",
            key=name,
            found=lazy,
            fix="run one batch through it where it is made: "
            "def build(): net = ...; net(torch.zeros(shape)); return net",
        )


def plain_state_dict(module: nn.Module, *, name: str) -> "OrderedDict[str, Any]":
    """Give a module's state dict as it is saved.

    Args:
        module: The module, wrapped or not.
        name: Its name, for messages.

    Returns:
        Keys to tensors on the CPU, and to primitives where the module has extra state. A tensor
        that views a larger storage is copied, so that a file never carries what it does not show;
        keys that are one tensor stay one tensor. ``_metadata`` is kept.

    Raises:
        UninitializedModuleError: A lazy parameter has no shape yet.
        CheckpointError: A value is neither tensor nor primitive.
    """
    refuse_lazy(module, name=name)
    inner = unwrap(module)
    state: OrderedDict[str, Any] = OrderedDict()
    inner.state_dict(destination=state)
    copies: dict[tuple[object, ...], torch.Tensor] = {}
    for key, value in state.items():
        state[key] = _plain_value(value, key=key, name=name, copies=copies)
    return state


def state_size_bytes(state: "dict[str, Any]") -> int:
    """Add up the bytes of the tensors of a state dict, tied ones once."""
    tensors = {id(v): v for v in state.values() if isinstance(v, torch.Tensor)}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def is_plain(value: object) -> bool:
    """Tell whether ``torch.load(weights_only=True)`` gives ``value`` back: nested primitives.

    False for a list or dict that holds itself, or is nested too deep to be walked.
    """
    return _is_plain(value, depth=0, done=set())


def show_key(key: str) -> str:
    """Give a key of a file for a message: one short line, whatever the file says."""
    text = key if key.isprintable() else ascii(key)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _is_plain(value: object, *, depth: int, done: set[int]) -> bool:
    if isinstance(value, torch.Tensor | Primitive) or id(value) in done:
        return True
    if depth > _DEEPEST:
        return False
    items: list[object]
    if isinstance(value, dict):
        if not all(isinstance(key, Primitive) for key in value):
            return False
        items = list(value.values())
    elif isinstance(value, list | tuple):
        items = list(value)
    else:
        return False
    if not all(_is_plain(item, depth=depth + 1, done=done) for item in items):
        return False
    # Walked once: a small file may hold one list a billion times.
    done.add(id(value))
    return True


def _plain_value(
    value: Any, *, key: str, name: str, copies: dict[tuple[object, ...], torch.Tensor]
) -> Any:
    if not isinstance(value, torch.Tensor):
        if is_plain(value):
            return value
        raise CheckpointError(
            f"module {name!r}: {key} is {type(value).__name__}, and a checkpoint holds tensors and "
            "primitives only",
            key=key,
            found=type(value).__name__,
            fix="return tensors, numbers, texts, lists or dicts from get_extra_state",
        )
    if value.layout is not torch.strided:
        return value.detach().cpu()
    storage = value.untyped_storage()
    identity = (
        storage.data_ptr(),
        value.storage_offset(),
        value.shape,
        value.stride(),
        value.dtype,
        value.device,
    )
    if value.numel() and identity in copies:
        return copies[identity]
    plain = value.detach().cpu()
    if plain.untyped_storage().nbytes() > plain.numel() * plain.element_size():
        plain = plain.clone()
    copies[identity] = plain
    return plain
