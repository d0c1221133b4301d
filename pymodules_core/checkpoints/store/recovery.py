"""What a writer does when it opens a store: make everything agree with the newest whole commit."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from pymodules_core.checkpoints.store.archives import seal_of_file
from pymodules_core.checkpoints.store.disk import Disk
from pymodules_core.checkpoints.store.layout import Layout
from pymodules_core.checkpoints.store.objects import Objects
from pymodules_core.checkpoints.store.records import CommitRecord, read_record, record_numbers
from pymodules_core.checkpoints.store.views import Views
from pymodules_core.errors import CheckpointFileError, display_path
from pymodules_core.names import FRZN, LAST

logger = logging.getLogger("pymodules_core")


def recover(layout: Layout, disk: Disk, objects: Objects, views: Views) -> CommitRecord | None:
    """Bring a store to its newest whole commit; a second call changes nothing.

    Args:
        layout: Paths.
        disk: Changes the file system.
        objects: Objects of the store.
        views: Views of the store.

    Returns:
        That commit, or None where there is none.

    Raises:
        CheckpointFileError: A record is of a newer format.
    """
    for path in sorted(layout.stage.iterdir()):
        if path.is_dir():
            views.discard(path)
        else:
            disk.unlink(path)
    record = _find_whole(layout, objects)
    if record is None:
        objects.keep_only(())
        return None
    is_shown = True
    older = _readable(layout, below=record.number)
    objects.know(record.objects)
    for pool_name, pool in record.pools.items():
        modules = _whole_modules(pool_name, pool.modules, record, objects)
        if not views.is_shown(pool_name, modules):
            is_shown = False
            _rescue_foreign_files(layout, pool_name, [record, *older], objects)
            views.show(pool_name, modules)
    for pool_name in {name for old in older for name in old.pools} - set(record.pools):
        if layout.view(pool_name).exists():
            is_shown = False
            views.hide(pool_name)
    if not is_shown:
        views.finish()
    objects.keep_only(record.used_digests().union(*(old.used_digests() for old in older)))
    return record


def _find_whole(layout: Layout, objects: Objects) -> CommitRecord | None:
    """Give the newest commit that a run can go on from, and put those that are not aside."""
    for number in record_numbers(layout):
        path = layout.record(number)
        try:
            record = read_record(path)
        except CheckpointFileError as error:
            if error.found is not None:  # a newer format: nothing of it may be touched
                raise
            objects.quarantine(path)
            continue
        needed = {digest for name in (LAST, FRZN) for digest in _modules(record, name).values()}
        if record.state is not None:
            needed.add(record.state)
        damaged = [d for d in sorted(needed) if not objects.is_whole(d, record.objects[d])]
        if not damaged:
            return record
        for digest in damaged:
            if layout.object(digest).exists():
                objects.quarantine(layout.object(digest))
        logger.warning(
            "commit %d of %s (epoch %d) is not whole; going back to the one before",
            number,
            display_path(layout.path),
            record.epoch,
        )
        objects.quarantine(path)
    return None


def _readable(layout: Layout, *, below: int) -> list[CommitRecord]:
    found = []
    for number in record_numbers(layout):
        if number < below:
            try:
                found.append(read_record(layout.record(number)))
            except (OSError, CheckpointFileError):
                continue
    return found


def _modules(record: CommitRecord, pool_name: str) -> Mapping[str, str]:
    return record.pools[pool_name].modules if pool_name in record.pools else {}


def _whole_modules(
    pool_name: str, modules: Mapping[str, str], record: CommitRecord, objects: Objects
) -> dict[str, str]:
    """Leave out what is damaged, and say so: it must not be shown as if it were not."""
    whole = {}
    for name, digest in modules.items():
        if objects.is_whole(digest, record.objects[digest]):
            whole[name] = digest
        else:
            logger.warning("pool %s has lost module %s: its object is damaged", pool_name, name)
    return whole


def _rescue_foreign_files(
    layout: Layout, pool_name: str, records: Iterable[CommitRecord], objects: Objects
) -> None:
    """Put aside what a person wrote into a view, before it is made anew."""
    view = layout.view(pool_name)
    if not view.is_dir():
        return
    inodes = {_inode(path) for path in layout.objects.iterdir()}
    seals = {stored.seal for record in records for stored in record.objects.values()}
    for path in sorted(view.iterdir()):
        if _inode(path) not in inodes and _seal(path) not in seals:
            objects.quarantine(path)


def _inode(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_ino, status.st_dev


def _seal(path: Path) -> str | None:
    try:
        return seal_of_file(path)
    except (OSError, ValueError):
        return None
