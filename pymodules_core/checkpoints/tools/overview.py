"""What pools there are and what they take, by records and sizes alone."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import attrs

from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import CommitRecord, readable_records
from pymodules_core.checkpoints.store.views import shard_folders
from pymodules_core.names import CHECKPOINT_SUFFIX, pool_names_in, pool_sort_key


@attrs.frozen(kw_only=True)
class PoolOverview:
    """One checkpoint pool.

    Attributes:
        name: The pool.
        epoch: Of its weights; None for plain files without a record.
        step: Of its weights.
        metrics: What was measured of them.
        modules: Names of its modules.
        size_bytes: Of its files.
        shared_bytes: Of those that other pools hold as well, and that are on disk once.
    """

    name: str
    epoch: int | None
    step: int | None
    metrics: Mapping[str, float | None]
    modules: list[str]
    size_bytes: int
    shared_bytes: int


@attrs.frozen(kw_only=True)
class StoreOverview:
    """All pools of one folder.

    Attributes:
        pools: In the order of a run.
        commit: Number of the newest commit; None where there is no store.
        state_bytes: Of the training state.
        object_bytes: Of all objects of the newest commit, each counted once.
        link: How files of pools come from objects; None where there is no store.
        last_modules: The modules that the run of the newest commit had; empty if not known.
    """

    pools: list[PoolOverview]
    commit: int | None
    state_bytes: int
    object_bytes: int
    link: str | None = None
    last_modules: frozenset[str] = frozenset()


def overview(path: Path) -> StoreOverview:
    """Look at a folder of pools.

    Args:
        path: ``module_ckps`` of an experiment, or any folder of pools.
    """
    records = readable_records(Layout(path))
    if not records:
        pools = [_plain_pool(path / name) for name in pool_names_in(path)]
        size_bytes = sum(pool.size_bytes for pool in pools)
        return StoreOverview(pools=pools, commit=None, state_bytes=0, object_bytes=size_bytes)
    record = records[0]
    uses = Counter(d for pool in record.pools.values() for d in set(pool.modules.values()))
    return StoreOverview(
        pools=[_pool(name, record, uses) for name in sorted(record.pools, key=pool_sort_key)],
        commit=record.number,
        state_bytes=sum(_size_of(digest, record) for digest in record.state_digests()),
        object_bytes=sum(stored.size_bytes for stored in record.objects.values()),
        link=record.link,
        last_modules=frozenset(record.provenance.get("modules", ())),
    )


def _pool(name: str, record: CommitRecord, uses: Mapping[str, int]) -> PoolOverview:
    pool = record.pools[name]
    sizes = {digest: _size_of(digest, record) for digest in pool.modules.values()}
    return PoolOverview(
        name=name,
        epoch=pool.epoch,
        step=pool.step,
        metrics=pool.metrics,
        modules=sorted(pool.modules),
        size_bytes=sum(sizes[digest] for digest in pool.modules.values()),
        shared_bytes=sum(size for digest, size in sizes.items() if uses[digest] > 1),
    )


def _size_of(digest: str, record: CommitRecord) -> int:
    """Return the bytes of an object and its parts."""
    return sum(record.objects[one].size_bytes for one in record.with_parts([digest]))


def _plain_pool(folder: Path) -> PoolOverview:
    files = sorted(folder.glob(f"*{CHECKPOINT_SUFFIX}"))
    sharded = shard_folders(folder)
    parts = [path for one in sharded for path in one.iterdir() if path.is_file()]
    return PoolOverview(
        name=folder.name,
        epoch=None,
        step=None,
        metrics={},
        modules=sorted(path.name.removesuffix(CHECKPOINT_SUFFIX) for path in files + sharded),
        size_bytes=sum(file.stat().st_size for file in files + parts),
        shared_bytes=0,
    )
