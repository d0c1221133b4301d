"""Checksums: whether every byte of a file is still what was written.

XXH3 reads memory about as fast as it comes, where BLAKE3 takes several times as long; a file is
hashed once and read often. Its 128 bits are evidence against chance, a flipped bit or a torn write,
and no identity: contents are named by BLAKE3. Nor would a slower checksum keep out a person who
means harm, since whoever can change a file can change the record beside it.
"""

import os
import stat
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, cast

from xxhash import xxh3_128, xxh3_128_digest

from pymodules_core.checkpoints.store.zip_layout import (
    MemoryFile,
    TensorRange,
    find_tensor_ranges,
    is_archive,
)

# So long that a thread seldom has to ask for the interpreter again, so short that several passes
# over one find it in the cache.
CHUNK_BYTES = 1 << 22
# The first is short: weights that were trained differ in it already.
_HEAD_BYTES = 1 << 14
# Less is read faster than other threads are started.
_WORTH_THREADS_BYTES = 1 << 24
_MOST_THREADS = 4


def fingerprint(chunk: memoryview) -> bytes:
    """Return 16 bytes that differ where two chunks differ."""
    return xxh3_128_digest(chunk)


def cuts_of(size_bytes: int) -> Iterator[tuple[int, int]]:
    """Cut a tensor of a size into chunks: start and stop of each."""
    starts = [0, *range(_HEAD_BYTES, size_bytes, CHUNK_BYTES)]
    return zip(starts, [*starts[1:], size_bytes], strict=True)


def chunks_in(memory: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Cut memory into chunks: the offset of each, and its bytes."""
    return ((start, memory[start:stop]) for start, stop in cuts_of(len(memory)))


def checksum_of_parts(
    frame: Iterable[memoryview | bytes], fingerprints: Mapping[int, bytes]
) -> str:
    """Return the checksum over every byte of a file.

    Args:
        frame: What lies before, between and behind the tensors, in the order of the file.
        fingerprints: Of every chunk of every tensor, by its offset in the file.
    """
    checksum = xxh3_128()
    for part in frame:
        checksum.update(len(part).to_bytes(8, "little"))
        checksum.update(part)
    for offset in sorted(fingerprints):
        checksum.update(fingerprints[offset])
    return checksum.hexdigest()


def gaps_between(ranges: Sequence[TensorRange], size_bytes: int) -> list[tuple[int, int]]:
    """Return start and stop of what lies before, between and behind the tensors of a file."""
    starts = [0, *(one.stop for one in ranges)]
    return list(zip(starts, [*(one.start for one in ranges), size_bytes], strict=True))


def checksum_of_bytes(content: memoryview) -> str:
    """Return what ``checksum_of_file`` returns of a file with these bytes."""
    frame, chunks = _split(cast("IO[bytes]", MemoryFile(content)), len(content))
    return checksum_of_parts(
        frame, {start: fingerprint(content[start:stop]) for start, stop in chunks}
    )


def checksum_of_file(path: Path) -> str:
    """Read a file and return its checksum.

    By reads and not through a mapping: a file that is cut meanwhile would end the process.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not a file, or is cut meanwhile.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would keep the reader waiting
        raise ValueError("it is not a file")
    with path.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        frame, chunks = _split(file, size_bytes)
        read = partial(_fingerprints, file.fileno())
        count = min(_core_count(), _MOST_THREADS) if size_bytes >= _WORTH_THREADS_BYTES else 1
        if count == 1:
            return checksum_of_parts(frame, read(chunks))
        # Every other chunk, so that together they read the file from start to end.
        with ThreadPoolExecutor(count) as threads:
            parts = threads.map(read, (chunks[first::count] for first in range(count)))
            return checksum_of_parts(frame, dict(ChainMap(*parts)))


def checksum_if_readable(path: Path) -> str | None:
    """Return the checksum of a file, or None where it is not a checkpoint file that can be read."""
    try:
        return checksum_of_file(path)
    except (OSError, ValueError):
        return None


def _split(file: IO[bytes], size_bytes: int) -> tuple[list[bytes], list[tuple[int, int]]]:
    """Return what lies around the tensors of a file, and start and stop of each of their chunks."""
    ranges = _ranges_in(file, size_bytes)
    frame = []
    for start, stop in gaps_between(ranges, size_bytes):
        file.seek(start)
        frame.append(file.read(stop - start))
    return frame, [
        (one.start + start, one.start + stop)
        for one in ranges
        for start, stop in cuts_of(one.stop - one.start)
    ]


def _ranges_in(file: IO[bytes], size_bytes: int) -> list[TensorRange]:
    """Return where the tensors lie; of a layout that is not known, all bytes count as one."""
    whole = [TensorRange(0, 0, size_bytes, (0, 0))]
    if not is_archive(file.read(4)):  # a shard
        return whole
    try:
        ranges = find_tensor_ranges(file)
    except ValueError:
        return whole
    overlaps = any(start > stop for start, stop in gaps_between(ranges, size_bytes))
    return whole if overlaps else ranges


def _fingerprints(descriptor: int, chunks: Sequence[tuple[int, int]]) -> dict[int, bytes]:
    buffer = memoryview(bytearray(max((stop - start for start, stop in chunks), default=0)))
    found = {}
    for start, stop in chunks:
        chunk = buffer[: stop - start]
        filled = 0
        while filled < len(chunk):
            count = os.preadv(descriptor, [chunk[filled:]], start + filled)
            if not count:
                raise ValueError("it ends too early")
            filled += count
        found[start] = fingerprint(chunk)
    return found


def _core_count() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
