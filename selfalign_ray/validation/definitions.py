"""The functions and classes of a syntax tree."""

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


def parse(code: str) -> ast.Module | None:
    """The syntax tree, a byte order mark apart; None where there is none, or it is too deep."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            return ast.parse(code.removeprefix("\ufeff"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
