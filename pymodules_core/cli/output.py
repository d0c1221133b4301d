"""Tables and JSON on standard output, and new folders."""

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from pymodules_core.errors import printable

# rich lays out a thousand rows in most of a second; plain columns take milliseconds.
_MOST_RICH_ROWS = 100
_WIDEST_NAME = 50


def print_json(items: Sequence[Any]) -> None:
    """Print a JSON list, one item a line: indenting a thousand of them would take 60 ms."""
    click.echo("[" + ",\n ".join(map(json.dumps, items)) + "]")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: drawn by rich on a terminal, aligned columns elsewhere.

    Args:
        columns: Headings.
        rows: Cells, as many as headings.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    is_terminal = sys.stdout is not None and sys.stdout.isatty()  # None: closed by the caller
    if is_terminal and len(rows) <= _MOST_RICH_ROWS:
        from rich import box
        from rich.console import Console
        from rich.table import Column, Table
        from rich.text import Text

        # What a row is called by is whole, to be typed; other cells are folded where need be.
        longest = max([0, *(len(row[0]) for row in rows)])
        first = Column(columns[0], min_width=min(longest, _WIDEST_NAME), overflow="fold")
        others = [Column(name, overflow="fold") for name in columns[1:]]
        table = Table(first, *others, box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        Console().print(table)
        return
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (columns, *rows)
    )
    click.echo("\n".join(lines))


def format_count(number: int | None) -> str:
    """Give a count with thousands separators, or ``-`` where it is not known."""
    return "-" if number is None else f"{number:,}"


def format_size(size_bytes: int) -> str:
    """Give a size in the unit that keeps it short."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


@contextmanager
def making_folder(folder: Path, *, option: str) -> Iterator[None]:
    """Take a new folder away again where the disk refuses a part of it.

    Args:
        folder: The folder, which is not there yet.
        option: What chooses another place.

    Raises:
        PymodulesError: The disk refuses.
    """
    from pymodules_core.checkpoints.disk_errors import remedy
    from pymodules_core.errors import PymodulesError

    try:
        yield
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        refusal = PymodulesError(
            error.strerror or str(error),
            file=folder,
            fix=f"{remedy(error)}, or choose another {option}",
        )
        refusal.exit_code = 1  # the machine's state, no wrong usage
        raise refusal from error
