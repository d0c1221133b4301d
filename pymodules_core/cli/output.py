"""Lines, tables and JSON of commands, and new folders."""

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from pymodules_core.checkpoints.store.disk_errors import remedy
from pymodules_core.cli.table_layout import lay_out
from pymodules_core.errors import PymodulesError, display_path, printable
from pymodules_core.text import spell_out


def echo(line: str = "", *, err: bool = False) -> None:
    """Print one line; what a terminal would act on, a line break in a name for one, is spelt out.

    Args:
        line: The line.
        err: Print to standard error.
    """
    click.echo(printable(line), err=err)


def say(text: str, *, err: bool = True) -> None:
    """Print lines, which must not end the command where nobody reads them.

    They are spelt out as those of errors are.

    Args:
        text: The lines.
        err: Print to standard error.
    """
    with suppress(OSError):
        click.echo(spell_out(text), err=err)


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


def write_folder(target: Path, files: Iterable[tuple[Path, bytes]], *, option: str) -> None:
    """Write a new folder and list its files; take it away again where the disk refuses a part.

    Args:
        target: The folder, which is not there yet.
        files: Path in it and content of each file.
        option: What chooses another place.

    Raises:
        PymodulesError: The disk refuses.
    """
    try:
        for place, content in files:
            file = target / place
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        refusal = PymodulesError(
            error.strerror or str(error),
            file=target,
            fix=f"{remedy(error)}, or choose another {option}",
        )
        refusal.exit_code = 1  # the machine's state, no wrong usage
        raise refusal from error
    echo(f"wrote {display_path(target)}")
    for file in sorted(path for path in target.rglob("*") if path.is_file()):
        echo(f"  {file.relative_to(target)}")
