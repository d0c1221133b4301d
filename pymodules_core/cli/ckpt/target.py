"""Which pools a command is about: those of an experiment, or of any folder that holds pools."""

import os
from pathlib import Path

import attrs

from pymodules_core.checkpoints.store.paths import STORE_NAME, Layout
from pymodules_core.checkpoints.store.records import record_numbers
from pymodules_core.checkpoints.tools.lost_store import lost_store
from pymodules_core.errors import CheckpointNotFoundError, display_path
from pymodules_core.experiment import Experiment, expand_path
from pymodules_core.names import pool_names_in
from pymodules_core.run_files import checkpoints_dir


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
    experiment: Experiment | None


def open_target(exp: str, data_home: Path | None) -> Target:
    """Find the pools that an argument names.

    Args:
        exp: Name or path of an experiment, or the path of a folder of pools: ``./pools``.
        data_home: As given on the command line.

    Raises:
        ExperimentNotFoundError: There is neither.
        CheckpointNotFoundError: There are no pools yet.
        LostStoreError: There were.
    """
    experiment, name, path = None, exp, expand_path(exp)
    is_path = os.sep in exp or exp == os.curdir
    if not is_path or not ((path / STORE_NAME).is_dir() or pool_names_in(path)):
        experiment = Experiment.open(exp, data_home=data_home)
        name, path = experiment.name, checkpoints_dir(experiment.path)
    if record_numbers(Layout(path)) or pool_names_in(path):
        return Target(name, path, experiment)
    shown = f"experiment {name!r}" if experiment else display_path(path)
    raise lost_store(path, experiment=experiment) or CheckpointNotFoundError(
        f"{shown} has no checkpoints yet",
        file=path,
        fix=f"pymodules train {name}" if experiment else None,
    )
