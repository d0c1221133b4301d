"""A module's checkpoint as it lies in a pool: a file, or a folder of shards with their index."""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

from blake3 import blake3

from pymodules_core.checkpoints.file_format.container_checks import check_is_file, refuse_link_out
from pymodules_core.checkpoints.file_format.content_checks import check_state
from pymodules_core.checkpoints.file_format.read import read_file
from pymodules_core.checkpoints.sharded.index import files_in
from pymodules_core.checkpoints.sharded.read import chunks_in_bytes, read_shards
from pymodules_core.checkpoints.store.records import INDEX_NAME
from pymodules_core.checkpoints.store.views import shard_folders
from pymodules_core.errors import CheckpointFileError
from pymodules_core.names import CHECKPOINT_SUFFIX, is_path_name

_COPY_FOLDER = "copy the whole folder again; pymodules ckpt export makes one file of it"


def read_state_dict(
    path: Path, *, most_bytes: int | None = None, root: Path | None = None
) -> OrderedDict[str, Any]:
    """Read a state dict from a file, on the CPU.

    Args:
        path: A file that ``torch.save`` wrote, one that is called ``.safetensors``, or a folder of
            shards with their index.
        most_bytes: Larger files are refused; by default those that exceed the free memory.
        root: A link that leads out of this folder is refused; by default none is.

    Returns:
        Keys to tensors and primitives; ``_metadata`` as it was saved.

    Raises:
        CheckpointNotFoundError: There is no such file.
        CheckpointFileError: It is damaged, no state dict, too large, or would run code.
    """
    if root is not None:
        refuse_link_out(path, root)
    if os.path.isfile(path / INDEX_NAME):  # noqa: PTH113  a folder may not be looked into
        return _read_folder(path, most_bytes)
    return read_file(path, most_bytes=most_bytes)


def checkpoint_files(folder: Path) -> dict[str, Path]:
    """Return module name to file, or folder of shards, in a pool's folder; empty if none."""
    if not folder.is_dir():
        return {}
    found = [*folder.glob(f"*{CHECKPOINT_SUFFIX}"), *shard_folders(folder)]
    return {
        path.name.removesuffix(CHECKPOINT_SUFFIX): path
        for path in sorted(found)
        if not path.name.startswith(".")
    }


def _read_folder(folder: Path, most_bytes: int | None) -> OrderedDict[str, Any]:
    index = read_file(folder / INDEX_NAME, most_bytes=most_bytes)
    files = files_in(index)
    if not all(map(is_path_name, files)):
        raise CheckpointFileError(
            "names shards outside its folder", file=folder / INDEX_NAME, fix=_COPY_FOLDER
        )
    shards = (
        chunks_in_bytes(_read_shard(folder / name, digest, most_bytes))
        for name, digest in files.items()
    )
    state = read_shards(index, shards, source=folder / INDEX_NAME)
    return check_state(folder / INDEX_NAME, state)


def _read_shard(path: Path, digest: str, most_bytes: int | None) -> bytes:
    if not path.exists():
        raise CheckpointFileError(
            f"is missing, and {INDEX_NAME} beside it names it", file=path, fix=_COPY_FOLDER
        )
    check_is_file(path, most_bytes=most_bytes)
    content = path.read_bytes()
    if blake3(content, max_threads=blake3.AUTO).hexdigest() != digest:
        raise CheckpointFileError(
            f"is damaged, or not the shard that {INDEX_NAME} beside it belongs to",
            file=path,
            found=digest,
            fix=_COPY_FOLDER,
        )
    return content
