"""Names what provided a module or plugin that is missing today, and what brings it back.

The run on disk knows: it recorded where its modules and plugins came from.
"""

from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pymodules_core.discovery.plugins.records import normalise
from pymodules_core.errors import (
    PymodulesError,
    SettingsError,
    UnknownModuleError,
    closest_match,
    display_path,
    list_words,
)
from pymodules_core.experiment import Experiment
from pymodules_core.installed import find_distribution
from pymodules_core.run_files import RUN_FILE_NAME, read_run_facts
from pymodules_core.specs import DistributionOrigin

ErrorT = TypeVar("ErrorT", bound=PymodulesError)


class FormerPlugins:
    """The plugins that an experiment's run had, by its ``run.json``, which is read when asked.

    Args:
        experiment_path: The experiment's folder; None outside one, where nothing is known.
    """

    def __init__(self, experiment_path: Path | None) -> None:
        self._experiment_path = experiment_path

    @property
    def providers(self) -> list[DistributionOrigin]:
        """The plugins that provided modules, each as often as it did."""
        return [origin for _, origin in self._modules]

    def provider_of(self, module_name: str) -> DistributionOrigin | None:
        """Return the plugin that provided a module; None for any other origin, or none known."""
        return next((o for name, o in self._modules if name == module_name), None)

    def plugin_called(self, name: str) -> DistributionOrigin | None:
        """Return the plugin that a name of ``[plugins]`` meant: its own or its distribution's."""
        wanted = normalise(name)
        for plugin_name, origin in self._plugins:
            names = (plugin_name, origin.distribution, origin.entry_point)
            if wanted in map(normalise, names):
                return origin
        return None

    @cached_property
    def _modules(self) -> list[tuple[str, DistributionOrigin]]:
        return list(_origins(self._facts.get("modules"), "origin"))

    @cached_property
    def _plugins(self) -> list[tuple[str, DistributionOrigin]]:
        return list(_origins(self._facts.get("plugins"), None))

    @cached_property
    def _facts(self) -> dict[str, Any]:
        return read_run_facts(self._experiment_path) if self._experiment_path else {}


def add_former_provider(
    error: ErrorT,
    origin: DistributionOrigin | None,
    *,
    source: str = RUN_FILE_NAME,
    otherwise: str = "",
) -> ErrorT:
    """Add to an error about something missing what had provided it, and how to get that.

    Args:
        error: The error; it is changed.
        origin: What had provided it; None changes nothing.
        source: Who says so.
        otherwise: What else could be done.
    """
    if origin is None:
        return error
    name = f"{origin.distribution} {origin.version}"
    error.what += f"\n  {source} says {name} provided it"
    # Whatever has a name like it was there, too: it is not a typo.
    error.closest = None
    error.fix = install_command([origin]) or (
        f"{name} is installed: `pymodules plugins` says what it gives, and [plugins] and "
        "[modules] in experiment.toml what is left out"
    )
    if otherwise:
        error.fix += f", or {otherwise}"
    return error


def unknown_module(
    name: object, known: Collection[str], former: FormerPlugins
) -> UnknownModuleError:
    """Build the error about a name that is not a module's.

    Args:
        name: The name.
        known: Names of the modules there are.
        former: The plugins of the experiment's run.
    """
    error = UnknownModuleError(
        f"no module {name!r} in the pool; there are: {list_words(known)}",
        found=name,
        closest=closest_match(str(name), known),
    )
    return add_former_provider(error, former.provider_of(str(name)))


def no_modules(experiment: Experiment, former: FormerPlugins) -> SettingsError:
    """Build the error about an experiment without any module.

    Args:
        experiment: The experiment.
        former: The plugins of its run.
    """
    error = SettingsError(
        f"no module in the pool of experiment {experiment.name!r}",
        file=experiment.config_file,
        fix=f"add {display_path(experiment.modules_dir)}/<module_name>.py, or install a package "
        "that provides modules",
    )
    chosen, files = experiment.settings.modules, experiment.modules_dir.glob("[!_.]*.py")
    left_out = sorted(file.stem for file in files)
    if left_out and (chosen.exclude or chosen.include != ("*",)):
        error.key = f"modules.{'exclude' if chosen.exclude else 'include'}"
        error.what = f"{error.key}: {error.what}"
        error.fix = f"let [modules] include and exclude leave one of: {list_words(left_out)}"
        return experiment.locate(error)
    missing = [origin for origin in former.providers if not is_installed(origin)]
    if missing:
        names = dict.fromkeys(f"{origin.distribution} {origin.version}" for origin in missing)
        error.what += f"\n  {RUN_FILE_NAME} says that its run had modules of {list_words(names)}"
        error.fix = install_command(missing)
    return error


def install_command(origins: Iterable[DistributionOrigin]) -> str | None:
    """Return the command that installs plugins in their versions; None where all are installed."""
    wanted = {
        f"{origin.distribution}=={origin.version}": None
        for origin in origins
        if not is_installed(origin)
    }
    return f"pip install {' '.join(wanted)}" if wanted else None


def is_installed(origin: DistributionOrigin) -> bool:
    """Return whether a plugin's distribution is installed in its version."""
    found = find_distribution(origin.distribution)
    return found is not None and bool(found.version == origin.version)


def _origins(rows: object, key: str | None) -> Iterable[tuple[str, DistributionOrigin]]:
    """Read names and origins of a list of tables; whatever is none is left out."""
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, Mapping):
            origin = DistributionOrigin.from_json(row.get(key) if key else row)
            if origin is not None:
                yield str(row.get("name")), origin
