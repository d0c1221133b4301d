"""Notes on views: which object each file was made of, and what ``stat`` said of the file then.

The digest says what a file holds. The stamp only says whether somebody else touched the file since:
one that differs is a reason to read the file, never proof of an edit, and two files may well have
the same one where times are of whole seconds and inodes are given out again.
"""

import json
import os
import stat
from collections.abc import Mapping
from typing import NamedTuple

from pymodules_core.checkpoints.store.file_system import Disk
from pymodules_core.checkpoints.store.paths import Layout

# A note of ten thousand files takes about 2 MB.
_MOST_BYTES = 1 << 26


class Stamp(NamedTuple):
    """What ``stat`` says of a file."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Stamp":
        """Return the stamp of a file."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


# The digest of the object that a file of a view was made of, and its stamp as it was left.
NotedFile = tuple[str, Stamp]


class ViewNotes:
    """The notes of one store: a file for each pool, so that a commit writes those it changes.

    They are neither synced nor renamed into place: a view whose note is torn or lost is read.

    Args:
        layout: Paths.
        disk: Changes the file system.
    """

    def __init__(self, layout: Layout, disk: Disk) -> None:
        self._layout = layout
        self._disk = disk
        self._read: dict[str, Mapping[str, NotedFile]] = {}

    def files(self, pool_name: str) -> Mapping[str, NotedFile]:
        """Return the files of a view by their paths in it; none where nothing is known of it."""
        if pool_name not in self._read:
            self._read[pool_name] = self._load(pool_name)
        return self._read[pool_name]

    def write(self, pool_name: str, files: Mapping[str, NotedFile]) -> None:
        """Replace the note of a pool."""
        if not self._layout.shown.exists():
            self._disk.make_folder(self._layout.shown)
        self.remove(pool_name)
        content = {path: [digest, *stamp] for path, (digest, stamp) in files.items()}
        descriptor = self._disk.create(self._layout.note(pool_name))
        try:
            self._disk.write(descriptor, memoryview(json.dumps(content).encode()), 0)
        finally:
            os.close(descriptor)
        self._read[pool_name] = files

    def remove(self, pool_name: str) -> None:
        """Forget what a view holds, before it changes."""
        self._read[pool_name] = {}
        if os.path.lexists(self._layout.note(pool_name)):
            self._disk.unlink(self._layout.note(pool_name))

    def _load(self, pool_name: str) -> Mapping[str, NotedFile]:
        path = self._layout.note(pool_name)
        try:
            status = path.lstat()
            # A pipe would keep the reader waiting.
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
                return {}
            content = json.loads(path.read_bytes())
            return {file: (digest, Stamp(*rest)) for file, (digest, *rest) in content.items()}
        # Lost with the power, or made by hand: as if there were none.
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return {}
