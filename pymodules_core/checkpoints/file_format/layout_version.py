"""The version of a module's layout, as files carry it.

It is in ``_metadata``, torch's own place for versions, of the root: ``load_state_dict`` passes it
over. Files of version 1 say nothing, so that they are what they were before there were versions.
"""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from pymodules_core.errors import CheckpointFileError

_VERSION, _PROVIDER = "pymodules_state_version", "pymodules_provider"
_FIRST = 1


@attrs.frozen
class LayoutVersion:
    """Which layout some weights have.

    Attributes:
        version: Its number.
        provider: Whose numbers they are; None for version 1.
    """

    version: int = _FIRST
    provider: str | None = None

    @classmethod
    def read(cls, metadata: Mapping[str, Any], *, file: Path) -> "LayoutVersion":
        """Read the mark of a state dict.

        Args:
            metadata: Its ``_metadata``.
            file: Where it is from.

        Raises:
            CheckpointFileError: The mark is none.
        """
        root = metadata.get("", {})
        version, provider = root.get(_VERSION, _FIRST), root.get(_PROVIDER)
        # By exact type: True is an int.
        if type(version) is not int or version < _FIRST:
            raise CheckpointFileError(
                f"{_VERSION} is {version!r}, expected a whole number from 1 on",
                file=file,
                key=_VERSION,
                found=version,
                fix="save it with CheckpointManager, or take it out of the state dict's _metadata",
            )
        return cls(version, provider if isinstance(provider, str) else None)


def put_mark(state: "OrderedDict[str, Any]", mark: LayoutVersion) -> "OrderedDict[str, Any]":
    """Mark what is saved of a module, and give it.

    Args:
        state: The module's state dict; its ``_metadata`` is replaced, not changed.
        mark: The layout's.
    """
    if mark.version != _FIRST:
        metadata = OrderedDict(getattr(state, "_metadata", {}))
        metadata[""] = {**metadata.get("", {}), _VERSION: mark.version, _PROVIDER: mark.provider}
        state._metadata = metadata  # type: ignore[attr-defined]  # torch's own attribute
    return state


def marks_in(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the marks of a state dict as a file holds them, by the paths they stand for."""
    metadata: Mapping[str, Mapping[str, Any]] = getattr(state, "_metadata", {})
    return {
        path: {key: facts[key] for key in (_VERSION, _PROVIDER) if key in facts}
        for path, facts in metadata.items()
        if _VERSION in facts
    }


def with_marks(state: Mapping[str, Any], marks: Mapping[str, Any]) -> "OrderedDict[str, Any]":
    """Return a state that has no ``_metadata`` what ``marks_in`` gave, as its own, unchecked."""
    marked = OrderedDict(state)
    if marks:
        marked._metadata = marks  # type: ignore[attr-defined]  # torch's own attribute
    return marked
