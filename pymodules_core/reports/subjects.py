"""The experiments that a view shows, each under a label of its own."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import attrs

from pymodules_core.errors import PymodulesError, display_path
from pymodules_core.experiment import Experiment
from pymodules_core.reports.history import History, read_history


@attrs.frozen(kw_only=True)
class Subject:
    """One experiment of a view.

    Attributes:
        label: Its name; its path where two of the view have one name.
        experiment: The experiment as its files are now.
        history: Its run; None where it has none.
    """

    label: str
    experiment: Experiment
    history: History | None


def open_subjects(names: Sequence[str], *, data_home: Path | None = None) -> list[Subject]:
    """Open experiments and read their runs.

    Args:
        names: Names in the data home, or paths.
        data_home: As given on the command line.

    Raises:
        ExperimentNotFoundError: There is none of a name.
        PymodulesError: One experiment is named twice.
    """
    experiments = [Experiment.open(name, data_home=data_home) for name in names]
    folders = [experiment.path.resolve() for experiment in experiments]
    for number, folder in enumerate(folders):
        if folder in folders[:number]:
            raise PymodulesError(
                f"experiment {experiments[number].name!r} is named twice",
                found=names[number],
                fix="name each experiment once",
            )
    uses = Counter(experiment.name for experiment in experiments)
    return [
        Subject(
            label=one.name if uses[one.name] == 1 else display_path(one.path),
            experiment=one,
            history=read_history(one.path),
        )
        for one in experiments
    ]
