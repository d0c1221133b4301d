"""Turns plain dicts into attrs classes, strictly, with one precise error.

cattrs does the structuring. By default it coerces (``bool("no")`` is True), so every primitive gets
a hook that refuses to; and its errors are walked into the dotted path of the key, what was found,
the closest match and the fix.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import cattrs

from pymodules_core.errors import SettingsError, closest_match, list_words
from pymodules_core.moved import moved_names
from pymodules_core.settings.strict import MismatchError, field_names, make_converter

T = TypeVar("T")
KeyPath = tuple[str, ...]
LineOf = Callable[[KeyPath], int | None]

_LONGEST_SHOWN = 60
_MOST_PROBLEMS = 20
_CONVERTER = make_converter()


def no_line(_: KeyPath) -> None:
    """Find no line: for what no file says."""


@attrs.frozen
class Problem:
    """One thing wrong at one key."""

    path: KeyPath
    message: str
    found: object = None
    closest: str | None = None
    fix: str | None = None


def structure(
    data: object, cls: type[T], *, root: str, file: Path | None = None, line_of: LineOf = no_line
) -> T:
    """Build ``cls`` from plain ``data``.

    Args:
        data: What was written: dicts, lists and primitives.
        cls: An attrs class.
        root: What the whole is called in a message, such as ``settings``; empty for a file.
        file: Where it was written.
        line_of: Finds the 1-based line of a key in ``file``.

    Raises:
        SettingsError: Names the first problem in full and the others in short.
    """
    try:
        # A converter keeps every class it has met, and one of a task has to go with its run.
        is_own = cls.__module__.startswith(f"{__package__}.")
        return (_CONVERTER if is_own else make_converter()).structure(data, cls)
    except (cattrs.BaseValidationError, MismatchError) as error:
        problems = _walk(error, ())
    first, more = problems[0], problems[1:_MOST_PROBLEMS]
    rest = "".join(f"\n  also: {_dotted(root, p.path)}: {p.message}" for p in more)
    if len(problems) > _MOST_PROBLEMS:
        rest += f"\n  … {len(problems) - _MOST_PROBLEMS} more"
    raise SettingsError(
        f"{_dotted(root, first.path)}: {first.message}{rest}",
        file=file,
        line=line_of(first.path),
        key=_dotted(root, first.path),
        found=first.found,
        closest=first.closest,
        fix=first.fix,
    )


def format_value(value: object) -> str:
    """Return type and value for a message, cut to one short line."""
    try:
        text = repr(value)
    # Nested too deep, a number of more digits than Python writes, or the value's own code.
    except Exception:  # noqa: BLE001  it is only shown
        return type(value).__name__
    if len(text) > _LONGEST_SHOWN:
        text = text[:_LONGEST_SHOWN] + "…"
    return f"{type(value).__name__} {text}"


def unstructure(settings: object) -> Any:
    """Return plain dicts and primitives, ready for JSON."""
    return _CONVERTER.unstructure(settings)


def _dotted(root: str, path: KeyPath) -> str:
    return ".".join((*filter(None, (root,)), *(part or '""' for part in path)))


def _walk(error: BaseException, path: KeyPath) -> list[Problem]:
    """Flatten the tree of errors that cattrs gives into problems with their paths."""
    if isinstance(error, MismatchError):
        return [
            Problem(
                path,
                f"expected {error.expected}, found {format_value(error.found)}",
                error.found,
                fix=error.fix,
            )
        ]
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        return [_unknown_key(path, key, error.cl) for key in sorted(error.extra_fields)]
    if isinstance(error, cattrs.ClassValidationError | cattrs.IterableValidationError):
        parts, whole = error.group_exceptions()
        found = [
            problem
            for inner, note in parts
            for problem in _walk_part(inner, (*path, _name_of(note)))
        ]
        # A tuple of the wrong length is not a fault of one item.
        return found + [problem for inner in whole for problem in _walk(inner, path)]
    if isinstance(error, SettingsError):  # of a validator, which names its own key
        keys = error.key.split(".") if error.key else ()
        return [Problem((*path, *keys), error.what, error.found, error.closest, error.fix)]
    # Of a validator or ``__attrs_post_init__``: only these two types are made to be read.
    is_readable = isinstance(error, ValueError | TypeError)
    return [Problem(path, str(error) if is_readable else f"{type(error).__name__}: {error}")]


def _name_of(note: cattrs.AttributeValidationNote | cattrs.IterableValidationNote) -> str:
    return note.name if isinstance(note, cattrs.AttributeValidationNote) else str(note.index)


def _walk_part(error: BaseException, path: KeyPath) -> list[Problem]:
    """Flatten the errors of one field or item."""
    if isinstance(error, KeyError) and not isinstance(error, SettingsError):
        return [Problem(path, "is missing", fix=f"add {path[-1]!r}")]
    return _walk(error, path)


def _unknown_key(path: KeyPath, key: str, cls: type) -> Problem:
    known = field_names(cls)
    near = closest_match(key, known)
    return Problem(
        (*path, key),
        "unknown key",
        found=key,
        closest=near,
        fix=f"write {near!r} or remove {key!r}" if near else f"known keys: {list_words(known)}",
    )


if not TYPE_CHECKING:  # it would make every name there could be one of type Any
    __getattr__ = moved_names(__name__)
