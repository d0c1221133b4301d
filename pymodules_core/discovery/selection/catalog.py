"""Tells what modules an experiment would have and whose code would run, and executes none of it."""

import attrs

from pymodules_core.discovery.plugins.entry_points import find_entry_points
from pymodules_core.discovery.plugins.manager import PluginManager
from pymodules_core.discovery.plugins.records import PluginFilter, PluginState
from pymodules_core.discovery.scan.static_reader import StaticModuleFile, read_module_file
from pymodules_core.discovery.selection.required_plugins import explain_left_out, report_unmatched
from pymodules_core.discovery.selection.selection import is_included, select_specs
from pymodules_core.discovery.selection.spec_settings import check_spec_settings
from pymodules_core.errors import DuplicateModuleError, InvalidNameError, PymodulesError
from pymodules_core.experiment import Experiment
from pymodules_core.settings import ModuleSettings
from pymodules_core.specs import DistributionOrigin, FileOrigin, ModuleSpec, Origin

# Up to so many files a listing also reports syntax errors, for 0.2 ms a file.
_MOST_FILES_PARSED_WHOLE = 200


@attrs.frozen(kw_only=True)
class ListedModule:
    """One module as far as it is known without building it.

    Attributes:
        name: Its name.
        origin: Where it comes from.
        description: One line.
        built_from: Where its factory takes weights from; empty where it does not.
        settings: Its settings; None where they are computed (``is_dynamic``) or wrong.
        is_dynamic: The settings are not a literal.
        problem: What would keep it from being built.
    """

    name: str
    origin: Origin | None
    description: str = ""
    built_from: str = ""
    settings: ModuleSettings | None = None
    is_dynamic: bool = False
    problem: str | None = None

    @property
    def is_frozen(self) -> bool | None:
        """Whether it is frozen; None where that cannot be known."""
        return self.settings.frozen if self.settings else None

    @property
    def weights(self) -> str | None:
        """Where its initial weights come from; None for weights as built, or not known."""
        return (self.settings.weights_text if self.settings else None) or self.built_from or None


@attrs.frozen
class Catalog:
    """The modules, and the conflict between providers where there is one."""

    modules: list[ListedModule]
    conflict: DuplicateModuleError | None = None


def list_modules(plugins: PluginManager, experiment: Experiment | None = None) -> Catalog:
    """List what providers give; where two give one name, both are listed and reported.

    Args:
        plugins: The loaded plugins.
        experiment: Gives include, exclude, override and settings; None lists packages only.

    Raises:
        SettingsError: ``experiment.toml`` names a module or provider that is not there.
        InvalidNameError: A module file's name is not allowed.
    """
    specs = plugins.provided_specs()
    report_unmatched(plugins)
    conflict = None
    try:
        with explain_left_out(plugins):
            specs = select_specs(specs, experiment)
    except DuplicateModuleError as error:
        conflict = error
    whole = len(specs) <= _MOST_FILES_PARSED_WHOLE
    return Catalog([_describe(spec, experiment, whole=whole) for spec in specs], conflict)


def executed_files(experiment: Experiment) -> list[str]:
    """Return the task, and the count of module files.

    Helpers, and files that only others import, are not counted. A name that is not allowed ends the
    run before anything is executed: then there is nothing to report.
    """
    settings = experiment.settings
    scanner = PluginManager.for_experiment(experiment, load_installed=False)
    try:
        specs = scanner.provided_specs()
    except InvalidNameError:
        return []
    task = settings.experiment.task
    found = []
    if task is not None:
        found.append(f"task {task}")
    elif experiment.task_file.is_file():
        found.append(experiment.task_file.name)
    count = sum(is_included(spec.name, settings.modules) for spec in specs)
    if count:
        found.append(f"{count} module file{'s' if count > 1 else ''}")
    return found


def executed_plugins(experiment: Experiment) -> list[str]:
    """Return each distribution with a plugin that the experiment leaves in, with its version."""
    plugin_filter = PluginFilter(experiment.settings.plugins)
    origins = [
        found.record.origin
        for found in find_entry_points(warns=False)
        if plugin_filter.state_of(found.record) is PluginState.ACTIVE
    ]
    return sorted(
        {f"{o.distribution} {o.version}" for o in origins if isinstance(o, DistributionOrigin)}
    )


def _describe(spec: ModuleSpec, experiment: Experiment | None, *, whole: bool) -> ListedModule:
    file = spec.origin.file if isinstance(spec.origin, FileOrigin) else None
    if file is not None:
        static = read_module_file(file, whole=whole)
    elif callable(spec.settings):
        static = StaticModuleFile(is_dynamic=True, description=spec.description)
    else:
        static = StaticModuleFile(settings=spec.settings, description=spec.description)
    settings, problem = None, static.fault
    if static.settings is not None:
        try:
            settings = check_spec_settings(static.settings, spec, experiment)
        except PymodulesError as error:
            problem = str(error)
    return ListedModule(
        name=spec.name,
        origin=spec.origin,
        description=static.description,
        built_from=spec.weights,
        settings=settings,
        is_dynamic=static.is_dynamic,
        problem=problem,
    )
