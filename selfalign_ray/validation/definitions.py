"""Reading syntax trees: what several readers ask of them."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from typing import NamedTuple

Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Definition(NamedTuple):
    """A function or class."""

    node: Function | ast.ClassDef
    method: bool  # a function right inside a class
    local: bool  # somewhere inside a function


def definitions(tree: ast.AST) -> Iterator[Definition]:
    """All functions and classes, in no particular order."""
    todo: list[tuple[ast.AST, bool, bool]] = [(tree, False, False)]
    while todo:
        node, in_class, local = todo.pop()
        for child in _statements(node):
            if isinstance(child, ast.ClassDef):
                yield Definition(child, method=False, local=local)
                todo.append((child, True, local))
            elif isinstance(child, FUNCTIONS):
                yield Definition(child, method=in_class, local=local)
                todo.append((child, False, True))
            else:
                todo.append((child, in_class, local))


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """What stands right below a statement, handler or case, expressions apart: they hold none."""
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        yield from getattr(node, name, ())


def parameters(function: Function, *, method: bool) -> list[ast.arg]:
    """All parameters in order, without the first of a method, as `self`."""
    a = function.args
    positional = [*a.posonlyargs, *a.args]
    static = any(
        isinstance(d, ast.Name) and d.id == "staticmethod" for d in function.decorator_list
    )
    rest = [p for p in (a.vararg, *a.kwonlyargs, a.kwarg) if p is not None]
    return positional[method and not static :] + rest


def define_lambdas(tree: ast.Module) -> None:
    """Makes each `name = lambda ...` the function that it is, wherever it stands."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        for name in ("body", "orelse", "finalbody"):
            statements = getattr(node, name, [])
            statements[:] = map(_defined, statements)
        todo += _statements(node)


def _defined(node: ast.stmt) -> ast.stmt:
    match node:
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=ast.Lambda() as given)
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.Lambda() as given)
        ):
            (function,) = ast.parse(f"def {name}(): pass").body
            assert isinstance(function, ast.FunctionDef)
            function.args = given.args
            function.body = [ast.copy_location(ast.Return(given.body), given.body)]
            return ast.copy_location(function, node)
    return node


def own_nodes(function: Function) -> Iterator[ast.AST]:
    """The nodes of a function's body, those of functions and classes within it apart."""
    todo: list[ast.AST] = [*function.body]
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, (*FUNCTIONS, ast.Lambda, ast.ClassDef)):
            todo += ast.iter_child_nodes(node)


def imports(tree: ast.AST) -> list[str]:
    """The top-level modules that are imported anywhere, sorted."""
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            modules.add(node.module.partition(".")[0])
    return sorted(modules)


def last_name(node: ast.AST | None) -> str:
    """The last part of a name with dots; empty where the node is none."""
    return getattr(node, "attr", None) or getattr(node, "id", None) or ""


def is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def is_stored(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def parse(code: str) -> ast.Module | None:
    """The syntax tree, a byte order mark apart; None where there is none, or it is too deep."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            return ast.parse(code.removeprefix("\ufeff"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
