"""What keeps the hooks of a plugin from doing what its author means."""

import inspect
from collections.abc import Callable
from typing import Any

import pluggy

from pymodules_core.discovery.plugins.implementations import HOOK_NAMES, is_optional
from pymodules_core.errors import closest_match, list_words
from pymodules_core.hookspecs import HOOK_FAMILIES, ModuleHooks, RunHooks, TaskHooks


def find_hook_fault(
    plugin: object, callers: list[pluggy.HookCaller], *, is_task: bool
) -> tuple[str, str] | None:
    """Return what is wrong with a plugin that pluggy took, and the fix.

    Args:
        plugin: The plugin.
        callers: The hooks it implements.
        is_task: It is the experiment's ``task.py``, whose names are checked already.
    """
    specified = [caller for caller in callers if caller.has_spec()]
    unknown = [one for one in callers if not one.has_spec() and not is_optional(one, plugin)]
    if unknown:
        near = closest_match(unknown[0].name, HOOK_NAMES)
        return (
            f"no hook is called {unknown[0].name!r}; hooks are {list_words(HOOK_NAMES)}",
            f"rename it to {near!r}" if near else "remove its hookimpl",
        )
    if is_task:
        return None
    own = (
        _find_fault_of_function(caller.name, implementation)
        for caller in specified
        for implementation in caller.get_hookimpls()
        if implementation.plugin is plugin
    )
    if fault := next(filter(None, own), None):
        return fault
    if plain := _undecorated(plugin, {caller.name for caller in callers}):
        return f"{list_words(plain)} without @hookimpl", f"put @hookimpl above {plain[0]}"
    if specified:
        return None
    return (
        f"it has no hook; hooks are {list_words(HOOK_NAMES)}",
        "put @hookimpl above a function named after a hook",
    )


def find_argument_fault(plugin: object) -> tuple[str, str | None] | None:
    """Return the argument of a hook that no hook has, for which pluggy refuses a plugin."""
    hooks = {name: hook for family in HOOK_FAMILIES for name, hook in vars(family).items()}
    for name, hook in hooks.items():
        function = getattr(plugin, name, None)
        if name.startswith("_") or not inspect.isroutine(function):
            continue
        allowed, wanted = _arguments(hook)[1:], _arguments(function)
        wrong = next((argument for argument in wanted if argument not in allowed), None)
        if wrong is not None:
            near = closest_match(wrong, allowed)
            return (
                f"{name} wants argument {wrong!r}; it may take {list_words(allowed)}",
                f"rename it to {near!r}" if near else f"remove {wrong!r}",
            )
    return None


def _arguments(function: Callable[..., Any]) -> list[str]:
    return [*inspect.signature(function).parameters]


def _find_fault_of_function(name: str, implementation: pluggy.HookImpl) -> tuple[str, str] | None:
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
    names = [name for family in (ModuleHooks, RunHooks) for name in vars(family)]
    return [
        name
        for name in names
        if not name.startswith("_")
        and name not in implemented
        and inspect.isroutine(getattr(plugin, name, None))
    ]
