"""Plain state dicts: what is saved of a module, free of wrappers and of memory it only views."""

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy

from pymodules_core.errors import CheckpointError, UninitializedModuleError, list_words
from pymodules_core.moved import moved_names
from pymodules_core.processes.dtensor import is_dtensor

_PRIMITIVES = {str, bytes, int, float, bool, type(None)}
_MAPPINGS = {dict, OrderedDict}
_SEQUENCES = {list, tuple, torch.Size}

_DEEPEST = 100
# Reading takes at most 64 MiB beside what a file's size allows, so that no stranger's file takes
# all memory; what is saved fits, estimated from above as the walk over its pickle charges for it.
_MOST_PLAIN_BYTES = 64 << 20
_NUMBER_BYTES, _TEXT_BYTES, _BYTES_BYTES = 40, 200, 700
_MAPPING_BYTES, _ITEM_BYTES, _LIST_BYTES, _REFERENCE_BYTES = 800, 110, 300, 16
# Not for memory: a walk follows ten thousand of them, which could be chosen to be slow.
_NUMBER_KEY_BYTES = _MOST_PLAIN_BYTES // 10_000 + 1
# Of a larger one pickle writes what torch refuses.
_MOST_BITS = 2000
_LONGEST_SHOWN = 100


def unwrap(module: nn.Module) -> nn.Module:
    """Return the module inside DDP, ``DataParallel`` and ``torch.compile`` wrappers.

    By type of the wrapper, never by the text of a key: a module may well have a child ``module``.
    """
    while True:
        if isinstance(module, DistributedDataParallel | DataParallel):
            module = module.module
        elif _is_compiled(module):
            module = cast("nn.Module", module._orig_mod)
        else:
            return module


def check_initialized(module: nn.Module, *, name: str) -> None:
    """Refuse a module that cannot be saved or loaded yet.

    Raises:
        UninitializedModuleError: A lazy parameter has no shape yet.
    """
    inner = unwrap(module)
    own = (
        tensor
        for child in inner.modules()
        for tensor in chain(child._parameters.values(), child._buffers.values())
        if tensor is not None
    )
    # Names only where there is one: they are as expensive as the state dict itself.
    if any(map(is_lazy, own)):
        tensors: chain[tuple[str, Any]] = chain(inner.named_parameters(), inner.named_buffers())
        lazy = [key for key, value in tensors if is_lazy(value)]
        raise UninitializedModuleError(
            f"module {name!r} has lazy parameters without a shape: {list_words(lazy)}",
            key=name,
            found=lazy,
            fix="run one batch through it where it is made: "
            "def build(): net = ...; net(torch.zeros(shape)); return net",
        )


def live_state_dict(module: nn.Module, *, name: str) -> "OrderedDict[str, Any]":
    """Return a module's state dict as it is saved, without a copy.

    Args:
        module: The module, wrapped or not.
        name: Its name, for messages.

    Returns:
        Keys to the module's own tensors, detached, and to primitives where it has extra state.
        ``_metadata`` is kept.

    Raises:
        UninitializedModuleError: A lazy parameter has no shape yet.
        CheckpointError: A value is neither a dense tensor nor a primitive.
    """
    check_initialized(module, name=name)
    given = unwrap(module).state_dict()
    state: OrderedDict[str, Any] = OrderedDict(
        (key, value.detach() if isinstance(value, torch.Tensor) else value)
        for key, value in given.items()
    )
    if hasattr(given, "_metadata"):
        state._metadata = given._metadata  # type: ignore[attr-defined]  # torch's own attribute
    refuse_unsaveable(state, owner=f"module {name!r}")
    return state


def map_tensors(value: Any, replace: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return a copy of a state, nested as it is, with each tensor replaced; ``_metadata`` stays."""
    if isinstance(value, torch.Tensor):
        return replace(value)
    if isinstance(value, Mapping):
        result: Any = type(value)()
        for key, item in value.items():
            result[key] = map_tensors(item, replace)
        if hasattr(value, "_metadata"):
            result._metadata = value._metadata
        return result
    if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        return type(value)(map_tensors(item, replace) for item in value)
    return value


def refuse_unsaveable(state: Mapping[str, Any], *, owner: str) -> None:
    """Refuse what ``torch.load(weights_only=True)`` would not give back as it is.

    Args:
        state: Keys to values.
        owner: Whose they are, for messages.

    Raises:
        CheckpointError: A value is neither a dense tensor nor a nested primitive, or millions of
            primitives.
    """
    read_bytes, seen = 0, set[int]()
    for key, value in state.items():
        if not is_plain(value):
            raise CheckpointError(
                f"{owner}: {key} is {type(value).__name__}, and a checkpoint holds tensors "
                "and primitives only",
                key=key,
                found=type(value).__name__,
                fix="give tensors, Python's own numbers, texts, lists or dicts (float(x) of a "
                "numpy number); a module does so from get_extra_state",
            )
        for tensor in tensors_in(value):
            if kind := _unsaveable_kind(tensor):
                raise CheckpointError(
                    f"{owner}: {key} is a {kind} tensor, and a checkpoint holds dense ones",
                    key=key,
                    found=kind,
                    fix="materialise it first: module.to_empty(device='cpu'), then its weights"
                    if tensor.is_meta
                    else "keep its parts: indices and values, or int_repr and scale",
                )
        read_bytes += plain_bytes(value, seen)
        if read_bytes > _MOST_PLAIN_BYTES:
            raise CheckpointError(
                f"{owner}: too many Python numbers, texts and lists: with {key} they take over "
                f"{_MOST_PLAIN_BYTES >> 20} MiB to read back",
                key=key,
                found=read_bytes,
                fix="keep many numbers in a tensor: torch.tensor(values)",
            )


def _unsaveable_kind(tensor: torch.Tensor) -> str | None:
    if tensor.is_meta:
        return "meta"
    if tensor.is_quantized:
        return "quantized"
    if tensor.layout is not torch.strided:
        return str(tensor.layout)
    if is_dtensor(tensor):  # whoever saves it gathers it, or refuses to
        return None
    # Its parts are tensors, and it has no memory of its own: TwoTensor.
    return type(tensor).__name__ if hasattr(tensor, "__tensor_flatten__") else None


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of nested dicts, lists and tuples in order; ties as often as met."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


def same_bytes(value: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two dense tensors are equal bit by bit; False for any others."""
    if value is other:
        return True
    if value.layout is not torch.strided or other.layout is not torch.strided:
        return False
    if value.dtype != other.dtype or value.shape != other.shape:
        return False
    # As bytes: NaN is equal to NaN, and 8-bit floats have no comparison.
    first, second = (t.contiguous().reshape(-1).view(torch.uint8) for t in (value, other))
    return torch.equal(first, second)


def is_plain(value: object) -> bool:
    """Return whether ``torch.load(weights_only=True)`` gives ``value`` back: nested primitives.

    False for a list or dict that holds itself, or is nested too deep to be walked.
    """
    return _is_plain(value, depth=0, done=set())


def count_items(value: object) -> int:
    """Count what ``is_plain`` holds for plain, a list that stands at two places twice.

    A small file may hold one list a billion times, and whoever walks it would not come to an end.
    """
    return _count_items(value, {})


def show_key(key: str) -> str:
    """Return a key of a file for a message: one short line, whatever the file says."""
    text = key if key.isprintable() else ascii(key)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _is_compiled(module: nn.Module) -> bool:
    # Looked up and never imported: 1.7 s, and where nobody compiled there is no such wrapper.
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return dynamo is not None and isinstance(module, dynamo.OptimizedModule)


def _is_plain(value: object, *, depth: int, done: set[int]) -> bool:
    # By exact type: of a subclass, such as a number of numpy's, a file would keep the class.
    if isinstance(value, torch.Tensor) or type(value) in _PRIMITIVES or id(value) in done:
        # No bytes at all are pickled as a call of `bytes`, which is refused.
        is_large = type(value) is int and value.bit_length() > _MOST_BITS
        return not is_large and (type(value) is not bytes or value != b"")
    if depth > _DEEPEST:
        return False
    items: list[object]
    if isinstance(value, dict) and type(value) in _MAPPINGS:
        if not all(type(key) in _PRIMITIVES for key in value):
            return False
        items = list(value.values())
    elif isinstance(value, list | tuple) and type(value) in _SEQUENCES:
        items = list(value)
    else:
        return False
    if not all(_is_plain(item, depth=depth + 1, done=done) for item in items):
        return False
    # Walked once: a small file may hold one list a billion times.
    done.add(id(value))
    return True


def plain_bytes(value: object, seen: set[int]) -> int:
    """Return at least what reading takes for a value beside its tensors."""
    if isinstance(value, torch.Tensor) or id(value) in seen:
        return 0
    if isinstance(value, Mapping):
        seen.add(id(value))
        numbers = sum(
            isinstance(key, int | float) and key != place for place, key in enumerate(value)
        )
        own = _MAPPING_BYTES + _ITEM_BYTES * len(value) + _NUMBER_KEY_BYTES * numbers
        return own + sum(plain_bytes(one, seen) for pair in value.items() for one in pair)
    if isinstance(value, list | tuple):
        seen.add(id(value))
        own = _LIST_BYTES + _REFERENCE_BYTES * len(value)
        return own + sum(plain_bytes(item, seen) for item in value)
    if isinstance(value, bytes):
        return _BYTES_BYTES + 2 * len(value)
    return sys.getsizeof(value) + (_TEXT_BYTES if isinstance(value, str) else _NUMBER_BYTES)


def _count_items(value: object, counts: dict[int, int]) -> int:
    if isinstance(value, torch.Tensor) or not isinstance(value, dict | list | tuple):
        return 1
    if id(value) not in counts:
        items = value.values() if isinstance(value, dict) else value
        counts[id(value)] = 1 + sum(_count_items(item, counts) for item in items)
    return counts[id(value)]


if not TYPE_CHECKING:  # it would make every name there could be one of type Any
    __getattr__ = moved_names(__name__)
