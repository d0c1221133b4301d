"""What a run resumes from: the weights and the training state of one commit."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import attrs
import torch

from pymodules_core.checkpoints.loading.match import LoadReport
from pymodules_core.checkpoints.loading.pool_reader import PoolReader, StoredModule
from pymodules_core.checkpoints.sharded.read import Like
from pymodules_core.checkpoints.store.records import CommitRecord
from pymodules_core.errors import CheckpointNotFoundError
from pymodules_core.module_pool import ModulePool
from pymodules_core.names import FRZN, LAST


@attrs.frozen(kw_only=True)
class Resumed:
    """What a run resumed from.

    Attributes:
        epoch: The epoch of the commit; 0 before training.
        step: Its step.
        metrics: What was measured of ``last``; None for values that were not finite.
        state: The training state that was committed with it, in memory of its own; None where
            there was none.
        module_states: Module name to the part of it that is the module's own: of modules that are
            sharded.
        orphans: Modules in the pools that are not in today's: their weights stay where they are.
        reports: How the weights fit, by module name.
    """

    epoch: int
    step: int
    metrics: Mapping[str, float | None]
    state: Mapping[str, Any] | None
    module_states: Mapping[str, Mapping[str, Any]]
    orphans: tuple[str, ...]
    reports: Mapping[str, LoadReport]


@attrs.frozen(kw_only=True)
class ResumePoint:
    """One commit, as it was read.

    Attributes:
        record: The commit.
        modules: Module name to what was read, of ``frzn`` and ``last``.
        state: The training state.
        module_states: Module name to what is its own of it.
    """

    record: CommitRecord
    modules: Mapping[str, StoredModule]
    state: Mapping[str, Any] | None
    module_states: Mapping[str, Mapping[str, Any]]


def read_resume_point(
    reader: PoolReader, record: CommitRecord | None, pool: ModulePool, *, allow_new: bool
) -> ResumePoint:
    """Read what a run resumes from, all of it from one commit.

    Args:
        reader: Of the pools.
        record: The commit; None where there is none.
        pool: Today's modules; of those that are DTensors each process reads its own chunks.
        allow_new: Leave out modules that the commit does not know.

    Raises:
        CheckpointNotFoundError: There is no commit, or it lacks a module.
        CheckpointFileError: An object is damaged.
    """
    if record is None:
        raise CheckpointNotFoundError(
            "holds no commit to resume from", file=reader.path, fix="call start() for a new run"
        )
    frozen = [name for name in pool if pool.is_frozen(name)]
    others = [
        name
        for name in pool
        if name not in frozen and (not allow_new or name in record.pools[LAST].modules)
    ]
    like = partial(_own_like, pool)
    return ResumePoint(
        record=record,
        modules={
            **reader.read_from(record, FRZN, frozen, like=like),
            **reader.read_from(record, LAST, others, like=like),
        },
        state=reader.read_state_of(record),
        module_states=reader.read_module_states(record, like=partial(_parameter_like, pool)),
    )


def _own_like(pool: ModulePool, name: str) -> Like:
    """Return what tensors of a module are like."""
    own = pool[name].state_dict()
    return lambda path: own.get(path[0]) if len(path) == 1 else None


def _parameter_like(pool: ModulePool, path: tuple[str, ...]) -> torch.Tensor | None:
    """Return the parameter that a tensor of an optimizer belongs to: optimizer, parameter, ..."""
    name, _, key = path[1].partition(".") if len(path) > 1 else ("", "", "")
    found = pool[name].state_dict().get(key) if name in pool else None
    return found if isinstance(found, torch.Tensor) else None


def resumed(point: ResumePoint, reports: Mapping[str, LoadReport]) -> Resumed:
    """Return what a run resumed from.

    Args:
        point: What was read.
        reports: How it fits today's modules.
    """
    record = point.record
    stored = {name for pool in record.pools.values() for name in pool.modules}
    return Resumed(
        epoch=record.epoch,
        step=record.step,
        metrics=record.pools[LAST].metrics,
        state=point.state,
        module_states=point.module_states,
        orphans=tuple(sorted(stored - set(reports))),
        reports=reports,
    )
