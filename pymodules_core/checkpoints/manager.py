"""``CheckpointManager``: the checkpoint pools of one run."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from pymodules_core.checkpoints.applying import apply_weights
from pymodules_core.checkpoints.best import BestTracker
from pymodules_core.checkpoints.commits import STATE, Commit, next_record
from pymodules_core.checkpoints.disk_errors import disk_errors
from pymodules_core.checkpoints.donors import find_donors
from pymodules_core.checkpoints.frozen_watch import FrozenWatch
from pymodules_core.checkpoints.loading import LoadReport, match_weights
from pymodules_core.checkpoints.reading import PoolReader
from pymodules_core.checkpoints.receipt import Receipt
from pymodules_core.checkpoints.staging import Staging
from pymodules_core.checkpoints.state_dicts import live_state_dict
from pymodules_core.checkpoints.store.layout import Layout
from pymodules_core.checkpoints.store.records import CommitRecord
from pymodules_core.checkpoints.store.store import Store
from pymodules_core.checkpoints.writer import Writer
from pymodules_core.errors import (
    CheckpointError,
    ExistingRunError,
    PymodulesError,
    display_path,
    list_words,
)
from pymodules_core.module_pool import ModulePool
from pymodules_core.names import BEST, FRZN, INIT, LAST, check_pool_name, pool_sort_key
from pymodules_core.versions import versions

if TYPE_CHECKING:
    from typing import Self

logger = logging.getLogger("pymodules_core")


class CheckpointManager:
    """Saves and loads a pool's modules as ``<path>/<pool>/<module_name>.pt``.

    Frozen modules are saved once, to ``frzn``; all others to ``init``, ``last``, ``best`` and
    ``epoch_<n>``. Every file is a plain state dict that ``torch.load(weights_only=True)`` opens.
    A commit is all or nothing over all pools it names, whatever happens meanwhile.

    Args:
        path: Folder of the pools.
        pool: The modules.
        monitor: The metric that decides ``best``.
        mode: Whether a smaller or a larger value is better.
        min_delta: How much better it has to be.
        keep_epochs: How many ``epoch_<n>`` pools stay; the oldest go first.
        asynchronous: A commit waits only until the weights are copied; what fails afterwards is
            raised by the next call. Else it returns when everything is on disk.
        link: ``copy`` lets pools share nothing on disk; ``auto`` shares what the disk can.
        provenance: Kept with every commit: JSON values that tell how the run came about. Origins
            of modules and versions are kept in any case.

    Attributes:
        path: Folder of the pools.
        best: The best value of the monitored metric and its epoch.
    """

    def __init__(
        self,
        path: str | Path,
        pool: ModulePool,
        *,
        monitor: str = "loss",
        mode: Literal["min", "max"] = "min",
        min_delta: float = 0.0,
        keep_epochs: int | Literal["all"] = "all",
        asynchronous: bool = True,
        link: Literal["auto", "copy"] = "auto",
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path).absolute()
        self.best = BestTracker(monitor, mode, min_delta)
        self._pool = pool
        self._keep_epochs = keep_epochs
        self._link = link
        self._provenance = {
            "modules": {name: origin.to_json() for name, origin in pool.origins.items()},
            "versions": versions(),
            **(provenance or {}),
        }
        self._frozen_watch: FrozenWatch | None = None
        self._watched_epoch: int | None = None
        self._reader = PoolReader(self.path)
        self._staging = Staging()
        self._writer = Writer(is_asynchronous=asynchronous)
        self._store: Store | None = None

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except (PymodulesError, OSError) as second:
            if error is None:
                raise
            # It must not hide why the block ended.
            logger.warning("%s", second)

    def start(self) -> Receipt:
        """Save frozen modules to ``frzn`` and all others to ``init`` and ``last``.

        Raises:
            ExistingRunError: The folder holds pools already.
            StoreLockedError: Another process writes to it.
            CheckpointError: Weights that settings ask for are not loaded, or a module cannot be
                saved.
        """
        there = self.pools()
        if there:
            raise ExistingRunError(
                f"{display_path(self.path)} holds a run already: {list_words(there)}",
                found=there,
                fix="choose another folder, or move this one aside",
            )
        if self._pool.pending_weights:
            raise CheckpointError(
                "initial weights are not loaded yet for: "
                + list_words(sorted(self._pool.pending_weights)),
                found=sorted(self._pool.pending_weights),
                fix="call load_initial_weights(pool) of pymodules_core.initial_weights first",
            )
        # What cannot be saved is told before anything is written.
        for name in self._pool:
            live_state_dict(self._pool[name], name=name)
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._store = Store(Layout(self.path), link=self._link)
        if self._link == "auto":
            self._store.objects.borrow(find_donors(self._pool))
        receipt = Receipt(pools=(FRZN, INIT, LAST), epoch=0, step=0, best_moved=False)
        self._save(self._store, receipt, {})
        # A folder that cannot be written to is told before the first step.
        self.wait()
        frozen = self._members(FRZN)
        self._staging.forget(frozen)
        self._frozen_watch = FrozenWatch(self._states(frozen))
        return receipt

    def commit(
        self,
        *pools: str,
        epoch: int,
        step: int = 0,
        metrics: Mapping[str, float] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> Receipt:
        """Save the modules as they are now.

        Args:
            pools: ``"last"``, ``"best"``, ``"epoch_<n>"``. Naming ``best`` proposes these weights;
                they are taken if the monitored metric improved.
            epoch: The epoch, 0 before training.
            step: Train steps so far.
            metrics: Name to value; must hold the monitored one where ``best`` is proposed.
            state: The training state that belongs to these weights: tensors and primitives.

        Raises:
            InvalidNameError: No such pool.
            CheckpointError: No pool, ``frzn`` or ``init`` is named, the monitored metric is
                missing, ``start`` was not called, a module cannot be saved, or an earlier commit
                could not be written.
            FrozenModuleError: A frozen module has changed; looked at once an epoch, and told like
                what an earlier commit raised.
        """
        if not pools:
            raise CheckpointError("commit() names no pool", fix='commit("last", epoch=epoch)')
        for name in pools:
            check_pool_name(name)
            if name in {FRZN, INIT}:
                raise CheckpointError(
                    f"pool {name!r} is written by start() only", found=name, fix="commit 'last'"
                )
        metrics = metrics or {}
        best_moved = BEST in pools and self.best.is_better(metrics)
        if self._store is None:
            raise CheckpointError(
                f"nothing can be committed to {display_path(self.path)} before start()",
                fix="call start() once; it writes frzn, init and last, and refuses another's run",
            )
        wanted = {name for name in pools if name != BEST or best_moved}
        receipt = Receipt(
            pools=tuple(sorted(wanted, key=pool_sort_key)),
            epoch=epoch,
            step=step,
            best_moved=best_moved,
        )
        with self._told():
            self._writer.raise_failure()
        self._save(self._store, receipt, metrics, state=state)
        return receipt

    def load(
        self, pool_name: str, modules: Iterable[str] | None = None, *, strict: bool = True
    ) -> dict[str, LoadReport]:
        """Copy weights from a pool into the live modules, all or none.

        Args:
            pool_name: One of ``pools()``.
            modules: Names to load; all that belong to the pool by default.
            strict: Missing and unexpected keys are errors, and so are NaN and values that the
                module's dtype cannot hold.

        Raises:
            CheckpointNotFoundError: No such pool, or a module is not in it.
            CheckpointFileError: A file is damaged or unsafe, and no earlier commit is whole.
            WeightMismatchError: A module's keys or shapes differ.
            CheckpointError: A module's own load hook raises.
        """
        self.wait()
        names = list(modules) if modules is not None else self._members(pool_name)
        matched = {
            name: match_weights(
                stored.state,
                self._pool[name],
                module_name=name,
                source=stored.file,
                strict=strict,
                is_foreign=False,
            )
            for name, stored in self._reader.read(pool_name, names).items()
        }
        apply_weights((self._pool[name], *match) for name, match in matched.items())
        return {name: report for name, (_, report) in matched.items()}

    def pools(self) -> list[str]:
        """Give the pools that are committed, in the order of a run."""
        self.wait()
        return self._reader.pools()

    def wait(self) -> None:
        """Return when everything committed is on disk.

        Raises:
            CheckpointError: A commit could not be written; those before it are intact.
        """
        with self._told():
            self._writer.wait()

    def close(self) -> None:
        """Finish and let other writers in; safe to call twice.

        Raises:
            CheckpointError: A commit could not be written; those before it are intact.
        """
        try:
            with self._told():
                self._writer.close()
        finally:
            self._staging.close()
            if self._store is not None:
                self._store.close()

    def _members(self, pool_name: str) -> list[str]:
        return [n for n in self._pool if self._pool.is_frozen(n) == (pool_name == FRZN)]

    def _save(
        self,
        store: Store,
        receipt: Receipt,
        metrics: Mapping[str, float],
        *,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """Copy what changed, and leave the rest to the writer."""
        started = time.perf_counter()
        members = {pool_name: self._members(pool_name) for pool_name in receipt.pools}
        states = self._states(dict.fromkeys(chain.from_iterable(members.values())))
        if state is not None:
            states[STATE] = state
        with self._told():
            images = self._staging.take(states, self._writer.wait)
            if receipt.best_moved:
                self.best.take(metrics, epoch=receipt.epoch)
            commit = Commit(
                receipt=receipt,
                members=members,
                images=images,
                metrics=metrics,
                best=self.best.stored(),
                module_names=frozenset(self._pool),
                keep_epochs=self._keep_epochs,
                frozen=self._frozen_to_watch(receipt.epoch),
                weights_origins=self._pool.weights_origins,
                provenance=self._provenance,
                started=started,
            )
            receipt.stall_ms = (time.perf_counter() - started) * 1000
            self._writer.submit(partial(self._write, store, commit))

    def _states(self, names: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        return {name: live_state_dict(self._pool[name], name=name) for name in names}

    def _frozen_to_watch(self, epoch: int) -> dict[str, Mapping[str, Any]]:
        """Give the frozen modules once an epoch: reading them costs memory traffic."""
        if self._frozen_watch is None or epoch == self._watched_epoch:
            return {}
        self._watched_epoch = epoch
        return self._states(self._members(FRZN))

    def _write(self, store: Store, commit: Commit) -> None:
        """Put a commit on disk; runs in the writer's thread."""
        receipt = commit.receipt
        if self._frozen_watch is not None:
            self._frozen_watch.check(commit.frozen)

        def make_record(before: CommitRecord | None) -> CommitRecord:
            added = store.objects.add_all(commit.images)
            receipt.bytes_written = sum(one.bytes_written for one in added.values())
            receipt.bytes_shared = sum(
                one.stored.size_bytes for one in added.values() if not one.bytes_written
            )
            return next_record(before, commit, added)

        needed_bytes = sum(image.size_bytes for image in commit.images.values())
        with disk_errors(self.path, needed_bytes=needed_bytes):
            receipt.commit = store.commit(make_record).number
        receipt.write_ms = (time.perf_counter() - commit.started) * 1000
        receipt.durable = True

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what a save raises into one error; what it proposed as best is taken back."""
        try:
            with disk_errors(self.path):
                yield
        except BaseException:
            self._watched_epoch = None
            if self._store is not None:
                record = self._store.record
                self.best.restore(record.best if record else None)
            raise
