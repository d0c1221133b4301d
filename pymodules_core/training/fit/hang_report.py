"""``HangReport``: reports the position of each process where a run hangs and they differ.

A collective call that one process does not make lets the others wait until it times out, which is
half an hour with gloo. None of them knows what it waits for; the positions of all show it.
"""

import json
import logging
import sys
import sysconfig
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

import torch

from pymodules_core.errors import display_path
from pymodules_core.processes.group import Processes
from pymodules_core.training.parallel import ddp

if TYPE_CHECKING:
    from typing import Self

logger = logging.getLogger("pymodules_core")

_LOOK_EVERY_S = 10.0
_LOOKS = 6
# Frames between a step and what it waits in: they do not show where that is.
_SKIPPED_FILES = (str(Path(torch.__file__).parent), ddp.__file__, "<")
_PACKAGES = ("site-packages", "dist-packages")


class HangReport:
    """Watches the processes of a run from a thread in each, while its ``with`` block runs.

    No process is ended: a step or a commit may take long, and then all are at one position.

    Args:
        processes: Who trains together; of one process alone nothing is watched.
        progress: Returns how many steps have ended, and what to call the one at hand.
    """

    def __init__(self, processes: Processes, progress: Callable[[], tuple[int, str]]) -> None:
        self._processes = processes
        self._progress = progress
        self._watched = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hang report", daemon=True)

    def __enter__(self) -> "Self":
        if not self._processes.is_alone:
            self._watched = threading.get_ident()
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        steps, looks, is_reported = -1, 0, False
        # Where the store is gone so is the process that had it, and the run ends.
        with suppress(RuntimeError):
            while not self._ended.wait(_LOOK_EVERY_S):
                now, name = self._progress()
                if now != steps:
                    if looks >= _LOOKS:
                        self._processes.post("position", "")
                    steps, looks, is_reported = now, 0, False
                    continue
                looks += 1
                if looks >= _LOOKS and not is_reported:
                    self._processes.post("position", json.dumps([name, self._position()]))
                    is_reported = self._processes.is_first and self._report()

    def _position(self) -> str:
        frame = sys._current_frames().get(self._watched)
        while frame is not None and _is_skipped(frame):
            frame = frame.f_back
        if frame is None:
            return "an unknown position"
        file = display_path(Path(frame.f_code.co_filename))
        return f"{file}:{frame.f_lineno} in {frame.f_code.co_name}"

    def _report(self) -> bool:
        """Report where all are, unless one is at work or they are at one position."""
        found = self._processes.posted("position")
        if not all(found) or len(set(found)) == 1:
            return False
        lines = (
            f"  process {rank}: {step}, at {position}"
            for rank, (step, position) in enumerate(map(json.loads, found))
        )
        logger.warning(
            "no step has ended for %d s, and the processes are not at one position:\n%s\n  Fix: "
            "let every process call the same modules in the same order",
            _LOOKS * _LOOK_EVERY_S,
            "\n".join(lines),
        )
        return True


def _is_skipped(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    is_of_python = file.startswith(sysconfig.get_path("stdlib")) and not any(
        name in file for name in _PACKAGES
    )
    return is_of_python or file.startswith(_SKIPPED_FILES)
