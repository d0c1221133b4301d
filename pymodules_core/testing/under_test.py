"""The plugin that is tested: by its name where it is installed, else the object itself."""

import importlib.util
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from pymodules_core.discovery import PluginManager, PluginRecord
from pymodules_core.errors import PluginError, closest_match, list_words
from pymodules_core.settings import PluginsSettings
from pymodules_core.specs import CodeOrigin

# The distribution of plugins that are not installed.
TEST = "test"


def register_objects(plugins: PluginManager, objects: Mapping[str, object]) -> list[PluginRecord]:
    """Register plugins that are not installed, under ``test:<name>``.

    Args:
        plugins: Where to.
        objects: Name, as an entry point has one, to a Python module, a class or an instance.

    Returns:
        What is known of them.
    """
    records = []
    for name, plugin in objects.items():
        record = PluginRecord(name=f"{TEST}:{name}", origin=CodeOrigin(name))
        records.append(plugins.register(plugin, record=record))
    return records


@attrs.frozen(kw_only=True)
class PluginUnderTest:
    """One plugin.

    Attributes:
        name: ``<dist>:<entry point>``, or ``test:<name>`` of one that is not installed.
        target: Where it is imported from, ``package.module:object``; empty if it has no such place.
        settings: Its table of ``[plugins.settings]``.
        plugin: The object, where it is not installed.
    """

    name: str
    target: str
    settings: Mapping[str, Any]
    plugin: object = None

    @classmethod
    def find(cls, plugin: object, settings: Mapping[str, Any]) -> "list[PluginUnderTest]":
        """Return the plugins that are meant.

        Args:
            plugin: The name of a distribution, of an entry point or ``<dist>:<entry point>``; or
                a Python module, a class or an instance.
            settings: The table of each.

        Raises:
            PluginError: No installed plugin is called so.
        """
        if not isinstance(plugin, str):
            name, target = f"{TEST}:{_name_of(plugin)}", _target_of(plugin)
            return [cls(name=name, target=target, settings=settings, plugin=plugin)]
        records = [r for r in PluginManager(settings=_NOBODY).records if not r.is_builtin]
        found = [
            cls(name=record.name, target=record.target, settings=settings)
            for record in records
            if record.is_called(plugin)
        ]
        if not found:
            near = closest_match(plugin, (n for r in records for n in (r.name, r.origin.provider)))
            raise PluginError(
                f"no installed plugin is called {plugin!r}; there are: "
                f"{list_words(record.name for record in records)}",
                found=plugin,
                closest=near,
                fix=None if near else f"pip install {plugin}",
            )
        return found


# Lets nobody in: metadata is read, and nothing is imported.
_NOBODY = PluginsSettings(allow=())


def _name_of(plugin: object) -> str:
    name: str = getattr(plugin, "__name__", type(plugin).__name__)
    # `acme_nets.plugin` and `acme_nets` are called after the package.
    return name.partition(".")[0]


def _target_of(plugin: object) -> str:
    """Return where another process imports a plugin from; nothing where it cannot: a test's own."""
    if inspect.ismodule(plugin):
        return plugin.__name__ if _is_found(plugin.__name__) else ""
    cls = plugin if inspect.isclass(plugin) else type(plugin)
    is_found = "<locals>" not in cls.__qualname__ and _is_found(cls.__module__)
    return f"{cls.__module__}:{cls.__qualname__}" if is_found else ""


def _is_found(name: str) -> bool:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None and Path(spec.origin).exists()
