"""Reads pools through the commit record, so that what is read belongs together and is whole."""

import logging
import stat
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import attrs

from pymodules_core.checkpoints.file_format.content_checks import refuse_strange_tensors
from pymodules_core.checkpoints.file_format.read import read_own_file
from pymodules_core.checkpoints.sharded.folder import checkpoint_files, read_state_dict
from pymodules_core.checkpoints.sharded.read import Like, chunks_in_file, read_shards
from pymodules_core.checkpoints.store.checksums import checksum_of_file
from pymodules_core.checkpoints.store.paths import Layout
from pymodules_core.checkpoints.store.records import (
    ATTEMPTS,
    CommitRecord,
    readable_records,
    record_numbers,
)
from pymodules_core.checkpoints.store.views import view_name
from pymodules_core.errors import (
    CheckpointError,
    CheckpointFileError,
    CheckpointNotFoundError,
    closest_match,
    list_words,
)
from pymodules_core.names import check_pool_name, pool_names_in, pool_sort_key
from pymodules_core.specs import DistributionOrigin

logger = logging.getLogger("pymodules_core")


@attrs.frozen(kw_only=True)
class StoredModule:
    """One module as it was read.

    Attributes:
        state: Keys to tensors and primitives. The tensors may lie in the file itself: copy them.
        file: Where people see it.
        digest: Of its content; None for a plain file outside a store.
        epoch: The epoch of the weights, None where that is not known.
        writer: The plugin that the commit says it was built by; None for modules of any other
            origin, and where that is not known.
    """

    state: OrderedDict[str, Any]
    file: Path
    digest: str | None = None
    epoch: int | None = None
    writer: DistributionOrigin | None = None


class PoolReader:
    """The pools of one folder, for reading; a writer may be at work meanwhile.

    Args:
        path: ``module_ckps`` of an experiment, or any folder of pools.
        root: Plain files in it may be links to within this folder; by default to within ``path``.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path, *, root: Path | None = None) -> None:
        self.path = path
        self._layout = Layout(path)
        self._root = root or path

    def pools(self) -> list[str]:
        """Return the pools there are, in the order of a run."""
        records = readable_records(self._layout)
        names = records[0].pools if records else pool_names_in(self.path)
        return sorted(names, key=pool_sort_key)

    def modules(self, pool_name: str) -> list[str]:
        """Return the names of the modules in a pool, sorted; none where there is no such pool.

        Raises:
            InvalidNameError: No pool is called so.
        """
        records = readable_records(self._layout)
        if not records:
            return sorted(checkpoint_files(self._layout.view(pool_name)))
        pools = records[0].pools
        check_pool_name(pool_name, existing=sorted(pools, key=pool_sort_key))
        return sorted(pools[pool_name].modules) if pool_name in pools else []

    def read(self, pool_name: str, modules: Iterable[str] | None = None) -> dict[str, StoredModule]:
        """Read modules of a pool, all from one commit.

        Args:
            pool_name: The pool.
            modules: Their names; all by default.

        Raises:
            CheckpointNotFoundError: No such pool or module.
            CheckpointFileError: A file is damaged, and no commit before it has the pool whole.
        """
        wanted = None if modules is None else list(modules)
        for _ in range(ATTEMPTS):
            records = readable_records(self._layout)
            if not records:
                return self._read_plain(pool_name, wanted)
            check_pool_name(pool_name, existing=sorted(records[0].pools, key=pool_sort_key))
            try:
                return self._read_newest(records, pool_name, wanted)
            except FileNotFoundError as error:
                if isinstance(error, CheckpointError):
                    raise
                # The objects of a commit that two newer ones have replaced: look again.
        raise CheckpointFileError(
            "changes faster than it can be read", file=self.path, fix="try again"
        )

    def read_from(
        self,
        record: CommitRecord,
        pool_name: str,
        names: Collection[str],
        *,
        like: Callable[[str], Like] | None = None,
    ) -> dict[str, StoredModule]:
        """Read modules of a pool as one commit has them.

        Args:
            record: The commit.
            pool_name: The pool.
            names: The modules.
            like: Given a module's name, gives what its tensors are like: of those that are DTensors
                only this process's is read, where they are stored in shards.

        Raises:
            CheckpointNotFoundError: The commit has no such pool or module.
            CheckpointFileError: An object is damaged.
            FileNotFoundError: An object is gone, since two newer commits have replaced this one.
        """
        pool = record.pools.get(pool_name)
        self._check_modules(pool_name, names, pool.modules if pool else ())
        if pool is None:
            return {}
        return {
            name: StoredModule(
                state=self._read_object(
                    pool.modules[name], record, like=like(name) if like else None
                ),
                file=self._layout.view(pool_name) / view_name(record, name, pool.modules[name]),
                digest=pool.modules[name],
                epoch=pool.epoch,
                writer=record.provider_of(name),
            )
            for name in names
        }

    def read_state_of(self, record: CommitRecord) -> OrderedDict[str, Any] | None:
        """Read the training state of a commit into memory of its own; None where it has none.

        Raises:
            CheckpointFileError: It is damaged.
        """
        if record.state is None:
            return None
        return self._read_object(record.state, record, is_mapped=False)

    def read_module_states(
        self, record: CommitRecord, *, like: Like | None = None
    ) -> dict[str, OrderedDict[str, Any]]:
        """Read what of the training state of a commit is a module's own, by module name.

        Args:
            record: The commit.
            like: As for ``read_from``.

        Raises:
            CheckpointFileError: It is damaged.
        """
        return {
            name: self._read_object(digest, record, is_mapped=False, like=like)
            for name, digest in record.module_states.items()
        }

    def _read_newest(
        self, records: list[CommitRecord], pool_name: str, wanted: list[str] | None
    ) -> dict[str, StoredModule]:
        fault: CheckpointFileError | None = None
        for record in (one for one in records if pool_name in one.pools):
            try:
                found = self._read_whole(record, pool_name, wanted, newest=records[0])
            except CheckpointFileError as error:
                fault = fault or error
                continue
            if fault is not None:
                logger.warning(
                    "%s\n  read instead: %s of commit %d, epoch %d",
                    fault,
                    pool_name,
                    record.number,
                    record.pools[pool_name].epoch,
                )
            return found
        raise fault or self._no_pool(pool_name)

    def _read_whole(
        self,
        record: CommitRecord,
        pool_name: str,
        wanted: list[str] | None,
        *,
        newest: CommitRecord,
    ) -> dict[str, StoredModule]:
        """Read modules of a commit; of all modules of the pool where none are named."""
        names = sorted(record.pools[pool_name].modules) if wanted is None else wanted
        try:
            return self.read_from(record, pool_name, names)
        except FileNotFoundError as error:
            is_replaced = record_numbers(self._layout)[:1] != [newest.number]
            if isinstance(error, CheckpointError) or is_replaced:  # look again
                raise
            raise CheckpointFileError(
                "is lost: a commit names it, and it is not there",
                file=Path(error.filename or str(error)),
                fix="pymodules ckpt repair takes it from the commit before, where that has it",
            ) from error

    def _read_object(
        self, digest: str, record: CommitRecord, *, is_mapped: bool = True, like: Like | None = None
    ) -> OrderedDict[str, Any]:
        path = self._checked(digest, record)
        if not (parts := record.objects[digest].parts):
            return read_own_file(path, is_mapped=is_mapped)
        files = [self._checked(part, record) for part in parts.values()]
        index = read_own_file(path, is_mapped=False)
        return read_shards(index, map(chunks_in_file, files), source=path, like=like)

    def _checked(self, digest: str, record: CommitRecord) -> Path:
        """Return the file of an object, every byte of which is as it was written."""
        path, stored = self._layout.object(digest), record.objects[digest]
        try:
            status = path.lstat()
            # A pipe would keep the reader waiting, and a link may lead anywhere.
            is_whole = (
                stat.S_ISREG(status.st_mode)
                and status.st_size == stored.size_bytes
                and checksum_of_file(path) == stored.checksum
            )
        except ValueError:
            is_whole = False
        if not is_whole:
            raise CheckpointFileError(
                "is damaged: its bytes are not those that were saved",
                file=path,
                found=digest,
                fix="pymodules ckpt verify names the pools it is in",
            )
        return path

    def _read_plain(self, pool_name: str, wanted: list[str] | None) -> dict[str, StoredModule]:
        if check_pool_name(pool_name, existing=self.pools()) not in self.pools():
            raise self._no_pool(pool_name)
        files = checkpoint_files(self._layout.view(pool_name))
        names = sorted(files) if wanted is None else wanted
        self._check_modules(pool_name, names, files)
        found = {}
        for name in names:
            state = read_state_dict(files[name], root=self._root)
            refuse_strange_tensors(files[name], state)
            found[name] = StoredModule(state=state, file=files[name])
        return found

    def _no_pool(self, pool_name: str) -> CheckpointNotFoundError:
        there = self.pools()
        return CheckpointNotFoundError(
            f"there is no pool {pool_name!r}; there are: {list_words(there)}",
            file=self.path,
            found=pool_name,
            closest=closest_match(pool_name, there),
            fix=None if there else "name a folder that holds pools",
        )

    def _check_modules(self, pool_name: str, names: Iterable[str], there: Collection[str]) -> None:
        for name in names:
            if name not in there:
                raise CheckpointNotFoundError(
                    f"pool {pool_name!r} has no module {name!r}; it has: {list_words(there)}",
                    file=self._layout.view(pool_name),
                    found=name,
                    closest=closest_match(name, there),
                )
