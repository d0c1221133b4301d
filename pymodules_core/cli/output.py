"""Tables and JSON on standard output, and new folders."""

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from pymodules_core.cli.table_layout import lay_out
from pymodules_core.errors import printable


def print_json(items: Sequence[Any]) -> None:
    """Print a JSON list, one item a line: indenting a thousand of them would take 60 ms."""
    click.echo("[" + ",\n ".join(map(json.dumps, items)) + "]")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: within the width of a terminal, each row on one line elsewhere.

    Args:
        columns: Headings.
        rows: Cells, as many as headings.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    is_terminal = sys.stdout is not None and sys.stdout.isatty()  # None: closed by the caller
    width = shutil.get_terminal_size().columns if is_terminal else sys.maxsize
    click.echo("\n".join(lay_out(columns, cells, width=width)))


def format_count(number: int | None) -> str:
    """Return a count with thousands separators, or ``-`` where it is not known."""
    return "-" if number is None else f"{number:,}"


def format_size(size_bytes: int) -> str:
    """Return a size in the unit that keeps it short."""
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
    from pymodules_core.checkpoints.store.disk_errors import remedy
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
