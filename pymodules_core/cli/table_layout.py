"""The lines of a table within a width: nothing is cut, and no number is torn from its unit."""

import re
from collections.abc import Iterator, Sequence

_GAP = "  "
# What is longer may be folded anywhere; the longest 64-bit count with separators is not.
_LONGEST_WHOLE = 25
# Where a cell may be folded: within names after a separator, and at spaces but those before a unit.
_BREAK = re.compile(
    r"(?<==)|(?<=[\w/-][/._:@,-])(?=[^\W\d_])"
    r"|(?<=[^ ])(?= )(?!(?<=\d) (?:[^\W\d]{1,3}|\*)(?!\w))"
)


def lay_out(columns: Sequence[str], rows: Sequence[Sequence[str]], *, width: int) -> Iterator[str]:
    """Lay out a table: aligned columns, or where these do not fit a line for each cell.

    Cells are folded, never cut. Words and numbers with their units stay whole up to 25 characters,
    as long as ``width`` has room for them.

    Args:
        columns: Headings.
        rows: Printable cells, as many as headings.
        width: Characters that a line may have.

    Returns:
        The lines, without trailing spaces. Where each cell has a line of its own, its heading
        comes before it, a blank line stands between rows, and empty cells are left out.
    """
    table = [columns, *rows]
    if widths := _fit(table, width):
        return _align(table, widths)
    pairs = _pairs(columns, rows)
    if widths := _fit(pairs, width):
        return _align(pairs, widths)
    return (line.rstrip() for pair in pairs for line in _fold(_GAP.join(pair), width))


def _fit(rows: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """Return the widths of columns, the widest folded first; None where too narrow for them."""
    cells = list(zip(*rows, strict=True))
    # No wider than a line: a stranger's key may have megabytes, to be narrowed one by one below.
    widths = [min(max(map(_width, column)), width) for column in cells]
    room = width - len(_GAP) * (len(widths) - 1)
    if sum(widths) <= room:
        return widths
    parts = [
        [part.strip(" ") for cell in column for part in _BREAK.split(cell)] for column in cells
    ]
    least = [min(max(map(_width, column)), _LONGEST_WHOLE) for column in parts]
    if sum(least) > room:
        return None
    while sum(widths) > room:
        # The first column is what a row is called by, to be typed: whole as long as possible.
        _, _, column = max(
            (number > 0, one, number) for number, one in enumerate(widths) if one > least[number]
        )
        widths[column] -= 1
    return widths


def _pairs(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """Return heading and cell of each cell that is not empty, a blank pair between rows."""
    pairs: list[tuple[str, str]] = []
    for row in rows:
        filled = [(name, cell) for name, cell in zip(columns, row, strict=True) if cell]
        pairs += [("", ""), *filled] if pairs and filled else filled
    return pairs or [(name, "") for name in columns]


def _align(rows: Sequence[Sequence[str]], widths: Sequence[int]) -> Iterator[str]:
    """Yield the lines of rows: as many for each as its cell of most lines has."""
    for row in rows:
        folded = [_fold(cell, width) for cell, width in zip(row, widths, strict=True)]
        for number in range(max(map(len, folded))):
            line = (lines[number] if number < len(lines) else "" for lines in folded)
            yield _GAP.join(_pad(*pair) for pair in zip(line, widths, strict=True)).rstrip()


def _fold(cell: str, width: int) -> list[str]:
    """Return the lines of a cell; what is longer than a line is folded within."""
    if _width(cell) <= width:
        return [cell]
    lines = [""]
    for part in _BREAK.split(cell):
        if _width(lines[-1] + part) <= width:
            lines[-1] += part
        else:
            lines += _chop(part.lstrip(" "), width)
    return lines[0 if lines[0] else 1 :]


def _width(text: str) -> int:
    if text.isascii():  # most are, and rich takes longer to import than to lay out a table
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _chop(text: str, width: int) -> list[str]:
    from rich.cells import chop_cells

    return chop_cells(text, width)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _width(text))
