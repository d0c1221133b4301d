"""What keeps the hooks of a plugin from doing what its author means."""

import inspect

import pluggy

from pymodules_core.discovery.implementations import HOOK_NAMES, is_optional
from pymodules_core.errors import closest_match, list_words
from pymodules_core.hookspecs import TaskHooks


def find_hook_fault(
    plugin: object, callers: list[pluggy.HookCaller], *, is_task: bool
) -> tuple[str, str] | None:
    """Give what is wrong with a plugin that pluggy took, and the fix.

    Args:
        plugin: The plugin.
        callers: The hooks it implements.
        is_task: It is the experiment's ``task.py``, whose names are checked already.
    """
    for caller in callers:
        if not caller.has_spec() and not is_optional(caller, plugin):
            near = closest_match(caller.name, HOOK_NAMES)
            return (
                f"no hook is called {caller.name!r}; hooks are {list_words(HOOK_NAMES)}",
                f"rename it to {near!r}" if near else "remove its hookimpl",
            )
    if is_task:
        return None
    for caller in callers:
        for implementation in caller.get_hookimpls():
            is_own = implementation.plugin is plugin and caller.has_spec()
            if is_own and (fault := _find_fault_of_function(caller.name, implementation)):
                return fault
    return None if any(caller.has_spec() for caller in callers) else _no_hook(plugin)


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
    return None


def _no_hook(plugin: object) -> tuple[str, str]:
    """Say that a plugin has no hook: most often the decorator was forgotten."""
    plain = [name for name in HOOK_NAMES if callable(getattr(plugin, name, None))]
    if plain:
        return f"{list_words(plain)} without @hookimpl", f"put @hookimpl above {plain[0]}"
    return (
        f"it has no hook; hooks are {list_words(HOOK_NAMES)}",
        "put @hookimpl above a function named after a hook",
    )
