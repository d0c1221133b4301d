"""Makes a store whole again, from whatever is whole of it."""

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import attrs

from pymodules_core.checkpoints.file_buffer import make_file
from pymodules_core.checkpoints.file_format.content_checks import refuse_strange_tensors
from pymodules_core.checkpoints.sharded.folder import checkpoint_files, read_state_dict
from pymodules_core.checkpoints.store.disk_errors import disk_errors
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import (
    CommitRecord,
    StoredBest,
    StoredPool,
    readable_records,
)
from pymodules_core.checkpoints.store.store import Store
from pymodules_core.errors import CheckpointError, CheckpointFileError
from pymodules_core.names import BEST, parse_epoch_pool, pool_names_in

logger = logging.getLogger("pymodules_core")


@attrs.frozen
class Repair:
    """What is there after a repair.

    Attributes:
        commit: Number of the newest commit; None where nothing whole was found.
        pools: How many pools it has.
        lost: ``pool/module``, or the training state: what was not whole anywhere.
    """

    commit: int | None
    pools: int
    lost: list[str]


def repair(path: Path) -> Repair:
    """Read everything, put aside what is damaged, and commit what is whole.

    Objects are restored from files of views, a damaged pool is taken from the commit before; where
    no commit can be read, or there is no store, files of views are taken as they are.

    Args:
        path: The folder of the pools.

    Raises:
        StoreLockedError: A run is writing.
        CheckpointError: There is neither a store nor a pool, or the disk refuses.
    """
    layout = Layout(path)
    if not layout.store.is_dir() and not pool_names_in(path):
        raise CheckpointError(
            "holds neither a store nor pools",
            file=path,
            fix="name the folder that holds last, best",
        )
    with disk_errors(path):
        store = Store(layout, link=None, is_thorough=True, is_salvage=True)
        try:
            lost = _mend(store, layout) if store.record else _adopt(store, layout)
            record = store.record
        finally:
            store.close()
    return Repair(record.number, len(record.pools), lost) if record else Repair(None, 0, lost)


def _mend(store: Store, layout: Layout) -> list[str]:
    """Commit pools without what is lost, and return what is."""
    records = readable_records(layout)
    newest = records[0]
    pools, lost = _whole_pools(records, store)
    has_state = all(_is_whole(digest, newest, store) for digest in newest.state_digests())
    if not has_state:
        lost.append("the training state")
    if pools != newest.pools or not has_state:
        record = _mended(records, pools, has_state=has_state)
        # The commit before names what is lost.
        store.commit(lambda _: record, keep_before=False)
        return lost
    for older in records[1:]:
        # It is there to fall back to, and nobody could.
        if not all(_is_whole(digest, older, store) for digest in older.used_digests()):
            logger.warning("commit %d, an older one, is not whole: put aside", older.number)
            store.objects.quarantine(layout.record(older.number), why="has lost weights")
    return lost


def _whole_pools(
    records: list[CommitRecord], store: Store
) -> tuple[dict[str, StoredPool], list[str]]:
    """Return the newest pools, each as it is whole, and what is lost: ``pool/module``."""
    newest = records[0]
    pools, lost = {}, list[str]()
    for name, pool in newest.pools.items():
        gone = _lost_modules(pool, newest, store)
        older = _whole_before(name, records[1:], store) if gone else None
        if older:
            logger.warning("pool %s is damaged; taken from epoch %d", name, older.epoch)
            pools[name] = older
            continue
        lost += [f"{name}/{module}" for module in gone]
        modules = {m: digest for m, digest in pool.modules.items() if m not in gone}
        if modules or not gone:
            pools[name] = attrs.evolve(pool, modules=modules)
    return pools, lost


def _mended(
    records: list[CommitRecord], pools: dict[str, StoredPool], *, has_state: bool
) -> CommitRecord:
    newest = records[0]
    known = {d: stored for one in reversed(records) for d, stored in one.objects.items()}
    record = newest.after(
        state=newest.state if has_state else None,
        module_states=newest.module_states if has_state else {},
        best=_best_of(pools.get(BEST), records),
        changed=[name for name in pools if pools[name] != newest.pools[name]],
        pools=pools,
        objects=known,
    )
    return record.without_unused()


def _best_of(pool: StoredPool | None, records: Iterable[CommitRecord]) -> StoredBest | None:
    """Return the best value that belongs to a pool: the next is best where it is lost."""
    return next((one.best for one in records if pool and one.pools.get(BEST) == pool), None)


def _whole_before(name: str, records: Iterable[CommitRecord], store: Store) -> StoredPool | None:
    for record in records:
        pool = record.pools.get(name)
        if pool is not None and not _lost_modules(pool, record, store):
            return pool
    return None


def _lost_modules(pool: StoredPool, record: CommitRecord, store: Store) -> list[str]:
    return [
        module for module, digest in pool.modules.items() if not _is_whole(digest, record, store)
    ]


def _is_whole(digest: str, record: CommitRecord, store: Store) -> bool:
    return all(
        store.objects.is_whole(one, record.objects[one]) for one in record.with_parts([digest])
    )


def _adopt(store: Store, layout: Layout) -> list[str]:
    """Make the files of views a commit; return what cannot be read of them."""
    pools, objects, lost = {}, {}, list[str]()
    names = pool_names_in(layout.path)
    newest_epoch = max((parse_epoch_pool(name) or 0 for name in names), default=0)
    for pool_name in names:
        modules = {}
        for module_name, file in checkpoint_files(layout.view(pool_name)).items():
            try:
                state = read_state_dict(file)
                refuse_strange_tensors(file, state)
                content = make_file(state)
            except CheckpointFileError as error:
                logger.warning("%s", error)
                store.objects.quarantine(file)
                lost.append(f"{pool_name}/{module_name}")
                continue
            added = store.objects.add(content)
            modules[module_name] = added.digest
            objects[added.digest] = added.stored
        epoch = parse_epoch_pool(pool_name) or newest_epoch
        if modules:
            pools[pool_name] = StoredPool(modules=modules, epoch=epoch, step=0, commit=1)
        elif not any(layout.view(pool_name).iterdir()):
            layout.view(pool_name).rmdir()
    for digest in sorted(store.objects.digests() - set(objects)):
        # Nothing says what it was: a training state, or weights of an older commit.
        store.objects.quarantine(layout.object(digest), why="was of a commit that is gone")
    if pools:
        record = CommitRecord(
            number=1,
            parent=None,
            time=datetime.now(UTC),
            epoch=newest_epoch,
            step=0,
            changed=list(pools),
            pools=pools,
            objects=objects,
            provenance={"adopted": "the files of views, since no commit could be read"},
        )
        store.commit(lambda _: record)
    return lost
