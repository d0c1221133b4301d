"""Which versions of this package, and of what it stands on, are at work."""

import platform

from pymodules_core.installed import find_distribution


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


def _version(distribution: str) -> str:
    found = find_distribution(distribution)
    return "unknown" if found is None else str(found.version)
