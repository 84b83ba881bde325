"""Whether tests and a solution speak of the same functions. By syntax, and by what failed. Pure."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator

from selfalign_ray.validation.asserts import expects
from selfalign_ray.validation.definitions import FUNCTIONS, Function

_BUILTINS = frozenset(dir(builtins))
_NO_NAME = re.compile(r"NameError: name '(\w+)' is not defined")
_NO_IMPORT = re.compile(r"ImportError: cannot import name '(\w+)'|ModuleNotFoundError: ")
_NO_ATTRIBUTE = re.compile(
    r"AttributeError: (?:type object )?'(\w+)'(?: object)? has no attribute '(\w+)'"
)
_ARGUMENTS = re.compile(
    r"TypeError: (?:\w+\.)*(\w+)\(\) "
    r"(?:takes|missing|got an unexpected keyword|got multiple values)"
)


def names_bound(tree: ast.Module) -> set[str]:
    """Every name that a program gives something, at whatever depth."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            names.add(node.name)
    return names


def mismatch(solution: ast.Module, tests: ast.Module) -> bool:
    """Whether the tests ask for a name that is nowhere, or call a function as it cannot be.

    Only what is certain: a name that neither binds and Python lacks; a call, outside of `try` and
    of what expects an exception, of a function of the solution without decorators, with too
    many, too few or unknown arguments.
    """
    bound = names_bound(tests)
    own = names_bound(solution)
    used = {n.id for n in ast.walk(tests) if isinstance(n, ast.Name)}
    stars = any(
        isinstance(n, ast.ImportFrom) and n.names[0].name == "*"
        for tree in (solution, tests)
        for n in ast.walk(tree)
    )
    if not stars and used - bound - own - _BUILTINS - {"__file__", "__name__"}:
        return True
    functions = {
        node.name: node
        for node in solution.body
        if isinstance(node, FUNCTIONS) and not node.decorator_list and node.name not in bound
    }
    return any(not _takes(functions[name], call) for name, call in _calls(tests, set(functions)))


def is_of_interface(detail: str, solution: ast.Module) -> bool:
    """Whether an exception says that tests and solution do not fit, and not that one is wrong.

    Args:
        detail: of a verdict `exception`.
        solution: that ran with tests that are not its own, or with its own.
    """
    own = names_bound(solution)
    if found := _NO_NAME.match(detail):
        return found[1] not in own
    if found := _NO_IMPORT.match(detail):
        return found[1] is None or found[1] not in own
    if found := _NO_ATTRIBUTE.match(detail):
        attributes = {n.attr for n in ast.walk(solution) if isinstance(n, ast.Attribute)}
        return found[1] in own and found[2] not in own | attributes
    return bool((found := _ARGUMENTS.match(detail)) and (found[1] in own or found[1] == "__init__"))


def _calls(tests: ast.Module, names: set[str]) -> Iterator[tuple[str, ast.Call]]:
    """Calls of these functions that are not expected to fail."""
    todo: list[ast.AST] = [tests]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Try | ast.TryStar | ast.With | ast.AsyncWith) or expects(node):
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            yield node.func.id, node
        todo += ast.iter_child_nodes(node)


def _takes(function: Function, call: ast.Call) -> bool:
    """Whether the function can be called so; True where the call unpacks something."""
    if any(isinstance(a, ast.Starred) for a in call.args) or any(not k.arg for k in call.keywords):
        return True
    spec = function.args
    positional = [a.arg for a in (*spec.posonlyargs, *spec.args)]
    by_name = {a.arg for a in (*spec.args, *spec.kwonlyargs)}
    given = {str(keyword.arg) for keyword in call.keywords}
    if len(call.args) > len(positional) and spec.vararg is None:
        return False
    if given - by_name and spec.kwarg is None:
        return False
    required = set(positional[len(call.args) : len(positional) - len(spec.defaults)])
    pairs = zip(spec.kwonlyargs, spec.kw_defaults, strict=True)
    required |= {a.arg for a, default in pairs if default is None}
    return required <= given
