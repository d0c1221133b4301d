"""What a writer does when it opens a store: make everything agree with the newest whole commit."""

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from pymodules_core.checkpoints.store.checksums import seal_if_readable
from pymodules_core.checkpoints.store.objects import Objects
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import CommitRecord, read_record, record_numbers
from pymodules_core.checkpoints.store.views import Views, is_link_to
from pymodules_core.errors import CheckpointFileError, display_path
from pymodules_core.names import FRZN, LAST, pool_names_in

logger = logging.getLogger("pymodules_core")


def recover(
    layout: Layout, objects: Objects, views: Views, *, is_salvage: bool = False
) -> CommitRecord | None:
    """Bring a store to its newest whole commit; a second call changes nothing.

    Args:
        layout: Paths.
        objects: Objects of the store.
        views: Views of the store.
        is_salvage: Where no commit is whole, take the newest that can be read as it is.

    Returns:
        That commit, or None where there is none.

    Raises:
        CheckpointFileError: A record is of a newer format, or no commit is whole; then nothing is
            changed but damaged objects put aside.
    """
    for path in sorted(layout.stage.iterdir()):
        views.discard(path)
    for pool_name in pool_names_in(layout.path):
        _suspect_links(layout, pool_name, objects, views)
    record, damaged = _find_whole(layout, objects)
    if record is None and damaged and is_salvage:
        record = next((one for one in map(_read, damaged) if one is not None), None)
        damaged = damaged[: damaged.index(layout.record(record.number))] if record else damaged
    if record is None and damaged and not is_salvage:
        raise CheckpointFileError(
            f"no commit of {display_path(layout.path)} is whole: "
            f"{len(damaged)} are there, and each is damaged or has lost what a run needs",
            file=damaged[0],
            fix="pymodules ckpt repair saves what is whole",
        )
    if record is None:
        for path in damaged:
            objects.quarantine(path)
        # Records that were lost may be all that said which objects matter.
        is_empty = not layout.quarantine.exists() and not pool_names_in(layout.path)
        if not damaged and is_empty and not is_salvage:
            objects.keep_only(())
        return None
    older = _readable(layout, below=record.number)
    for path in damaged:
        _put_aside(path, [record, *older], layout, objects, views)
    objects.know(record.objects)
    copies = _copies(layout, record)
    lost = {
        digest
        for digest in record.used_digests()
        if not _make_whole(digest, record, copies, layout, objects)
    }
    _show(record, older, lost, layout, objects, views, is_changed=bool(damaged))
    objects.keep_only(record.used_digests().union(*(old.used_digests() for old in older)))
    return record


def _show(
    record: CommitRecord,
    older: list[CommitRecord],
    lost: set[str],
    layout: Layout,
    objects: Objects,
    views: Views,
    *,
    is_changed: bool,
) -> None:
    """Let people see the pools of a commit, and no others.

    Args:
        record: The commit.
        older: Those before it.
        lost: Digests that it names and that are not whole.
        layout: Paths.
        objects: Objects of the store.
        views: Views of the store.
        is_changed: Views were hidden before.
    """
    shown = {name: record.view_files(_without_lost(name, record, lost)) for name in record.pools}
    wrong = [
        name
        for name, files in shown.items()
        if not _holds(name, files, record, layout, objects, views)
    ]
    gone = {name for old in older for name in old.pools} - set(record.pools)
    gone = {name for name in gone if layout.view(name).exists()}
    for pool_name in (*wrong, *sorted(gone)):
        paths = views.paths(pool_name)
        rescue_edits(layout, pool_name, paths, [record, *older], objects, views)
        if pool_name in gone:
            views.hide(pool_name)
        else:
            views.prepare(pool_name, shown[pool_name])
            views.show(pool_name)
    if wrong or gone or is_changed:
        views.finish()
    for pool_name, files in shown.items():
        views.note(pool_name, files)


def _find_whole(layout: Layout, objects: Objects) -> tuple[CommitRecord | None, list[Path]]:
    """Give the newest commit that a run can go on from, and the records of those that are newer."""
    damaged_records = []
    for number in record_numbers(layout):
        path = layout.record(number)
        try:
            record = read_record(path)
        except CheckpointFileError as error:
            if error.found is not None:  # a newer format: nothing of it may be touched
                raise
            damaged_records.append(path)
            continue
        needed = {digest for name in (LAST, FRZN) for digest in _modules(record, name).values()}
        needed = record.with_parts(needed | record.state_digests())
        copies = _copies(layout, record)
        lost = [d for d in sorted(needed) if not _make_whole(d, record, copies, layout, objects)]
        if not lost:
            return record, damaged_records
        logger.warning(
            "commit %d of %s (epoch %d) is not whole; going back to the one before",
            number,
            display_path(layout.path),
            record.epoch,
        )
        damaged_records.append(path)
    return None, damaged_records


def _read(path: Path) -> CommitRecord | None:
    try:
        return read_record(path)
    except (OSError, CheckpointFileError):
        return None


def _put_aside(
    path: Path, kept: Iterable[CommitRecord], layout: Layout, objects: Objects, views: Views
) -> None:
    """Quarantine a record, and with it what is whole and no other commit names."""
    record = _read(path)
    # Where it cannot be read, it may be any of those that are there.
    named = record.used_digests() if record else objects.digests()
    for digest in sorted(named - {digest for one in kept for digest in one.used_digests()}):
        if os.path.lexists(layout.object(digest)):
            objects.quarantine(layout.object(digest), why="was of a commit that is put aside")
    if record is None:
        objects.quarantine(path)
    else:
        for pool_name in set(record.pools) - {name for one in kept for name in one.pools}:
            if layout.view(pool_name).exists():
                logger.warning("pool %s was of commit %d alone", pool_name, record.number)
                views.hide(pool_name)
        objects.quarantine(path, why="has lost what a run needs")


def _make_whole(
    digest: str,
    record: CommitRecord,
    copies: Mapping[str, list[Path]],
    layout: Layout,
    objects: Objects,
) -> bool:
    """Put a damaged object aside, and make it anew where a view has a copy that is whole."""
    stored = record.objects[digest]
    if objects.is_whole(digest, stored):
        return True
    if os.path.lexists(layout.object(digest)):
        objects.quarantine(layout.object(digest))
    return objects.restore(digest, stored, copies.get(digest, ()))


def _copies(layout: Layout, record: CommitRecord) -> dict[str, list[Path]]:
    """Give the files of views by the digest that they should have."""
    found: dict[str, list[Path]] = {}
    for pool_name, pool in record.pools.items():
        for path, digest in record.view_files(pool.modules).items():
            found.setdefault(digest, []).append(layout.view(pool_name) / path)
    return found


def _readable(layout: Layout, *, below: int) -> list[CommitRecord]:
    paths = (layout.record(number) for number in record_numbers(layout) if number < below)
    return [record for record in map(_read, paths) if record is not None]


def _modules(record: CommitRecord, pool_name: str) -> Mapping[str, str]:
    return record.pools[pool_name].modules if pool_name in record.pools else {}


def _without_lost(pool_name: str, record: CommitRecord, lost: set[str]) -> dict[str, str]:
    """Leave out what is lost, and say so: it must not be shown as if it were there."""
    modules = record.pools[pool_name].modules
    gone = {name for name, digest in modules.items() if lost & record.with_parts([digest])}
    for name in sorted(gone):
        logger.warning("pool %s has lost module %s: its object is damaged", pool_name, name)
    return {name: digest for name, digest in modules.items() if name not in gone}


def _holds(
    pool_name: str,
    files: Mapping[str, str],
    record: CommitRecord,
    layout: Layout,
    objects: Objects,
    views: Views,
) -> bool:
    """Return whether a pool's folder holds these files; they are read where no note answers."""
    if views.is_shown(pool_name, files) and not objects.is_thorough:
        return True
    view = layout.view(pool_name)
    return (
        view.is_dir()
        and views.paths(pool_name) == files.keys()
        and all(
            not (view / path).is_symlink()
            and (
                is_link_to(view / path, layout.object(digest))
                or seal_if_readable(view / path) == record.objects[digest].seal
            )
            for path, digest in files.items()
        )
    )


def _suspect_links(layout: Layout, pool_name: str, objects: Objects, views: Views) -> None:
    """Have the objects read that touched files are links to: an edit of one is an edit of both."""
    noted = views.noted(pool_name)
    for path in views.touched(pool_name) & noted.keys():
        objects.suspect_link(noted[path], layout.view(pool_name) / path)


def rescue_edits(
    layout: Layout,
    pool_name: str,
    paths: Iterable[str],
    records: Iterable[CommitRecord],
    objects: Objects,
    views: Views,
) -> None:
    """Put aside what a person wrote into a view, before the view is replaced.

    Args:
        layout: Paths.
        pool_name: The pool.
        paths: The files to read, by their paths in the view: those that were touched.
        records: Whose objects are known; a file like one of them is nobody's edit.
        objects: Objects of the store.
        views: Views of the store.
    """
    view = layout.view(pool_name)
    if view.is_symlink() or view.is_file():
        objects.quarantine(view)  # never what a link leads to
    if not view.is_dir():
        return
    noted = views.noted(pool_name)
    seals = {stored.seal for record in records for stored in record.objects.values()}
    for name in sorted(paths):
        path = view / name
        if os.path.lexists(path) and seal_if_readable(path) not in seals:
            if name in noted:
                objects.suspect_link(noted[name], path)
            objects.quarantine(path)
