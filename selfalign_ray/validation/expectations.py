"""What tests expect of which calls, where both stand there as literals. By syntax. Pure."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from selfalign_ray.validation.definitions import last_name

_PASSING_ON = {"round", "list", "tuple", "set", "sorted", "run", "approx", "bool", "str"}
_MOST_CASES = 200  # of a loop over literals
# The first that fits names what an assert asks for.
_METHODS = {
    "assertRaises": "raises", "assertWarns": "raises", "raises": "raises", "warns": "raises",
    "assertAlmost": "approximate", "assertNotAlmost": "approximate", "assert_allclose":
    "approximate", "assert_almost": "approximate", "assertIsInstance": "type",
    "assertNotIsInstance": "type", "assertIn": "membership", "assertNotIn": "membership",
    "assertTrue": "truth", "assertFalse": "truth", "assertIs": "identity", "assertGreater":
    "order", "assertLess": "order", "assert": "equality",
}  # fmt: skip
_CALLS = {
    "isinstance": "type", "issubclass": "type", "isclose": "approximate", "allclose":
    "approximate", "approx": "approximate", "array_equal": "equality",
}  # fmt: skip
_OPERATORS: dict[type, str] = {
    ast.Eq: "equality", ast.NotEq: "equality", ast.In: "membership", ast.NotIn: "membership",
    ast.Is: "identity", ast.IsNot: "identity",
}  # fmt: skip


class Expectation(NamedTuple):
    """One call whose arguments and value the tests have as literals."""

    name: str  # the last part of what is called
    arguments: tuple[Any, ...]  # those by keyword last, by name
    value: Any


def expectations(tests: ast.Module) -> list[Expectation]:
    """The distinct expectations, in the order of the text.

    Loops over literals count with each of their cases. `assert f(1)` expects True.
    """
    found: dict[str, Expectation] = {}
    for node, known in _asserts(tests, _tables(tests)):
        for left, right in _pairs(node):
            for call, value in ((left, right), (right, left)):
                if (expected := _expectation(call, value, known)) is not None:
                    found.setdefault(repr(expected), expected)
                    break
    return list(found.values())


def assert_kinds(tests: ast.Module) -> list[str]:
    """What the asserts ask for, sorted.

    approximate, equality, identity, membership, order, raises, truth, type.
    """
    kinds: set[str] = set()
    for node in ast.walk(tests):
        if isinstance(node, ast.Assert):
            kinds.add(_kind_of(node.test))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = node.func.attr
            kinds |= (
                {next(k for m, k in _METHODS.items() if name.startswith(m))}
                if (name.startswith("assert") or name in {"raises", "warns"})
                else set()
            )
    return sorted(kinds)


def names_of(tree: ast.AST) -> Counter[str]:
    """Every name and attribute, and how often it stands there."""
    names = Counter(n.id for n in ast.walk(tree) if isinstance(n, ast.Name))
    names.update(n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute))
    return names


def _kind_of(test: ast.expr) -> str:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _kind_of(test.operand)
    if isinstance(test, ast.BoolOp):
        return _kind_of(test.values[0])
    for node in ast.walk(test):
        if isinstance(node, ast.Call) and last_name(node.func) in {"isclose", "allclose", "approx"}:
            return "approximate"
    if isinstance(test, ast.Compare):
        near = isinstance(test.left, ast.Call) and last_name(test.left.func) in {"abs", "fabs"}
        kind = _OPERATORS.get(type(test.ops[0]), "order")
        return "approximate" if near and kind == "order" else kind
    return _CALLS.get(last_name(test.func), "truth") if isinstance(test, ast.Call) else "truth"


def _tables(tests: ast.Module) -> dict[str, ast.expr]:
    """Lists that the tests give a name, once."""
    found: dict[str, ast.expr] = {}
    again: set[str] = set()
    for node in ast.walk(tests):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.List() | ast.Tuple() as value):
                again |= {name} & found.keys()
                found[name] = value
    return {name: value for name, value in found.items() if name not in again}


def _asserts(
    tests: ast.Module, tables: Mapping[str, ast.expr]
) -> Iterator[tuple[ast.AST, Mapping[str, ast.expr]]]:
    """The asserts, each with the literals that the variables of loops around it stand for."""
    todo: list[tuple[ast.AST, Mapping[str, ast.expr]]] = [(tests, {})]
    while todo:
        node, known = todo.pop()
        if isinstance(node, ast.Assert | ast.Call):
            yield node, known
        if isinstance(node, ast.For):
            rows = tables.get(node.iter.id) if isinstance(node.iter, ast.Name) else node.iter
            if isinstance(rows, ast.List | ast.Tuple) and not known:
                cases = [_bound(node.target, row) for row in rows.elts[:_MOST_CASES]]
                todo += [(s, case) for case in reversed(cases) for s in reversed(node.body)]
                continue
        todo += [(child, known) for child in reversed([*ast.iter_child_nodes(node)])]


def _bound(target: ast.expr, row: ast.expr) -> dict[str, ast.expr]:
    match target, row:
        case ast.Name(id=name), _:
            return {name: row}
        case (
            (ast.Tuple(elts=names) | ast.List(elts=names)),
            (ast.Tuple(elts=values) | ast.List(elts=values)),
        ) if len(names) == len(values):
            return {
                k: v for t, r in zip(names, values, strict=True) for k, v in _bound(t, r).items()
            }
    return {}


def _pairs(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Pairs of expressions that the assert wants to be equal."""
    match node:
        case ast.Assert(test=test):
            yield from _pairs_of(test)
        case ast.Call(func=ast.Attribute(attr="assertTrue"), args=[test, *_]):
            yield from _pairs_of(test)
        case ast.Call(func=ast.Attribute(attr="assertFalse"), args=[test, *_]):
            yield test, ast.Constant(value=False)
        case ast.Call(func=ast.Attribute(attr=name), args=[left, right, *_]):
            if name.startswith("assert") and name.endswith("Equal") and "Not" not in name:
                yield left, right


def _pairs_of(test: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    match test:
        case ast.BoolOp(op=ast.And(), values=values):
            for value in values:
                yield from _pairs_of(value)
        case ast.Compare(left=left, ops=[ast.Eq() | ast.Is()], comparators=[right]):
            yield left, right
        case ast.Compare(
            left=ast.Call(
                func=ast.Name(id="abs"), args=[ast.BinOp(left=left, op=ast.Sub(), right=right)]
            ),
            ops=[ast.Lt() | ast.LtE()],
        ):
            yield left, right
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand, ast.Constant(value=False)
        case ast.Call(func=ast.Name(id="isclose") | ast.Attribute(attr="isclose")):
            yield from [(test.args[0], test.args[1])] if len(test.args) > 1 else []
        case ast.Call() | ast.Await():
            yield test, ast.Constant(value=True)


def _expectation(
    call: ast.expr, value: ast.expr, known: Mapping[str, ast.expr]
) -> Expectation | None:
    call, value = _passed_on(call), _passed_on(value)
    if not isinstance(call, ast.Call) or any(k.arg is None for k in call.keywords):
        return None  # none, or one with `**`, of which the names are not known
    named = sorted(call.keywords, key=lambda k: str(k.arg))
    given = [*call.args, *(keyword.value for keyword in named)]
    try:
        arguments = tuple(literal(known.get(_id(a), a)) for a in given)
        return Expectation(last_name(call.func), arguments, literal(known.get(_id(value), value)))
    except ValueError:
        return None


def literal(node: ast.expr) -> Any:
    """The value of a literal.

    Raises:
        ValueError: it is none.
    """
    try:
        return ast.literal_eval(node)
    except (TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(str(error)) from error


def _passed_on(node: ast.expr) -> ast.expr:
    """What is awaited, rounded, listed or run."""
    while True:
        match node:
            case ast.Await(value=inner):
                node = inner
            case ast.Call(args=[inner, *_]) if last_name(node.func) in _PASSING_ON and not (
                isinstance(inner, ast.Constant) and last_name(node.func) == "run"
            ):
                node = inner
            case _:
                return node


def _id(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""
