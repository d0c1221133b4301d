"""What several runs of the page differ in, as a table."""

from itertools import groupby

from pymodules_core.reports.comparison import Comparison, Row
from pymodules_core.reports.markup import Child, Html, data_table, tag
from pymodules_core.reports.text import MISSING, shorten

_LONGEST_CELL = 80


def difference_table(comparison: Comparison) -> Html:
    """Make the table; rows that are equal everywhere are not in it."""
    rows = comparison.changed_rows()
    if not rows:
        return tag("p", "They differ in nothing that is on record.", class_="muted")
    cells: list[list[Child]] = []
    for group, found in groupby(rows, key=lambda row: row.group):
        cells.append([group.value.capitalize()])
        cells += [[row.key, *(_cell(row, label) for label in comparison.labels)] for row in found]
    content = data_table(("", *comparison.labels), cells, caption="What differs")
    return tag("section", content, class_="card block differences")


def _cell(row: Row, label: str) -> Child:
    cell = row.cell(label)
    if cell is None:
        return MISSING
    if label in row.best:
        return tag("span", f"{shorten(cell, _LONGEST_CELL)} ★", class_="is-best", title="the best")
    return shorten(cell, _LONGEST_CELL)
