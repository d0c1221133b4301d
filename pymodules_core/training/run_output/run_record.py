"""What a run writes about itself: ``run.json``, the whole state, and ``metrics.jsonl``, a log."""

import json
import logging
import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from pymodules_core.checkpoints.file_format.read import write_file
from pymodules_core.checkpoints.store.disk_errors import disk_errors
from pymodules_core.errors import display_path
from pymodules_core.run_files import METRICS_FILE_NAME, RUN_FILE_NAME, unshare

logger = logging.getLogger("pymodules_core")


class RunState(StrEnum):
    """How far a run is; ``running`` in the file of a dead process means it was killed."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


class RunRecord:
    """Keeps ``run.json`` and ``metrics.jsonl`` of one run.

    Of several processes the first keeps them; in the others nothing is written.

    Args:
        data_dir: Folder of what the run writes.
        facts: What does not change during the run.
        is_kept: Whether this process keeps them.
    """

    def __init__(self, data_dir: Path, facts: Mapping[str, Any], *, is_kept: bool = True) -> None:
        self._is_kept = is_kept
        self._run_file = data_dir / RUN_FILE_NAME
        self._metrics_file = data_dir / METRICS_FILE_NAME
        self._facts = {"started": _timestamp(), "resumed": [], **facts}
        self._least_bytes = 0

    @property
    def log_bytes(self) -> int:
        """Length of ``metrics.jsonl``."""
        return self._metrics_file.stat().st_size if self._metrics_file.exists() else 0

    @property
    def is_finished(self) -> bool:
        """Whether ``run.json`` says that the run ended as planned."""
        return _read_json(self._run_file).get("state") == RunState.FINISHED

    def begin(self) -> None:
        """Begin a run: its log is empty, whatever a killed one left before its first commit."""
        if self._is_kept:
            with disk_errors(self._metrics_file):
                self._metrics_file.unlink(missing_ok=True)
                self._metrics_file.touch()

    def go_on(self, log_bytes: int, *, epoch: int, step: int) -> None:
        """Go on with a run: what was logged after the commit is trained and logged again.

        Args:
            log_bytes: Length of the log at the commit.
            epoch: The epoch of the commit.
            step: Its step.
        """
        if not self._is_kept:
            return
        before = _read_json(self._run_file)
        self._facts["started"] = before.get("started", self._facts["started"])
        self._facts["resumed"] = [
            *(found if isinstance(found := before.get("resumed"), list) else []),
            {"time": _timestamp(), "epoch": epoch, "step": step},
        ]
        self._least_bytes = log_bytes
        if self.log_bytes > log_bytes:
            with disk_errors(self._metrics_file):
                unshare(self._metrics_file)
                os.truncate(self._metrics_file, log_bytes)
        else:
            self._warn_if_lost(self.log_bytes)

    def write(self, state: RunState, **progress: Any) -> None:
        """Replace ``run.json``.

        Args:
            state: How far the run is.
            progress: Epoch, step, best and what else changed.
        """
        if not self._is_kept:
            return
        content = {"state": state, **self._facts, "updated": _timestamp(), **progress}
        text = json.dumps(_finite(content), indent=2, default=str)
        write_file(self._run_file, f"{text}\n".encode())

    def log_metrics(
        self, *, epoch: int, step: int, phase: str, metrics: Mapping[str, float], **more: Any
    ) -> None:
        """Append one line to ``metrics.jsonl``; NaN and infinity are written as null."""
        if not self._is_kept:
            return
        row = {"epoch": epoch, "step": step, "phase": phase, "metrics": dict(metrics), **more}
        line = json.dumps(_finite(row)) + "\n"
        with disk_errors(self._metrics_file, needed_bytes=len(line)):
            unshare(self._metrics_file)
            with self._metrics_file.open("a", encoding="utf-8") as file:
                if self._warn_if_lost(found := file.tell()) and found:
                    file.write("\n")  # what is left may end within a row
                file.write(line)
                self._least_bytes = file.tell()

    def _warn_if_lost(self, found_bytes: int) -> bool:
        """Return whether the log is shorter than it was, and warn."""
        lost = self._least_bytes - found_bytes
        if lost > 0:
            logger.warning(
                "%s has lost its last %d bytes, the metrics of some epochs before",
                display_path(self._metrics_file),
                lost,
            )
        return lost > 0


def _read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one where there is none or it is damaged."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _finite(value: Any) -> Any:
    """Replace what JSON cannot say: NaN and infinities become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
