"""``pymodules compare``: settings and results of experiments side by side; no torch."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pymodules_core.cli import options, output
from pymodules_core.reports.text import MISSING, shorten

if TYPE_CHECKING:
    from pymodules_core.reports.comparison import Comparison, Row

_BEST_MARK = "*"


@click.command("compare")
@click.argument("exps", metavar="EXP EXP...", nargs=-1)
@click.option("--only-changed", is_flag=True, help="Hide what is equal in all of them.")
@options.json
@options.data_home
@options.debug
def command(
    exps: tuple[str, ...], only_changed: bool, as_json: bool, data_home: Path | None
) -> None:
    """Show settings, modules and results of two or more experiments side by side.

    The settings are those that a run had, with its overrides; of an experiment without a run,
    those of its experiment.toml. Versions, plugins and files are shown where they differ.
    """
    if len(exps) < 2:
        raise click.UsageError("name two experiments or more: pymodules compare A B")
    from pymodules_core.reports.comparison import compare
    from pymodules_core.reports.subjects import open_subjects

    comparison = compare(open_subjects(exps, data_home=data_home))
    rows = comparison.changed_rows() if only_changed else comparison.rows
    if as_json:
        output.print_json(
            [
                {
                    "group": row.group.value,
                    "key": row.key,
                    "values": dict(row.values),
                    "changed": row.is_changed,
                    "best": list(row.best),
                }
                for row in rows
            ]
        )
    elif not rows:
        output.echo("nothing differs")
    else:
        _print_rows(comparison, rows)


def _print_rows(comparison: "Comparison", rows: "list[Row]") -> None:
    cells: list[list[str]] = []
    group = None
    for row in rows:
        if row.group is not group:
            blank = [""] * (len(comparison.labels) + 1)
            cells += [blank, [row.group.upper(), *blank[1:]]]
            group = row.group
        cells.append([row.key, *(_cell_text(row, label) for label in comparison.labels)])
    # The heading of the first group needs no line before it.
    output.print_table(("EXPERIMENT", *comparison.labels), cells[1:])
    if comparison.goal is not None and any(row.best for row in rows):
        metric, mode = comparison.goal
        output.echo()
        output.echo(f"{_BEST_MARK} the best {metric} of these ({mode})")
    elif comparison.has_several_goals:
        output.echo()
        output.echo("no best is marked: monitor or mode differ")


def _cell_text(row: "Row", label: str) -> str:
    cell = row.cell(label)
    if cell is None:
        return MISSING
    mark = f" {_BEST_MARK}" if label in row.best else ""
    return f"{shorten(cell)}{mark}"
