"""Which version of this package runs."""

import importlib_metadata


def own_version() -> str:
    """Give this package's version; ``unknown`` where it runs from a folder, not installed."""
    try:
        return importlib_metadata.version("pymodules-core")
    except importlib_metadata.PackageNotFoundError:
        return "unknown"
