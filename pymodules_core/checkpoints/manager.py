"""``CheckpointManager``: the checkpoint pools of one run."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pymodules_core.checkpoints.best import BestTracker
from pymodules_core.checkpoints.file_format.state_dict import live_state_dict
from pymodules_core.checkpoints.loading.apply import load_modules
from pymodules_core.checkpoints.loading.match import LoadReport
from pymodules_core.checkpoints.loading.pool_reader import PoolReader
from pymodules_core.checkpoints.loading.resume_point import (
    Resumed,
    ResumePoint,
    read_resume_point,
    resumed,
)
from pymodules_core.checkpoints.saving import arguments
from pymodules_core.checkpoints.saving.commits import CommitResult
from pymodules_core.checkpoints.saving.saver import Saver, existing_run
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import CommitRecord, record_numbers
from pymodules_core.errors import CheckpointFileError, PymodulesError
from pymodules_core.module_pool import ModulePool
from pymodules_core.names import BEST, FRZN, INIT, LAST, pool_sort_key
from pymodules_core.processes.group import Processes

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
        fsync_files: Files that a commit's ``state`` refers to, such as a log whose length it holds:
            made durable before the commit is.
        provenance: Kept with every commit: JSON values that say how the run came about. Origins
            of modules and versions are kept in any case.
        processes: Several processes call every method together, and the first one writes; None for
            one that saves alone.

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
        fsync_files: Iterable[Path] = (),
        provenance: Mapping[str, Any] | None = None,
        processes: Processes | None = None,
    ) -> None:
        self._processes = processes or Processes.alone()
        arguments.check_arguments(
            mode=mode, min_delta=min_delta, keep_epochs=keep_epochs, link=link
        )
        self.path = Path(path).absolute()
        self.best = BestTracker(monitor, mode, min_delta)
        self._pool = pool
        self._reader = PoolReader(self.path)
        self._saver = Saver(
            self.path,
            pool,
            self.best,
            keep_epochs=keep_epochs,
            is_asynchronous=asynchronous,
            link=link,
            fsync_files=tuple(fsync_files),
            provenance=provenance or {},
            processes=self._processes,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.close()
        except (PymodulesError, OSError) as second:
            if error is None:
                raise
            # It must not hide why the block ended.
            logger.warning("%s", second)

    @property
    def has_commit(self) -> bool:
        """Whether there is something to ``resume`` from."""
        return self._processes.run_on_rank0(self._has_record)

    @property
    def newest_commit(self) -> int | None:
        """Number of the newest commit on disk; None before the first, and where others write."""
        record = self._saver.store.record if self._saver.store else None
        return record.number if record else None

    def start(
        self,
        *,
        state: Mapping[str, Any] | None = None,
        module_states: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> CommitResult:
        """Save frozen modules to ``frzn`` and all others to ``init`` and ``last``.

        Args:
            state: The training state that belongs to these weights: tensors and primitives.
            module_states: As for ``commit``.

        Raises:
            ExistingRunError: The folder holds pools already.
            StoreLockedError: Another process writes to it.
            CheckpointError: Weights that settings ask for are not loaded, or a module cannot be
                saved.
        """
        if there := self.pools():
            raise existing_run(self.path, there)
        arguments.check_weights_loaded(self._pool)
        for name in self._pool:  # what cannot be saved is reported before anything is written
            live_state_dict(self._pool[name], name=name)
        receipt = CommitResult(pools=(FRZN, INIT, LAST), epoch=0, step=0, best_moved=False)
        try:
            self._processes.run_on_rank0(self._saver.make_store)
            self._saver.save(receipt, {}, state=state, module_states=module_states or {})
            # A folder that cannot be written to is reported before the first step.
            self._processes.run_on_rank0(self.wait)
            self._saver.watch_frozen()
        except BaseException:
            self._saver.drop_store()
            raise
        return receipt

    def resume(self, *, allow_new: bool = False) -> Resumed:
        """Resume from the newest commit: its weights go into the live modules, all or none.

        Frozen modules come from ``frzn``, all others from ``last``, and ``best`` is what it was.
        Weights of modules that are not in the pool any more stay in the store.

        Args:
            allow_new: Modules that the commit does not know keep the weights they have, and are
                saved from the next commit on; those that settings ask for are still to be loaded.

        Raises:
            CheckpointNotFoundError: There is no commit, or it lacks a module.
            StoreLockedError: Another process writes to the folder.
            CheckpointFileError: No commit is whole.
            WeightMismatchError: A module's keys or shapes differ, or its version cannot be
                migrated.
            PluginError: A plugin fails to migrate weights of an older version.
            CheckpointError: A module's own load hook raises.
        """
        opened: ResumePoint | None = None

        def open_first() -> CommitRecord:
            nonlocal opened
            opened = self._open_resume_point(allow_new=allow_new)
            return opened.record

        def load() -> tuple[ResumePoint, dict[str, LoadReport]]:
            point = opened or read_resume_point(
                self._reader, record, self._pool, allow_new=allow_new
            )
            return point, load_modules(self._pool, point.modules, strict=True, is_exact=True)

        try:
            # Which commit it is the first one says: a file system may show the others an old one.
            record = self._processes.run_on_rank0(open_first)
            point, reports = self._processes.run_on_all(load)
        except BaseException:
            self._saver.drop_store()
            raise
        self.best.resume(point.record.best)
        self._pool.pending_weights.difference_update(reports)
        self._saver.watch_frozen()
        return resumed(point, reports)

    def commit(
        self,
        *pools: str,
        epoch: int,
        step: int = 0,
        metrics: Mapping[str, float] | None = None,
        state: Mapping[str, Any] | None = None,
        module_states: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> CommitResult:
        """Save the modules as they are now.

        Args:
            pools: ``"last"``, ``"best"``, ``"epoch_<n>"``. Naming ``best`` proposes these weights;
                they are taken if the monitored metric improved.
            epoch: The epoch, 0 before training.
            step: Train steps so far.
            metrics: Name to value; must hold the monitored one where ``best`` is proposed.
            state: The training state that belongs to these weights, where ``last`` is named:
                tensors and primitives.
            module_states: Module name to its part of the training state, such as the state that an
                optimizer keeps for a sharded module; gathered or sharded as the module is.

        Returns:
            What was written, or will be where saving is asynchronous.

        Raises:
            InvalidNameError: No such pool.
            CheckpointError: No pool is named, or ``frzn`` or ``init`` is; there is a state without
                ``last``, a metric is not a number, the monitored one is missing, ``start`` was not
                called, a module cannot be saved, or an earlier commit could not be written.
            FrozenModuleError: A frozen module has changed; checked once an epoch, and raised by a
                later call where saving is asynchronous.
        """
        arguments.check_pools(pools, has_state=state is not None)
        metrics = arguments.metric_values(metrics or {})
        best_moved = BEST in pools and self.best.is_better(metrics)
        wanted = {name for name in pools if name != BEST or best_moved}
        written = tuple(sorted(wanted, key=pool_sort_key))
        receipt = CommitResult(pools=written, epoch=epoch, step=step, best_moved=best_moved)
        self._saver.raise_failure()
        self._saver.save(receipt, metrics, state=state, module_states=module_states or {})
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
            WeightMismatchError: A module's keys or shapes differ, or its version cannot be
                migrated.
            PluginError: A plugin fails to migrate weights of an older version.
            CheckpointError: A module's own load hook raises.
        """
        self._processes.run_on_rank0(self.wait)
        names = list(modules) if modules is not None else self._saver.members(pool_name)
        return self._processes.run_on_all(
            lambda: load_modules(self._pool, self._reader.read(pool_name, names), strict=strict)
        )

    def pools(self) -> list[str]:
        """Return the pools that are committed, in the order of a run."""
        self._processes.run_on_rank0(self.wait)
        return self._processes.run_on_rank0(self._reader.pools)

    def wait(self) -> None:
        """Return when everything committed is on disk.

        Raises:
            CheckpointError: A commit could not be written; those before it are intact.
        """
        self._saver.wait()

    def close(self) -> None:
        """Finish and let other writers in; safe to call twice.

        Raises:
            CheckpointError: A commit could not be written; those before it are intact.
        """
        self._saver.close()

    def _has_record(self) -> bool:
        return bool(record_numbers(Layout(self.path)))

    def _open_resume_point(self, *, allow_new: bool) -> ResumePoint:
        # Before a store is made where there is none.
        record = self._saver.open_store() if self._has_record() else None
        try:
            return read_resume_point(self._reader, record, self._pool, allow_new=allow_new)
        except CheckpointFileError:
            # Its time and size are right and its bytes are not: read every byte.
            self._saver.drop_store()
            record = self._saver.open_store(is_thorough=True)
            return read_resume_point(self._reader, record, self._pool, allow_new=allow_new)
