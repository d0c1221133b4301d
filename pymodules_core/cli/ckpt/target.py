"""Which pools a command is about: those of an experiment, or of any folder that holds pools."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from pymodules_core.errors import CheckpointNotFoundError, display_path

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

    def refuse_empty(self) -> None:
        """Refuse pools of which nothing is there.

        Raises:
            CheckpointNotFoundError: There never was any.
            LostStoreError: There was.
        """
        from pymodules_core.checkpoints.store.paths import Layout
        from pymodules_core.checkpoints.store.records import record_numbers
        from pymodules_core.checkpoints.tools.lost_store import lost_store
        from pymodules_core.names import pool_names_in

        if record_numbers(Layout(self.path)) or pool_names_in(self.path):
            return
        shown = f"experiment {self.name!r}" if self.experiment else display_path(self.path)
        raise lost_store(self.path, experiment=self.experiment) or CheckpointNotFoundError(
            f"{shown} has no checkpoints yet",
            file=self.path,
            fix=f"pymodules train {self.experiment.name}" if self.experiment else None,
        )


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
    from pymodules_core.checkpoints.store.paths import STORE_NAME
    from pymodules_core.experiment import Experiment, expand_path
    from pymodules_core.names import pool_names_in
    from pymodules_core.run_files import checkpoints_dir

    folder = expand_path(exp)
    is_path = os.sep in exp or exp == os.curdir
    if is_path and ((folder / STORE_NAME).is_dir() or pool_names_in(folder)):
        target = Target(exp, folder)
    else:
        experiment = Experiment.open(exp, data_home=data_home)
        target = Target(experiment.name, checkpoints_dir(experiment.path), experiment)
    target.refuse_empty()
    return target
