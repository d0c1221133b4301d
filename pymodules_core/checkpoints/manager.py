"""``CheckpointManager``: the checkpoint pools of one run."""

import contextlib
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from pymodules_core.checkpoints.applying import apply_weights
from pymodules_core.checkpoints.best import BestTracker
from pymodules_core.checkpoints.files import (
    TEMPORARY_PREFIX,
    checkpoint_files,
    disk_errors,
    read_state_dict,
    serialise,
    sync_folder,
    write_file,
)
from pymodules_core.checkpoints.loading import LoadReport, match_weights
from pymodules_core.checkpoints.receipt import Receipt
from pymodules_core.checkpoints.state_dicts import plain_state_dict
from pymodules_core.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ExistingRunError,
    closest_match,
    display_path,
    list_words,
)
from pymodules_core.module_pool import ModulePool
from pymodules_core.names import (
    BEST,
    CHECKPOINT_SUFFIX,
    FRZN,
    INIT,
    LAST,
    check_pool_name,
    epoch_pool,
    parse_epoch_pool,
    pool_sort_key,
)

if TYPE_CHECKING:
    from typing import Self

    from torch import nn


class CheckpointManager:
    """Saves and loads a pool's modules as ``<path>/<pool>/<module_name>.pt``.

    Frozen modules are saved once, to ``frzn``; all others to ``init``, ``last``, ``best`` and
    ``epoch_<n>``. Every file is a plain state dict that ``torch.load(weights_only=True)`` opens.

    Args:
        path: Folder of the pools.
        pool: The modules.
        monitor: The metric that decides ``best``.
        mode: Whether a smaller or a larger value is better.
        min_delta: How much better it has to be.
        keep_epochs: How many ``epoch_<n>`` pools stay; the oldest go first.

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
    ) -> None:
        self.path = Path(path).absolute()
        self.best = BestTracker(monitor, mode, min_delta)
        self._pool = pool
        self._keep_epochs = keep_epochs
        self._has_started = False

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> Receipt:
        """Save frozen modules to ``frzn`` and all others to ``init`` and ``last``.

        Raises:
            ExistingRunError: The folder holds pools already.
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
        receipt = self._write([FRZN, INIT, LAST], epoch=0, step=0, best_moved=False)
        self._has_started = True
        return receipt

    def commit(
        self,
        *pools: str,
        epoch: int,
        step: int = 0,
        metrics: Mapping[str, float] | None = None,
    ) -> Receipt:
        """Save the modules as they are now.

        Args:
            pools: ``"last"``, ``"best"``, ``"epoch_<n>"``. Naming ``best`` proposes these weights;
                they are taken if the monitored metric improved.
            epoch: The epoch, 0 before training.
            step: Train steps so far.
            metrics: Name to value; must hold the monitored one where ``best`` is proposed.

        Raises:
            InvalidNameError: No such pool.
            CheckpointError: No pool, ``frzn`` or ``init`` is named, the monitored metric is
                missing, ``start`` was not called, or a file cannot be written.
        """
        if not pools:
            raise CheckpointError("commit() names no pool", fix='commit("last", epoch=epoch)')
        for name in pools:
            check_pool_name(name)
            if name in {FRZN, INIT}:
                raise CheckpointError(
                    f"pool {name!r} is written by start() only", found=name, fix="commit 'last'"
                )
        wanted = list(pools)
        best_moved = False
        if BEST in wanted:
            best_moved = self.best.is_better(metrics or {})
            if not best_moved:
                wanted.remove(BEST)
        if not self._has_started:
            raise CheckpointError(
                f"nothing can be committed to {display_path(self.path)} before start()",
                fix="call start() once; it writes frzn, init and last, and refuses another's run",
            )
        receipt = self._write(wanted, epoch=epoch, step=step, best_moved=best_moved)
        if best_moved:
            # Not before: a write that fails must not raise the bar for the next.
            self.best.take(metrics or {}, epoch=epoch)
        self._drop_old_epochs()
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
            CheckpointFileError: A file is damaged or unsafe.
            WeightMismatchError: A module's keys or shapes differ.
            CheckpointError: A module's own load hook raises.
        """
        check_pool_name(pool_name, existing=self.pools())
        files = checkpoint_files(self.path / pool_name)
        names = list(modules) if modules is not None else self._members(pool_name)
        for name in names:
            if name not in files:
                raise CheckpointNotFoundError(
                    f"pool {pool_name!r} has no module {name!r}; it has: {list_words(files)}",
                    file=self.path / pool_name,
                    found=name,
                    closest=closest_match(name, files),
                )
        matched = {
            name: match_weights(
                read_state_dict(files[name]),
                self._pool[name],
                module_name=name,
                source=files[name],
                strict=strict,
                is_foreign=False,
            )
            for name in names
        }
        apply_weights((self._pool[name], *match) for name, match in matched.items())
        return {name: report for name, (_, report) in matched.items()}

    def pools(self) -> list[str]:
        """Give the pools on disk, in the order of a run."""
        if not self.path.is_dir():
            return []
        names = (folder.name for folder in self.path.iterdir() if folder.is_dir())
        known = [n for n in names if n in {FRZN, INIT, LAST, BEST} or parse_epoch_pool(n)]
        return sorted(known, key=pool_sort_key)

    def wait(self) -> None:
        """Return when everything committed is on disk; commits are synchronous, so at once."""

    def close(self) -> None:
        """Finish; safe to call twice."""
        self.wait()

    def _members(self, pool_name: str) -> list[str]:
        return [n for n in self._pool if self._pool.is_frozen(n) == (pool_name == FRZN)]

    def _write(self, pools: list[str], *, epoch: int, step: int, best_moved: bool) -> Receipt:
        start = time.perf_counter()
        # Serialise before the first write: a module that cannot be saved leaves no half pool.
        contents: dict[str, dict[str, bytes]] = {}
        trained: dict[str, bytes] | None = None
        for pool_name in sorted(set(pools), key=pool_sort_key):
            if pool_name == FRZN:
                contents[pool_name] = self._serialise(self._members(FRZN))
            else:
                trained = trained or self._serialise(self._members(pool_name))
                contents[pool_name] = trained
        bytes_written = 0
        for pool_name, files in contents.items():
            folder = self.path / pool_name
            with disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                _remove_leftovers(folder)
            for name, content in files.items():
                write_file(folder / f"{name}{CHECKPOINT_SUFFIX}", content)
                bytes_written += len(content)
            sync_folder(folder)
        sync_folder(self.path)
        elapsed_ms = (time.perf_counter() - start) * 1000
        return Receipt(
            pools=tuple(contents),
            epoch=epoch,
            step=step,
            best_moved=best_moved,
            stall_ms=elapsed_ms,
            write_ms=elapsed_ms,
            bytes_written=bytes_written,
            bytes_shared=0,
            durable=True,
        )

    def _serialise(self, names: list[str]) -> dict[str, bytes]:
        modules: dict[str, nn.Module] = {name: self._pool[name] for name in names}
        return {
            name: serialise(plain_state_dict(module, name=name)) for name, module in modules.items()
        }

    def _drop_old_epochs(self) -> None:
        if self._keep_epochs == "all":
            return
        epochs = sorted(filter(None, map(parse_epoch_pool, self.pools())))
        for epoch in epochs[: -self._keep_epochs]:
            folder = self.path / epoch_pool(epoch)
            with disk_errors(folder):
                shutil.rmtree(folder)


def _remove_leftovers(folder: Path) -> None:
    """Clear temporary files of a process that was killed in mid-write."""
    for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
