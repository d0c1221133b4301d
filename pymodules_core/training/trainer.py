"""``Trainer``: trains an experiment in one call."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pymodules_core.errors import display_path
from pymodules_core.experiment import Experiment
from pymodules_core.run_files import checkpoints_dir, move_run_aside, refuse_existing_run
from pymodules_core.training.execution import Execution, RunResult
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
            return Execution(session, checkpoints, self._reporter).execute()
