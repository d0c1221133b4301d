"""Charts as numbers: which lines each has, and which points of a line are worth drawing."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import attrs

from pymodules_core.reports.history import History, phase_rank

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


def make_charts(histories: Sequence[History]) -> list[Chart]:
    """Make a chart for each metric and each optimizer's learning rate.

    Args:
        histories: The runs, in the order of their numbers.

    Returns:
        The charts; metrics that decide what is best come first, those of evaluations before those
        of training alone, learning rates last.
    """
    # Whether it is a learning rate, and its name, to run and phase to points.
    found: dict[tuple[bool, str], dict[tuple[int, str], list[Point]]] = {}
    numbered = [(number, row) for number, one in enumerate(histories) for row in one.rows]
    # Stable: within a phase the order stays that of runs and rows.
    for number, row in sorted(numbered, key=lambda pair: phase_rank(pair[1].phase)):
        for is_rate, values in ((False, row.metrics), (True, row.learning_rates)):
            for name, value in values.items():
                points = found.setdefault((is_rate, name), {}).setdefault((number, row.phase), [])
                points.append(Point(row.epoch, row.step, value))
    monitors = [(False, history.best.metric) for history in histories if history.best]
    first = [key for key in monitors if key in found]
    ordered = dict.fromkeys([*first, *sorted(found, key=lambda key: key[0])])
    return [_chart(title, found[is_rate, title], is_rate=is_rate) for is_rate, title in ordered]


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
        kept |= _notable(points, range(start, end))
    return [points[index] for index in sorted(kept)]


def thin_evenly(items: Sequence[T], most: int) -> list[T]:
    """Return at most ``most`` items, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[(len(items) - 1) * number // (most - 1)] for number in range(most)]


def _notable(points: Sequence[Point], stretch: range) -> set[int]:
    values = {i: value for i in stretch if (value := points[i].value) is not None}
    kept = {choose(values, key=values.__getitem__) for choose in (min, max)} if values else set()
    if len(values) < len(stretch):
        kept.add(next(i for i in stretch if i not in values))
    return kept


def _chart(title: str, found: Mapping[tuple[int, str], list[Point]], *, is_rate: bool) -> Chart:
    lines = [Line(run=run, phase=phase, points=points) for (run, phase), points in found.items()]
    return Chart(title=title, is_rate=is_rate, lines=sorted(lines, key=lambda line: line.run))
