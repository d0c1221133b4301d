"""What lies in an experiment's ``data/``: names of files, reading them back, moving a run aside.

No torch here: ``list`` and ``status`` read runs without it.
"""

import contextlib
import itertools
import json
import os
import platform
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import cattrs

from pymodules_core.errors import ExistingRunError, display_path
from pymodules_core.experiment import Experiment

RUN_FILE_NAME = "run.json"
METRICS_FILE_NAME = "metrics.jsonl"
CHECKPOINTS_DIR_NAME = "module_ckps"
SOURCES_DIR_NAME = "sources"
_TEMPORARY_PREFIX = ".writing-"
# Of run.json; of a thousand modules and files it has about one.
_MOST_BYTES = 1 << 24
_NAMES = (RUN_FILE_NAME, METRICS_FILE_NAME, CHECKPOINTS_DIR_NAME)
# Lenient, unlike that of settings: the file holds more, and is of any version.
_CONVERTER = cattrs.Converter()
_CONVERTER.register_structure_hook(
    datetime, lambda text, _: datetime.fromisoformat(text).astimezone(UTC)
)


@attrs.frozen(kw_only=True)
class RunModule:
    """A module as ``run.json`` describes it; one that is not frozen need not have gradients."""

    name: str
    frozen: bool
    parameters: int
    weights: str | None
    trained: bool = True


@attrs.frozen(kw_only=True)
class RunBest:
    """The best epoch so far; ``value`` is None where it was not finite."""

    metric: str
    value: float | None
    epoch: int


@attrs.frozen(kw_only=True)
class RunFile:
    """What is read back of ``run.json``; the file holds more, for people.

    Attributes:
        state: ``running``, ``finished``, ``interrupted`` or ``failed``.
        epoch: The last epoch.
        epochs: Epochs planned.
        step: Train steps done.
        updated: When the file was written.
        host: Name of the machine.
        process: The process there.
        modules: The module pool.
        best: The best epoch so far.
        metrics: Means of the last eval loop, or of the last train loop without one.
        error: What ended a failed run.
        commit: Number of the newest commit; None before the first, and in files of older versions.
    """

    state: str
    epoch: int
    epochs: int
    step: int
    updated: datetime
    host: str
    process: int
    modules: list[RunModule]
    best: RunBest | None = None
    metrics: dict[str, float | None] | None = None
    error: str | None = None
    commit: int | None = None

    @property
    def has_commit(self) -> bool:
        """Whether the run had committed something; one that failed at its start had not."""
        is_begun = self.epoch > 0 or self.step > 0 or self.state in {"running", "finished"}
        return self.commit is not None or is_begun

    @property
    def state_on_disk(self) -> str:
        """The state; ``killed`` where the process is gone, whatever it last said."""
        return "killed" if self.state == "running" and self.is_at_work is False else self.state

    @property
    def is_at_work(self) -> bool | None:
        """Whether its process runs; None where that cannot be known: on another machine."""
        if self.state != "running":
            return False
        return is_process_alive(self.host, self.process)


def is_process_alive(host: str, process: int) -> bool | None:
    """Return whether a process runs; None where that cannot be known: on another machine."""
    # On Windows signal 0 is Ctrl-C.
    if host != platform.node() or os.name == "nt":
        return None
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's, and there
        return True
    return True


def replace_file(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content``: temporary name, fsync, rename, fsync of the folder.

    Raises:
        OSError: What was there before is intact, or ``content`` is there whole.
    """
    # Everybody's under one name: what a killed writer left is written over by the next.
    temporary = path.with_name(f"{_TEMPORARY_PREFIX}{path.name}")
    try:
        # Not opened as it is: in a stranger's folder it may be a link.
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def unshare(path: Path) -> None:
    """Give a file content of its own where it has a second name, as in a copy by ``cp -al``.

    Raises:
        OSError: The disk refuses; the content is as it was.
    """
    if path.exists() and path.stat().st_nlink > 1:
        replace_file(path, path.read_bytes())


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checkpoints_dir(experiment_path: Path) -> Path:
    """Return the folder of an experiment's checkpoint pools."""
    return experiment_path / "data" / CHECKPOINTS_DIR_NAME


def read_run_file(experiment_path: Path) -> RunFile | None:
    """Return an experiment's ``run.json``, or None where there is none or it is damaged."""
    try:
        return _CONVERTER.structure(read_run_facts(experiment_path), RunFile)
    except (ValueError, TypeError, cattrs.BaseValidationError):
        return None


def read_run_facts(experiment_path: Path) -> dict[str, Any]:
    """Return all that ``run.json`` says, unchecked; nothing where it is not there or damaged."""
    try:
        file = experiment_path / "data" / RUN_FILE_NAME
        # Whoever reads a pipe waits, and a device gives bytes without end.
        content = json.loads(file.read_text("utf-8")) if _is_read(file) else None
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def trace_of_commits(experiment_path: Path) -> tuple[Path, str] | None:
    """Return the file that shows that a run has made commits, and what it says; None without one.

    A file that cannot be read may well be of a run with commits. Metrics are logged only after one.
    """
    data = experiment_path / "data"
    run_file, metrics_file = data / RUN_FILE_NAME, data / METRICS_FILE_NAME
    run = read_run_file(experiment_path)
    if run is not None and run.has_commit:
        return run_file, f"the run is in epoch {run.epoch}, step {run.step}"
    if run is None and os.path.lexists(run_file):
        return run_file, f"{RUN_FILE_NAME} of a run cannot be read"
    with contextlib.suppress(OSError):
        if metrics_file.is_file():
            with metrics_file.open("rb") as file:
                if file.readline(_MOST_BYTES).endswith(b"\n"):
                    return metrics_file, "holds the metrics of a run"
    return None


def _is_read(file: Path) -> bool:
    return file.is_file() and file.stat().st_size <= _MOST_BYTES


def has_run(experiment: Experiment) -> bool:
    """Return whether an experiment's ``data/`` holds anything of a run."""
    return any((experiment.data_dir / name).exists() for name in _NAMES)


def refuse_existing_run(experiment: Experiment) -> None:
    """Refuse to train over a run.

    Raises:
        ExistingRunError: There is one; the message says how far it is.
    """
    if not has_run(experiment):
        return
    run = read_run_file(experiment.path)
    how_far = (
        f"{run.state_on_disk}, epoch {run.epoch}" if run else f"without a readable {RUN_FILE_NAME}"
    )
    raise ExistingRunError(
        f"experiment {experiment.name!r} has a run already ({how_far})",
        file=experiment.data_dir,
        found=run and run.state,
        fix=f"pymodules train {experiment.name} --resume resumes it; --reset moves it aside "
        "and starts again",
    )


def move_run_aside(experiment: Experiment) -> Path | None:
    """Rename ``data/`` to the first free ``data.<n>``; nothing is deleted.

    Returns:
        The new path, or None where there was no run.

    Raises:
        ExistingRunError: A process is at work on the run, or the folder cannot be renamed.
    """
    if not has_run(experiment):
        return None
    run = read_run_file(experiment.path)
    if run is not None and run.is_at_work:
        raise ExistingRunError(
            f"experiment {experiment.name!r} is being trained by process {run.process} on "
            f"{run.host}",
            file=experiment.data_dir,
            found=run.process,
            fix=f"wait for it, or stop it: kill {run.process}",
        )
    free = (experiment.path / f"data.{number}" for number in itertools.count(1))
    target = next(path for path in free if not path.exists())
    try:
        experiment.data_dir.rename(target)
    except OSError as error:
        raise ExistingRunError(
            f"cannot move the old run to {display_path(target)}: {error.strerror}",
            file=experiment.data_dir,
            fix="make the experiment's folder writable, or move data/ yourself",
        ) from error
    return target


def delete_run(experiment: Experiment) -> None:
    """Delete a run that was refused before its first step; what is not the run's own stays."""
    data = experiment.data_dir
    for name in (CHECKPOINTS_DIR_NAME, SOURCES_DIR_NAME):
        shutil.rmtree(data / name, ignore_errors=True)
    for name in (RUN_FILE_NAME, METRICS_FILE_NAME):
        (data / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty: a hook or a person wrote there too
        data.rmdir()
