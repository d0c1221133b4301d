"""Sharded modules, gathered into whole files: one tensor at a time, into the bytes of the file."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from pymodules_core.checkpoints.file_buffer import CheckpointFile, Pages, make_file
from pymodules_core.checkpoints.file_format.digest import Content
from pymodules_core.checkpoints.file_format.state_dict import map_tensors, tensors_in
from pymodules_core.checkpoints.sharded.index import identity_of_part
from pymodules_core.errors import CheckpointError
from pymodules_core.processes.dtensor import gathered, is_dtensor, local_tensor


def has_parts(state: Mapping[str, Any]) -> bool:
    """Return whether a process holds only a part of some tensor in ``state``."""
    return any(map(is_dtensor, tensors_in(state)))


def refuse_parts(state: Mapping[str, Any], *, owner: str) -> None:
    """Refuse tensors that are sharded where one process saves alone.

    Raises:
        CheckpointError: There is one.
    """
    for key, value in state.items():
        if any(map(is_dtensor, tensors_in(value))):
            raise CheckpointError(
                f"{owner}: {key} is a DTensor, of which this process has a part",
                key=key,
                found="DTensor",
                fix="let all processes save together: CheckpointManager(..., processes=processes)",
            )


def local_parts(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what this process holds of a state dict."""
    return {
        key: local_tensor(value) if isinstance(value, torch.Tensor) else value
        for key, value in state.items()
    }


def gather_file(
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
