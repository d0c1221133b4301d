"""``Trainer``: one run of an experiment, in the order that makes its checkpoints comparable.

Build pool, initial weights, commit ``frzn``, ``init`` and ``last``, evaluate as epoch 0; then for
each epoch: train, commit ``last``, evaluate, commit ``last``, ``epoch_<n>`` and, if better,
``best``.
"""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from pymodules_core.checkpoints import CheckpointManager, Receipt
from pymodules_core.errors import PymodulesError, TrainingError, display_path
from pymodules_core.experiment import Experiment
from pymodules_core.names import BEST, LAST, epoch_pool
from pymodules_core.run_files import checkpoints_dir, move_run_aside, refuse_existing_run
from pymodules_core.training.records import RunRecord, RunState, run_facts
from pymodules_core.training.reporting import ConsoleReporter, EpochSummary, Reporter
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


class Trainer:
    """Trains an experiment: ``Trainer("digits_classifier").fit()``.

    Args:
        experiment: A name in the data home, a folder, or an opened experiment.
        data_home: Overrides the environment variable and ``./data``.
        overrides: Dotted keys laid over ``experiment.toml``: ``{"train.epochs": 3}``.
        existing: What to do with a run that is there: refuse, or move it aside.
        load_installed: Whether to load installed plugins.
        reporter: Shows progress; lines on standard output and a bar on a terminal by default.
    """

    def __init__(
        self,
        experiment: str | Path | Experiment,
        *,
        data_home: Path | None = None,
        overrides: Mapping[str, Any] | None = None,
        existing: Literal["refuse", "reset"] = "refuse",
        load_installed: bool = True,
        reporter: Reporter | None = None,
    ) -> None:
        self.experiment = Experiment.open(experiment, data_home=data_home, overrides=overrides)
        self._existing = existing
        self._load_installed = load_installed
        self._reporter = reporter or ConsoleReporter()

    def fit(self) -> RunResult:
        """Train to the end.

        The run owns the global random streams of torch, ``random`` and numpy while it goes on.

        Raises:
            ExistingRunError: There is a run already.
            TrainingError: The run failed; checkpoints so far are intact.
            PymodulesError: With ``exit_code`` 2 the experiment is not valid and nothing was
                written; with 1 the run failed.
        """
        if self._existing == "refuse":
            refuse_existing_run(self.experiment)
        session = Session.prepare(
            self.experiment,
            data_dir=self.experiment.data_dir,
            reporter=self._reporter,
            load_installed=self._load_installed,
        )
        if self._existing == "reset" and (moved := move_run_aside(self.experiment)):
            self._reporter.line(f"the old run is now in {display_path(moved)}")
        with session.checkpoints(checkpoints_dir(self.experiment.path)) as checkpoints:
            return _Execution(session, checkpoints, self._reporter).execute()


class _Execution:
    """One pass through the order of a run; holds what changes while it goes on."""

    def __init__(
        self, session: Session, checkpoints: CheckpointManager, reporter: Reporter
    ) -> None:
        self._session = session
        self._run = session.run
        self._checkpoints = checkpoints
        self._reporter = reporter
        self._settings = session.experiment.settings
        self._stopping = Stopping(self._settings.train)
        self._metrics: Mapping[str, float] = {}
        self._started = time.perf_counter()
        session.run.data_dir.mkdir(parents=True, exist_ok=True)
        self._record = RunRecord(
            session.run.data_dir,
            run_facts(session.experiment, session.pool, session.plugins, session.device),
        )

    def execute(self) -> RunResult:
        """Run from the first commit to the last, and say how it ended, whatever happens."""
        events = self._session.events
        self._write_record(RunState.RUNNING)
        try:
            self._start()
            for epoch in range(1, self._settings.train.epochs + 1):
                self._epoch(epoch)
                if self._stopping.reason is not None:
                    break
            events.emit("run_finished")
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            state = RunState.INTERRUPTED if interrupted else RunState.FAILED
            if isinstance(error, PymodulesError):
                # Whatever its class, this is no experiment that was refused: the run has begun.
                error.exit_code = TrainingError.exit_code
            self._write_record(state, error=f"{type(error).__name__}: {error}")
            self._tell_failure(error)
            raise
        self._write_record(RunState.FINISHED)
        return self._result()

    def _tell_failure(self, error: BaseException) -> None:
        """Call ``run_failed``; what it raises itself must not hide why the run failed."""
        try:
            self._session.events.emit("run_failed", error=error)
        except PymodulesError as second:
            logger.warning("%s", second)

    def _start(self) -> None:
        session = self._session
        session.events.emit("weights_ready")
        self._committed(self._checkpoints.start())
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
        self._stopping.start_epoch()
        train_metrics = session.loops.train(
            should_stop=self._stopping.is_reached, after_step=self._after_step
        )
        rates = {name: unit.learning_rate for name, unit in session.units.items()}
        self._log("train", train_metrics, learning_rates=rates)
        train = self._settings.train
        batches = session.loops.eval_batches
        is_last = epoch == train.epochs or self._stopping.is_reached()
        if batches is None or not (is_last or epoch % train.eval_every_n_epochs == 0):
            self._metrics = train_metrics
            session.loops.end_epoch(train_metrics.get(train.monitor))
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
        if self._stopping.stepped(self._settings.checkpoints):
            for unit in self._session.units.values():
                unit.check_finite()
            self._commit(LAST)

    def _epoch_pools(self) -> list[str]:
        every = self._settings.checkpoints.every_n_epochs
        return [epoch_pool(self._run.epoch)] if self._run.epoch % every == 0 else []

    def _commit(self, *pools: str, metrics: Mapping[str, float] | None = None) -> Receipt:
        run = self._run
        receipt = self._checkpoints.commit(*pools, epoch=run.epoch, step=run.step, metrics=metrics)
        self._committed(receipt)
        return receipt

    def _committed(self, receipt: Receipt) -> None:
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
