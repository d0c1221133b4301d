"""The order of a run, from the first commit, or the latest, to the last record.

Commit ``frzn``, ``init`` and ``last``, evaluate as epoch 0; then for each epoch: train, commit
``last``, evaluate, commit ``last``, ``epoch_<n>`` and, if better, ``best``. Each commit has the
training state, from which a run resumes as if it had never stopped.
"""

import time
from collections.abc import Mapping
from typing import Any

import attrs

from pymodules_core.checkpoints import CheckpointManager
from pymodules_core.errors import ExistingRunError, RunInterruptedError, StoreLockedError
from pymodules_core.names import BEST, LAST
from pymodules_core.training.data import Batches
from pymodules_core.training.fit.commits import Commits
from pymodules_core.training.fit.hang_report import HangReport
from pymodules_core.training.fit.position import Position, Stage
from pymodules_core.training.fit.run_log import RunLog, mark_failed
from pymodules_core.training.fit.training_state import TrainingState
from pymodules_core.training.loop.rank_agreement import RankSync
from pymodules_core.training.loop.signals import StopRequest, StopSignals
from pymodules_core.training.loop.stop_conditions import StopConditions
from pymodules_core.training.preparation.session import Session
from pymodules_core.training.run_output.console import ProgressPrinter
from pymodules_core.training.run_output.result import RunResult
from pymodules_core.training.run_output.run_record import RunState


@attrs.define(eq=False, repr=False, slots=False)
class RunLoop:
    """One pass through the order of a run; holds what changes meanwhile.

    Args:
        session: The parts of the run.
        checkpoints: Where it is saved; the run resumes where there is a commit.
        reporter: Shows progress.
        facts: What else ``run.json`` holds.
        signals: Ends the run where one was received.
        has_changes: The run resumes with other sources than it began with.
        accepts_changes: The run resumes without what cannot be restored.
    """

    _session: Session
    _checkpoints: CheckpointManager
    _reporter: ProgressPrinter
    _facts: Mapping[str, Any]
    _signals: StopRequest | None = attrs.field(default=None, kw_only=True)
    _has_changes: bool = attrs.field(default=False, kw_only=True)
    _accepts_changes: bool = attrs.field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        session, checkpoints = self._session, self._checkpoints
        self._run, self._settings = session.run, session.experiment.settings
        self._rank_sync = RankSync(
            session.processes,
            self._signals or StopSignals(),
            self._reporter.line,
            session.loops.modules,
        )
        self._stop_conditions = StopConditions(self._settings.train, self._rank_sync.now)
        self._position = Position()
        # Metrics of the first part of the epoch that the run resumes in.
        self._averages: Mapping[str, Any] | None = None
        self._run_log = RunLog(
            session,
            checkpoints,
            self._reporter,
            stop_conditions=self._stop_conditions,
            position=self._position,
            facts=self._facts,
        )
        self._commits = Commits(
            session=session,
            checkpoints=checkpoints,
            run_log=self._run_log,
            state=TrainingState(session, self._stop_conditions, self._position),
            position=self._position,
        )

    def execute(self) -> RunResult:
        """Run to the end, and record how it ended, whatever happens.

        Raises:
            RunInterruptedError: A signal ended it; everything up to that step is saved.
            PymodulesError: It failed; what was committed before is intact.
        """
        with HangReport(self._session.processes, self._progress):
            return self._execute()

    def _progress(self) -> tuple[int, str]:
        run = self._run
        return self._rank_sync.steps, f"epoch {run.epoch}, after step {run.step}"

    def _execute(self) -> RunResult:
        session, record = self._session, self._run_log.record
        is_restored, is_new = True, False
        try:
            if self._checkpoints.has_commit:
                is_restored = False
                self._averages = self._commits.restore(accepts_losses=self._accepts_changes)
                # Only the first process has the record.
                is_finished = session.processes.run_on_rank0(lambda: record.is_finished)
                if is_finished and self._is_over():
                    return self._run_log.result()
                self._commits.record_resume(has_changes=self._has_changes)
                is_restored = True
            else:
                is_new = True
                self._commits.start()
            session.events.emit("run_started")
            self._sync_and_stop_if_requested()  # meanwhile
            self._finish_begun_epoch()
            while not self._is_over():
                self._run.epoch += 1
                self._train_and_evaluate()
            self._checkpoints.wait()
            self._run_log.emit_commits()
            session.events.emit("run_finished")
        except (ExistingRunError, StoreLockedError):
            # Another process has the run: run.json is its own.
            raise
        except BaseException as error:
            is_fault = isinstance(error, Exception)
            mark_failed(error, may_be_undone=is_new and self._run.step == 0)
            # The other processes see a broken connection: the first one to fail reports why.
            reported = session.processes.failure(error) if is_fault else error
            # Until a run is restored, run.json says more of it than this process knows.
            self._run_log.failed(reported, is_written=is_restored)
            raise
        self._run_log.write(RunState.FINISHED)
        return self._run_log.result()

    def _finish_begun_epoch(self) -> None:
        """Do what is left of the epoch of the latest commit."""
        match self._position.stage:
            case Stage.STARTED:
                self._evaluate_start()
            case Stage.TRAINING:
                self._train_and_evaluate()
            case Stage.TRAINED:
                self._end_epoch(time.perf_counter(), is_evaluated=True)
            case Stage.FINISHED:
                if self._position.metrics:  # else no run of the trainer's ended it
                    self._emit_epoch()

    def _is_over(self) -> bool:
        """Return whether the epoch at hand, which is finished, was the last."""
        is_last = self._position.stage is Stage.FINISHED or self._run.epoch == 0
        return is_last and (
            self._run.epoch >= self._settings.train.epochs
            or self._stop_conditions.is_reached(self._run.step)
        )

    def _evaluate_start(self) -> None:
        session = self._session
        batches = session.loops.eval_batches
        if batches is None or not self._settings.train.eval_at_start:
            return
        start = time.perf_counter()
        metrics = self._evaluate(batches)
        session.monitored(self._checkpoints, metrics)
        self._commits.commit(Stage.FINISHED, LAST, BEST, metrics=metrics)
        self._epoch_ended(start, is_evaluated=True, is_best=False)

    def _train_and_evaluate(self) -> None:
        session, position = self._session, self._position
        start = time.perf_counter()
        done, averages = 0, None
        if position.stage is Stage.TRAINING:
            done, averages = position.batches_done, self._averages
        else:
            self._stop_conditions.committed(self._run.step)
        position.train_metrics = session.loops.train(
            should_stop=self._stop_conditions.is_reached,
            after_step=self._after_step,
            batches_done=done,
            averages=averages,
        )
        rates = {name: optimizer.learning_rate for name, optimizer in session.optimizers.items()}
        self._run_log.log("train", position.train_metrics, learning_rates=rates)
        # Decided once: the minutes may run out between two calls.
        is_evaluated = self._is_evaluation_due()
        if is_evaluated:
            self._commits.commit(Stage.TRAINED, LAST)
        self._end_epoch(start, is_evaluated=is_evaluated)

    def _end_epoch(self, start: float, *, is_evaluated: bool) -> None:
        session, position = self._session, self._position
        batches = session.loops.eval_batches
        if batches is None or not is_evaluated:
            position.metrics, position.is_evaluated = position.train_metrics, False
            # Train and eval values are two quantities: a scheduler that compares gets one of them.
            monitored = position.metrics.get(self._settings.train.monitor)
            session.loops.end_epoch(monitored if batches is None else None)
            self._commits.commit(
                Stage.FINISHED, LAST, *(self._commits.epoch_pools() if batches is None else ())
            )
            self._epoch_ended(start, is_evaluated=False, is_best=False)
            return
        metrics = self._evaluate(batches)
        session.loops.end_epoch(session.monitored(self._checkpoints, metrics))
        is_better = self._checkpoints.best.is_better(metrics)
        self._stop_conditions.evaluated(self._run.epoch, is_better=is_better)
        self._commits.commit(
            Stage.FINISHED, LAST, BEST, *self._commits.epoch_pools(), metrics=metrics
        )
        self._epoch_ended(start, is_evaluated=True, is_best=is_better)

    def _is_evaluation_due(self) -> bool:
        train, epoch = self._settings.train, self._run.epoch
        if self._session.loops.eval_batches is None:
            return False
        is_last = epoch >= train.epochs or self._stop_conditions.is_reached(self._run.step)
        return is_last or epoch % train.eval_every_n_epochs == 0

    def _evaluate(self, batches: Batches) -> Mapping[str, float]:
        """Evaluate; a signal ends it, and a resume repeats it from its first batch."""
        self._sync_and_stop_if_requested()
        metrics = self._session.loops.evaluate(batches, after_step=self._after_eval_step)
        self._position.metrics, self._position.is_evaluated = metrics, True
        self._run_log.log("eval", metrics)
        return metrics

    def _after_step(self, batches_done: int) -> None:
        self._run_log.emit_commits()
        self._rank_sync.sync_throttled()
        is_requested = self._rank_sync.received is not None
        if is_requested or self._stop_conditions.is_commit_due(
            self._run.step, self._settings.checkpoints
        ):
            if self._session.loops.accumulation.is_unsynced:
                return  # for as many steps as the longest window has, and nothing is lost
            for optimizer in self._session.optimizers.values():
                optimizer.check_finite()
            self._position.batches_done = batches_done
            self._commits.commit(Stage.TRAINING, LAST)
            self._stop_conditions.committed(self._run.step)
            self._stop_if_requested()

    def _after_eval_step(self) -> None:
        self._rank_sync.sync_throttled()
        self._stop_if_requested()

    def _sync_and_stop_if_requested(self) -> None:
        """End the run where any process has received a signal by now; everything is committed.

        Raises:
            RunInterruptedError: It does.
        """
        self._rank_sync.sync()
        self._stop_if_requested()

    def _stop_if_requested(self) -> None:
        received = self._rank_sync.received
        if received is None:
            return
        self._checkpoints.wait()
        run = self._run
        error = RunInterruptedError(
            f"{received.name}: stopped and saved; epoch {run.epoch}, step {run.step}",
            found=int(received),
            fix=f"pymodules train {self._session.experiment.name} --resume",
        )
        error.exit_code = 128 + received
        raise error

    def _epoch_ended(self, start: float, *, is_evaluated: bool, is_best: bool) -> None:
        self._run_log.epoch_ended(start, is_evaluated=is_evaluated, is_best=is_best)
        self._sync_and_stop_if_requested()
        self._emit_epoch()

    def _emit_epoch(self) -> None:
        """Call the hook; after the commit, so that a run which resumes from it calls it, too.

        What it changes, in ``run.state`` for one, is of the next epoch.
        """
        position = self._position
        self._session.events.emit(
            "epoch_finished",
            metrics=position.metrics,
            train_metrics=position.train_metrics,
            is_evaluated=position.is_evaluated,
        )
