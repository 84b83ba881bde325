from __future__ import annotations

import ast

import pytest

from selfalign_ray.validation.asserts import AssertCounts, count_asserts

SOLUTION = """
import math

LIMIT = 3

def add(a, b):
    return a + b

class Box:
    def put(self, item):
        self.items = [item]
"""


def counted(tests: str, solution: str = SOLUTION) -> AssertCounts:
    return count_asserts(ast.parse(solution), ast.parse(tests))


TRIVIAL = {
    "true": "assert True",
    "true after a call": "add(1, 2)\nassert True",
    "message for a truth": "assert 'all tests passed'",
    "constants": "assert 1 + 1 == 2",
    "collections of constants": "assert sorted([2, 1]) == [1, 2]",
    "a tuple for a message": "assert (add(1, 2) == 3, 'wrong')",
    "a list": "assert [add(1, 2) == 4]",
    "a lambda": "assert lambda: add(1, 2) == 4",
    "a generator": "assert (add(1, n) for n in [1])",
    "itself": "assert add(1, 2) == add(1, 2)",
    "itself by identity": "assert LIMIT is LIMIT",
    "exists": "assert add",
    "exists, callable": "assert callable(add)",
    "exists, not None": "assert add is not None",
    "or true": "assert add(1, 2) == 4 or True",
    "not false": "assert not False",
    "a length": "assert len(add([1], [2])) >= 0",
    "an import of the solution": "assert math.sqrt(4) == 2",
    "a name of the tests": "x = 3\nassert x == 3",
    "a constant passed on": "x = 3\nadd(x, 4)\nassert x == 3",
    "the handler": "try:\n    add(1, 2)\nexcept TypeError:\n    assert True",
    "no way to get there": "if False:\n    assert False",
    "redefined": "def add(a, b):\n    return 5\nassert add(2, 2) == 5",
    "method, true": "class T:\n    def test(self):\n        self.assertTrue(True)",
    "method, itself": "class T:\n    def test(self):\n        self.assertEqual(LIMIT, LIMIT)",
    "method, constants": "class T:\n    def test(self):\n        self.assertEqual(2, 2)",
}
TELLING = {
    "a call": "assert add(1, 2) == 3",
    "a constant of the solution": "assert LIMIT == 3",
    "a negation": "assert not add(0, 0)",
    "a variable": "result = add(1, 2)\nassert result == 3",
    "two steps": "first = add(1, 2)\nsecond = first * 2\nassert second == 6",
    "unpacked": "first, *rest = add([1], [2])\nassert rest == [2]",
    "a loop": "for a, b, c in [(1, 2, 3)]:\n    assert add(a, b) == c",
    "a loop's variable": "for x in add([1], [2]):\n    assert x",
    "a comprehension": "assert all(add(n, 1) > n for n in range(3))",
    "a walrus": "if (x := add(1, 2)):\n    pass\nassert x == 3",
    "an object": "box = Box()\nbox.put(1)\nassert box.items == [1]",
    "a changed argument": "items = [3]\nadd(items, [4])\nassert items == [3]",
    "a filled list": "seen = []\nseen.append(add(1, 2))\nassert seen == [3]",
    "a flag in a handler": (
        "try:\n    add(1, '')\n    bad = False\nexcept TypeError:\n    bad = True\nassert bad"
    ),
    "a count in a handler": (
        "refused = 0\nfor bad in ['', []]:\n    try:\n        add(1, bad)\n"
        "    except TypeError:\n        refused += 1\nassert refused == 2"
    ),
    "the exception": "try:\n    add(1, '')\nexcept TypeError as e:\n    x = e\nassert str(x)",
    "must not get there": "try:\n    add(1, '')\n    assert False\nexcept TypeError:\n    pass",
    "must not get there, else": (
        "try:\n    add(1, '')\nexcept TypeError:\n    pass\nelse:\n    assert False, 'accepted'"
    ),
    "a branch": "ok = False\nif add(1, 2) == 3:\n    ok = True\nassert ok",
    "a helper": "def check(a, b):\n    assert a == b\ncheck(add(1, 2), 3)",
    "a helper that calls": "def twice(a):\n    return add(a, a)\nassert twice(2) == 4",
    "a test function": "def test_add():\n    assert add(1, 2) == 3",
    "redirected output": (
        "import io, sys\nsys.stdout = io.StringIO()\nadd(1, 2)\nout = sys.stdout.getvalue()\n"
        "assert out == ''"
    ),
    "output in a with": (
        "import io, contextlib\nout = io.StringIO()\nwith contextlib.redirect_stdout(out):\n"
        "    add(1, 2)\nassert out.getvalue() == ''"
    ),
    "method": "class T:\n    def test(self):\n        self.assertEqual(add(1, 1), 2)",
    "method, raises": "class T:\n    def test(self):\n        self.assertRaises(E, add, 1, '')",
    "raises": "import pytest\nwith pytest.raises(TypeError):\n    add(1, '')",
    "a mock": "from unittest.mock import Mock\nm = Mock()\nadd(m, m)\nm.assert_not_called()",
}


@pytest.mark.parametrize("tests", TRIVIAL.values(), ids=TRIVIAL.keys())
def test_an_assert_that_cannot_fail_is_trivial(tests: str) -> None:
    assert counted(tests) == (1, 1, 0)


@pytest.mark.parametrize("tests", TELLING.values(), ids=TELLING.keys())
def test_an_assert_that_depends_on_the_solution_is_not_trivial(tests: str) -> None:
    assert counted(tests) == (1, 0, 0)


def test_tests_without_an_assert_count_none() -> None:
    assert counted("add(1, 2)\nprint(add(3, 4))") == (0, 0, 0)


def test_an_assert_word_for_word_again_is_repeated() -> None:
    assert counted("assert add(1, 2) == 3\n" * 4 + "assert add(2, 2) == 4\nassert True") == (
        6,
        1,
        3,
    )


def test_an_assert_about_a_variable_is_never_repeated() -> None:
    again = "box = Box()\nassert not box.put(1)\n"
    assert counted(again * 2) == (2, 0, 0)


def test_nothing_is_telling_of_an_empty_solution() -> None:
    assert counted("assert add(1, 2) == 3", solution="") == (1, 1, 0)
