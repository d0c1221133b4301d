"""Where one network is from, and where its settings were written; imports no torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from pymodules_core.errors import SettingsError
from pymodules_lightning.settings import NetworkSettings


@attrs.frozen(kw_only=True)
class NetworkSource:
    """What the factory of one network needs.

    Attributes:
        name: The module's name in the pool.
        settings: What to build.
        data_home: Holds ``module_ckps/``.
        key: Dotted key of the settings, for messages.
        locate: Puts file and line of ``error.key`` into an error.
    """

    name: str
    settings: NetworkSettings
    data_home: Path
    key: str
    locate: Callable[[SettingsError], SettingsError] = attrs.field(eq=False)

    def error(self, field: str, what: str, **facts: Any) -> SettingsError:
        """Make an error about one setting, with its place.

        Args:
            field: Of ``NetworkSettings``; may be dotted.
            what: What is wrong.
            facts: For the error: ``found``, ``closest``, ``fix``.
        """
        key = f"{self.key}.{field}"
        return self.locate(SettingsError(f"{key}: {what}", key=key, **facts))

    def argument_error(self, name: str, what: str, **facts: Any) -> SettingsError:
        """Make an error about one argument of the class, in the table that gives it."""
        if name in self.settings.arguments:
            return self.error(f"arguments.{name}", what, **facts)
        key = f"modules.args.{self.name}.{name}"
        return self.locate(SettingsError(f"{key}: {what}", key=key, **facts))
