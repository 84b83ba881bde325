"""stubs.py: which functions are replaced, and by what."""

from __future__ import annotations

import ast

import pytest

from selfalign_ray.validation.stubs import stubs


def made(code: str, tests: str) -> dict[str, str]:
    return {s.name: s.code for s in stubs(ast.parse(code), ast.parse(tests), None)}


def test_a_function_returns_nothing_a_constant_or_its_argument() -> None:
    assert made("def f(a, b):\n    return a + b", "assert f(1, 2) == 3") == {
        "f returns None": "def f(a, b):\n    return None",
        "f returns a constant": "def f(a, b):\n    return 0",
        "f returns its first argument": "def f(a, b):\n    return a",
    }


@pytest.mark.parametrize(
    ("code", "tests", "constant"),
    [
        ("def f(a) -> str:\n    return str(a)", "f(1)", "''"),
        ("def f(a) -> list[int]:\n    return [a]", "f(1)", "[]"),
        ("def f(a):\n    return [a]", "assert f(1) == [1]", "[]"),
        ("def f(a):\n    return a > 1", "assert f(2)\nassert f(3)", "True"),
        ("def f(a):\n    return a > 1", "assert f(2)\nassert not f(1)", "False"),
        ("def f(a):\n    return a > 1", "assert f(2)", "False"),  # one call says nothing of others
        ("def f(a):\n    return a * a", "assert f(2) == 4\nassert f(-2) == 4\nassert f(1) == 1",
         "4"),
    ],
)  # fmt: skip
def test_the_constant_is_the_one_that_the_tests_would_most_likely_take(
    code: str, tests: str, constant: str
) -> None:
    assert f"return {constant}" in made(code, tests)["f returns a constant"].splitlines()[-1]


def test_what_the_tests_do_not_name_is_no_stub() -> None:
    code = "def helper(x):\n    return x\n\ndef f(x):\n    return helper(x) + 1"
    assert {name.split()[0] for name in made(code, "assert f(1) == 2")} == {"f"}


def test_what_the_tests_do_not_reach_is_no_stub() -> None:
    code = "def f(x):\n    return x + 1\n\ndef g(x):\n    return x + 2"
    found = stubs(ast.parse(code), ast.parse("f(1)\nif 0: g(1)"), frozenset({(1, 0)}))
    assert {s.name.split()[0] for s in found} == {"f"}


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("def f(a):\n    a.append(1)", ["f returns None"]),
        ("def f(a):\n    'Doc.'\n    pass", []),
        ("def f(a):\n    'Doc.'\n    return None", []),
        ("def f(a):\n    return a", ["f returns None", "f returns a constant"]),
        ("def f():\n    return 7", ["f returns None", "f returns a constant"]),
        ("def f():\n    return 0", ["f returns None"]),
    ],
)
def test_what_is_as_the_solution_is_left_out(code: str, names: list[str]) -> None:
    assert list(made(code, "f")) == names


def test_methods_async_functions_and_generators_keep_their_form() -> None:
    code = (
        "class A:\n    @property\n    def x(self):\n        return 1\n"
        "    async def y(self, a):\n        return a + 1\n"
        "    @staticmethod\n    def z(a):\n        yield a + 1\n"
        "    def __len__(self):\n        return 1"
    )
    found = made(code, "A().x, A().y, A().z, A().__len__")
    assert list(found) == [
        *("A.x returns None", "A.x returns a constant"),
        *("A.y returns None", "A.y returns a constant", "A.y returns its first argument"),
        *("A.z returns None", "A.z returns a constant", "A.z returns its first argument"),
    ]
    assert "@property\n    def x(self):\n        return 0" in found["A.x returns a constant"]
    assert "async def y(self, a):\n        return a\n" in found["A.y returns its first argument"]
    assert "return\n        yield None" in found["A.z returns None"]
    assert "yield a\n" in found["A.z returns its first argument"]
