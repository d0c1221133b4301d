"""The state of plugins that have ``state_dict`` and ``load_state_dict``, in every checkpoint."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from pymodules_core.discovery import PluginManager, PluginRecord
from pymodules_core.discovery.global_state import guard_global_state, keep_random_streams
from pymodules_core.specs import Origin
from pymodules_core.training.plugin_calls import PluginCalls
from pymodules_core.training.run import Run
from pymodules_core.training.state.encoding import decode, encode


class PluginStates:
    """Asks plugins for their state, and gives it back.

    Args:
        plugins: All plugins.
        run: Their run.
    """

    def __init__(self, plugins: PluginManager, run: Run) -> None:
        self._plugins = plugins.stateful()
        self._calls = PluginCalls(run)

    def state_dict(self) -> dict[str, Any]:
        """Give the states by plugin, as tensors and primitives; none of a plugin that failed.

        Raises:
            PluginError: A plugin that the run needs fails.
        """
        states = {
            record.name: self._call(record, "state_dict", partial(_encoded_state, plugin))
            for record, plugin in self._plugins
        }
        return {name: state for name, state in states.items() if state is not None}

    def load_state_dict(self, states: Mapping[str, Any]) -> None:
        """Give back what ``state_dict`` gave, to those plugins that are there.

        Raises:
            PluginError: A plugin that the run needs fails.
        """
        for record, plugin in self._plugins:
            if record.name in states:
                take = partial(plugin.load_state_dict, decode(states[record.name]))
                self._call(record, "load_state_dict", take)

    def _call(self, record: PluginRecord, name: str, function: Callable[[], Any]) -> Any:
        return self._calls.call(record, name, function, _isolated(record.origin, name))


def _encoded_state(plugin: Any) -> Any:
    return encode(plugin.state_dict(), name="its state")


@contextmanager
def _isolated(origin: Origin, name: str) -> Iterator[None]:
    """Let neither numbers that are drawn nor settings that are changed be seen by the training."""
    with guard_global_state(f"{name} of plugin {origin}", is_call=True), keep_random_streams():
        yield
