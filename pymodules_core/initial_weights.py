"""Initial weights: what ``load_weights_from_ckp`` and ``load_weights_from_exp`` ask for."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pymodules_core.checkpoints import LoadReport, apply_weights, match_weights, read_state_dict
from pymodules_core.checkpoints.file_format.digest import Content
from pymodules_core.checkpoints.loading.migrate import bring_to_today
from pymodules_core.checkpoints.loading.pool_reader import PoolReader, StoredModule
from pymodules_core.checkpoints.store.paths import STORE_NAME
from pymodules_core.discovery.scan.static_reader import find_settings_line, find_source_experiments
from pymodules_core.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ExperimentNotFoundError,
    PymodulesError,
    SettingsError,
    closest_match,
    display_path,
    list_words,
)
from pymodules_core.experiment import experiment_path, list_experiments
from pymodules_core.module_pool import ModulePool, PoolEntry
from pymodules_core.names import CHECKPOINT_SUFFIX, resolve_inside
from pymodules_core.run_files import CHECKPOINTS_DIR_NAME, checkpoints_dir
from pymodules_core.settings import WeightsFromCkp, WeightsFromExp
from pymodules_core.settings.structure import KeyPath
from pymodules_core.specs import FileOrigin, WeightsOrigin

logger = logging.getLogger("pymodules_core")


def load_initial_weights(pool: ModulePool) -> list[LoadReport]:
    """Load the weights that the settings of a pool's modules ask for.

    Everything is read and compared before the first weight is copied.

    Args:
        pool: The pool; its ``pending_weights`` is empty afterwards, its ``weights_origins`` filled.

    Returns:
        A report for each module that had weights to load, sorted by name.

    Raises:
        CheckpointNotFoundError: No such file, pool or module; what exists is listed.
        ExperimentNotFoundError: No such experiment.
        CheckpointFileError: A file is damaged or unsafe.
        WeightMismatchError: Weights do not fit, are of a version that cannot be migrated, or
            differ for one tensor of two modules.
        PluginError: A plugin fails to migrate weights of an older version.
        CheckpointError: A module's own load hook raises.
        SettingsError: An experiment takes its weights from itself, directly or in a circle.
    """
    _refuse_circles(pool)
    matched, origins = [], {}
    for name in sorted(pool.pending_weights):
        entry = pool.entries[name]
        source = entry.settings.weights_source
        if source is None:
            continue
        try:
            stored = _read(pool.data_home, source)
            state, report = match_weights(
                stored.state,
                entry.module,
                module_name=name,
                source=stored.file,
                strict=source.strict,
                rename=source.rename,
                skip_mismatched=source.skip_mismatched,
                migrate=partial(bring_to_today, entry=entry, stored=stored),
            )
        except PymodulesError as error:
            _point_to_settings(error, pool, entry)
            raise
        matched.append((entry.module, state, report))
        origins[name] = _origin(source, stored, state)
    try:
        apply_weights(matched)
    except CheckpointError as error:
        _point_to_settings(error, pool, pool.entries[str(error.key)])
        raise
    for _, _, report in matched:
        is_plain = report.is_complete and not report.unwrapped and not report.found_under
        level = logging.INFO if is_plain else logging.WARNING
        logger.log(level, "weights of %s, from %s", report, display_path(report.source))
    pool.pending_weights.clear()
    pool.weights_origins.update(origins)
    return [report for _, _, report in matched]


def _origin(
    source: WeightsFromCkp | WeightsFromExp, stored: StoredModule, taken: Mapping[str, Any]
) -> WeightsOrigin:
    # Of a foreign file, what was taken of it: the rest may be anything.
    origin = partial(WeightsOrigin, digest=stored.digest or Content(taken).digest_now())
    if isinstance(source, WeightsFromCkp):
        return origin(ckp_name=source.ckp_name)
    return origin(
        experiment=source.exp_name,
        pool=source.ckp_pool_name,
        module=source.module_name,
        epoch=stored.epoch,
    )


def _read(data_home: Path, source: WeightsFromCkp | WeightsFromExp) -> StoredModule:
    if isinstance(source, WeightsFromCkp):
        file = resolve_inside(data_home, CHECKPOINTS_DIR_NAME, source.ckp_name, kind="ckp_name")
        return StoredModule(state=read_state_dict(file), file=file)
    folder = experiment_path(data_home, source.exp_name)
    if not folder.is_dir():
        raise _not_found(
            f"there is no experiment {source.exp_name!r} in {display_path(data_home)}",
            ("exp_name", source.exp_name),
            [path.name for path in list_experiments(data_home)],
            f"train it first: pymodules new {source.exp_name}, pymodules train {source.exp_name}",
            kind=ExperimentNotFoundError,
        )
    pools_dir = checkpoints_dir(folder)
    inside = partial(resolve_inside, data_home, *pools_dir.relative_to(data_home).parts)
    resolve_inside(data_home, *folder.relative_to(data_home).parts, kind="exp_name")
    inside(source.ckp_pool_name, kind="ckp_pool_name")
    inside(STORE_NAME, "objects", kind="exp_name")
    reader = PoolReader(pools_dir, root=data_home)
    pools = reader.pools()
    if source.ckp_pool_name not in pools:
        raise _not_found(
            f"experiment {source.exp_name!r} has no pool {source.ckp_pool_name!r}",
            ("ckp_pool_name", source.ckp_pool_name),
            pools,
            f"pymodules train {source.exp_name}",
        )
    modules = reader.modules(source.ckp_pool_name)
    if source.module_name not in modules:
        raise _not_found(
            f"pool {source.exp_name}/{source.ckp_pool_name} has no module {source.module_name!r}",
            ("module_name", source.module_name),
            modules,
            "look in frzn for frozen modules, in the other pools for all others",
        )
    inside(source.ckp_pool_name, f"{source.module_name}{CHECKPOINT_SUFFIX}", kind="module_name")
    return reader.read(source.ckp_pool_name, [source.module_name])[source.module_name]


def _not_found(
    what: str,
    setting: tuple[str, str],
    there: list[str],
    fix: str,
    *,
    kind: type[PymodulesError] = CheckpointNotFoundError,
) -> PymodulesError:
    """Return the error for a name that is not among those there are; ``fix`` where none is near."""
    key, found = setting
    near = closest_match(found, there)
    what += f"; there are: {list_words(there)}"
    return kind(what, key=key, found=found, closest=near, fix=None if near else fix)


def _point_to_settings(error: PymodulesError, pool: ModulePool, entry: PoolEntry) -> None:
    """Return which setting asked, and where it was written.

    An error without a file of its own is that setting's; one about a checkpoint file stays the
    file's, and gets one more line.
    """
    source = entry.settings.weights_source
    is_ckp = isinstance(source, WeightsFromCkp)
    table = "load_weights_from_ckp" if is_ckp else "load_weights_from_exp"
    path = (table, error.key) if error.key and hasattr(source, error.key) else (table,)
    root, file, line = _find_setting(pool, entry, path)
    error.key = ".".join((root, *path))
    if error.file is None and file is not None:
        error.what, error.file, error.line = f"{error.key}: {error.what}", file, line
        return
    place = f"module {entry.name!r}, "
    if file is not None:
        place = f"{display_path(file)}:{line}: " if line else f"{display_path(file)}: "
    if error.file is None:
        error.what = f"{place}{error.key}: {error.what}"
    else:
        error.what = f"{error.what}\n  asked for by {place}{error.key}"


def _find_setting(
    pool: ModulePool, entry: PoolEntry, path: KeyPath
) -> tuple[str, Path | None, int | None]:
    """Find where a module's source of weights was written: dotted root, file, line.

    ``experiment.toml`` wins over the module file, and an override on the command line over both.
    """
    overlay_root = ("modules", "settings", entry.name)
    dotted = ".".join(overlay_root)
    experiment = pool.experiment
    if experiment and path[0] in experiment.settings.modules.settings.get(entry.name, {}):
        if experiment.is_overridden(f"{dotted}.{path[0]}"):
            return f"override {dotted}", None, None
        return dotted, experiment.config_file, experiment.line_of((*overlay_root, *path))
    if isinstance(entry.origin, FileOrigin):
        return "settings", entry.origin.file, find_settings_line(entry.origin.file, path)
    return "settings", None, None


def _refuse_circles(pool: ModulePool) -> None:
    """Follow ``exp_name`` from experiment to experiment; module files are read, never executed."""
    if pool.experiment is None:
        return
    experiment_name = pool.experiment.name
    if pool.experiment.path != experiment_path(pool.data_home, experiment_name):
        return  # outside the data home: no name leads to it
    givers = {
        source.exp_name: entry
        for entry in reversed(list(pool.entries.values()))
        if (source := entry.settings.load_weights_from_exp) is not None
    }
    paths = [[experiment_name, giver] for giver in sorted(givers, reverse=True)]
    seen: set[str] = set()
    while paths:
        path = paths.pop()
        if path[-1] == experiment_name:
            chain = " -> ".join(path)
            error = SettingsError(
                f"experiment {experiment_name!r} takes its initial weights from itself: {chain}",
                key="exp_name",
                found=chain,
                fix="copy the file to module_ckps/ of the data home and use load_weights_from_ckp",
            )
            _point_to_settings(error, pool, givers[path[1]])
            raise error
        if path[-1] not in seen:
            seen.add(path[-1])
            folder = experiment_path(pool.data_home, path[-1])
            paths += [[*path, giver] for giver in find_source_experiments(folder)]
