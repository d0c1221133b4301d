"""Commands one after another on a terminal of several widths, in one process for speed.

Started by ``terminal_cases``; what it prints between commands and around tables is read back there.
"""

import fcntl
import json
import struct
import sys
import termios
from pathlib import Path

import click

import pymodules_core.cli.output
from pymodules_core.cli.main import run

COMMAND, TABLE = "\x1e", "\x1d"


def main(widths: list[int], commands: list[list[str]], notes: Path) -> None:
    """Run each command on each width.

    Args:
        widths: Columns of the terminal, which is standard output.
        commands: Arguments of each.
        notes: Where to write what each table was made of, and which command printed it.
    """
    tables = []
    print_table = pymodules_core.cli.output.print_table

    def print_noted(columns, rows) -> None:
        tables.append([columns, rows, Path(sys._getframe(1).f_code.co_filename).name])
        click.echo(TABLE, nl=False)
        print_table(columns, rows)
        click.echo(TABLE, nl=False)

    pymodules_core.cli.output.print_table = print_noted
    for width in widths:
        if sys.stdout.isatty():
            fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        for arguments in commands:
            code = run(arguments)
            click.echo(f"{COMMAND}{code}{COMMAND}", nl=False)
    notes.write_text(json.dumps(tables), "utf-8")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3]))
