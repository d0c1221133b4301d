"""The converter behind ``structure``: each primitive gets a hook that refuses to coerce."""

import dataclasses
import math
import types
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import attrs
import cattrs

from pymodules_core.errors import closest_match, list_words

_INTS_BELOW = 2**63
# What is taken as it is, and the fix of what is something else.
_EXACT: dict[type, str] = {
    bool: "write True or False (true or false in TOML), unquoted",
    str: "write a text in quotes",
}


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
        """Return what ``value`` should have been, or None if it is within the bounds."""
        if self.minimum is not None and not value >= self.minimum:
            return f"at least {self.minimum:g}"
        if self.above is not None and not value > self.above:
            return f"more than {self.above:g}"
        if self.below is not None and not value < self.below:
            return f"less than {self.below:g}"
        return None


class MismatchError(ValueError):
    """A value that is not what its key expects; caught where the tree of errors is walked."""

    def __init__(self, expected: str, found: object, fix: str | None = None) -> None:
        super().__init__(expected)
        self.expected = expected
        self.found = found
        self.fix = fix


def is_structured(cls: object) -> bool:
    """Return whether ``structure`` can build ``cls``: an attrs class or a dataclass."""
    return isinstance(cls, type) and (attrs.has(cls) or dataclasses.is_dataclass(cls))


def field_names(cls: type) -> list[str]:
    """Return the names of the fields of an attrs class or dataclass."""
    fields = attrs.fields(cls) if attrs.has(cls) else dataclasses.fields(cls)
    return [field.name for field in fields]


def make_converter() -> cattrs.Converter:
    """Build a converter that coerces nothing and says where what is wrong is."""
    converter = cattrs.Converter(forbid_extra_keys=True)
    for cls, fix in _EXACT.items():
        converter.register_structure_hook(cls, partial(_structure_exact, cls, fix))
    converter.register_structure_hook(int, _structure_int)
    converter.register_structure_hook(float, _structure_float)
    converter.register_structure_hook_func(
        lambda annotation: annotation is Any, partial(_structure_plain, converter)
    )
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


def _structure_int(value: object, _: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise MismatchError("int", value, "write a whole number, unquoted")
    if not -_INTS_BELOW <= value < _INTS_BELOW:
        raise MismatchError("an int of 64 bits", value)
    return value


def _structure_float(value: object, _: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MismatchError("float", value, "write a number, unquoted")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise MismatchError("a finite number", value)
    return number


def _structure_exact(cls: type, fix: str, value: object, _: Any) -> object:
    if not isinstance(value, cls):
        raise MismatchError(cls.__name__, value, fix)
    return value


def _structure_literal(value: object, literal: Any) -> object:
    choices = get_args(literal)
    # By identity of type too: True == 1 must not pass.
    if any(value == choice and type(value) is type(choice) for choice in choices):
        return value
    near = closest_match(value, map(str, choices)) if isinstance(value, str) else None
    raise MismatchError(
        f"one of {list_words(map(repr, choices))}", value, f"write {near!r}" if near else None
    )


def _structure_range(converter: cattrs.Converter, value: object, annotated: Any) -> object:
    base, *metadata = get_args(annotated)
    number = converter.structure(value, base)
    for bound in metadata:
        if isinstance(bound, Range) and (fault := bound.fault(number)):
            raise MismatchError(f"{base.__name__} {fault}", value)
    return number


def _structure_union(converter: cattrs.Converter, value: object, union: Any) -> object:
    """Structure ``X | Literal[...]``, ``X | None``, ``X | Y``; the first refusal is reported."""
    members = [member for member in get_args(union) if member is not types.NoneType]
    if value is None and len(members) < len(get_args(union)):
        return None
    literals = [member for member in members if get_origin(member) is Literal]
    if any(value in get_args(literal) for literal in literals):
        return value
    if literals and isinstance(value, str):
        return _structure_literal(value, literals[0])
    # A table is meant to be the class: its own mistakes are reported.
    is_table = isinstance(value, Mapping)
    others = [member for member in members if get_origin(member) is not Literal]
    others.sort(key=is_structured, reverse=is_table)
    for member in () if is_table else others[1:]:
        with suppress(cattrs.BaseValidationError, MismatchError):
            return converter.structure(value, member)
    return converter.structure(value, others[0])


def _structure_table(converter: cattrs.Converter, value: object, annotation: Any) -> dict[str, Any]:
    """Structure ``dict[str, X]``: a TOML table whose keys are the user's."""
    inner = (get_args(annotation) or (str, Any))[1]
    result: dict[str, Any] = {}
    errors: list[Exception] = []
    for key, item in _check_table(value).items():
        try:
            result[key] = converter.structure(item, inner)
        except (cattrs.BaseValidationError, MismatchError) as error:
            note = cattrs.IterableValidationNote(f"table key {key}", key, inner)
            error.__notes__ = [*getattr(error, "__notes__", []), note]
            errors.append(error)
    if errors:
        raise cattrs.IterableValidationError("invalid table", errors, dict)
    return result


def _structure_names(value: object, _: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise MismatchError("a list of str", value, 'write a list such as ["encoder"]')
    return tuple(value)


def _structure_plain(converter: cattrs.Converter, value: object, _: Any) -> object:
    """Take what JSON can record, of any shape."""
    if isinstance(value, Mapping):
        return _structure_table(converter, value, dict[str, Any])
    if isinstance(value, list | tuple):
        items = {str(index): item for index, item in enumerate(value)}  # which a message names
        return [*_structure_table(converter, items, dict[str, Any]).values()]
    if value is not None and not isinstance(value, str | int | float):  # a date of TOML, for one
        raise MismatchError("a text, number, bool, list or dict", value, "write it in quotes")
    return value


def _check_table(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise MismatchError("dict", value, "write a table of keys and values")
    for key in value:
        if not isinstance(key, str):
            raise MismatchError("keys of type str", key)
    return value


def _make_class_hook(converter: cattrs.Converter, cls: type) -> Callable[[object, Any], Any]:
    structure_fields: Callable[[Any, Any], Any] = converter.gen_structure_attrs_fromdict(cls)
    return lambda value, annotation: structure_fields(_check_table(value), annotation)


def _has_origin(*origins: Any) -> Callable[[Any], bool]:
    return lambda annotation: get_origin(annotation) in origins
