"""Evaluates a checkpoint pool of a run without training, and writes nothing."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from pymodules_core.checkpoints.loading.apply import load_modules
from pymodules_core.checkpoints.loading.pool_reader import PoolReader
from pymodules_core.checkpoints.store.records import ATTEMPTS, CommitRecord, StoredPool
from pymodules_core.checkpoints.tools.lineage import newest_record
from pymodules_core.checkpoints.tools.lost_store import lost_store
from pymodules_core.discovery.plugins.missing import (
    add_former_provider,
    install_command,
    is_installed,
)
from pymodules_core.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    TaskError,
    UnknownModuleError,
    closest_match,
    list_words,
)
from pymodules_core.experiment import Experiment
from pymodules_core.module_pool import ModulePool
from pymodules_core.names import FRZN, check_pool_name, pool_names_in, pool_sort_key
from pymodules_core.run_files import checkpoints_dir, read_run_facts
from pymodules_core.training.fit.training_state import is_training_state
from pymodules_core.training.preparation.resume_changes import with_overrides_of
from pymodules_core.training.preparation.session import Session
from pymodules_core.training.run_output.console import ProgressPrinter, SilentPrinter

logger = logging.getLogger("pymodules_core")


@attrs.frozen(kw_only=True)
class Evaluation:
    """What an evaluation came to.

    Attributes:
        pool: The checkpoint pool.
        epoch: The epoch of its weights; None where the commits are lost that say so.
        metrics: Means over the evaluation data.
        recorded: What the run measured of these weights; None for values that were not finite.
    """

    pool: str
    epoch: int | None
    metrics: Mapping[str, float]
    recorded: Mapping[str, float | None]


def evaluate(
    experiment: Experiment,
    pool_name: str,
    *,
    load_installed: bool = True,
    reporter: ProgressPrinter | None = None,
    before_building: Callable[[Experiment], object] = lambda _: None,
) -> Evaluation:
    """Load a pool's weights, and those of ``frzn``, into today's modules and run the eval loop.

    Run hooks are not called. ``run.state`` is that of the newest commit, without its objects. As a
    run does, it seeds the global random streams.

    Args:
        experiment: The experiment; overrides that its run has are laid under its own.
        pool_name: ``init``, ``last``, ``best`` or ``epoch_<n>``.
        load_installed: Whether to load installed plugins.
        reporter: Shows progress.
        before_building: Called before the first file of the experiment is executed.

    Raises:
        CheckpointNotFoundError: There is no run, no such pool, or a module is not in it.
        UnknownModuleError: A plugin that provides a module of the run is not installed.
        TaskError: The task has no evaluation.
        PymodulesError: Anything else that keeps the experiment from being built or evaluated.
    """
    path = checkpoints_dir(experiment.path)
    record = newest_record(experiment.path)
    pools = record.pools if record else pool_names_in(path)
    there = sorted({*pools} - {FRZN}, key=pool_sort_key)
    lost = None if record else lost_store(path, experiment=experiment)
    if not there:
        raise lost or CheckpointNotFoundError(
            f"experiment {experiment.name!r} has no checkpoints",
            file=path,
            fix=f"pymodules train {experiment.name}",
        )
    if lost:
        logger.warning("%s", lost)
    if check_pool_name(pool_name, existing=there) not in there:
        near = closest_match(pool_name, there)
        raise CheckpointNotFoundError(
            f"experiment {experiment.name!r} has no pool {pool_name!r} to evaluate; there are: "
            f"{list_words(there)}",
            file=path,
            found=pool_name,
            closest=near,
            fix=None if near else "pymodules ckpt ls shows what is there",
        )
    facts = record.provenance if record else read_run_facts(experiment.path)
    experiment = with_overrides_of(facts, experiment)
    before_building(experiment)
    try:
        session = Session.prepare(
            experiment,
            data_dir=experiment.data_dir,
            reporter=reporter or SilentPrinter(),
            load_installed=load_installed,
            load_weights=False,
        )
    except UnknownModuleError as error:
        if record and error.fix is None:  # run.json did not know
            add_former_provider(
                error, record.provider_of(str(error.found)), source="the newest commit"
            )
        raise
    if record:
        _refuse_missing_plugins(record, pool_name, session)
    batches = session.loops.eval_batches
    if batches is None:
        raise TaskError(
            "the task has no eval_data and eval_step", file=experiment.task_file, fix="write both"
        )
    reader = PoolReader(path)
    found = _load(reader, experiment.path, pool_name, session) if record else None
    if found is None:
        _load_plain(reader, pool_name, session)
    return Evaluation(
        pool=pool_name,
        epoch=found.epoch if found else None,
        metrics=session.loops.evaluate(batches, after_step=lambda: None),
        recorded=found.metrics if found else {},
    )


def _refuse_missing_plugins(record: CommitRecord, pool_name: str, session: Session) -> None:
    """Refuse to evaluate without modules of plugins that the run has, and that are not installed.

    Modules that were left out on purpose are not missed: a plugin still provides them, or the run
    continued without them, and its newest commit does not name them.
    """
    names = {name for one in (FRZN, pool_name) for name in record.pools[one].modules}
    provided = {name for plugin in session.plugins.records for name in plugin.modules}
    providers = {name: record.provider_of(name) for name in sorted(names - provided)}
    missing = {n: one for n, one in providers.items() if one is not None and not is_installed(one)}
    if missing:
        listed = (f"{name} of {one}" for name, one in missing.items())
        raise UnknownModuleError(
            f"modules of pool {pool_name!r} are missing, since their plugins are not installed: "
            f"{list_words(listed)}",
            found=list(missing),
            fix=install_command(missing.values()),
        )


def _load_plain(reader: PoolReader, pool_name: str, session: Session) -> None:
    """Load weights from the files of pools whose commits are lost."""
    pool = session.pool
    stored = {
        name: module
        for of_pool, names in _names_by_pool(pool, pool_name).items()
        for name, module in reader.read(of_pool, names).items()
    }
    load_modules(pool, stored, strict=True, is_exact=True)


def _names_by_pool(pool: ModulePool, pool_name: str) -> dict[str, list[str]]:
    """Return which modules are read from ``frzn``, and which from the pool itself."""
    names = {
        of_pool: [name for name in pool if pool.is_frozen(name) == (of_pool == FRZN)]
        for of_pool in (FRZN, pool_name)
    }
    return {of_pool: found for of_pool, found in names.items() if found}


def _load(reader: PoolReader, path: Path, pool_name: str, session: Session) -> StoredPool:
    """Load weights and ``run.state`` of one commit, the newest; a run may be at work meanwhile."""
    pool, run = session.pool, session.run
    for _ in range(ATTEMPTS):
        record = newest_record(path)
        if record is None or pool_name not in record.pools:
            break
        try:
            stored = {
                name: module
                for of_pool, names in _names_by_pool(pool, pool_name).items()
                for name, module in reader.read_from(record, of_pool, names).items()
            }
            state = reader.read_state_of(record)
        except FileNotFoundError as error:
            if isinstance(error, CheckpointError):
                raise
            continue  # two newer commits have replaced it
        load_modules(pool, stored, strict=True, is_exact=True)
        if is_training_state(state):
            run.state.load_state_dict(state["user"])
        found = record.pools[pool_name]
        run.epoch, run.step = found.epoch, found.step
        return found
    raise CheckpointNotFoundError(
        f"pool {pool_name!r} is gone, or changes faster than it can be read",
        file=reader.path,
        found=pool_name,
        fix="try again",
    )
