"""What a run goes on from: the weights and the training state of one commit."""

from collections.abc import Mapping
from typing import Any

import attrs

from pymodules_core.checkpoints.loading import LoadReport
from pymodules_core.checkpoints.reading import PoolReader, StoredModule
from pymodules_core.checkpoints.store.records import CommitRecord
from pymodules_core.names import FRZN, LAST


@attrs.frozen(kw_only=True)
class Resumed:
    """The moment that a run goes on from.

    Attributes:
        epoch: The epoch of the commit; 0 before training.
        step: Its step.
        metrics: What was measured of ``last``; None for values that were not finite.
        state: The training state that was committed with it, in memory of its own; None where
            there was none.
        orphans: Modules in the pools that are not in today's: their weights stay where they are.
        reports: How the weights fit, by module name.
    """

    epoch: int
    step: int
    metrics: Mapping[str, float | None]
    state: Mapping[str, Any] | None
    orphans: tuple[str, ...]
    reports: Mapping[str, LoadReport]


@attrs.frozen(kw_only=True)
class Moment:
    """One commit, as it was read.

    Attributes:
        record: The commit.
        modules: Module name to what was read, of ``frzn`` and ``last``.
        state: The training state.
    """

    record: CommitRecord
    modules: Mapping[str, StoredModule]
    state: Mapping[str, Any] | None


def read_moment(
    reader: PoolReader, record: CommitRecord, *, frozen: list[str], others: list[str]
) -> Moment:
    """Read what a run goes on from, all of it from one commit.

    Args:
        reader: Of the pools.
        record: The commit.
        frozen: Modules to read from ``frzn``.
        others: Modules to read from ``last``.

    Raises:
        CheckpointNotFoundError: The commit lacks a module.
        CheckpointFileError: An object is damaged.
    """
    return Moment(
        record=record,
        modules={
            **reader.read_from(record, FRZN, frozen),
            **reader.read_from(record, LAST, others),
        },
        state=reader.read_state_of(record),
    )


def resumed(moment: Moment, reports: Mapping[str, LoadReport]) -> Resumed:
    """Say what a run goes on from.

    Args:
        moment: What was read.
        reports: How it fits today's modules.
    """
    record = moment.record
    stored = {name for pool in record.pools.values() for name in pool.modules}
    return Resumed(
        epoch=record.epoch,
        step=record.step,
        metrics=record.pools[LAST].metrics,
        state=moment.state,
        orphans=tuple(sorted(stored - set(reports))),
        reports=reports,
    )
