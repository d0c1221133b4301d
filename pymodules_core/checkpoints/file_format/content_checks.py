"""What a file holds instead of a state dict: one message each."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pymodules_core.checkpoints.file_format.pickle_gate import SAVE_AGAIN
from pymodules_core.checkpoints.file_format.state_dict import (
    count_items,
    is_plain,
    refuse_unsaveable,
    show_key,
    tensors_in,
)
from pymodules_core.errors import CheckpointError, CheckpointFileError

# A buffer may well be expanded; inspecting one that claims terabytes would take as many.
_MOST_CLAIMED_BYTES = 64 << 20
_MOST_ITEMS = 10_000_000


def check_state(path: Path, state: object) -> "OrderedDict[str, Any]":
    """Return what a file holds as a state dict; ``_metadata`` is kept.

    Raises:
        CheckpointFileError: It holds anything but texts to tensors and primitives.
    """
    if not isinstance(state, dict):
        raise CheckpointFileError(
            f"holds {type(state).__name__}, expected a state dict",
            file=path,
            found=type(state).__name__,
            fix=SAVE_AGAIN,
        )
    for key, value in state.items():
        if not isinstance(key, str):
            raise CheckpointFileError(
                f"has a key of type {type(key).__name__}, expected str",
                file=path,
                found=key,
                fix=SAVE_AGAIN,
            )
        if not is_plain(value):
            raise CheckpointFileError(
                f"{show_key(key)} is {type(value).__name__}, expected a tensor or nested "
                "primitives",
                file=path,
                key=key,
                found=type(value).__name__,
                fix=SAVE_AGAIN,
            )
    if (count := count_items(dict(state))) > _MOST_ITEMS:
        raise CheckpointFileError(
            f"holds the same lists or dicts again and again, {count:,} items in all",
            file=path,
            found=count,
            fix=SAVE_AGAIN,
        )
    result = OrderedDict(state)
    if hasattr(state, "_metadata"):
        metadata = state._metadata
        # load_state_dict calls `.get` on it and on each of its values, whatever they are.
        if not isinstance(metadata, dict) or not all(
            isinstance(key, str) and isinstance(value, dict) and is_plain(value)
            for key, value in metadata.items()
        ):
            raise CheckpointFileError(
                "its _metadata is not what torch.save writes: expected a dict of dicts",
                file=path,
                key="_metadata",
                found=type(metadata).__name__,
                fix=SAVE_AGAIN,
            )
        result._metadata = metadata  # type: ignore[attr-defined]  # torch's own attribute
    return result


def refuse_strange_tensors(path: Path, state: Mapping[str, Any]) -> None:
    """Refuse tensors that no checkpoint of ours holds, before anybody computes with them.

    They are sparse, or without data, or of far more elements than the file has.

    Raises:
        CheckpointFileError: There is one.
    """
    try:
        refuse_unsaveable(state, owner="")
    except CheckpointError as error:
        raise CheckpointFileError(
            error.what.removeprefix(": "),
            file=path,
            key=error.key,
            fix=error.fix,
        ) from error
    _refuse_claims(path, state)


def unreadable_content(path: Path, error: Exception) -> CheckpointFileError:
    """Wrap what torch raised for an archive that is whole by its checksums."""
    lines = str(error).splitlines()
    reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return CheckpointFileError(
        f"cannot be read: {reason[:200]}{'…' if len(reason) > 200 else ''}",
        file=path,
        fix=f"take an earlier pool, or {SAVE_AGAIN}",
    )


def _refuse_claims(path: Path, state: Mapping[str, Any]) -> None:
    """Refuse tensors of far more elements than the file holds, which steps of length 0 allow."""
    claimed, largest = 0, ""
    for key, value in state.items():
        for tensor in tensors_in(value):
            if tensor.layout is not torch.strided or tensor.is_meta or 0 not in tensor.stride():
                continue
            size_bytes = tensor.numel() * tensor.element_size()
            if size_bytes > tensor.untyped_storage().nbytes():
                claimed, largest = claimed + size_bytes, largest or key
    if claimed > _MOST_CLAIMED_BYTES:
        raise CheckpointFileError(
            f"claims {claimed:,} bytes in tensors that repeat a few values, "
            f"{show_key(largest)} for one",
            file=path,
            key=largest,
            found=claimed,
            fix="save them whole: tensor.contiguous()",
        )
