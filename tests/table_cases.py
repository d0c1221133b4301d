"""What a table on a terminal shows, read back from its lines alone."""

import re
import unicodedata
from collections.abc import Sequence

WIDTHS = (20, 40, 60, 80, 100, 120, 200)
# Longer numbers may be folded.
LONGEST_WHOLE = 25
NUMBER = re.compile(r"(?<![^ ])[-+]?\d[\d.,:x/]*(?:e[-+]\d+)?(?: (?:[kMGT]?B|s|min|h|d))?(?![^ ,])")


def shown_width(text: str) -> int:
    """Return how many columns of a terminal a text takes, by Unicode's own tables."""
    return sum(map(_character_width, text))


def assert_all_is_shown(
    lines: Sequence[str], columns: Sequence[str], rows: Sequence[Sequence[str]], *, width: int
) -> None:
    """Check that a table shows each column and cell whole, in order, within the width.

    Args:
        lines: What is on the terminal.
        columns: Headings.
        rows: Cells: words with one space between them.
        width: Of the terminal.
    """
    assert [line for line in lines if shown_width(line) > width] == []
    filled = [(name, cell) for row in rows for name, cell in zip(columns, row, strict=True) if cell]
    filled = filled or [(name, "") for name in columns]
    as_table = [_join(column) for column in zip(columns, *rows, strict=True)]
    as_pairs = [_join(column) for column in zip(*filled, strict=True)]
    as_lines = [_join(map("".join, filled))]
    shown = [_join(column) for column in columns_of(lines)]
    assert ([one for one in as_table if one] == shown) or (
        [one for one in as_pairs if one] == shown or as_lines == [_join(lines)]
    ), "\n".join(lines)
    numbers = [number for row in rows for cell in row for number in NUMBER.findall(cell)]
    for number in set(numbers):
        if len(number) <= min(LONGEST_WHOLE, width):
            assert sum(line.count(number) for line in lines) >= numbers.count(number), number


def columns_of(lines: Sequence[str]) -> list[list[str]]:
    """Return the pieces of each column: what at least two blank columns of all lines set apart."""
    grid = [_grid(line) for line in lines]
    length = max(map(len, grid), default=0)
    grid = [[*row, *[" "] * (length - len(row))] for row in grid]
    is_blank = "".join(" " if all(row[i] == " " for row in grid) else "x" for i in range(length))
    spans = [found.span() for found in re.finditer(r"x+(?: x+)*", is_blank)]
    return [["".join(row[slice(*span)]) for row in grid] for span in spans]


def _join(texts) -> str:
    """Return texts without spaces: a fold at one leaves none."""
    return "".join(texts).replace(" ", "")


def _grid(line: str) -> list[str]:
    cells: list[str] = []
    for character in line:
        width = _character_width(character)
        if width:
            cells += [character, *[""] * (width - 1)]
        else:
            cells[-1] += character
    return cells


def _character_width(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
