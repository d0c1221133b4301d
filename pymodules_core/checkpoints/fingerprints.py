"""Tells whether tensors changed since they were looked at last.

XXH3 reads memory about as fast as it comes, where the digest that names an object takes several
times as long, and a comparison would read two copies. Its 128 bits are evidence against chance and
no identity: nothing is named by them, and none reaches the disk.
"""

import ctypes
from collections.abc import Iterator

import torch
from xxhash import xxh3_128_digest

# So long that a thread seldom has to ask for the interpreter again, so short that several passes
# over one find it in the cache.
PIECE_BYTES = 1 << 22
# The first is short: weights that were trained differ in it already.
_HEAD_BYTES = 1 << 14


def fingerprint(piece: memoryview) -> bytes:
    """Give 16 bytes that differ where two pieces differ."""
    return xxh3_128_digest(piece)


def pieces_in(memory: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Cut memory into pieces: the offset of each, and its bytes."""
    starts = [0, *range(_HEAD_BYTES, len(memory), PIECE_BYTES)]
    for start, stop in zip(starts, [*starts[1:], len(memory)], strict=True):
        yield start, memory[start:stop]


def memory_of(content: torch.Tensor) -> memoryview:
    """Give the memory of a tensor ``(bytes,)`` of uint8; of a copy where it is on a device."""
    on_cpu = content.cpu()
    # As `on_cpu.numpy()`, but numpy need not be there.
    array = (ctypes.c_ubyte * on_cpu.numel()).from_address(on_cpu.data_ptr())
    array.owner = on_cpu  # type: ignore[attr-defined]  # lives as long as what looks at it
    return memoryview(array).cast("B")
