"""What a run writes about itself: ``run.json``, the whole state, and ``metrics.jsonl``, a log."""

import json
import logging
import math
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch

from pymodules_core.checkpoints import LoadReport
from pymodules_core.checkpoints.file_format.read import write_file
from pymodules_core.checkpoints.saving.commits import git_commit
from pymodules_core.checkpoints.store.disk_errors import disk_errors
from pymodules_core.discovery import PluginState
from pymodules_core.discovery.plugins.distribution_files import digest_of_files, lock_distributions
from pymodules_core.discovery.plugins.task_file import TASK_NAME
from pymodules_core.errors import display_path
from pymodules_core.experiment import Experiment
from pymodules_core.run_files import METRICS_FILE_NAME, RUN_FILE_NAME
from pymodules_core.settings.structure import unstructure
from pymodules_core.specs import FileOrigin, Origin
from pymodules_core.training.preparation.session import Session
from pymodules_core.training.run_output.sources import source_digests
from pymodules_core.versions import versions

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
                self._metrics_file.write_bytes(b"")

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
                os.truncate(self._metrics_file, log_bytes)
        else:
            self._tell_lost(self.log_bytes)

    def write(self, state: RunState, **progress: Any) -> None:
        """Replace ``run.json``.

        Args:
            state: How far the run is.
            progress: Epoch, step, best and what else changed.
        """
        if not self._is_kept:
            return
        content = {
            "state": state,
            **self._facts,
            "updated": _timestamp(),
            **progress,
        }
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
        with (
            disk_errors(self._metrics_file, needed_bytes=len(line)),
            self._metrics_file.open("a", encoding="utf-8") as file,
        ):
            if self._tell_lost(found := file.tell()) and found:
                file.write("\n")  # what is left may end within a row
            file.write(line)
            self._least_bytes = file.tell()

    def _tell_lost(self, found_bytes: int) -> bool:
        """Tell whether the log is shorter than it was, and warn."""
        lost = self._least_bytes - found_bytes
        if lost > 0:
            logger.warning(
                "%s has lost its last %d bytes, the metrics of some epochs before",
                display_path(self._metrics_file),
                lost,
            )
        return lost > 0


def run_facts(session: Session) -> dict[str, Any]:
    """Collect what tells how a run came about: settings, modules, files, plugins, versions."""
    experiment, pool, plugins = session.experiment, session.pool, session.plugins
    files = plugins.files.executed() if plugins.files else {}
    task = [record.origin for record in plugins.records if record.name == TASK_NAME]
    return {
        "experiment": experiment.name,
        "seed": experiment.settings.train.seed,
        "device": str(session.device),
        "settings": unstructure(experiment.settings),
        "overrides": experiment.overrides,
        "modules": [
            {
                "name": name,
                "class": entry.kind.__name__,
                "frozen": entry.settings.frozen,
                "trained": any(one.requires_grad for one in entry.module.parameters()),
                "parameters": entry.parameter_count,
                "weights": entry.weights_text,
                "origin": _origin_facts(entry.origin, experiment, files),
            }
            for name, entry in pool.entries.items()
        ],
        "initial_weights": [_report_facts(report) for report in session.reports],
        "files": files,
        "sources": source_digests(experiment),
        "shared_parameters": pool.shared_parameters,
        "plugins": [
            {"name": record.name, **record.origin.to_json()}
            for record in plugins.records
            if record.state is PluginState.ACTIVE
        ],
        "distributions": [
            locked.to_json() for locked in lock_distributions([*pool.origins.values(), *task])
        ],
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "processes": session.processes.size,
        "git_commit": git_commit(experiment.path),
        "process": os.getpid(),
        "host": platform.node(),
    }


def provenance_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Choose of a run's facts what every commit keeps."""
    kept = (
        *("experiment", "seed", "device", "threads", "processes", "settings", "overrides"),
        *("sources", "plugins", "versions", "git_commit"),
    )
    return {
        "modules": {module["name"]: module["origin"] for module in facts["modules"]},
        # A commit is small: run.json has the files.
        "distributions": {
            locked["distribution"]: digest_of_files(locked["files"])
            for locked in facts["distributions"]
        },
        **{key: facts[key] for key in kept},
    }


def _origin_facts(
    origin: Origin, experiment: Experiment, executed: Mapping[str, str]
) -> dict[str, str]:
    """Tell an origin, a file as it was when it ran and as it is found from the experiment."""
    if not isinstance(origin, FileOrigin):
        return origin.to_json()
    file = origin.file.relative_to(experiment.path)
    sha256 = executed[origin.file.relative_to(experiment.modules_dir.parent).as_posix()]
    return {"kind": "file", "file": file.as_posix(), "sha256": sha256}


def _report_facts(report: LoadReport) -> dict[str, Any]:
    return {
        "module": report.module_name,
        "source": display_path(report.source),
        "loaded": len(report.loaded),
        "missing": list(report.missing),
        "unexpected": list(report.unexpected),
        "mismatched": list(report.mismatched),
        "coverage": report.coverage,
        "migrated_from": report.migration and report.migration.from_version,
    }


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
