"""What a pickle of weights may name, what stands for it on the walk, and what is refused."""

import sys
from typing import Any

import attrs
import torch

_MOST_DIMENSIONS = 64
ELEMENT_BYTES = {
    "torch.ComplexDoubleStorage": 16,
    **dict.fromkeys(["torch.DoubleStorage", "torch.LongStorage", "torch.ComplexFloatStorage"], 8),
    **dict.fromkeys(["torch.FloatStorage", "torch.IntStorage", "torch.QInt32Storage"], 4),
    **dict.fromkeys(["torch.HalfStorage", "torch.BFloat16Storage", "torch.ShortStorage"], 2),
    **dict.fromkeys(["torch.CharStorage", "torch.ByteStorage", "torch.BoolStorage"], 1),
    **dict.fromkeys(["torch.QInt8Storage", "torch.QUInt8Storage"], 1),
    **dict.fromkeys(["torch.QUInt4x2Storage", "torch.QUInt2x4Storage"], 1),
    **dict.fromkeys(["torch.storage.UntypedStorage", "torch.UntypedStorage"], 1),
}
TENSOR_TYPES = {"torch.Tensor", "torch.nn.parameter.Parameter"}


class ForeignObjectError(Exception):
    """A pickle names what is neither tensor nor primitive.

    Args:
        name: Its name, or None where a newer pickle hides it.
    """

    def __init__(self, name: str | None) -> None:
        super().__init__(name)
        self.name = name


class StrangeContentError(Exception):
    """A pickle makes tensors and primitives as no state dict holds them.

    Args:
        what: What is wrong, as the message says it.
        fix: What to do, where it is not to save it again.
    """

    def __init__(self, what: str, *, fix: str | None = None) -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


@attrs.frozen
class Global:
    """What a pickle names: a function, type or dtype.

    Attributes:
        name: Its package and name, as of Python 3.
    """

    name: str


@attrs.frozen
class Storage:
    """The memory of tensors.

    Attributes:
        key: The entry that holds it.
        element_bytes: Of one element.
    """

    key: str
    element_bytes: int


class Made:
    """Stands for a tensor, or for what is refused later with its key."""


def of_type(value: Any, kind: type) -> Any:
    """Return a value of exactly this type.

    Raises:
        TypeError: It is of another: the pickle is damaged.
    """
    if type(value) is not kind:
        raise TypeError(f"{type(value).__name__} in the place of {kind.__name__}")
    return value


def lengths_of(value: Any) -> tuple[int, ...]:
    """Return a shape.

    Raises:
        TypeError, ValueError: No tensor has it.
    """
    lengths: tuple[int, ...] = of_type(value, tuple)
    if len(lengths) > _MOST_DIMENSIONS or not all(
        type(length) is int and 0 <= length <= sys.maxsize for length in lengths
    ):
        raise ValueError("a shape is none that a tensor has")
    return lengths


def storage_of(reference: Any) -> Storage:
    """Return the storage that a persistent id of ``torch.save`` refers to.

    Raises:
        ForeignObjectError: It refers to something else.
    """
    kind, storage_type, key, *_ = of_type(reference, tuple)
    name = of_type(storage_type, Global).name
    if kind != "storage" or name not in ELEMENT_BYTES:
        raise ForeignObjectError(name)
    return Storage(of_type(key, str), ELEMENT_BYTES[name])


def constant_of(name: str) -> torch.dtype | torch.qscheme | None:
    """Return the dtype or quantization scheme of this name, or None."""
    package, _, attribute = name.rpartition(".")
    found = vars(torch).get(attribute) if package == "torch" else None
    return found if isinstance(found, torch.dtype | torch.qscheme) else None


def refuse_hidden(state: Any, owner: type) -> None:
    """Refuse attributes that hide those of a class, such as ``items`` or ``detach``.

    Raises:
        StrangeContentError: There is one.
    """
    for key in of_type(state, dict):
        if not isinstance(key, str) or hasattr(owner, key):
            raise StrangeContentError(
                f"sets {ascii(key)[:40]} of {owner.__name__}, which hides what the class does"
            )
