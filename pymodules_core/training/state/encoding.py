"""Turns values into tensors and primitives and back, so that a checkpoint file can hold them.

``torch.load(weights_only=True)`` gives tensors, numbers, texts, lists, tuples and dicts back. What
else optimizers, schedulers and tasks keep is written as a dict that names its kind under ``$``.
"""

import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import torch

from pymodules_core.errors import TaskError
from pymodules_core.moved import moved_names

_KIND, _VALUE = "$", "value"
_PRIMITIVES = {str, bytes, int, float, bool, type(None)}


def encode_state(value: Any, *, name: str) -> Any:
    """Write a value as tensors and primitives.

    Args:
        value: Primitives, tensors, arrays and numbers of numpy, paths; nested in lists, tuples,
            dicts, deques and sets.
        name: What it is, for messages.

    Returns:
        What ``decode_state`` gives the value back from. Tensors are the value's own, not copied.

    Raises:
        TaskError: Something in it would not come back.
    """
    try:
        return _encode(value, name)
    except RecursionError as error:
        raise TaskError(
            f"{name} holds itself, or is nested too deep for a checkpoint",
            key=name,
            fix="keep a flat list or dict",
        ) from error


def _encode(value: Any, name: str) -> Any:
    kind = type(value)
    if kind in _PRIMITIVES:
        # No bytes at all are pickled as a call of `bytes`, which a file may not ask for.
        return _tagged("bytes", None) if value == b"" and kind is bytes else value
    if isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter):
        return value.detach() if value.device.type == "cpu" else _tagged("cuda", value.detach())
    if kind in {dict, OrderedDict}:
        return _encode_dict(value, name)
    if kind in {list, tuple}:
        return kind(_encode(item, f"{name}[{n}]") for n, item in enumerate(value))
    if (tagged := _encode_tagged(value, name)) is not None:
        return tagged
    raise TaskError(
        f"{name} is {kind.__name__}, which a checkpoint cannot hold",
        key=name,
        found=kind.__name__,
        fix="keep tensors, arrays, numbers, texts, lists or dicts of them, or an object with "
        "state_dict and load_state_dict",
    )


def _encode_tagged(value: Any, name: str) -> dict[str, Any] | None:
    """Write a value of a kind that ``torch.load`` refuses; None for a kind that is not known."""
    kind = type(value)
    if kind is Counter:
        return _tagged("counter", _encode_dict(dict(value), name))
    if kind is torch.Size:
        return _tagged("size", list(value))
    if kind is deque:
        items = [_encode(item, f"{name}[{n}]") for n, item in enumerate(value)]
        return _tagged("deque", [items, value.maxlen])
    if kind in {set, frozenset}:
        return _tagged(kind.__name__, [_encode(item, f"an item of {name}") for item in value])
    if isinstance(value, PurePath):
        return _tagged("path", str(value))
    if (array := _as_tensor(value)) is not None:
        return _tagged("number" if array.dim() == 0 else "array", array)
    return None


def decode_state(value: Any) -> Any:
    """Return what ``encode_state`` was given."""
    if isinstance(value, Mapping):
        if _KIND in value:
            return _DECODERS[value[_KIND]](value[_VALUE])
        kind = OrderedDict if isinstance(value, OrderedDict) else dict
        return kind((key, decode_state(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return type(value)(decode_state(item) for item in value)
    return value


def _encode_dict(value: dict[Any, Any], name: str) -> Any:
    for key in value:
        if type(key) not in _PRIMITIVES:
            raise TaskError(
                f"{name} has the key {key!r}, a {type(key).__name__}, which a checkpoint cannot "
                "hold",
                key=name,
                found=key,
                fix="use texts or numbers as keys",
            )
    items = [(key, _encode(item, f"{name}[{key!r}]")) for key, item in value.items()]
    if _KIND not in value:
        return type(value)(items)
    return _tagged("ordered" if isinstance(value, OrderedDict) else "dict", items)


def _tagged(kind: str, value: Any) -> dict[str, Any]:
    return {_KIND: kind, _VALUE: value}


def _as_tensor(value: Any) -> torch.Tensor | None:
    """Copy an array or number of numpy into a tensor; None for anything else."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray | numpy.generic):
        return None
    try:
        return torch.from_numpy(numpy.array(value, copy=True))
    except TypeError:  # texts, objects, records: no dtype of torch's
        return None


def _to_device(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.cuda() if torch.cuda.is_available() else tensor


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "bytes": lambda _: b"",
    "cuda": _to_device,
    "size": torch.Size,
    "deque": lambda value: deque((decode_state(item) for item in value[0]), maxlen=value[1]),
    "set": lambda items: {decode_state(item) for item in items},
    "frozenset": lambda items: frozenset(decode_state(item) for item in items),
    "path": Path,
    "array": lambda tensor: tensor.numpy(),
    "number": lambda tensor: tensor.numpy()[()],
    "counter": lambda value: Counter(decode_state(value)),
    "dict": lambda items: {key: decode_state(item) for key, item in items},
    "ordered": lambda items: OrderedDict((key, decode_state(item)) for key, item in items),
}


if not TYPE_CHECKING:  # it would make every name there could be one of type Any
    __getattr__ = moved_names(__name__)
