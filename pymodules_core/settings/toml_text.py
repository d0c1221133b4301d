"""Reads TOML: a file, with the place of what is wrong in it; an override; the line of a key."""

import os
import re
import stat
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

from pymodules_core.errors import SettingsError
from pymodules_core.settings.structure import KeyPath

_MOST_BYTES = 1 << 20
_MOST_PARTS = 100
# For the two commonest mistakes, by what Python's reader says; then for all others.
_FIXES = {
    "Invalid value": "texts need quotes, and true and false are lower case",
    "Cannot": "write each key and each table once",
    "": "write [table] and key = value, a line each; see https://toml.io",
}


def read_toml(file: Path) -> dict[str, Any]:
    """Read a file; one that is not there is empty.

    Raises:
        SettingsError: It cannot be read, or is not TOML.
    """
    if not os.path.lexists(file):
        return {}
    text = _read_text(file)
    _refuse_deep(text, file)
    refusal = partial(SettingsError, file=file)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        message = str(error).split(" (at ")[0]
        column = f" (column {found[2]})" if found else ""
        raise refusal(
            f"not valid TOML{column}: {message}",
            # Without a place in it, the message means the end of the document.
            line=int(found[1]) if found else len(text.splitlines()),
            fix=next(fix for begin, fix in _FIXES.items() if message.startswith(begin)),
        ) from error
    except RecursionError as error:
        raise refusal(
            "nests too deep to be read", fix="write fewer brackets in brackets"
        ) from error
    except ValueError as error:  # Python's own limit
        what = "has a whole number of more than 4,300 digits"
        raise refusal(what, fix="write a smaller one") from error


def _read_text(file: Path) -> str:
    refusal = partial(SettingsError, file=file)
    try:
        # A pipe would be waited for, and a device may be read without end.
        if not stat.S_ISREG(file.stat().st_mode):
            raise refusal("is not a regular file", fix="make it a readable file")
        if file.stat().st_size > _MOST_BYTES:
            raise refusal(f"has more than {_MOST_BYTES:,} bytes", fix="keep data in other files")
        # utf-8-sig: editors on Windows put a byte order mark first.
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"not UTF-8 text: byte {error.start}"
        raise refusal(what, fix="save it as UTF-8") from error
    except OSError as error:
        is_link = isinstance(error, FileNotFoundError)
        reason = "is a link to nothing" if is_link else f"cannot be read: {error.strerror}"
        raise refusal(reason, fix="make it a readable file") from error
    if "\0" in text:  # as in UTF-16, which may be read as UTF-8
        line = text[: text.index("\0")].count("\n") + 1
        raise refusal("not UTF-8 text: a NUL byte", line=line, fix="save it as UTF-8")
    return text


def _refuse_deep(text: str, file: Path) -> None:
    """Refuse dotted keys of many parts, for which Python's reader takes memory by their square."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > _MOST_PARTS and any(
            part.count(".") > _MOST_PARTS for part in re.split(r"[=,{}\[\]\"'#]", line)
        ):
            raise SettingsError(
                f"a key of more than {_MOST_PARTS} parts",
                file=file,
                line=number,
                fix="write fewer tables in tables",
            )


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``train.epochs=3`` into its dotted key and its value, read as TOML.

    A value that is not TOML is taken as text, so that ``train.device=cpu`` needs no quotes.

    Raises:
        SettingsError: If there is no ``=``, or no whole key before it.
    """
    key, equals, value = text.partition("=")
    fix = "write key=value: train.epochs=3"
    if not equals:
        raise SettingsError(f"override {text!r} has no value", found=text, fix=fix)
    if not all(part.strip() for part in key.split(".")):
        raise SettingsError(f"override {text!r} lacks a part of its key", found=text, fix=fix)
    return key.strip(), _parse_value(value)


def lay_over(data: dict[str, Any], key: str, value: object) -> None:
    """Set a dotted key in nested tables, which are made where they are not there.

    Raises:
        SettingsError: A part of the key is a value.
    """
    *tables, last = key.split(".")
    if len(tables) > _MOST_PARTS:
        raise SettingsError(
            f"override of {len(tables)} tables in tables", key=key, fix="write fewer"
        )
    for table in tables:
        data = data.setdefault(table, {})
        if not isinstance(data, dict):
            raise SettingsError(
                f"override {key!r}: {table!r} is a value, no table",
                key=key,
                fix="name a key of a table: train.epochs=3",
            )
    data[last] = value


def find_line(file: Path, path: KeyPath) -> int | None:
    """Find a key by its table header; enough for a message, so unusual spellings give None."""
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError):
        return None
    table: KeyPath = ()
    header_line: int | None = None
    for number, line in enumerate(lines, start=1):
        if header := re.fullmatch(r"\s*\[\[?([^\[\]]+)\]\]?\s*(#.*)?", line):
            table = _split_key(header[1])
            header_line = number if table == path else header_line
        elif key := re.match(r"\s*([A-Za-z0-9_.\"'-]+)\s*=", line):
            full = (*table, *_split_key(key[1]))
            # An inline table holds the rest of the path on the key's own line.
            if full == path[: len(full)]:
                return number
    return header_line


def _split_key(text: str) -> KeyPath:
    return tuple(part.strip().strip("\"'") for part in text.split("."))


def _parse_value(text: str) -> Any:
    """Read one value; what is none is a text, so that ``cpu`` needs no quotes."""
    try:
        found = tomllib.loads(f"value = {text}")
    # Also what is TOML and too much of it: a number of 5,000 digits, a hundred thousand brackets.
    except (ValueError, RecursionError):
        return text.strip()
    return found["value"] if len(found) == 1 else text.strip()  # lines that follow are keys
