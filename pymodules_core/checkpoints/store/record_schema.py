"""What a commit record may hold, type by type: it may come from a stranger."""

from collections.abc import Callable
from typing import Any, TypedDict

import cattrs

_INT_LIMIT = 1 << 63


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


def check_schema(converter: cattrs.Converter) -> None:
    """Let a converter refuse what is of another type, which it would convert by default."""
    for kind in (str, int, bool):
        converter.register_structure_hook(kind, _only(kind))
    converter.register_structure_hook(float, _number)


def _only(kind: type) -> Callable[[Any, Any], Any]:
    def check(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"expected {kind.__name__}, found {type(value).__name__}")
        if isinstance(value, int) and abs(value) >= _INT_LIMIT:
            raise ValueError("the number is too large")
        return value

    return check


def _number(value: Any, _: Any) -> float:
    if type(value) not in {int, float}:
        raise TypeError(f"expected a number, found {type(value).__name__}")
    return float(value)
