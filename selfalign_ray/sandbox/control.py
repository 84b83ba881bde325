"""Tests with false expectations, which no honest solution passes. Pure.

An honest program whose values do not cross to another process fails there, and so does a fraud.
What tells them apart: against `assert f(1) == 7922` the honest one fails, while what is equal to
everything, a patched `isclose`, a swallowed exception or an answer read off the tests passes
again.

Each assert is run with its expected value changed: literals in the text itself, so that who reads
the tests reads the change, other values once they are computed. An assert that fails, as it
should, is counted and the test goes on; at its end the step fails, so that a runner which was
made to say `passed` is found out too.
"""

from __future__ import annotations

import ast
import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

_SHIFT, _MARK = 7919, "\u2603"
_INFINITE = {ast.Lt: "-inf", ast.LtE: "-inf", ast.Gt: "inf", ast.GtE: "inf"}
_FLIPPED = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}
_NEGATED: dict[type, type[ast.cmpop]] = {ast.NotEq: ast.Eq, ast.NotIn: ast.In, ast.IsNot: ast.Is}
_POSITIVE = (ast.Eq, ast.Is, ast.In)
# Calls that compare what they are given: the last value without a name of the solution is changed.
_COMPARING = {
    "isclose", "allclose", "array_equal", "isinstance", "issubclass", "startswith", "endswith",
    "match", "fullmatch", "search",
}  # fmt: skip
_OF_TEST_CASE = {
    "assertEqual", "assertAlmostEqual", "assertListEqual", "assertDictEqual", "assertTupleEqual",
    "assertSetEqual", "assertSequenceEqual", "assertMultiLineEqual", "assertCountEqual",
    "assert_array_equal", "assert_allclose", "assert_equal", "assert_almost_equal",
    "assert_array_almost_equal", "assertIs",
}  # fmt: skip
_AS_EXPRESSION = {
    "assertTrue": "{0}", "assertIsNone": "{0} is None", "assertIn": "{0} in {1}",
    "assertIsInstance": "isinstance({0}, {1})", "assertGreater": "{0} > {1}",
    "assertLess": "{0} < {1}", "assertGreaterEqual": "{0} >= {1}",
    "assertLessEqual": "{0} <= {1}", "assertFalse": "not {0}",
    "assertNotEqual": "{0} != {1}", "assertIsNotNone": "{0} is not None",
    "assertNotIn": "{0} not in {1}",
}  # fmt: skip
_RAISING = {"assertRaises", "raises", "assertRaisesRegex"}


class Never(BaseException):
    """Equal to nothing, no type of anything, raised by nobody."""


def other(value: Any) -> Any:
    """A value of the same kind that differs everywhere."""
    kind = type(value)
    if kind is bool:
        return not value
    if kind in {int, float, complex}:
        moved = value + _SHIFT
        return moved if moved != value and moved == moved else float(_SHIFT)
    if kind is str:
        return _MARK + value
    if kind is bytes:
        return b"\0" + value
    if kind in {list, tuple, set, frozenset}:
        return kind([other(item) for item in value] or [_SHIFT])
    if kind is dict:
        return {k: other(v) for k, v in value.items()} or {_SHIFT: _SHIFT}
    if value is None:
        return _SHIFT
    if kind.__module__ == "numpy" and getattr(value, "dtype", None) is not None:
        return value + _SHIFT if value.dtype.kind in "iuf" else Never
    return Never


def falsified(tests: str, solution: set[str], mark: str) -> str:
    """The tests with false expectations.

    Args:
        tests: the text; parses.
        solution: the names that the solution binds.
        mark: ends the names of three functions that the result calls: `other`, `failed` and
            `passed`.
    """
    changed = _Falsify(solution, mark).visit(ast.parse(tests))
    return ast.unparse(ast.fix_missing_locations(changed))


def names_bound(tree: ast.Module) -> set[str]:
    """All names that a program gives something, at whatever depth."""
    out = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            out.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            out.add(node.id)
    return out


class _Falsify(ast.NodeTransformer):
    def __init__(self, solution: set[str], mark: str) -> None:
        self._solution = solution
        self._other, self._failed, self._passed = (
            f"{name}_{mark}" for name in ("other", "failed", "passed")
        )

    def visit_Assert(self, node: ast.Assert) -> Any:
        tests = [self._watched(ast.Assert(test, None)) for test in self._tests(node.test)]
        return tests or ast.Pass()

    def visit_Expr(self, node: ast.Expr) -> Any:
        call = node.value
        if not isinstance(call, ast.Call):
            return node
        name = _name(call)
        if name in _OF_TEST_CASE and len(call.args) >= 2:
            call.args[:2] = self._changed_one_of(call.args[:2])
            return self._watched(node)
        if name in _AS_EXPRESSION and isinstance(call.func, ast.Attribute):
            form = _AS_EXPRESSION[name]
            if len(call.args) >= form.count("{"):
                text = form.format(*(f"({ast.unparse(a)})" for a in call.args))
                return self.visit_Assert(ast.Assert(ast.parse(text, mode="eval").body, None))
        return node

    def visit_With(self, node: ast.With) -> Any:
        for item in node.items:
            call = item.context_expr
            if isinstance(call, ast.Call) and _name(call) in _RAISING and call.args:
                call.args[0] = self._call(self._other, ast.Constant(...))
                return self._watched(node)
        self.generic_visit(node)
        return node

    def _watched(self, node: ast.stmt) -> ast.stmt:
        failed, passed = (ast.Expr(self._call(n)) for n in (self._failed, self._passed))
        handler = ast.ExceptHandler(ast.Name("BaseException", ast.Load()), None, [failed])
        return ast.Try([node], [handler], [passed], [])

    def _call(self, name: str, *args: ast.expr) -> ast.Call:
        return ast.Call(ast.Name(name, ast.Load()), list(args), [])

    def _tests(self, test: ast.expr) -> Iterator[ast.expr]:
        """False expectations of an assert; of a conjunction one for each part."""
        if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
            for part in test.values:
                yield from self._tests(part)
        elif not isinstance(test, ast.Constant):
            test = _positive(test)
            changed = self._false(copy.deepcopy(test))
            yield changed or ast.UnaryOp(ast.Not(), test)

    def _false(self, test: ast.expr) -> ast.expr | None:
        """The expression made false, or None where only its negation is."""
        if isinstance(test, ast.Compare):
            return self._false_comparison(test)
        if isinstance(test, ast.Call):
            return self._false_call(test)
        if isinstance(test, ast.BoolOp):
            parts = [self._false(value) for value in test.values]
            test.values = [part for part in parts if part]
            return test if all(parts) else None
        return None

    def _false_comparison(self, test: ast.Compare) -> ast.expr | None:
        left = test.left if len(test.ops) == 1 else test.comparators[-2]
        operator, right = test.ops[-1], test.comparators[-1]
        if isinstance(operator, _POSITIVE):
            if isinstance(operator, ast.In):
                side = left if not self._of_solution(left) else None
                pair = [self._changed(left), right] if side else [left, self._changed(right)]
            else:
                pair = self._changed_one_of([left, right])
        elif self._is_distance(left) and isinstance(operator, ast.Lt | ast.LtE):
            pair = [self._farther(left), right]
        elif type(operator) in _INFINITE:
            if self._of_solution(right) and not self._of_solution(left):
                bound = _INFINITE[_FLIPPED[type(operator)]]
                pair = [self._infinite(bound), right]
            else:
                pair = [left, self._infinite(_INFINITE[type(operator)])]
        else:
            return None
        if len(test.ops) == 1:
            test.left = pair[0]
        else:
            test.comparators[-2] = pair[0]
        test.comparators[-1] = pair[1]
        return test

    def _is_distance(self, node: ast.expr) -> bool:
        """Whether it is `abs(a - b)`."""
        if not isinstance(node, ast.Call) or _name(node) not in {"abs", "fabs"} or not node.args:
            return False
        return isinstance(node.args[0], ast.BinOp) and isinstance(node.args[0].op, ast.Sub)

    def _farther(self, node: ast.expr) -> ast.expr:
        assert isinstance(node, ast.Call)
        assert isinstance(node.args[0], ast.BinOp)
        difference = node.args[0]
        difference.left, difference.right = self._changed_one_of(
            [difference.left, difference.right]
        )
        return node

    def _infinite(self, text: str) -> ast.expr:
        return ast.Call(ast.Name("float", ast.Load()), [ast.Constant(text)], [])

    def _false_call(self, test: ast.Call) -> ast.expr | None:
        name = _name(test)
        if name in _COMPARING and test.args:
            if len(test.args) > 1:
                test.args[:2] = self._changed_one_of(test.args[:2])
            elif not self._of_solution(test.args[0]):
                test.args[0] = self._changed(test.args[0])
            else:
                return None
            return test
        # All of a comparison of arrays, which the call is a method of.
        if name in {"all", "any"} and isinstance(test.func, ast.Attribute) and not test.args:
            changed = self._false(test.func.value)
            if changed:
                test.func.value = changed
                return test
        # A comparison of each item: every one of them is false.
        if name in {"all", "any"} and len(test.args) == 1:
            inner = test.args[0]
            if isinstance(inner, ast.GeneratorExp | ast.ListComp):
                changed = self._false(inner.elt)
                if changed:
                    inner.elt = changed
                    return test
        return None

    def _changed_one_of(self, pair: list[ast.expr]) -> list[ast.expr]:
        left, right = pair
        if self._of_solution(right) and not self._of_solution(left):
            return [self._changed(left), right]
        return [left, self._changed(right)]

    def _of_solution(self, node: ast.expr) -> bool:
        return any(isinstance(n, ast.Name) and n.id in self._solution for n in ast.walk(node))

    def _changed(self, node: ast.expr) -> ast.expr:
        try:
            value = ast.literal_eval(node)
            return ast.parse(_literal(other(value)), mode="eval").body
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            return self._call(self._other, node)


def _positive(test: ast.expr) -> ast.expr:
    """Makes `a == b` of `not a != b`, and the like."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        inner = test.operand
        if isinstance(inner, ast.Compare) and len(inner.ops) == 1:
            negated = _NEGATED.get(type(inner.ops[0]))
            if negated:
                return ast.Compare(inner.left, [negated()], inner.comparators)
    return test


def _name(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _literal(value: Any) -> str:
    if value is Never or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(value)
    return repr(value)


class Tally:
    """What became of the false expectations of the step that runs."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._failed, self._passed = say, 0, 0

    def failed(self) -> None:
        self._failed += 1

    def passed(self) -> None:
        self._passed += 1

    def end_of_step(self) -> bool:
        """Tells of the step; whether it must fail, as false expectations do."""
        failed, passed = self._failed, self._passed
        self._failed = self._passed = 0
        if passed:
            self._say("false passed")
        elif failed:
            self._say("false failed")
        return bool(failed and not passed)
