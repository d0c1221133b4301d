"""What a writer does when it opens a store: make everything agree with the newest whole commit."""

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from pymodules_core.checkpoints.store.checksums import checksum_if_readable
from pymodules_core.checkpoints.store.objects import Objects
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import CommitRecord, read_record, record_numbers
from pymodules_core.checkpoints.store.views import Views, is_link_to, view_files
from pymodules_core.errors import CheckpointFileError, display_path
from pymodules_core.names import FRZN, LAST, pool_names_in

logger = logging.getLogger("pymodules_core")


@attrs.frozen
class Recovery:
    """Brings one store to its newest whole commit.

    Args:
        layout: Paths.
        objects: Objects of the store.
        views: Views of the store.
    """

    _layout: Layout
    _objects: Objects
    _views: Views

    def recover(self, *, is_salvage: bool = False) -> CommitRecord | None:
        """Make objects and views agree with the newest whole commit; again, it changes nothing.

        Args:
            is_salvage: Where no commit is whole, take the newest that can be read as it is.

        Returns:
            That commit, or None where there is none.

        Raises:
            CheckpointFileError: A record is of a newer format, or no commit is whole; then nothing
                is changed but damaged objects put aside.
        """
        for path in sorted(self._layout.stage.iterdir()):
            self._views.discard(path)
        for pool_name in pool_names_in(self._layout.path):
            self._suspect_links(pool_name)
        record, damaged = self._find_whole()
        if record is None and damaged:
            if not is_salvage:
                raise self._nothing_whole(damaged)
            record = next((one for one in map(_read, damaged) if one is not None), None)
            if record is not None:
                damaged = damaged[: damaged.index(self._layout.record(record.number))]
        if record is None:
            self._put_all_aside(damaged, may_clear=not is_salvage)
            return None
        older = self._readable(below=record.number)
        for path in damaged:
            self._put_aside(path, [record, *older])
        self._objects.know(record.objects)
        self._show(record, older, is_changed=bool(damaged))
        used = record.used_digests().union(*(old.used_digests() for old in older))
        self._objects.keep_only(used)
        return record

    def rescue_edits(
        self, pool_name: str, paths: Iterable[str], records: Iterable[CommitRecord]
    ) -> None:
        """Put aside what a person wrote into a view, before the view is replaced.

        Args:
            pool_name: The pool.
            paths: The files to read, by their paths in the view: those that were touched.
            records: Whose objects are known; a file like one of them is nobody's edit.
        """
        view = self._layout.view(pool_name)
        if view.is_symlink() or view.is_file():
            self._objects.quarantine(view)  # never what a link leads to
        if not view.is_dir():
            return
        noted = self._views.noted(pool_name)
        checksums = {stored.checksum for record in records for stored in record.objects.values()}
        for name in sorted(paths):
            path = view / name
            if os.path.lexists(path) and checksum_if_readable(path) not in checksums:
                if name in noted:
                    self._objects.suspect_link(noted[name], path)
                self._objects.quarantine(path)

    def _suspect_links(self, pool_name: str) -> None:
        """Have the objects read that touched files are links to: an edit of one is of both."""
        noted = self._views.noted(pool_name)
        for path in self._views.touched(pool_name) & noted.keys():
            self._objects.suspect_link(noted[path], self._layout.view(pool_name) / path)

    def _find_whole(self) -> tuple[CommitRecord | None, list[Path]]:
        """Return the newest commit that a run can resume from, and the paths of newer records."""
        damaged_records = []
        for number in record_numbers(self._layout):
            path = self._layout.record(number)
            try:
                record = read_record(path)
            except CheckpointFileError as error:
                if error.found is not None:  # a newer format: nothing of it may be touched
                    raise
                damaged_records.append(path)
                continue
            pools = [record.pools[name] for name in (LAST, FRZN) if name in record.pools]
            needed = {digest for pool in pools for digest in pool.modules.values()}
            if not self._lost_of(record, record.with_parts(needed | record.state_digests())):
                return record, damaged_records
            logger.warning(
                "commit %d of %s (epoch %d) is not whole; going back to the one before",
                number,
                display_path(self._layout.path),
                record.epoch,
            )
            damaged_records.append(path)
        return None, damaged_records

    def _nothing_whole(self, damaged: list[Path]) -> CheckpointFileError:
        return CheckpointFileError(
            f"no commit of {display_path(self._layout.path)} is whole: "
            f"{len(damaged)} are there, and each is damaged or has lost what a run needs",
            file=damaged[0],
            fix="pymodules ckpt repair saves what is whole",
        )

    def _put_all_aside(self, damaged: list[Path], *, may_clear: bool) -> None:
        """Quarantine all records; without any, remove what a run left before its first commit."""
        for path in damaged:
            self._objects.quarantine(path)
        # Records that were lost may be all that said which objects matter.
        is_empty = not self._layout.quarantine.exists() and not pool_names_in(self._layout.path)
        if may_clear and not damaged and is_empty:
            self._objects.keep_only(())

    def _put_aside(self, path: Path, kept: list[CommitRecord]) -> None:
        """Quarantine a record, and with it what is whole and no other commit names."""
        record = _read(path)
        # Where it cannot be read, it may be any of those that are there.
        named = record.used_digests() if record else self._objects.digests()
        for digest in sorted(named.difference(*(one.used_digests() for one in kept))):
            self._objects.quarantine(
                self._layout.object(digest), why="was of a commit that is put aside"
            )
        if record is None:
            self._objects.quarantine(path)
            return
        for pool_name in set(record.pools).difference(*(one.pools for one in kept)):
            if self._layout.view(pool_name).exists():
                logger.warning("pool %s was of commit %d alone", pool_name, record.number)
                self._views.hide(pool_name)
        self._objects.quarantine(path, why="has lost what a run needs")

    def _lost_of(self, record: CommitRecord, digests: Iterable[str]) -> set[str]:
        """Return which objects of a commit are not whole, once views gave what they have of them.

        A damaged one is put aside.
        """
        copies: dict[str, list[Path]] = {}
        for pool_name, pool in record.pools.items():
            for path, digest in view_files(record, pool.modules).items():
                copies.setdefault(digest, []).append(self._layout.view(pool_name) / path)
        lost = set()
        for digest in sorted(digests):
            stored = record.objects[digest]
            if self._objects.is_whole(digest, stored):
                continue
            self._objects.quarantine(self._layout.object(digest))
            if not self._objects.restore(digest, stored, copies.get(digest, ())):
                lost.add(digest)
        return lost

    def _readable(self, *, below: int) -> list[CommitRecord]:
        numbers = (number for number in record_numbers(self._layout) if number < below)
        records = (_read(self._layout.record(number)) for number in numbers)
        return [record for record in records if record is not None]

    def _show(self, record: CommitRecord, older: list[CommitRecord], *, is_changed: bool) -> None:
        """Let people see the pools of a commit, and no others.

        Args:
            record: The commit.
            older: Those before it.
            is_changed: Views were hidden before.
        """
        lost = self._lost_of(record, record.used_digests())
        shown = {
            name: view_files(record, _without_lost(name, record, lost)) for name in record.pools
        }
        wrong = [name for name, files in shown.items() if not self._holds(name, files, record)]
        gone = {name for old in older for name in old.pools} - set(record.pools)
        gone = {name for name in gone if self._layout.view(name).exists()}
        for pool_name in (*wrong, *sorted(gone)):
            self.rescue_edits(pool_name, self._views.paths(pool_name), [record, *older])
            if pool_name in gone:
                self._views.hide(pool_name)
            else:
                self._views.prepare(pool_name, shown[pool_name])
                self._views.show(pool_name)
        if wrong or gone or is_changed:
            self._views.finish()
        for pool_name, files in shown.items():
            self._views.note(pool_name, files)

    def _holds(self, pool_name: str, files: Mapping[str, str], record: CommitRecord) -> bool:
        """Return whether a pool's folder holds these files; they are read where no note answers."""
        if self._views.is_shown(pool_name, files) and not self._objects.is_thorough:
            return True
        view = self._layout.view(pool_name)
        return (
            view.is_dir()
            and self._views.paths(pool_name) == files.keys()
            and all(
                not (view / path).is_symlink()
                and (
                    is_link_to(view / path, self._layout.object(digest))
                    or checksum_if_readable(view / path) == record.objects[digest].checksum
                )
                for path, digest in files.items()
            )
        )


def _read(path: Path) -> CommitRecord | None:
    try:
        return read_record(path)
    except (OSError, CheckpointFileError):
        return None


def _without_lost(pool_name: str, record: CommitRecord, lost: set[str]) -> dict[str, str]:
    """Leave out what is lost, and say so: it must not be shown as if it were there."""
    modules = record.pools[pool_name].modules
    gone = {name for name, digest in modules.items() if lost & record.with_parts([digest])}
    for name in sorted(gone):
        logger.warning("pool %s has lost module %s: its object is damaged", pool_name, name)
    return {name: digest for name, digest in modules.items() if name not in gone}
