"""Saves what several processes hold parts of: gathered into one file, or in shards.

Of shards each process writes its own, at once and beside the others.
"""

import json
import logging
import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import safetensors.torch
import torch
from blake3 import blake3

from pymodules_core.checkpoints.file_buffer import CheckpointFile, Pages, make_file
from pymodules_core.checkpoints.file_format.digest import Content, memory_of
from pymodules_core.checkpoints.file_format.state_dict import map_tensors
from pymodules_core.checkpoints.sharded.index import identity_of_part, make_index, split
from pymodules_core.checkpoints.sharded.read import LENGTH_BYTES, TEXTS_KEY
from pymodules_core.checkpoints.store.checksums import checksum_of_file, fingerprint
from pymodules_core.checkpoints.store.disk_errors import disk_errors
from pymodules_core.checkpoints.store.file_system import Disk
from pymodules_core.checkpoints.store.objects import Added, Finished, Written
from pymodules_core.checkpoints.store.store import Store
from pymodules_core.errors import CheckpointError, RankFailedError
from pymodules_core.processes.dtensor import gathered, is_dtensor, local_tensor
from pymodules_core.processes.group import Processes


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
            self._processes.run_on_rank0(lambda: self._make_ready(store, wait))
            added: dict[str, Added] = {}
            for name in sharded:
                added |= self._save_shards(name, states[name], store)
            rest = {name: state for name, state in states.items() if name not in sharded}
            return added | self._save_gathered(rest, store)
        except (OSError, CheckpointError, RankFailedError):
            if store is not None:
                store.clean_up()
            raise

    def _save_gathered(
        self, states: Mapping[str, Mapping[str, Any]], store: Store | None
    ) -> dict[str, Added]:
        added: dict[str, Added] = {}
        fault: Exception | None = None
        for name, state in states.items():
            image = _gather_file(state, is_first=self._processes.is_first, memory=self._pages)
            if image is None or store is None or fault is not None:
                continue
            self._pages = image.memory
            try:
                with disk_errors(self._path, needed_bytes=image.size_bytes):
                    added[name] = store.objects.add(image)
            except CheckpointError as error:
                # The others go through all states: first they have to be met in each.
                fault = error

        def raise_fault() -> None:
            if fault is not None:
                raise fault

        self._processes.run_on_rank0(raise_fault)
        return added

    def _save_shards(
        self, name: str, state: Mapping[str, Any], store: Store | None
    ) -> dict[str, Added]:
        layout = _layout_of(state, self._processes)
        known_layout, known = self._saved.get(name, (None, None))

        def is_there() -> bool:
            return known is not None and store is not None and store.objects.has(known)

        # Which it is not where a commit failed after it was added, or somebody damaged it.
        if known_layout == layout and self._processes.run_on_rank0(is_there):
            # None in all processes but the first.
            return {name: attrs.evolve(known, bytes_written=0)} if known else {}
        folder = self._processes.run_on_rank0(lambda: store.make_stage(name) if store else Path())
        shards = _write_shards(state, folder, self._processes)

        def add() -> None:
            if store is not None:
                files = {shard.path.name: shard.finished.digest for shard in shards}
                index = make_file(make_index(split(state)[1], files))
                self._saved[name] = layout, store.objects.add_in_parts(index, shards)

        self._saved[name] = layout, None
        self._processes.run_on_rank0(add)
        made = self._saved[name][1]
        return {name: made} if made else {}

    def _make_ready(self, store: Store | None, wait: Callable[[], object]) -> None:
        wait()
        if store is not None:
            store.settle()


def _gather_file(
    state: Mapping[str, Any], *, is_first: bool, memory: Pages | None
) -> CheckpointFile | None:
    """Gather a state into the bytes of its file; every process has to call it.

    No process holds more than one gathered tensor beside the file.

    Args:
        state: What ``Content`` takes, with tensors that are sharded among them.
        is_first: Whether this process gets the file.
        memory: Memory for it that nobody needs any more.
    """
    placeholders: dict[object, torch.Tensor] = {}
    sources: dict[int, torch.Tensor] = {}

    def replace(tensor: torch.Tensor) -> torch.Tensor:
        if not is_dtensor(tensor):
            return tensor
        identity = identity_of_part(tensor)
        if identity not in placeholders:
            # Its memory is never touched, and so takes none.
            placeholders[identity] = torch.empty(tensor.shape, dtype=tensor.dtype)
            sources[id(placeholders[identity])] = tensor
        return placeholders[identity]

    hollow = map_tensors(state, replace)
    tensors = Content(hollow).tensors

    def values() -> Iterator[torch.Tensor]:
        for tensor in tensors:
            yield gathered(sources.get(id(tensor), tensor))

    if is_first:
        return make_file(hollow, memory=memory, values=values())
    for _ in values():  # each is a call that the first process waits for
        pass
    return None


def _layout_of(state: Mapping[str, Any], processes: Processes) -> str:
    """Return what changes where the state does, or who has which part; every process has to ask."""
    tensors, index = split(state)
    rest = Content(index)
    own = [
        json.dumps([rest.outline, list(tensors)]),
        *(fingerprint(memory_of(tensor)).hex() for tensor in rest.tensors),
        *(fingerprint(memory_of(local_tensor(tensor))).hex() for tensor in tensors.values()),
    ]
    # Tensors that all have whole are the first one's.
    return blake3(json.dumps(processes.gather(own)).encode()).hexdigest()


def _write_shards(state: Mapping[str, Any], folder: Path, processes: Processes) -> list[Written]:
    """Write the parts of a state that this process has; every process has to call it.

    Args:
        state: Keys to tensors, some of them sharded, and primitives; also nested ones.
        folder: There already, empty, and the same for all.
        processes: Who has parts.

    Returns:
        The files of all processes: whole, and synced.

    Raises:
        CheckpointError: A tensor is of a dtype that shards cannot hold; nothing is written.
        OSError: The disk refuses.
        RankFailedError: It refuses in another process.
    """
    # Looked up here: half a second, and most runs save no shards.
    from torch.distributed.checkpoint.api import CheckpointException  # noqa: PLC0415
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter  # noqa: PLC0415
    from torch.distributed.checkpoint.state_dict_saver import save  # noqa: PLC0415

    tensors, _ = split(state)
    _refuse_dtypes(tensors)
    logging.getLogger("torch.distributed.checkpoint").setLevel(logging.WARNING)

    def write() -> list[Written]:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch's, of its own calls
            writer = HuggingFaceStorageWriter(path=str(folder), save_distributed=True)
            try:
                save(dict(tensors), storage_writer=writer, process_group=processes.control)
            except CheckpointException as error:
                # It reports what failed in each; here only what failed here.
                if processes.rank in error.failures:
                    raise error.failures[processes.rank][0] from None
                return []
        # torch counts shards from 1, in the order of ranks.
        return [_describe(path) for path in sorted(folder.glob(f"shard-{processes.rank + 1:05}-*"))]

    return [shard for found in processes.gather(processes.run_on_all(write)) for shard in found]


def _refuse_dtypes(tensors: Mapping[str, torch.Tensor]) -> None:
    for dtype in {tensor.dtype for tensor in tensors.values()}:
        try:
            safetensors.torch.save({"": torch.empty(0, dtype=dtype)})
        except (KeyError, ValueError, safetensors.SafetensorError) as error:
            key = next(name for name, tensor in tensors.items() if tensor.dtype == dtype)
            raise CheckpointError(
                f"{key} is {str(dtype).removeprefix('torch.')}, which shards cannot hold",
                key=key,
                found=str(dtype),
                fix="sharded = false for this module: plain files hold every dtype",
            ) from error


def _describe(path: Path) -> Written:
    descriptor = os.open(path, os.O_RDWR)
    try:
        _sort_texts(descriptor)
        size_bytes = os.fstat(descriptor).st_size
        Disk().shape(descriptor, size_bytes=size_bytes)
        Disk().sync(descriptor)
    finally:
        os.close(descriptor)
    digest = blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()
    return Written(path, size_bytes, Finished(digest, checksum_of_file(path)))


def _sort_texts(descriptor: int) -> None:
    """Put the texts of a file of safetensors in order.

    It writes them in another one each time, and equal contents would have different digests.
    """
    length = int.from_bytes(os.pread(descriptor, LENGTH_BYTES, 0), "little")
    header = json.loads(os.pread(descriptor, length, LENGTH_BYTES))
    header[TEXTS_KEY] = dict(sorted(header[TEXTS_KEY].items()))
    content = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    if len(content) > length:
        raise ValueError(f"a header of {length} bytes became one of {len(content)}")
    os.pwrite(descriptor, content.ljust(length), LENGTH_BYTES)
