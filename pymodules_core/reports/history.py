"""What a run wrote about itself, read so that damage costs what is damaged and no more.

``run.json`` is taken as it stands, since views show more of it than the rest of the package needs;
every value is checked where it is used, because a file may have been edited or be of a newer
version.
"""

import json
import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import attrs

from pymodules_core.checkpoints.best import BestTracker
from pymodules_core.errors import list_words
from pymodules_core.reports.text import counted, moment_text
from pymodules_core.run_files import (
    METRICS_FILE_NAME,
    RUN_FILE_NAME,
    RunBest,
    read_run_facts,
    read_run_file,
)

_LONGEST_LINE = 1 << 20
TRAIN = "train"
EVAL = "eval"


@attrs.frozen(kw_only=True)
class MetricsRow:
    """One line of ``metrics.jsonl``; None stands for what was not finite."""

    epoch: int
    step: int
    phase: str
    metrics: dict[str, float | None]
    learning_rates: dict[str, float | None] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Resumption:
    """Where a run continued after it had ended early.

    Attributes:
        time: When, as it was written; empty if not known.
        epoch: The epoch of the commit it continued from.
        step: Its step.
    """

    time: str
    epoch: int
    step: int

    def __str__(self) -> str:
        when = f", {moment_text(self.time)}" if self.time else ""
        return f"at epoch {self.epoch:,}, step {self.step:,}{when}"


@attrs.frozen(kw_only=True)
class History:
    """All that is known of one run.

    Attributes:
        state: ``running``, ``finished``, ``interrupted``, ``failed``; ``killed`` where its process
            is gone and ``unreadable`` where ``run.json`` is.
        facts: ``run.json``.
        rows: ``metrics.jsonl``, in the order of training.
        notes: What could not be read, in sentences.
    """

    state: str
    facts: Mapping[str, Any]
    rows: list[MetricsRow]
    notes: list[str]

    @property
    def best(self) -> RunBest | None:
        """The best epoch so far; its value is None where it was not finite."""
        found = table(self.facts, "best")
        metric, epoch = found.get("metric"), whole(found.get("epoch"))
        if not isinstance(metric, str) or epoch is None:
            return None
        return RunBest(metric=metric, value=finite(found.get("value")), epoch=epoch)

    @property
    def resumptions(self) -> list[Resumption]:
        """Where the run continued, oldest first; empty where it ran in one go."""
        return [
            Resumption(time=text(found, "time"), epoch=epoch, step=step)
            for found in tables(self.facts, "resumed")
            if (epoch := whole(found.get("epoch"))) is not None
            and (step := whole(found.get("step"))) is not None
        ]

    def setting(self, name: str) -> Any:
        """Return a value of ``[train]`` as the run had it; None where it is not known."""
        return table(table(self.facts, "settings"), "train").get(name)

    def last_row(self, phase: str) -> MetricsRow | None:
        """Return the last row of a phase, None where there is none."""
        return next((row for row in reversed(self.rows) if row.phase == phase), None)

    def best_epochs(self) -> list[int]:
        """Return the epochs at which ``best`` moved, as far as the evaluations say."""
        best = self.best
        if best is None:
            return []
        mode: Literal["min", "max"] = "max" if self.setting("mode") == "max" else "min"
        tracker = BestTracker(best.metric, mode, finite(self.setting("min_delta")) or 0.0)
        epochs: list[int] = []
        for row in self.rows:
            if row.phase != EVAL or best.metric not in row.metrics:
                continue
            found = row.metrics[best.metric]
            metrics = {best.metric: math.nan if found is None else found}
            if tracker.is_better(metrics):
                tracker.take(metrics, epoch=row.epoch)
                epochs.append(row.epoch)
        return epochs

    def epoch_at(self, step: int) -> float | None:
        """Return where between two epochs a step was; None where no row says."""
        ends = sorted({(row.step, row.epoch) for row in self.rows} | {(0, 0)})
        for (before, first), (after, last) in pairwise(ends):
            if before <= step <= after and after > before:
                return first + (last - first) * (step - before) / (after - before)
        return None


def read_history(experiment_path: Path) -> History | None:
    """Read the run of an experiment.

    Returns:
        What is known of it; None where there is neither ``run.json`` nor ``metrics.jsonl``.
    """
    data = experiment_path / "data"
    metrics_file = data / METRICS_FILE_NAME
    if not (data / RUN_FILE_NAME).exists() and not metrics_file.exists():
        return None
    run, facts = read_run_file(experiment_path), read_run_facts(experiment_path)
    rows, damaged, is_cut = _read_rows(metrics_file)
    notes = []
    if not facts:
        notes.append(f"{RUN_FILE_NAME} cannot be read; only metrics and checkpoints are shown.")
    if is_cut:
        notes.append(
            f"The last line of {METRICS_FILE_NAME} is cut off and left out: the run is writing it, "
            "or was killed meanwhile."
        )
    if damaged:
        lines = counted(len(damaged), "damaged line")
        notes.append(f"{METRICS_FILE_NAME} has {lines}, left out: {list_words(damaged, most=10)}.")
    # Of a file of another version the state may be all that can be read.
    state = (run.state_on_disk if run else text(facts, "state")) or "unreadable"
    return History(state=state, facts=facts, rows=_in_order(rows), notes=notes)


def table(facts: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a table of ``facts``; an empty one where there is none or something else."""
    found = facts.get(key)
    return found if isinstance(found, Mapping) else {}


def tables(facts: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """Return a list of tables; what is none is left out."""
    found = facts.get(key)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def text(facts: Mapping[str, Any], key: str) -> str:
    """Return a text; an empty one where there is none or something else."""
    found = facts.get(key)
    return found if isinstance(found, str) else ""


def finite(value: object) -> float | None:
    """Return a finite number; None for anything else, JSON's NaN and overlong integers included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def whole(value: object) -> int | None:
    """Return a count; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _read_rows(file: Path) -> tuple[list[MetricsRow], list[int], bool]:
    """Read ``metrics.jsonl``.

    Returns:
        The rows, the numbers of damaged lines, and whether the last line is a part of one.
    """
    try:
        content = file.read_bytes()
    except OSError:
        return [], [], False
    rows, damaged = [], []
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        row = _parse_row(line)
        if row is not None:
            rows.append(row)
        elif line.strip():
            damaged.append(number)
    # A whole line ends with a line feed, so that the last piece is empty.
    is_cut = bool(damaged) and damaged[-1] == len(lines)
    return rows, damaged[:-1] if is_cut else damaged, is_cut


def _parse_row(line: bytes) -> MetricsRow | None:
    try:
        # A number of every module takes some thousand; a line of megabytes is nobody's metrics.
        found = json.loads(line) if len(line) < _LONGEST_LINE else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("metrics"), dict):
        return None
    epoch, step, phase = whole(found.get("epoch")), whole(found.get("step")), found.get("phase")
    if epoch is None or step is None or not isinstance(phase, str):
        return None
    return MetricsRow(
        epoch=epoch,
        step=step,
        phase=phase,
        metrics=_numbers(found["metrics"]),
        learning_rates=_numbers(table(found, "learning_rates")),
    )


def _numbers(found: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: finite(value) for name, value in found.items()}


def _in_order(rows: Iterable[MetricsRow]) -> list[MetricsRow]:
    """Sort rows; of what a run repeated after it had gone on from a commit, the later row holds."""
    latest = {(row.epoch, row.step, row.phase): row for row in rows}
    return sorted(latest.values(), key=lambda row: (row.epoch, row.step, row.phase != TRAIN))


def phases_of(histories: Iterable[History]) -> list[str]:
    """Return the phases that any run logged, eval and train first."""
    found = {row.phase for history in histories for row in history.rows}
    return sorted(found, key=lambda phase: (phase_rank(phase), phase))


def phase_rank(phase: str) -> int:
    """Return the place of a phase among others: eval first, train second."""
    return {EVAL: 0, TRAIN: 1}.get(phase, 2)
