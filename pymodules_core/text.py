"""Text for people: what a message is built of, and how it may leave the program."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

_LONGEST_LINE = 1000
_LONGEST_NAME = 300


def printable(text: str) -> str:
    """Spell out what a terminal would act on: names in a stranger's files may hold anything."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def spell_out(text: str) -> str:
    """Return lines as they may leave the program: printable, and none of any length.

    A value that a file gave may be as long as it likes.
    """
    lines = text.split("\n")
    cut = (one if len(one) <= _LONGEST_LINE else f"{one[:_LONGEST_LINE]}…" for one in lines)
    return "\n".join(map(printable, cut))


def display_path(path: Path) -> str:
    """Return ``path`` relative to the working directory where that is shorter to read."""
    # As it was written first: a link is named, not what it leads to.
    for find in (Path.absolute, Path.resolve):
        try:
            text, here = os.path.normpath(find(path)), str(Path.cwd())
        except (OSError, RuntimeError):  # RuntimeError: links in a circle
            continue
        # Texts, not Path.relative_to: a listing shows a thousand paths.
        if text == here:
            return "."
        if text.startswith(f"{here}{os.sep}"):
            return text[len(here) + 1 :]
    return str(path)


def closest_match(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate most like ``name``, or None if nothing comes near."""
    if len(name) > _LONGEST_NAME:  # nobody's misspelling, and minutes of work
        return None
    pool = {candidate.lower(): candidate for candidate in candidates}
    matches = difflib.get_close_matches(name.lower(), pool, n=1, cutoff=0.6)
    return pool[matches[0]] if matches else None


def list_words(words: Iterable[object], *, none: str = "none", most: int = 20) -> str:
    """Join names for a message; long lists are cut with a count, an empty one reads ``none``."""
    items = [str(word) for word in words]
    if not items:
        return none
    rest = f", … ({len(items) - most} more)" if len(items) > most else ""
    return ", ".join(items[:most]) + rest
