"""One pass through the order of a run, from the first commit to the last record.

Commit ``frzn``, ``init`` and ``last``, evaluate as epoch 0; then for each epoch: train, commit
``last``, evaluate, commit ``last``, ``epoch_<n>`` and, if better, ``best``.
"""

import logging
import time
from collections import deque
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from pymodules_core.checkpoints import CheckpointManager, Receipt
from pymodules_core.errors import ExistingRunError, PymodulesError
from pymodules_core.names import BEST, LAST, epoch_pool
from pymodules_core.training.records import RunRecord, RunState
from pymodules_core.training.reporting import EpochSummary, Reporter
from pymodules_core.training.session import Session
from pymodules_core.training.stopping import Stopping

logger = logging.getLogger("pymodules_core")


@attrs.frozen(kw_only=True)
class RunResult:
    """How a run ended.

    Attributes:
        experiment: Its name.
        epochs: Epochs trained.
        steps: Steps trained.
        best_value: The best monitored value, None without an eval loop.
        best_epoch: Its epoch.
        metrics: Means of the last eval loop, or of the last train loop without one.
        stop_reason: Why it ended.
        wall_s: Seconds in all.
        data_dir: What the run wrote.
        pools: Checkpoint pools on disk.
    """

    experiment: str
    epochs: int
    steps: int
    best_value: float | None
    best_epoch: int | None
    metrics: Mapping[str, float]
    stop_reason: str
    wall_s: float
    data_dir: Path
    pools: tuple[str, ...]


class Execution:
    """One pass through the order of a run; holds what changes while it goes on."""

    def __init__(
        self,
        session: Session,
        checkpoints: CheckpointManager,
        reporter: Reporter,
        facts: Mapping[str, Any],
    ) -> None:
        self._session = session
        self._run = session.run
        self._checkpoints = checkpoints
        self._reporter = reporter
        self._settings = session.experiment.settings
        self._stopping = Stopping(self._settings.train)
        self._metrics: Mapping[str, float] = {}
        self._last_epoch_pool = 0
        self._untold: deque[Receipt] = deque()
        self._started = time.perf_counter()
        session.run.data_dir.mkdir(parents=True, exist_ok=True)
        self._record = RunRecord(session.run.data_dir, facts)

    def execute(self) -> RunResult:
        """Run from the first commit to the last, and say how it ended, whatever happens."""
        events = self._session.events
        try:
            self._start()
            for epoch in range(1, self._settings.train.epochs + 1):
                if self._stopping.is_reached(self._run.step):
                    break
                self._epoch(epoch)
            self._checkpoints.wait()
            self._tell_commits()
            events.emit("run_finished")
        except ExistingRunError:
            # Another process was faster: run.json is its own.
            raise
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            state = RunState.INTERRUPTED if interrupted else RunState.FAILED
            self._tell_failure(state, error)
            raise
        self._write_record(RunState.FINISHED)
        return self._result()

    def _tell_failure(self, state: RunState, error: BaseException) -> None:
        """Record it and call ``run_failed``; what they raise must not hide why the run failed."""
        reason = ": ".join(filter(None, (type(error).__name__, str(error))))
        for tell in (
            self._checkpoints.wait,
            self._tell_commits,
            partial(self._write_record, state, error=reason),
            partial(self._session.events.emit, "run_failed", error=error),
        ):
            try:
                tell()
            except (PymodulesError, OSError) as second:
                logger.warning("%s", second)

    def _start(self) -> None:
        session = self._session
        session.events.emit("weights_ready")
        receipt = self._checkpoints.start()
        self._write_record(RunState.RUNNING)
        self._committed(receipt)
        session.events.emit("run_started")
        batches = session.loops.eval_batches
        if batches is None or not self._settings.train.eval_at_start:
            return
        start = time.perf_counter()
        self._metrics = session.loops.evaluate(batches)
        self._log("eval", self._metrics)
        session.monitored(self._checkpoints, self._metrics)
        self._committed(self._checkpoints.commit(BEST, epoch=0, metrics=self._metrics))
        self._epoch_ended({}, self._metrics, start, is_best=False)

    def _epoch(self, epoch: int) -> None:
        session, run = self._session, self._run
        run.epoch = epoch
        start = time.perf_counter()
        self._stopping.committed(run.step)
        train_metrics = session.loops.train(
            should_stop=self._stopping.is_reached, after_step=self._after_step
        )
        rates = {name: unit.learning_rate for name, unit in session.units.items()}
        self._log("train", train_metrics, learning_rates=rates)
        train = self._settings.train
        batches = session.loops.eval_batches
        is_last = epoch == train.epochs or self._stopping.is_reached(run.step)
        if batches is None or not (is_last or epoch % train.eval_every_n_epochs == 0):
            self._metrics = train_metrics
            # Train and eval values are two quantities: a scheduler that compares gets one of them.
            session.loops.end_epoch(None if batches else train_metrics.get(train.monitor))
            pools = [LAST, *(self._epoch_pools() if batches is None else [])]
            self._commit(*pools)
            self._epoch_ended(train_metrics, {}, start, is_best=False)
            return
        self._commit(LAST)
        self._metrics = session.loops.evaluate(batches)
        self._log("eval", self._metrics)
        session.loops.end_epoch(session.monitored(self._checkpoints, self._metrics))
        receipt = self._commit(LAST, BEST, *self._epoch_pools(), metrics=self._metrics)
        self._stopping.evaluated(epoch, is_better=receipt.best_moved)
        self._epoch_ended(train_metrics, self._metrics, start, is_best=receipt.best_moved)

    def _after_step(self) -> None:
        if self._stopping.is_commit_due(self._run.step, self._settings.checkpoints):
            for unit in self._session.units.values():
                unit.check_finite()
            self._commit(LAST)
            self._stopping.committed(self._run.step)

    def _epoch_pools(self) -> list[str]:
        """Name ``epoch_<n>`` where enough epochs went by since the last one."""
        epoch = self._run.epoch
        if epoch - self._last_epoch_pool < self._settings.checkpoints.every_n_epochs:
            return []
        self._last_epoch_pool = epoch
        return [epoch_pool(epoch)]

    def _commit(self, *pools: str, metrics: Mapping[str, float] | None = None) -> Receipt:
        run = self._run
        receipt = self._checkpoints.commit(*pools, epoch=run.epoch, step=run.step, metrics=metrics)
        self._committed(receipt)
        return receipt

    def _committed(self, receipt: Receipt) -> None:
        self._untold.append(receipt)
        self._tell_commits()

    def _tell_commits(self) -> None:
        """Call the hook for commits that are on disk by now: a plugin may act on their files."""
        while self._untold and self._untold[0].durable:
            receipt = self._untold.popleft()
            logger.debug("saved %s in %.1f ms", ", ".join(receipt.pools), receipt.write_ms)
            self._session.events.emit("checkpoint_committed", receipt=receipt)

    def _epoch_ended(
        self,
        train_metrics: Mapping[str, float],
        eval_metrics: Mapping[str, float],
        start: float,
        *,
        is_best: bool,
    ) -> None:
        self._tell_commits()
        self._write_record(RunState.RUNNING)
        self._reporter.epoch_ended(
            EpochSummary(
                epoch=self._run.epoch,
                epochs=self._settings.train.epochs,
                train_metrics=train_metrics,
                eval_metrics=eval_metrics,
                is_best=is_best,
                seconds=time.perf_counter() - start,
                skipped_steps=self._skipped_steps(),
            )
        )
        self._session.events.emit("epoch_finished", metrics=eval_metrics or train_metrics)

    def _log(self, phase: str, metrics: Mapping[str, float], **more: Any) -> None:
        self._record.log_metrics(
            epoch=self._run.epoch, step=self._run.step, phase=phase, metrics=metrics, **more
        )

    def _skipped_steps(self) -> int:
        return sum(unit.skipped_steps for unit in self._session.units.values())

    def _write_record(self, state: RunState, error: str | None = None) -> None:
        best, train = self._checkpoints.best, self._settings.train
        self._record.write(
            state,
            epoch=self._run.epoch,
            epochs=train.epochs,
            step=self._run.step,
            metrics=self._metrics,
            best=None
            if best.value is None
            else {"metric": best.monitor, "value": best.value, "epoch": best.epoch},
            skipped_steps=self._skipped_steps(),
            stop_reason=self._stop_reason() if state is RunState.FINISHED else None,
            error=error,
        )

    def _stop_reason(self) -> str:
        return self._stopping.reason or f"all {self._settings.train.epochs} epochs done"

    def _result(self) -> RunResult:
        best = self._checkpoints.best
        return RunResult(
            experiment=self._session.experiment.name,
            epochs=self._run.epoch,
            steps=self._run.step,
            best_value=best.value,
            best_epoch=best.epoch,
            metrics=self._metrics,
            stop_reason=self._stop_reason(),
            wall_s=time.perf_counter() - self._started,
            data_dir=self._run.data_dir,
            pools=tuple(self._checkpoints.pools()),
        )
