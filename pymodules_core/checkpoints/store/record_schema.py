"""What a commit record may hold, type by type, and how: it may come from a stranger."""

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypedDict

import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

_INT_LIMIT = 1 << 63

# Such a record reads as it always did.
OMITTED_IF_EMPTY = override(omit_if_default=True)
# JSON has no infinity and no NaN.
NUMBER_OR_TEXT = override(
    struct_hook=lambda found, _: float(found),
    unstruct_hook=lambda value: value if math.isfinite(value) else str(value),
)


class _Plugin(TypedDict):
    name: str


class _Settings(TypedDict):
    optimizers: dict[str, Any]


class Provenance(TypedDict, total=False):
    """What of a provenance is read back; it may hold anything else besides."""

    modules: dict[str, Any]
    overrides: dict[str, Any]
    plugins: list[_Plugin]
    distributions: dict[str, str]
    settings: _Settings
    sources: dict[str, str] | None
    versions: dict[str, str]
    git_commit: str | None


def make_converter(overrides: Mapping[type, Mapping[str, Any]]) -> cattrs.Converter:
    """Return a converter that refuses what is of another type, which it would convert by default.

    Args:
        overrides: Class to what is special about its fields.
    """
    converter = cattrs.Converter()
    for kind in (str, int, bool):
        converter.register_structure_hook(kind, _only(kind))
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(datetime, lambda text, _: datetime.fromisoformat(text))
    converter.register_unstructure_hook(datetime, datetime.isoformat)
    for cls, fields in overrides.items():
        unstructure: Any = make_dict_unstructure_fn(cls, converter, **fields)
        converter.register_unstructure_hook(cls, unstructure)
        converter.register_structure_hook(cls, make_dict_structure_fn(cls, converter, **fields))
    return converter


def _only(kind: type) -> Callable[[Any, Any], Any]:
    def check(value: Any, _: Any) -> Any:
        if type(value) is not kind or (isinstance(value, int) and abs(value) >= _INT_LIMIT):
            raise TypeError(f"expected {kind.__name__}, found {type(value).__name__}")
        return value

    return check


def _number(value: Any, _: Any) -> float:
    if type(value) not in {int, float}:
        raise TypeError(f"expected a number, found {type(value).__name__}")
    return float(value)
