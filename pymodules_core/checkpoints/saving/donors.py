"""Objects of other experiments that hold what today's modules were loaded from."""

from pymodules_core.checkpoints.store.objects import Donor
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import readable_records
from pymodules_core.experiment import experiment_path
from pymodules_core.module_pool import ModulePool
from pymodules_core.run_files import checkpoints_dir


def find_donors(pool: ModulePool) -> dict[str, Donor]:
    """Give the objects that modules of a pool took their initial weights from, by digest."""
    found: dict[str, Donor] = {}
    for origin in pool.weights_origins.values():
        if origin.experiment is None:
            continue
        layout = Layout(checkpoints_dir(experiment_path(pool.data_home, origin.experiment)))
        for record in readable_records(layout):
            stored = record.objects.get(origin.digest)
            if stored is not None and not stored.parts:
                found[origin.digest] = Donor(layout.object(origin.digest), stored)
    return found
