"""Tells whose code a run of an experiment would execute, without executing any."""

from pymodules_core.discovery.plugins.entry_points import find_entry_points
from pymodules_core.discovery.plugins.manager import PluginManager
from pymodules_core.discovery.plugins.plugin_filter import PluginFilter
from pymodules_core.discovery.plugins.records import PluginState
from pymodules_core.discovery.selection.selection import is_included
from pymodules_core.errors import InvalidNameError
from pymodules_core.experiment import Experiment
from pymodules_core.specs import DistributionOrigin


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
