"""Reads TOML: a file, with the place of what is wrong in it; a value; the line of a key."""

import os
import re
import stat
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pymodules_core.errors import SettingsError
from pymodules_core.settings.structure import KeyPath

_ONCE = "write each key and each table once"
_BACKSLASH = "write a text that holds a backslash in single quotes: 'C:\\data'"
_BRACKET = "close the bracket"
_SHALLOWER = "write fewer tables in tables"
_MOST_BYTES = 1 << 20
_MOST_PARTS = 100
# By what Python's reader says; a cause of its own that most likely is behind it.
_FIXES = {
    "Cannot": _ONCE,
    "Duplicate": _ONCE,
    "Invalid value": "texts need quotes, and true and false are lower case",
    "Expected '='": "write key = value",
    "Expected newline": "write one key = value a line, numbers without leading zeros",
    "Invalid statement": "write [table] and key = value, a line each",
    "Unescaped": _BACKSLASH,
    "Invalid hex": _BACKSLASH,
    "Escaped": _BACKSLASH,
    "Unclosed": _BRACKET,
    "Expected ']": _BRACKET,
    r"Illegal character '\n'": "close the quotes on the line where they begin",
}


def read_toml(file: Path) -> dict[str, Any]:
    """Read a file; one that is not there is empty.

    Raises:
        SettingsError: It cannot be read, or is no TOML.
    """
    if not os.path.lexists(file):
        return {}
    try:
        # A pipe would be waited for, and a device may be read without end.
        if not stat.S_ISREG(file.stat().st_mode):
            raise SettingsError("is no regular file", file=file, fix="make it a readable file")
        # utf-8-sig: editors on Windows put a byte order mark first.
        if file.stat().st_size > _MOST_BYTES:
            raise SettingsError(
                f"has more than {_MOST_BYTES:,} bytes",
                file=file,
                fix="keep data in other files",
            )
        text = file.read_text(encoding="utf-8-sig")
        if "\0" in text:  # as in UTF-16, which may be read as UTF-8
            line = text[: text.index("\0")].count("\n") + 1
            raise SettingsError(
                "not UTF-8 text: a NUL byte", file=file, line=line, fix="save it as UTF-8"
            )
        _refuse_deep(text, file)
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        message = str(error).split(" (at ")[0]
        column = f" (column {found[2]})" if found else ""
        raise SettingsError(
            f"not valid TOML{column}: {message}",
            file=file,
            # Without a place in it, the message means the end of the document.
            line=int(found[1]) if found else len(text.splitlines()),
            fix=next((fix for begin, fix in _FIXES.items() if message.startswith(begin)), None),
        ) from error
    except RecursionError as error:
        raise SettingsError(
            "nests too deep to be read", file=file, fix="write fewer brackets in brackets"
        ) from error
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"not UTF-8 text: byte {error.start}", file=file, fix="save it as UTF-8"
        ) from error
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        if isinstance(error, FileNotFoundError):
            reason = "is a link to nothing"
        raise SettingsError(reason, file=file, fix="make it a readable file") from error
    except SettingsError:
        raise
    except ValueError as error:  # Python's own limit
        raise SettingsError(
            "has a whole number of more than 4,300 digits", file=file, fix="write a smaller one"
        ) from error


def _refuse_deep(text: str, file: Path) -> None:
    """Refuse dotted keys of many parts, for which Python's reader takes memory by their square."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > _MOST_PARTS and any(
            part.count(".") > _MOST_PARTS for part in re.split(r"[=,{}\[\]\"'#]", line)
        ):
            raise SettingsError(
                f"a key of more than {_MOST_PARTS} parts", file=file, line=number, fix=_SHALLOWER
            )


def parse_value(text: str) -> Any:
    """Read one value; what is none is a text, so that ``cpu`` needs no quotes."""
    try:
        found = tomllib.loads(f"value = {text}")
    # Also what is TOML and too much of it: a number of 5,000 digits, a hundred thousand brackets.
    except (ValueError, RecursionError):
        return text.strip()
    return found["value"] if len(found) == 1 else text.strip()  # lines that follow are keys


def find_line(file: Path, path: KeyPath) -> int | None:
    """Find a key by its table header; enough for a message, so unusual spellings give None."""
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return _scan_for_key(lines, path)


def _scan_for_key(lines: Iterable[str], path: KeyPath) -> int | None:
    table: tuple[str, ...] = ()
    header_line: int | None = None
    for number, line in enumerate(lines, start=1):
        header = re.fullmatch(r"\s*\[\[?([^\[\]]+)\]\]?\s*(#.*)?", line)
        if header:
            table = tuple(part.strip().strip("\"'") for part in header[1].split("."))
            if table == path:
                header_line = number
            continue
        key = re.match(r"\s*([A-Za-z0-9_.\"'-]+)\s*=", line)
        if key:
            parts = tuple(part.strip("\"'") for part in key[1].split("."))
            full = (*table, *parts)
            # An inline table holds the rest of the path on the key's own line.
            if full == path[: len(full)] and len(full) > len(table):
                return number
    return header_line
