"""Finds what a file binds a name to, and whether its text leaves any doubt about that."""

import ast
from collections.abc import Iterable, Iterator

import attrs

_READING_METHODS = frozenset({"copy", "get", "items", "keys", "values"})


@attrs.frozen
class Binding:
    """What a module binds a name to.

    Attributes:
        value: The expression of the last plain assignment at the top level.
        is_certain: Nothing else in the file binds or changes the name.
    """

    value: ast.expr | None
    is_certain: bool


def find_binding(tree: ast.Module, name: str) -> Binding | None:
    """Give the binding of ``name``, or None where the file does not mention one."""
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
    return Binding(next(filter(None, reversed(values)), None), is_certain)


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
