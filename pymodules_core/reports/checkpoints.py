"""The checkpoint pools of a run on a time axis, and as a table.

As far as the newest commit and the log show them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pymodules_core.checkpoints.tools.overview import PoolOverview, StoreOverview, overview
from pymodules_core.names import BEST, parse_epoch_pool
from pymodules_core.reports.history import History
from pymodules_core.reports.markup import Child, Html, data_table, join, tag
from pymodules_core.reports.series import thin_evenly
from pymodules_core.reports.text import count_text, counted, metrics_text, size_text
from pymodules_core.run_files import checkpoints_dir

# More would lie on one another, and make the page large.
_MOST_MARKS = 240


def checkpoint_section(experiment_path: Path, history: History) -> Html:
    """Draw when which pool was committed, what there is of it, and its size.

    Raises:
        CheckpointFileError: A commit is of a newer format.
    """
    store = overview(checkpoints_dir(experiment_path))
    if not store.pools:
        return tag("p", "There are no checkpoints.", class_="muted")
    # A run without frozen modules has a pool of them anyway, with nothing in it.
    filled = [pool for pool in store.pools if pool.modules]
    # A lane for each pool, in the order of a run, and one for all pools of epochs.
    lanes = {pool.name: [pool] for pool in filled if parse_epoch_pool(pool.name) is None}
    epoch_pools = [pool for pool in filled if pool.name not in lanes]
    if epoch_pools:
        lanes["epoch_<n>"] = thin_evenly(epoch_pools, _MOST_MARKS)
    shown = [pool for pools in lanes.values() for pool in pools]
    known = [pool.epoch for pool in store.pools if pool.epoch is not None]
    last = max([1, *known, *(row.epoch for row in history.rows[-1:])])
    return join(
        tag("div", *_lanes(lanes, last, history), class_="lanes", aria_hidden="true"),
        tag("p", _summary(store, filled, len(shown)), class_="muted small"),
        tag(
            "details",
            tag("summary", "Pools as a table"),
            data_table(
                ("Pool", "Epoch", "Step", "Modules", "Size", "Metrics"),
                [_pool_row(pool) for pool in shown],
                caption="Checkpoint pools",
                numeric=[1, 2, 4],
            ),
        ),
    )


def _summary(store: StoreOverview, filled: Sequence[PoolOverview], shown: int) -> str:
    parts = [
        f"{counted(len(filled), 'pool')} of {size_text(sum(pool.size_bytes for pool in filled))}"
    ]
    if store.commit is not None:
        shared = f" ({store.link})" if store.link else ""
        parts = [f"commit {store.commit}", f"{parts[0]} in {size_text(store.object_bytes)}{shared}"]
    if store.state_bytes:
        parts.append(f"training state {size_text(store.state_bytes)}")
    if shown < len(filled):
        parts.append(f"{len(filled) - shown} epoch pools are left out here")
    return ", ".join(parts)


def _lanes(lanes: Mapping[str, Sequence[PoolOverview]], last: int, history: History) -> list[Html]:
    resumed = [_mark("went-on", one.epoch / last, f"resumed {one}") for one in history.resumptions]
    drawn = []
    for name, pools in lanes.items():
        # Where `best` was before it moved on.
        epochs = thin_evenly(history.best_epochs()[:-1], _MOST_MARKS) if name == BEST else []
        past = [_mark("past", epoch / last, f"{name} moved to epoch {epoch}") for epoch in epochs]
        now = [_pool_mark(pool, last, is_single=len(pools) == 1) for pool in pools]
        track = tag("div", *resumed, *past, *now, class_="track")
        drawn.append(tag("div", tag("span", name, title=name), track, class_="lane"))
    ticks = (
        tag("span", f"{epoch:,}", style=f"left:{epoch / last:.2%}") for epoch in _axis_epochs(last)
    )
    axis = tag("div", *ticks, class_="ticks")
    return [*drawn, tag("div", tag("span", "epoch", class_="muted"), axis, class_="lane")]


def _pool_mark(pool: PoolOverview, last: int, *, is_single: bool) -> Html:
    epoch = _epoch_of(pool)
    known = f"epoch {epoch}" if epoch is not None else "epoch not known"
    step = "" if pool.step is None else f", step {pool.step:,}"
    title = f"{pool.name}: {known}{step}, {size_text(pool.size_bytes)}"
    kind = "unknown" if epoch is None else "now" if is_single else None
    return _mark(kind, (epoch or 0) / last, title)


def _epoch_of(pool: PoolOverview) -> int | None:
    """Return the epoch of a pool's weights; that of its name where no record says it."""
    return pool.epoch if pool.epoch is not None else parse_epoch_pool(pool.name)


def _mark(kind: str | None, share: float, title: str) -> Html:
    return tag("i", class_=kind, style=f"left:{min(share, 1.0):.2%}", title=title)


def _axis_epochs(last: int) -> range:
    """Return about five whole epochs at even distances, from 0."""
    rough = max(last / 5, 1)
    power = 10 ** (len(str(int(rough))) - 1)
    step = next(size for size in (power, 2 * power, 5 * power, 10 * power) if size >= rough)
    return range(0, last + 1, step)


def _pool_row(pool: PoolOverview) -> tuple[Child, ...]:
    return (
        pool.name,
        count_text(_epoch_of(pool)),
        count_text(pool.step),
        tag("span", ", ".join(pool.modules), class_="wrap"),
        size_text(pool.size_bytes),
        tag("span", metrics_text(pool.metrics), class_="wrap"),
    )
