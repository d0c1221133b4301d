"""``RunLog``: reports what a run does to ``run.json``, the log, a person, and run hooks."""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import attrs

from pymodules_core.checkpoints import CheckpointManager, CommitResult
from pymodules_core.checkpoints.store.disk_errors import disk_errors
from pymodules_core.errors import (
    MonitorError,
    PymodulesError,
    RunChangedError,
    RunInterruptedError,
    SettingsError,
    TrainingError,
)
from pymodules_core.training.fit.position import Position
from pymodules_core.training.loop.stop_conditions import StopConditions
from pymodules_core.training.preparation.session import Session
from pymodules_core.training.run_output.console import EpochSummary, ProgressPrinter
from pymodules_core.training.run_output.result import RunResult
from pymodules_core.training.run_output.run_record import RunRecord, RunState

logger = logging.getLogger("pymodules_core")


@attrs.define(eq=False, repr=False, slots=False)
class RunLog:
    """What is reported of one run.

    Args:
        session: The parts of the run.
        checkpoints: Where it is saved.
        reporter: Shows progress.
        stop_conditions: Why and when the run ends.
        position: Where it is.
        facts: What else ``run.json`` holds.

    Attributes:
        record: ``run.json`` and ``metrics.jsonl``.
    """

    _session: Session
    _checkpoints: CheckpointManager
    _reporter: ProgressPrinter
    _stop_conditions: StopConditions
    _position: Position
    _facts: Mapping[str, Any]

    def __attrs_post_init__(self) -> None:
        self._run, is_first = self._session.run, self._session.processes.is_first
        if is_first:
            with disk_errors(self._run.data_dir):
                self._run.data_dir.mkdir(parents=True, exist_ok=True)
        self.record = RunRecord(self._run.data_dir, self._facts, is_kept=is_first)
        self._epochs = self._session.experiment.settings.train.epochs
        self._pending: deque[CommitResult] = deque()
        self._skipped_before = 0

    @property
    def stop_reason(self) -> str:
        """Why the run ends as planned."""
        return self._stop_conditions.reason or f"all {self._epochs} epochs done"

    def log(self, phase: str, metrics: Mapping[str, float], **more: Any) -> None:
        """Log the metrics of a pass over the data."""
        self.record.log_metrics(
            epoch=self._run.epoch, step=self._run.step, phase=phase, metrics=metrics, **more
        )

    def committed(self, receipt: CommitResult) -> None:
        """Record a commit; the process that wrote it calls the hook once it is on disk."""
        if self._session.processes.is_first:
            self._pending.append(receipt)
            self.emit_commits()

    def emit_commits(self) -> None:
        """Call the hook for commits that are on disk by now: a plugin may act on their files."""
        while self._pending and self._pending[0].durable:
            receipt = self._pending.popleft()
            logger.debug("saved %s in %.1f ms", ", ".join(receipt.pools), receipt.write_ms)
            self._session.events.emit("checkpoint_committed", receipt=receipt)

    def resumed(self, line: str) -> None:
        """Record that the run resumed in this process."""
        self._skipped_before = self._skipped_steps()
        self.record.go_on(self._position.log_bytes, epoch=self._run.epoch, step=self._run.step)
        self._reporter.line(line)
        self.write(RunState.RUNNING)

    def epoch_ended(self, start: float, *, is_evaluated: bool, is_best: bool) -> None:
        """Report how an epoch ended.

        Args:
            start: When it began, by ``time.perf_counter``.
            is_evaluated: Whether it had an evaluation.
            is_best: Whether that was the best so far.
        """
        position = self._position
        self.emit_commits()
        self.write(RunState.RUNNING)
        self._reporter.epoch_ended(
            EpochSummary(
                epoch=self._run.epoch,
                epochs=self._epochs,
                train_metrics=position.train_metrics,
                eval_metrics=position.metrics if is_evaluated else {},
                is_best=is_best,
                seconds=time.perf_counter() - start,
                skipped_steps=self._skipped_steps() - self._skipped_before,
            )
        )
        self._skipped_before = self._skipped_steps()

    def write(self, state: RunState, error: str | None = None) -> None:
        """Write ``run.json``."""
        best = self._checkpoints.best
        self.record.write(
            state,
            epoch=self._run.epoch,
            epochs=self._epochs,
            step=self._run.step,
            commit=self._checkpoints.newest_commit,
            metrics=self._position.metrics,
            wall_s=round(self._stop_conditions.elapsed_s, 3),
            best=None
            if best.value is None
            else {"metric": best.monitor, "value": best.value, "epoch": best.epoch},
            skipped_steps=self._skipped_steps(),
            stop_reason=self.stop_reason if state is RunState.FINISHED else None,
            error=error,
        )

    def failed(self, error: BaseException, *, is_written: bool) -> None:
        """Record why the run ends early and call ``run_failed``.

        What they raise themselves must not hide it.

        Args:
            error: Why.
            is_written: Whether ``run.json`` says so; else it stays as it is.
        """
        is_interrupt = isinstance(error, KeyboardInterrupt | RunInterruptedError)
        state = RunState.INTERRUPTED if is_interrupt else RunState.FAILED
        reason = ": ".join(filter(None, (type(error).__name__, str(error))))
        if isinstance(error, RunInterruptedError):
            reason = error.what
        reports: tuple[Callable[[], object], ...] = (
            self._checkpoints.wait,
            self.emit_commits,
            *([partial(self.write, state, error=reason)] if is_written else []),
            partial(self._session.events.emit, "run_failed", error=error),
        )
        for report in reports:
            try:
                report()
            except (PymodulesError, OSError) as second:
                if not _is_one_fault(error, second):
                    logger.warning("%s", second)

    def result(self) -> RunResult:
        """Return what the run ended with."""
        best = self._checkpoints.best
        return RunResult(
            experiment=self._session.experiment.name,
            epochs=self._run.epoch,
            steps=self._run.step,
            best_value=best.value,
            best_epoch=best.epoch,
            metrics=self._position.metrics,
            stop_reason=self.stop_reason,
            wall_s=self._stop_conditions.elapsed_s,
            data_dir=self._run.data_dir,
            pools=tuple(self._checkpoints.pools()),
        )

    def _skipped_steps(self) -> int:
        return sum(optimizer.skipped_steps for optimizer in self._session.optimizers.values())


def _is_one_fault(error: BaseException, second: BaseException) -> bool:
    """Return whether the system gave one reason for both, such as a disk that is full."""
    reasons = [getattr(one.__cause__, "errno", None) for one in (error, second)]
    return reasons[0] is not None and reasons[0] == reasons[1]


def mark_failed(error: BaseException, *, may_be_undone: bool) -> None:
    """Set exit code 1 for an error of a run that had begun, whatever its class.

    Exit code 2 says that the experiment is not valid and that nothing was written.

    Args:
        error: The error.
        may_be_undone: The run is new, and wrong settings undo it.
    """
    refusals: tuple[type[PymodulesError], ...] = (RunInterruptedError, RunChangedError)
    if may_be_undone:
        refusals += (MonitorError, SettingsError)
    if isinstance(error, PymodulesError) and not isinstance(error, refusals):
        error.exit_code = TrainingError.exit_code
