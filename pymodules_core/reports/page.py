"""One HTML page of one or more runs; it needs no other file and no network."""

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from itertools import groupby

from pymodules_core.errors import PymodulesError
from pymodules_core.installed import own_version
from pymodules_core.reports.chart_section import chart_data, chart_section, run_style
from pymodules_core.reports.comparison import Row, compare
from pymodules_core.reports.history import History
from pymodules_core.reports.markup import Child, Html, data_table, join, script_json, tag
from pymodules_core.reports.run_sections import run_card, run_sections
from pymodules_core.reports.series import make_charts
from pymodules_core.reports.subjects import Subject
from pymodules_core.reports.text import MISSING, shorten
from pymodules_core.run_files import RUN_FILE_NAME

_ASSETS = files("pymodules_core.reports") / "assets"
_SCRIPTS = ("elements.js", "scales.js", "charts.js")
_GENERATOR = "pymodules plot"
_LONGEST_CELL = 80

# How every page begins; what does not is not a page of ours, and is not replaced by one.
_PAGE_START = Html(
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    f'<meta name="generator" content="{_GENERATOR}">\n'
)


def make_page(subjects: Sequence[Subject], *, now: datetime | None = None) -> str:
    """Make the page.

    Args:
        subjects: What to show, in this order.
        now: When it is made.

    Raises:
        PymodulesError: One of them has no run.
    """
    runs = {subject.label: _history_of(subject) for subject in subjects}
    charts = make_charts([*runs.values()])
    has_several = len(runs) > 1
    title = f"{len(runs)} runs: {', '.join(runs)}" if has_several else subjects[0].label
    script = "".join((_ASSETS / name).read_text("utf-8") for name in _SCRIPTS)
    made = f"{(now or datetime.now(UTC)).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    head = join(
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} · pymodules"),
        tag("style", Html((_ASSETS / "page.css").read_text("utf-8"))),
    )
    cards = [
        run_card(label if has_several else "Run", history, style=run_style(number))
        for number, (label, history) in enumerate(runs.items())
    ]
    body = join(
        tag(
            "header",
            tag("h1", f"{len(runs)} runs side by side" if has_several else title),
            tag("p", f"As of {made}, pymodules {own_version()}", class_="muted small"),
            _progress_note(runs),
            class_="wide",
        ),
        tag(
            "main",
            tag("div", *cards, class_="cards runs"),
            tag("h2", "Metrics"),
            chart_section(charts, runs),
            *_differences(subjects),
            *_details(subjects, runs),
            class_="wide",
        ),
        tag(
            "script",
            script_json(chart_data(charts, runs)),
            type="application/json",
            id="plot-data",
        ),
        tag("script", Html(script)),
    )
    return f"{_PAGE_START}{head}\n</head>\n{tag('body', body)}\n</html>\n"


def is_page(start: bytes) -> bool:
    """Return whether a file that begins so is a page that ``make_page`` made."""
    return start.startswith(_PAGE_START.encode())


def _history_of(subject: Subject) -> History:
    if subject.history is None:
        experiment = subject.experiment
        raise PymodulesError(
            f"experiment {experiment.name!r} has no run yet: there is no {RUN_FILE_NAME}",
            file=experiment.data_dir,
            fix=f"pymodules train {experiment.name}",
        )
    return subject.history


def _policy(script: str) -> str:
    """Allow the page's own script and styles and nothing else, no request of any kind."""
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )


def _progress_note(runs: Mapping[str, History]) -> Html | None:
    at_work = [label for label, run in runs.items() if run.state == "running"]
    if not at_work:
        return None
    return tag(
        "p",
        f"Still running when this page was made: {', '.join(at_work)}. Plot again for what came "
        "since.",
        class_="note",
    )


def _differences(subjects: Sequence[Subject]) -> list[Html]:
    """Make the table of what several runs differ in, without what is equal in all of them."""
    if len(subjects) == 1:
        return []
    heading = tag("h2", "What differs")
    comparison = compare(subjects)
    cells: list[list[Child]] = []
    for group, rows in groupby(comparison.changed_rows(), key=lambda row: row.group):
        cells.append([group.value.capitalize()])
        cells += [[row.key, *(_cell(row, label) for label in comparison.labels)] for row in rows]
    if not cells:
        return [heading, tag("p", "They differ in nothing that is on record.", class_="muted")]
    content = data_table(("", *comparison.labels), cells, caption="What differs")
    return [heading, tag("section", content, class_="card block differences")]


def _cell(row: Row, label: str) -> Child:
    cell = row.cell(label)
    if cell is None:
        return MISSING
    shown = shorten(cell, _LONGEST_CELL)
    if label in row.best:
        return tag("span", f"{shown} ★", class_="is-best", title="the best")
    return shown


def _details(subjects: Sequence[Subject], runs: Mapping[str, History]) -> list[Html]:
    sections = [run_sections(subject.experiment, runs[subject.label]) for subject in subjects]
    if len(sections) == 1:
        return [tag("h2", "The run"), tag("div", *sections, style=run_style(0))]
    return [
        tag("h2", "Each run"),
        *(
            tag(
                "details",
                tag("summary", tag("i", class_="dot"), label),
                section,
                class_="run-details",
                style=run_style(number),
            )
            for number, (label, section) in enumerate(zip(runs, sections, strict=True))
        ),
    ]
