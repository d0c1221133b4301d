"""One checkpoint file: written so that it is whole or absent, read so that nothing bad gets in.

Reading never trusts a file: ``weights_only``, sizes and CRCs first (torch checks no CRC), and every
failure says what the file is instead.
"""

import io
import logging
import os
import pickle
import re
import shutil
import stat
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from pymodules_core.checkpoints.state_dicts import is_plain
from pymodules_core.errors import (
    CheckpointError,
    CheckpointFileError,
    CheckpointNotFoundError,
    closest_match,
    list_words,
)
from pymodules_core.names import CHECKPOINT_SUFFIX

logger = logging.getLogger("pymodules_core")

TEMPORARY_PREFIX = ".writing-"

_SAVE_AGAIN = "save it with torch.save(module.state_dict(), file)"


def serialise(state: dict[str, Any]) -> bytes:
    """Give the bytes of a checkpoint file."""
    # A file object, not a path: torch would write the path's stem into the archive.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def write_file(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content``: temporary name, fsync, rename.

    Raises:
        CheckpointError: The disk is full or not writable; what was there before is intact.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(
            f"cannot write the checkpoint: {error.strerror or error}; it needs "
            f"{len(content):,} bytes and {_free_bytes(path):,} are free",
            file=path,
            fix="make room or make the folder writable; checkpoints saved before are intact",
        ) from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the platform lets folders be synced."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folder
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_state_dict(path: Path) -> "OrderedDict[str, Any]":
    """Read a state dict from a ``.pt`` file, on the CPU.

    Args:
        path: A file that ``torch.save`` wrote.

    Returns:
        Keys to tensors and primitives; ``_metadata`` as it was saved.

    Raises:
        CheckpointNotFoundError: There is no such file.
        CheckpointFileError: It is damaged, no state dict, or would run code.
    """
    _check_is_file(path)
    _check_archive(path)
    try:
        with path.open("rb") as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused_pickle(path, error) from error
    # torch raises anything here: KeyError, IndexError, EOFError, RuntimeError, OSError.
    except Exception as error:
        raise CheckpointFileError(
            f"cannot be read: {type(error).__name__}: {str(error).splitlines()[0][:200]}",
            file=path,
            fix="take an earlier pool, or write the file again",
        ) from error
    return _check_state(path, state)


def _check_state(path: Path, state: object) -> "OrderedDict[str, Any]":
    if not isinstance(state, dict):
        raise CheckpointFileError(
            f"holds {type(state).__name__}, expected a state dict", file=path, fix=_SAVE_AGAIN
        )
    for key, value in state.items():
        if not isinstance(key, str):
            raise CheckpointFileError(
                f"has a key of type {type(key).__name__}, expected str", file=path, fix=_SAVE_AGAIN
            )
        if not is_plain(value):
            raise CheckpointFileError(
                f"{key} is {type(value).__name__}, expected a tensor", file=path, fix=_SAVE_AGAIN
            )
    result = OrderedDict(state)
    if hasattr(state, "_metadata"):
        result._metadata = state._metadata  # type: ignore[attr-defined]  # torch's own attribute
    return result


def _check_is_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        if path.is_symlink():
            raise CheckpointNotFoundError("is a link to nothing", file=path) from error
        there = sorted(p.name for p in path.parent.glob("*") if not p.name.startswith("."))
        raise CheckpointNotFoundError(
            f"there is no such checkpoint; {path.parent.name}/ holds: {list_words(there)}",
            file=path,
            found=path.name,
            closest=closest_match(path.name, there),
        ) from error
    except OSError as error:
        raise CheckpointFileError(f"cannot be read: {error.strerror}", file=path) from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
        raise CheckpointFileError(f"is {kind}, expected a file", file=path)


def _check_archive(path: Path) -> None:
    """Look at the container before torch does: kind, sizes, CRCs."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise CheckpointFileError(
            f"is no checkpoint: {_describe_head(head)}", file=path, fix=_fix_for_head(head)
        ) from error
    except OSError as error:
        raise CheckpointFileError(f"cannot be read: {error.strerror}", file=path) from error
    # One flipped bit makes zipfile raise anything: UnicodeDecodeError, NotImplementedError.
    except Exception as error:
        raise CheckpointFileError(
            f"is damaged: its table of contents cannot be read: {error}",
            file=path,
            fix="take an earlier pool, or copy the file again",
        ) from error
    with archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if len(set(names)) != len(names):
            raise CheckpointFileError("holds two entries of one name", file=path, fix=_SAVE_AGAIN)
        if any(name.endswith("/archive_format") for name in names):
            raise CheckpointFileError(
                "is a program of torch.export, expected a state dict", file=path, fix=_SAVE_AGAIN
            )
        if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
            raise CheckpointFileError(
                "is a TorchScript program, expected a state dict", file=path, fix=_SAVE_AGAIN
            )
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise CheckpointFileError(
                "holds compressed entries, which torch.save never writes",
                file=path,
                fix=_SAVE_AGAIN,
            )
        if not any(name.endswith("/data.pkl") for name in names):
            raise CheckpointFileError(
                "is a zip archive without data.pkl, so no file of torch.save",
                file=path,
                fix=_SAVE_AGAIN,
            )
        try:
            damaged = archive.testzip()
        except Exception as error:
            raise CheckpointFileError(
                f"is damaged: {str(error) or 'an entry ends early'}",
                file=path,
                fix="take an earlier pool, or copy the file again",
            ) from error
    if damaged is not None:
        raise CheckpointFileError(
            f"is damaged: the checksum of {damaged} does not match",
            file=path,
            found=damaged,
            fix="take an earlier pool, or copy the file again",
        )


def _describe_head(head: bytes) -> str:
    text = head.lstrip().lower()
    if not head:
        return "it is empty"
    if not head.strip(b"\0"):
        return "it is filled with NUL bytes"
    if text.startswith((b"<!doctype", b"<html")):
        return "it is an HTML page"
    if text.startswith(b"version https://git-lfs"):
        return "it is a git LFS pointer"
    if head.startswith(b"PK"):
        return "it is a zip archive cut short or damaged"
    if head.startswith(b"\x80"):
        return "it is a bare pickle, or of a torch before 1.6"
    if head[8:10] == b'{"':
        return "it is a safetensors file"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return "it is text"
    return "it is no file of torch.save"


def _fix_for_head(head: bytes) -> str:
    if b"git-lfs" in head:
        return "git lfs pull"
    if head.startswith(b"\x80") or head[8:10] == b'{"':
        return f"where you trust it, load it in a script of yours and there {_SAVE_AGAIN}"
    return "download or copy it again, or take another file"


def _refused_pickle(path: Path, error: Exception) -> CheckpointFileError:
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    name = found[1] if found else "an unknown object"
    return CheckpointFileError(
        f"holds {name}, which is no tensor or primitive and could run code",
        file=path,
        found=name,
        fix=f"where you trust the file, load it in a script of yours and there {_SAVE_AGAIN}",
    )


def _free_bytes(path: Path) -> int:
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def checkpoint_files(folder: Path) -> dict[str, Path]:
    """Give module name to file for a pool's folder; empty where there is none."""
    if not folder.is_dir():
        return {}
    return {
        path.name.removesuffix(CHECKPOINT_SUFFIX): path
        for path in sorted(folder.glob(f"*{CHECKPOINT_SUFFIX}"))
        if not path.name.startswith(".")
    }
