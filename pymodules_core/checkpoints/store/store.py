"""One store: its newest commit, and the steps that make the next."""

import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import attrs

from pymodules_core.checkpoints.store.file_system import Disk, write_file
from pymodules_core.checkpoints.store.lock import StoreLock
from pymodules_core.checkpoints.store.objects import Objects
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import (
    MOST_NUMBER,
    CommitRecord,
    encode_record,
    listed_numbers,
    readable_records,
)
from pymodules_core.checkpoints.store.recovery import Recovery
from pymodules_core.checkpoints.store.views import ViewPlan, Views, attempt, is_link_to
from pymodules_core.errors import CheckpointError, StoreLockedError
from pymodules_core.names import LAST

logger = logging.getLogger("pymodules_core")


class Store:
    """A store that is open for writing; nobody else writes to it meanwhile.

    Args:
        layout: Paths; the folder of the pools exists.
        disk: Changes the file system.
        link: ``copy`` never shares anything between objects and views; None keeps what there is.
        is_thorough: Read every byte of what is there before it is held for whole.
        is_salvage: Open it where no commit is whole, with what is left of the newest.

    Attributes:
        record: The newest commit, None before the first.
        objects: Its objects.
        views: Its views.

    Raises:
        StoreLockedError: Another writer has it.
        CheckpointError: What is there cannot be made whole.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        disk: Disk | None = None,
        link: Literal["auto", "copy"] | None = "auto",
        is_thorough: bool = False,
        is_salvage: bool = False,
    ) -> None:
        self._layout = layout
        self._disk = disk or Disk()
        layout.check()
        self._make_folders()
        if link is None:
            link = "copy" if any(one.link == "copy" for one in readable_records(layout)) else "auto"
        self._lock = StoreLock(layout)
        self._lock.acquire()
        self.objects = Objects(layout, self._disk, is_thorough=is_thorough)
        self.views = Views(layout, self._disk, only_copy=link == "copy")
        self._recovery = Recovery(layout, self.objects, self.views)
        self._is_salvage = is_salvage
        self.record: CommitRecord | None = None
        self._spare: CommitRecord | None = None
        self._is_clean = False
        self._newest: int | None = None  # number of the newest record that this writer knows of
        try:
            self.settle()
        except BaseException:
            self.close()
            raise

    def _make_folders(self) -> None:
        layout = self._layout
        is_new = not layout.store.exists()
        for folder in (layout.store, layout.objects, layout.commits, layout.stage):
            if folder.exists():
                continue
            try:
                self._disk.make_folder(folder)
            except FileExistsError:  # by another process meanwhile; the lock says who may write
                if not folder.is_dir():
                    raise
        if is_new:
            for folder in (layout.store, layout.path, layout.path.parent):
                self._disk.sync_path(folder)

    def close(self) -> None:
        """Let other writers in; safe to call twice."""
        self._lock.release()

    def settle(self) -> None:
        """Make everything agree with the newest whole commit; does nothing where it does."""
        self._refuse_other_writer()
        if self._is_clean:
            return
        self.record = self._recovery.recover(is_salvage=self._is_salvage)
        self._newest = self.record.number if self.record else 0
        self._spare = self._find_spare()
        self._is_clean = True

    def make_stage(self, name: str) -> Path:
        """Make a folder for files that are on their way into the store.

        Of a name that none had before: a process of a group that failed may still write to the old
        one.
        """
        folder = self._layout.stage / f"{name}-{secrets.token_hex(8)}.shards"
        self._disk.make_folder(folder)
        return folder

    def commit(
        self,
        make_record: Callable[[CommitRecord | None], CommitRecord],
        *,
        keep_before: bool = True,
    ) -> CommitRecord:
        """Make the next commit; once this returns it survives any crash.

        Args:
            make_record: Given the commit before, adds its objects and gives the next record.
            keep_before: The commit before stays, to fall back to.

        Raises:
            StoreLockedError: Another writer committed meanwhile, where locks do not reach it.
            OSError: The disk refuses; the commit before stands, or this one where only its views
                were not up to date.
        """
        self.settle()
        self._is_clean = False
        if self.record is not None and self.record.number >= MOST_NUMBER:
            raise CheckpointError(
                f"commit {self.record.number} is the last one that a name has room for",
                file=self._layout.record(self.record.number),
                found=self.record.number,
                fix="nobody made so many: remove that record, and pymodules ckpt repair continues "
                "from the one before",
            )
        try:
            record = self._commit(make_record, keep_before=keep_before)
        except OSError:
            self._refuse_other_writer()  # the stage is its now
            self.clean_up()
            raise
        self._is_clean = True
        return record

    def clean_up(self) -> None:
        """Empty the stage after a save that failed: it takes the room that a full disk lacks.

        Where this fails too, the next call tries again.
        """
        self._is_clean = False
        with suppress(OSError):
            self.settle()

    def _commit(
        self, make_record: Callable[[CommitRecord | None], CommitRecord], *, keep_before: bool
    ) -> CommitRecord:
        before = self.record
        record = make_record(before)
        plan = self.views.plan(before, record)
        # Made before the record, so that a disk that is full says so while nothing has changed.
        for pool_name in plan.changed:
            self.views.prepare(pool_name, plan.files[pool_name])
        record = attrs.evolve(record, link=self.views.made or (before.link if before else None))
        self._publish(record)
        self.record = record
        self._show(plan, [record, before] if before else [record])
        if before is None or _weights_of(before) != _weights_of(record):
            self._spare = before
        kept = [one for one in (before, self._spare) if one is not None and keep_before]
        self._forget_old([record, *kept])
        return record

    def _show(self, plan: ViewPlan, records: list[CommitRecord]) -> None:
        for pool_name, paths in plan.touched.items():
            self._recovery.rescue_edits(pool_name, paths, records)
            if pool_name in plan.gone:
                self.views.hide(pool_name)
            else:
                self.views.show(pool_name)
        self.views.finish()
        for pool_name in (*plan.changed, *plan.linked):
            self.views.note(pool_name, plan.files[pool_name])

    def _publish(self, record: CommitRecord) -> None:
        disk, layout = self._disk, self._layout
        # First what the record names, then the record: it must never be there without them.
        disk.sync_path(layout.objects)
        staged = layout.stage / layout.record(record.number).name
        write_file(disk, staged, [encode_record(record)])
        try:
            self._refuse_other_writer()
            _rename_no_replace(disk, staged, layout.record(record.number))
        except (FileExistsError, StoreLockedError) as error:
            # The other writer continues, and needs the names in the stage.
            for name in (staged.name, *record.changed):
                if (layout.stage / name).exists():
                    self.views.discard(layout.stage / name)
            raise self._lock.lost() from error
        self._newest = record.number
        disk.sync_path(layout.commits)

    def _refuse_other_writer(self) -> None:
        """Refuse to write where locks reach not every machine and another writer committed."""
        if self._newest is not None and any(
            number > self._newest for number in listed_numbers(self._layout)
        ):
            raise self._lock.lost()

    def _find_spare(self) -> CommitRecord | None:
        """Return the newest commit whose weights are not those of the newest of all."""
        if self.record is None:
            return None
        newest = _weights_of(self.record)
        older = (r for r in readable_records(self._layout) if r.number < self.record.number)
        return next((one for one in older if _weights_of(one) != newest), None)

    def _forget_old(self, kept: list[CommitRecord]) -> None:
        """Keep what some commits need: there has to be one to fall back to.

        The commit before is often of the same weights, before and after an evaluation, and would
        be damaged with the newest: the spare one has others.
        """
        numbers = {one.number for one in kept}
        for number in listed_numbers(self._layout):
            if number not in numbers:
                self._disk.unlink(self._layout.record(number))
        self.objects.keep_only(set[str]().union(*(one.used_digests() for one in kept)))


def _rename_no_replace(disk: Disk, source: Path, target: Path) -> None:
    """Move a record to its name, which another writer may have taken.

    Where the file system has neither way that refuses then, such as exFAT, the lock has to do.

    Raises:
        FileExistsError: It has.
    """
    if attempt(disk.rename_no_replace, source, target):
        return
    try:
        is_linked = attempt(disk.link, source, target)  # the other name goes with the stage
    except FileExistsError:
        # A server may answer so where it made the link, and its first answer was lost.
        if not is_link_to(source, target):
            raise
        return
    if not is_linked:
        disk.rename(source, target)


def _weights_of(record: CommitRecord) -> dict[str, str]:
    return record.pools[LAST].modules if LAST in record.pools else {}
