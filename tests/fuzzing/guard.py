"""Watches one process while it is given bad input: what it executes, touches, takes and how long.

Python says an audit hook of every file it opens, process it starts and text it compiles. The hook
cannot be taken away again, so this is for a process of its own.
"""

import faulthandler
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# More than this in one case is a hang: the process ends, and the stack is in its stderr.
CASE_LIMIT_S = 20
# What a case may take of memory beyond what the process had; inputs are a few kilobytes long.
MEMORY_LIMIT_BYTES = 256 << 20
# Beyond this an allocation fails, so that a claim of terabytes cannot harm the machine.
_ADDRESS_LIMIT_BYTES = 4 << 30

# Importing it is what a crafted pickle tries first.
CANARY = "pymodules_fuzzing_canary"

_EXECUTING = {
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.kill"),
    *("subprocess.Popen", "pty.spawn", "socket.connect", "socket.bind", "ctypes.dlopen"),
    *("pickle.find_class", "urllib.Request", "webbrowser.open"),
}
# A commit notes the git commit it was made with; folders are swapped by a call of the C library.
_OWN_USES = {("subprocess.Popen", "git"), ("ctypes.dlopen", None)}
_CHANGING = {
    *("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "os.chown", "os.utime", "shutil.rmtree", "shutil.move", "shutil.copyfile"),
}
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Guard:
    """The watch over this process.

    Args:
        folder: The only place where files may be changed, and read besides those of Python.
        case_limit_s: How long a case may take; then the process is ended.
    """

    def __init__(self, folder: Path, *, case_limit_s: float = CASE_LIMIT_S) -> None:
        self._case_limit_s = case_limit_s
        self._folder = os.path.realpath(folder)
        own = (sys.prefix, sys.base_prefix, Path(__file__).parents[2], *sys.path)
        self._readable = tuple(
            {os.path.realpath(path) for path in own if path} | {"/proc", "/sys", "/dev/null"}
        )
        self._events: list[str] = []
        self._is_on = False
        self._peak_bytes = 0

    def start(self) -> None:
        """Begin the watch; there is no end to it."""
        sys.addaudithook(self._hear)
        with Path("/proc/self/statm").open() as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (taken + _ADDRESS_LIMIT_BYTES, hard))
        self.settle()

    def settle(self) -> None:
        """Count the memory that the process has by now as its own."""
        self._peak_bytes = _peak_bytes()

    @property
    def growth_bytes(self) -> int:
        """What was taken since."""
        return _peak_bytes() - self._peak_bytes

    @contextmanager
    def case(self) -> Iterator[None]:
        """Watch one case.

        Raises:
            AssertionError: It did what no input may make us do.
        """
        faulthandler.dump_traceback_later(self._case_limit_s, exit=True)
        self._events.clear()
        self._is_on = True
        try:
            yield
        finally:
            self._is_on = False
            faulthandler.cancel_dump_traceback_later()
        if self._events:
            raise AssertionError(f"it did what it may not: {self._events}")
        if self.growth_bytes > MEMORY_LIMIT_BYTES:
            raise AssertionError(f"it took {self.growth_bytes:,} bytes")

    def _hear(self, event: str, given: tuple[Any, ...]) -> None:
        if not self._is_on:
            return
        is_bad = False
        if event in _EXECUTING:
            is_bad = (event, given[0]) not in _OWN_USES
        elif event == "compile":
            is_bad = given[1] in {"<string>", b"<string>"}
        elif event == "import":
            is_bad = given[0].startswith(CANARY)
        elif event == "open":
            path, _, flags = given
            is_writing = bool((flags or 0) & _WRITE_FLAGS)
            is_bad = not self._is_allowed(path, is_writing=is_writing)
        elif event in _CHANGING:
            is_bad = not all(
                self._is_allowed(path, is_writing=True)
                for path in given[:2]
                if isinstance(path, str | bytes)
            )
        if is_bad:
            self._events.append(f"{event} {given!r}"[:300])

    def _is_allowed(self, path: Any, *, is_writing: bool) -> bool:
        if isinstance(path, int):  # a descriptor, which was opened before
            return True
        # The case's own folder is the working directory.
        real = os.path.realpath(os.fsdecode(path))
        roots = (self._folder,) if is_writing else (self._folder, *self._readable)
        return any(real == root or real.startswith(root + os.sep) for root in roots)


def _peak_bytes() -> int:
    # Not of getrusage, which begins with the memory of the process that started this one.
    with Path("/proc/self/status").open() as file:
        line = next(line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
