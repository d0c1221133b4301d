"""Installed distributions, as the import system sees them: a package and its ``dist-info``."""

from pathlib import Path
from textwrap import dedent


def write_distribution(
    folder: Path,
    name: str,
    source: str,
    *,
    version: str = "1.0",
    entry_point: str = "plugin",
    target: str | None = None,
    group: str = "pymodules",
) -> Path:
    """Write a distribution of one file, with an entry point, into a folder of ``sys.path``.

    Args:
        folder: Where to; made if it is not there.
        name: The distribution; its package is called the same, with ``_`` for ``-``.
        source: Source of the package.
        version: Its version.
        entry_point: Name of the entry point.
        target: What the entry point names; the package by default.
        group: Group of the entry point.

    Returns:
        The ``dist-info`` folder.
    """
    package = name.replace("-", "_")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{package}.py").write_text(dedent(source))
    info = folder / f"{package}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry_point} = {target or package}\n")
    return info
