"""Saves the modules of a pool into a store: copies at once, writes in a thread."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from pymodules_core.checkpoints.best import BestTracker
from pymodules_core.checkpoints.file_buffer import Staging
from pymodules_core.checkpoints.file_format.layout_version import LayoutVersion, put_mark
from pymodules_core.checkpoints.file_format.state_dict import live_state_dict, refuse_unsaveable
from pymodules_core.checkpoints.saving.commits import (
    STATE,
    Commit,
    CommitResult,
    pool_provenance,
    write_commit,
)
from pymodules_core.checkpoints.saving.frozen_check import FrozenCheck
from pymodules_core.checkpoints.saving.writer_thread import Writer
from pymodules_core.checkpoints.sharded.index import has_parts, local_parts, refuse_parts
from pymodules_core.checkpoints.sharded.saver import SavedParts
from pymodules_core.checkpoints.store.disk_errors import disk_errors
from pymodules_core.checkpoints.store.file_system import Disk
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import CommitRecord, record_numbers
from pymodules_core.checkpoints.store.store import Store
from pymodules_core.errors import CheckpointError, ExistingRunError, display_path, list_words
from pymodules_core.module_pool import ModulePool
from pymodules_core.names import FRZN
from pymodules_core.processes.group import Processes


class Saver:
    """Makes commits of the live modules.

    Args:
        path: Folder of the pools.
        pool: The modules.
        best: Learns of a value that is taken, and forgets it where it could not be saved.
        keep_epochs: How many ``epoch_<n>`` stay.
        is_asynchronous: In a thread.
        link: ``copy`` lets nothing be shared on disk.
        fsync_files: Files that are made durable before a commit is.
        provenance: Kept with every commit.
        processes: Who saves together; the first one writes.

    Attributes:
        store: Where to; None until there is one.
    """

    def __init__(
        self,
        path: Path,
        pool: ModulePool,
        best: BestTracker,
        *,
        keep_epochs: int | Literal["all"],
        is_asynchronous: bool,
        link: Literal["auto", "copy"],
        fsync_files: tuple[Path, ...],
        provenance: Mapping[str, Any],
        processes: Processes,
    ) -> None:
        self._processes = processes
        self._parts = SavedParts(processes, path)
        self.store: Store | None = None
        self._path = path
        self._pool = pool
        self._best = best
        self._keep_epochs = keep_epochs
        self._link = link
        self._fsync_files = fsync_files
        self._provenance = pool_provenance(pool) | dict(provenance)
        self._frozen_check: FrozenCheck | None = None
        self._staging = Staging()
        self._writer = Writer(is_asynchronous=is_asynchronous)

    def make_store(self) -> None:
        """Open a new store.

        Raises:
            ExistingRunError: There is one already.
            StoreLockedError: Another process writes to it.
            CheckpointError: The disk refuses.
        """
        with disk_errors(self._path):
            self._path.mkdir(parents=True, exist_ok=True)
        self.open_store()
        if self.store is not None and self.store.record is not None:  # another writer was faster
            raise existing_run(self._path, list(self.store.record.pools))

    def open_store(self, *, is_thorough: bool = False) -> CommitRecord | None:
        """Open the store for writing, and return its newest whole commit.

        Args:
            is_thorough: Read every byte of what is there before it is held for whole.

        Raises:
            StoreLockedError: Another process writes to it.
            CheckpointError: The disk refuses, or what is there is of a newer format.
        """
        with disk_errors(self._path):
            self.store = Store(Layout(self._path), link=self._link, is_thorough=is_thorough)
        return self.store.record

    def drop_store(self) -> None:
        """Let other writers in; nothing can be saved any more."""
        if self.store is not None and self._writer.is_idle:
            self.store.close()
            self.store = None

    def members(self, pool_name: str) -> list[str]:
        """Return the modules that belong to a checkpoint pool."""
        return [n for n in self._pool if self._pool.is_frozen(n) == (pool_name == FRZN)]

    def watch_frozen(self) -> None:
        """Remember what the frozen modules are: they are not saved again."""
        frozen = self.members(FRZN)
        self._staging.forget(frozen)
        if self._processes.is_first:
            self._frozen_check = FrozenCheck(self._frozen_states(frozen))

    def save(
        self,
        receipt: CommitResult,
        metrics: Mapping[str, float],
        *,
        state: Mapping[str, Any] | None,
        module_states: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Copy what changed, and leave the rest to the writer.

        What is sharded is gathered and written at once: kept until the writer has the time, it
        would all be whole in the first process's memory.

        Args:
            receipt: Says which pools, and is filled in.
            metrics: What was measured of these weights.
            state: The training state that belongs to them.
            module_states: Module name to what is its own of it.

        Raises:
            CheckpointError: There is no store yet, something cannot be saved, or an earlier commit
                could not be written.
        """
        started = time.perf_counter()
        store = self.store
        if store is None and self._processes.is_first:
            raise CheckpointError(
                f"nothing can be committed to {display_path(self._path)} before start()",
                fix="call start() once, which writes frzn, init and last; or resume() to continue",
            )
        members = {pool_name: self.members(pool_name) for pool_name in receipt.pools}
        states = self._states(dict.fromkeys(chain.from_iterable(members.values())))
        apart = self._split_off(states)
        if state is not None:
            refuse_unsaveable(state, owner="the training state")
            refuse_parts(state, owner="the training state")
            states[STATE] = state
        keys = {name: f"{STATE} of {name}" for name in module_states}
        owners = {name: name for name in apart} | {key: name for name, key in keys.items()}
        apart |= {key: module_states[name] for name, key in keys.items()}
        sharded = [
            key
            for key, name in owners.items()
            if has_parts(apart[key]) and self._pool.settings[name].sharded
        ]
        with self._reporting():
            added = self._parts.save(apart, sharded, store, self._writer.wait)
            if receipt.best_moved:
                self._best.take(metrics, epoch=receipt.epoch)
            if store is None:
                return
            images = self._staging.take(states, self._writer.wait)
            commit = Commit(
                receipt=receipt,
                members=members,
                images=images,
                metrics=metrics,
                best=self._best.stored(),
                module_names=frozenset(self._pool),
                keep_epochs=self._keep_epochs,
                added=added,
                module_states=keys,
                frozen=self._frozen_to_watch(receipt.epoch),
                weights_origins=self._pool.weights_origins,
                provenance=self._provenance,
                started=started,
            )
            receipt.stall_ms = (time.perf_counter() - started) * 1000
            self._writer.submit(partial(self._write, store, commit))

    def raise_failure(self) -> None:
        """Raise what an earlier commit raised, without waiting."""
        with self._reporting():
            self._writer.raise_failure()

    def wait(self) -> None:
        """Return when everything is on disk."""
        with self._reporting():
            self._writer.wait()

    def close(self) -> None:
        """Finish and let other writers in; safe to call twice."""
        try:
            with self._reporting():
                self._writer.close()
        finally:
            self._staging.close()
            self.drop_store()

    def _write(self, store: Store, commit: Commit) -> None:
        if self._frozen_check is not None:
            self._frozen_check.check(commit.frozen)
        for file in self._fsync_files:
            if file.exists():
                Disk().sync_path(file)
        write_commit(store, commit, self._path)

    def _frozen_to_watch(self, epoch: int) -> dict[str, Mapping[str, Any]]:
        is_due = self._frozen_check is not None and self._frozen_check.is_due(epoch)
        return self._frozen_states(self.members(FRZN) if is_due else ())

    def _frozen_states(self, names: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        return {name: local_parts(state) for name, state in self._states(names).items()}

    def _split_off(self, states: dict[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """Take the modules out of ``states`` that no single process can save."""
        apart = {name: states.pop(name) for name in list(states) if has_parts(states[name])}
        if self._processes.is_alone:
            for name, state in apart.items():
                refuse_parts(state, owner=f"module {name!r}")
        return apart

    def _states(self, names: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        states: dict[str, Mapping[str, Any]] = {}
        for name in names:
            entry = self._pool.entries[name]
            mark = LayoutVersion(entry.state_version, entry.origin.provider)
            states[name] = put_mark(live_state_dict(entry.module, name=name), mark)
        return states

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turn what a save raises into one error; what it proposed as best is taken back."""
        before = self._best.stored()
        try:
            with disk_errors(self._path):
                yield
        except BaseException:
            if self._frozen_check is not None:
                self._frozen_check.recheck()
            if self.store is not None and self._writer.is_idle:
                record = self.store.record
                self._best.restore(record.best if record else None)
            else:  # commits before this one are still on their way
                self._best.restore(before)
            raise


def existing_run(path: Path, there: list[str]) -> ExistingRunError:
    """Return the error for a folder that holds a run.

    Args:
        path: The folder.
        there: Its pools.
    """
    layout, shown = Layout(path), display_path(path)
    fix = "choose another folder, or move this one aside"
    if record_numbers(layout):
        fix = f"resume() continues it; else {fix}"
    elif layout.store.is_dir():  # somebody took the commits away
        fix = f"pymodules ckpt repair {shown} makes a commit of what is there; else {fix}"
    return ExistingRunError(
        f"{shown} holds a run already: {list_words(there)}", found=there, fix=fix
    )
