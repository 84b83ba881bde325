"""Which names a piece of code takes from outside."""

from __future__ import annotations

import ast
import symtable
import warnings
from collections.abc import Iterator, Sequence

# What compiling arbitrary text raises: SyntaxError; ValueError for NUL and lone surrogates;
# RecursionError and MemoryError for deep nesting.
COMPILE_ERRORS = (SyntaxError, ValueError, RecursionError, MemoryError)

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def free_names(source: str, annotated: Sequence[ast.stmt] | None = None) -> frozenset[str]:
    """The names that `source` uses and does not bind at its own top level, builtins included.

    Those in quoted annotations are among them. Empty where the source does not compile.

    Args:
        source: any text.
        annotated: its statements whose annotations may be quoted; None: all, which are parsed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            quoted = _quoted_names(ast.parse(source).body if annotated is None else annotated)
            top = symtable.symtable("\n".join([source, *sorted(quoted)]), "seed", "exec")
    except COMPILE_ERRORS:
        return frozenset()
    used: set[str] = set()
    scopes = list(top.get_children())
    while scopes:
        scope = scopes.pop()
        scopes += scope.get_children()
        if isinstance(scope, symtable.Function):
            used.update(scope.get_globals())
        else:
            used.update(s.get_name() for s in scope.get_symbols() if _is_global(s))
    bound = set()
    for symbol in top.get_symbols():
        if symbol.is_assigned() or symbol.is_imported():
            bound.add(symbol.get_name())
        elif symbol.is_referenced():
            used.add(symbol.get_name())
    return frozenset(used - bound)


def _is_global(symbol: symtable.Symbol) -> bool:
    # What a class binds that is called "top", as a module's table is, passes for global too.
    return symbol.is_declared_global() or (symbol.is_global() and not symbol.is_local())


def _quoted_names(body: Sequence[ast.stmt]) -> set[str]:
    """The names in quoted annotations of the statements, and of those of their classes."""
    names = set()
    open_nodes = [(annotation, False) for annotation in _annotations(body)]
    while open_nodes:
        node, quoted = open_nodes.pop()
        if isinstance(node, ast.Name):
            if quoted:
                names.add(node.id)
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                open_nodes += [(inner, True) for inner in _parsed(node.value)]
        else:
            open_nodes += [(inner, quoted) for inner in _type_parts(node)]
    return names


def _annotations(body: Sequence[ast.stmt]) -> Iterator[ast.AST]:
    for statement in body:
        if isinstance(statement, ast.ClassDef):
            yield from _annotations(statement.body)
        elif isinstance(statement, ast.AnnAssign):
            yield statement.annotation
        elif isinstance(statement, _Function):
            given = statement.args
            parameters = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs]
            for parameter in [*parameters, given.kwarg]:
                if parameter is not None and parameter.annotation is not None:
                    yield parameter.annotation
            if statement.returns is not None:
                yield statement.returns


def _parsed(text: str) -> list[ast.AST]:
    """The expression that a quoted annotation is; none where it is no expression."""
    try:
        return [ast.parse(f"({text}\n)", mode="eval").body]
    except COMPILE_ERRORS:
        return []


def _type_parts(node: ast.AST) -> list[ast.AST]:
    """The parts of an annotation that are types: of Literal none, of Annotated the first."""
    if not isinstance(node, ast.Subscript):
        return list(ast.iter_child_nodes(node))
    kind = node.value.attr if isinstance(node.value, ast.Attribute) else None
    kind = node.value.id if isinstance(node.value, ast.Name) else kind
    if kind == "Literal":
        return [node.value]
    if kind == "Annotated" and isinstance(node.slice, ast.Tuple):
        return [node.value, *node.slice.elts[:1]]
    return [node.value, node.slice]
