"""The order of a run, from the first commit, or the newest, to the last record.

Commit ``frzn``, ``init`` and ``last``, evaluate as epoch 0; then for each epoch: train, commit
``last``, evaluate, commit ``last``, ``epoch_<n>`` and, if better, ``best``. Each commit has the
training state, from which a run goes on as if it had never stopped.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from pymodules_core.checkpoints import CheckpointManager, Receipt, Resumed
from pymodules_core.errors import (
    ExistingRunError,
    PymodulesError,
    RunInterruptedError,
    StoreLockedError,
)
from pymodules_core.initial_weights import load_initial_weights
from pymodules_core.names import BEST, LAST, epoch_pool
from pymodules_core.training.data import Batches
from pymodules_core.training.records import RunRecord, RunState
from pymodules_core.training.reporting import EpochSummary, Reporter
from pymodules_core.training.session import Session
from pymodules_core.training.signals import StopSignals
from pymodules_core.training.state.training_state import Position, Stage, TrainingState
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
    """One pass through the order of a run; holds what changes while it goes on.

    Args:
        session: The parts of the run.
        checkpoints: Where it is saved; the run goes on where there is something to go on from.
        reporter: Shows progress.
        facts: What ``run.json`` tells besides.
        signals: Ends the run where one was received.
    """

    def __init__(
        self,
        session: Session,
        checkpoints: CheckpointManager,
        reporter: Reporter,
        facts: Mapping[str, Any],
        *,
        signals: StopSignals | None = None,
    ) -> None:
        self._session = session
        self._signals = signals or StopSignals()
        self._run = session.run
        self._checkpoints = checkpoints
        self._reporter = reporter
        self._settings = session.experiment.settings
        self._stopping = Stopping(self._settings.train)
        self._position = Position()
        self._state = TrainingState(
            run=session.run,
            units=session.units,
            plugins=session.plugins,
            data={"train": session.loops.train_batches, "eval": session.loops.eval_batches},
            stopping=self._stopping,
            position=self._position,
        )
        # Metrics of the first part of the epoch that the run goes on in.
        self._averages: Mapping[str, Any] | None = None
        self._untold: deque[Receipt] = deque()
        session.run.data_dir.mkdir(parents=True, exist_ok=True)
        self._record = RunRecord(session.run.data_dir, facts)

    def execute(self) -> RunResult:
        """Run to the end, and say how it ended, whatever happens.

        Raises:
            RunInterruptedError: A signal ended it; everything up to that step is saved.
            PymodulesError: It failed; what was committed before is intact.
        """
        try:
            if not self._checkpoints.has_commit:
                self._start()
            elif not self._resume():
                return self._result()
            self._session.events.emit("run_started")
            self._finish_begun_epoch()
            while not self._is_over():
                self._run.epoch += 1
                self._train_and_evaluate()
            self._checkpoints.wait()
            self._tell_commits()
            self._session.events.emit("run_finished")
        except (ExistingRunError, StoreLockedError):
            # Another process has the run: run.json is its own.
            raise
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt | RunInterruptedError)
            state = RunState.INTERRUPTED if interrupted else RunState.FAILED
            self._tell_failure(state, error)
            raise
        self._write_record(RunState.FINISHED)
        return self._result()

    def _tell_failure(self, state: RunState, error: BaseException) -> None:
        """Record it and call ``run_failed``; what they raise must not hide why the run failed."""
        reason = ": ".join(filter(None, (type(error).__name__, str(error))))
        if isinstance(error, RunInterruptedError):
            reason = error.what
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
        self._record.begin()
        receipt = self._checkpoints.start(state=self._state.capture())
        self._write_record(RunState.RUNNING)
        self._committed(receipt)

    def _resume(self) -> bool:
        """Go on from the newest commit.

        Returns:
            Whether anything is left to do; where nothing is, nothing is written.
        """
        session = self._session
        resumed = self._checkpoints.resume(allow_new=True)
        load_initial_weights(session.pool)  # of modules that are new
        if resumed.state is None:
            self._take_weights_only(resumed)
        else:
            self._averages = self._state.restore(resumed.state)
        if self._record.is_finished and self._is_over():
            return False
        self._run.resumed_step = self._run.step
        self._record.go_on(self._position.log_bytes, epoch=self._run.epoch, step=self._run.step)
        where = "in" if self._position.stage is Stage.TRAINING else "after"
        self._reporter.line(f"going on {where} epoch {self._run.epoch}, step {self._run.step}")
        self._write_record(RunState.RUNNING)
        return True

    def _take_weights_only(self, resumed: Resumed) -> None:
        """Go on from a commit that the trainer did not make, or that was repaired from files."""
        logger.warning(
            "the checkpoint has no training state: optimizers, schedulers and random numbers begin "
            "anew after epoch %d",
            resumed.epoch,
        )
        self._run.epoch, self._run.step = resumed.epoch, resumed.step
        self._position.stage = Stage.FINISHED if resumed.epoch else Stage.STARTED
        self._position.metrics = {
            name: math.nan if value is None else value for name, value in resumed.metrics.items()
        }
        self._position.last_epoch_pool = resumed.epoch
        self._position.log_bytes = self._record.log_bytes

    def _finish_begun_epoch(self) -> None:
        """Do what is left of the epoch of the newest commit."""
        match self._position.stage:
            case Stage.STARTED:
                self._evaluate_start()
            case Stage.TRAINING:
                self._train_and_evaluate()
            case Stage.TRAINED:
                self._end_epoch(time.perf_counter(), is_evaluated=True)
            case Stage.FINISHED:
                self._tell_epoch()

    def _is_over(self) -> bool:
        """Tell whether the epoch at hand, which is finished, was the last."""
        is_last = self._position.stage is Stage.FINISHED or self._run.epoch == 0
        return is_last and (
            self._run.epoch >= self._settings.train.epochs
            or self._stopping.is_reached(self._run.step)
        )

    def _evaluate_start(self) -> None:
        session = self._session
        batches = session.loops.eval_batches
        if batches is None or not self._settings.train.eval_at_start:
            return
        start = time.perf_counter()
        metrics = self._evaluate(batches)
        session.monitored(self._checkpoints, metrics)
        self._commit(Stage.FINISHED, LAST, BEST, metrics=metrics)
        self._epoch_ended(start, is_evaluated=True, is_best=False)

    def _train_and_evaluate(self) -> None:
        session, position = self._session, self._position
        start = time.perf_counter()
        done, averages = 0, None
        if position.stage is Stage.TRAINING:
            done, averages = position.batches_done, self._averages
        else:
            self._stopping.committed(self._run.step)
        position.train_metrics = session.loops.train(
            should_stop=self._stopping.is_reached,
            after_step=self._after_step,
            batches_done=done,
            averages=averages,
        )
        rates = {name: unit.learning_rate for name, unit in session.units.items()}
        self._log("train", position.train_metrics, learning_rates=rates)
        # Asked once: the minutes may run out between two answers.
        is_evaluated = self._is_evaluation_due()
        if is_evaluated:
            self._commit(Stage.TRAINED, LAST)
        self._end_epoch(start, is_evaluated=is_evaluated)

    def _end_epoch(self, start: float, *, is_evaluated: bool) -> None:
        session, position = self._session, self._position
        batches = session.loops.eval_batches
        if batches is None or not is_evaluated:
            position.metrics = position.train_metrics
            # Train and eval values are two quantities: a scheduler that compares gets one of them.
            monitored = position.metrics.get(self._settings.train.monitor)
            session.loops.end_epoch(monitored if batches is None else None)
            self._commit(Stage.FINISHED, LAST, *(self._epoch_pools() if batches is None else ()))
            self._epoch_ended(start, is_evaluated=False, is_best=False)
            return
        metrics = self._evaluate(batches)
        session.loops.end_epoch(session.monitored(self._checkpoints, metrics))
        is_better = self._checkpoints.best.is_better(metrics)
        self._stopping.evaluated(self._run.epoch, is_better=is_better)
        self._commit(Stage.FINISHED, LAST, BEST, *self._epoch_pools(), metrics=metrics)
        self._epoch_ended(start, is_evaluated=True, is_best=is_better)

    def _is_evaluation_due(self) -> bool:
        train, epoch = self._settings.train, self._run.epoch
        if self._session.loops.eval_batches is None:
            return False
        is_last = epoch >= train.epochs or self._stopping.is_reached(self._run.step)
        return is_last or epoch % train.eval_every_n_epochs == 0

    def _evaluate(self, batches: Batches) -> Mapping[str, float]:
        """Evaluate; a signal ends it, and the run that goes on repeats it from its first batch."""
        self._stop_if_asked()
        metrics = self._session.loops.evaluate(batches, after_step=self._stop_if_asked)
        self._position.metrics = metrics
        self._log("eval", metrics)
        return metrics

    def _after_step(self, batches_done: int) -> None:
        is_asked = self._signals.received is not None
        if is_asked or self._stopping.is_commit_due(self._run.step, self._settings.checkpoints):
            for unit in self._session.units.values():
                unit.check_finite()
            self._position.batches_done = batches_done
            self._commit(Stage.TRAINING, LAST)
            self._stopping.committed(self._run.step)
            self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        """End the run where a signal asked for it; everything is committed.

        Raises:
            RunInterruptedError: It did.
        """
        received = self._signals.received
        if received is None:
            return
        self._checkpoints.wait()
        run = self._run
        error = RunInterruptedError(
            f"{received.name}: stopped and saved; epoch {run.epoch}, step {run.step}",
            found=int(received),
            fix=f"pymodules train {self._session.experiment.name} --resume goes on",
        )
        error.exit_code = 128 + received
        raise error

    def _epoch_pools(self) -> list[str]:
        """Name ``epoch_<n>`` where enough epochs went by since the last one."""
        epoch = self._run.epoch
        if epoch - self._position.last_epoch_pool < self._settings.checkpoints.every_n_epochs:
            return []
        self._position.last_epoch_pool = epoch
        return [epoch_pool(epoch)]

    def _commit(
        self, stage: Stage, *pools: str, metrics: Mapping[str, float] | None = None
    ) -> None:
        run = self._run
        self._position.stage = stage
        self._position.log_bytes = self._record.log_bytes
        self._committed(
            self._checkpoints.commit(
                *pools,
                epoch=run.epoch,
                step=run.step,
                metrics=metrics,
                state=self._state.capture(),
            )
        )

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
        start: float,
        *,
        is_evaluated: bool,
        is_best: bool,
    ) -> None:
        position = self._position
        self._tell_commits()
        self._write_record(RunState.RUNNING)
        self._reporter.epoch_ended(
            EpochSummary(
                epoch=self._run.epoch,
                epochs=self._settings.train.epochs,
                train_metrics=position.train_metrics,
                eval_metrics=position.metrics if is_evaluated else {},
                is_best=is_best,
                seconds=time.perf_counter() - start,
                skipped_steps=self._skipped_steps(),
            )
        )
        self._stop_if_asked()
        self._tell_epoch()

    def _tell_epoch(self) -> None:
        """Call the hook; after the commit, so that a run that goes on from it calls it, too.

        What it changes, in ``run.state`` for one, is of the next epoch.
        """
        self._session.events.emit("epoch_finished", metrics=self._position.metrics)

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
            metrics=self._position.metrics,
            wall_s=round(self._stopping.elapsed_s, 3),
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
            metrics=self._position.metrics,
            stop_reason=self._stop_reason(),
            wall_s=self._stopping.elapsed_s,
            data_dir=self._run.data_dir,
            pools=tuple(self._checkpoints.pools()),
        )
