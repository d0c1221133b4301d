"""One writer for one store: a lock that the system drops with its process."""

import errno
import fcntl
import json
import logging
import os
import platform
import weakref
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.errors import StoreLockedError, display_path
from pymodules_core.run_files import is_process_alive

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("pymodules_core")

# `lockf` knows processes, not files: within one process this set is what refuses.
_held: set[Path] = set()

_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = {
    *("9p", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4"),
    *("smb3", "smbfs", "virtiofs"),
}


class StoreLock:
    """Keeps every other writer out while it is held.

    ``lockf`` on a file that nothing else opens, since closing any descriptor of a file drops the
    process's locks on it. Unlike with ``flock``, children do not inherit it: data loader workers
    that outlive their trainer keep nothing locked.

    Args:
        layout: Of the store.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._key = layout.lock.resolve()
        self._release: Callable[[], object] | None = None
        self._own: dict[str, Any] = {}
        self._before: dict[str, Any] = {}

    def acquire(self) -> None:
        """Take the lock; where it may not reach other machines, a warning says so.

        Raises:
            StoreLockedError: Another writer has it; the message says who.
        """
        if self._key in _held:
            raise self._refusal(f"this process ({os.getpid()})")
        descriptor = os.open(self._layout.lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._lock(descriptor, network_file_system(self._layout.store))
        except BaseException:
            os.close(descriptor)
            raise
        _held.add(self._key)
        self._before = _read_holder(self._layout)
        self._own = {
            "host": platform.node(),
            "process": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        # A writer that nobody closed keeps nobody out once it is gone.
        self._release = weakref.finalize(
            self, _drop, descriptor, self._key, self._layout, os.getpid(), self._own
        )
        self._layout.holder.unlink(missing_ok=True)  # its other name, in a linked copy, stays
        self._layout.holder.write_text(json.dumps(self._own) + "\n", encoding="utf-8")

    def release(self) -> None:
        """Return the lock back; safe to call twice, and in a child process of its holder."""
        if self._release is not None:
            self._release()

    def lost(self) -> StoreLockedError:
        """Return the error for a store that another writer changed, although this one has the lock.

        The last one that opened it said who it is; before that, the one that was there already.
        """
        holder = _read_holder(self._layout)
        return self._refusal(_describe(self._before if holder == self._own else holder))

    def _lock(self, descriptor: int, network: str | None) -> None:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in {errno.EACCES, errno.EAGAIN}:
                raise self._refusal(_describe(_read_holder(self._layout))) from error
            if network is None:  # it cannot lock at all
                raise
        if network is not None:
            logger.warning(
                "%s is on %s, whose locks may not reach other machines: a second writer there is "
                "refused only when it commits",
                display_path(self._layout.path),
                network,
            )

    def _refusal(self, holder: str) -> StoreLockedError:
        return StoreLockedError(
            f"{display_path(self._layout.path)} is being written by {holder}",
            found=holder,
            fix="wait for it or stop it; reading is allowed meanwhile",
        )


def may_be_written(layout: Layout) -> bool:
    """Return whether a writer seems to be at work, without touching its lock.

    Only ``holder.json`` is read: to open the lock's file and close it again would drop the lock,
    where the writer is this process.
    """
    holder = _read_holder(layout)
    return bool(holder) and is_process_alive(holder["host"], holder["process"]) is not False


def network_file_system(path: Path) -> str | None:
    """Return the kind of the network file system that a folder is on; None for a local one.

    None, too, where the platform does not say.
    """
    try:
        mounts = _MOUNTS.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    real = path.resolve()
    kinds = {}
    for mount in mounts:
        before, _, after = mount.partition(" - ")
        point = before.split()[4].encode().decode("unicode_escape")
        kinds[Path(point)] = after.split()[0]
    kind = next((kinds[folder] for folder in (real, *real.parents) if folder in kinds), "")
    return kind if kind in _NETWORK or kind.startswith("fuse.") else None


def _read_holder(layout: Layout) -> dict[str, Any]:
    """Return what the last writer wrote about itself; empty where nobody did, or it is damaged."""
    try:
        holder: Any = json.loads(layout.holder.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    is_whole = isinstance(holder, dict) and {"host", "process", "since"} <= holder.keys()
    return holder if is_whole and type(holder["process"]) is int else {}


def _describe(holder: dict[str, Any]) -> str:
    if not holder:
        return "another process"
    return f"process {holder['process']} on {holder['host']} since {holder['since']}"


def _drop(descriptor: int, key: Path, layout: Layout, process: int, own: dict[str, Any]) -> None:
    if os.getpid() == process and _read_holder(layout) == own:  # and no child of it
        layout.holder.unlink(missing_ok=True)
    os.close(descriptor)
    _held.discard(key)
