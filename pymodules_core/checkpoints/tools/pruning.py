"""Drops pools of epochs: in one commit, and never what somebody needs without asking."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from pymodules_core.checkpoints.store.disk_errors import disk_errors
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import CommitRecord, readable_records
from pymodules_core.checkpoints.store.store import Store
from pymodules_core.errors import CheckpointError, CheckpointNotFoundError, list_words
from pymodules_core.names import check_pool_name, epoch_pool, parse_epoch_pool, pool_sort_key


@attrs.frozen
class Pruning:
    """What would go, or went.

    Attributes:
        pools: The pools.
        freed_bytes: Of objects that no other pool holds.
    """

    pools: list[str]
    freed_bytes: int


def plan_pruning(
    path: Path, pools: Iterable[str], *, keep_epochs: int | None, needed: Mapping[str, list[str]]
) -> Pruning:
    """Choose what to drop.

    Args:
        path: The folder of the pools.
        pools: Pools to drop by name.
        keep_epochs: How many ``epoch_<n>`` stay, the newest; None drops only ``pools``.
        needed: Pool name to what somewhere else started from it; such a pool is refused.

    Raises:
        CheckpointNotFoundError: There is no such pool, or no store.
        CheckpointError: A pool is not of an epoch, or is needed.
    """
    records = readable_records(Layout(path))
    if not records:
        raise CheckpointNotFoundError(
            "holds no commit", file=path, fix="nothing is there to be dropped: train first"
        )
    record = records[0]
    there = sorted(record.pools, key=pool_sort_key)
    wanted = set()
    for name in pools:
        check_pool_name(name, existing=there)
        if parse_epoch_pool(name) is None:
            raise CheckpointError(
                f"pool {name!r} is not of an epoch, and a run needs it",
                found=name,
                fix="name pools of epochs: " + list_words(n for n in there if parse_epoch_pool(n)),
            )
        if name not in record.pools:
            raise CheckpointNotFoundError(
                f"there is no pool {name!r}; there are: {list_words(there)}",
                file=path,
                found=name,
                fix="pymodules ckpt ls shows what is there",
            )
        wanted.add(name)
    if keep_epochs is not None:
        epochs = sorted(epoch for name in there if (epoch := parse_epoch_pool(name)))
        wanted |= {epoch_pool(epoch) for epoch in epochs[: max(len(epochs) - keep_epochs, 0)]}
    for name in sorted(wanted, key=pool_sort_key):
        if name in needed:
            raise CheckpointError(
                f"pool {name!r} gave the initial weights of {list_words(needed[name])}",
                file=path,
                found=name,
                fix="keep it, or drop it anyway with --even-if-needed",
            )
    return Pruning(sorted(wanted, key=pool_sort_key), _freed_bytes(record, wanted))


def prune(path: Path, pools: Iterable[str]) -> None:
    """Drop pools in one commit.

    Raises:
        StoreLockedError: A run is writing.
        CheckpointError: The disk refuses; all is as it was.
    """
    dropped = set(pools)

    def make_record(before: CommitRecord | None) -> CommitRecord:
        if before is None:
            raise CheckpointError("holds no commit", file=path)
        return _without(before, dropped)

    with disk_errors(path):
        store = Store(Layout(path), link=None)
        try:
            # The commit before holds nothing else that this one lacks.
            store.commit(make_record, keep_before=False)
        finally:
            store.close()


def _without(record: CommitRecord, dropped: set[str]) -> CommitRecord:
    """Return the record after this one, without some of its pools."""
    pools = {name: pool for name, pool in record.pools.items() if name not in dropped}
    return record.after(changed=[], pools=pools).without_unused()


def _freed_bytes(record: CommitRecord, dropped: set[str]) -> int:
    # Of shards some may be those of another pool, and others not.
    gone = record.used_digests() - _without(record, dropped).objects.keys()
    return sum(record.objects[digest].size_bytes for digest in gone)
