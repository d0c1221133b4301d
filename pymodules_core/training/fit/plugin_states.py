"""The state of plugins that have ``state_dict`` and ``load_state_dict``, in every checkpoint."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pymodules_core.discovery import PluginManager, PluginRecord
from pymodules_core.discovery.isolation.global_state import keep_random_streams
from pymodules_core.training.state.encoding import decode_state, encode_state
from pymodules_core.training.task.hooks import PluginCalls
from pymodules_core.training.task.run import Run


class PluginStates:
    """Saves and restores the state of plugins.

    Args:
        plugins: All plugins.
        run: Their run.
    """

    def __init__(self, plugins: PluginManager, run: Run) -> None:
        self._plugins = plugins.stateful()
        self._calls = PluginCalls(run)
        # Of plugins that are not here, or could not load it: for when they come back.
        self._kept: dict[str, Any] = {}
        self._without: set[str] = set()

    def state_dict(self) -> dict[str, Any]:
        """Return the states by plugin, as tensors and primitives; none of a plugin that failed.

        Raises:
            PluginError: A plugin that the run needs fails.
        """
        states = {
            record.name: self._call(record, "state_dict", partial(_encoded_state, plugin))
            for record, plugin in self._plugins
            if record.name not in self._without
        }
        return self._kept | {name: state for name, state in states.items() if state is not None}

    def load_state_dict(self, states: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned into the plugins that are there.

        Raises:
            PluginError: A plugin that the run needs fails.
        """
        self._kept = dict(states)
        for record, plugin in self._plugins:
            if record.name in states:
                take = partial(_load_state, plugin, decode_state(states[record.name]))
                if self._call(record, "load_state_dict", take):
                    del self._kept[record.name]
                else:
                    # What it returns from now on is of a fresh start, which must not replace this.
                    self._without.add(record.name)

    def _call(self, record: PluginRecord, name: str, function: Callable[[], Any]) -> Any:
        return self._calls.call(record, name, function, keep_random_streams())


def _load_state(plugin: Any, state: Any) -> bool:
    plugin.load_state_dict(state)
    return True


def _encoded_state(plugin: Any) -> Any:
    return encode_state(plugin.state_dict(), name="its state")
