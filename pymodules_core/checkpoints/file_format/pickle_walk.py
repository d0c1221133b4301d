"""``PickleWalk``: what a pickle would make, followed operation by operation; nothing is executed.

torch's ``weights_only`` allows more than weights need: ``bytearray(2 << 30)``, an encoding that
takes quadratic time, attributes that hide methods. The walk lets only through what a state dict
needs. What operations do is in the comments of CPython's ``Lib/pickletools.py``.
"""

import math
import pickletools
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch

from pymodules_core.checkpoints.file_format.pickle_values import (
    ELEMENT_BYTES,
    TENSOR_TYPES,
    ForeignObjectError,
    Global,
    Made,
    Storage,
    StrangeContentError,
    constant_of,
    lengths_of,
    of_type,
    refuse_hidden,
    storage_of,
)

# What CPython takes for each, and at most loses to rounding up.
_REFERENCE_BYTES, _ALLOCATION_BYTES = 8, 32
_CONTAINER_BYTES, _ITEM_BYTES, _ORDERED_DICT_BYTES = 72, 100, 240
# Numbers can be chosen so that a dict of them takes quadratic time; those of 0, 1, 2, … cannot.
_MOST_NUMBER_KEYS = 10_000
_MOST_FLAGS = 4


class PickleWalk:
    """The stack of an unpickler, with a stand-in for each tensor.

    Args:
        budget_bytes: What all objects together may take, and what all tensors together may claim.
    """

    def __init__(self, *, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._object_bytes = 0
        self._claimed_bytes = 0
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._number_keys = 0
        self._storages: dict[str, Storage] = {}
        self._claims: set[tuple[Any, ...]] = set()
        self._steps: dict[str, Callable[[Any], None]] = {
            **dict.fromkeys(["PROTO", "STOP"], lambda _: None),
            **dict.fromkeys(["NONE", "NEWTRUE", "NEWFALSE", "BININT1"], self._refer),
            **dict.fromkeys(["BININT", "BININT2", "LONG1", "BINFLOAT"], self._push),
            **dict.fromkeys(["BINUNICODE", "SHORT_BINSTRING"], self._push),
            **dict.fromkeys(["BINPUT", "LONG_BINPUT"], self._remember),
            **dict.fromkeys(["BINGET", "LONG_BINGET"], lambda key: self._refer(self._memo[key])),
            **{f"TUPLE{length}": partial(self._tuple, length) for length in (1, 2, 3)},
            "EMPTY_TUPLE": lambda _: self._refer(()),
            "EMPTY_LIST": lambda _: self._push([]),
            "EMPTY_DICT": lambda _: self._push({}),
            "EMPTY_SET": lambda _: self._push(Made(), 3 * _CONTAINER_BYTES),
            "MARK": self._mark,
            "TUPLE": lambda _: self._push(tuple(self._pop_mark())),
            "APPEND": lambda _: self._extend([self._stack.pop()]),
            "APPENDS": lambda _: self._extend(self._pop_mark()),
            "SETITEM": lambda _: self._set_items([self._stack.pop(-2), self._stack.pop()]),
            "SETITEMS": lambda _: self._set_items(self._pop_mark()),
            "GLOBAL": self._find,
            "BINPERSID": lambda _: self._push(self._storage(self._stack.pop())),
            "REDUCE": lambda _: self._push(self._call(self._stack.pop(-2), self._stack.pop())),
            "BUILD": self._build,
        }

    def follow(self, content: bytes) -> None:
        """Follow all operations of a pickle.

        Raises:
            ForeignObjectError: It names what could run code, or one is none that ``torch.save``
                writes.
            StrangeContentError: It makes what no state dict holds, or too much.
            Exception: The pickle is damaged.
        """
        for operation, argument, _ in pickletools.genops(content):
            if (step := self._steps.get(operation.name)) is None:
                raise ForeignObjectError(None)
            step(argument)
            if self._object_bytes > self._budget_bytes:
                raise StrangeContentError(
                    "describes far more lists, dicts and numbers than weights need"
                )

    def _refer(self, value: Any) -> None:
        self._stack.append(value)
        self._object_bytes += _REFERENCE_BYTES

    def _push(self, value: Any, size_bytes: int | None = None) -> None:
        self._stack.append(value)
        self._object_bytes += size_bytes or sys.getsizeof(value) + _ALLOCATION_BYTES

    def _mark(self, _: None) -> None:
        self._outer.append(self._stack)
        self._stack = []
        self._object_bytes += _CONTAINER_BYTES

    def _pop_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._outer.pop()
        return items

    def _tuple(self, length: int, _: None) -> None:
        items = self._stack[-length:]
        del self._stack[-length:]
        self._push(tuple(items))

    def _extend(self, items: list[Any]) -> None:
        of_type(self._stack[-1], list).extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise TypeError("an item is set in what is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._check_key(key, place=len(target))
            target[key] = value

    def _check_key(self, key: Any, *, place: int) -> None:
        """Refuse a key of a dict, or an item of a set, whose hash may be chosen."""
        self._object_bytes += _ITEM_BYTES
        if isinstance(key, int | float) and key != place:
            self._number_keys += 1
        if isinstance(key, tuple):
            raise StrangeContentError("has a key of type tuple, expected str")
        if self._number_keys > _MOST_NUMBER_KEYS:
            raise StrangeContentError(
                f"has over {_MOST_NUMBER_KEYS:,} number keys, which can be chosen to be slow"
            )

    def _remember(self, key: int) -> None:
        if key != len(self._memo):  # others can be chosen to be slow
            raise ValueError("its memo is not numbered as pickle does")
        self._memo[key] = self._stack[-1]
        self._object_bytes += _ITEM_BYTES

    def _find(self, words: str) -> None:
        package, _, name = words.partition(" ")
        # Of Python 2, whose names pickles of protocol 2 still have.
        package, name = NAME_MAPPING.get(
            (package, name), (IMPORT_MAPPING.get(package, package), name)
        )
        found = f"{package}.{name}"
        if not (
            found in _CALLS
            or found in ELEMENT_BYTES
            or found in TENSOR_TYPES
            or constant_of(found) is not None
        ):
            raise ForeignObjectError(found)
        self._push(Global(found))

    def _call(self, function: Any, arguments: Any) -> Any:
        name = of_type(function, Global).name
        if name not in _CALLS:
            raise ForeignObjectError(name)
        return _CALLS[name](self, *of_type(arguments, tuple))

    def _build(self, _: None) -> None:
        state = self._stack.pop()
        self._refuse_hidden(state, type(of_type(self._stack[-1], OrderedDict)))

    def _refuse_hidden(self, state: Any, owner: type) -> None:
        self._object_bytes += _ITEM_BYTES * len(of_type(state, dict))
        refuse_hidden(state, owner)

    def _storage(self, reference: Any) -> Storage:
        found = storage_of(reference)
        # torch takes the first for all of one key.
        if self._storages.setdefault(found.key, found) != found:
            raise ValueError("one storage has two types")
        return found

    def make_ordered_dict(self) -> "OrderedDict[Any, Any]":
        """Return an empty one, which is how pickles make them."""
        self._object_bytes += _ORDERED_DICT_BYTES
        return OrderedDict()

    def make_counter(self, items: Any) -> Made:
        """Return a counter, as schedulers keep their milestones."""
        self._object_bytes += _ORDERED_DICT_BYTES + _ITEM_BYTES * len(of_type(items, dict))
        return Made()

    def make_tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *extras: Any) -> Made:
        """Return a tensor of its storage's dtype, and claim its bytes."""
        element_bytes = of_type(storage, Storage).element_bytes
        return self._claim(element_bytes, storage.key, offset, size, stride, extras)

    def make_tensor_v3(self, *parts: Any) -> Made:
        """Return a tensor that says its dtype, and claim its bytes."""
        storage, offset, size, stride, requires_grad, hooks, dtype, *metadata = parts
        found = of_type(constant_of(of_type(dtype, Global).name), torch.dtype)
        extras = (requires_grad, hooks, *metadata)
        key = of_type(storage, Storage).key
        return self._claim(found.itemsize, key, offset, size, stride, extras)

    def make_quantized(
        self, storage: Any, offset: Any, size: Any, stride: Any, scheme: Any, *_rest: Any
    ) -> Made:
        """Return a quantized tensor, of whose scheme torch would make tensors of lists."""
        if not all(isinstance(one, Global | Made | int | float) for one in of_type(scheme, tuple)):
            raise ValueError("a quantized tensor has no scheme")
        return self.make_tensor(storage, offset, size, stride)

    def make_sparse(self, _layout: Any, parts: Any) -> Made:
        """Return a sparse tensor: torch would make tensors of lists among its parts."""
        for part in of_type(parts, tuple):
            if not isinstance(part, Made | bool | None):
                lengths_of(part)
        return Made()

    def make_parameter(self, data: Any, _requires_grad: Any, _hooks: Any, *state: Any) -> Made:
        """Return a parameter; ``state`` are its attributes where it has some."""
        for one in state:
            self._refuse_hidden(one, torch.nn.Parameter)
        return cast("Made", of_type(data, Made))

    def make_of_type(self, function: Any, kind: Any, arguments: Any, state: Any) -> Made:
        """Return a tensor that has attributes."""
        if of_type(kind, Global).name not in TENSOR_TYPES:
            raise ForeignObjectError(kind.name)
        self._refuse_hidden(state, torch.nn.Parameter)
        return cast("Made", of_type(self._call(function, arguments), Made))

    def make_set(self, items: Any) -> Made:
        """Return a set."""
        for place, item in enumerate(of_type(items, list)):
            self._check_key(item, place=place)
        return Made()

    def make_bytes(self, text: Any, encoding: Any) -> bytes:
        """Return bytes, from the encoding that pickle uses for them."""
        if encoding != "latin1":
            raise StrangeContentError("encodes a text in another way than torch.save does")
        return cast("str", of_type(text, str)).encode(encoding)

    def _claim(
        self,
        element_bytes: int,
        key: str,
        offset: Any,
        size: Any,
        stride: Any,
        extras: tuple[Any, ...],
    ) -> Made:
        # Whether it requires a gradient, hooks that nobody saves, and a few flags.
        if any(isinstance(one, dict) and len(one) > _MOST_FLAGS for one in extras):
            raise StrangeContentError("has a tensor with hooks")
        lengths = lengths_of(size)
        view = (key, offset, lengths, lengths_of(stride), element_bytes)
        if view not in self._claims:  # else a tie
            self._claims.add(view)
            self._claimed_bytes += element_bytes * math.prod(lengths)
        if self._claimed_bytes > self._budget_bytes:
            raise StrangeContentError(
                f"claims {self._claimed_bytes:,} bytes in its tensors, far more than it has",
                fix="save them whole: tensor.contiguous()",
            )
        return Made()


def _made_later(*_: Any) -> Made:
    """Stand for what is refused with its key once it is made: a meta tensor, a device."""
    return Made()


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": PickleWalk.make_ordered_dict,
    "collections.Counter": PickleWalk.make_counter,
    "torch._utils._rebuild_tensor": PickleWalk.make_tensor,
    "torch._utils._rebuild_tensor_v2": PickleWalk.make_tensor,
    "torch._utils._rebuild_tensor_v3": PickleWalk.make_tensor_v3,
    "torch._utils._rebuild_qtensor": PickleWalk.make_quantized,
    "torch._utils._rebuild_parameter": PickleWalk.make_parameter,
    "torch._utils._rebuild_parameter_with_state": PickleWalk.make_parameter,
    "torch._utils._rebuild_sparse_tensor": PickleWalk.make_sparse,
    "torch._utils._rebuild_meta_tensor_no_storage": _made_later,
    "torch._tensor._rebuild_from_type_v2": PickleWalk.make_of_type,
    "torch.serialization._get_layout": _made_later,
    "torch.device": _made_later,
    "torch.Size": lambda _, lengths: lengths_of(lengths),
    "builtins.complex": _made_later,
    "builtins.set": PickleWalk.make_set,
    "_codecs.encode": PickleWalk.make_bytes,
}
