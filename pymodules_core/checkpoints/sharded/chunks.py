"""The pieces of tensors in a shard, a file of safetensors, and where they begin in whole ones.

Only tables of numbers are read: nothing in such a file can be executed.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import safetensors.torch
import torch

# Under which torch keeps where a shard's tensors begin in the whole ones.
_PLACES = "DCP_SHARDING_INFO"
# A file begins with the length of its table of contents; in that are texts of the writer's.
LENGTH_BYTES = 8
TEXTS_KEY = "__metadata__"

Slices = tuple[slice, ...]


@attrs.frozen
class Chunk:
    """A part of a tensor in a file.

    Attributes:
        name: The tensor's name in the shards.
        offsets: Where it begins in the whole tensor.
        shape: Its shape.
        read: Given slices of it, gives their values.
    """

    name: str
    offsets: tuple[int, ...]
    shape: tuple[int, ...]
    read: Callable[[Slices], torch.Tensor]


def chunks_in_file(path: Path) -> Iterator[Chunk]:
    """Return the pieces of a file every byte of which was verified: it is mapped."""
    file: Any = safetensors.safe_open(path, framework="pt", device="cpu")
    places = _places(file.metadata())
    for name in file.keys():  # noqa: SIM118  no mapping
        shape = tuple(file.get_slice(name).get_shape())
        yield Chunk(name, _offsets(places, name, shape), shape, partial(_read_mapped, file, name))


def chunks_in_bytes(content: bytes) -> Iterator[Chunk]:
    """Return the pieces of a file that is in memory: anybody's, which is never mapped."""
    tensors = safetensors.torch.load(content)
    # `load` has seen that it is whole.
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    header = json.loads(content[LENGTH_BYTES : LENGTH_BYTES + length])
    places = _places(header.get(TEXTS_KEY))
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape)
        yield Chunk(name, _offsets(places, name, shape), shape, tensor.__getitem__)


def _places(texts: Any) -> Any:
    return json.loads((texts or {}).get(_PLACES, "{}"))


def _offsets(places: Any, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    found = places.get(name, {}).get("saved_offsets", [0] * len(shape))
    return tuple(int(offset) for offset in found)


def _read_mapped(file: Any, name: str, slices: Slices) -> torch.Tensor:
    # A scalar has no slices.
    values: torch.Tensor = file.get_slice(name)[slices] if slices else file.get_tensor(name)
    return values
