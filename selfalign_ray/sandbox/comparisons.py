"""Whether a class's operators could answer as their test wants, whatever they are asked. Pure.

`assert f(1) == 3` asks the object that `f` returns. One whose `__eq__` looks at what it is
compared with in a usual way cannot be equal to a number; any other is suspicious.
"""

from __future__ import annotations

import ast
from collections import deque
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

COMPARISONS = frozenset({"__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"})
# What makes a difference small or a membership true.
WEIGHED = frozenset({
    "__sub__", "__rsub__", "__mod__", "__rmod__", "__xor__", "__rxor__", "__and__", "__rand__",
    "__truediv__", "__rtruediv__", "__floordiv__", "__rfloordiv__", "__contains__",
})  # fmt: skip
LIARS = frozenset({"__abs__", "__round__", "__float__", "__int__", "__index__"})
# Attributes that numbers, text and containers have as well.
_COMMON = frozenset(
    name
    for kind in (int, float, complex, str, bytes, list, dict, set, tuple, range, slice, deque,
                 datetime, timedelta, Decimal, Fraction)
    for name in dir(kind)
) | {"shape", "dtype", "size", "ndim", "T", "flat", "nbytes", "itemsize"}  # fmt: skip


def lies(method: ast.FunctionDef, owner: str) -> bool:
    """Whether this method of the class `owner` could answer without regard to its arguments."""
    if method.name in COMPARISONS:
        return not _compares(method, owner)
    if method.name in WEIGHED:
        return not _weighs(method, owner)
    return method.name in LIARS and any(
        isinstance(node, ast.Return) and isinstance(node.value, ast.Constant)
        for node in ast.walk(method)
    )


def _arguments(method: ast.FunctionDef) -> tuple[str, str] | None:
    spec = method.args
    if len(spec.args) != 2 or spec.vararg or spec.kwarg or spec.kwonlyargs or spec.defaults:
        return None
    return spec.args[0].arg, spec.args[1].arg


def _compares(method: ast.FunctionDef, owner: str) -> bool:
    """Every way through it refuses other kinds first, or compares like attributes only."""
    names = _arguments(method)
    if names is None or any(isinstance(n, ast.Try | ast.NamedExpr) for n in ast.walk(method)):
        return False
    guarded = False
    for statement in method.body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue
        if isinstance(statement, ast.If) and not statement.orelse:
            refuses = _is_kind(statement.test, names, owner, negated=True)
            if refuses and all(map(_refuses, statement.body)):
                guarded = True
                continue
            if not _is_kind(statement.test, names, owner, negated=False):
                return False
            if not all(_answers(s, names, owner, guarded=True) for s in statement.body):
                return False
            continue
        if not _answers(statement, names, owner, guarded=guarded):
            return False
    return True


def _refuses(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Raise):
        return True
    return isinstance(statement, ast.Return) and _is_refusal(statement.value)


def _is_refusal(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Constant):
        return value.value is False
    return isinstance(value, ast.Name) and value.id == "NotImplemented"


def _answers(statement: ast.stmt, names: tuple[str, str], owner: str, *, guarded: bool) -> bool:
    if _refuses(statement):
        return True
    if not isinstance(statement, ast.Return) or statement.value is None:
        return False
    return _is_answer(statement.value, names, owner, guarded=guarded)


def _is_answer(value: ast.expr, names: tuple[str, str], owner: str, *, guarded: bool) -> bool:
    if isinstance(value, ast.BoolOp) and isinstance(value.op, ast.And):
        for part in value.values:
            if _is_kind(part, names, owner, negated=False):
                guarded = True
            elif not _is_answer(part, names, owner, guarded=guarded):
                return False
        return True
    if isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not):
        return guarded and _reads_both(value, names)
    if guarded:
        return _reads_both(value, names)
    return (
        isinstance(value, ast.Compare)
        and len(value.ops) == 1
        and _like(value.left, value.comparators[0], names)
    )


def _reads_both(value: ast.expr, names: tuple[str, str]) -> bool:
    return set(names) <= {n.id for n in ast.walk(value) if isinstance(n, ast.Name)}


def _like(left: ast.expr, right: ast.expr, names: tuple[str, str]) -> bool:
    """Whether one side is the other with the second argument for the first."""
    mine, other = names
    first, second = (
        {ast.dump(s), ast.dump(s).replace(f"id='{mine}'", f"id='{other}'")} for s in (left, right)
    )
    if not first & second or ast.dump(left) == ast.dump(right):
        return False
    read = [n for n in ast.walk(left) if isinstance(n, ast.Attribute)]
    direct = [n.attr for n in read if isinstance(n.value, ast.Name) and n.value.id in names]
    bare = [n for n in ast.walk(left) if isinstance(n, ast.Name) and n.id in names]
    return len(direct) == len(bare) > 0 and not any(
        name in _COMMON or name.startswith("__") for name in direct
    )


def _is_kind(test: ast.expr, names: tuple[str, str], owner: str, *, negated: bool) -> bool:
    """`isinstance(other, Owner)`, `type(self) is type(other)` and the like, or its negation."""
    if negated:
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            return _is_kind(test.operand, names, owner, negated=False)
        kinds: tuple[type, ...] = (ast.IsNot, ast.NotEq)
    else:
        kinds = (ast.Is, ast.Eq)
    mine, other = names
    own = {owner, f"type({mine})", f"{mine}.__class__"}
    text = ast.unparse(test)
    if not negated and text in {f"isinstance({other}, {kind})" for kind in own}:
        return True
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], kinds):
        sides = {ast.unparse(test.left), ast.unparse(test.comparators[0])}
        return bool(sides & {f"type({other})", f"{other}.__class__"}) and bool(sides & own)
    return False


def _weighs(method: ast.FunctionDef, owner: str) -> bool:
    """It reads both sides, and answers with an object of its class or from its own attributes."""
    names = _arguments(method)
    if names is None:
        return False
    for node in ast.walk(method):
        if not isinstance(node, ast.Return):
            continue
        value = node.value
        if value is None or _is_refusal(value):
            continue
        made = isinstance(value, ast.Call) and ast.unparse(value.func) in {
            owner, f"type({names[0]})", f"{names[0]}.__class__", "cls"}  # fmt: skip
        if made:
            continue
        if isinstance(value, ast.Constant):
            return False
        read = {n.id for n in ast.walk(method) if isinstance(n, ast.Name)}
        attributes = {
            n.value.id
            for n in ast.walk(method)
            if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)
        }
        if names[0] not in attributes or names[1] not in read:
            return False
    return True
