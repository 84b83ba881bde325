"""interface.py: tests for another solution are told from tests that it fails."""

from __future__ import annotations

import ast

import pytest

from selfalign_ray.validation.interface import is_of_interface, mismatch

CODE = """\
import math

class Till:
    def pay(self, x): ...

def add(a, b=0, *, c=0): ...
def total(*xs, **named): ...
@cached
def kept(a): ...
"""


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        ("assert add(1) == 1", False),
        ("assert add(1, 2, c=3)", False),
        ("assert add(1, 2, 3)", True),
        ("assert add()", True),
        ("assert add(1, d=3)", True),
        ("assert add(*[1, 2, 3])", False),
        ("assert add(b=1, a=2)", False),
        ("assert add(1, **{'b': 2})", False),
        ("assert total(1, 2, 3, d=4)", False),
        ("assert kept(1, 2)", False),  # the decorator may have changed it
        ("assert sum_of(1, 2) == 3", True),
        ("from solution import *\nassert sum_of(1, 2) == 3", False),
        ("def sum_of(a): return a\nassert sum_of(1) == 1", False),
        ("x = 1\nassert [y for y in (x,)] and len(str(math.pi))", False),
        ("with raises(TypeError):\n    add()\nfrom pytest import raises", False),
        ("class T:\n    def test(self): self.assertRaises(TypeError, lambda: add())", False),
        ("self = 1\nself.assertEqual(add(), 1)", True),
        ("try:\n    add()\nexcept TypeError as error:\n    assert error", False),
        ("class T:\n    def test(self): assert add(1)\nT().test()", False),
        ("def add(*x): return 1\nassert add(1, 2, 3)", False),
    ],
)
def test_what_cannot_fit_is_known_by_syntax(tests: str, expected: bool) -> None:
    assert mismatch(ast.parse(CODE), ast.parse(tests)) is expected


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ("NameError: name 'sum_of' is not defined", True),
        ("NameError: name 'add' is not defined (line 3)", False),  # the solution's own fault
        ("TypeError: add() takes 2 positional arguments but 3 were given", True),
        ("TypeError: add() missing 1 required positional argument: 'a'", True),
        ("TypeError: add() got an unexpected keyword argument 'd'", True),
        ("TypeError: Till.pay() missing 1 required positional argument: 'x'", True),
        ("TypeError: Till.__init__() takes 1 positional argument but 2 were given", True),
        ("TypeError: unsupported operand type(s) for +: 'int' and 'str'", False),
        ("TypeError: sorted() takes 1 positional argument but 2 were given", False),
        ("AttributeError: 'Till' object has no attribute 'refund'", True),
        ("AttributeError: type object 'Till' has no attribute 'refund'", True),
        ("AttributeError: 'list' object has no attribute 'add'", False),
        ("ImportError: cannot import name 'sum_of' from 'solution'", True),
        ("ModuleNotFoundError: No module named 'solution'", True),
        ("ValueError: NameError: name 'x' is not defined", False),
        ("", False),
    ],
)
def test_what_did_not_fit_is_known_by_its_exception(detail: str, expected: bool) -> None:
    assert is_of_interface(detail, ast.parse(CODE)) is expected
