"""Names that plugins of earlier commits import from where they were."""

import importlib
import subprocess
import sys

import pytest
from support import start_command, write_experiment

from pymodules_core.moved import MOVED
from pymodules_core.testing import write_distribution

# What packages, examples and docs imported before there was a public API: module, then names.
OLD_IMPORTS = """
checkpoints: BestTracker CheckpointManager LoadReport Receipt apply_weights match_weights
checkpoints: read_state_dict
checkpoints.file_format.state_dict: refuse_lazy unwrap
checkpoints.lineage: newest_record
checkpoints.loading.pool_reader: PoolReader
checkpoints.reading: PoolReader
checkpoints.state_dicts: refuse_lazy unwrap
checkpoints.tools.lineage: newest_record
discovery: PluginManager
errors: PymodulesError closest_match display_path list_words missing_package_fix
experiment: Experiment
hookspecs: RunHooks
initial_weights: load_initial_weights
lazy: lazy_names
module_pool: compile_modules
names: BEST FRZN LAST check_module_name check_path_name epoch_pool resolve_inside
processes.dtensor: local_part
processes.group: Processes
processes.sharding: local_part
run_files: checkpoints_dir
settings: Range structure
settings.structure: show unstructure
specs: DiscoveryContext
testing: assert_plugin_conforms train_steps
training: Run
training.reporting: SilentReporter
training.run: Run
training.run_output.console: SilentReporter
training.state.encoding: decode encode
training.state.random_state: random_state restore_random_state
training.task.run: Run
"""


def warnings_of(file, code) -> str:
    file.write_text(code, "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "always::DeprecationWarning:__main__", file],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_an_old_name_is_the_new_one_and_the_warning_names_it(old, new):
    module, _, name = old.rpartition(".")
    place, _, new_name = new.rpartition(".")
    with pytest.warns(DeprecationWarning, match=f"^{old} is now {new}$") as warned:
        found = getattr(importlib.import_module(module), name)

    assert found is getattr(importlib.import_module(place), new_name)
    assert len(warned) == 1


@pytest.mark.filterwarnings("ignore:pymodules_core:DeprecationWarning")
@pytest.mark.parametrize("line", OLD_IMPORTS.strip().splitlines())
def test_what_was_imported_before_is_still_found(line):
    module, _, names = line.partition(": ")
    found = importlib.import_module(f"pymodules_core.{module}")

    assert all(hasattr(found, name) for name in names.split())


@pytest.mark.parametrize("old", ["pymodules_core.training.run", "pymodules_core.training"])
def test_the_warning_is_at_the_line_that_imports_the_old_name(tmp_path, old):
    file = tmp_path / "plugin.py"

    warned = warnings_of(file, f"\nfrom {old} import Run\n")

    assert warned.startswith(f"{file}:2: DeprecationWarning: {old}.Run is now pymodules_core.Run\n")


@pytest.mark.parametrize(
    "module",
    ["pymodules_core.training", "pymodules_core.training.run", "pymodules_core.checkpoints"],
)
def test_an_unknown_name_is_an_attribute_error(module):
    with pytest.raises(AttributeError, match=f"module '{module}' has no attribute 'Trainr'"):
        _ = importlib.import_module(module).Trainr


def test_a_plugin_that_imports_old_names_trains(tmp_path):
    write_distribution(
        tmp_path / "site",
        "acme-old",
        "from pymodules_core.checkpoints import Receipt\n"
        "from pymodules_core.hookspecs import hookimpl\n"
        "from pymodules_core.processes.sharding import local_part\n"
        "from pymodules_core.settings import Range\n"
        "from pymodules_core.specs import DiscoveryContext\n"
        "from pymodules_core.training.run import Run\n"
        "@hookimpl\n"
        "def checkpoint_committed(run, receipt):\n"
        "    assert isinstance(run, Run) and isinstance(receipt, Receipt)\n"
        "    with (run.data_dir / 'commits.txt').open('a') as file:\n"
        "        print(receipt.pools, file=file)\n",
    )
    path = write_experiment(tmp_path, toml="[train]\nepochs = 1\n")

    trained = start_command("train", str(path), PYTHONPATH=str(tmp_path / "site"))

    assert trained.returncode == 0, trained.stderr
    assert "acme-old" not in trained.stderr
    first = (path / "data" / "commits.txt").read_text().splitlines()[0]
    assert first == "('frzn', 'init', 'last')"
