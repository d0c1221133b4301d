"""What a run continues with."""

from pymodules_core import LAST, PoolReader, Run
from pymodules_core.plugin_api import checkpoints_dir


def committed_modules(run: Run) -> set[str]:
    """Return the names of the modules whose weights the run continues with.

    To be asked before the first commit of this process: until then the newest one is where it goes
    on from.
    """
    return set(PoolReader(checkpoints_dir(run.experiment.path)).modules(LAST))
