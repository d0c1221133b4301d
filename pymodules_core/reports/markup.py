"""HTML from values: whatever is not marked as HTML already is escaped."""

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

_VOID = frozenset({"meta", "link", "br"})

# Characters that end a script element or a line of one, as JSON writes them inside a text.
_UNSAFE_IN_SCRIPTS = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


class Html(str):
    """A text that is HTML."""

    __slots__ = ()


Child: TypeAlias = "str | Html | None"
Attribute: TypeAlias = str | int | bool | None


def tag(name: str, /, *children: Child, **attributes: Attribute) -> Html:
    """Make an element.

    Args:
        name: Of the element.
        children: HTML, texts to escape, and None for nothing.
        attributes: ``class_`` for ``class``, ``data_run`` for ``data-run``; True has no value, and
            False and None leave the attribute out.
    """
    opening = "".join(
        f" {key.rstrip('_').replace('_', '-')}{_value(value)}"
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{opening}>")
    return Html(f"<{name}{opening}>{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """Put children one after the other."""
    return Html(
        "".join(
            child if isinstance(child, Html) else html.escape(child)
            for child in children
            if child is not None
        )
    )


def data_table(
    columns: Sequence[Child],
    rows: Iterable[Sequence[Child]],
    *,
    caption: str,
    numeric: Iterable[int] = (),
) -> Html:
    """Make a table that scrolls by itself where it is too wide.

    Args:
        columns: Headings.
        rows: Cells; the first of a row is its heading, and alone it is the heading of a group.
        caption: What it is, for those who do not see what stands around it.
        numeric: Numbers of the columns that are aligned to the right.
    """
    right = frozenset(numeric)
    classes = ["num" if number in right else None for number in range(len(columns))]
    head = (
        tag("th", column, scope="col", class_=name)
        for column, name in zip(columns, classes, strict=True)
    )
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption, class_="unseen"),
            tag("thead", tag("tr", *head)),
            tag("tbody", *(_table_row(row, classes) for row in rows)),
        ),
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label=caption,
    )


def script_json(value: Any) -> Html:
    """Return JSON that may stand in a script element: nothing in it can end the element."""
    return Html(json.dumps(value, separators=(",", ":")).translate(_UNSAFE_IN_SCRIPTS))


def _table_row(row: Sequence[Child], classes: Sequence[str | None]) -> Html:
    if len(row) == 1 < len(classes):
        heading = tag("th", row[0], scope="colgroup", colspan=len(classes))
        return tag("tr", heading, class_="group-head")
    return tag(
        "tr",
        tag("th", row[0], scope="row", class_=classes[0]),
        *(tag("td", cell, class_=name) for cell, name in zip(row[1:], classes[1:], strict=True)),
    )


def _value(value: Attribute) -> str:
    return "" if value is True else f'="{html.escape(str(value))}"'
