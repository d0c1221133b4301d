"""How a manager opens its folder: for a new run, or at the commit that a run goes on from."""

from pathlib import Path

from pymodules_core.checkpoints.loading.pool_reader import PoolReader
from pymodules_core.checkpoints.loading.resume_point import ResumePoint, read_resume_point
from pymodules_core.checkpoints.saving.saver import Saver
from pymodules_core.checkpoints.store.disk_errors import disk_errors
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import CommitRecord, record_numbers
from pymodules_core.errors import (
    CheckpointFileError,
    CheckpointNotFoundError,
    ExistingRunError,
    display_path,
    list_words,
)
from pymodules_core.module_pool import ModulePool
from pymodules_core.names import FRZN, LAST


class Opening:
    """Gives a saver its store. Of several processes only the first one opens it.

    Args:
        path: Folder of the pools.
        pool: Today's modules.
        saver: Gets the store.
        reader: Of the pools.
    """

    def __init__(self, path: Path, pool: ModulePool, saver: Saver, reader: PoolReader) -> None:
        self._path = path
        self._pool = pool
        self._saver = saver
        self._reader = reader

    def has_record(self) -> bool:
        """Tell whether there is a commit."""
        return bool(record_numbers(Layout(self._path)))

    def make_store(self) -> None:
        """Open a new store.

        Raises:
            ExistingRunError: There is one already.
            StoreLockedError: Another process writes to it.
            CheckpointError: The disk refuses.
        """
        with disk_errors(self._path):
            self._path.mkdir(parents=True, exist_ok=True)
        store = self._saver.open_store()
        if store.record is not None:  # another writer was faster
            store.close()
            raise existing_run(self._path, list(store.record.pools))
        self._saver.store = store

    def open_resume_point(self, *, allow_new: bool) -> ResumePoint:
        """Open the store that is there, and read what its newest whole commit holds.

        Args:
            allow_new: As for ``CheckpointManager.resume``, which says what is raised.
        """
        if not self.has_record():  # before a store is made where none is
            raise self._nothing_to_resume()
        try:
            return self._open(is_thorough=False, allow_new=allow_new)
        except CheckpointFileError:
            # Its time and size are right and its bytes are not: look at every byte.
            return self._open(is_thorough=True, allow_new=allow_new)

    def read_resume_point(self, record: CommitRecord | None, *, allow_new: bool) -> ResumePoint:
        """Read what a commit holds of today's modules."""
        if record is None:
            raise self._nothing_to_resume()
        others = self._saver.members(LAST)
        if allow_new:
            others = [name for name in others if name in record.pools[LAST].modules]
        frozen = self._saver.members(FRZN)
        return read_resume_point(self._reader, record, self._pool, frozen=frozen, others=others)

    def _open(self, *, is_thorough: bool, allow_new: bool) -> ResumePoint:
        store = self._saver.open_store(is_thorough=is_thorough)
        try:
            moment = self.read_resume_point(store.record, allow_new=allow_new)
        except BaseException:
            store.close()
            raise
        self._saver.store = store
        return moment

    def _nothing_to_resume(self) -> CheckpointNotFoundError:
        return CheckpointNotFoundError(
            "holds no commit to go on from", file=self._path, fix="call start() for a new run"
        )


def existing_run(path: Path, there: list[str]) -> ExistingRunError:
    """Say that a folder holds a run.

    Args:
        path: The folder.
        there: Its pools.
    """
    layout, shown = Layout(path), display_path(path)
    fix = "choose another folder, or move this one aside"
    if record_numbers(layout):
        fix = f"resume() goes on with it; else {fix}"
    elif layout.store.is_dir():  # somebody took the commits away
        fix = f"pymodules ckpt repair {shown} makes a commit of what is there; else {fix}"
    return ExistingRunError(
        f"{shown} holds a run already: {list_words(there)}", found=there, fix=fix
    )
