"""Reads ``pymodules/task.py`` as a plugin of plain functions and checks their names.

A function named after a hook is its implementation; any other is a helper, unless its name is so
close to a hook's that it must be a slip.
"""

import difflib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from pymodules_core.discovery.implementations import HOOK_NAMES
from pymodules_core.discovery.plugin_manager import PluginManager
from pymodules_core.discovery.plugin_records import PluginRecord
from pymodules_core.errors import TaskError, closest_match, list_words
from pymodules_core.experiment import Experiment
from pymodules_core.hookspecs import HOOK_FAMILIES
from pymodules_core.specs import FileOrigin

TASK_NAME = "task"

# Above it `train_stp` and `optimizer` are slips; below it `train_set` is a helper.
_SLIP_RATIO = 0.9


def register_task_file(plugins: PluginManager, experiment: Experiment) -> ModuleType:
    """Import ``task.py`` and register it.

    Returns:
        The imported file.

    Raises:
        TaskError: There is no such file, a function's name is a slip, or an argument's name is not
            the hook's.
        ModuleFileError: The file fails.
    """
    file = experiment.task_file
    if plugins.files is None or not file.is_file():
        raise TaskError(
            "there is no task",
            file=file,
            fix="write it, with at least train_data, optimizers and train_step",
        )
    namespace = plugins.files.load(TASK_NAME)
    functions = {
        name: value
        for name, value in vars(namespace).items()
        if inspect.isfunction(value) and value.__module__ == namespace.__name__
    }
    for name in HOOK_NAMES:
        value = vars(namespace).get(name)
        if value is not None and not inspect.isroutine(value):
            raise TaskError(
                f"{name} is {type(value).__name__}, expected a function",
                file=file,
                found=value,
                fix=f"write def {name}(...)",
            )
    for name, function in functions.items():
        if name in HOOK_NAMES:
            _check_arguments(name, function)
        elif not name.startswith("_"):
            _check_slip(name, function, set(functions))
    record = PluginRecord(name=TASK_NAME, origin=FileOrigin(file))
    plugins.register(namespace, record=record, undecorated=True)
    if record.failure is not None:
        raise TaskError(record.failure.reason, file=file) from record.failure.error
    return namespace


def _check_slip(name: str, function: Callable[..., Any], defined: set[str]) -> None:
    missing = [hook for hook in HOOK_NAMES if hook not in defined]
    near = difflib.get_close_matches(name, missing, n=1, cutoff=_SLIP_RATIO)
    if near:
        raise TaskError(
            f"function {name!r} is no hook, and {near[0]!r} is missing",
            file=function.__code__.co_filename,
            line=function.__code__.co_firstlineno,
            found=name,
            closest=near[0],
            fix=f"rename it to {near[0]!r}, or to something less like it if it is a helper",
        )


def _check_arguments(hook_name: str, function: Callable[..., Any]) -> None:
    allowed = _hook_arguments(hook_name)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            problem = f"takes {parameter}, and hooks pass arguments by name"
        elif name not in allowed and parameter.default is parameter.empty:
            problem = f"wants argument {name!r}"
        else:
            continue
        raise TaskError(
            f"{hook_name}: {problem}; it may take {list_words(allowed)}",
            file=function.__code__.co_filename,
            line=function.__code__.co_firstlineno,
            found=name,
            closest=closest_match(name, allowed),
        )


def _hook_arguments(hook_name: str) -> list[str]:
    family = next(family for family in HOOK_FAMILIES if hook_name in vars(family))
    return [
        name for name in inspect.signature(vars(family)[hook_name]).parameters if name != "self"
    ]
