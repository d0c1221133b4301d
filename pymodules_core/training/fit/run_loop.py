"""The order of a run, from the first commit, or the newest, to the last record.

Commit ``frzn``, ``init`` and ``last``, evaluate as epoch 0; then for each epoch: train, commit
``last``, evaluate, commit ``last``, ``epoch_<n>`` and, if better, ``best``. Each commit has the
training state, from which a run goes on as if it had never stopped.
"""

import time
from collections.abc import Mapping
from typing import Any

from pymodules_core.checkpoints import CheckpointManager
from pymodules_core.errors import (
    ExistingRunError,
    MonitorError,
    PymodulesError,
    RunChangedError,
    RunInterruptedError,
    SettingsError,
    StoreLockedError,
    TrainingError,
)
from pymodules_core.names import BEST, LAST, epoch_pool
from pymodules_core.training.data import Batches
from pymodules_core.training.fit.hang_report import HangReport
from pymodules_core.training.fit.run_log import RunLog
from pymodules_core.training.fit.start import RunStart
from pymodules_core.training.fit.training_state import Position, Stage, TrainingState
from pymodules_core.training.loop.rank_agreement import RankSync
from pymodules_core.training.loop.signals import StopRequest, StopSignals
from pymodules_core.training.loop.stop_conditions import StopConditions
from pymodules_core.training.preparation.session import Session
from pymodules_core.training.run_output.console import ProgressPrinter
from pymodules_core.training.run_output.result import RunResult
from pymodules_core.training.run_output.run_record import RunState


class RunLoop:
    """One pass through the order of a run; holds what changes while it goes on.

    Args:
        session: The parts of the run.
        checkpoints: Where it is saved; the run goes on where there is something to go on from.
        reporter: Shows progress.
        facts: What ``run.json`` tells besides.
        signals: Ends the run where one was received.
        has_changes: The run goes on with other sources than it began with.
        accepts_changes: The run resumes without what cannot be restored.
    """

    def __init__(
        self,
        session: Session,
        checkpoints: CheckpointManager,
        reporter: ProgressPrinter,
        facts: Mapping[str, Any],
        *,
        signals: StopRequest | None = None,
        has_changes: bool = False,
        accepts_changes: bool = False,
    ) -> None:
        self._session = session
        self._rank_sync = RankSync(
            session.processes, signals or StopSignals(), reporter.line, session.modules
        )
        self._run = session.run
        self._checkpoints = checkpoints
        self._settings = session.experiment.settings
        self._stop_conditions = StopConditions(self._settings.train, self._rank_sync.now)
        self._position = Position()
        self._state = TrainingState(
            run=session.run,
            control=session.control,
            units=session.units,
            plugins=session.plugins,
            data={"train": session.loops.train_batches, "eval": session.loops.eval_batches},
            stop_conditions=self._stop_conditions,
            position=self._position,
            processes=session.processes,
        )
        # Metrics of the first part of the epoch that the run goes on in.
        self._averages: Mapping[str, Any] | None = None
        self._run_log = RunLog(
            session,
            checkpoints,
            reporter,
            stop_conditions=self._stop_conditions,
            position=self._position,
            facts=facts,
        )
        self._start = RunStart(
            session=session,
            checkpoints=checkpoints,
            run_log=self._run_log,
            state=self._state,
            position=self._position,
            has_changes=has_changes,
            accepts_changes=accepts_changes,
        )

    def execute(self) -> RunResult:
        """Run to the end, and say how it ended, whatever happens.

        Raises:
            RunInterruptedError: A signal ended it; everything up to that step is saved.
            PymodulesError: It failed; what was committed before is intact.
        """
        with HangReport(self._session.processes, self._moment):
            return self._execute()

    def _moment(self) -> tuple[int, str]:
        run = self._run
        return self._rank_sync.steps, f"epoch {run.epoch}, after step {run.step}"

    def _execute(self) -> RunResult:
        is_back, is_new = True, False
        try:
            if self._checkpoints.has_commit:
                is_back = False
                self._averages = self._start.restore()
                if self._is_finished() and self._is_over():
                    return self._result()
                self._start.go_on()
                is_back = True
            else:
                is_new = True
                self._start.start()
            self._session.events.emit("run_started")
            self._stop_if_asked()  # meanwhile
            self._finish_begun_epoch()
            while not self._is_over():
                self._run.epoch += 1
                self._train_and_evaluate()
            self._checkpoints.wait()
            self._run_log.tell_commits()
            self._session.events.emit("run_finished")
        except (ExistingRunError, StoreLockedError):
            # Another process has the run: run.json is its own.
            raise
        except BaseException as error:
            is_fault = isinstance(error, Exception)
            mark_failed(error, may_be_undone=is_new and self._run.step == 0)
            # Of several processes the others see a broken connection: why, the first to fail says.
            told = self._session.processes.failure(error) if is_fault else error
            # Until a run is back, run.json says more of it than this process knows.
            self._run_log.failed(told, is_written=is_back)
            raise
        self._run_log.write(RunState.FINISHED)
        return self._result()

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
                if self._position.metrics:  # else no run of the trainer's ended it
                    self._tell_epoch()

    def _is_finished(self) -> bool:
        return self._session.processes.run_on_rank0(lambda: self._run_log.record.is_finished)

    def _is_over(self) -> bool:
        """Tell whether the epoch at hand, which is finished, was the last."""
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
        self._commit(Stage.FINISHED, LAST, BEST, metrics=metrics)
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
        rates = {name: unit.learning_rate for name, unit in session.units.items()}
        self._run_log.log("train", position.train_metrics, learning_rates=rates)
        # Asked once: the minutes may run out between two answers.
        is_evaluated = self._is_evaluation_due()
        if is_evaluated:
            self._commit(Stage.TRAINED, LAST)
        self._end_epoch(start, is_evaluated=is_evaluated)

    def _end_epoch(self, start: float, *, is_evaluated: bool) -> None:
        session, position = self._session, self._position
        batches = session.loops.eval_batches
        if batches is None or not is_evaluated:
            position.metrics, position.is_evaluated = position.train_metrics, False
            # Train and eval values are two quantities: a scheduler that compares gets one of them.
            monitored = position.metrics.get(self._settings.train.monitor)
            session.loops.end_epoch(monitored if batches is None else None)
            self._commit(Stage.FINISHED, LAST, *(self._epoch_pools() if batches is None else ()))
            self._epoch_ended(start, is_evaluated=False, is_best=False)
            return
        metrics = self._evaluate(batches)
        session.loops.end_epoch(session.monitored(self._checkpoints, metrics))
        is_better = self._checkpoints.best.is_better(metrics)
        self._stop_conditions.evaluated(self._run.epoch, is_better=is_better)
        self._commit(Stage.FINISHED, LAST, BEST, *self._epoch_pools(), metrics=metrics)
        self._epoch_ended(start, is_evaluated=True, is_best=is_better)

    def _is_evaluation_due(self) -> bool:
        train, epoch = self._settings.train, self._run.epoch
        if self._session.loops.eval_batches is None:
            return False
        is_last = epoch >= train.epochs or self._stop_conditions.is_reached(self._run.step)
        return is_last or epoch % train.eval_every_n_epochs == 0

    def _evaluate(self, batches: Batches) -> Mapping[str, float]:
        """Evaluate; a signal ends it, and the run that goes on repeats it from its first batch."""
        self._stop_if_asked()
        metrics = self._session.loops.evaluate(batches, after_step=self._after_eval_step)
        self._position.metrics, self._position.is_evaluated = metrics, True
        self._run_log.log("eval", metrics)
        return metrics

    def _after_step(self, batches_done: int) -> None:
        self._run_log.tell_commits()
        self._rank_sync.ask_often()
        is_asked = self._rank_sync.received is not None
        if is_asked or self._stop_conditions.is_commit_due(
            self._run.step, self._settings.checkpoints
        ):
            if self._session.loops.windows.are_apart:
                return  # for as many steps as the longest window has, and nothing is lost
            for unit in self._session.units.values():
                unit.check_finite()
            self._position.batches_done = batches_done
            self._commit(Stage.TRAINING, LAST)
            self._stop_conditions.committed(self._run.step)
            self._end_if_asked()

    def _after_eval_step(self) -> None:
        self._rank_sync.ask_often()
        self._end_if_asked()

    def _stop_if_asked(self) -> None:
        """End the run where a signal asks for it by now; everything is committed.

        Raises:
            RunInterruptedError: It does.
        """
        self._rank_sync.ask()
        self._end_if_asked()

    def _end_if_asked(self) -> None:
        received = self._rank_sync.received
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
        self._session.modules.check_calls()
        self._session.modules.copy_buffers()
        self._position.stage = stage
        self._position.log_bytes = self._run_log.record.log_bytes
        captured = self._state.capture()
        self._run_log.committed(
            self._checkpoints.commit(
                *pools,
                epoch=run.epoch,
                step=run.step,
                metrics=metrics,
                state=captured.state,
                module_states=captured.per_module,
            )
        )

    def _epoch_ended(self, start: float, *, is_evaluated: bool, is_best: bool) -> None:
        self._run_log.epoch_ended(start, is_evaluated=is_evaluated, is_best=is_best)
        self._stop_if_asked()
        self._tell_epoch()

    def _tell_epoch(self) -> None:
        """Call the hook; after the commit, so that a run that goes on from it calls it, too.

        What it changes, in ``run.state`` for one, is of the next epoch.
        """
        position = self._position
        self._session.events.emit(
            "epoch_finished",
            metrics=position.metrics,
            train_metrics=position.train_metrics,
            is_evaluated=position.is_evaluated,
        )

    def _result(self) -> RunResult:
        best = self._checkpoints.best
        return RunResult(
            experiment=self._session.experiment.name,
            epochs=self._run.epoch,
            steps=self._run.step,
            best_value=best.value,
            best_epoch=best.epoch,
            metrics=self._position.metrics,
            stop_reason=self._run_log.stop_reason,
            wall_s=self._stop_conditions.elapsed_s,
            data_dir=self._run.data_dir,
            pools=tuple(self._checkpoints.pools()),
        )


def mark_failed(error: BaseException, *, may_be_undone: bool) -> None:
    """Give an error of a run that had begun exit code 1, whatever its class.

    Exit code 2 says that the experiment is not valid and that nothing was written.

    Args:
        error: The error.
        may_be_undone: Settings that are wrong undo the run, which is new.
    """
    refusals: tuple[type[PymodulesError], ...] = (RunInterruptedError, RunChangedError)
    if may_be_undone:
        refusals += (MonitorError, SettingsError)
    if isinstance(error, PymodulesError) and not isinstance(error, refusals):
        error.exit_code = TrainingError.exit_code
