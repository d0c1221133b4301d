"""Names what provided a module or plugin that is missing today, and what brings it back.

The run on disk knows: it recorded where its modules and plugins came from.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeVar

from pymodules_core.discovery.plugins.records import names_of, normalise
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
        experiment: The experiment; None outside one, where nothing is known.
    """

    def __init__(self, experiment: Experiment | None) -> None:
        self._experiment = experiment

    @cached_property
    def providers(self) -> dict[str, DistributionOrigin]:
        """The plugins that provided modules, by the names of these."""
        origins = ((row.get("name"), row.get("origin")) for row in self._rows("modules"))
        return {
            str(name): origin
            for name, facts in origins
            if (origin := DistributionOrigin.from_json(facts)) is not None
        }

    def plugin_called(self, name: str) -> DistributionOrigin | None:
        """Return the plugin that a name of ``[plugins]`` meant: its own or its distribution's."""
        origins = map(DistributionOrigin.from_json, self._rows("plugins"))
        return next((o for o in origins if o is not None and normalise(name) in names_of(o)), None)

    @cached_property
    def _facts(self) -> Mapping[str, Any]:
        return read_run_facts(self._experiment.path) if self._experiment else {}

    def _rows(self, table: str) -> Iterator[Mapping[str, Any]]:
        """Yield what is a table of a list of tables: the file may say anything."""
        rows = self._facts.get(table)
        return (row for row in (rows if isinstance(rows, list) else ()) if isinstance(row, Mapping))


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
    return add_former_provider(error, former.providers.get(str(name)))


def no_modules(experiment: Experiment) -> SettingsError:
    """Build the error about an experiment without any module.

    Args:
        experiment: The experiment.
    """
    error = SettingsError(
        f"no module in the pool of experiment {experiment.name!r}",
        file=experiment.config_file,
        fix=f"add {display_path(experiment.modules_dir)}/<module_name>.py, or install a package "
        "that provides modules",
    )
    chosen = experiment.settings.modules
    left_out = sorted(file.stem for file in experiment.modules_dir.glob("[!_.]*.py"))
    if left_out and (chosen.exclude or chosen.include != ("*",)):
        error.key = f"modules.{'exclude' if chosen.exclude else 'include'}"
        error.what = f"{error.key}: {error.what}"
        error.fix = f"let [modules] include and exclude leave one of: {list_words(left_out)}"
        return experiment.locate(error)
    providers = FormerPlugins(experiment).providers
    missing = [one for one in providers.values() if not is_installed(one)]
    if missing:
        names = dict.fromkeys(f"{origin.distribution} {origin.version}" for origin in missing)
        error.what += f"\n  {RUN_FILE_NAME} says that its run had modules of {list_words(names)}"
        error.fix = install_command(missing)
    return error


def install_command(origins: Iterable[DistributionOrigin]) -> str | None:
    """Return the command that installs plugins in their versions; None where all are installed."""
    missing = [origin for origin in origins if not is_installed(origin)]
    wanted = dict.fromkeys(f"{origin.distribution}=={origin.version}" for origin in missing)
    return f"pip install {' '.join(wanted)}" if wanted else None


def is_installed(origin: DistributionOrigin) -> bool:
    """Return whether a plugin's distribution is installed in its version."""
    found = find_distribution(origin.distribution)
    return found is not None and bool(found.version == origin.version)
