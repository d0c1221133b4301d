"""One checkpoint file: written so that it is whole or absent, read so that nothing bad gets in.

Reading never trusts a file: container, CRCs (torch checks none) and pickle are looked at first, and
every failure says what the file is instead.
"""

import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from blake3 import blake3

from pymodules_core.checkpoints.file_format.container_checks import (
    check_archive,
    check_is_file,
)
from pymodules_core.checkpoints.file_format.content_checks import (
    check_state,
    refuse_strange_tensors,
    unreadable_content,
)
from pymodules_core.checkpoints.file_format.digest import Content
from pymodules_core.checkpoints.file_format.layout_version import with_marks
from pymodules_core.checkpoints.store.disk_errors import disk_errors
from pymodules_core.checkpoints.store.zip_layout import is_archive
from pymodules_core.errors import CheckpointFileError
from pymodules_core.run_files import replace_file

if TYPE_CHECKING:
    from collections import OrderedDict

# Held now: a library that patches torch.load later changes nothing here.
_load = torch.load
SAFETENSORS_SUFFIX = ".safetensors"
MARKS_OF_SAFETENSORS = "pymodules_versions"


def write_file(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content``: temporary name, fsync, rename.

    Raises:
        CheckpointError: The disk is full or not writable; what was there before is intact.
    """
    with disk_errors(path, needed_bytes=len(content)):
        replace_file(path, content)


def read_file(path: Path, *, most_bytes: int | None = None) -> "OrderedDict[str, Any]":
    """Read a state dict from one file, on the CPU; arguments and errors of ``read_state_dict``."""
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
        check_archive(path, is_whole=True)
        state = _unpickled(path, path, is_mapped=is_mapped)
    except CheckpointFileError as error:
        if path.exists():
            raise
        raise FileNotFoundError(str(path)) from error
    refuse_strange_tensors(path, state)
    return state


def digest_of_file(path: Path) -> str:
    """Return the digest of what an object holds, whose every byte was just seen to be ours."""
    with path.open("rb") as file:
        is_shard = not is_archive(file.read(4))
    if is_shard:  # its content is its bytes
        return blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()
    return Content(read_own_file(path, is_mapped=True)).digest_now()


def _unpickled(path: Path, file: Any, *, is_mapped: bool = False) -> "OrderedDict[str, Any]":
    try:
        state = _load(file, map_location="cpu", weights_only=True, mmap=is_mapped)
    except pickle.UnpicklingError as error:
        # Not chained: the text of torch's error advises weights_only=False.
        raise unreadable_content(path, error) from None
    # torch raises anything here: KeyError, IndexError, EOFError, RuntimeError, OSError.
    except Exception as error:
        raise unreadable_content(path, error) from error
    return check_state(path, state)


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
