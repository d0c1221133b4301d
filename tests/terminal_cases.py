"""Commands on real terminals: what they show, and what they were to show."""

import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import attrs
import terminal_session
from terminal_session import COMMAND, TABLE

_NOTES = "tables.json"
# Colours, movements of the cursor and what else a terminal does not show.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


@attrs.frozen
class Table:
    """A table as it is shown, what it was made of, and the name of the file that printed it."""

    lines: list[str]
    columns: list[str]
    rows: list[list[str]]
    printed_by: str


@attrs.frozen
class Shown:
    """What a command showed on a terminal."""

    width: int
    arguments: Sequence[str]
    code: int
    text: str
    tables: list[Table]


def show_on_terminal(
    commands: Sequence[Sequence[str]], *, widths: Sequence[int], place: Path, **environment: str
) -> list[Shown]:
    """Run commands on a real terminal of several widths.

    Args:
        commands: Arguments of each.
        widths: Columns of the terminal.
        place: The working directory.
        environment: Variables of the process.
    """
    terminal, end = pty.openpty()
    read: list[bytes] = []
    reader = threading.Thread(target=_read_all, args=(terminal, read))
    reader.start()
    try:
        found = _run(commands, widths, place, environment, out=end)
    finally:
        os.close(end)
        reader.join()
        os.close(terminal)
    assert found.returncode == 0
    return list(_read_back(b"".join(read).decode(), commands, widths, place))


def show_in_pipe(
    commands: Sequence[Sequence[str]], *, place: Path, **environment: str
) -> list[Shown]:
    """Run commands with a pipe as standard output; ``width`` is 0."""
    found = _run(commands, [0], place, environment, out=subprocess.PIPE)
    assert found.returncode == 0
    return list(_read_back(found.stdout.decode(), commands, [0], place))


def _run(
    commands: Sequence[Sequence[str]],
    widths: Sequence[int],
    place: Path,
    environment: Mapping[str, str],
    *,
    out: int,
) -> subprocess.CompletedProcess[bytes]:
    # A size that a shell exported counts more than the terminal's own.
    inherited = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    arguments = [json.dumps(widths), json.dumps(commands), _NOTES]
    return subprocess.run(
        [sys.executable, terminal_session.__file__, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.STDOUT,
        check=False,
        cwd=place,
        env={**inherited, "OMP_NUM_THREADS": "1", "TERM": "xterm", **environment},
    )


def _read_back(
    text: str, commands: Sequence[Sequence[str]], widths: Sequence[int], place: Path
) -> Iterator[Shown]:
    parts = _CONTROL.sub("", text).split(COMMAND)
    noted = iter(json.loads((place / _NOTES).read_text("utf-8")))
    called = [(width, arguments) for width in widths for arguments in commands]
    for (width, arguments), shown, code in zip(called, parts[:-1:2], parts[1::2], strict=True):
        pieces = shown.split(TABLE)
        tables = [Table(piece.splitlines(), *next(noted)) for piece in pieces[1::2]]
        yield Shown(width, arguments, int(code), "".join(pieces), tables)


def _read_all(terminal: int, read: list[bytes]) -> None:
    with suppress(OSError):  # the other end is closed
        while found := os.read(terminal, 1 << 16):
            read.append(found)
