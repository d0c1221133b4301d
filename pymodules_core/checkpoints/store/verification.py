"""Reads every byte of a store, and says what is not as it was written and whom that touches."""

import stat
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Set
from pathlib import Path

import attrs

from pymodules_core.checkpoints.store.checksums import checksum_if_readable, checksum_of_file
from pymodules_core.checkpoints.store.lock import may_be_written
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import (
    CommitRecord,
    StoredObject,
    read_record,
    record_numbers,
)
from pymodules_core.checkpoints.store.views import files_in, is_link_to, view_files
from pymodules_core.errors import CheckpointFileError

_MISSING = "is missing"
_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
# What a commit leaves behind for so long, on a disk that is busy, is damage.
_SETTLES_S = 10.0


@attrs.frozen
class Damage:
    """One file that is not as it was written.

    Attributes:
        path: The file.
        reason: What is wrong with it.
        used_by: What it is a part of: ``last/encoder``, ``training state``.
        digest: Of what a file of a view should hold.
    """

    path: Path
    reason: str
    # Not compared: other commits name the same file for other pools.
    used_by: tuple[str, ...] = attrs.field(default=(), eq=False)
    digest: str | None = None


@attrs.frozen
class Verification:
    """What was read.

    Attributes:
        objects: How many objects.
        views: How many files of views.
        damages: What is wrong; empty where all is whole.
    """

    objects: int
    views: int
    damages: list[Damage]


def verify_store(layout: Layout, digest_of: Callable[[Path], str]) -> Verification:
    """Read all records, objects and views; a writer may be at work meanwhile.

    Args:
        layout: Paths.
        digest_of: Names the content of a file whose every byte is as it was written.

    Raises:
        CheckpointFileError: A record is of a newer format.
    """
    is_written = may_be_written(layout)
    found = _verify(layout, digest_of)
    is_written |= may_be_written(layout)
    damages, since, pause_s = found.damages, time.monotonic(), _PAUSE_S
    # Views follow their record, and objects go with theirs: only what stays is damage.
    while damages and is_written and time.monotonic() - since < _SETTLES_S:
        is_written = may_be_written(layout)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        later = _verify(layout, digest_of).damages
        damages = [damage for damage in damages if damage in later]
    return attrs.evolve(found, damages=damages)


def _verify(layout: Layout, digest_of: Callable[[Path], str]) -> Verification:
    records, damages = _read_records(layout)
    objects = {d: stored for record in records for d, stored in record.objects.items()}
    used_by = _users(records[0]) if records else {}
    # A view may show what was committed by a record that is damaged now.
    readable = map(checksum_if_readable, layout.objects.glob("*") if damages else ())
    checksums = {checksum for checksum in readable if checksum is not None}
    for digest, stored in sorted(objects.items()):
        path = layout.object(digest)
        if reason := _fault(path, stored) or _name_fault(path, digest, digest_of):
            damages.append(Damage(path, reason, used_by.get(digest, ("the commit before",))))
    views = list(_views(layout, records[0], checksums)) if records else []
    damages += [damage for damage in views if damage is not None]
    return Verification(objects=len(objects), views=len(views), damages=damages)


def _read_records(layout: Layout) -> tuple[list[CommitRecord], list[Damage]]:
    records, damages = [], []
    for number in record_numbers(layout):
        try:
            records.append(read_record(layout.record(number)))
        except FileNotFoundError:  # removed meanwhile by a writer
            continue
        except CheckpointFileError as error:
            if error.found is not None:
                raise
            damages.append(Damage(layout.record(number), error.what))
    return records, damages


def _users(record: CommitRecord) -> dict[str, tuple[str, ...]]:
    users: dict[str, list[str]] = defaultdict(list)
    for pool_name, pool in record.pools.items():
        for module_name, digest in pool.modules.items():
            for one in record.with_parts([digest]):
                users[one].append(f"{pool_name}/{module_name}")
    for digest in record.with_parts(record.state_digests()):
        users[digest].append("training state")
    return {digest: tuple(names) for digest, names in users.items()}


def _views(layout: Layout, record: CommitRecord, checksums: Set[str]) -> Iterator[Damage | None]:
    """Return one item for each file of each view, None where it is whole.

    Args:
        layout: Paths.
        record: The newest that can be read.
        checksums: Of all objects, where a newer record cannot be read; else of none.
    """
    for pool_name, pool in record.pools.items():
        view = layout.view(pool_name)
        wanted = view_files(record, pool.modules)
        for file_name, digest in sorted(wanted.items()):
            damage = _view_fault(view / file_name, layout.object(digest), record.objects[digest])
            if damage and checksum_if_readable(damage.path) in checksums:
                damage = attrs.evolve(damage, reason="is of a commit whose record is damaged")
            yield damage and attrs.evolve(damage, digest=digest)
        for file_name in sorted(files_in(view).keys() - wanted.keys()):
            yield Damage(view / file_name, "is not of this pool: somebody put it there")


def _view_fault(path: Path, object_: Path, stored: StoredObject) -> Damage | None:
    if is_link_to(path, object_):  # reported with the object
        return None
    reason = _fault(path, stored)
    return Damage(path, reason.replace("damaged", "damaged or edited")) if reason else None


def _name_fault(path: Path, digest: str, digest_of: Callable[[Path], str]) -> str | None:
    try:
        is_right = digest_of(path) == digest
    except FileNotFoundError:
        return _MISSING
    return None if is_right else "is not what it is called: its content has another digest"


def _fault(path: Path, stored: StoredObject) -> str | None:
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            return "is a link, a folder or a pipe, expected a file"
        if status.st_size == stored.size_bytes and checksum_of_file(path) == stored.checksum:
            return None
    except FileNotFoundError:
        return _MISSING
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError:
        pass
    return "is damaged: its bytes are not those that were saved"
