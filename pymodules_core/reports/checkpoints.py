"""The checkpoint pools of a run on a time axis, and as a table."""

from pymodules_core.checkpoints.tools.overview import PoolOverview
from pymodules_core.reports.cards import resumption_text
from pymodules_core.reports.history import History
from pymodules_core.reports.markup import Child, Html, data_table, join, tag
from pymodules_core.reports.text import MISSING, count_text, number_text, size_text
from pymodules_core.reports.timeline import Timeline, epoch_of


def checkpoint_section(timeline: Timeline, history: History) -> Html:
    """Draw when which pool was committed, what there is of it, and its size."""
    store = timeline.store
    filled = [pool for pool in store.pools if pool.modules]
    whole_bytes = sum(pool.size_bytes for pool in filled)
    parts = [f"{len(filled)} pools of {size_text(whole_bytes)}"]
    if store.commit is not None:
        shared = f" ({store.link})" if store.link else ""
        parts = [f"commit {store.commit}", f"{parts[0]} in {size_text(store.object_bytes)}{shared}"]
    if store.state_bytes:
        parts.append(f"training state {size_text(store.state_bytes)}")
    if timeline.left_out:
        parts.append(f"{timeline.left_out} epoch pools are left out here")
    return join(
        [
            tag("div", *_lanes(timeline, history), class_="lanes", aria_hidden="true"),
            tag("p", ", ".join(parts), class_="muted small"),
            tag(
                "details",
                tag("summary", "Pools as a table"),
                data_table(
                    ("Pool", "Epoch", "Step", "Modules", "Size", "Metrics"),
                    [_pool_row(pool) for pool in timeline.pools],
                    caption="Checkpoint pools",
                    numeric=[1, 2, 4],
                ),
            ),
        ]
    )


def _lanes(timeline: Timeline, history: History) -> list[Html]:
    last = timeline.last_epoch
    resumed = [
        _mark("went-on", one.epoch / last, f"resumed {resumption_text(one)}")
        for one in history.resumptions
    ]
    lanes = []
    for lane in timeline.lanes:
        past = [
            _mark("past", epoch / last, f"{lane.name} moved to epoch {epoch}")
            for epoch in lane.past_epochs
        ]
        is_single = len(lane.pools) == 1
        now = [_pool_mark(pool, last, is_single=is_single) for pool in lane.pools]
        track = tag("div", *resumed, *past, *now, class_="track")
        lanes.append(tag("div", tag("span", lane.name, title=lane.name), track, class_="lane"))
    ticks = tag("div", *(_tick(epoch, last) for epoch in _axis_epochs(last)), class_="ticks")
    return [*lanes, tag("div", tag("span", "epoch", class_="muted"), ticks, class_="lane")]


def _pool_mark(pool: PoolOverview, last: int, *, is_single: bool) -> Html:
    epoch = epoch_of(pool)
    known = f"epoch {epoch}" if epoch is not None else "epoch not known"
    step = "" if pool.step is None else f", step {pool.step:,}"
    title = f"{pool.name}: {known}{step}, {size_text(pool.size_bytes)}"
    kind = "unknown" if epoch is None else "now" if is_single else None
    return _mark(kind, (epoch or 0) / last, title)


def _mark(kind: str | None, share: float, title: str) -> Html:
    return tag("i", class_=kind, style=f"left:{min(share, 1.0):.2%}", title=title)


def _axis_epochs(last: int) -> list[int]:
    """Return about five whole epochs at even distances, from 0."""
    rough = max(last / 5, 1)
    power = 10 ** (len(str(int(rough))) - 1)
    step = next(size for size in (power, 2 * power, 5 * power, 10 * power) if size >= rough)
    return list(range(0, last + 1, step))


def _tick(epoch: int, last: int) -> Html:
    return tag("span", f"{epoch:,}", style=f"left:{epoch / last:.2%}")


def _pool_row(pool: PoolOverview) -> tuple[Child, ...]:
    metrics = ", ".join(f"{name} {number_text(value)}" for name, value in pool.metrics.items())
    return (
        pool.name,
        count_text(epoch_of(pool)),
        count_text(pool.step),
        tag("span", ", ".join(pool.modules), class_="wrap"),
        size_text(pool.size_bytes),
        tag("span", metrics or MISSING, class_="wrap"),
    )
