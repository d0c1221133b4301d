"""Finds installed distributions and their versions, whatever else stands on ``sys.path``."""

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import importlib_metadata


def distributions(name: str | None = None) -> Iterator[Any]:
    """Yield installed distributions in the order of ``sys.path``, each folder and zip once.

    Args:
        name: Of the distributions; all by default.
    """
    folders: dict[str, str] = {}
    for entry in sys.path:
        # Python passes over all other types, and importlib_metadata ends with a TypeError.
        if isinstance(entry, str):
            folders.setdefault(os.path.realpath(entry), entry)
    wanted = {} if name is None else {"name": name}
    yield from importlib_metadata.distributions(path=[*folders.values()], **wanted)


def find_distribution(name: str) -> Any | None:
    """Return the first installed distribution of a name that says what it is; None if none does.

    What a broken uninstall leaves behind is a folder without metadata.
    """
    return next(filter(_has_identity, distributions(name)), None)


def own_version() -> str:
    """Return this package's version; ``unknown`` where it runs from a folder, not installed."""
    return _version("pymodules-core")


def versions() -> dict[str, str]:
    """Return the versions that a run depends on."""
    return {
        "python": platform.python_version(),
        "torch": _version("torch"),
        "pymodules-core": own_version(),
    }


def unreadable_entries() -> Iterator[tuple[object, Exception]]:
    """Yield what stands on ``sys.path`` and Python imports nothing from, with the reason.

    Python itself is silent about them. One that does not exist is none: there are such in every
    installation.
    """
    for entry in sys.path:
        try:
            if not isinstance(entry, str):
                raise TypeError(f"Python imports from a str, and this is {type(entry).__name__}")
            path = Path(entry)
            if path.is_dir():
                os.scandir(path).close()
            elif path.is_file():
                ZipFile(path).close()
        except Exception as error:  # noqa: BLE001  a crafted archive raises anything
            yield entry, error


def _has_identity(distribution: Any) -> bool:
    try:
        metadata = distribution.metadata
        return bool(metadata["Name"] and metadata["Version"])
    except Exception:  # noqa: BLE001  damaged metadata raises anything
        return False


def _version(distribution: str) -> str:
    found = find_distribution(distribution)
    return "unknown" if found is None else str(found.version)
