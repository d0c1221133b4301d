"""The public API: which names there are, what importing them costs, who keeps to it."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pymodules_core

REPOSITORY = Path(__file__).parents[1]
FACES = {
    "pymodules_core": [
        *("BEST", "BestTracker", "CheckpointManager", "CommitResult", "DiscoveryContext"),
        *("Experiment", "FRZN", "INIT", "LAST", "LoadReport", "ModulePool", "ModuleSettings"),
        *("ModuleSpec", "PoolReader", "Processes", "Range", "Receipt", "Resumed", "Run"),
        *("RunResult", "Trainer", "__version__", "apply_weights", "compile_modules"),
        *("epoch_pool", "hookimpl", "hookspec", "load_initial_weights", "match_weights"),
        "read_state_dict",
    ],
    "pymodules_core.plugin_api": [
        *("PluginManager", "check_initialized", "check_module_name", "check_path_name"),
        *("checkpoints_dir", "decode_state", "encode_state", "format_value", "lazy_names"),
        *("local_tensor", "random_state", "resolve_inside", "restore_random_state"),
        *("structure", "unstructure", "unwrap"),
    ],
    "pymodules_core.errors": [
        *("BuildError", "CheckpointError", "CheckpointFileError", "CheckpointNotFoundError"),
        *("CircularImportError", "DuplicateModuleError", "ExistingRunError"),
        *("ExperimentExistsError", "ExperimentNotFoundError", "FrozenModuleError"),
        *("InvalidNameError", "InvalidSpecError", "LostStoreError", "ModuleFileError"),
        *("MonitorError", "NonFiniteLossError", "PluginConformanceError", "PluginError"),
        *("ProcessLostError", "ProcessesError", "PymodulesError", "RankFailedError"),
        *("RunChangedError", "RunInterruptedError", "SettingsError", "SharedParameterError"),
        *("StepError", "StoreLockedError", "TaskError", "TrainingError", "UnassignedStateError"),
        *("UninitializedModuleError", "UnknownModuleError", "WeightMismatchError"),
        *("closest_match", "display_path", "list_words", "missing_package_fix", "printable"),
    ],
    "pymodules_core.hookspecs": [
        *("HOOK_FAMILIES", "ModuleHooks", "PROJECT_NAME", "RunHooks", "TaskHooks", "hookimpl"),
        "hookspec",
    ],
    "pymodules_core.testing": [
        *("TINY_MODULE", "TINY_TASK", "TrainedSteps", "assert_plugin_conforms", "check_plugin"),
        *("train_steps", "write_distribution", "write_experiment"),
    ],
}
CONSTANTS = (str, tuple)
PYTHON_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
# What its tests look at has no public name: which pools a commit changed.
NOT_PUBLIC = {
    "plugins/pymodules-lightning/tests/test_checkpoint.py": {
        "pymodules_core.checkpoints.tools.lineage.newest_record"
    }
}


def imported_by(statement: str) -> set[str]:
    """Return the names of all modules that a statement imports in a new interpreter."""
    script = f"{statement}\nimport sys\nprint(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def core_imports(code: str) -> set[str]:
    """Return what a text of Python imports from the core: modules, and names with their module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {name for name in found if name.partition(".")[0] == "pymodules_core"}


@pytest.mark.parametrize(("face", "names"), FACES.items(), ids=FACES)
def test_the_public_names_are_exactly_the_intended_ones(face, names):
    module = importlib.import_module(face)

    assert dir(module) == names
    for name in names:
        value = getattr(module, name)
        assert isinstance(value, CONSTANTS) or value.__doc__


@pytest.mark.parametrize("face", [face for face in FACES if face != "pymodules_core.errors"])
def test_type_checkers_see_the_same_names(face):
    file = Path(importlib.import_module(face).__file__)
    seen = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assigned = {
        target.id
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }

    assert {*FACES[face]} <= seen | assigned


def test_the_page_of_the_public_api_lists_every_name():
    page = (REPOSITORY / "docs" / "api.md").read_text("utf-8")
    named = {*re.findall(r"`(\w+)`", page)}

    assert {name for names in FACES.values() for name in names} <= named


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Trainr'"):
        _ = pymodules_core.Trainr


def test_importing_the_package_imports_nothing_heavy():
    names = imported_by("import pymodules_core")

    assert not names & {"torch", "rich", "click", "cattrs", "pluggy"}


@pytest.mark.parametrize(
    "module",
    [
        *FACES,
        "pymodules_core.cli.main",
        "pymodules_core.discovery",
        "pymodules_core.discovery.selection.catalog",
        "pymodules_core.run_files",
        "pymodules_core.specs",
    ],
)
def test_what_starts_fast_imports_no_torch(module):
    assert "torch" not in imported_by(f"import {module}")


@pytest.mark.parametrize(
    "file",
    [
        file.relative_to(REPOSITORY).as_posix()
        for pattern in (
            *("README.md", "docs/**/*.md", "plugins/*/README.md", "plugins/*/src/**/*.py"),
            *(
                "plugins/*/tests/**/*.py",
                "plugins/*/examples/**/*.py",
                "data/experiments/*/pymodules/**/*.py",
            ),
        )
        for file in sorted(REPOSITORY.glob(pattern))
    ],
)
def test_plugins_examples_and_docs_import_what_is_public(file):
    text = (REPOSITORY / file).read_text("utf-8")
    blocks = PYTHON_BLOCK.findall(text) if file.endswith(".md") else [text]

    imported = set().union(*map(core_imports, blocks))

    public = {f"{face}.{name}" for face, names in FACES.items() for name in names} | FACES.keys()
    assert imported - public == NOT_PUBLIC.get(file, set())
