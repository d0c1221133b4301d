"""``Trainer``: trains an experiment in one call."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pymodules_core.errors import (
    ExistingRunError,
    MonitorError,
    PymodulesError,
    TrainingError,
    display_path,
)
from pymodules_core.experiment import Experiment
from pymodules_core.run_files import (
    checkpoints_dir,
    delete_run,
    move_run_aside,
    refuse_existing_run,
)
from pymodules_core.training.execution import Execution, RunResult
from pymodules_core.training.records import provenance_of, run_facts
from pymodules_core.training.reporting import ConsoleReporter, Reporter
from pymodules_core.training.session import Session


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
            MonitorError: The monitored metric is not among those of the first evaluation; nothing
                is left of the new run, and the old one is where it was.
            PymodulesError: With ``exit_code`` 2 the experiment is not valid and nothing was
                written; with 1 the run failed and its checkpoints so far are intact.
        """
        if self._existing == "refuse":
            refuse_existing_run(self.experiment)
        session = Session.prepare(
            self.experiment,
            data_dir=self.experiment.data_dir,
            reporter=self._reporter,
            load_installed=self._load_installed,
        )
        moved = move_run_aside(self.experiment) if self._existing == "reset" else None
        if moved:
            self._reporter.line(f"the old run is now in {display_path(moved)}")
        try:
            facts = run_facts(session)
            folder = checkpoints_dir(self.experiment.path)
            with session.checkpoints(folder, provenance=provenance_of(facts)) as checkpoints:
                return Execution(session, checkpoints, self._reporter, facts).execute()
        except ExistingRunError:
            raise
        except PymodulesError as error:
            if isinstance(error, MonitorError) and session.run.step == 0:
                self._undo(moved)
            else:
                # Whatever its class, this is no experiment that was refused: the run had begun.
                error.exit_code = TrainingError.exit_code
            raise

    def _undo(self, moved: Path | None) -> None:
        delete_run(self.experiment)
        if moved:
            moved.rename(self.experiment.data_dir)
            self._reporter.line(f"the old run is back in {display_path(self.experiment.data_dir)}")
