"""Writes files into the stage: what is final of one is on its way while the rest is hashed."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import attrs

from pymodules_core.checkpoints.store.file_system import Disk
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.names import CHECKPOINT_SUFFIX

if TYPE_CHECKING:
    from typing import Self

# Large enough that a direct write runs at the disk's speed.
CHUNK_BYTES = 1 << 22
# So that one can write while the other waits for a sync.
_THREADS = 2


class Finished(Protocol):
    """What names an object."""

    @property
    def digest(self) -> str:
        """Of the content."""

    @property
    def checksum(self) -> str:
        """Of every byte of the file."""


class OnFinal(Protocol):
    """Called with an offset below which every byte is final."""

    def __call__(self, offset: int, /) -> None:
        """Take note."""


class Source(Protocol):
    """What an object is written from; ``FileBuffer`` is one."""

    size_bytes: int
    pages: memoryview
    """The file's bytes, filled up to whole pages."""

    @property
    def finished(self) -> Finished | None:
        """Digest and checksum, where they are known."""

    @property
    def is_likely_stored(self) -> bool:
        """Whether to look for an object of this content before one is written."""

    def finish(self, on_final: OnFinal = ...) -> Finished:
        """Return digest and checksum; ``on_final`` learns which bytes will not change any more."""


@attrs.frozen(kw_only=True)
class Written:
    """A file in the stage; whole and synced once its ``StagedWrites`` has ended."""

    path: Path
    digest: str
    checksum: str
    size_bytes: int


class StagedWrites:
    """Writes sources into the stage, and ends when all of them are whole and synced there.

    Where a write fails, the block raises what the first one raised, once no other is running; what
    is in the stage is then left to recovery.

    Args:
        layout: Paths.
        disk: Changes the file system.
    """

    def __init__(self, layout: Layout, disk: Disk) -> None:
        self._layout = layout
        self._disk = disk
        self._count = 0
        self._threads: ThreadPoolExecutor | None = None
        self._ends: list[Future[None]] = []

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._threads is not None:
            self._threads.shutdown()
        faults = [fault for end in self._ends if (fault := end.exception()) is not None]
        if faults and error is None:
            raise faults[0]

    def write(self, source: Source) -> Written:
        """Write a source; small ones at once, large ones in other threads."""
        self._count += 1
        path = self._layout.stage / f"object-{self._count}{CHECKPOINT_SUFFIX}"
        is_large = source.size_bytes > CHUNK_BYTES
        descriptor = self._disk.create(path, direct=is_large)
        finished = (self._write_beside if is_large else self._write_now)(descriptor, source)
        return Written(
            path=path,
            digest=finished.digest,
            checksum=finished.checksum,
            size_bytes=source.size_bytes,
        )

    def _write_now(self, descriptor: int, source: Source) -> Finished:
        try:
            finished = source.finish()
            self._disk.write(descriptor, source.pages, 0)
            self._disk.shape(descriptor, size_bytes=source.size_bytes)
            self._disk.sync(descriptor)
        finally:
            os.close(descriptor)
        return finished

    def _write_beside(self, descriptor: int, source: Source) -> Finished:
        threads = self._threads = self._threads or ThreadPoolExecutor(_THREADS, "pymodules-disk")
        pages, position, writes = source.pages, 0, list[Future[None]]()

        def on_final(offset: int) -> None:
            nonlocal position
            stop = offset if offset == len(pages) else offset // CHUNK_BYTES * CHUNK_BYTES
            if stop > position:
                piece = pages[position:stop]
                writes.append(threads.submit(self._disk.write, descriptor, piece, position))
                position = stop

        size_bytes: int | None = None
        try:
            finished = source.finish(on_final)
            size_bytes = source.size_bytes
        finally:
            self._ends.append(threads.submit(self._end, descriptor, writes, size_bytes))
        return finished

    def _end(self, descriptor: int, writes: list[Future[None]], size_bytes: int | None) -> None:
        """Make a file whole and durable, and close it, once all its writes are done.

        They began before this did, so that waiting for them cannot block the threads.
        """
        try:
            faults = [fault for write in writes if (fault := write.exception()) is not None]
            if faults:
                raise faults[0]
            if size_bytes is not None:
                self._disk.shape(descriptor, size_bytes=size_bytes)
                self._disk.sync(descriptor)
        finally:
            os.close(descriptor)
