"""Writes modules of a pool for other programs: safetensors or plain ``.pt``, or all in one file."""

import io
import json
import logging
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch

from pymodules_core.checkpoints.file_format.layout_version import marks_in, with_marks
from pymodules_core.checkpoints.file_format.read import (
    MARKS_OF_SAFETENSORS,
    SAFETENSORS_SUFFIX,
    write_file,
)
from pymodules_core.checkpoints.loading.pool_reader import StoredModule
from pymodules_core.errors import CheckpointError, display_path, list_words
from pymodules_core.names import CHECKPOINT_SUFFIX

logger = logging.getLogger("pymodules_core")

ExportFormat = Literal["safetensors", "pt"]


def export_modules(
    modules: Mapping[str, StoredModule],
    target: Path,
    *,
    format_: ExportFormat,
    is_merged: bool,
    replace: bool = False,
) -> list[Path]:
    """Write modules.

    Args:
        modules: Module name to what was read of it.
        target: The folder to write to, or the file where all go into one.
        format_: Of the files.
        is_merged: One file, whose keys are ``<module_name>.<key>``.
        replace: Whether files that are there may be replaced.

    Returns:
        The files.

    Raises:
        CheckpointError: A file is there already, or cannot be written.
    """
    suffix = SAFETENSORS_SUFFIX if format_ == "safetensors" else CHECKPOINT_SUFFIX
    if is_merged:
        if target.is_dir():
            file = target / f"modules{suffix}"
            raise CheckpointError(
                "is a folder, and what is merged is one file",
                file=target,
                fix=f"name a file in it: --to {shlex.quote(display_path(file))}",
            )
        contents: dict[Path, Mapping[str, Any]] = {target: _merge(modules)}
    else:
        contents = {target / f"{name}{suffix}": stored.state for name, stored in modules.items()}
    there = [path for path in contents if path.exists()]
    if there and not replace:
        raise CheckpointError(
            "is there already", file=there[0], fix="name another place, or add --replace"
        )
    for path, state in contents.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                f"cannot be made a folder: {error.strerror}",
                file=path.parent,
                fix="name another place",
            ) from error
        write_file(path, _encode(state, path, format_))
    return list(contents)


def _merge(modules: Mapping[str, StoredModule]) -> Mapping[str, Any]:
    state = {f"{m}.{key}": v for m, stored in modules.items() for key, v in stored.state.items()}
    marks = {name: marks_in(stored.state).get("") for name, stored in modules.items()}
    # Under the name of the module, which `rename = {"<module_name>.": ""}` takes off.
    marks = {name: mark for name, mark in marks.items() if mark}
    return with_marks(state, marks) if marks else state


def _encode(state: Mapping[str, Any], path: Path, format_: ExportFormat) -> bytes:
    if format_ == "pt":
        buffer = io.BytesIO()
        torch.save(state, buffer)
        return buffer.getvalue()
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    left_out = [key for key in state if key not in tensors]
    if left_out:
        logger.warning(
            "%s: left out what safetensors cannot hold: %s", path.name, list_words(left_out)
        )
    if wide := [key for key, value in tensors.items() if value.dtype == torch.complex128]:
        raise CheckpointError(
            f"safetensors cannot hold complex128: {list_words(wide)}",
            file=path,
            key=wide[0],
            fix="--format pt",
        )
    # It refuses tensors that share memory: ties become copies.
    plain = {key: value.clone().contiguous() for key, value in tensors.items()}
    marks = marks_in(state)
    more = {MARKS_OF_SAFETENSORS: json.dumps(marks)} if marks else {}
    return safetensors.torch.save(plain, metadata={"format": "pt", **more})
