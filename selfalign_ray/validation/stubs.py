"""Solutions with one function that does not do its work, which tests have to notice. Pure."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from selfalign_ray.validation.coverage import Place, place_of
from selfalign_ray.validation.definitions import FUNCTIONS, Function, is_none, own_nodes
from selfalign_ray.validation.expectations import Expectation, expectations, names_of

_NEUTRAL = {
    "int": 0, "float": 0.0, "complex": 0j, "str": "", "bytes": b"", "bool": False, "list": [],
    "dict": {}, "tuple": (), "set": set(), "List": [], "Sequence": [], "Dict": {}, "Tuple": (),
    "Set": set(), "Iterable": [],
}  # fmt: skip


class Stub(NamedTuple):
    """A solution with one function replaced."""

    name: str  # the function, after its class's and a dot, and what it does instead
    code: str


class _Target(NamedTuple):
    name: str
    node: Function
    in_class: bool


def stubs(solution: ast.Module, tests: ast.Module, reached: frozenset[Place] | None) -> list[Stub]:
    """The stubs of each function and method that the tests name and reach.

    One returns None, one a constant, one its first argument; a function that never returns a
    value, None alone; a generator yields them. The constant is what the tests expect of most
    calls, where they expect it of two different ones, else the empty value of the type that they
    expect or the annotation names, else 0. What equals the solution is left out, and so is what
    tests do not name: helpers are left to the mutants, and so are methods of operators.

    Args:
        solution: its tree; is changed and changed back.
        tests: the tests' tree.
        reached: the functions that the tests enter; None: not known, so all.

    Raises:
        RecursionError, ValueError: the tree cannot be written: too deep, or a number too long.
    """
    named, expected = names_of(tests), expectations(tests)
    whole = ast.unparse(solution)
    out: dict[str, Stub] = {}
    for target in _targets(solution.body, ""):
        node = target.node
        short = node.name
        is_asked = short in named and not (short.startswith("__") and short.endswith("__"))
        if not is_asked or not (reached is None or place_of(node) in reached):
            continue
        body = node.body
        for what, value in _values(target, expected):
            node.body = _body(node, value)
            text = ast.unparse(solution)
            node.body = body
            if text != whole and not _is_same(body, _body(node, value)):
                out.setdefault(text, Stub(f"{target.name} returns {what}", text))
    return list(out.values())


def _targets(body: list[ast.stmt], owner: str) -> Iterator[_Target]:
    for node in body:
        if isinstance(node, FUNCTIONS):
            yield _Target(f"{owner}{node.name}", node, in_class=bool(owner))
        elif isinstance(node, ast.ClassDef):
            yield from _targets(node.body, f"{owner}{node.name}.")
        elif isinstance(node, ast.If | ast.Try | ast.TryStar | ast.With):
            yield from _targets([*node.body, *getattr(node, "orelse", [])], owner)


def _values(target: _Target, expected: list[Expectation]) -> Iterator[tuple[str, ast.expr]]:
    """What the function returns instead, in words and as an expression."""
    yield "None", ast.Constant(None)
    node = target.node
    if not any(_gives(n) for n in own_nodes(node)):
        return
    constant = ast.parse(repr(_constant(node, expected)), mode="eval").body
    yield "a constant", constant
    parameters = [*node.args.posonlyargs, *node.args.args]
    is_static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list)
    own = parameters[target.in_class and not is_static :]
    if own:
        yield "its first argument", ast.Name(own[0].arg, ast.Load())


def _body(node: Function, value: ast.expr) -> list[ast.stmt]:
    if any(isinstance(n, ast.Yield | ast.YieldFrom) for n in own_nodes(node)):
        given: list[ast.stmt] = [ast.Expr(ast.Yield(value))]
        return [ast.Return(None), *given] if is_none(value) else given
    return [ast.Return(value)]


def _gives(node: ast.AST) -> bool:
    if isinstance(node, ast.Return):
        return node.value is not None and not is_none(node.value)
    return isinstance(node, ast.Yield | ast.YieldFrom)


def _constant(function: Function, expected: list[Expectation]) -> Any:
    values = [e.value for e in expected if e.name == function.name]
    counts = Counter(map(repr, values))
    for value in values:
        if counts[repr(value)] == max(counts.values()) > 1:
            return value
    if values:
        return _NEUTRAL.get(type(values[0]).__name__, 0)
    returns = function.returns
    if isinstance(returns, ast.Subscript):
        returns = returns.value
    return _NEUTRAL.get(getattr(returns, "id", ""), 0)


def _is_same(body: list[ast.stmt], stub: list[ast.stmt]) -> bool:
    """Whether a body does what the stub does, its docstring apart."""
    work = [s for s in body if not isinstance(s, ast.Pass)]
    work = [s for s in work if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    nothing = [[], [ast.dump(ast.Return(None))], [ast.dump(ast.Return(ast.Constant(None)))]]
    dumps = [ast.dump(statement) for statement in work]
    return dumps == [ast.dump(s) for s in stub] or (
        dumps in nothing and [ast.dump(s) for s in stub] in nothing
    )
