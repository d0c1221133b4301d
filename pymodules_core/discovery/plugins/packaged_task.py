"""Loads a task that an installed package offers, once an experiment names it.

Tasks are entry points of a group of their own, so that nothing is imported that nobody asked for.
"""

import logging
from functools import partial
from types import ModuleType

import importlib_metadata

from pymodules_core.discovery.plugins.entry_points import metadata_folder
from pymodules_core.discovery.plugins.manager import PluginManager
from pymodules_core.discovery.plugins.missing import FormerPlugins, add_former_provider
from pymodules_core.discovery.plugins.records import import_fault_of, normalise
from pymodules_core.errors import (
    PluginError,
    SettingsError,
    closest_match,
    display_path,
    list_words,
)
from pymodules_core.experiment import Experiment
from pymodules_core.installed import distributions
from pymodules_core.specs import DistributionOrigin

logger = logging.getLogger("pymodules_core")

TASKS_GROUP = "pymodules.tasks"

_KEY = "experiment.task"


def find_tasks() -> dict[str, importlib_metadata.EntryPoint]:
    """Return the tasks that installed packages offer, by ``<distribution>:<entry point>``, sorted.

    A distribution with damaged metadata offers none, and is named in a warning. Where its entry
    points cannot be read, it is named among the plugins.
    """
    offered: dict[str, importlib_metadata.EntryPoint] = {}
    for distribution in distributions():
        text = ""
        try:
            text = distribution.read_text("entry_points.txt") or ""
            if TASKS_GROUP in text:
                for point in distribution.entry_points.select(group=TASKS_GROUP):
                    offered.setdefault(f"{distribution.name}:{point.name}", point)
        # Damaged metadata raises anything; if it is not a task's, it is nobody's business.
        except Exception as error:  # noqa: BLE001
            if TASKS_GROUP in text:
                logger.warning(
                    "tasks of %s cannot be read: %s: %s. Fix: reinstall it",
                    display_path(metadata_folder(distribution)),
                    type(error).__name__,
                    error,
                )
    return dict(sorted(offered.items()))


def load_packaged_task(
    plugins: PluginManager, experiment: Experiment
) -> tuple[ModuleType, DistributionOrigin]:
    """Import the task that ``[experiment] task`` names.

    Args:
        plugins: Says whether installed packages may be loaded at all.
        experiment: Whose task.

    Raises:
        SettingsError: No installed package offers it, the experiment has a ``task.py`` too, or
            installed plugins are turned off.
        PluginError: Its import fails, or the entry point is not a module.
    """
    wanted = str(experiment.settings.experiment.task)
    refusal = partial(SettingsError, key=_KEY, found=wanted)
    if experiment.task_file.is_file():
        task_file = display_path(experiment.task_file)
        error = refusal(
            f"{_KEY}: {wanted!r} is the task, and {task_file} is there, too",
            fix="remove one of the two",
        )
        raise experiment.locate(error)
    if not plugins.loads_installed:
        error = refusal(
            f"{_KEY}: {wanted!r} comes from a package, and installed plugins are turned off",
            fix="train without --no-plugins, or write pymodules/task.py",
        )
        raise experiment.locate(error)
    offered = find_tasks()
    by_name = {normalise(name): point for name, point in offered.items()}
    point = by_name.get(normalise(wanted))
    if point is None or point.dist is None:
        near, distribution = closest_match(wanted, offered), wanted.partition(":")[0]
        error = refusal(
            f"{_KEY}: no installed package offers the task {wanted!r}; there are: "
            f"{list_words(offered)}",
            closest=near,
            fix=None if near else f"pip install {distribution}",
        )
        former = FormerPlugins(experiment).plugin_called(distribution)
        raise add_former_provider(experiment.locate(error), former)
    origin = DistributionOrigin(point.dist.name, point.dist.version, point.name)
    try:
        namespace = point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        reason, fix = import_fault_of(error, point.value, origin.provider)
        raise PluginError(
            f"the task {wanted} of {origin.provider} {origin.version} cannot be imported: {reason}",
            found=wanted,
            fix=fix or f"report it to {origin.provider}",
        ) from error
    if not isinstance(namespace, ModuleType):
        raise PluginError(
            f"the task {wanted} of {origin.provider} is {type(namespace).__name__}, expected a "
            "Python module of functions",
            found=wanted,
            fix=f'let its entry point name the module: {point.name} = "package.module"',
        )
    return namespace, origin
