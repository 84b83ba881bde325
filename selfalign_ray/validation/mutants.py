"""Wrong variants of a solution: one small change each, which good tests notice. Pure.

Kinds: `comparison` (negated), `boundary` (off by one), `arithmetic`, `constant`, `return`
(nothing instead of the value) and `branch` (negated condition). Left out is what no test can
be asked to notice (docstrings, annotations, messages of exceptions and prints) and what would end
in endless loops only (the negated condition of a `while`).
"""

from __future__ import annotations

import ast
import itertools
import random
from collections.abc import Iterator
from typing import NamedTuple

from selfalign_ray.validation.coverage import Place, place_of
from selfalign_ray.validation.definitions import FUNCTIONS, is_none

_NEGATED: dict[type, type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE,
    ast.LtE: ast.Gt, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_MOVED: dict[type, type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
}  # fmt: skip
_SWAPPED: dict[type, type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
}  # fmt: skip
_SILENT = {"print", "debug", "info", "warning", "error", "exception", "critical"}


class Mutation(NamedTuple):
    """One change: `new` in place of what `parent` has in `field`, at `at` where that is a list.

    `place` is that of the innermost statement of a function around it; null outside functions.
    """

    kind: str
    place: Place | None
    parent: ast.AST
    field: str
    at: int | None
    new: ast.AST


class Mutant(NamedTuple):
    """A solution with one change."""

    kind: str
    place: Place | None
    code: str


def mutants(tree: ast.Module, most: int, rng: random.Random) -> list[Mutant]:
    """Up to `most` mutants, spread over kinds and, within these, over statements.

    Args:
        tree: of the solution; is changed and changed back.
        most: how many.
        rng: draws them.

    Raises:
        RecursionError, ValueError: the tree cannot be written: too deep, or a number too long.
    """
    kinds: dict[str, list[Mutation]] = {}
    for mutation in mutations(tree):
        kinds.setdefault(mutation.kind, []).append(mutation)
    for found in kinds.values():
        rng.shuffle(found)
    order = list(kinds)
    rng.shuffle(order)
    rounds = itertools.zip_longest(*(_spread(kinds[kind]) for kind in order))
    seen = {ast.unparse(tree)}
    out: list[Mutant] = []
    for mutation in (m for group in rounds for m in group if m is not None):
        if len(out) == most:
            break
        code = written(tree, mutation)
        if code not in seen:  # equal text, equal tree
            seen.add(code)
            out.append(Mutant(mutation.kind, mutation.place, code))
    return out


def written(tree: ast.Module, mutation: Mutation) -> str:
    """The text of the tree with the change; the tree is as before."""
    old = getattr(mutation.parent, mutation.field)
    new: object = mutation.new
    if mutation.at is not None:
        new = [*old[: mutation.at], mutation.new, *old[mutation.at + 1 :]]
    setattr(mutation.parent, mutation.field, new)
    try:
        return ast.unparse(tree)
    finally:
        setattr(mutation.parent, mutation.field, old)


def mutations(tree: ast.Module) -> Iterator[Mutation]:
    """All changes, in the order of the text."""
    todo: list[tuple[ast.AST, ast.AST, str, int | None, Place | None]] = [
        (statement, tree, "body", index, None)
        for index, statement in reversed([*enumerate(tree.body)])
    ]
    while todo:
        node, parent, field, at, place = todo.pop()
        if place is not None and isinstance(node, ast.stmt):
            place = place_of(node)
        for kind, new in _changes(node):
            yield Mutation(kind, place, parent, field, at, new)
        for kind, name, number, new in _inner_changes(node):
            yield Mutation(kind, place, node, name, number, new)
        if isinstance(node, FUNCTIONS):
            place = place_of(node)
        inner = [
            (child, node, name, number, place)
            for name, number, child in _children(node)
            if not _is_left_out(node, name, child)
        ]
        todo += reversed(inner)


def _spread(found: list[Mutation]) -> list[Mutation]:
    """First one of each statement, then a second one, and so on."""
    seen: dict[Place | None, int] = {}
    turns = []
    for mutation in found:
        seen[mutation.place] = seen.get(mutation.place, 0) + 1
        turns.append(seen[mutation.place])
    return [m for _, m in sorted(zip(turns, found, strict=True), key=lambda pair: pair[0])]


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """(kind, node to stand in the place of this one)."""
    match node:
        case ast.Constant(value=value):
            if (other := _other(value)) is not None:
                yield "constant", ast.Constant(other)
        case ast.Return(value=value) if value is not None and not is_none(value):
            yield "return", ast.Return(None)


def _inner_changes(node: ast.AST) -> Iterator[tuple[str, str, int | None, ast.AST]]:
    """(kind, field, place in it, new node) of what changes inside a node."""
    match node:
        case ast.Compare(ops=ops):
            for index, op in enumerate(ops):
                yield "comparison", "ops", index, _NEGATED[type(op)]()
                if type(op) in _MOVED:
                    yield "boundary", "ops", index, _MOVED[type(op)]()
        case ast.BinOp(op=op) | ast.AugAssign(op=op):
            texts = [getattr(node, name, None) for name in ("left", "right", "value")]
            if not any(map(_is_text, texts)) and type(op) in _SWAPPED:
                yield "arithmetic", "op", None, _SWAPPED[type(op)]()
        case ast.If(test=test) | ast.IfExp(test=test):
            yield "branch", "test", None, ast.UnaryOp(ast.Not(), test)
        case ast.Call(func=ast.Name(id="range"), args=args):
            for index, bound in enumerate(args[:2]):
                yield from (("boundary", "args", index, more) for more in _one_more(bound))
        case ast.Slice(lower=lower, upper=upper):
            yield from (("boundary", "lower", None, more) for more in _one_more(lower))
            yield from (("boundary", "upper", None, more) for more in _one_more(upper))


def _one_more(bound: ast.expr | None) -> Iterator[ast.expr]:
    """The bound plus one; a sum has constants of its own."""
    if isinstance(bound, ast.Constant) and isinstance(bound.value, int):
        yield ast.Constant(bound.value + 1)
    elif bound is not None and not isinstance(bound, ast.BinOp | ast.Constant):
        yield ast.BinOp(bound, ast.Add(), ast.Constant(1))


def _other(value: object) -> bool | int | float | str | bytes | None:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float) and value + 1 != value:
        return value + 1
    if isinstance(value, str):
        return value + "x"
    return value + b"x" if isinstance(value, bytes) else None


def _children(node: ast.AST) -> Iterator[tuple[str, int | None, ast.AST]]:
    for name, value in ast.iter_fields(node):
        if isinstance(value, ast.AST):
            yield name, None, value
        elif isinstance(value, list):
            yield from ((name, i, v) for i, v in enumerate(value) if isinstance(v, ast.AST))


def _is_left_out(node: ast.AST, field: str, child: ast.AST) -> bool:
    """Whether no test can be asked to notice a change here."""
    match node, child:
        case (ast.JoinedStr() | ast.FormattedValue(), ast.Constant() | ast.JoinedStr()):
            return True  # a part of a text that an f-string holds, or its format
        case (ast.AST(), ast.Raise() | ast.Import() | ast.ImportFrom() | ast.pattern()):
            return True
        case (ast.Expr(), ast.Constant()):
            return True
        case (ast.Expr(), ast.Call(func=ast.Name(id="log") | ast.Attribute(attr="log"))):
            return True  # one whose value is used is a logarithm
        case (ast.AST(), ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name))) if (
            name in _SILENT
        ):
            return True
    is_annotation = field in {"annotation", "returns", "decorator_list", "bases", "type_params"}
    return is_annotation or (isinstance(node, ast.Assert) and field == "msg")


def _is_text(node: ast.AST | None) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    )
