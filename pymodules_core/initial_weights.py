"""Initial weights: what ``load_weights_from_ckp`` and ``load_weights_from_exp`` ask for."""

import logging
from collections.abc import Iterator
from pathlib import Path

from pymodules_core.checkpoints import LoadReport, apply_weights, match_weights, read_state_dict
from pymodules_core.checkpoints.files import checkpoint_files
from pymodules_core.discovery.static_reader import find_settings_line, read_module_file
from pymodules_core.errors import (
    CheckpointNotFoundError,
    ExperimentNotFoundError,
    PymodulesError,
    SettingsError,
    WeightMismatchError,
    closest_match,
    display_path,
    list_words,
)
from pymodules_core.experiment import CONFIG_FILE_NAME, experiment_path, list_experiments
from pymodules_core.module_pool import ModulePool, PoolEntry
from pymodules_core.names import CHECKPOINT_SUFFIX, pool_sort_key, resolve_inside
from pymodules_core.run_files import CHECKPOINTS_DIR_NAME, checkpoints_dir
from pymodules_core.settings import WeightsFromCkp, WeightsFromExp
from pymodules_core.specs import FileOrigin

logger = logging.getLogger("pymodules_core")


def load_initial_weights(
    pool: ModulePool, *, experiment_name: str | None = None
) -> list[LoadReport]:
    """Load the weights that the settings of a pool's modules ask for.

    Everything is read and compared before the first weight is copied.

    Args:
        pool: The pool; its ``pending_weights`` is empty afterwards.
        experiment_name: The experiment the pool belongs to, refused as its own source.

    Returns:
        A report for each module that had weights to load, sorted by name.

    Raises:
        CheckpointNotFoundError: No such file, pool or module; what exists is listed.
        ExperimentNotFoundError: No such experiment.
        CheckpointFileError: A file is damaged or unsafe.
        WeightMismatchError: Weights do not fit.
        SettingsError: An experiment takes its weights from itself, directly or in a circle.
    """
    if experiment_name is not None:
        _refuse_circles(pool, experiment_name)
    matched = []
    for name in sorted(pool.pending_weights):
        entry = pool.entries[name]
        source = entry.settings.weights_source
        if source is None:
            continue
        try:
            file = _locate(pool.data_home, source)
            state, report = match_weights(
                read_state_dict(file),
                entry.module,
                module_name=name,
                source=file,
                strict=source.strict,
                rename=source.rename,
                skip_mismatched=source.skip_mismatched,
            )
        except WeightMismatchError:
            raise
        except PymodulesError as error:
            _point_to_settings(error, entry, source)
            raise
        matched.append((entry.module, state, report))
    for module, state, report in matched:
        apply_weights(module, state)
        logger.info("weights of %s, from %s", report, display_path(report.source))
    pool.pending_weights.clear()
    return [report for _, _, report in matched]


def _locate(data_home: Path, source: WeightsFromCkp | WeightsFromExp) -> Path:
    if isinstance(source, WeightsFromCkp):
        return resolve_inside(data_home, CHECKPOINTS_DIR_NAME, source.ckp_name, kind="ckp_name")
    folder = experiment_path(data_home, source.exp_name)
    if not folder.is_dir():
        names = [path.name for path in list_experiments(data_home)]
        raise ExperimentNotFoundError(
            f"there is no experiment {source.exp_name!r} in {display_path(data_home)}; "
            f"there are: {list_words(names)}",
            key="exp_name",
            found=source.exp_name,
            closest=closest_match(source.exp_name, names),
        )
    pools_dir = checkpoints_dir(folder)
    pool_dir = resolve_inside(
        data_home,
        *pools_dir.relative_to(data_home).parts,
        source.ckp_pool_name,
        kind="ckp_pool_name",
    )
    if not pool_dir.is_dir():
        pools = sorted(
            (p.name for p in pools_dir.glob("*") if p.is_dir() and p.name[0] != "."),
            key=pool_sort_key,
        )
        raise CheckpointNotFoundError(
            f"experiment {source.exp_name!r} has no pool {source.ckp_pool_name!r}; "
            f"there are: {list_words(pools)}",
            key="ckp_pool_name",
            found=source.ckp_pool_name,
            closest=closest_match(source.ckp_pool_name, pools),
            fix=None if pools else f"pymodules train {source.exp_name}",
        )
    modules = checkpoint_files(pool_dir)
    if source.module_name not in modules:
        raise CheckpointNotFoundError(
            f"pool {source.exp_name}/{source.ckp_pool_name} has no module "
            f"{source.module_name!r}; there are: {list_words(modules)}",
            key="module_name",
            found=source.module_name,
            closest=closest_match(source.module_name, modules),
        )
    return resolve_inside(pool_dir, f"{source.module_name}{CHECKPOINT_SUFFIX}", kind="module_name")


def _point_to_settings(
    error: PymodulesError, entry: PoolEntry, source: WeightsFromCkp | WeightsFromExp
) -> None:
    """Say which module asked; an error without a file of its own gets the module file's line."""
    table = (
        "load_weights_from_ckp" if isinstance(source, WeightsFromCkp) else "load_weights_from_exp"
    )
    root = "settings"
    file = entry.origin.file if isinstance(entry.origin, FileOrigin) else None
    if file is not None:
        written = read_module_file(file).settings
        if written is not None and table not in written:
            # What the module file does not say, the experiment's table for the module does.
            root, file = f"modules.settings.{entry.name}", file.parents[2] / CONFIG_FILE_NAME
    path = (table, error.key) if error.key else (table,)
    error.key = ".".join((root, *path))
    error.what = f"module {entry.name!r}, {error.key}: {error.what}"
    if error.file is None and file is not None:
        error.file = file
        error.line = find_settings_line(file, path) if root == "settings" else None


def _refuse_circles(pool: ModulePool, experiment_name: str) -> None:
    """Follow ``exp_name`` from experiment to experiment; module files are read, never executed."""
    givers = {
        source.exp_name: (entry, source)
        for entry in pool.entries.values()
        if (source := entry.settings.load_weights_from_exp) is not None
    }
    paths = [[experiment_name, giver] for giver in sorted(givers)]
    while paths:
        path = paths.pop()
        if path[-1] == experiment_name:
            error = SettingsError(
                f"experiment {experiment_name!r} takes its initial weights from itself: "
                + " -> ".join(path),
                key="exp_name",
                found=" -> ".join(path),
                fix="copy the file to module_ckps/ of the data home and use load_weights_from_ckp",
            )
            entry, source = givers[path[1]]
            _point_to_settings(error, entry, source)
            raise error
        if path[-1] not in path[:-1]:
            paths += [[*path, giver] for giver in _givers(pool.data_home, path[-1])]


def _givers(data_home: Path, experiment_name: str) -> Iterator[str]:
    """Name the experiments that an experiment's module files take weights from."""
    folder = experiment_path(data_home, experiment_name) / "pymodules" / "modules"
    for file in sorted(folder.glob("*.py")):
        table = (read_module_file(file).settings or {}).get("load_weights_from_exp")
        if isinstance(table, dict) and isinstance(table.get("exp_name"), str):
            yield table["exp_name"]
