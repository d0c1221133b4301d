"""Finds a module's weights in files that other programs wrote: one level down, or of a wrapper."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pymodules_core.checkpoints.file_format.content_checks import check_state

# What DDP and torch.compile put before the keys of the module they wrap, outermost first.
_WRAPPERS = ("module", "_orig_mod")


def find_weights(
    state: Mapping[str, Any], own: Collection[str], *, source: Path
) -> tuple[Mapping[str, Any], str | None]:
    """Look one level down, as in ``{"state_dict": ..., "epoch": ...}``.

    Args:
        state: What a file holds.
        own: The module's keys.
        source: The file, for messages.

    Returns:
        The weights, and the key they are under; ``state`` and None where none or several fit.

    Raises:
        CheckpointFileError: They are no state dict.
    """
    own = set(own)
    if not own.isdisjoint(state):
        return state, None
    fitting = [
        key
        for key, value in state.items()
        if isinstance(value, Mapping) and any(_is_for(inner, own) for inner in value)
    ]
    if len(fitting) != 1:
        return state, None
    return check_state(source, state[fitting[0]]), fitting[0]


def key_without_wrappers(key: str, own: Collection[str]) -> str:
    """Give the module's own key for one that a wrapper made; ``key`` itself where there is none.

    Here a file's text has to do. On saving, wrappers are known by their type.
    """
    if key in own:
        return key
    parts = key.split(".")
    for wrappers in (_WRAPPERS[1:], _WRAPPERS[:1], _WRAPPERS):
        shorter = ".".join(part for part in parts if part not in wrappers)
        if shorter in own:
            return shorter
    return key


def _is_for(key: object, own: Collection[str]) -> bool:
    return isinstance(key, str) and key_without_wrappers(key, own) in own
