"""A seed with its syntax tree, and what the rules ask of it: lines, parameters, names, imports."""

from __future__ import annotations

import ast
import builtins
import functools as ft
import re
import warnings
from collections.abc import Iterator

from selfalign_ray.seeds.names import free_names

BUILTINS = frozenset(dir(builtins))
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_Scope = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


class Snippet:
    """A seed with its syntax tree: a function, a method in its class ("Stack.push") or a class.

    Raises:
        SyntaxError: it is no Python, or does not end with a definition of that name.
        ValueError, RecursionError, MemoryError: it cannot be compiled for other reasons.
    """

    def __init__(self, code: str, name: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            self.tree = ast.parse(code)
        self.code = code
        self.definition = _last(self.tree.body, name)

    @property
    def functions(self) -> list[_Function]:
        """The definition itself, or the methods of a class."""
        if isinstance(self.definition, ast.ClassDef):
            return [node for node in self.definition.body if isinstance(node, _Function)]
        return [self.definition]

    @ft.cached_property
    def lines(self) -> int:
        """Lines of the definition that are not blank, from its first decorator on."""
        node = self.definition
        first = min([node, *node.decorator_list], key=lambda node: node.lineno)
        lines = re.split(r"\r\n?|\n", self.code)[first.lineno - 1 : node.end_lineno]
        return sum(1 for line in lines if line.strip())

    @ft.cached_property
    def parameters(self) -> list[ast.arg]:
        """Of each function all but a first one that is called self or cls."""
        return [argument for function in self.functions for argument in _parameters(function)]

    @ft.cached_property
    def docstring(self) -> str:
        return ast.get_docstring(self.definition, clean=False) or ""

    @ft.cached_property
    def complexity(self) -> int:
        """Cyclomatic, of the worst function; 1 where a class has none."""
        from radon.visitors import ComplexityVisitor

        found = ComplexityVisitor.from_ast(self.definition)
        functions = [*found.functions, *(m for c in found.classes for m in c.methods)]
        return max((int(function.complexity) for function in functions), default=1)

    @ft.cached_property
    def free_names(self) -> frozenset[str]:
        """Names that the code neither binds nor imports, those in quoted annotations among them."""
        return free_names(self.code, self.tree.body)

    @ft.cached_property
    def imports(self) -> list[str]:
        """What is imported anywhere in the code, in full; a relative import begins with a dot."""
        return [full for _, full in self._import_pairs]

    @ft.cached_property
    def uses(self) -> set[str]:
        """The full names that the code imports, and those of builtins and attributes that it uses.

        `from os import path as p; p.exists(x)` uses os.path and os.path.exists.
        """
        found = set(self.imports) | {f"builtins.{name}" for name in self.free_names & BUILTINS}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute) and (name := self._full_name(node)):
                found.add(name)
        return found

    @ft.cached_property
    def _imported(self) -> dict[str, str]:
        return dict(self._import_pairs)

    @ft.cached_property
    def _import_pairs(self) -> list[tuple[str, str]]:
        return [pair for node in ast.walk(self.tree) for pair in _import_pairs(node)]

    def _full_name(self, node: ast.Attribute) -> str | None:
        names: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            names.append(inner.attr)
            inner = inner.value
        if not isinstance(inner, ast.Name) or inner.id not in self._imported:
            return None
        return ".".join([self._imported[inner.id], *reversed(names)])


def _last(body: list[ast.stmt], name: str) -> _Definition:
    """The definition of that name with which the statements end."""
    first, _, rest = name.partition(".")
    last = body[-1] if body else None
    if not isinstance(last, _Definition) or last.name != first:
        raise SyntaxError("no such definition")
    return _last(last.body, rest) if rest else last


def _parameters(function: _Function) -> list[ast.arg]:
    args = function.args
    named = [*args.posonlyargs, *args.args]
    if named and named[0].arg in ("self", "cls"):
        del named[0]
    starred = [arg for arg in (args.vararg, args.kwarg) if arg is not None]
    return [*named, *args.kwonlyargs, *starred]


def gives_value(function: _Function) -> bool:
    """A generator's `return` gives its caller nothing, and `return None` is no value."""
    own = _own(function)
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in own):
        return False
    values = [node.value for node in own if isinstance(node, ast.Return)]
    return any(
        value is not None and not (isinstance(value, ast.Constant) and value.value is None)
        for value in values
    )


def _own(function: _Function) -> list[ast.AST]:
    """The nodes of the function's body that run as part of it, not of a nested one."""
    found: list[ast.AST] = []
    open_nodes: list[ast.AST] = list(function.body)
    while open_nodes:
        node = open_nodes.pop()
        found.append(node)
        if not isinstance(node, _Scope):
            open_nodes += ast.iter_child_nodes(node)
    return found


def _import_pairs(node: ast.AST) -> Iterator[tuple[str, str]]:
    """The names that an import statement binds, each with what it stands for.

    `import os.path` imports os too, which is all it binds; os.path stands there as itself.
    """
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.asname is None:
                first = alias.name.split(".")[0]
                yield first, first
            yield alias.asname or alias.name, alias.name
    elif isinstance(node, ast.ImportFrom):
        module = "." * node.level + (node.module or "")
        for alias in node.names:
            yield alias.asname or alias.name, f"{module}.{alias.name}"
