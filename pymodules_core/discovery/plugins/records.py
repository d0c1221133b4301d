"""What the host knows of each plugin: where it is from, what it does, why it does not.

Which ones take part is a matter of patterns over their names.
"""

import itertools
import os
import re
from collections.abc import Iterable
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import attrs

from pymodules_core.errors import PymodulesError, SettingsError
from pymodules_core.missing_packages import missing_package_fix
from pymodules_core.settings import PluginsSettings
from pymodules_core.specs import DistributionOrigin, Origin

DISABLE_VARIABLE = "PYMODULES_DISABLE_PLUGINS"

# Reason and fix of what a plugin did; None where no fix is known.
Fault: TypeAlias = tuple[str, str | None]


class PluginState(StrEnum):
    """Whether a plugin takes part."""

    ACTIVE = "active"
    DISABLED = "disabled"
    NOT_ALLOWED = "not allowed"
    FAILED = "failed"


@attrs.frozen(kw_only=True)
class PluginFailure:
    """Why a plugin was dropped.

    Attributes:
        origin: Whose failure it is.
        stage: What failed: ``metadata``, ``import``, ``settings``, ``instance``, ``hooks`` or
            ``provide_module``.
        reason: One line.
        remedy: What makes it work.
        error: The exception, where there was one.
    """

    origin: Origin
    stage: str
    reason: str
    remedy: str
    error: BaseException | None = None

    @property
    def fix(self) -> str:
        """The remedy, or how to do without the plugin."""
        return f'{self.remedy}, or switch it off: [plugins] disable = ["{self.origin.provider}"]'

    def __str__(self) -> str:
        return f"plugin {self.origin}: {self.stage} failed: {self.reason}\n  fix: {self.fix}"


@attrs.define(kw_only=True)
class PluginRecord:
    """One plugin, active or not.

    Attributes:
        name: ``<dist>:<entry point>``, the name it is registered under.
        origin: Distribution, version and entry point, or the code that brought it.
        target: ``package.module:object`` of the entry point.
        is_builtin: It belongs to this package.
        is_editable: Its distribution is installed in editable mode; None if not known.
        location: The folder it is installed in, or, where it is editable, that of its project.
        shadowed: Other copies of its distribution, which are not used: version and folder. Told of
            the first plugin of the distribution only.
        state: Whether it takes part.
        hooks: Names of the hooks it implements, sorted.
        modules: Names of the modules it provided, sorted.
        load_ms: Milliseconds its import took.
        settings: Its table of ``[plugins.settings]``, or its ``Settings`` made from it.
        settings_key: Dotted key of that table, as it is written, or as it would be.
        has_table: The table is written.
        failure: Why it was dropped.
    """

    name: str
    origin: Origin
    target: str = ""
    is_builtin: bool = False
    is_editable: bool | None = None
    location: str = ""
    shadowed: list[str] = attrs.field(factory=list)
    state: PluginState = PluginState.ACTIVE
    hooks: list[str] = attrs.field(factory=list)
    modules: list[str] = attrs.field(factory=list)
    load_ms: float = 0.0
    settings: Any = attrs.field(factory=dict)
    has_table: bool = False
    settings_key: str = attrs.field()

    @settings_key.default
    def _settings_key(self) -> str:
        return f"plugins.settings.{self.name.rpartition(':')[2]}"

    failure: PluginFailure | None = None

    def matches(self, pattern: str) -> bool:
        """Return whether a pattern of ``disable`` or ``allow`` means this plugin.

        ``*`` means every installed plugin; a built-in one has to be named.
        """
        if self.is_builtin and pattern == "*":
            return False
        return any(fnmatchcase(name, normalise(pattern)) for name in self._names())

    def is_called(self, name: str) -> bool:
        """Return whether a name is the plugin's, its distribution's or its entry point's."""
        return normalise(name) in self._names()

    def blames_settings(self, error: BaseException) -> bool:
        """Return whether what the plugin raised is about the experiment's own words to it.

        Then it is a person's mistake, to be reported as it is; its message gets the plugin's name.
        """
        if not isinstance(error, SettingsError) or not self.has_table or error.key is None:
            return False
        error.what += f"\n  says plugin {self.origin}"
        return True

    def _names(self) -> list[str]:
        distribution, _, entry_point = self.name.partition(":")
        return [normalise(name) for name in (self.name, distribution, entry_point)]


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
        self._settings = settings

    def state_of(self, record: PluginRecord) -> PluginState:
        """Return whether a plugin takes part, before it is imported."""
        if any(map(record.matches, itertools.chain(*self._disable.values()))):
            return PluginState.DISABLED
        allow = self._settings.allow
        if allow is None or record.is_builtin or any(map(record.matches, allow)):
            return PluginState.ACTIVE
        return PluginState.NOT_ALLOWED

    def find_unmatched(self, records: Iterable[PluginRecord]) -> list[tuple[str, str]]:
        """Return each pattern that means no plugin, after the key it stands under."""
        patterns = self._disable | {
            "plugins.allow": self._settings.allow or (),
            "plugins.settings": tuple(self._settings.settings),
        }
        return [
            (key, pattern)
            for key, names in patterns.items()
            for pattern in names
            # All that is installed may well be nothing.
            if pattern != "*" and not any(record.matches(pattern) for record in records)
        ]


def names_of(origin: Origin | None) -> set[str]:
    """Return the names that mean a provider, as ``normalise`` gives them."""
    names = [] if origin is None else [origin.provider]
    if isinstance(origin, DistributionOrigin):
        names += [origin.entry_point, f"{origin.distribution}:{origin.entry_point}"]
    return set(map(normalise, names))


def import_fault_of(error: BaseException, target: str, provider: str) -> Fault:
    """Return reason and fix of what the import of an entry point raised.

    Args:
        error: What it raised.
        target: ``package.module:object`` of the entry point.
        provider: The distribution.
    """
    reason, fix = fault_of(error)
    if getattr(error, "name", None) == re.split("[.:]", target)[0]:
        # What is missing is the package itself, of which only metadata is left.
        fix = f"pip install --force-reinstall {provider}"
    return reason, fix


def fault_of(error: BaseException) -> Fault:
    """Return reason and fix of what a plugin's code raised; None where no fix is known."""
    if isinstance(error, PymodulesError):
        return f"{type(error).__name__}: {error.what}", error.fix
    return f"{type(error).__name__}: {error}", missing_package_fix(error)


def normalise(name: str) -> str:
    """Fold case and separators as package indexes do, leaving pattern signs and ``:`` alone."""
    return re.sub(r"[-_.]+", "-", name).lower()
