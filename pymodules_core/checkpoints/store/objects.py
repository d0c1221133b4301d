"""Objects: files that never change once they have their name, the digest of their content.

They are written into the stage first: what is final of one is on its way while the rest is hashed.
"""

import logging
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Protocol

import attrs

from pymodules_core.checkpoints.store.checksums import checksum_if_readable, checksum_of_file
from pymodules_core.checkpoints.store.file_system import Disk, copy_file
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import StoredObject
from pymodules_core.checkpoints.store.views import is_link_to
from pymodules_core.errors import display_path
from pymodules_core.names import CHECKPOINT_SUFFIX

logger = logging.getLogger("pymodules_core")

# Large enough that a direct write runs at the disk's speed.
WRITE_BYTES = 1 << 22
# So that one can write while the other waits for a sync.
_THREADS = 2


@attrs.frozen
class Finished:
    """What names an object: the digest of its content, and the checksum of its bytes."""

    digest: str
    checksum: str


class Source(Protocol):
    """What an object is written from; ``FileBuffer`` is one."""

    size_bytes: int
    pages: memoryview
    """The file's bytes, filled up to whole pages."""
    is_likely_stored: bool
    """Whether to look for an object of this content before one is written."""

    @property
    def finished(self) -> Finished | None:
        """Digest and checksum, where they are known."""

    def finish(self, on_final: Callable[[int], None] = ...) -> Finished:
        """Return digest and checksum; ``on_final`` learns which bytes will not change any more."""


@attrs.frozen
class Written:
    """A file in the stage; whole and synced once all that was begun with it has ended."""

    path: Path
    size_bytes: int
    finished: Finished


@attrs.frozen
class Added:
    """An object that a commit uses.

    Attributes:
        digest: Its name.
        stored: What a record says of it.
        bytes_written: 0 where it was there already.
        parts: Digest to what a record says of it, of each object that it needs.
    """

    digest: str
    stored: StoredObject
    bytes_written: int
    parts: Mapping[str, StoredObject] = attrs.field(factory=dict)


class Objects:
    """The objects of one store, for its writer.

    Args:
        layout: Paths.
        disk: Changes the file system.
        is_thorough: Read every byte of an object before it is held for whole.

    Attributes:
        is_thorough: As given.
    """

    def __init__(self, layout: Layout, disk: Disk, *, is_thorough: bool = False) -> None:
        self._layout = layout
        self._disk = disk
        self.is_thorough = is_thorough
        self._suspects: set[str] = set()
        self._known: dict[str, StoredObject] = {}

    def know(self, objects: dict[str, StoredObject]) -> None:
        """Remember what a record says of objects on disk."""
        self._known |= objects

    def suspect_link(self, digest: str, path: Path) -> None:
        """Have an object read before it is held for whole, where a file is a hard link to it."""
        if is_link_to(path, self._layout.object(digest)):
            self._suspects.add(digest)

    def add(self, source: Source) -> Added:
        """Make a source an object, unless it is one."""
        return self.add_all({"": source})[""]

    def add_all(self, sources: Mapping[str, Source]) -> dict[str, Added]:
        """Make sources objects, unless they are; while one is hashed, those before are written."""
        added: dict[str, Added] = {}
        written: dict[str, Written] = {}
        ends: list[Future[None]] = []
        with ThreadPoolExecutor(_THREADS, "pymodules-disk") as threads:  # begun when used
            for name, source in sources.items():
                # Sealed: its values are those of the commit before.
                may_be_there = source.finished is not None or source.is_likely_stored
                if may_be_there and (there := self._find(source.finish().digest)):
                    added[name] = there
                    continue
                path = self._layout.stage / f"object-{len(written) + 1}{CHECKPOINT_SUFFIX}"
                written[name] = self._write(source, path, threads, ends)
        for end in ends:  # what is in the stage where one raises is left to recovery
            end.result()
        for name, file in written.items():
            added[name] = self._take(file)
        return {name: added[name] for name in sources}

    def add_in_parts(self, index: Source, parts: Iterable[Written]) -> Added:
        """Make files in the stage, whole and synced, objects that belong together.

        Args:
            index: Says what they are.
            parts: The files, whose names the view keeps.
        """
        taken = {file.path.name: self._take(file) for file in parts}
        added = self.add(index)
        stored = attrs.evolve(added.stored, parts={name: one.digest for name, one in taken.items()})
        self._known[added.digest] = stored
        return Added(
            added.digest,
            stored,
            added.bytes_written + sum(one.bytes_written for one in taken.values()),
            {one.digest: one.stored for one in taken.values()},
        )

    def has(self, added: Added) -> bool:
        """Return whether an object and its parts are there; damaged ones are put aside."""
        return all(self._find(digest) for digest in (added.digest, *added.parts))

    def is_whole(self, digest: str, stored: StoredObject) -> bool:
        """Return whether an object is as it was written.

        Its bytes are read where its time says that it changed, where a link to it was touched, or
        where all are.
        """
        path = self._layout.object(digest)
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_size != stored.size_bytes:
                return False
            is_read = self.is_thorough or digest in self._suspects
            is_untouched = status.st_mtime_ns == stored.mtime_ns and not is_read
            return is_untouched or checksum_of_file(path) == stored.checksum
        except (OSError, ValueError):
            return False

    def quarantine(self, path: Path, *, why: str = "is damaged, or not as a run wrote it") -> None:
        """Move a file out of the way, and say so; does nothing where there is none."""
        if not os.path.lexists(path):
            return
        if not self._layout.quarantine.exists():
            self._disk.make_folder(self._layout.quarantine)
        taken = {entry.name for entry in self._layout.quarantine.iterdir()}
        number = next(n for n in range(1, len(taken) + 2) if f"{n}-{path.name}" not in taken)
        target = self._layout.quarantine / f"{number}-{path.name}"
        self._disk.rename(path, target)
        logger.warning("%s %s; it is now %s", display_path(path), why, display_path(target))

    def restore(self, digest: str, stored: StoredObject, copies: Iterable[Path]) -> bool:
        """Make a lost object again from a copy that is whole, such as a file of a view."""
        size_bytes, checksum = stored.size_bytes, stored.checksum
        for copy in copies:
            if checksum_if_readable(copy) != checksum or copy.stat().st_size != size_bytes:
                continue
            target = self._layout.object(digest)
            staged = self._layout.stage / target.name
            copy_file(self._disk, copy, staged)
            self._disk.rename(staged, target)
            self._disk.sync_path(self._layout.objects)
            os.utime(target, ns=(stored.mtime_ns, stored.mtime_ns))
            logger.warning(
                "%s was lost or damaged; made again from %s",
                display_path(target),
                display_path(copy),
            )
            return True
        return False

    def digests(self) -> set[str]:
        """Return the names of all objects on disk."""
        return {path.name.removesuffix(CHECKPOINT_SUFFIX) for path in self._files()}

    def _files(self) -> list[Path]:
        return sorted(self._layout.objects.glob("[!.]*"))

    def keep_only(self, digests: Iterable[str]) -> None:
        """Remove every object but these."""
        wanted = {self._layout.object(digest).name for digest in digests}
        for path in self._files():
            if path.is_dir() and not path.is_symlink():  # nobody of us made one
                self.quarantine(path)
            elif path.name not in wanted:
                self._disk.unlink(path)
                self._known.pop(path.name.removesuffix(CHECKPOINT_SUFFIX), None)

    def _write(
        self, source: Source, path: Path, threads: ThreadPoolExecutor, ends: list[Future[None]]
    ) -> Written:
        """Write a source into the stage; a small one at once, a large one in other threads."""
        is_large = source.size_bytes > WRITE_BYTES
        descriptor = self._disk.create(path, direct=is_large)
        if is_large:
            finished = self._write_beside(descriptor, source, threads, ends)
            return Written(path, source.size_bytes, finished)
        try:
            finished = source.finish()
            self._disk.write(descriptor, source.pages, 0)
            self._disk.shape(descriptor, size_bytes=source.size_bytes)
            self._disk.sync(descriptor)
        finally:
            os.close(descriptor)
        return Written(path, source.size_bytes, finished)

    def _write_beside(
        self, descriptor: int, source: Source, threads: ThreadPoolExecutor, ends: list[Future[None]]
    ) -> Finished:
        pages, position, writes = source.pages, 0, list[Future[None]]()

        def on_final(offset: int) -> None:
            nonlocal position
            stop = offset if offset == len(pages) else offset // WRITE_BYTES * WRITE_BYTES
            if stop > position:
                chunk = pages[position:stop]
                writes.append(threads.submit(self._disk.write, descriptor, chunk, position))
                position = stop

        size_bytes: int | None = None
        try:
            finished = source.finish(on_final)
            size_bytes = source.size_bytes
        finally:
            ends.append(threads.submit(self._end, descriptor, writes, size_bytes))
        return finished

    def _end(self, descriptor: int, writes: list[Future[None]], size_bytes: int | None) -> None:
        """Make a file whole and durable, and close it, once all its writes are done.

        They began before this did, so that waiting for them cannot block the threads.
        """
        try:
            wait(writes)
            for write in writes:
                write.result()
            if size_bytes is not None:
                self._disk.shape(descriptor, size_bytes=size_bytes)
                self._disk.sync(descriptor)
        finally:
            os.close(descriptor)

    def _take(self, file: Written) -> Added:
        """Move a whole and synced file to its name, unless the object is there already."""
        digest, checksum = file.finished.digest, file.finished.checksum
        if there := self._find(digest):
            self._disk.unlink(file.path)
            return there
        target = self._layout.object(digest)
        self._disk.rename(file.path, target)
        stored = StoredObject(
            size_bytes=file.size_bytes, mtime_ns=target.stat().st_mtime_ns, checksum=checksum
        )
        self._known[digest] = stored
        return Added(digest, stored, file.size_bytes)

    def _find(self, digest: str) -> Added | None:
        """Return an object that is there and whole; a damaged one is put aside."""
        stored = self._known.get(digest)
        if stored is None:
            return None
        if self.is_whole(digest, stored):
            return Added(digest, stored, 0)
        self.quarantine(self._layout.object(digest))
        del self._known[digest]
        return None
