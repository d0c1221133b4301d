"""State dicts of which each process has a part, and the index that such a one has in shards.

The index is the state dict, with a note in the place of each tensor that is sharded.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from pymodules_core.checkpoints.file_format.state_dict import tensors_in
from pymodules_core.errors import CheckpointError
from pymodules_core.processes.dtensor import is_dtensor, local_tensor

FORMAT_KEY, FORMAT = "pymodules_shards", 1
STATE_KEY = "state"
_FILES_KEY = "files"
_NOTE = "$shard"


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


def identity_of_part(tensor: torch.Tensor) -> object:
    """Return what two names of one sharded tensor have in common, and two tensors do not.

    By the memory that the part lies in, not by what it shows of it: a process whose part is empty
    has to find the same ties as the others.
    """
    part = local_tensor(tensor)
    place = part.untyped_storage()._cdata, part.storage_offset(), part.shape, part.stride()
    return (*place, part.dtype, tensor.shape)


def split(state: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], Any]:
    """Take the tensors that are sharded out of a state.

    Args:
        state: Keys to tensors, primitives, and nested ones.

    Returns:
        Name to tensor, ties once, and the state with a note in the place of each.
    """
    tensors: dict[str, torch.Tensor] = {}
    names: dict[object, str] = {}

    def take(value: Any, path: tuple[str, ...]) -> Any:
        if not is_dtensor(value):
            return value
        identity = identity_of_part(value)
        if identity not in names:
            name = ".".join(path)
            while name in tensors:  # the keys of two paths may join to one text
                name += "_"
            names[identity], tensors[name] = name, value
        dtype = str(value.dtype).removeprefix("torch.")
        return {_NOTE: names[identity], "shape": list(value.shape), "dtype": dtype}

    return tensors, _map(state, take)


def join(state: Any, tensor_of: Callable[[Mapping[str, Any], tuple[str, ...]], Any]) -> Any:
    """Put tensors in the place of their notes.

    Args:
        state: What ``split`` gave, as it was read.
        tensor_of: Given a note and the keys that lead to it, gives the tensor.
    """

    def put(value: Any, path: tuple[str, ...]) -> Any:
        is_one = isinstance(value, Mapping) and is_note(value)
        return tensor_of(value, path) if is_one else value

    return _map(state, put)


def _map(
    value: Any, replace: Callable[[Any, tuple[str, ...]], Any], path: tuple[str, ...] = ()
) -> Any:
    """Return a copy of a nested state in which other values may be in the place of some.

    Args:
        value: The state, or what is in it.
        replace: Given a value and the keys that lead to it, gives another one, or the value itself
            where only what is in it may be replaced.
        path: Keys that lead to ``value``.
    """
    replaced = replace(value, path)
    if replaced is not value:
        return replaced
    if isinstance(value, Mapping):
        result: Any = type(value)()
        for key, item in value.items():
            result[key] = _map(item, replace, (*path, str(key)))
        if hasattr(value, "_metadata"):
            result._metadata = value._metadata
        return result
    if type(value) in {list, tuple}:
        return type(value)(
            _map(item, replace, (*path, str(number))) for number, item in enumerate(value)
        )
    return value


def is_note(value: Mapping[Any, Any]) -> bool:
    """Return whether a mapping stands for a tensor."""
    return value.keys() == {_NOTE, "shape", "dtype"}


def make_index(state: Any, files: Mapping[str, str]) -> dict[str, Any]:
    """Return what the file of an index holds.

    Args:
        state: What ``split`` left of a state.
        files: Name of a shard to the digest of its bytes.
    """
    return {FORMAT_KEY: FORMAT, STATE_KEY: state, _FILES_KEY: dict(files)}


def files_in(index: Mapping[str, Any]) -> dict[str, str]:
    """Return the shards of an index, whoever wrote it: name to digest of the bytes."""
    found = index.get(_FILES_KEY)
    files = found if isinstance(found, dict) else {}
    return {str(name): str(digest) for name, digest in files.items()}


def name_in(note: Mapping[str, Any]) -> str:
    """Return the name that a note's tensor has in the shards."""
    return str(note[_NOTE])


def iter_notes(value: Any) -> Iterator[Mapping[str, Any]]:
    """Return all notes of a state."""
    if isinstance(value, Mapping):
        if is_note(value):
            yield value
        else:
            for item in value.values():
                yield from iter_notes(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from iter_notes(item)
