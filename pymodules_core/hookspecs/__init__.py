"""The hooks a plugin may implement: providers of modules, tasks, and run lifecycle.

One file documents each family. ``hookimpl`` marks an implementation; argument names are frozen
interface, and an implementation names only the arguments it wants.
"""

from pymodules_core.hookspecs.markers import PROJECT_NAME, hookimpl, hookspec
from pymodules_core.hookspecs.module_hooks import ModuleHooks
from pymodules_core.hookspecs.run_hooks import RunHooks
from pymodules_core.hookspecs.task_hooks import TaskHooks

__all__ = [
    "HOOK_FAMILIES",
    "PROJECT_NAME",
    "ModuleHooks",
    "RunHooks",
    "TaskHooks",
    "hookimpl",
    "hookspec",
]

HOOK_FAMILIES: tuple[type, ...] = (ModuleHooks, TaskHooks, RunHooks)


def __dir__() -> list[str]:
    return sorted(__all__)
