"""What a state dict says, however a file says it: distinct tensors, and a digest of everything."""

import ctypes
import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from blake3 import blake3

from pymodules_core.checkpoints.file_format.state_dict import tensors_in


class Content:
    """Keys, dtypes, shapes, ties and primitives of a state dict, without the bytes of its tensors.

    The order of keys says nothing; which keys are one tensor does.

    Args:
        state: Keys to strided tensors on any device and to nested primitives, which may hold
            further tensors; ``_metadata`` counts.

    Attributes:
        tensors: The distinct tensors, in the order in which ``torch.save`` meets them.
        outline: All the rest: contents of equal outlines differ at most in the values of tensors.
        order: Which of ``tensors`` the outline calls 0, 1, 2, …
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.tensors: list[torch.Tensor] = []
        positions: dict[object, int] = {}
        self._positions: dict[int, int] = {}
        for tensor in tensors_in(state):
            position = positions.setdefault(identity_of(tensor), len(positions))
            if position == len(self.tensors):
                self.tensors.append(tensor)
            self._positions[id(tensor)] = position
        # Position of a tensor to its number in the outline, where keys come sorted.
        self._numbers: dict[int, int] = {}
        self.outline = [self._encode(state), self._encode(getattr(state, "_metadata", None))]
        self.order = list(self._numbers)

    @property
    def is_on_cpu(self) -> bool:
        """Whether all tensors are, so that their memory can be read where it is."""
        return all(tensor.device.type == "cpu" for tensor in self.tensors)

    def digest_now(self) -> str:
        """Return the digest of this content, reading all tensors."""
        memories = (memory_of(self.tensors[position]) for position in self.order)
        return digest_of(
            self.outline, [blake3(m, max_threads=blake3.AUTO).digest() for m in memories]
        )

    def _encode(self, value: Any) -> list[Any]:
        if isinstance(value, torch.Tensor):
            number = self._numbers.setdefault(self._positions[id(value)], len(self._numbers))
            return ["tensor", str(value.dtype), list(value.shape), number]
        if isinstance(value, Mapping):
            # Sorted before values are met, so that the numbers of tensors do not hang on the order.
            keys = sorted((_encode_key(key), key) for key in value)
            return ["dict", [[text, self._encode(value[key])] for text, key in keys]]
        if isinstance(value, list | tuple):
            kind = "list" if isinstance(value, list) else "tuple"
            return [kind, [self._encode(item) for item in value]]
        return _encode_primitive(value)


def digest_of(outline: list[Any], tensor_digests: Iterable[bytes]) -> str:
    """Return the digest that names a content.

    Args:
        outline: Its outline.
        tensor_digests: Of the bytes of each tensor, in the order of the outline.
    """
    hasher = blake3(json.dumps(outline, separators=(",", ":")).encode())
    for digest in tensor_digests:
        hasher.update(digest)
    return hasher.hexdigest()


def _encode_primitive(value: Any) -> list[Any]:
    if isinstance(value, float):
        return ["float", value.hex()]
    if isinstance(value, bytes):
        return ["bytes", value.hex()]
    return [type(value).__name__, value]


def _encode_key(key: Any) -> str:
    # Most keys are text, and many: the same as below, in a tenth of the time.
    if isinstance(key, str) and key.isascii() and key.isprintable() and not {'"', "\\"} & {*key}:
        return f'["str", "{key}"]'
    return json.dumps(_encode_primitive(key))


def memory_of(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a tensor in order; of a copy where it has gaps or is on a device."""
    plain = tensor.detach()
    if plain.is_conj() or plain.is_neg():
        plain = plain.resolve_conj().resolve_neg()
    plain = plain.contiguous().cpu()
    if not plain.numel():
        return memoryview(b"")
    # As its `numpy()`, but numpy need not be there and knows fewer dtypes. A single element counts
    # as contiguous with any stride: only where it begins matters.
    array = (ctypes.c_ubyte * (plain.numel() * plain.element_size())).from_address(plain.data_ptr())
    array.owner = plain  # type: ignore[attr-defined]  # lives as long as what looks at it
    return memoryview(array).cast("B")


def identity_of(tensor: torch.Tensor) -> object:
    """Return what two names of one tensor have in common, and two tensors do not."""
    if not tensor.numel():
        return id(tensor)
    return (
        tensor.untyped_storage().data_ptr(),
        tensor.storage_offset(),
        tensor.shape,
        tensor.stride(),
        tensor.dtype,
        tensor.device,
        tensor.is_conj(),
        tensor.is_neg(),
    )
