"""What the system says of a disk, as an error that says what to do."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pymodules_core.errors import CheckpointError, PymodulesError


@contextmanager
def disk_errors(path: Path, *, needed_bytes: int | None = None) -> Iterator[None]:
    """Turn what the system says into a ``CheckpointError`` about ``path``."""
    try:
        yield
    except OSError as error:
        if isinstance(error, PymodulesError):
            raise
        needs = ""
        if needed_bytes is not None:
            free = free_bytes(path)
            needs = f"; it needs up to {needed_bytes:,} bytes and {free:,} are free"
        raise CheckpointError(
            f"cannot be written: {error.strerror or error}{needs}",
            file=path,
            fix="make room or make the folder writable; checkpoints saved before are intact",
        ) from error


def free_bytes(path: Path) -> int:
    """Give how much room the file system of ``path`` has."""
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
