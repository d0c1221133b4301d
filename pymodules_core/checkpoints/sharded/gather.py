"""Modules in parts, gathered into whole files: one tensor at a time, into the image of the file."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from pymodules_core.checkpoints.file_format.buffer import FileBuffer
from pymodules_core.checkpoints.file_format.digest import Content
from pymodules_core.checkpoints.file_format.pinned_memory import Pages
from pymodules_core.checkpoints.file_format.state_dict import tensors_in
from pymodules_core.checkpoints.sharded.index import identity_of_part
from pymodules_core.errors import CheckpointError
from pymodules_core.processes.dtensor import gathered, is_dtensor, local_tensor


def has_parts(state: Mapping[str, Any]) -> bool:
    """Tell whether a process holds only a part of some tensor in ``state``."""
    return any(map(is_dtensor, tensors_in(state)))


def refuse_parts(state: Mapping[str, Any], *, owner: str) -> None:
    """Refuse tensors in parts where one process saves alone.

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
    """Give what this process holds of a state dict."""
    return {
        key: local_tensor(value) if isinstance(value, torch.Tensor) else value
        for key, value in state.items()
    }


def gather_image(
    state: Mapping[str, Any], *, is_first: bool, pages: Pages | None
) -> FileBuffer | None:
    """Gather a state into the image of its file; every process has to call it.

    No process holds more than one gathered tensor beside the image.

    Args:
        state: What ``Content`` takes, with tensors in parts among them.
        is_first: Whether this process gets the image.
        pages: Memory for it that nobody needs any more.
    """
    sources: dict[int, torch.Tensor] = {}
    hollow = _without_parts(state, {}, sources)
    tensors = Content(hollow).tensors

    def values() -> Iterator[torch.Tensor]:
        for tensor in tensors:
            yield gathered(sources.get(id(tensor), tensor))

    if is_first:
        return FileBuffer(hollow, pages=pages, values=values())
    for _ in values():  # each is a call that the first process waits for
        pass
    return None


def _without_parts(
    value: Any, made: dict[object, torch.Tensor], sources: dict[int, torch.Tensor]
) -> Any:
    """Put an empty tensor of its whole shape in the place of each that is in parts.

    Its memory is never touched, and so takes none.
    """
    if isinstance(value, torch.Tensor):
        if not is_dtensor(value):
            return value
        identity = identity_of_part(value)
        if identity not in made:
            made[identity] = torch.empty(value.shape, dtype=value.dtype)
            sources[id(made[identity])] = value
        return made[identity]
    if isinstance(value, Mapping):
        result: Any = type(value)()
        for key, item in value.items():
            result[key] = _without_parts(item, made, sources)
        if hasattr(value, "_metadata"):
            result._metadata = value._metadata
        return result
    if isinstance(value, torch.Size):
        return value
    if isinstance(value, list | tuple):
        return type(value)(_without_parts(item, made, sources) for item in value)
    return value
