"""Which files a distribution's code is, and what is in them: what a run locks of its plugins.

A version says too little: an editable install changes under one version, and so does a wheel that
was built again or edited in place.
"""

import hashlib
import importlib.util
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import BadZipFile, ZipFile

import attrs

from pymodules_core.discovery.plugins.entry_points import editable_project
from pymodules_core.discovery.plugins.packaged_task import TASKS_GROUP
from pymodules_core.hookspecs import PROJECT_NAME
from pymodules_core.installed import find_distribution
from pymodules_core.specs import DistributionOrigin, Origin

_GROUPS = (PROJECT_NAME, TASKS_GROUP)
_CACHE = "__pycache__"
_COMPILED = (".pyc", ".pyo")
# What an installer writes beside the files of the distribution, with paths of this machine in it.
_METADATA = (".dist-info", ".egg-info")
_SCRIPT_FOLDERS = {"bin", "Scripts"}


@attrs.frozen(kw_only=True)
class LockedDistribution:
    """The files of one distribution as they are on disk.

    Attributes:
        distribution: Its name.
        version: Its version.
        editable: It is installed in editable mode.
        files: Path, as seen from the folder on ``sys.path``, to sha256; None for a file that is
            listed and cannot be read.
    """

    distribution: str
    version: str
    editable: bool
    files: Mapping[str, str | None]

    def to_json(self) -> dict[str, Any]:
        """Return it as ``run.json`` has it."""
        return attrs.asdict(self)


def digest_of_files(files: Mapping[str, Any]) -> str:
    """Return one sha256 over the names and contents of files.

    Args:
        files: Path to sha256.
    """
    lines = (f"{path}\0{files[path]}\n" for path in sorted(files))
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def lock_distributions(origins: Iterable[Origin]) -> list[LockedDistribution]:
    """Hash the files of the distributions that modules and a task come from.

    Of a wheel, in a zip too, that is what its RECORD lists, without byte code, metadata and
    scripts, which pip writes again on each machine. Of an editable install, and of one without a
    list, it is whatever lies in the import packages that its plugins name, without byte code and
    what begins with a dot.

    Every byte is read from disk, whatever RECORD claims. 200 MB in 2,000 files took 0.4 s, once a
    run, on two busy cores; a distribution that brings gigabytes of weights takes two seconds for
    each. To leave large files out would leave out what decides most about such a module.

    Args:
        origins: Where they come from; several may be of one distribution.

    Returns:
        One entry a distribution, sorted by name; none for other origins, and for a distribution
        that is not installed.
    """
    names = {one.distribution for one in origins if isinstance(one, DistributionOrigin)}
    return [locked for name in sorted(names) if (locked := _lock(name)) is not None]


def _lock(name: str) -> LockedDistribution | None:
    distribution = find_distribution(name)
    if distribution is None:
        return None
    is_editable = editable_project(distribution) is not None
    paths = None if is_editable else _listed(distribution)
    if paths is None:
        points = distribution.entry_points
        targets = {point.value for point in points if point.group in _GROUPS}
        paths = dict(_in_packages(distribution, targets))
    return LockedDistribution(
        distribution=name,
        version=distribution.version,
        editable=is_editable,
        files={path: _sha256(paths[path]) for path in sorted(paths)},
    )


def _listed(distribution: Any) -> dict[str, Any] | None:
    """Return what RECORD lists; None where there is none, or where it lists nothing."""
    found = {
        str(path): distribution.locate_file(path)
        for path in distribution.files or ()
        if not _is_noise(path)
    }
    return found or None


def _is_noise(path: PurePosixPath) -> bool:
    is_script = path.parts[0] == ".." and path.parent.name in _SCRIPT_FOLDERS
    return is_script or _is_compiled(path) or path.parts[0].endswith(_METADATA)


def _is_compiled(path: PurePosixPath) -> bool:
    return path.suffix in _COMPILED or _CACHE in path.parts


def _in_packages(distribution: Any, targets: Iterable[str]) -> Iterator[tuple[str, Any]]:
    home = distribution.locate_file("")
    for root, folder in sorted({found for target in targets if (found := _find_package(target))}):
        is_zipped = not isinstance(home, Path) and root.is_relative_to(str(home))
        for file, content in _zipped_files(root, home) if is_zipped else _files(root):
            path = PurePosixPath(file.relative_to(folder).as_posix())
            is_hidden = any(part.startswith(".") for part in path.parts)
            if not (is_hidden or _is_compiled(path)):
                yield str(path), content


def _files(root: Path) -> Iterator[tuple[Path, Any]]:
    for file in root.rglob("*") if root.is_dir() else [root]:
        if file.is_file():
            yield file, file


def _zipped_files(root: Path, home: Any) -> Iterator[tuple[Path, Any]]:
    """Yield the files at a place in a zip, as the import system writes them, and to be opened."""
    archive = Path(str(home))
    with ZipFile(archive) as content:
        names = [name for name in content.namelist() if not name.endswith("/")]
    for name in names:
        if (archive / name).is_relative_to(root):
            yield archive / name, home.joinpath(name)


def _find_package(target: str) -> tuple[Path, Path] | None:
    """Return the folder or file of the package that an entry point names, and its path entry.

    Of a namespace package, which several distributions share, the part below it.
    """
    parts = target.partition(":")[0].strip().split(".")
    for depth in range(len(parts)):
        try:
            spec = importlib.util.find_spec(".".join(parts[: depth + 1]))
        # It was imported before; what no longer works is the package's own.
        except Exception:  # noqa: BLE001
            return None
        if spec is None:
            return None
        if spec.origin is not None and spec.has_location:
            file = Path(spec.origin)
            root = file if spec.submodule_search_locations is None else file.parent
            return root, root.parents[depth]
    return None


def _sha256(file: Any) -> str | None:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except (OSError, BadZipFile, zlib.error):
        return None
