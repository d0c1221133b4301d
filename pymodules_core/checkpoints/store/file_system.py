"""Every change a store makes to the file system, one method each.

All of them go through here, so that a test can stop, fail or lose each one.
"""

import ctypes
import errno
import os
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

# What a file system says that cannot link, clone or exchange, at all or just these files.
CANNOT = frozenset(
    {
        errno.EACCES,
        errno.EINVAL,
        errno.EMLINK,
        errno.ENOSYS,
        errno.ENOTSUP,
        errno.ENOTTY,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EXDEV,
    }
)

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_FICLONE = 0x40049409
_COPY_BYTES = 1 << 22


class Disk:
    """The file system itself."""

    def make_folder(self, path: Path) -> None:
        """Make one folder; its parent is there."""
        path.mkdir()

    def create(self, path: Path, *, direct: bool = False) -> int:
        """Make a file that is not there and open it for writing.

        Args:
            path: The file.
            direct: Past the page cache, where the file system can; whole pages only.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        if direct and hasattr(os, "O_DIRECT"):
            try:
                return os.open(path, flags | os.O_DIRECT, 0o666)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # Refused after the file was made: tmpfs on older kernels.
                path.unlink(missing_ok=True)
        return os.open(path, flags, 0o666)

    def write(self, descriptor: int, content: memoryview, offset: int) -> None:
        """Write all of ``content`` at ``offset``."""
        while content:
            written = os.pwrite(descriptor, content, offset)
            content, offset = content[written:], offset + written

    def shape(self, descriptor: int, *, size_bytes: int) -> None:
        """Cut a file to its size and make it read-only."""
        os.ftruncate(descriptor, size_bytes)
        os.fchmod(descriptor, os.fstat(descriptor).st_mode & 0o444)

    def sync(self, descriptor: int) -> None:
        """Make the content of a file durable."""
        os.fsync(descriptor)

    def sync_path(self, path: Path) -> None:
        """Make a file that is not open durable, or the names in a folder."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def clone(self, source: Path, target: Path) -> None:
        """Make a read-only file that shares the blocks of another until one is written to.

        Raises:
            OSError: The file system cannot.
        """
        import fcntl  # noqa: PLC0415  not on Windows

        if not sys.platform.startswith("linux"):
            raise OSError(errno.EOPNOTSUPP, "no reflinks")
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        try:
            with source.open("rb") as file:
                fcntl.ioctl(descriptor, _FICLONE, file.fileno())
        except OSError:
            target.unlink()
            raise
        finally:
            os.close(descriptor)

    def link(self, source: Path, target: Path) -> None:
        """Make a hard link to a file."""
        target.hardlink_to(source)

    def rename(self, source: Path, target: Path) -> None:
        """Move a file or folder to a name that is free, or a file over another."""
        source.rename(target)

    def rename_no_replace(self, source: Path, target: Path) -> None:
        """Move a file to a name that is free, in one step.

        Raises:
            FileExistsError: The name is not free.
            OSError: The platform cannot.
        """
        _renameat2(source, target, _RENAME_NOREPLACE)

    def exchange(self, first: Path, second: Path) -> None:
        """Swap two folders in one step.

        Raises:
            OSError: The platform cannot.
        """
        _renameat2(first, second, _RENAME_EXCHANGE)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        path.rmdir()


def copy_file(disk: Disk, source: Path, target: Path) -> None:
    """Copy a file to a name that is free, read-only and durable."""
    with source.open("rb") as file:
        write_file(disk, target, iter(partial(file.read, _COPY_BYTES), b""))


def write_file(disk: Disk, path: Path, chunks: Iterable[bytes]) -> None:
    """Make a file that is not there of chunks, read-only and durable."""
    descriptor = disk.create(path)
    try:
        offset = 0
        for chunk in chunks:
            disk.write(descriptor, memoryview(chunk), offset)
            offset += len(chunk)
        disk.shape(descriptor, size_bytes=offset)
        disk.sync(descriptor)
    finally:
        os.close(descriptor)


def _renameat2(first: Path, second: Path, flag: int) -> None:
    if not sys.platform.startswith("linux"):
        raise OSError(errno.ENOSYS, "no renameat2")
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError) as error:  # a C library without it
        raise OSError(errno.ENOSYS, "no renameat2") from error
    paths = os.fsencode(first), os.fsencode(second)
    if function(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], flag) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(first), None, str(second))
