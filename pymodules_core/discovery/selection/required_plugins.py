"""Holds what an experiment says of plugins against the plugins there are."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pymodules_core.discovery.plugins.manager import PluginManager
from pymodules_core.discovery.plugins.missing import FormerPlugins, add_former_provider
from pymodules_core.discovery.plugins.records import DISABLE_VARIABLE, PluginState
from pymodules_core.errors import PluginError, SettingsError, closest_match, list_words
from pymodules_core.experiment import Experiment

logger = logging.getLogger("pymodules_core")

# A run without one of these is another run; one that is kept out need not be there.
_NEEDED = {"plugins.allow", "plugins.settings"}
_WITH_PLUGINS = "leave out --no-plugins"
_KEPT_OUT = {PluginState.DISABLED, PluginState.NOT_ALLOWED}
_SHOWN = {
    PluginState.DISABLED: "is disabled",
    PluginState.NOT_ALLOWED: "is not allowed",
    PluginState.FAILED: "failed",
}


def report_unmatched(plugins: PluginManager) -> None:
    """Warn of patterns and tables in ``[plugins]`` that mean no plugin."""
    for key, pattern in plugins.unmatched():
        logger.warning("%s", _no_plugin(plugins, key, pattern))


def require_plugins(plugins: PluginManager, experiment: Experiment) -> None:
    """Refuse to continue without plugins that an experiment names.

    Args:
        plugins: The plugins.
        experiment: Names some.

    Raises:
        SettingsError: ``allow`` or ``settings`` names one that is not installed.
        PluginError: One of those failed.
    """
    for key, name in plugins.unmatched():
        if key in _NEEDED and "*" not in name:
            raise experiment.locate(_not_installed(plugins, key, name, FormerPlugins(experiment)))
        logger.warning("%s", _no_plugin(plugins, key, name))
    settings = experiment.settings.plugins
    _report_kept_out(plugins, settings.settings)
    named = [("plugins.allow", name) for name in settings.allow or ()]
    named += [(f"plugins.settings.{name}", name) for name in settings.settings]
    for key, name in named:
        _refuse_failed(plugins, experiment, key, name)


def _not_installed(
    plugins: PluginManager, key: str, name: str, former: FormerPlugins
) -> SettingsError:
    error = SettingsError(
        _no_plugin(plugins, key, name),
        key=f"{key}.{name}" if key == "plugins.settings" else key,
        found=name,
        closest=closest_match(name, (record.origin.provider for record in plugins.records)),
        # An entry point is rarely called as what pip installs: `tensorboard` is not.
        fix=f"pip install {name if '-' in name else f'pymodules-{name}, say'}, or remove it there",
    )
    return add_former_provider(error, former.plugin_called(name), otherwise="remove it there")


def _report_kept_out(plugins: PluginManager, names: Iterable[str]) -> None:
    for name in names:
        for record in plugins.records:
            if record.is_called(name) and record.state in _KEPT_OUT:
                logger.warning(
                    "plugins.settings.%s is of %s, which is %s: nothing comes of it",
                    name,
                    record.name,
                    record.state,
                )


def _refuse_failed(plugins: PluginManager, experiment: Experiment, key: str, name: str) -> None:
    for record in plugins.records:
        if (failure := record.failure) is not None and record.matches(name):
            raise experiment.locate(
                PluginError(
                    f"{key}: the run needs plugin {record.origin}, and it failed: "
                    f"{failure.stage} failed: {failure.reason}",
                    key=key,
                    found=record.name,
                    fix=f"{failure.remedy}, or remove it there",
                )
            ) from failure.error


@contextmanager
def explain_left_out(plugins: PluginManager) -> Iterator[None]:
    """Add to what a block refuses, a module or provider that is not there, who takes no part.

    Args:
        plugins: The plugins, asked for their modules already.
    """
    try:
        yield
    except SettingsError as error:
        out = [record for record in plugins.records if record.state in _SHOWN]
        named = [record.name for record in out if record.is_called(str(error.found))]
        if not plugins.loads_installed:
            error.what += "\n  installed plugins are left out by --no-plugins"
            error.fix = f"{_WITH_PLUGINS}, or remove it there"
        elif named and (why := why_left_out(plugins, named[0])):
            # It is not a typo, and another one does not replace it.
            error.closest = None
            error.what += f"\n  plugin {named[0]} {why[0]}"
            error.fix = f"{why[1]}, or remove it there"
        elif out:
            shown = list_words(f"{record.name} {_SHOWN[record.state]}" for record in out)
            error.what += f"\n  of plugins, {shown}"
        raise


def why_left_out(plugins: PluginManager, name: str) -> tuple[str, str] | None:
    """Return why a plugin takes no part, and what lets it; None where it is not installed.

    Args:
        plugins: The plugins.
        name: ``<dist>:<entry point>``.
    """
    if not plugins.loads_installed:
        return "is left out by --no-plugins", _WITH_PLUGINS
    record = next((record for record in plugins.records if record.name == name), None)
    if record is None or record.state not in _SHOWN:
        return None
    fix = f"take {name!r} out of [plugins] disable and {DISABLE_VARIABLE}"
    if record.state is PluginState.NOT_ALLOWED:
        fix = f"add {name!r} to [plugins] allow"
    elif record.failure is not None:
        fix = record.failure.remedy
    return _SHOWN[record.state], fix


def _no_plugin(plugins: PluginManager, key: str, name: str) -> str:
    names = list_words(record.name for record in plugins.records)
    return f"{key}: {name!r} matches no plugin; there are: {names}"
