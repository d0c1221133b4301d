"""Installed distributions to replace and remove: real ``dist-info`` folders on ``sys.path``."""

import importlib
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

import importlib_metadata

PROVIDER = """
from pymodules_core import ModuleSpec, hookimpl

@hookimpl
def provide_module(context):
    return ModuleSpec(name="acme", factory="torch.nn:Identity", settings={"frozen": True})
"""


class Site:
    """A folder of installed distributions, and what Python keeps of it in memory.

    Args:
        folder: Where to; not there yet.
        monkeypatch: Puts it on ``sys.path`` until the test is over.
    """

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.folder = folder
        self.projects = folder.with_name("projects")
        self._packages: dict[str, Path] = {}
        for path in (self.folder, self.projects):
            path.mkdir()
            monkeypatch.syspath_prepend(str(path))
        # Two versions of one file within a second would else be one.
        monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def install(
        self,
        name: str,
        source: str = PROVIDER,
        *,
        version: str = "1.0",
        entry_point: str = "plugin",
        files: Mapping[str, str] | None = None,
        is_editable: bool = False,
        has_record: bool = True,
    ) -> Path:
        """Install a distribution in the place of any of its name.

        Args:
            name: The distribution; its package is called so, with ``_`` for ``-``.
            source: Of the package's ``__init__.py``, which is the plugin.
            version: Its version.
            entry_point: The name of its entry point.
            files: Further files of the package.
            is_editable: The package stays in its project, as ``pip install -e`` leaves it.
            has_record: Whether RECORD lists the files.

        Returns:
            The package's folder.
        """
        self.uninstall(name)
        package = name.replace("-", "_")
        folder = (self.projects if is_editable else self.folder) / package
        for path, text in {"__init__.py": source, **(files or {})}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(dedent(text))
        info = self.folder / f"{package}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[pymodules]\n{entry_point} = {package}\n")
        if is_editable:
            (info / "direct_url.json").write_text(
                json.dumps({"url": self.projects.as_uri(), "dir_info": {"editable": True}})
            )
            (self.folder / f"_{package}.pth").write_text(f"{self.projects}\n")
        if has_record:
            link = self.folder / f"_{package}.pth"
            owned = [link] if is_editable else [p for p in folder.rglob("*") if p.is_file()]
            paths = [path.relative_to(self.folder) for path in (*owned, *info.iterdir())]
            lines = [f"{path.as_posix()},," for path in (*paths, Path(info.name) / "RECORD")]
            (info / "RECORD").write_text("\n".join(lines) + "\n")
        self._packages[name] = folder
        self._forget(package)
        return folder

    def uninstall(self, name: str) -> None:
        """Remove a distribution, from memory as well; one that is not there stays so."""
        package = name.replace("-", "_")
        if folder := self._packages.pop(name, None):
            shutil.rmtree(folder, ignore_errors=True)
        for info in self.folder.glob(f"{package}-*.dist-info"):
            shutil.rmtree(info)
        self._forget(package)

    def close(self) -> None:
        """Remove all distributions."""
        for name in list(self._packages):
            self.uninstall(name)

    def _forget(self, package: str) -> None:
        for name in list(sys.modules):
            if name == package or name.startswith(f"{package}."):
                del sys.modules[name]
        importlib.invalidate_caches()
        importlib_metadata.MetadataPathFinder.invalidate_caches()
