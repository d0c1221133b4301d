"""``Trainer``: trains an experiment in one call."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pymodules_core.checkpoints.store.records import CommitRecord
from pymodules_core.checkpoints.tools.lineage import newest_record
from pymodules_core.checkpoints.tools.lost_store import refuse_lost_store
from pymodules_core.errors import (
    ExistingRunError,
    MonitorError,
    PymodulesError,
    SettingsError,
    display_path,
)
from pymodules_core.experiment import Experiment
from pymodules_core.processes.environment import SECOND_SIGNAL_AFTER_S, rank_info
from pymodules_core.processes.group import Processes
from pymodules_core.run_files import (
    checkpoints_dir,
    delete_run,
    move_run_aside,
    refuse_existing_run,
)
from pymodules_core.training.data.workers import lost_worker
from pymodules_core.training.fit.run_log import mark_failed
from pymodules_core.training.fit.run_loop import RunLoop
from pymodules_core.training.loop.signals import StopSignals
from pymodules_core.training.preparation.resume_changes import (
    check_changes,
    refuse_other_freezing,
    with_overrides_of,
)
from pymodules_core.training.preparation.run_facts import provenance_of, run_facts
from pymodules_core.training.preparation.session import Session
from pymodules_core.training.run_output.console import (
    ConsoleReporter,
    ProgressPrinter,
    SilentPrinter,
)
from pymodules_core.training.run_output.result import RunResult
from pymodules_core.training.task.device import out_of_memory


class Trainer:
    """Trains an experiment: ``Trainer("digits_classifier").fit()``.

    Args:
        experiment: A name in the data home, a folder, or an opened experiment.
        data_home: Overrides the environment variable and ``./data``.
        overrides: Dotted keys laid over ``experiment.toml``: ``{"train.epochs": 3}``.
        existing: What to do with a run that is there: refuse, move it aside, or resume it. It
            is resumed with the overrides it had; those given here come on top.
        accept_changes: Resume although files, settings or plugins changed since the run began.
        load_installed: Whether to load installed plugins.
        reporter: Shows progress; lines on standard output and a bar on a terminal by default. Of
            several processes the first one shows it.
        processes: Those that train together, entered; by default they are those that a launcher
            such as torchrun started together, and they are entered here.
    """

    def __init__(
        self,
        experiment: str | Path | Experiment,
        *,
        data_home: Path | None = None,
        overrides: Mapping[str, Any] | None = None,
        existing: Literal["refuse", "reset", "resume"] = "refuse",
        accept_changes: bool = False,
        load_installed: bool = True,
        reporter: ProgressPrinter | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.experiment = Experiment.open(experiment, data_home=data_home, overrides=overrides)
        # What torchrun starts again after a failure resumes its run.
        self._existing = "resume" if rank_info().restarts else existing
        self._accept_changes = accept_changes
        self._load_installed = load_installed
        self._reporter: ProgressPrinter = reporter or ConsoleReporter()
        self._processes = processes

    def fit(self) -> RunResult:
        """Train to the end.

        The run owns the global random streams of torch, ``random`` and numpy meanwhile. In
        the main thread SIGINT, SIGTERM and SIGHUP end it after the step at hand, saved.

        Raises:
            ExistingRunError: There is a run already.
            LostStoreError: The run to resume has made commits, and none can be read.
            RunChangedError: The run to resume began with other files, settings or plugins.
            RunInterruptedError: A signal ended the run; its ``exit_code`` is 128 and the signal.
            MonitorError: The monitored metric is not among those of the first evaluation; nothing
                is left of the new run, and the old one is where it was.
            SettingsError: Settings are wrong, also those that a plugin finds wrong before the first
                step; as for the monitored metric, nothing is left.
            ProcessesError: Several processes are about to train different things.
            RankFailedError: Another process failed, which reports why.
            PymodulesError: With ``exit_code`` 2 the experiment is not valid and nothing was
                written; with 1 the run failed and its checkpoints so far are intact.
        """
        if self._processes is not None:
            return self._fit(self._processes)
        with Processes.join() as processes:
            return self._fit(processes)

    def _fit(self, processes: Processes) -> RunResult:
        if not processes.is_first:
            self._reporter = SilentPrinter()
        try:
            return self._train(processes)
        except Exception as error:
            failure = processes.failure(out_of_memory(error) or lost_worker(error) or error)
            if failure is error:
                raise
            raise failure from error

    def _train(self, processes: Processes) -> RunResult:
        if restarts := processes.ranks.restarts:
            self._reporter.line(f"a process failed; restart {restarts}")
        record = processes.run_on_rank0(self._find_record)
        if record is not None:
            self._take_overrides_of(record)
        session = Session.prepare(
            self.experiment,
            data_dir=self.experiment.data_dir,
            reporter=self._reporter,
            load_installed=self._load_installed,
            load_weights=record is None,
            processes=processes,
        )
        facts = run_facts(session)
        changes = processes.run_on_rank0(lambda: self._check_changes(record, session, facts))
        moved = processes.run_on_rank0(self._make_room)
        try:
            folder = checkpoints_dir(self.experiment.path)
            with (
                _stop_signals(processes, self._reporter) as signals,
                session.checkpoints(folder, provenance=provenance_of(facts)) as checkpoints,
            ):
                return RunLoop(
                    session,
                    checkpoints,
                    self._reporter,
                    facts,
                    signals=signals,
                    has_changes=bool(changes),
                    accepts_changes=self._accept_changes,
                ).execute()
        except ExistingRunError:
            raise
        except PymodulesError as error:
            is_new = record is None and session.run.step == 0
            # Settings, though they showed to be wrong only once everything was there.
            if isinstance(error, MonitorError | SettingsError) and is_new:
                if processes.is_first:
                    self._undo(moved)
            else:
                mark_failed(error, may_be_undone=False)
            raise

    def _find_record(self) -> CommitRecord | None:
        """Return the commit to resume from; refuse an existing run that is not to be resumed."""
        if self._existing == "refuse":
            refuse_existing_run(self.experiment)
        if self._existing != "resume":
            return None
        refuse_lost_store(self.experiment)
        return newest_record(self.experiment.path)

    def _make_room(self) -> Path | None:
        if self._existing != "reset":
            return None
        moved = move_run_aside(self.experiment)
        if moved:
            self._reporter.line(f"the old run is now in {display_path(moved)}")
        return moved

    def _take_overrides_of(self, record: CommitRecord) -> None:
        """Open the experiment again with the overrides its run had; those given now win."""
        given = self.experiment.overrides
        self.experiment = with_overrides_of(record.provenance, self.experiment)
        if kept := self.experiment.overrides.keys() - given.keys():
            shown = (f"{key}={self.experiment.overrides[key]!r}" for key in sorted(kept))
            self._reporter.line(f"with the overrides that the run has: {', '.join(shown)}")

    def _check_changes(
        self, record: CommitRecord | None, session: Session, facts: Mapping[str, Any]
    ) -> list[str]:
        if record is None:
            return []
        changes = check_changes(
            record, facts, self.experiment, session.plugins, is_accepted=self._accept_changes
        )
        refuse_other_freezing(record, session.pool)
        for change in changes:
            self._reporter.line(f"changed: {change}")
        return changes

    def _undo(self, moved: Path | None) -> None:
        delete_run(self.experiment)
        if moved:
            moved.rename(self.experiment.data_dir)
            self._reporter.line(f"the old run is back in {display_path(self.experiment.data_dir)}")


def _stop_signals(processes: Processes, reporter: ProgressPrinter) -> StopSignals:
    """Return what listens to signals; several processes report one once they agree on it."""
    if processes.is_alone:
        return StopSignals(reporter.line)
    return StopSignals(again_after_s=SECOND_SIGNAL_AFTER_S)
