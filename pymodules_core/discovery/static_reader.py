"""Reads what a module file says of itself without executing it.

``pymodules list`` shows a thousand files this way in a fraction of a second, and may look at a
stranger's experiment.
"""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from pymodules_core.settings.structure import KeyPath


@attrs.frozen(kw_only=True)
class StaticModuleFile:
    """What the text of a module file tells.

    Attributes:
        settings: The literal ``settings`` dict; None where it is computed.
        is_dynamic: ``settings`` is there and not a literal.
        description: First line of the docstring.
        fault: Why the file cannot be parsed.
    """

    settings: Mapping[str, Any] | None = None
    is_dynamic: bool = False
    description: str = ""
    fault: str | None = None


def read_module_file(file: Path) -> StaticModuleFile:
    """Parse a module file; a file that cannot be parsed is described by its ``fault``."""
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError as error:
        return StaticModuleFile(fault=f"line {error.lineno}: {error.msg}")
    except (OSError, ValueError) as error:
        return StaticModuleFile(fault=str(error))
    description = (ast.get_docstring(tree) or "").partition("\n")[0]
    value = _find_settings(tree)
    if value is None:
        return StaticModuleFile(settings={}, description=description)
    try:
        settings = ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return StaticModuleFile(is_dynamic=True, description=description)
    if not isinstance(settings, dict):
        return StaticModuleFile(
            fault=f"settings is {type(settings).__name__}, not dict", description=description
        )
    return StaticModuleFile(settings=settings, description=description)


def find_settings_line(file: Path, path: KeyPath) -> int | None:
    """Find the 1-based line of a key in the ``settings`` literal of a module file."""
    try:
        node = _find_settings(ast.parse(file.read_bytes()))
    except (OSError, ValueError, SyntaxError):
        return None
    line = node.lineno if node is not None else None
    for key in path:
        if not isinstance(node, ast.Dict):
            break
        entries = {
            entry.value: (entry, value)
            for entry, value in zip(node.keys, node.values, strict=True)
            if isinstance(entry, ast.Constant)
        }
        if key not in entries:
            break
        entry, node = entries[key]
        line = entry.lineno
    return line


def _find_settings(tree: ast.Module) -> ast.expr | None:
    found: ast.expr | None = None
    for node in tree.body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        if any(isinstance(target, ast.Name) and target.id == "settings" for target in targets):
            found = getattr(node, "value", None)
    return found
