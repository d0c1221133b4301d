"""``run``: what tasks and hooks see of it is what is documented for them, and no more."""

import sys

from support import TINY_TASK, write_experiment

from pymodules_core import Run, Trainer
from pymodules_core.training.run_output.console import SilentPrinter

PUBLIC = {
    *("batch_size", "config", "data_dir", "device", "epoch", "experiment", "gather", "log"),
    *("log_image", "module_pool", "optimize", "optimizers", "rank", "resumed_step", "seed"),
    *("state", "step", "world_size"),
}
SHOWN = """

def run_started(run):
    import sys

    sys.shown_run = run
"""


def test_a_run_shows_its_users_the_documented_names_only(tmp_path):
    path = write_experiment(
        tmp_path, task=TINY_TASK + SHOWN, toml="[train]\nepochs = 1\nbatch_size = 20\n"
    )
    Trainer(path, reporter=SilentPrinter()).fit()
    run = sys.__dict__.pop("shown_run")

    assert isinstance(run, Run)
    assert {name for name in dir(run) if not name.startswith("_")} == PUBLIC
