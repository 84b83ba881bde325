"""definitions.py: what has a syntax tree, and what counts as a function."""

from __future__ import annotations

import ast

import pytest

from selfalign_ray.validation.definitions import define_lambdas, imports, parse


@pytest.mark.parametrize(
    ("code", "same"),
    [
        ("f = lambda: 0", "def f():\n    return 0"),
        ("f: object = lambda a, *b, c=1, **d: a", "def f(a, *b, c=1, **d):\n    return a"),
        ("class A:\n    f = lambda self: 0", "class A:\n    def f(self):\n        return 0"),
        (
            "try:\n    f = lambda: 0\nfinally:\n    g = lambda: 1",
            "try:\n    def f():\n        return 0\nfinally:\n    def g():\n        return 1",
        ),
        ("a.f = lambda: 0", None),
        ("f = g = lambda: 0", None),
        ("f = [lambda: 0]", None),
    ],
)
def test_a_lambda_with_a_name_is_a_function(code: str, same: str | None) -> None:
    tree = ast.parse(code)
    define_lambdas(tree)
    assert ast.dump(tree) == ast.dump(ast.parse(same or code))


def test_the_function_stands_where_the_lambda_stood() -> None:
    tree = ast.parse("x = 1\nf = lambda: 0")
    define_lambdas(tree)
    function = tree.body[1]
    assert isinstance(function, ast.FunctionDef)
    assert (function.lineno, function.col_offset) == (2, 0)
    assert (function.body[0].lineno, function.body[0].col_offset) == (2, 12)


def test_what_is_no_python_has_no_tree() -> None:
    assert parse("(" * 10_000) is None
    assert parse("x = '\ud800'") is None


def test_a_byte_order_mark_is_no_part_of_the_code() -> None:
    tree = parse("\ufeffx = 1")
    assert tree is not None
    assert ast.dump(tree, include_attributes=True) == ast.dump(
        ast.parse("x = 1"), include_attributes=True
    )


def test_imports_are_top_level_modules() -> None:
    code = "import os.path, re\nfrom . import near\ndef f():\n    from collections.abc import Set"
    assert imports(ast.parse(code)) == ["collections", "os", "re"]
