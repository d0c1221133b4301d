"""Reads the task as a plugin of plain functions and checks their names.

It is ``pymodules/task.py``, or the module of an installed package that the experiment names. A
function named after a hook is its implementation; any other is a helper, unless its name is so
close to a hook's that it must be a slip.
"""

import ast
import difflib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from pymodules_core.discovery.plugins.implementations import HOOK_ARGUMENTS, HOOK_NAMES
from pymodules_core.discovery.plugins.manager import PluginManager
from pymodules_core.discovery.plugins.packaged_task import load_packaged_task
from pymodules_core.discovery.plugins.records import PluginRecord
from pymodules_core.errors import TaskError, closest_match, list_words
from pymodules_core.experiment import Experiment
from pymodules_core.specs import FileOrigin, Origin

TASK_NAME = "task"

# Above it `train_stp` and `optimizer` are slips; below it `train_set` is a helper.
_SLIP_RATIO = 0.9


def register_task(plugins: PluginManager, experiment: Experiment) -> tuple[ModuleType, Path]:
    """Import the task and register it.

    Returns:
        The imported module, and its file.

    Raises:
        TaskError: There is no task, a function's name is a slip, or an argument's name is not the
            hook's.
        ModuleFileError: The file fails.
        SettingsError: No package has the task that the experiment names.
        PluginError: The package's task fails.
    """
    origin: Origin
    if experiment.settings.experiment.task is not None:
        namespace, origin = load_packaged_task(plugins, experiment)
        file = Path(str(namespace.__file__))
    else:
        file = experiment.task_file
        if plugins.files is None or not file.is_file():
            raise TaskError(
                "there is no task",
                file=file,
                closest=closest_match(file.name, [one.name for one in file.parent.glob("*.py")]),
                fix="write it, with at least train_data, optimizers and train_step; or name one of "
                "a package: [experiment] task",
            )
        namespace, origin = plugins.files.load(TASK_NAME), FileOrigin(file)
    _check_functions(namespace, file)
    record = PluginRecord(name=TASK_NAME, origin=origin)
    plugins.register(namespace, record=record, undecorated=True)
    if record.failure is not None:
        raise TaskError(record.failure.reason, file=file) from record.failure.error
    return namespace, file


def _check_functions(namespace: ModuleType, file: Path) -> None:
    """Refuse names that are almost hooks, and arguments that no hook has."""
    for name in HOOK_NAMES:
        value = vars(namespace).get(name)
        if value is not None and not inspect.isroutine(value):
            raise TaskError(
                f"{name} is {type(value).__name__}, expected a function",
                file=file,
                line=line_of_name(file, name),
                found=value,
                fix=f"write def {name}(...)",
            )
        if inspect.isfunction(value):  # defined here or imported
            _check_arguments(name, value)
    for name, value in vars(namespace).items():
        is_own = inspect.isfunction(value) and value.__module__ == namespace.__name__
        if is_own and name not in HOOK_NAMES and not name.startswith("_"):
            _check_slip(name, value, namespace)


def line_of_name(file: Path, name: str) -> int | None:
    """Return the line where a file binds ``name`` last, at its top level."""
    lines = [
        node.lineno for node in ast.parse(file.read_bytes()).body if name in _names_bound_by(node)
    ]
    return lines[-1] if lines else None


def code_of(function: Callable[..., Any]) -> CodeType | None:
    """Return the code a person wrote, below decorators such as ``torch.no_grad()``."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code if isinstance(code, CodeType) else None


def _names_bound_by(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in node.names}
    targets = [*getattr(node, "targets", []), getattr(node, "target", None)]
    return {
        name.id
        for target in filter(None, targets)
        for name in ast.walk(target)
        if isinstance(name, ast.Name)
    }


def _check_slip(name: str, function: Callable[..., Any], namespace: ModuleType) -> None:
    missing = [hook for hook in HOOK_NAMES if hook not in vars(namespace)]
    near = difflib.get_close_matches(name, missing, n=1, cutoff=_SLIP_RATIO)
    if near:
        raise TaskError(
            f"function {name!r} is not a hook, and {near[0]!r} is missing",
            **_place_of(function),
            found=name,
            closest=near[0],
            fix=f"rename it to {near[0]!r}, or to something less like it if it is a helper",
        )


def _check_arguments(hook_name: str, function: Callable[..., Any]) -> None:
    allowed = HOOK_ARGUMENTS[hook_name]
    for name, parameter in inspect.signature(function).parameters.items():
        has_default = parameter.default is not parameter.empty
        near = None
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            problem = f"takes {parameter}, and hooks pass arguments by name"
            fix = f"write the ones it needs instead of {parameter}"
        elif name in allowed and has_default:
            problem = f"argument {name!r} has a default, and such arguments are never passed"
            fix = f"remove the default of {name!r}"
        elif parameter.kind is parameter.KEYWORD_ONLY and not has_default:
            problem = f"argument {name!r} is keyword-only, and such arguments are never passed"
            fix = "remove the * before it"
        elif name not in allowed and not has_default:
            problem = f"wants argument {name!r}"
            near = closest_match(name, allowed)
            fix = f"rename it to {near!r}" if near else "remove it, or give it a default"
        else:
            continue
        raise TaskError(
            f"{hook_name}: {problem}; it may take {list_words(allowed)}",
            **_place_of(function),
            found=name,
            closest=near,
            fix=fix,
        )


def _place_of(function: Callable[..., Any]) -> dict[str, Any]:
    code = code_of(function)
    return {} if code is None else {"file": code.co_filename, "line": code.co_firstlineno}
