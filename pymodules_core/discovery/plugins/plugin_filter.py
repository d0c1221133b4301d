"""Which plugins an experiment and the environment leave in, by patterns over their names."""

import os
from collections.abc import Iterable

from pymodules_core.discovery.plugins.records import PluginRecord, PluginState
from pymodules_core.settings import PluginsSettings

DISABLE_VARIABLE = "PYMODULES_DISABLE_PLUGINS"


class PluginFilter:
    """``[plugins] disable``, ``allow`` and ``settings``, and ``PYMODULES_DISABLE_PLUGINS``.

    Args:
        settings: ``[plugins]``.
    """

    def __init__(self, settings: PluginsSettings) -> None:
        variable = os.environ.get(DISABLE_VARIABLE, "").split(",")
        self._disable = {
            "plugins.disable": settings.disable,
            DISABLE_VARIABLE: tuple(filter(None, map(str.strip, variable))),
        }
        self._allow = settings.allow
        self._tables = settings.settings

    def state_of(self, record: PluginRecord) -> PluginState:
        """Return whether a plugin takes part, before it is imported."""
        if any(record.matches(pattern) for names in self._disable.values() for pattern in names):
            return PluginState.DISABLED
        if self._allow is None or record.is_builtin:
            return PluginState.ACTIVE
        is_allowed = any(record.matches(pattern) for pattern in self._allow)
        return PluginState.ACTIVE if is_allowed else PluginState.NOT_ALLOWED

    def find_unmatched(self, records: Iterable[PluginRecord]) -> list[tuple[str, str]]:
        """Return each pattern that means no plugin, after the key it stands under."""
        patterns = self._disable | {
            "plugins.allow": self._allow or (),
            "plugins.settings": tuple(self._tables),
        }
        return [
            (key, pattern)
            for key, names in patterns.items()
            for pattern in names
            # All that is installed may well be nothing.
            if pattern != "*" and not any(record.matches(pattern) for record in records)
        ]
