"""Views: ordinary folders of ordinary files, made of links to objects."""

import os
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from pathlib import Path

import attrs

from pymodules_core.checkpoints.store.file_system import CANNOT, Disk, copy_file
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import INDEX_NAME, CommitRecord
from pymodules_core.checkpoints.store.view_notes import Stamp, ViewNotes
from pymodules_core.names import CHECKPOINT_SUFFIX


class Link(StrEnum):
    """How a file of a view comes from its object."""

    REFLINK = "reflink"
    HARD_LINK = "hard link"
    COPY = "copy"


@attrs.frozen(kw_only=True)
class ViewPlan:
    """What a commit does to the views.

    Attributes:
        files: Pool to the files of its view: path in it to digest.
        changed: Pools whose views are replaced.
        gone: Pools whose views are removed.
        linked: Other pools of the same objects, which are to be noted again.
        touched: Pool to the paths of files that somebody else touched, looked up before a link
            that another view gets changes a time of theirs.
    """

    files: Mapping[str, Mapping[str, str]]
    changed: list[str]
    gone: list[str]
    linked: list[str]
    touched: Mapping[str, set[str]]


class Views:
    """Makes, swaps and removes the views of one store.

    Args:
        layout: Paths.
        disk: Changes the file system.
        only_copy: Never share blocks or inodes with the objects.

    Attributes:
        link: The best way that may work.
        made: The way of the last file that was made; None before the first.
    """

    def __init__(self, layout: Layout, disk: Disk, *, only_copy: bool = False) -> None:
        self._layout = layout
        self._disk = disk
        self._notes = ViewNotes(layout, disk)
        self.link = Link.COPY if only_copy else Link.REFLINK
        self.made: Link | None = None

    def plan(self, before: CommitRecord | None, record: CommitRecord) -> ViewPlan:
        """Return what a commit does to the views; it changes nothing yet."""
        files = {name: view_files(record, pool.modules) for name, pool in record.pools.items()}
        changed = [name for name in record.changed if not self.is_shown(name, files[name])]
        gone = [
            name
            for name in (before.pools if before else ())
            if name not in record.pools and self._layout.view(name).exists()
        ]
        return ViewPlan(
            files=files,
            changed=changed,
            gone=gone,
            linked=self._find_linked([*changed, *gone], files),
            touched={name: self.touched(name) for name in (*changed, *gone)},
        )

    def prepare(self, pool_name: str, files: Mapping[str, str]) -> None:
        """Make the folder that ``show`` puts in place.

        Args:
            pool_name: The pool.
            files: Path in the folder to digest.
        """
        fresh = self._layout.stage / pool_name
        self._disk.make_folder(fresh)
        folders = {path.parent for path in map(fresh.joinpath, files)} - {fresh}
        for folder in sorted(folders):
            self._disk.make_folder(folder)
        for path, digest in files.items():
            self._link(self._layout.object(digest), fresh / path)
        for folder in (*sorted(folders), fresh):
            self._disk.sync_path(folder)

    def show(self, pool_name: str) -> None:
        """Put what was prepared in place, in one step where the platform has it.

        What was there before stays in the stage until ``finish``.
        """
        disk, target = self._disk, self._layout.view(pool_name)
        fresh = self._layout.stage / pool_name
        self._notes.remove(pool_name)
        if target.exists():
            if attempt(disk.exchange, fresh, target):
                return
            # For a moment there is no such folder; recovery makes it again.
            self.hide(pool_name)
        disk.rename(fresh, target)

    def hide(self, pool_name: str) -> None:
        """Take a pool's folder away; it stays in the stage until ``finish``."""
        self._notes.remove(pool_name)
        old = self._layout.stage / f"{pool_name}.old"
        self._disk.rename(self._layout.view(pool_name), old)

    def finish(self) -> None:
        """Make what people see durable, then remove what they saw before."""
        self._disk.sync_path(self._layout.path)
        for path in sorted(self._layout.stage.iterdir()):
            self.discard(path)

    def discard(self, path: Path) -> None:
        """Remove a file, a link, or a folder with what is in it; never what a link leads to."""
        if path.is_symlink() or not path.is_dir():
            self._disk.unlink(path)
            return
        for inner in sorted(path.iterdir()):
            self.discard(inner)
        self._disk.remove_folder(path)

    def note(self, pool_name: str, files: Mapping[str, str]) -> None:
        """Note that a pool's folder holds these files, as they are now.

        Each name that an object gets or loses changes the times of its other names, so that a pool
        is noted again once the stage is empty.
        """
        found = files_in(self._layout.view(pool_name))
        noted = {path: (digest, found[path]) for path, digest in files.items() if path in found}
        if noted != self._notes.files(pool_name):
            self._notes.write(pool_name, noted)

    def noted(self, pool_name: str) -> dict[str, str]:
        """Return what a pool's folder was left holding: path in it to digest."""
        return {path: digest for path, (digest, _) in self._notes.files(pool_name).items()}

    def touched(self, pool_name: str) -> set[str]:
        """Return the paths in a pool's folder, of files there or noted, that are not as noted."""
        found = files_in(self._layout.view(pool_name))
        noted = {path: stamp for path, (_, stamp) in self._notes.files(pool_name).items()}
        return {path for path, _ in found.items() ^ noted.items()}

    def is_shown(self, pool_name: str, files: Mapping[str, str]) -> bool:
        """Return whether a pool's folder was left holding these files, and nobody touched it."""
        is_there = self._layout.view(pool_name).is_dir()
        return is_there and self.noted(pool_name) == files and not self.touched(pool_name)

    def paths(self, pool_name: str) -> set[str]:
        """Return the paths of the files in a pool's folder."""
        return set(files_in(self._layout.view(pool_name)))

    def _find_linked(
        self, replaced: Collection[str], files: Mapping[str, Mapping[str, str]]
    ) -> list[str]:
        """Return the other pools of the same objects that are as they were left.

        A link more or less changes a time of theirs, which is then no sign of an edit.

        Args:
            replaced: The pools whose views are replaced or removed.
            files: Pool to the files of its view.
        """
        digests = {one for name in replaced for one in self.noted(name).values()}
        digests |= {one for name in replaced for one in files.get(name, {}).values()}
        return [
            name
            for name in files
            if name not in replaced
            and not digests.isdisjoint(files[name].values())
            and self.is_shown(name, files[name])
        ]

    def _link(self, source: Path, target: Path) -> None:
        if self.link is Link.REFLINK:
            if attempt(self._disk.clone, source, target):
                self._disk.sync_path(target)
            else:
                self.link = Link.HARD_LINK
        if self.link is Link.HARD_LINK and not attempt(self._disk.link, source, target):
            self.link = Link.COPY
        if self.link is Link.COPY:
            copy_file(self._disk, source, target)
        self.made = self.link


def view_files(record: CommitRecord, modules: Mapping[str, str]) -> dict[str, str]:
    """Return the files of a view: path in it to digest.

    Args:
        record: Knows the objects.
        modules: Module name to digest.
    """
    files: dict[str, str] = {}
    for name, digest in modules.items():
        shown, parts = view_name(record, name, digest), record.objects[digest].parts
        files[f"{shown}/{INDEX_NAME}" if parts else shown] = digest
        files |= {f"{shown}/{file}": part for file, part in parts.items()}
    return files


def view_name(record: CommitRecord, module_name: str, digest: str) -> str:
    """Return what people see of a module in a view: a file, or a folder of parts."""
    return module_name if record.objects[digest].parts else f"{module_name}{CHECKPOINT_SUFFIX}"


def attempt(change: Callable[[Path, Path], None], source: Path, target: Path) -> bool:
    """Link, clone, move or exchange; return False where the file system cannot do it that way."""
    try:
        change(source, target)
    except OSError as error:
        if error.errno not in CANNOT:
            raise
        return False
    return True


def is_link_to(path: Path, other: Path) -> bool:
    """Return whether a file is a hard link to another, which is there as well."""
    try:
        return os.path.samestat(path.lstat(), other.lstat())
    except OSError:
        return False


def shard_folders(folder: Path) -> list[Path]:
    """Return the folders of sharded modules in the folder of a pool."""
    return sorted(path.parent for path in folder.glob(f"*/{INDEX_NAME}"))


def files_in(folder: Path) -> dict[str, Stamp]:
    """Return the files in a folder, by their paths in it; none where there is no folder.

    Hidden ones are not of a pool: what Finder, NFS and rsync keep in folders is no damage.
    """
    try:
        return _files_below(folder)
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _files_below(folder: Path, prefix: str = "") -> dict[str, Stamp]:
    found: dict[str, Stamp] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                found |= _files_below(Path(entry.path), f"{prefix}{entry.name}/")
            else:
                found[f"{prefix}{entry.name}"] = Stamp.of(entry.stat(follow_symlinks=False))
    return found
