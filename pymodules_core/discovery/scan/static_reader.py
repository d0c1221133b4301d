"""Reads what a module file says of itself without executing it.

``pymodules list`` shows a thousand files this way in a fraction of a second, and may look at a
stranger's experiment.
"""

import ast
import codecs
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from pymodules_core.discovery.scan.importer import line_of_no_text
from pymodules_core.errors import PymodulesError
from pymodules_core.experiment import Experiment
from pymodules_core.names import is_path_name
from pymodules_core.settings.structure import KeyPath

# What may hide the word at the start of a line (strings and comments), or the word. Each branch
# starts with a literal, which lets `re` skip all else; `++` keeps an open string linear.
_STRINGS_COMMENTS_OR_SETTINGS = re.compile(
    rb'''"""(?:[^"\\]++|\\.|"(?!""))*+"""'''
    rb"""|'''(?:[^'\\]++|\\.|'(?!''))*+'''"""
    rb"""|"(?:[^"\\\n]++|\\.)*+"|'(?:[^'\\\n]++|\\.)*+'"""
    rb"""|\#[^\n]*|\n(?P<settings>settings)\b""",
    re.DOTALL,
)
_STAR_IMPORT = re.compile(rb"import[ \t]*\*")
_BEFORE_DOCSTRING = re.compile(rb"""(?:\s|\#[^\n]*\n)*[rRuU]?(?=["'])""")
_STATEMENT_END = re.compile(rb"[ \t]*(?:[\n#;]|$)")
_NO_SETTINGS = "defines module and no settings\n  fix: add settings = {}"
# What the parser raises where a file nests deeper than it can follow.
_TOO_DEEP = (MemoryError, RecursionError)
_STATEMENT_START = re.compile(rb"^[^\s)\]}#]", re.MULTILINE)

# Methods that leave a dict as it is.
_READING_METHODS = frozenset({"copy", "get", "items", "keys", "values"})


@attrs.frozen(kw_only=True)
class StaticModuleFile:
    """What the text of a module file says.

    Attributes:
        settings: The literal ``settings`` dict; None where it is computed.
        is_dynamic: ``settings`` is not a literal, or the file may change it.
        description: First line of the docstring.
        fault: Why no module can be built from it.
    """

    settings: Mapping[str, Any] | None = None
    is_dynamic: bool = False
    description: str = ""
    fault: str | None = None


def read_module_file(file: Path, *, whole: bool = True) -> StaticModuleFile:
    """Parse a module file; a file that cannot be parsed is described by its ``fault``.

    Args:
        file: The module file.
        whole: Parse all of it. Otherwise only the docstring and ``settings``, which takes a quarter
            of the time and misses faults elsewhere in the file.
    """
    source = b""
    try:
        # A pipe or a device would keep the listing waiting, or give bytes for ever.
        if not stat.S_ISREG(file.stat().st_mode):
            return StaticModuleFile(fault="is not a file")
        source = file.read_bytes()
        tree = (None if whole else _parse_head_and_settings(source)) or ast.parse(source)
    except SyntaxError as error:
        line = error.lineno or line_of_no_text(source)
        return StaticModuleFile(fault=f"line {line}: {error.msg}" if line else error.msg)
    except _TOO_DEEP:
        return StaticModuleFile(fault="nests too deeply to be parsed")
    except OSError as error:
        return StaticModuleFile(fault=f"cannot be read: {error.strerror}")
    except ValueError as error:
        return StaticModuleFile(fault=str(error))
    doc = (ast.get_docstring(tree, clean=False) or "").strip()
    describe = partial(StaticModuleFile, description=doc.partition("\n")[0].rstrip())
    binding = _find_binding(tree, "settings")
    if binding is None:
        fault = _NO_SETTINGS if _find_binding(tree, "module") else None
        return describe(settings=None if fault else {}, fault=fault)
    value, is_certain = binding
    if value is None or not is_certain:
        return describe(is_dynamic=True)
    try:
        settings = ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, *_TOO_DEEP):
        return describe(is_dynamic=True)
    if not isinstance(settings, dict):
        return describe(fault=f"settings is {type(settings).__name__}, not dict")
    return describe(settings=settings)


def find_settings_line(file: Path, path: KeyPath) -> int | None:
    """Find the 1-based line of a key in the ``settings`` literal of a module file."""
    try:
        binding = _find_binding(ast.parse(file.read_bytes()), "settings")
    except (OSError, ValueError, SyntaxError, *_TOO_DEEP):
        return None
    node = binding[0] if binding else None
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


def find_source_experiments(folder: Path) -> list[str]:
    """Name the experiments whose weights an experiment's modules start from; executes nothing.

    Args:
        folder: The experiment's folder, which need not exist.

    Returns:
        Names in the order of the modules', those that could be no name left out.
    """
    try:
        overlays = Experiment.open(folder).settings.modules.settings
    except PymodulesError:  # a broken one is reported when it is trained
        overlays = {}
    written = {
        file.stem: read_module_file(file).settings or {}
        for file in sorted((folder / "pymodules" / "modules").glob("[!.]*.py"))
    }
    names = []
    for module_name in sorted({*written, *overlays}):
        overlay = overlays.get(module_name, {})
        # A source of weights in experiment.toml replaces the module's own, whichever kind.
        replaces = "load_weights_from_ckp" in overlay or "load_weights_from_exp" in overlay
        table = (overlay if replaces else written.get(module_name, {})).get("load_weights_from_exp")
        name = table.get("exp_name") if isinstance(table, dict) else None
        if isinstance(name, str) and is_path_name(name):
            names.append(name)
    return list(dict.fromkeys(names))


def _parse_head_and_settings(source: bytes) -> ast.Module | None:
    """Parse the docstring and the one statement that starts with ``settings``.

    Returns:
        None where there is not exactly one such statement, it does not end where it seems to, or
        the rest of the file may bind or change ``settings``.
    """
    source = b"\n" + source.removeprefix(codecs.BOM_UTF8).replace(b"\r", b"")
    found = list(_STRINGS_COMMENTS_OR_SETTINGS.finditer(source))
    starts = [match.start("settings") for match in found if match["settings"]]
    mentions = sum(match[0].count(b"settings") for match in found)
    if len(starts) != 1 or mentions < source.count(b"settings") or _STAR_IMPORT.search(source):
        return None
    docstring_end = 0
    if before := _BEFORE_DOCSTRING.match(source):
        docstring_end = next((m.end() for m in found if m.start() == before.end()), 0)
        if not docstring_end or not _STATEMENT_END.match(source, docstring_end):
            return None
    end = _STATEMENT_START.search(source, starts[0] + 1)
    statement = source[starts[0] : end.start() if end else None]
    try:
        return ast.parse(source[:docstring_end] + b"\n" + statement)
    except (SyntaxError, ValueError, *_TOO_DEEP):
        return None


def _find_binding(tree: ast.Module, name: str) -> tuple[ast.expr | None, bool] | None:
    """Return what a file binds a name to; None where it does not mention one.

    Returns:
        The expression of the last plain assignment at the top level, and whether nothing else in
        the file binds or changes the name.
    """
    values: list[ast.expr | None] = []
    others: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and _is_plain(node, name):
            values.append(node.value)
        else:
            others.append(node)
    is_certain = not any(_may_change(node, name) for node in _walk(others, name))
    if not values and is_certain:
        return None
    return next(filter(None, reversed(values)), None), is_certain


def _is_plain(node: ast.Assign | ast.AnnAssign, name: str) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    return name in names and len(names) == len(targets)


def _walk(nodes: Iterable[ast.AST], name: str) -> Iterator[ast.AST]:
    """Walk all nodes but those in functions and classes that have a ``name`` of their own."""
    waiting = list(nodes)  # not by recursion: a file may nest deeper than Python does
    while waiting:
        node = waiting.pop()
        yield node
        is_scope = isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
        )
        if not (is_scope and _has_own(node, name)):
            waiting.extend(ast.iter_child_nodes(node))


def _has_own(scope: ast.AST, name: str) -> bool:
    inside = list(ast.walk(scope))
    if any(isinstance(node, ast.Global) and name in node.names for node in inside):
        return False
    return any(
        (isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store))
        or (isinstance(node, ast.arg) and node.arg == name)
        for node in inside
    )


def _may_change(node: ast.AST, name: str) -> bool:
    match node:
        case ast.Name(id=found, ctx=ast.Store() | ast.Del()):
            return found == name
        case ast.Subscript(ctx=ast.Store() | ast.Del()) | ast.Attribute(ctx=ast.Store()):
            return _root(node) == name
        case ast.Call(func=ast.Attribute(attr=method) as function):
            return _root(function) == name and method not in _READING_METHODS
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            bound = {alias.asname or alias.name.partition(".")[0] for alias in aliases}
            return not bound.isdisjoint({name, "*"})
        case ast.FunctionDef(name=found) | ast.AsyncFunctionDef(name=found):
            return found == name
        case ast.ClassDef(name=found) | ast.ExceptHandler(name=found) | ast.MatchAs(name=found):
            return found == name
    return False


def _root(node: ast.AST) -> str | None:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None
