"""Solutions that answer by looking their tests up. By syntax: nothing is executed. Pure."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any, NamedTuple

from selfalign_ray.validation.expectations import Expectation, expectations, literal

_LEAST = 2  # answers looked up: one is the base case of a recursion, or a limit


class _Entry(NamedTuple):
    """The solution answers `key`, by `repr`, with `value`."""

    key: str
    value: str


def lookup_share(solution: ast.Module, tests: ast.Module, instruction: str) -> float:
    """The share of the tests' expectations that the solution holds as literals.

    Counted are expectations whose arguments and value stand together in the solution: as key
    and value of a dictionary, as an equality (or membership, or `case`) and the literal that is
    returned for it, or as place and item of a list. To these comes one that a constant
    answers where nothing else does.

    Honest tables are told apart: one that holds more than the tests ask for, as that of the
    Roman numerals; one that the instruction itself spells out; one of both truth values; and
    fewer than two answers, as the base cases of a recursion.
    """
    expected = expectations(tests)
    entries = set(_entries(solution))
    found = [
        (e, keys)
        for e in expected
        if (keys := {k for k in _keys(e.arguments) if _Entry(k, repr(e.value)) in entries})
        and not _is_told(e, instruction)
    ]
    used = {_Entry(key, repr(e.value)) for e, keys in found for key in keys}
    if len(found) < _LEAST or 2 * len({e.key for e in used}) < len({e.key for e in entries}):
        return 0.0
    looked_up = {repr(e) for e, _ in found}
    defaults = set(_defaults(solution))
    rest = any(repr(e.value) in defaults for e in expected if repr(e) not in looked_up)
    return (len(found) + rest) / len(expected)


def _keys(arguments: tuple[Any, ...]) -> Iterator[str]:
    """How a table may spell the arguments of a call."""
    yield repr(arguments)
    yield repr(str(arguments))
    for argument in arguments:
        if not isinstance(argument, bool | None):
            yield repr(argument)
            yield repr(str(argument))
        if isinstance(argument, list | set):
            yield repr(tuple(argument))
    yield repr(tuple(tuple(a) if isinstance(a, list) else a for a in arguments))


def _is_told(expected: Expectation, instruction: str) -> bool:
    """Whether the instruction says this answer to these arguments."""
    words = [str(part) for part in (*expected.arguments, expected.value)]
    return all(word and word in instruction for word in words)


def _entries(solution: ast.Module) -> Iterator[_Entry]:
    for node in ast.walk(solution):
        for key, value in (*_of_tables(node), *_of_branches(node)):
            yield from _entry(key, value)


def _of_tables(node: ast.AST) -> Iterator[tuple[ast.expr | None, ast.expr | None]]:
    match node:
        case ast.Dict(keys=keys, values=values):
            yield from zip(keys, values, strict=True)
        case ast.Subscript(value=ast.List(elts=items) | ast.Tuple(elts=items)):
            yield from ((ast.Constant(index), item) for index, item in enumerate(items))


def _of_branches(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr | None]]:
    match node:
        case ast.If(test=test, body=[*_, ast.Return(value=value)]):
            yield from ((key, value) for key in _asked(test))
        case ast.IfExp(test=test, body=value):
            yield from ((key, value) for key in _asked(test))
        case ast.Return(value=ast.Compare() | ast.BoolOp() as test):
            yield from ((key, ast.Constant(value=True)) for key in _asked(test))
        case ast.match_case(pattern=pattern, body=[*_, ast.Return(value=value)]):
            yield from ((key, value) for key in _matched(pattern))


def _entry(key: ast.expr | None, value: ast.expr | None) -> Iterator[_Entry]:
    try:
        if key is not None:
            answer = None if value is None else literal(value)
            yield _Entry(repr(literal(key)), repr(answer))
    except ValueError:
        return


def _asked(test: ast.expr) -> Iterator[ast.expr]:
    """The literals that something is compared with, for the test to hold."""
    match test:
        case ast.BoolOp(op=ast.Or(), values=values):
            for value in values:
                yield from _asked(value)
        case ast.BoolOp(values=values):
            parts = [[*_asked(value)] for value in values]
            if all(len(part) == 1 for part in parts):
                yield ast.Tuple([part[0] for part in parts], ast.Load())
        case ast.Compare(left=left, ops=[ast.Eq() | ast.Is()], comparators=[right]):
            yield from (side for side in (left, right) if _is_literal(side))
        case ast.Compare(
            ops=[ast.In()],
            comparators=[ast.List(elts=keys) | ast.Tuple(elts=keys) | ast.Set(elts=keys)],
        ):
            yield from keys


def _matched(pattern: ast.pattern) -> Iterator[ast.expr]:
    match pattern:
        case ast.MatchValue(value=value):
            yield value
        case ast.MatchOr(patterns=patterns):
            for one in patterns:
                yield from _matched(one)
        case ast.MatchSequence(patterns=patterns):
            parts = [[*_matched(one)] for one in patterns]
            if all(len(part) == 1 for part in parts):
                yield ast.Tuple([part[0] for part in parts], ast.Load())


def _is_literal(node: ast.expr) -> bool:
    try:
        literal(node)
    except ValueError:
        return False
    return True


def _defaults(solution: ast.Module) -> Iterator[str]:
    """The constants, by `repr`, that answer what nothing above them has answered."""
    for node in ast.walk(solution):
        value = _default_of(node)
        if value is not None and _is_literal(value):
            yield repr(literal(value))


def _default_of(node: ast.AST) -> ast.expr | None:
    match node:
        case (
            ast.FunctionDef(body=[*_, ast.Return(value=value)])
            | ast.AsyncFunctionDef(body=[*_, ast.Return(value=value)])
            | ast.If(orelse=[*_, ast.Return(value=value)])
            | ast.IfExp(orelse=value)
            | ast.Call(func=ast.Attribute(attr="get"), args=[_, value])
            | ast.match_case(pattern=ast.MatchAs(pattern=None), body=[*_, ast.Return(value=value)])
        ):
            return value
    return None
