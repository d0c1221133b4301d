"""One writer for one store: a lock that the system drops with its process."""

import errno
import fcntl
import json
import os
import platform
import weakref
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pymodules_core.checkpoints.store.lease import Lease, network_file_system
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.errors import StoreLockedError, display_path

if TYPE_CHECKING:
    from collections.abc import Callable

# `lockf` knows processes, not files: within one process this set is what refuses.
_held: set[Path] = set()


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
        self._lease: Lease | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            StoreLockedError: Another writer has it; the message says who.
        """
        if self._key in _held:
            raise self._refusal(f"this process ({os.getpid()})")
        kind = network_file_system(self._layout.store)
        self._lease = Lease(self._layout, kind) if kind else None
        descriptor = os.open(self._layout.lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._lock(descriptor)
            if self._lease is not None:
                self._lease.acquire()
        except BaseException:
            os.close(descriptor)
            raise
        _held.add(self._key)
        # A writer that nobody closed keeps nobody out once it is gone.
        self._release = weakref.finalize(
            self, _drop, descriptor, self._key, self._layout.holder, os.getpid(), self._lease
        )
        holder = {
            "host": platform.node(),
            "process": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self._layout.holder.write_text(json.dumps(holder) + "\n", encoding="utf-8")

    def check(self) -> None:
        """Refuse to write on where another machine's writer has taken over.

        Raises:
            StoreLockedError: One has; only where a lease stands for the lock.
        """
        if self._lease is not None:
            self._lease.check()

    def release(self) -> None:
        """Give the lock back; safe to call twice, and in a child process of its holder."""
        if self._release is not None:
            self._release()

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in {errno.EACCES, errno.EAGAIN}:
                raise self._refusal(self._describe_holder()) from error
            if self._lease is None:  # it cannot lock at all
                raise

    def _describe_holder(self) -> str:
        try:
            holder = json.loads(self._layout.holder.read_bytes())
            return f"process {holder['process']} on {holder['host']} since {holder['since']}"
        except (OSError, ValueError, TypeError, KeyError):
            return "another process"

    def _refusal(self, holder: str) -> StoreLockedError:
        return StoreLockedError(
            f"{display_path(self._layout.path)} is being written by {holder}",
            found=holder,
            fix="wait for it or stop it; reading is allowed meanwhile",
        )


def may_be_written(layout: Layout) -> bool:
    """Tell whether a writer seems to be at work, without a touch on its lock.

    Only its own word is looked at: to open the lock's file and close it again would drop the lock,
    where the writer is this process.
    """
    try:
        holder = json.loads(layout.holder.read_bytes())
        if holder["host"] != platform.node():
            return True
        os.kill(holder["process"], 0)
    except PermissionError:  # it is there, and another user's
        return True
    except (OSError, ValueError, TypeError, KeyError):  # nobody, or a process that is gone
        return False
    return True


def _drop(descriptor: int, key: Path, holder: Path, process: int, lease: Lease | None) -> None:
    if lease is not None:
        lease.release()
    if os.getpid() == process:  # and no child of it
        holder.unlink(missing_ok=True)
    os.close(descriptor)
    _held.discard(key)
