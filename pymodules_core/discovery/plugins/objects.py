"""Makes a plugin's own settings, and the instance of one that is a class."""

import inspect
from collections.abc import Mapping
from typing import Any

from pymodules_core.discovery.plugins.records import PluginRecord
from pymodules_core.errors import SettingsError, list_words
from pymodules_core.settings import structure
from pymodules_core.settings.strict import is_structured
from pymodules_core.settings.structure import format_value
from pymodules_core.specs import Locator

_TABLES = "plugins.settings"
_CLASS_NAME = "Settings"
_ARGUMENT = "settings"


class PluginFaultError(Exception):
    """What a plugin's author has to mend.

    Args:
        stage: What failed: ``settings`` or ``instance``.
        reason: One line.
        fix: What to do, where it is known.
    """

    def __init__(self, stage: str, reason: str, fix: str | None = None) -> None:
        super().__init__(reason)
        self.stage = stage
        self.reason = reason
        self.fix = fix


def make_settings(
    plugin: object, record: PluginRecord, tables: Mapping[str, dict[str, Any]], locate: Locator
) -> None:
    """Put a plugin's settings into its record, with the key of its table.

    An instance of ``Settings``; or the table, empty if there is none, where it has no such class.

    Args:
        plugin: What the entry point gives: a Python module, a class or an instance; its attribute
            ``Settings`` types the table.
        record: What is known of it.
        tables: ``[plugins.settings]``.
        locate: Says where the setting behind an error was written.

    Raises:
        SettingsError: The table does not fit the class, or two tables are of this plugin.
        PluginFaultError: The class is none that settings can be made of.
    """
    names = [name for name in tables if record.is_called(name)]
    if len(names) > 1:
        raise locate(
            SettingsError(
                f"{list_words(f'{_TABLES}.{name}' for name in names)} are tables of one plugin, "
                f"{record.name}",
                key=f"{_TABLES}.{names[1]}",
                found=names,
                fix="write one of them",
            )
        )
    table: Any = {}
    if names:
        table, record.settings_key = tables[names[0]], f"{_TABLES}.{names[0]}"
        record.has_table = True
    cls = getattr(plugin, _CLASS_NAME, None)
    if cls is None:
        record.settings = table
        return
    if not is_structured(cls):
        raise PluginFaultError(
            "settings",
            f"{_CLASS_NAME} is {format_value(cls)}, expected an attrs class or dataclass",
            f"write @attrs.frozen above class {_CLASS_NAME}",
        )
    try:
        record.settings = structure(table, cls, root=record.settings_key)
    except SettingsError as error:
        if names:
            raise locate(error) from error.__cause__
        raise PluginFaultError(
            "settings",
            f"{_CLASS_NAME} cannot be made without a table: {error.what}",
            "give each of its fields a default",
        ) from error
    except Exception as error:
        # The class is the plugin's: annotations that no converter knows, or that name nothing.
        raise PluginFaultError(
            "settings",
            f"{_CLASS_NAME} cannot be made: {type(error).__name__}: {error}",
            "annotate its fields with types of TOML: str, int, float, bool, list, dict",
        ) from error


def make_instance(cls: type, settings: Any) -> object:
    """Build the instance of a plugin that is a class: one for each discovery, and so for each run.

    Args:
        cls: Its ``__init__`` takes ``settings``, or nothing.
        settings: What ``make_settings`` gave.

    Raises:
        PluginFaultError: It takes something else, or raises.
    """
    parameters = _parameters(cls)
    wanted = [
        name
        for name, one in parameters.items()
        if one.default is one.empty and one.kind not in {one.VAR_POSITIONAL, one.VAR_KEYWORD}
    ]
    if others := [name for name in wanted if name != _ARGUMENT]:
        raise PluginFaultError(
            "instance",
            f"the class {cls.__name__} wants {list_words(others)}, and gets {_ARGUMENT} at most",
            f"write def __init__(self, {_ARGUMENT})",
        )
    try:
        return cls(**{_ARGUMENT: settings}) if _ARGUMENT in parameters else cls()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginFaultError("instance", f"{type(error).__name__}: {error}") from error


def _parameters(cls: type) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(cls).parameters
    except (TypeError, ValueError):  # some classes have no signature
        return {}
