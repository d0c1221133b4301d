"""A lease: keeps other machines out where the locks of a file system may not reach them.

A file names the writer, and its time is set anew every few seconds. Whoever finds one that nobody
has renewed for long takes over. All times are of the file server: clocks of machines differ.
"""

import contextlib
import json
import logging
import os
import platform
import secrets
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.errors import StoreLockedError, display_path

logger = logging.getLogger("pymodules_core")

BEAT_S = 10.0
# So many beats may be lost, by a server that is slow or a process that is held up.
STALE_S = 60.0

_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = {
    *("9p", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4"),
    *("smb3", "smbfs", "virtiofs"),
}


def network_file_system(path: Path) -> str | None:
    """Give the kind of the network file system that a folder is on; None for a local one.

    None, too, where the platform does not tell.
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


class Lease:
    """The word of the writer of one store.

    Args:
        layout: Of the store.
        kind: The file system, for messages.
    """

    def __init__(self, layout: Layout, kind: str) -> None:
        self._layout = layout
        self._file = layout.lease
        self._kind = kind
        self._own = ""
        self._process = os.getpid()
        self._ended = threading.Event()

    def acquire(self) -> None:
        """Take the lease, and renew it from now on.

        Raises:
            StoreLockedError: Another writer holds it.
        """
        word = {
            "id": secrets.token_hex(16),
            "host": platform.node(),
            "process": self._process,
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        own = self._file.with_name(f"{self._file.name}.{word['id']}")
        own.write_text(json.dumps(word) + "\n", encoding="utf-8")
        now = own.stat().st_mtime
        try:
            self._remove_stale(now=now, aside=own.with_name(f"{own.name}.stale"))
            # A link is made by one of several machines, where an exclusive open may not be.
            os.link(own, self._file)
        except FileExistsError:
            raise self._refusal(self._read()) from None
        finally:
            own.unlink(missing_ok=True)
        self._own = str(word["id"])
        self._sweep(now=now)  # its own file may be aside, at one that looks what it took away
        logger.warning(
            "%s is on %s, whose locks may not reach other machines: a lease that is renewed every "
            "%.0f s keeps other writers out",
            display_path(self._layout.path),
            self._kind,
            BEAT_S,
        )
        threading.Thread(target=self._renew, daemon=True, name="pymodules lease").start()

    def check(self) -> None:
        """Refuse to write on where another writer has taken over meanwhile.

        Raises:
            StoreLockedError: This process was held up for so long that one did.
        """
        word = self._read()
        if word.get("id") != self._own:
            raise self._refusal(word)

    def release(self) -> None:
        """Give it back; safe to call twice, and in a child process of its holder."""
        self._ended.set()
        if os.getpid() == self._process and self._own and self._read().get("id") == self._own:
            self._file.unlink(missing_ok=True)
        self._own = ""

    def _remove_stale(self, *, now: float, aside: Path) -> None:
        """Take away a lease whose writer is gone; of several that try it, one does."""
        word = self._read()
        try:
            silent_s = now - self._file.stat().st_mtime
        except FileNotFoundError:
            return
        if silent_s < STALE_S and not _is_dead_here(word):
            raise self._refusal(word)
        try:
            self._file.rename(aside)
        except FileNotFoundError:  # another one did
            return
        moved = _read(aside)
        if moved != word:  # another one took over between the two looks
            # Or it has swept already, which it does to one that is stale.
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                os.link(aside, self._file)
            aside.unlink(missing_ok=True)
            raise self._refusal(moved)
        aside.unlink(missing_ok=True)
        if not _is_dead_here(word):
            logger.warning(
                "%s was last written by %s, silent for %.0f s: its lease is taken over",
                display_path(self._layout.path),
                _describe(word),
                silent_s,
            )

    def _sweep(self, *, now: float) -> None:
        """Take away what those left that were killed while they asked."""
        for stray in self._file.parent.glob(f"{self._file.name}.*"):
            with contextlib.suppress(FileNotFoundError):
                if now - stray.stat().st_mtime > STALE_S:
                    stray.unlink()

    def _renew(self) -> None:
        while not self._ended.wait(BEAT_S):
            # A server that is away for a moment; `check` tells what came of it.
            with contextlib.suppress(OSError):
                if self._read().get("id") == self._own:
                    os.utime(self._file)

    def _read(self) -> dict[str, Any]:
        return _read(self._file)

    def _refusal(self, word: dict[str, Any]) -> StoreLockedError:
        holder = _describe(word)
        return StoreLockedError(
            f"{display_path(self._layout.path)} is being written by {holder}",
            found=holder,
            fix="wait for it or stop it; reading is allowed meanwhile. One that is gone loses its "
            f"lease after {STALE_S:.0f} s",
        )


def _read(file: Path) -> dict[str, Any]:
    try:
        word = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return word if isinstance(word, dict) else {}


def _describe(word: dict[str, Any]) -> str:
    if not {"process", "host", "since"} <= word.keys():
        return "another process"
    return f"process {word['process']} on {word['host']} since {word['since']}"


def _is_dead_here(word: dict[str, Any]) -> bool:
    """Tell whether a process of this machine wrote it that is gone."""
    if word.get("host") != platform.node() or type(word.get("process")) is not int:
        return False
    try:
        os.kill(word["process"], 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    # Its number may have been given to this process itself.
    return bool(word["process"] == os.getpid())
