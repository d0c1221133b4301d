"""Where the weights of an experiment came from, across experiments, by their commit records."""

from collections.abc import Iterator
from pathlib import Path

import attrs

from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import CommitRecord, readable_records
from pymodules_core.experiment import experiment_path, list_experiments
from pymodules_core.run_files import checkpoints_dir
from pymodules_core.specs import WeightsOrigin


@attrs.frozen(kw_only=True)
class Ancestor:
    """One module, and what its initial weights were loaded from.

    Attributes:
        experiment: The experiment it belongs to; None for a file of ``module_ckps/``.
        module: The module; None for a file.
        origin: Where its weights were loaded from; None for weights as built.
        is_there: Whether the source still holds these weights; None where it was not loaded.
        same_as: ``experiment/pool/module`` that hold the content of a file, where any does.
        parent: The module or file that the weights came from.
    """

    experiment: str | None
    module: str | None
    origin: WeightsOrigin | None = None
    is_there: bool | None = None
    same_as: list[str] = attrs.field(factory=list)
    parent: "Ancestor | None" = None


def ancestry(data_home: Path, experiment_dir: Path) -> list[Ancestor]:
    """Follow the weights of every module of an experiment back, as far as records say.

    Args:
        data_home: Where the other experiments are.
        experiment_dir: The experiment.

    Returns:
        One entry a module of the newest commit, sorted by name.
    """
    record = newest_record(experiment_dir)
    if record is None:
        return []
    names = sorted({name for pool in record.pools.values() for name in pool.modules})
    return [_follow(data_home, experiment_dir.name, record, name, seen=set()) for name in names]


def users_of(data_home: Path, experiment_name: str) -> dict[str, list[str]]:
    """Give, for each pool of an experiment, the modules elsewhere that started from it.

    Returns:
        Pool name to ``experiment/module``.
    """
    found: dict[str, list[str]] = {}
    for name, record in _records(data_home):
        for module, origin in record.weights_origins.items():
            if origin.experiment == experiment_name and origin.pool is not None:
                found.setdefault(origin.pool, []).append(f"{name}/{module}")
    return found


def newest_record(experiment_dir: Path) -> CommitRecord | None:
    """Return the newest commit of an experiment, None where there is none."""
    records = readable_records(Layout(checkpoints_dir(experiment_dir)))
    return records[0] if records else None


def _records(data_home: Path) -> Iterator[tuple[str, CommitRecord]]:
    for folder in list_experiments(data_home):
        if (record := newest_record(folder)) is not None:
            yield folder.name, record


def _follow(
    data_home: Path,
    experiment: str,
    record: CommitRecord,
    module: str,
    *,
    seen: set[tuple[str, str]],
) -> Ancestor:
    origin = record.weights_origins.get(module)
    if origin is None or (experiment, module) in seen:
        return Ancestor(experiment=experiment, module=module)
    seen.add((experiment, module))
    if origin.experiment is None or origin.module is None:
        file = Ancestor(experiment=None, module=None, same_as=_holders(data_home, origin.digest))
        return Ancestor(experiment=experiment, module=module, origin=origin, parent=file)
    source = newest_record(experiment_path(data_home, origin.experiment))
    if source is None:
        return Ancestor(experiment=experiment, module=module, origin=origin, is_there=False)
    pool = source.pools.get(origin.pool or "")
    return Ancestor(
        experiment=experiment,
        module=module,
        origin=origin,
        is_there=pool is not None and pool.modules.get(origin.module) == origin.digest,
        parent=_follow(data_home, origin.experiment, source, origin.module, seen=seen),
    )


def _holders(data_home: Path, digest: str) -> list[str]:
    return [
        f"{name}/{pool_name}/{module}"
        for name, record in _records(data_home)
        for pool_name, pool in record.pools.items()
        for module, held in pool.modules.items()
        if held == digest
    ]
