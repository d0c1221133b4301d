"""What one commit changes, the record that says so, and how both get to the disk."""

import math
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import attrs

from pymodules_core.checkpoints.file_buffer import CheckpointFile
from pymodules_core.checkpoints.store.disk_errors import disk_errors
from pymodules_core.checkpoints.store.objects import Added
from pymodules_core.checkpoints.store.records import CommitRecord, StoredBest, StoredPool
from pymodules_core.checkpoints.store.store import Store
from pymodules_core.installed import versions
from pymodules_core.module_pool import ModulePool
from pymodules_core.names import LAST, epoch_pool, parse_epoch_pool
from pymodules_core.specs import WeightsOrigin

STATE = "training state"

_NO_COMMIT = CommitRecord(
    number=0, parent=None, time=datetime.min, epoch=0, step=0, changed=[], pools={}, objects={}
)


@attrs.define(kw_only=True)
class CommitResult:
    """One commit; the last five are known once it is done.

    Attributes:
        pools: Pools that were written, in the order of a run.
        epoch: The epoch it belongs to; 0 before training.
        step: Train steps so far.
        best_moved: Whether ``best`` was proposed and taken.
        stall_ms: Milliseconds the caller waited.
        commit: Its number; 0 until it is done.
        write_ms: Milliseconds from the call until everything was on disk.
        bytes_written: Bytes of all files written.
        bytes_shared: Bytes of modules that were there already.
        durable: Everything is on disk, synced: the commit survives a crash.
    """

    pools: tuple[str, ...]
    epoch: int
    step: int
    best_moved: bool
    stall_ms: float = 0.0
    commit: int = 0
    write_ms: float = 0.0
    bytes_written: int = 0
    bytes_shared: int = 0
    durable: bool = False


Receipt = CommitResult


@attrs.frozen(kw_only=True)
class Commit:
    """One commit on its way to the disk.

    Attributes:
        receipt: Says which pools, and is filled in at the end.
        members: Pool name to the names of its modules.
        images: Module name to its weights; the training state is called ``STATE``.
        metrics: What was measured of these weights.
        best: The best value, this commit's included.
        module_names: All modules of today's pool.
        keep_epochs: How many ``epoch_<n>`` stay.
        started: When it was asked for, by ``time.perf_counter``.
        added: What is in the store already: name as in ``images`` to object.
        module_states: Module name to what ``added`` calls the training state that is its own.
        frozen: Frozen modules to look at: name to state dict.
        weights_origins: Module name to where its initial weights were loaded from.
        provenance: Kept with it.
    """

    receipt: CommitResult
    members: Mapping[str, list[str]]
    images: Mapping[str, CheckpointFile]
    metrics: Mapping[str, float]
    best: StoredBest | None
    module_names: frozenset[str]
    keep_epochs: int | Literal["all"]
    started: float
    added: Mapping[str, Added] = attrs.field(factory=dict)
    module_states: Mapping[str, str] = attrs.field(factory=dict)
    frozen: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    weights_origins: Mapping[str, WeightsOrigin] = attrs.field(factory=dict)
    provenance: Mapping[str, Any] = attrs.field(factory=dict)


def next_record(
    before: CommitRecord | None, commit: Commit, added: Mapping[str, Added]
) -> CommitRecord:
    """Return the record after a commit.

    Args:
        before: The newest commit.
        commit: What it changes.
        added: The objects of its images.
    """
    before = before or _NO_COMMIT
    receipt = commit.receipt
    pools = _pools_after(before, commit, added)
    known = dict(before.objects)
    for one in added.values():
        known |= {**one.parts, one.digest: one.stored}
    changes: dict[str, Any] = {}
    # What a run resumes from is of the last commit that named ``last``.
    if LAST in receipt.pools or before is _NO_COMMIT:
        changes = {
            "epoch": receipt.epoch,
            "step": receipt.step,
            "state": added[STATE].digest if STATE in added else None,
            "module_states": {
                name: added[key].digest for name, key in commit.module_states.items()
            },
        }
    record = before.after(
        changed=[name for name in receipt.pools if name in pools],
        pools=pools,
        objects=known,
        best=commit.best,
        weights_origins={**before.weights_origins, **commit.weights_origins},
        provenance=dict(commit.provenance),
        **changes,
    )
    return record.without_unused()


def _pools_after(
    before: CommitRecord, commit: Commit, added: Mapping[str, Added]
) -> dict[str, StoredPool]:
    receipt = commit.receipt
    pools = dict(before.pools)
    metrics = {
        name: value if math.isfinite(value) else None for name, value in commit.metrics.items()
    }
    for pool_name in receipt.pools:
        stored = before.pools.get(pool_name) or before.pools.get(LAST)
        modules = {name: added[name].digest for name in commit.members[pool_name]}
        pools[pool_name] = StoredPool(
            modules=_absent_modules(stored, commit.module_names) | modules,
            epoch=receipt.epoch,
            step=receipt.step,
            commit=before.number + 1,
            metrics=metrics,
        )
    if commit.keep_epochs != "all":
        epochs = sorted(epoch for name in pools if (epoch := parse_epoch_pool(name)))
        for epoch in epochs[: -commit.keep_epochs]:
            del pools[epoch_pool(epoch)]
    return pools


def _absent_modules(stored: StoredPool | None, module_names: frozenset[str]) -> dict[str, str]:
    """Return the modules that are not in today's pool: their weights stay where they were."""
    modules = stored.modules if stored else {}
    return {name: digest for name, digest in modules.items() if name not in module_names}


def write_commit(store: Store, commit: Commit, path: Path) -> None:
    """Put a commit on disk, and say in its receipt what that took.

    Args:
        store: Where to.
        commit: What to write.
        path: Folder of the pools, for messages.

    Raises:
        CheckpointError: The disk refuses; the commit before stands.
    """
    receipt = commit.receipt

    def make_record(before: CommitRecord | None) -> CommitRecord:
        added = {**commit.added, **store.objects.add_all(commit.images)}
        receipt.bytes_written = sum(one.bytes_written for one in added.values())
        receipt.bytes_shared = sum(
            one.stored.size_bytes for one in added.values() if not one.bytes_written
        )
        return next_record(before, commit, added)

    needed_bytes = sum(image.size_bytes for image in commit.images.values())
    with disk_errors(path, needed_bytes=needed_bytes):
        receipt.commit = store.commit(make_record).number
    receipt.write_ms = (time.perf_counter() - commit.started) * 1000
    receipt.durable = True


def pool_provenance(pool: ModulePool) -> dict[str, Any]:
    """Return what is known of a run from its pool: origins of modules, versions, the git commit.

    Args:
        pool: The modules. The commit is that of their experiment, else of the current folder.
    """
    return {
        "modules": {name: origin.to_json() for name, origin in pool.origins.items()},
        "versions": versions(),
        "git_commit": git_commit(pool.experiment.path if pool.experiment else Path.cwd()),
    }


def git_commit(folder: Path) -> str | None:
    """Return the commit of the repository around ``folder``, or None where there is none."""
    try:
        result = subprocess.run(  # noqa: S603  a fixed command
            ["git", "-C", str(folder), "rev-parse", "HEAD"],  # noqa: S607  the user's own git
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None
