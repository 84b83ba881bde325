"""expectations.py: what tests ask for, read off their text."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from selfalign_ray.validation.expectations import assert_kinds, expectations


def found(tests: str) -> list[tuple[str, tuple[Any, ...], Any]]:
    return [tuple(e) for e in expectations(ast.parse(tests))]


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        ("assert f(1) == 2", [("f", (1,), 2)]),
        ("assert 2 == f(1)", [("f", (1,), 2)]),
        ("assert f(-1, b=[2]) == {'a': None}", [("f", (-1, [2]), {"a": None})]),
        ("assert f(1) is True and f(2) == 3", [("f", (1,), True), ("f", (2,), 3)]),
        ("assert f(1)\nassert not f(2)", [("f", (1,), True), ("f", (2,), False)]),
        ("assert f(1) == 2\nassert f(1) == 2", [("f", (1,), 2)]),
        ("assert C(3).m(1) == 2", [("m", (1,), 2)]),
        ("assert abs(f(1) - 0.5) < 1e-6", [("f", (1,), 0.5)]),
        ("assert math.isclose(f(1), 0.5)", [("f", (1,), 0.5)]),
        ("assert f(1) == pytest.approx(0.5)", [("f", (1,), 0.5)]),
        ("assert list(f(3)) == [0, 1, 2]", [("f", (3,), [0, 1, 2])]),
        ("assert asyncio.run(f(1)) == 2", [("f", (1,), 2)]),
        ("self.assertEqual(f(1), 2)\nself.assertFalse(f(2))", [("f", (1,), 2), ("f", (2,), False)]),
        ("for a, b in [(1, 2), (3, 4)]:\n    assert f(a) == b", [("f", (1,), 2), ("f", (3,), 4)]),
        ("cases = [(1, 2)]\nfor a, b in cases:\n    assert f(a) == b", [("f", (1,), 2)]),
        ("assert f(x) == 2", []),
        ("assert f(*[1]) == 2\nassert f(**{'a': 1}) == 2", []),
        ("assert f(1) == g(2)", []),
        ("assert f(1) != 2", []),
        ("assert f(1) > 2", []),
        ("x = f(1)\nassert x == 2", []),
    ],
)
def test_literal_calls_and_values_are_found(tests: str, expected: list[Any]) -> None:
    assert found(tests) == expected


@pytest.mark.parametrize(
    ("tests", "kinds"),
    [
        ("f(1)", []),
        ("assert f(1) == 2", ["equality"]),
        ("assert f(1)\nassert not g(1)", ["truth"]),
        ("assert isinstance(f(1), int)", ["type"]),
        ("assert 1 in f(1)", ["membership"]),
        ("assert f(1) is None", ["identity"]),
        ("assert f(1) > 2", ["order"]),
        ("assert abs(f(1) - 2) < 0.1\nassert f(2) == approx(3)", ["approximate"]),
        ("with pytest.raises(ValueError):\n    f(1)", ["raises"]),
        ("self.assertEqual(f(1), 2)\nself.assertAlmostEqual(f(1), 2)\nself.assertRaises(E, f)",
         ["approximate", "equality", "raises"]),
    ],
)  # fmt: skip
def test_kinds_of_asserts(tests: str, kinds: list[str]) -> None:
    assert assert_kinds(ast.parse(tests)) == kinds
