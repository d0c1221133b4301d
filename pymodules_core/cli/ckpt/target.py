"""Which pools a command is about: those of an experiment, or of any folder that holds pools."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pymodules_core.experiment import Experiment


@attrs.frozen
class Target:
    """Pools that are there.

    Attributes:
        name: What messages call them.
        path: Their folder.
        experiment: Whose they are; None for a folder outside an experiment.
    """

    name: str
    path: Path
    experiment: "Experiment | None" = None


def open_target(exp: str, data_home: Path | None) -> Target:
    """Find the pools that an argument names.

    Args:
        exp: Name or path of an experiment, or the path of a folder of pools: ``./pools``.
        data_home: As given on the command line.

    Raises:
        ExperimentNotFoundError: There is neither.
        CheckpointNotFoundError: The experiment has no pools yet.
    """
    from pymodules_core.checkpoints.store.layout import STORE_NAME
    from pymodules_core.errors import CheckpointNotFoundError
    from pymodules_core.experiment import Experiment, expand_path
    from pymodules_core.names import pool_names_in
    from pymodules_core.run_files import checkpoints_dir

    folder = expand_path(exp)
    is_path = os.sep in exp or exp == os.curdir
    if is_path and ((folder / STORE_NAME).is_dir() or pool_names_in(folder)):
        return Target(exp, folder)
    experiment = Experiment.open(exp, data_home=data_home)
    path = checkpoints_dir(experiment.path)
    if not (path / STORE_NAME).is_dir() and not pool_names_in(path):
        raise CheckpointNotFoundError(
            f"experiment {experiment.name!r} has no checkpoints yet",
            file=path,
            fix=f"pymodules train {exp}",
        )
    return Target(experiment.name, path, experiment)
