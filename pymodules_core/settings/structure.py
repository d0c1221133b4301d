"""Turns plain dicts into attrs classes, strictly, with one precise error.

cattrs does the structuring. By default it coerces (``bool("no")`` is True), so every primitive gets
a hook that refuses to; and its errors are walked into the dotted path of the key, what was found,
the closest match and the fix.
"""

import dataclasses
import math
import types
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn

from pymodules_core.errors import SettingsError, closest_match, list_words

T = TypeVar("T")
KeyPath = tuple[str, ...]

_LONGEST_SHOWN = 60


@attrs.frozen
class Range:
    """Bounds of a number, as in ``Annotated[int, Range(minimum=1)]``.

    Attributes:
        minimum: The least value.
        above: What it has to be more than.
        below: What it has to be less than.
    """

    minimum: float | None = None
    above: float | None = None
    below: float | None = None

    def fault(self, value: float) -> str | None:
        """Say what ``value`` should have been, or None if it is within the bounds."""
        if self.minimum is not None and not value >= self.minimum:
            return f"at least {self.minimum:g}"
        if self.above is not None and not value > self.above:
            return f"more than {self.above:g}"
        if self.below is not None and not value < self.below:
            return f"less than {self.below:g}"
        return None


@attrs.frozen
class Problem:
    """One thing wrong at one key."""

    path: KeyPath
    message: str
    found: object = None
    closest: str | None = None
    fix: str | None = None


class _MismatchError(ValueError):
    """A value that is not what its key expects; caught by the walk below."""

    def __init__(self, expected: str, found: object, fix: str | None = None) -> None:
        super().__init__(expected)
        self.expected = expected
        self.found = found
        self.fix = fix


def structure(
    data: object,
    cls: type[T],
    *,
    root: str,
    file: Path | None = None,
    line_of: Callable[[KeyPath], int | None] = lambda _: None,
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
        return (_CONVERTER if is_own else _make_converter()).structure(data, cls)
    except (cattrs.BaseValidationError, _MismatchError) as error:
        problems = _walk(error, ())
    first = problems[0]
    rest = "".join(f"\n  also: {_dotted(root, p.path)}: {p.message}" for p in problems[1:])
    raise SettingsError(
        f"{_dotted(root, first.path)}: {first.message}{rest}",
        file=file,
        line=line_of(first.path),
        key=_dotted(root, first.path),
        found=first.found,
        closest=first.closest,
        fix=first.fix,
    )


def show(value: object) -> str:
    """Give type and value for a message, cut to one short line."""
    text = repr(value)
    if len(text) > _LONGEST_SHOWN:
        text = text[:_LONGEST_SHOWN] + "…"
    return f"{type(value).__name__} {text}"


def is_structured(cls: object) -> bool:
    """Tell whether ``structure`` can build ``cls``: an attrs class or a dataclass."""
    return isinstance(cls, type) and (attrs.has(cls) or dataclasses.is_dataclass(cls))


def unstructure(settings: object) -> Any:
    """Give plain dicts and primitives again, ready for JSON."""
    return _CONVERTER.unstructure(settings)


def _dotted(root: str, path: KeyPath) -> str:
    return ".".join(filter(None, (root, *path)))


def _walk(error: BaseException, path: KeyPath) -> list[Problem]:
    """Flatten the tree of errors that cattrs gives into problems with their paths."""
    if isinstance(error, _MismatchError):
        return [
            Problem(
                path,
                f"expected {error.expected}, found {show(error.found)}",
                error.found,
                fix=error.fix,
            )
        ]
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        return [_unknown_key(path, key, error.cl) for key in sorted(error.extra_fields)]
    if isinstance(error, cattrs.ClassValidationError):
        found: list[Problem] = []
        for inner, note in error.group_exceptions()[0]:
            if isinstance(inner, KeyError) and not isinstance(inner, SettingsError):
                found.append(Problem((*path, note.name), "is missing", fix=f"add {note.name!r}"))
            else:
                found += _walk(inner, (*path, note.name))
        for inner in error.group_exceptions()[1]:
            found += _walk(inner, path)
        return found
    if isinstance(error, cattrs.IterableValidationError):
        items, whole = error.group_exceptions()
        found = [p for inner, note in items for p in _walk(inner, (*path, str(note.index)))]
        # A tuple of the wrong length is no fault of one item.
        return found + [problem for inner in whole for problem in _walk(inner, path)]
    if isinstance(error, SettingsError):  # of a validator, which names its own key
        keys = error.key.split(".") if error.key else ()
        return [Problem((*path, *keys), error.what, error.found, error.closest, error.fix)]
    # Of a validator or ``__attrs_post_init__``: only these two types are made to be read.
    is_told = isinstance(error, ValueError | TypeError)
    return [Problem(path, str(error) if is_told else f"{type(error).__name__}: {error}")]


def _unknown_key(path: KeyPath, key: str, cls: type) -> Problem:
    known = [
        field.name for field in (attrs.fields(cls) if attrs.has(cls) else dataclasses.fields(cls))
    ]
    near = closest_match(key, known)
    return Problem(
        (*path, key),
        "unknown key",
        found=key,
        closest=near,
        fix=f"write {near!r} or remove {key!r}" if near else f"known keys: {list_words(known)}",
    )


def _structure_bool(value: object, _: Any) -> bool:
    if not isinstance(value, bool):
        raise _MismatchError("bool", value, "write True or False (true or false in TOML), unquoted")
    return value


def _structure_int(value: object, _: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _MismatchError("int", value, "write a whole number, unquoted")
    return value


def _structure_float(value: object, _: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _MismatchError("float", value, "write a number, unquoted")
    if not math.isfinite(value):
        raise _MismatchError("a finite number", value)
    return float(value)


def _structure_str(value: object, _: Any) -> str:
    if not isinstance(value, str):
        raise _MismatchError("str", value, "write a text in quotes")
    return value


def _structure_literal(value: object, literal: Any) -> object:
    choices = get_args(literal)
    # By identity of type too: True == 1 must not pass.
    if any(value == choice and type(value) is type(choice) for choice in choices):
        return value
    near = closest_match(value, map(str, choices)) if isinstance(value, str) else None
    raise _MismatchError(
        f"one of {list_words(map(repr, choices))}", value, f"write {near!r}" if near else None
    )


def _structure_range(converter: cattrs.Converter, value: object, annotated: Any) -> object:
    base, *metadata = get_args(annotated)
    number = converter.structure(value, base)
    for bound in metadata:
        if isinstance(bound, Range) and (fault := bound.fault(number)):
            raise _MismatchError(f"{base.__name__} {fault}", value)
    return number


def _structure_union(converter: cattrs.Converter, value: object, union: Any) -> object:
    """Structure ``X | Literal[...]``, ``X | None``, ``X | Y``; the first refusal is reported."""
    members = [member for member in get_args(union) if member is not types.NoneType]
    if value is None and len(members) < len(get_args(union)):
        return None
    literals = [member for member in members if get_origin(member) is Literal]
    others = [member for member in members if get_origin(member) is not Literal]
    for literal in literals:
        if value in get_args(literal):
            return value
    if literals and isinstance(value, str):
        return _structure_literal(value, literals[0])
    if isinstance(value, Mapping):
        # A table is meant to be the class: its own mistakes are to be told.
        others.sort(key=is_structured, reverse=True)
        return converter.structure(value, others[0])
    for member in others[1:]:
        try:
            return converter.structure(value, member)
        except (cattrs.BaseValidationError, _MismatchError):
            continue
    return converter.structure(value, others[0])


def _structure_table(converter: cattrs.Converter, value: object, annotation: Any) -> dict[str, Any]:
    """Structure ``dict[str, X]``: a TOML table whose keys are the user's."""
    inner = (get_args(annotation) or (str, Any))[1]
    result: dict[str, Any] = {}
    errors: list[Exception] = []
    for key, item in _check_table(value).items():
        try:
            result[key] = converter.structure(item, inner)
        except (cattrs.BaseValidationError, _MismatchError) as error:
            note = cattrs.IterableValidationNote(f"table key {key}", key, inner)
            error.__notes__ = [*getattr(error, "__notes__", []), note]
            errors.append(error)
    if errors:
        raise cattrs.IterableValidationError("invalid table", errors, dict)
    return result


def _structure_names(value: object, _: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise _MismatchError("a list of str", value, 'write a list such as ["encoder"]')
    return tuple(value)


def _check_table(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _MismatchError("dict", value, "write a table of keys and values")
    for key in value:
        if not isinstance(key, str):
            raise _MismatchError("keys of type str", key)
    return value


def _make_class_hook(converter: cattrs.Converter, cls: type) -> Callable[[object, Any], Any]:
    structure_fields: Callable[[Any, Any], Any] = make_dict_structure_fn(
        cls,
        converter,
        _cattrs_forbid_extra_keys=True,
        _cattrs_detailed_validation=True,
    )

    def structure_class(value: object, annotation: Any) -> Any:
        return structure_fields(_check_table(value), annotation)

    return structure_class


def _has_origin(*origins: Any) -> Callable[[Any], bool]:
    return lambda annotation: get_origin(annotation) in origins


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    converter.register_structure_hook(bool, _structure_bool)
    converter.register_structure_hook(int, _structure_int)
    converter.register_structure_hook(float, _structure_float)
    converter.register_structure_hook(str, _structure_str)
    converter.register_structure_hook_func(_has_origin(Literal), _structure_literal)
    converter.register_structure_hook_func(_has_origin(dict), partial(_structure_table, converter))
    converter.register_structure_hook_func(lambda t: t == tuple[str, ...], _structure_names)
    converter.register_structure_hook_func(
        _has_origin(Annotated), partial(_structure_range, converter)
    )
    converter.register_structure_hook_func(
        _has_origin(Union, types.UnionType), partial(_structure_union, converter)
    )
    converter.register_structure_hook_factory(is_structured, partial(_make_class_hook, converter))
    return converter


_CONVERTER = _make_converter()
