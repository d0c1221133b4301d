"""What the system says of a disk, as an error that says what to do."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pymodules_core.errors import CheckpointError, PymodulesError, display_path

_REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room, or ask for a larger quota",
    errno.EFBIG: "raise the limit on the size of files: ulimit -f unlimited",
    errno.EIO: "the disk itself fails: see the system's log, and save elsewhere",
    errno.ENOMEM: "free memory, or train on a machine that has more",
    errno.ENOLCK: "save to a file system that has locks",
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST, errno.EISDIR), "move away what is in its place"),
}


@contextmanager
def disk_errors(path: Path, *, needed_bytes: int | None = None) -> Iterator[None]:
    """Turn what the system says into a ``CheckpointError`` about ``path``."""
    try:
        yield
    except OSError as error:
        if isinstance(error, PymodulesError):
            raise
        reason, fix = error.strerror or str(error), remedy(error)
        if needed_bytes is not None and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            reason += f"; it needs up to {needed_bytes:,} bytes"
            if error.errno == errno.ENOSPC:  # what a quota leaves is not known here
                reason += f" and {_free_bytes(path):,} are free"
        if error.errno == errno.ENOENT:  # what is written to was there when it was opened
            reason += f": {display_path(_what_is_gone(error) or path)}"
            fix = "something took it away meanwhile; pymodules ckpt verify says what is left"
        else:
            fix += "; checkpoints saved before are intact"
        raise CheckpointError(f"cannot be written: {reason}", file=path, fix=fix) from error


def remedy(error: OSError) -> str:
    """Say what helps against what the system said."""
    return _REMEDIES.get(error.errno or 0, "make it writable")


def _what_is_gone(error: OSError) -> Path | None:
    """Return the path that an error is about; of a move that can be either's folder."""
    paths = [Path(name) for name in (error.filename, error.filename2) if name]
    folders = [path.parent for path in paths if len(paths) > 1 and not path.parent.exists()]
    return next(iter(folders or paths), None)


def _free_bytes(path: Path) -> int:
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
