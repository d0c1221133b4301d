"""Charts as numbers: which lines each has, and which points of a line are worth drawing."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

import attrs

from pymodules_core.reports.history import History, MetricsRow, phase_rank

# Of all lines of a page together; a point takes some 25 bytes.
_MOST_POINTS = 30_000
_MOST_POINTS_OF_A_LINE = 1_200
_FEWEST_POINTS_OF_A_LINE = 24

T = TypeVar("T")


class Point(NamedTuple):
    """One value; None where it was not finite."""

    epoch: int
    step: int
    value: float | None


@attrs.frozen(kw_only=True)
class Line:
    """One line of a chart.

    Attributes:
        run: Number of the run, from 0.
        phase: ``train``, ``eval`` or what else the run logged.
        points: In the order of training.
    """

    run: int
    phase: str
    points: list[Point]


@attrs.frozen(kw_only=True)
class Chart:
    """One quantity of all runs.

    Attributes:
        title: The metric; for a learning rate, the optimizer.
        is_rate: Whether it is a learning rate.
        lines: Its lines; a run has at most one a phase.
    """

    title: str
    is_rate: bool
    lines: list[Line]


Lines: TypeAlias = dict[tuple[int, str], list[Point]]


def make_charts(histories: Sequence[History]) -> list[Chart]:
    """Make a chart for each metric and each optimizer's learning rate.

    Args:
        histories: The runs, in the order of their numbers.

    Returns:
        The charts; metrics that decide what is best come first, those of evaluations before those
        of training alone, learning rates last.
    """
    metrics: dict[str, Lines] = {}
    rates: dict[str, Lines] = {}
    numbered = [(number, row) for number, one in enumerate(histories) for row in one.rows]
    # Stable: within a phase the order stays that of runs and rows.
    for number, row in sorted(numbered, key=lambda found: phase_rank(found[1].phase)):
        _add(metrics, row.metrics, number, row)
        _add(rates, row.learning_rates, number, row)
    monitors = [history.best.metric for history in histories if history.best]
    ordered = dict.fromkeys([*(name for name in monitors if name in metrics), *metrics])
    return [
        *(_chart(name, metrics[name], is_rate=False) for name in ordered),
        *(_chart(name, lines, is_rate=True) for name, lines in rates.items()),
    ]


def points_a_line(charts: Iterable[Chart]) -> int:
    """Return how many points of each line a page of these charts can bear."""
    count = sum(len(chart.lines) for chart in charts)
    fair = _MOST_POINTS // max(count, 1)
    return min(_MOST_POINTS_OF_A_LINE, max(_FEWEST_POINTS_OF_A_LINE, fair))


def thin(points: Sequence[Point], most: int, *, keep_epochs: Collection[int] = ()) -> list[Point]:
    """Return about ``most`` points that look the same when they are drawn.

    The first and the last stay; of each stretch between them the smallest value, the largest and
    the first gap stay, so that no peak and no NaN is lost.

    Args:
        points: In the order of training.
        most: Of them; gaps and ``keep_epochs`` come on top.
        keep_epochs: Epochs whose points stay.
    """
    if len(points) <= most:
        return list(points)
    kept = {0, len(points) - 1}
    kept |= {index for index, point in enumerate(points) if point.epoch in keep_epochs}
    stretches = max((most - 2) // 2, 1)
    inner = len(points) - 2
    for number in range(stretches):
        start = 1 + inner * number // stretches
        end = 1 + inner * (number + 1) // stretches
        kept |= _telling(points, range(start, end))
    return [points[index] for index in sorted(kept)]


def thin_evenly(items: Sequence[T], most: int) -> list[T]:
    """Return at most ``most`` items, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[(len(items) - 1) * number // (most - 1)] for number in range(most)]


def _telling(points: Sequence[Point], stretch: range) -> set[int]:
    values = {i: value for i in stretch if (value := points[i].value) is not None}
    kept = {choose(values, key=values.__getitem__) for choose in (min, max)} if values else set()
    if len(values) < len(stretch):
        kept.add(next(i for i in stretch if i not in values))
    return kept


def _add(
    charts: dict[str, Lines], values: Mapping[str, float | None], run: int, row: MetricsRow
) -> None:
    for name, value in values.items():
        lines = charts.setdefault(name, {})
        lines.setdefault((run, row.phase), []).append(Point(row.epoch, row.step, value))


def _chart(title: str, lines: Lines, *, is_rate: bool) -> Chart:
    return Chart(
        title=title,
        is_rate=is_rate,
        lines=[
            Line(run=run, phase=phase, points=points)
            for (run, phase), points in sorted(
                lines.items(), key=lambda found: (found[0][0], phase_rank(found[0][1]))
            )
        ],
    )
