"""Objects: files that never change once they have their name, the digest of their content."""

import logging
import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import attrs

from pymodules_core.checkpoints.store.archives import seal_of_file
from pymodules_core.checkpoints.store.disk import Disk, copy_file
from pymodules_core.checkpoints.store.layout import Layout
from pymodules_core.checkpoints.store.records import StoredObject
from pymodules_core.errors import display_path
from pymodules_core.names import CHECKPOINT_SUFFIX

logger = logging.getLogger("pymodules_core")

# Large enough that a direct write runs at the disk's speed.
_CHUNK_BYTES = 1 << 22


class Sealed(Protocol):
    """What names an object."""

    @property
    def digest(self) -> str:
        """Of the content."""

    @property
    def seal(self) -> str:
        """Of every byte of the file."""


class Source(Protocol):
    """What an object is written from; ``FileImage`` is one."""

    size_bytes: int

    @property
    def pages(self) -> memoryview:
        """The file's bytes, filled up to whole pages."""

    @property
    def sealed(self) -> Sealed | None:
        """Digest and seal, where they are known."""

    was_written: bool
    """Whether some content of it has become an object."""

    def seal(self, on_final: "OnFinal" = ...) -> Sealed:
        """Give digest and seal; ``on_final`` learns which bytes will not change any more."""


class OnFinal(Protocol):
    """Called with an offset below which every byte is final."""

    def __call__(self, offset: int, /) -> None:
        """Take note."""


@attrs.frozen
class Added:
    """An object that a commit uses.

    Attributes:
        digest: Its name.
        stored: What a record says of it.
        bytes_written: 0 where it was there already.
    """

    digest: str
    stored: StoredObject
    bytes_written: int


class Objects:
    """The objects of one store, for its writer.

    Args:
        layout: Paths.
        disk: Changes the file system.
        is_thorough: Read every byte of an object before it is held for whole.
    """

    def __init__(self, layout: Layout, disk: Disk, *, is_thorough: bool = False) -> None:
        self._layout = layout
        self._disk = disk
        self._is_thorough = is_thorough
        self._known: dict[str, StoredObject] = {}
        self._io: ThreadPoolExecutor | None = None

    def close(self) -> None:
        """Stop the thread that writes."""
        if self._io is not None:
            self._io.shutdown()
            self._io = None

    def know(self, objects: dict[str, StoredObject]) -> None:
        """Remember what a record says of objects on disk."""
        self._known |= objects

    def add(self, source: Source) -> Added:
        """Make a source an object, unless it is one."""
        if source.sealed is not None or not source.was_written:
            # Sealed: nothing changed. Never written: after a restart it most often is there.
            digest = source.seal().digest
            if self._is_there(digest):
                return Added(digest, self._known[digest], 0)
        staged = self._layout.stage / f"object{CHECKPOINT_SUFFIX}"
        descriptor = self._disk.create(staged, direct=source.size_bytes > _CHUNK_BYTES)
        try:
            sealed = self._write(descriptor, source)
            self._disk.shape(descriptor, size_bytes=source.size_bytes)
            self._disk.sync(descriptor)
        finally:
            os.close(descriptor)
        if self._is_there(sealed.digest):
            self._disk.unlink(staged)
            return Added(sealed.digest, self._known[sealed.digest], 0)
        target = self._layout.object(sealed.digest)
        self._disk.rename(staged, target)
        source.was_written = True
        stored = StoredObject(
            size_bytes=source.size_bytes, mtime_ns=target.stat().st_mtime_ns, seal=sealed.seal
        )
        self._known[sealed.digest] = stored
        return Added(sealed.digest, stored, source.size_bytes)

    def is_whole(self, digest: str, stored: StoredObject) -> bool:
        """Tell whether an object is as it was written.

        Its bytes are read where its time says that it changed, or where all are.
        """
        path = self._layout.object(digest)
        try:
            status = path.stat()
            if status.st_size != stored.size_bytes:
                return False
            is_untouched = status.st_mtime_ns == stored.mtime_ns and not self._is_thorough
            return is_untouched or seal_of_file(path) == stored.seal
        except (OSError, ValueError):
            return False

    def quarantine(self, path: Path) -> Path:
        """Move a damaged or changed file out of the way, and say so."""
        if not self._layout.quarantine.exists():
            self._disk.make_folder(self._layout.quarantine)
        taken = {entry.name for entry in self._layout.quarantine.iterdir()}
        number = next(n for n in range(1, len(taken) + 2) if f"{n}-{path.name}" not in taken)
        target = self._layout.quarantine / f"{number}-{path.name}"
        self._disk.rename(path, target)
        logger.warning(
            "%s is damaged or was changed by hand; it is now %s",
            display_path(path),
            display_path(target),
        )
        return target

    def restore(self, digest: str, stored: StoredObject, copies: Iterable[Path]) -> bool:
        """Make a lost object anew from a copy that is whole, such as a file of a view."""
        for copy in copies:
            try:
                if copy.stat().st_size != stored.size_bytes or seal_of_file(copy) != stored.seal:
                    continue
            except (OSError, ValueError):
                continue
            staged = self._layout.stage / f"object{CHECKPOINT_SUFFIX}"
            copy_file(self._disk, copy, staged)
            self._disk.rename(staged, self._layout.object(digest))
            self._disk.sync_folder(self._layout.objects)
            os.utime(self._layout.object(digest), ns=(stored.mtime_ns, stored.mtime_ns))
            logger.warning(
                "%s was lost or damaged; made anew from %s",
                display_path(self._layout.object(digest)),
                display_path(copy),
            )
            return True
        return False

    def keep_only(self, digests: Iterable[str]) -> None:
        """Remove every object but these."""
        wanted = {self._layout.object(digest).name for digest in digests}
        for path in sorted(self._layout.objects.iterdir()):
            if path.name not in wanted:
                self._disk.unlink(path)
                self._known.pop(path.name.removesuffix(CHECKPOINT_SUFFIX), None)

    def _is_there(self, digest: str) -> bool:
        stored = self._known.get(digest)
        if stored is None:
            return False
        if self.is_whole(digest, stored):
            return True
        path = self._layout.object(digest)
        if path.exists():
            self.quarantine(path)
        del self._known[digest]
        return False

    def _write(self, descriptor: int, source: Source) -> Sealed:
        pages = source.pages
        if source.size_bytes <= _CHUNK_BYTES:
            sealed = source.seal()
            self._disk.write(descriptor, pages, 0)
            return sealed
        # What is final is written while the rest is hashed.
        self._io = self._io or ThreadPoolExecutor(1, thread_name_prefix="pymodules-disk")
        io, writes, position = self._io, list[Future[None]](), 0

        def on_final(offset: int) -> None:
            nonlocal position
            stop = offset if offset == len(pages) else offset // _CHUNK_BYTES * _CHUNK_BYTES
            if stop > position:
                piece = pages[position:stop]
                writes.append(io.submit(self._disk.write, descriptor, piece, position))
                position = stop

        try:
            return source.seal(on_final)
        finally:
            # All of them, also after an error: the caller closes the descriptor.
            faults = [error for write in writes if (error := write.exception()) is not None]
            if faults:
                raise faults[0]
