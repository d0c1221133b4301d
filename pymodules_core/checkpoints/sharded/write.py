"""Writes a state in shards: each process its part, at once and beside the others."""

import json
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import safetensors.torch
import torch
from blake3 import blake3

from pymodules_core.checkpoints.file_format.digest import Content, memory_of
from pymodules_core.checkpoints.sharded.chunks import LENGTH_BYTES, TEXTS_KEY
from pymodules_core.checkpoints.sharded.index import make_index, split
from pymodules_core.checkpoints.store.checksums import checksum_of_file, fingerprint
from pymodules_core.checkpoints.store.file_system import Disk
from pymodules_core.checkpoints.store.staged_writes import Written
from pymodules_core.errors import CheckpointError
from pymodules_core.processes.dtensor import local_tensor
from pymodules_core.processes.group import Processes


@attrs.frozen
class Shard:
    """A file that one process wrote: whole, and synced.

    Attributes:
        file_name: In the folder, and in the view of the module.
        written: Where it is, and what names it.
    """

    file_name: str
    written: Written


def layout_of(state: Mapping[str, Any], processes: Processes) -> str:
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


def write_shards(state: Mapping[str, Any], folder: Path, processes: Processes) -> list[Shard]:
    """Write the parts of a state that this process has; every process has to call it.

    Args:
        state: Keys to tensors, some of them sharded, and primitives; also nested ones.
        folder: There already, empty, and the same for all.
        processes: Who has parts.

    Returns:
        The files of all processes.

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

    def write() -> list[Shard]:
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
        return [_describe(path) for path in _files_of(folder, processes)]

    return [shard for found in processes.gather(processes.run_on_all(write)) for shard in found]


def index_of(state: Mapping[str, Any], shards: Sequence[Shard]) -> dict[str, Any]:
    """Return what an index says: how shards make a state dict, and which they are."""
    files = {shard.file_name: shard.written.digest for shard in shards}
    return make_index(split(state)[1], files)


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


def _files_of(folder: Path, processes: Processes) -> list[Path]:
    # torch counts shards from 1, in the order of ranks.
    number = f"shard-{processes.rank + 1:05}-"
    return sorted(path for path in folder.iterdir() if path.name.startswith(number))


def _describe(path: Path) -> Shard:
    descriptor = os.open(path, os.O_RDWR)
    try:
        _sort_texts(descriptor)
        size_bytes = os.fstat(descriptor).st_size
        Disk().shape(descriptor, size_bytes=size_bytes)
        Disk().sync(descriptor)
    finally:
        os.close(descriptor)
    hasher = blake3(max_threads=blake3.AUTO)
    hasher.update_mmap(path)
    written = Written(
        path=path,
        digest=hasher.hexdigest(),
        checksum=checksum_of_file(path),
        size_bytes=size_bytes,
    )
    return Shard(path.name, written)


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
