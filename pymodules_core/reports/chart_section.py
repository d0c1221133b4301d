"""The charts of the page: frames, tables, buttons, and the numbers that lines are drawn from.

The page's own script draws, since it knows how wide the window is; the tables are for those who
cannot see what it draws.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pymodules_core.reports.history import EVAL, History, phases_of
from pymodules_core.reports.markup import Child, Html, data_table, join, tag
from pymodules_core.reports.series import Chart, Line, Point, points_a_line, thin, thin_evenly
from pymodules_core.reports.text import MISSING

# Of runs; page.css names them, and more runs use them again with another marker.
COLORS = 8

_MOST_CELLS = 12_000
_MOST_TABLE_ROWS = 200
_FEWEST_TABLE_ROWS = 8
_SHOWN_DIGITS = 6


def run_style(number: int) -> str:
    """Return the style that makes ``--run`` the colour of a run."""
    return f"--run:var(--run-{number % COLORS})"


def chart_data(charts: Sequence[Chart], runs: Mapping[str, History]) -> dict[str, Any]:
    """Return what the script draws of labelled runs, ready for JSON."""
    most = points_a_line(charts)
    best_epochs = [{run.best.epoch} if run.best else set() for run in runs.values()]
    return {
        "colors": COLORS,
        "phases": phases_of(runs.values()),
        "runs": [
            {"label": label, "best": _best(run), "resumed": _resumed(run)}
            for label, run in runs.items()
        ],
        "charts": [
            {
                "title": chart.title,
                "isRate": chart.is_rate,
                "lines": [
                    _line(line, thin(line.points, most, keep_epochs=best_epochs[line.run]))
                    for line in chart.lines
                ],
            }
            for chart in charts
        ],
    }


def chart_section(charts: Sequence[Chart], runs: Mapping[str, History]) -> Html:
    """Make the buttons and a frame for each chart, with its values as a table."""
    if not charts:
        return tag("p", "No metrics are logged yet.", class_="muted")
    columns = max(len(chart.lines) for chart in charts)
    fair = _MOST_CELLS // (len(charts) * columns)
    most_rows = min(_MOST_TABLE_ROWS, max(_FEWEST_TABLE_ROWS, fair))
    return join(
        _toolbar(runs),
        tag("noscript", tag("p", "Charts need JavaScript; the tables do not.", class_="note")),
        tag(
            "div",
            *(_frame(chart, list(runs), most_rows=most_rows) for chart in charts),
            class_="charts",
        ),
    )


def _best(history: History) -> dict[str, Any] | None:
    best = history.best
    return {"metric": best.metric, "epoch": best.epoch} if best else None


def _resumed(history: History) -> list[dict[str, Any]]:
    return [
        {
            # Within an epoch the step says better where it was.
            "epoch": one.epoch if (at := history.epoch_at(one.step)) is None else round(at, 3),
            "step": one.step,
            "begun": one.epoch,
        }
        for one in history.resumptions
    ]


def _line(line: Line, points: Iterable[Point]) -> dict[str, Any]:
    epochs, steps, values = zip(*points, strict=True)
    return {
        "run": line.run,
        "phase": line.phase,
        "epochs": epochs,
        "steps": steps,
        "values": [v if v is None else float(f"{v:.{_SHOWN_DIGITS}g}") for v in values],
    }


def _toolbar(runs: Mapping[str, History]) -> Html:
    phase_keys = (
        _key(phase, name="phase", value=phase, run=0, phase=phase)
        for phase in phases_of(runs.values())
    )
    run_keys = (
        _key(label, name="run", value=number, run=number, phase=EVAL)
        for number, label in enumerate(runs)
    )
    marks = ["◎ best epoch"] if any(run.best for run in runs.values()) else []
    marks += ["▲ resumed"] if any(run.resumptions for run in runs.values()) else []
    return tag(
        "div",
        _segments("x axis", "x", ("epoch", "step")),
        _segments("y axis", "y", ("linear", "log")),
        _group("phases", *phase_keys),
        _group("runs", *run_keys) if len(runs) > 1 else None,
        tag("span", " · ".join(marks), class_="muted small legend") if marks else None,
        class_="toolbar",
        role="toolbar",
        aria_label="Charts",
    )


def _segments(title: str, name: str, values: Sequence[str]) -> Html:
    buttons = (
        tag(
            "button", v, type="button", name=name, value=v, aria_pressed=str(v == values[0]).lower()
        )
        for v in values
    )
    return _group(title, tag("span", title, class_="muted"), *buttons, class_="group segments")


def _group(title: str, *children: Html, class_: str = "group") -> Html:
    return tag("div", *children, class_=class_, role="group", aria_label=title)


def _key(text: str, *, name: str, value: str | int, run: int, phase: str) -> Html:
    return tag(
        "button",
        tag("span", text),
        type="button",
        name=name,
        value=value,
        class_="key",
        aria_pressed="true",
        data_sample=True,
        data_run=run,
        data_phase=phase,
    )


def _frame(chart: Chart, labels: Sequence[str], *, most_rows: int) -> Html:
    title = f"learning rate: {chart.title}" if chart.is_rate else chart.title or "(no name)"
    log = tag("button", "log", type="button", aria_pressed="false", title="logarithmic y axis")
    return tag(
        "figure",
        tag("figcaption", tag("h3", title), log),
        tag("div", class_="plot"),
        tag("p", class_="clipped", hidden=True),
        tag(
            "details",
            tag("summary", "Values as a table"),
            _values_table(chart, title, labels, most_rows=most_rows),
        ),
        class_="card chart",
    )


def _values_table(chart: Chart, title: str, labels: Sequence[str], *, most_rows: int) -> Html:
    # Steps of several runs need not be equal where their epochs are.
    has_steps = len(labels) == 1
    cells = _cells(chart, has_steps=has_steps)
    keys = sorted(cells)
    shown = thin_evenly(keys, most_rows)
    prefixes = [""] if has_steps else [f"{label} " for label in labels]
    names = [f"{prefixes[line.run]}{line.phase}" for line in chart.lines]
    head = ["epoch", "step"] if has_steps else ["epoch"]
    rows = [_values_row(key[: len(head)], cells[key], len(names)) for key in shown]
    columns = [*head, *names]
    is_whole = len(shown) == len(keys)
    caption = title if is_whole else f"{title}: {len(shown)} of {len(keys)} rows"
    table = data_table(columns, rows, caption=caption, numeric=range(len(columns)))
    if is_whole:
        return table
    note = f"Every {len(keys) // len(shown)}th row or so: {caption}"
    return join(table, tag("p", note, class_="muted small"))


def _cells(chart: Chart, *, has_steps: bool) -> dict[tuple[int, int], dict[int, str]]:
    """Return what stands in the row of an epoch and step, by column."""
    cells: dict[tuple[int, int], dict[int, str]] = {}
    for column, line in enumerate(chart.lines):
        for point in line.points:
            value = "not finite" if point.value is None else f"{point.value:.{_SHOWN_DIGITS}g}"
            key = (point.epoch, point.step if has_steps else 0)
            cells.setdefault(key, {})[column] = value
    return cells


def _values_row(head: Sequence[int], values: Mapping[int, str], columns: int) -> list[Child]:
    return [*(f"{number:,}" for number in head), *(values.get(i, MISSING) for i in range(columns))]
