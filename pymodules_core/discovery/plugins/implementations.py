"""Hook implementations: how this host calls them, and what keeps one from doing what is meant.

They are called one by one, with the arguments each wants.
"""

import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
import pluggy

from pymodules_core.discovery.plugins.records import Fault, PluginRecord
from pymodules_core.errors import closest_match, list_words
from pymodules_core.hookspecs import HOOK_FAMILIES, TaskHooks
from pymodules_core.specs import ModuleSpec

# Hook to the arguments it is called with, without `self`.
HOOK_ARGUMENTS = {
    name: [*inspect.signature(hook).parameters][1:]
    for family in HOOK_FAMILIES
    for name, hook in vars(family).items()
    if not name.startswith("_")
}
HOOK_NAMES = tuple(HOOK_ARGUMENTS)


@attrs.frozen
class HookImplementation:
    """One plugin's function for one hook.

    Attributes:
        record: Whose it is.
        function: The function, bound where it is a method.
        argument_names: The arguments it wants, a part of the hook's.
    """

    record: PluginRecord
    function: Callable[..., Any]
    argument_names: tuple[str, ...]

    def __call__(self, arguments: Mapping[str, Any]) -> Any:
        """Call the function with those of ``arguments`` it wants."""
        return self.function(*[arguments[name] for name in self.argument_names])


class HookCaller(pluggy.PluginManager):
    """pluggy's manager, which also takes undecorated functions of plugins marked so."""

    def __init__(self, project_name: str) -> None:
        super().__init__(project_name)
        self.undecorated: set[int] = set()

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        """Accept a plain function named after a hook where the plugin is marked for it."""
        if id(plugin) not in self.undecorated:
            return super().parse_hookimpl_opts(plugin, name)
        if name not in HOOK_NAMES or not inspect.isroutine(getattr(plugin, name)):
            return None
        return {}  # pluggy fills in its defaults


def materialise_specs(result: Any) -> list[ModuleSpec]:
    """Read what a provider returned, so that a generator that raises late raises here."""
    if result is None:
        return []
    is_several = isinstance(result, Iterable) and not isinstance(result, str | bytes | Mapping)
    by_name: dict[str, ModuleSpec] = {}
    for spec in list(result) if is_several else [result]:
        if not isinstance(spec, ModuleSpec):
            kind = f"{type(spec).__module__}.{type(spec).__qualname__}"
            raise TypeError(f"provide_module returned {kind}, expected ModuleSpec")
        if spec.name in by_name:
            raise ValueError(f"provide_module gives module {spec.name!r} twice")
        by_name[spec.name] = spec
    return list(by_name.values())


def find_hook_fault(
    plugin: object, callers: list[pluggy.HookCaller], *, is_task: bool
) -> Fault | None:
    """Return what is wrong with a plugin that pluggy took, and the fix.

    Args:
        plugin: The plugin.
        callers: The hooks it implements.
        is_task: It is the experiment's ``task.py``, whose names are checked already.
    """
    own = [(one, impl) for one in callers for impl in one.get_hookimpls() if impl.plugin is plugin]
    unknown = [one.name for one, impl in own if not one.has_spec() and not impl.optionalhook]
    if unknown:
        near = closest_match(unknown[0], HOOK_NAMES)
        return (
            f"no hook is called {unknown[0]!r}; hooks are {list_words(HOOK_NAMES)}",
            f"rename it to {near!r}" if near else "remove its hookimpl",
        )
    if is_task:
        return None
    specified = [(one.name, impl) for one, impl in own if one.has_spec()]
    faults = itertools.starmap(_find_fault_of_function, specified)
    if fault := next(filter(None, faults), None):
        return fault
    if plain := _undecorated(plugin, {caller.name for caller in callers}):
        return f"{list_words(plain)} without @hookimpl", f"put @hookimpl above {plain[0]}"
    if specified:
        return None
    return (
        f"it has no hook; hooks are {list_words(HOOK_NAMES)}",
        "put @hookimpl above a function named after a hook",
    )


def find_argument_fault(plugin: object) -> Fault | None:
    """Return the argument of a hook that no hook has, for which pluggy refuses a plugin."""
    for name, allowed in HOOK_ARGUMENTS.items():
        function = getattr(plugin, name, None)
        if not inspect.isroutine(function):
            continue
        wrong = next(
            (one for one in inspect.signature(function).parameters if one not in allowed), None
        )
        if wrong is not None:
            near = closest_match(wrong, allowed)
            return (
                f"{name} wants argument {wrong!r}; it may take {list_words(allowed)}",
                f"rename it to {near!r}" if near else f"remove {wrong!r}",
            )
    return None


def _find_fault_of_function(name: str, implementation: pluggy.HookImpl) -> Fault | None:
    if name in vars(TaskHooks):
        return f"{name} is a task's function", "define it in pymodules/task.py of an experiment"
    if implementation.wrapper or implementation.hookwrapper:
        return (
            f"{name} is a wrapper, and hooks are called one by one with nothing around them",
            "write @hookimpl without wrapper, and a function that does not yield",
        )
    if implementation.kwargnames:
        argument = implementation.kwargnames[0]
        return (
            f"argument {argument!r} of {name} has a default, and such arguments are never passed",
            f"remove the default of {argument!r}",
        )
    if inspect.iscoroutinefunction(implementation.function):
        return f"{name} is async, and hooks are not awaited", "write def instead of async def"
    if inspect.isgeneratorfunction(implementation.function) and name != "provide_module":
        return f"{name} yields, and nothing would run what is in it", "write it without yield"
    return None


def _undecorated(plugin: object, implemented: set[str]) -> list[str]:
    """Name functions that are called like a hook and are none: the decorator was forgotten."""
    return [
        name
        for name in HOOK_NAMES
        if name not in implemented
        and name not in vars(TaskHooks)
        and inspect.isroutine(getattr(plugin, name, None))
    ]
