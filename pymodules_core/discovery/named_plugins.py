"""Holds what an experiment says of plugins against the plugins there are."""

import logging

from pymodules_core.discovery.missing_plugins import FormerPlugins, explain
from pymodules_core.discovery.plugin_manager import PluginManager
from pymodules_core.discovery.plugin_records import PluginState
from pymodules_core.errors import PluginError, SettingsError, closest_match, list_words
from pymodules_core.experiment import Experiment

logger = logging.getLogger("pymodules_core")

# A run without one of these is another run; one that is kept out need not be there.
_NEEDED = {"plugins.allow", "plugins.settings"}
_KEPT_OUT = {PluginState.DISABLED, PluginState.NOT_ALLOWED}


def report_unmatched(plugins: PluginManager) -> None:
    """Warn of patterns and tables in ``[plugins]`` that mean no plugin."""
    for key, pattern in plugins.unmatched():
        logger.warning("%s", _no_plugin(plugins, key, pattern))


def require_plugins(plugins: PluginManager, experiment: Experiment, former: FormerPlugins) -> None:
    """Refuse to go on without plugins that an experiment names.

    Args:
        plugins: The plugins.
        experiment: Names some.
        former: Those of its run, to say in which version it had them.

    Raises:
        SettingsError: ``allow`` or ``settings`` names one that is not installed.
        PluginError: One of those, or of ``modules.override``, failed.
    """
    for key, name in plugins.unmatched():
        if key not in _NEEDED or "*" in name:
            logger.warning("%s", _no_plugin(plugins, key, name))
            continue
        error = SettingsError(
            _no_plugin(plugins, key, name),
            key=f"{key}.{name}" if key == "plugins.settings" else key,
            found=name,
            closest=closest_match(name, (r.origin.provider for r in plugins.records)),
            # An entry point is rarely called as what pip installs: `tensorboard` is not.
            fix=f"pip install {name if '-' in name else f'pymodules-{name}, say'}, or "
            "remove it there",
        )
        explain(error, former.plugin_called(name), otherwise="remove it there")
        raise experiment.locate(error)
    settings = experiment.settings
    for name in settings.plugins.settings:
        for record in plugins.records:
            if record.is_called(name) and record.state in _KEPT_OUT:
                logger.warning(
                    "plugins.settings.%s is of %s, which is %s: nothing comes of it",
                    name,
                    record.name,
                    record.state,
                )
    named = [*(settings.plugins.allow or ()), *settings.plugins.settings]
    for name in (*named, *settings.modules.override.values()):
        for record in plugins.records:
            if record.failure is not None and record.matches(name):
                raise PluginError(
                    f"the run needs a plugin that failed\n{record.failure}", found=record.name
                ) from record.failure.error


def _no_plugin(plugins: PluginManager, key: str, name: str) -> str:
    names = list_words(record.name for record in plugins.records)
    return f"{key}: {name!r} matches no plugin; there are: {names}"
