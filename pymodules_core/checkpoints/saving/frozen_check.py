"""Notices a frozen module that changes: it is saved once, so the pools would not say so."""

from collections.abc import Mapping
from typing import Any

from pymodules_core.checkpoints.file_format.digest import Content, memory_of
from pymodules_core.checkpoints.file_format.state_dict import tensors_in
from pymodules_core.checkpoints.store.checksums import fingerprint
from pymodules_core.errors import FrozenModuleError, list_words

_Fingerprints = dict[str, tuple[list[Any], tuple[bytes, ...]]]


class FrozenCheck:
    """Compares frozen modules with what they were at the start of a run.

    Args:
        states: Module name to its state dict, as it is now.
    """

    def __init__(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        self._first = {name: _fingerprints(state) for name, state in states.items()}
        self._epoch: int | None = None

    def is_due(self, epoch: int) -> bool:
        """Return whether a check is due: once an epoch, since reading costs memory traffic."""
        is_due, self._epoch = epoch != self._epoch, epoch
        return is_due

    def recheck(self) -> None:
        """Be due once more in this epoch: what was due was not looked at."""
        self._epoch = None

    def check(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Compare.

        Raises:
            FrozenModuleError: A module changed; the message names its tensors.
        """
        for name, state in states.items():
            first, now = self._first[name], _fingerprints(state)
            changed = [key for key in {**first, **now} if first.get(key) != now.get(key)]
            if changed:
                raise FrozenModuleError(
                    f"module {name!r} is frozen and has changed since the run started: "
                    + list_words(changed),
                    key=name,
                    found=changed,
                    fix="find what writes to it (an optimizer, an EMA, a copy of weights), or set "
                    '"frozen": False',
                )


def _fingerprints(state: Mapping[str, Any]) -> _Fingerprints:
    return {
        key: (
            Content({key: value}).outline,
            tuple(fingerprint(memory_of(tensor)) for tensor in tensors_in(value)),
        )
        for key, value in state.items()
    }
