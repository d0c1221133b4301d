"""What a state dict says, however a file says it: distinct tensors, and a digest of everything."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from blake3 import blake3

from pymodules_core.checkpoints.fingerprints import memory_of
from pymodules_core.checkpoints.state_dicts import tensors_in


class Content:
    """Keys, dtypes, shapes, ties and primitives of a state dict, without the bytes of its tensors.

    The order of keys says nothing; which keys are one tensor does.

    Args:
        state: Keys to strided tensors on any device and to nested primitives, which may hold
            further tensors; ``_metadata`` counts.

    Attributes:
        tensors: The distinct tensors, in the order in which ``torch.save`` meets them.
        outline: All the rest as text: equal outlines differ at most in the values of tensors.
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        distinct = {identity_of(tensor): tensor for tensor in tensors_in(state)}
        self.tensors = list(distinct.values())
        self._positions = {identity: position for position, identity in enumerate(distinct)}
        self._numbers: dict[object, int] = {}
        encoded = [self._encode(state), self._encode(getattr(state, "_metadata", None))]
        self.outline = json.dumps(encoded, separators=(",", ":"))

    def digest_now(self) -> str:
        """Give the digest of this content, reading all tensors."""
        memories = [memory_of(tensor_bytes(tensor)) for tensor in self.tensors]
        return self.digest([blake3(m, max_threads=blake3.AUTO).digest() for m in memories])

    def digest(self, tensor_digests: Sequence[bytes]) -> str:
        """Give the digest that names this content.

        Args:
            tensor_digests: Of the bytes of each of ``tensors``.
        """
        hasher = blake3(self.outline.encode())
        for identity in self._numbers:
            hasher.update(tensor_digests[self._positions[identity]])
        return hasher.hexdigest()

    def _encode(self, value: Any) -> list[Any]:
        if isinstance(value, torch.Tensor):
            number = self._numbers.setdefault(identity_of(value), len(self._numbers))
            return ["tensor", str(value.dtype), list(value.shape), number]
        if isinstance(value, Mapping):
            # Sorted before values are met, so that the numbers of tensors do not hang on the order.
            keys = sorted((json.dumps(self._encode(key)), key) for key in value)
            return ["dict", [[text, self._encode(value[key])] for text, key in keys]]
        if isinstance(value, list | tuple):
            kind = "list" if isinstance(value, list) else "tuple"
            return [kind, [self._encode(item) for item in value]]
        if isinstance(value, float):
            return ["float", value.hex()]
        if isinstance(value, bytes):
            return ["bytes", value.hex()]
        return [type(value).__name__, value]


def tensor_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Give the bytes of a tensor in order, as ``(bytes,)`` uint8; a copy only if it has gaps."""
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    if not plain.numel():
        return torch.empty(0, dtype=torch.uint8)
    # Not `view(-1)`: a single element counts as contiguous with any stride, and keeps it.
    return plain.as_strided((plain.numel(),), (1,)).view(torch.uint8)


def identity_of(tensor: torch.Tensor) -> object:
    """Give what two names of one tensor have in common, and two tensors do not."""
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
