"""Puts shards together: into whole tensors, or into the parts that a process needs of them.

Only tables of numbers are read of a shard, a file of safetensors: nothing in it can be executed.
"""

import json
import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import attrs
import safetensors.torch
import torch

from pymodules_core.checkpoints.sharded.index import (
    FORMAT,
    FORMAT_KEY,
    STATE_KEY,
    iter_notes,
    join,
    name_in,
)
from pymodules_core.errors import CheckpointFileError
from pymodules_core.processes.dtensor import (
    empty_local_tensor,
    is_dtensor,
    local_tensor,
    offsets_of,
)

# Under which torch keeps where a shard's tensors begin in the whole ones.
_PLACES = "DCP_SHARDING_INFO"
# A file begins with the length of its table of contents; in that are texts of the writer's.
LENGTH_BYTES = 8
TEXTS_KEY = "__metadata__"

Slices = tuple[slice, ...]
# Given the keys that lead to a tensor, gives one like it, or None.
Like = Callable[[tuple[str, ...]], "torch.Tensor | None"]


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
    """Return the chunks of a file every byte of which was verified: it is mapped."""
    file: Any = safetensors.safe_open(path, framework="pt", device="cpu")
    places = _places(file.metadata())
    for name in file.keys():  # noqa: SIM118  no mapping
        shape = tuple(file.get_slice(name).get_shape())
        yield Chunk(name, _offsets(places, name, shape), shape, partial(_read_mapped, file, name))


def chunks_in_bytes(content: bytes) -> Iterator[Chunk]:
    """Return the chunks of a file that is in memory: anybody's, which is never mapped."""
    tensors = safetensors.torch.load(content)
    # `load` has seen that it is whole.
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    header = json.loads(content[LENGTH_BYTES : LENGTH_BYTES + length])
    places = _places(header.get(TEXTS_KEY))
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape)
        yield Chunk(name, _offsets(places, name, shape), shape, tensor.__getitem__)


def read_shards(
    index: Mapping[str, Any],
    shards: Iterable[Iterable[Chunk]],
    *,
    source: Path,
    like: Like | None = None,
) -> "OrderedDict[str, Any]":
    """Read a state dict.

    Args:
        index: What ``index_of`` gave.
        shards: The chunks of each file.
        source: The file of the index, for messages.
        like: Of a tensor that is sharded only this process's part is read.

    Raises:
        CheckpointFileError: These are not shards of that index, or it is of a newer format.
    """
    try:
        if index[FORMAT_KEY] != FORMAT:
            raise CheckpointFileError(
                f"is an index of format {index[FORMAT_KEY]}, and this version reads {FORMAT}",
                file=source,
                found=index[FORMAT_KEY],
                fix="pip install -U pymodules-core",
            )
        chunks: dict[str, list[Chunk]] = defaultdict(list)
        for shard in shards:
            for chunk in shard:
                chunks[chunk.name].append(chunk)
        for note in iter_notes(index[STATE_KEY]):
            _check_coverage(note, chunks[name_in(note)])
        state: OrderedDict[str, Any] = join(index[STATE_KEY], _Reader(chunks, like))
        if not isinstance(state, dict):
            raise TypeError(f"its state is {type(state).__name__}")
    except CheckpointFileError:
        raise
    except (
        *(KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError),
        safetensors.SafetensorError,
    ) as error:
        raise CheckpointFileError(
            f"does not fit its shards: {type(error).__name__}: {error}",
            file=source,
            fix="pymodules ckpt verify says what is damaged",
        ) from error
    return state


def _places(texts: Any) -> Any:
    return json.loads((texts or {}).get(_PLACES, "{}"))


def _offsets(places: Any, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    found = places.get(name, {}).get("saved_offsets", [0] * len(shape))
    return tuple(int(offset) for offset in found)


def _read_mapped(file: Any, name: str, slices: Slices) -> torch.Tensor:
    # A scalar has no slices.
    values: torch.Tensor = file.get_slice(name)[slices] if slices else file.get_tensor(name)
    return values


class _Reader:
    """Gives the tensor of a note; one that stands in several places once."""

    def __init__(self, chunks: Mapping[str, list[Chunk]], like: Like | None) -> None:
        self._chunks = chunks
        self._like = like
        self._made: dict[str, torch.Tensor] = {}

    def __call__(self, note: Mapping[str, Any], path: tuple[str, ...]) -> torch.Tensor:
        name = name_in(note)
        if name not in self._made:
            self._made[name] = self._read(note, path)
        return self._made[name]

    def _read(self, note: Mapping[str, Any], path: tuple[str, ...]) -> torch.Tensor:
        shape, dtype = torch.Size(note["shape"]), getattr(torch, note["dtype"])
        like = self._like(path) if self._like is not None else None
        if like is not None and is_dtensor(like) and like.shape == shape:
            tensor = empty_local_tensor(like, dtype)
            target, offsets = local_tensor(tensor), offsets_of(like)
        else:
            target = tensor = torch.empty(shape, dtype=dtype)
            offsets = (0,) * len(shape)
        for chunk in self._chunks[name_in(note)]:
            _copy_overlap(chunk, target, offsets)
        return tensor


def _check_coverage(note: Mapping[str, Any], chunks: Sequence[Chunk]) -> None:
    """Refuse chunks that do not form a partition, before memory is taken for what an index claims.

    Where they left a gap, what the memory held before would be taken for weights.
    """
    shape = tuple(int(size) for size in note["shape"])
    filled = [chunk for chunk in chunks if math.prod(chunk.shape)]
    for chunk in filled:
        ends = map(sum, zip(chunk.offsets, chunk.shape, strict=True))
        is_inside = len(chunk.shape) == len(shape) and all(
            start >= 0 and end <= size
            for start, end, size in zip(chunk.offsets, ends, shape, strict=True)
        )
        if not is_inside:
            raise ValueError(f"a part of {name_in(note)} lies outside of it")
    there = sum(math.prod(chunk.shape) for chunk in filled)
    if there != math.prod(shape) or min(shape, default=0) < 0:
        raise ValueError(f"of {name_in(note)} {there:,} of {math.prod(shape):,} elements are there")
    if _overlap(filled, shape):
        raise ValueError(f"two parts of {name_in(note)} overlap")


def _overlap(chunks: Sequence[Chunk], shape: Sequence[int]) -> bool:
    if all(chunk.shape[1:] == shape[1:] for chunk in chunks):  # rows, which is nearly always so
        rows = sorted((chunk.offsets[:1], chunk.shape[:1]) for chunk in chunks)
        return any(a[0] + count[0] > b[0] for (a, count), (b, _) in pairwise(rows) if a and count)
    return any(
        all(
            max(a, b) < min(a + a_size, b + b_size)
            for a, a_size, b, b_size in zip(
                one.offsets, one.shape, other.offsets, other.shape, strict=True
            )
        )
        for one, other in combinations(chunks, 2)
    )


def _copy_overlap(chunk: Chunk, target: torch.Tensor, offsets: Sequence[int]) -> None:
    """Copy what a chunk and a target have in common."""
    if not target.numel() or not math.prod(chunk.shape):
        return
    source_slices, target_slices = [], []
    for begins, size, own_begins, own_size in zip(
        chunk.offsets, chunk.shape, offsets, target.shape, strict=True
    ):
        start, stop = max(begins, own_begins), min(begins + size, own_begins + own_size)
        if start >= stop:
            return
        source_slices.append(slice(start - begins, stop - begins))
        target_slices.append(slice(start - own_begins, stop - own_begins))
    values = chunk.read(tuple(source_slices))
    if values.dtype != target.dtype:  # a copy would convert it
        raise ValueError(f"{chunk.name} is {values.dtype}, and the index says {target.dtype}")
    target[tuple(target_slices)].copy_(values)
