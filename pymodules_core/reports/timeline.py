"""Checkpoint pools over the epochs, as far as the newest commit and the log tell them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import attrs

from pymodules_core.checkpoints.tools.overview import PoolOverview, StoreOverview, overview
from pymodules_core.names import BEST, parse_epoch_pool
from pymodules_core.reports.history import History
from pymodules_core.run_files import checkpoints_dir

# More would lie on one another, and make the page large.
_MOST_MARKS = 240

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Lane:
    """One line of the timeline.

    Attributes:
        name: A pool, or ``epoch_<n>`` for all of those.
        pools: What is on disk.
        past_epochs: Where ``best`` was before it moved on.
    """

    name: str
    pools: list[PoolOverview]
    past_epochs: list[int] = attrs.field(factory=list)


@attrs.frozen(kw_only=True)
class Timeline:
    """The checkpoint pools of one run.

    Attributes:
        lanes: In the order of a run.
        last_epoch: Where the axis ends.
        store: What the pools take.
        left_out: How many pools were left out for want of room.
    """

    lanes: list[Lane]
    last_epoch: int
    store: StoreOverview
    left_out: int

    @property
    def pools(self) -> list[PoolOverview]:
        """The pools that are shown."""
        return [pool for lane in self.lanes for pool in lane.pools]


def read_timeline(experiment_path: Path, history: History) -> Timeline:
    """Read the pools of a run.

    Raises:
        CheckpointFileError: A commit is of a newer format.
    """
    store = overview(checkpoints_dir(experiment_path))
    # A run without frozen modules has a pool of them all the same, with nothing in it.
    filled = [pool for pool in store.pools if pool.modules]
    epoch_pools = [pool for pool in filled if parse_epoch_pool(pool.name) is not None]
    shown = thin_evenly(epoch_pools, _MOST_MARKS)
    lanes = [
        Lane(name=pool.name, pools=[pool], past_epochs=_past(history) if pool.name == BEST else [])
        for pool in filled
        if parse_epoch_pool(pool.name) is None
    ]
    if shown:
        lanes.append(Lane(name="epoch_<n>", pools=shown))
    known = [pool.epoch for pool in store.pools if pool.epoch is not None]
    return Timeline(
        lanes=lanes,
        last_epoch=max([1, *known, *(row.epoch for row in history.rows[-1:])]),
        store=store,
        left_out=len(epoch_pools) - len(shown),
    )


def epoch_of(pool: PoolOverview) -> int | None:
    """Return the epoch of a pool's weights; that of its name where no record says it."""
    return pool.epoch if pool.epoch is not None else parse_epoch_pool(pool.name)


def thin_evenly(items: Sequence[T], most: int) -> list[T]:
    """Return at most ``most`` items, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[(len(items) - 1) * number // (most - 1)] for number in range(most)]


def _past(history: History) -> list[int]:
    return thin_evenly(history.best_epochs()[:-1], _MOST_MARKS)
