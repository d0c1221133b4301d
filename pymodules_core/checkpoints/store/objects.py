"""Objects: files that never change once they have their name, the digest of their content."""

import logging
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from pymodules_core.checkpoints.store.checksums import checksum_of_file
from pymodules_core.checkpoints.store.file_system import Disk, copy_file
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import StoredObject
from pymodules_core.checkpoints.store.staged_writes import Source, StagedWrites, Written
from pymodules_core.checkpoints.store.views import is_link_to
from pymodules_core.errors import display_path
from pymodules_core.names import CHECKPOINT_SUFFIX

logger = logging.getLogger("pymodules_core")


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
        with StagedWrites(self._layout, self._disk) as staged:
            for name, source in sources.items():
                # Sealed: its values are those of the commit before.
                if source.finished is not None or source.is_likely_stored:
                    digest = source.finish().digest
                    if self._is_there(digest):
                        added[name] = Added(digest, self._known[digest], 0)
                        continue
                written[name] = staged.write(source)
        for name, file in written.items():
            added[name] = self._take(file)
        return {name: added[name] for name in sources}

    def add_in_parts(self, index: Source, parts: Mapping[str, Written]) -> Added:
        """Make files in the stage, whole and synced, objects that belong together.

        Args:
            index: Says what they are.
            parts: File name to file.
        """
        taken = {file_name: self._take(file) for file_name, file in parts.items()}
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
        return all(self._is_there(digest) for digest in (added.digest, *added.parts))

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

    def quarantine(self, path: Path, *, why: str = "is damaged or was changed by hand") -> Path:
        """Move a file out of the way, and say so."""
        if not self._layout.quarantine.exists():
            self._disk.make_folder(self._layout.quarantine)
        taken = {entry.name for entry in self._layout.quarantine.iterdir()}
        number = next(n for n in range(1, len(taken) + 2) if f"{n}-{path.name}" not in taken)
        target = self._layout.quarantine / f"{number}-{path.name}"
        self._disk.rename(path, target)
        logger.warning(
            "%s %s; it is now %s",
            display_path(path),
            why,
            display_path(target),
        )
        return target

    def restore(self, digest: str, stored: StoredObject, copies: Iterable[Path]) -> bool:
        """Make a lost object again from a copy that is whole, such as a file of a view."""
        for copy in copies:
            try:
                if (
                    copy.stat().st_size != stored.size_bytes
                    or checksum_of_file(copy) != stored.checksum
                ):
                    continue
            except (OSError, ValueError):
                continue
            staged = self._layout.stage / f"object{CHECKPOINT_SUFFIX}"
            copy_file(self._disk, copy, staged)
            self._disk.rename(staged, self._layout.object(digest))
            self._disk.sync_path(self._layout.objects)
            os.utime(self._layout.object(digest), ns=(stored.mtime_ns, stored.mtime_ns))
            logger.warning(
                "%s was lost or damaged; made again from %s",
                display_path(self._layout.object(digest)),
                display_path(copy),
            )
            return True
        return False

    def digests(self) -> set[str]:
        """Return the names of all objects on disk."""
        return {
            path.name.removesuffix(CHECKPOINT_SUFFIX) for path in self._layout.objects.iterdir()
        }

    def keep_only(self, digests: Iterable[str]) -> None:
        """Remove every object but these."""
        wanted = {self._layout.object(digest).name for digest in digests}
        for path in sorted(self._layout.objects.iterdir()):
            if path.is_dir() and not path.is_symlink():  # nobody of us made one
                self.quarantine(path)
            elif path.name not in wanted:
                self._disk.unlink(path)
                self._known.pop(path.name.removesuffix(CHECKPOINT_SUFFIX), None)

    def _take(self, file: Written) -> Added:
        """Move a whole and synced file to its name, unless the object is there already."""
        if self._is_there(file.digest):
            self._disk.unlink(file.path)
            return Added(file.digest, self._known[file.digest], 0)
        target = self._layout.object(file.digest)
        self._disk.rename(file.path, target)
        stored = StoredObject(
            size_bytes=file.size_bytes, mtime_ns=target.stat().st_mtime_ns, checksum=file.checksum
        )
        self._known[file.digest] = stored
        return Added(file.digest, stored, file.size_bytes)

    def _is_there(self, digest: str) -> bool:
        stored = self._known.get(digest)
        if stored is None:
            return False
        if self.is_whole(digest, stored):
            return True
        path = self._layout.object(digest)
        if os.path.lexists(path):
            self.quarantine(path)
        del self._known[digest]
        return False
