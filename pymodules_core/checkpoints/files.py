"""One checkpoint file: written so that it is whole or absent, read so that nothing bad gets in.

Reading never trusts a file: ``weights_only``, sizes and CRCs first (torch checks no CRC), and every
failure says what the file is instead.
"""

import json
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch

from pymodules_core.checkpoints.disk_errors import free_bytes
from pymodules_core.checkpoints.file_checks import (
    check_archive,
    check_is_file,
    check_state,
    refused_pickle,
    unreadable_content,
)
from pymodules_core.checkpoints.version_marks import with_marks
from pymodules_core.errors import CheckpointError, CheckpointFileError
from pymodules_core.names import CHECKPOINT_SUFFIX

if TYPE_CHECKING:
    from collections import OrderedDict

SAFETENSORS_SUFFIX = ".safetensors"
MARKS_OF_SAFETENSORS = "pymodules_versions"
TEMPORARY_PREFIX = ".writing-"


def write_file(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content``: temporary name, fsync, rename.

    Raises:
        CheckpointError: The disk is full or not writable; what was there before is intact.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(
            f"cannot be written: {error.strerror or error}; it needs "
            f"{len(content):,} bytes and {free_bytes(path):,} are free",
            file=path,
            fix="make room or make the folder writable; checkpoints saved before are intact",
        ) from error


def read_state_dict(path: Path, *, most_bytes: int | None = None) -> "OrderedDict[str, Any]":
    """Read a state dict from a file, on the CPU.

    Args:
        path: A file that ``torch.save`` wrote, or one that is called ``.safetensors``.
        most_bytes: Larger files are refused; by default those that exceed the free memory.

    Returns:
        Keys to tensors and primitives; ``_metadata`` as it was saved.

    Raises:
        CheckpointNotFoundError: There is no such file.
        CheckpointFileError: It is damaged, no state dict, too large, or would run code.
    """
    check_is_file(path, most_bytes=most_bytes)
    if path.suffix == SAFETENSORS_SUFFIX:
        return check_state(path, _read_safetensors(path))
    check_archive(path)
    try:
        with path.open("rb") as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Not chained: the text of torch's error advises weights_only=False.
        raise refused_pickle(path, error) from None
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
            f"is no whole safetensors file: {error}",
            file=path,
            fix="download or copy it again, or take another file",
        ) from error


def checkpoint_files(folder: Path) -> dict[str, Path]:
    """Give module name to file for a pool's folder; empty where there is none."""
    if not folder.is_dir():
        return {}
    return {
        path.name.removesuffix(CHECKPOINT_SUFFIX): path
        for path in sorted(folder.glob(f"*{CHECKPOINT_SUFFIX}"))
        if not path.name.startswith(".")
    }
