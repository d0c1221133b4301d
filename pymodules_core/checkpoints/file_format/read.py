"""One checkpoint file: written so that it is whole or absent, read so that nothing bad gets in.

In the place of a file there may be a folder of shards, copied from the pool of a sharded module.

Reading never trusts a file: ``weights_only``, sizes and CRCs first (torch checks no CRC), and every
failure says what the file is instead.
"""

import json
import os
import pickle
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from blake3 import blake3

from pymodules_core.checkpoints.file_format.container_checks import (
    check_archive,
    check_is_file,
    check_table_of_contents,
    refuse_link_out,
)
from pymodules_core.checkpoints.file_format.content_checks import (
    check_state,
    refuse_strange_tensors,
    refused_pickle,
    unreadable_content,
)
from pymodules_core.checkpoints.file_format.layout_version import with_marks
from pymodules_core.checkpoints.sharded import chunks_in_bytes, read_shards
from pymodules_core.checkpoints.sharded.index import files_in
from pymodules_core.checkpoints.store.disk_errors import disk_errors
from pymodules_core.checkpoints.store.records import INDEX_NAME
from pymodules_core.checkpoints.store.views import shard_folders
from pymodules_core.errors import CheckpointFileError
from pymodules_core.names import CHECKPOINT_SUFFIX, is_path_name
from pymodules_core.run_files import replace_file

if TYPE_CHECKING:
    from collections import OrderedDict

SAFETENSORS_SUFFIX = ".safetensors"
MARKS_OF_SAFETENSORS = "pymodules_versions"
_COPY_FOLDER = "copy the whole folder again; pymodules ckpt export makes one file of it"


def write_file(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content``: temporary name, fsync, rename.

    Raises:
        CheckpointError: The disk is full or not writable; what was there before is intact.
    """
    with disk_errors(path, needed_bytes=len(content)):
        replace_file(path, content)


def read_state_dict(
    path: Path, *, most_bytes: int | None = None, root: Path | None = None
) -> "OrderedDict[str, Any]":
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
    check_is_file(path, most_bytes=most_bytes)
    if path.suffix == SAFETENSORS_SUFFIX:
        return check_state(path, _read_safetensors(path))
    check_archive(path)
    with path.open("rb") as file:
        return _unpickled(path, file)


def read_own_file(path: Path, *, is_mapped: bool) -> "OrderedDict[str, Any]":
    """Read a file whose every byte was just seen to be what a commit record says.

    A stranger may have written both: besides damage nothing is ruled out.

    Args:
        path: An object of a store.
        is_mapped: The tensors lie in the file itself, without a copy of it into fresh memory.

    Raises:
        FileNotFoundError: It is gone meanwhile.
        CheckpointFileError: It is not a state dict, or would run code.
    """
    try:
        check_table_of_contents(path)
        state = _unpickled(path, path, is_mapped=is_mapped)
    except CheckpointFileError as error:
        if path.exists():
            raise
        raise FileNotFoundError(str(path)) from error
    refuse_strange_tensors(path, state)
    return state


def _unpickled(path: Path, file: Any, *, is_mapped: bool = False) -> "OrderedDict[str, Any]":
    try:
        with warnings.catch_warnings():
            # Of a newer pickle than its own: what it cannot read of one it refuses anyway.
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            state = torch.load(file, map_location="cpu", weights_only=True, mmap=is_mapped)
    except pickle.UnpicklingError as error:
        # Not chained: the text of torch's error advises weights_only=False.
        raise refused_pickle(path, error) from None
    # torch raises anything here: KeyError, IndexError, EOFError, RuntimeError, OSError.
    except Exception as error:
        raise unreadable_content(path, error) from error
    return check_state(path, state)


def _read_folder(folder: Path, most_bytes: int | None) -> "OrderedDict[str, Any]":
    index = read_state_dict(folder / INDEX_NAME, most_bytes=most_bytes)
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


def _read_safetensors(path: Path) -> "OrderedDict[str, Any]":
    # From bytes: `load_file` maps the file, and what changes a mapped file kills the process.
    content = path.read_bytes()
    try:
        tensors = safetensors.torch.load(content)
        # A length, and a table of contents in JSON; `load` has seen that it is whole.
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        texts = header.get("__metadata__", {})
        return with_marks(tensors, json.loads(texts.get(MARKS_OF_SAFETENSORS, "{}")))
    except (safetensors.SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise CheckpointFileError(
            f"is not a whole safetensors file: {error}",
            file=path,
            fix="download or copy it again, or take another file",
        ) from error


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
