"""What a run goes on with."""

from pymodules_core.checkpoints.loading.pool_reader import PoolReader
from pymodules_core.names import LAST
from pymodules_core.run_files import checkpoints_dir
from pymodules_core.training.task.run import Run


def committed_modules(run: Run) -> set[str]:
    """Give the names of the modules whose weights the run goes on with.

    To be asked before the first commit of this process: until then the newest one is where it goes
    on from.
    """
    return set(PoolReader(checkpoints_dir(run.experiment.path)).modules(LAST))
