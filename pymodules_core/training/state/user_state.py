"""``run.state``: values of the task and of plugins that are saved with every checkpoint."""

from collections import UserDict
from collections.abc import Mapping
from typing import Any, Protocol, Self, runtime_checkable

import torch

from pymodules_core.errors import TaskError, UnassignedStateError
from pymodules_core.training.state.encoding import decode_state, encode_state


@runtime_checkable
class Stateful(Protocol):
    """What saves and loads itself: optimizers, averaged models, metrics, replay buffers."""

    def state_dict(self) -> Any:
        """Return everything that has to be saved."""

    def load_state_dict(self, state_dict: Any) -> Any:
        """Take it back."""


class UserState(UserDict[str, Any]):
    """A dict that a resume brings back.

    Values are tensors, arrays, primitives, and lists, tuples and dicts of them; or objects with
    ``state_dict`` and ``load_state_dict``, and ``torch.Generator``. Such an object has to be made
    by the resumed program, too: until then its key is missing, and when it is assigned it gets
    its state.
    """

    def __init__(self) -> None:
        super().__init__()
        self._waiting: dict[str, Any] = {}

    def __missing__(self, key: str) -> Any:
        """Refuse to return a value that is not there.

        Raises:
            KeyError: There is none; ``UnassignedStateError`` where only its saved state is there.
        """
        if key in self._waiting:
            raise UnassignedStateError(
                f"run.state[{key!r}] is the saved state of an object that is not made yet",
                key=key,
                fix=f"assign it first, in run_started(run): run.state[{key!r}] = ...",
            )
        raise KeyError(key)

    def __setitem__(self, key: str, value: Any) -> None:
        """Keep a value.

        Raises:
            TaskError: ``key`` is not a text, or a checkpoint could not hold the value.
        """
        if not isinstance(key, str):
            raise TaskError(
                f"run.state has keys of type str, and {key!r} is {type(key).__name__}",
                found=key,
                fix=f"call it {str(key)!r}",
            )
        self._encode(key, value)
        if key in self._waiting:
            if isinstance(value, torch.Generator):
                value.set_state(self._waiting[key])
            elif isinstance(value, Stateful) and not isinstance(value, type):
                value.load_state_dict(self._waiting[key])
        self._waiting.pop(key, None)
        super().__setitem__(key, value)

    # UserDict's own would pass by what is checked.
    def __ior__(self, other: Any) -> Self:  # type: ignore[misc, override]  # takes any mapping
        self.update(other)
        return self

    def __repr__(self) -> str:
        return f"run.state {self.data!r}"

    def state_dict(self) -> dict[str, Any]:
        """Return all values as tensors and primitives.

        What was saved of objects that were not assigned again is kept.

        Raises:
            TaskError: A value has become something that a checkpoint cannot hold.
        """
        waiting = {
            key: {"object": encode_state(state, name=f"run.state[{key!r}]")}
            for key, state in self._waiting.items()
        }
        return waiting | {key: self._encode(key, value) for key, value in self.data.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        self.data.clear()
        self._waiting.clear()
        for key, saved in state.items():
            if "object" in saved:
                self._waiting[key] = decode_state(saved["object"])
            else:
                self.data[key] = decode_state(saved["plain"])

    def _encode(self, key: str, value: Any) -> dict[str, Any]:
        name = f"run.state[{key!r}]"
        if isinstance(value, torch.Generator):
            return {"object": value.get_state()}
        if isinstance(value, Stateful) and not isinstance(value, type):
            return {"object": encode_state(value.state_dict(), name=f"{name}.state_dict()")}
        return {"plain": encode_state(value, name=name)}
