"""Saves what several processes hold parts of: gathered into one file, or in shards."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from pymodules_core.checkpoints.file_buffer import make_file
from pymodules_core.checkpoints.sharded import index_of, layout_of, write_shards
from pymodules_core.checkpoints.sharded.gather import gather_file
from pymodules_core.checkpoints.store.disk_errors import disk_errors
from pymodules_core.checkpoints.store.objects import Added
from pymodules_core.checkpoints.store.store import Store
from pymodules_core.errors import CheckpointError, RankFailedError
from pymodules_core.processes.group import Processes

if TYPE_CHECKING:
    from pymodules_core.checkpoints.file_buffer import Pages


class SavedParts:
    """Puts states into a store, one after the other, before a commit names them.

    Args:
        processes: Who has parts; the first one writes what is gathered.
        path: Folder of the pools, for messages.
    """

    def __init__(self, processes: Processes, path: Path) -> None:
        self._processes = processes
        self._path = path
        self._pages: Pages | None = None
        # Name to what was saved last, and its object in the first process.
        self._saved: dict[str, tuple[str, Added | None]] = {}

    def save(
        self,
        states: Mapping[str, Mapping[str, Any]],
        sharded: Collection[str],
        store: Store | None,
        wait: Callable[[], object],
    ) -> dict[str, Added]:
        """Save states; every process has to call it, with states of the same names.

        Args:
            states: Name to state.
            sharded: The names of those to be saved in shards.
            store: Where to, in the first process.
            wait: Returns when nobody else writes to the store.

        Returns:
            Name to object, in the first process.

        Raises:
            OSError: The disk refuses.
            RankFailedError: It refuses in another process.
        """
        if not states:
            return {}
        try:
            return self._save(states, sharded, store, wait)
        except (OSError, CheckpointError, RankFailedError):
            if store is not None:
                store.clean_up()
            raise

    def _save(
        self,
        states: Mapping[str, Mapping[str, Any]],
        sharded: Collection[str],
        store: Store | None,
        wait: Callable[[], object],
    ) -> dict[str, Added]:
        self._processes.run_on_rank0(lambda: self._make_ready(store, wait))
        added: dict[str, Added] = {}
        fault: Exception | None = None
        for name in sharded:
            added |= self._save_shards(name, states[name], store)
        for name, state in states.items():
            if name in sharded:
                continue
            image = gather_file(state, is_first=self._processes.is_first, memory=self._pages)
            if image is None or store is None or fault is not None:
                continue
            self._pages = image.memory
            try:
                with disk_errors(self._path, needed_bytes=image.size_bytes):
                    added[name] = store.objects.add(image)
            except CheckpointError as error:
                # The others go through all states: first they have to be met in each.
                fault = error

        def tell() -> None:
            if fault is not None:
                raise fault

        self._processes.run_on_rank0(tell)
        return added

    def _save_shards(
        self, name: str, state: Mapping[str, Any], store: Store | None
    ) -> dict[str, Added]:
        layout = layout_of(state, self._processes)
        known_layout, known = self._saved.get(name, (None, None))

        def is_there() -> bool:
            return known is not None and store is not None and store.objects.has(known)

        # Which it is not where a commit failed after it was added, or somebody damaged it.
        if known_layout == layout and self._processes.run_on_rank0(is_there):
            # None in all processes but the first.
            return {name: attrs.evolve(known, bytes_written=0)} if known else {}
        folder = self._processes.run_on_rank0(lambda: store.make_stage(name) if store else Path())
        shards = write_shards(state, folder, self._processes)

        def add() -> None:
            if store is not None:
                files = {shard.file_name: shard.written for shard in shards}
                index = make_file(index_of(state, shards))
                self._saved[name] = layout, store.objects.add_in_parts(index, files)

        self._saved[name] = layout, None
        self._processes.run_on_rank0(add)
        made = self._saved[name][1]
        return {name: made} if made else {}

    def _make_ready(self, store: Store | None, wait: Callable[[], object]) -> None:
        wait()
        if store is not None:
            store.settle()
