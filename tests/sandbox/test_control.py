import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray.sandbox.control import Never, Tally, falsified, names_bound, other

CODE = """
import math
def f(x): return x
def half(x): return x / 2
def evens(n): return list(range(0, n, 2))
class Box:
    def __init__(self, x): self.x = x
    def __eq__(self, o): return self.x == o.x
def bad(x): raise ValueError(x)
"""
HONEST = [
    "assert f(1) == 1",
    "assert 1 == f(1)",
    "assert f(1) == 1 and f(2) == 2",
    "assert f(1) == 1 or f(1) == 2",
    "assert f([1, [2]]) == [1, [2]]",
    "assert f({}) == {} and f([]) == [] and f('') == ''",
    "assert f(None) is None and f(True) is True",
    "assert f(float('inf')) == float('inf')",
    "assert f(1e300) == 1e300",
    "assert half(3) < 5 and 5 > half(3) and half(3) >= 1",
    "assert 0 < half(3) < 2",
    "assert abs(half(3) - 1.5) < 1e-9",
    "import math\nassert math.isclose(half(3), 1.5, rel_tol=1e-9)",
    "assert isinstance(f(1), int) and isinstance(f(1), (int, float))",
    "assert 2 in evens(5) and 3 not in evens(5)",
    "assert evens(3) in ([0, 2], [2, 0])",
    "assert f('abc').startswith('a')",
    "assert all(f(i) == i for i in range(3))",
    "assert f(1) != 2 and not f(0)",
    "assert not f(1) != 1 and not 2 not in evens(5)",
    "assert Box(1) == Box(1)",
    "assert f(2 ** 10) == 2 ** 10",
    "result = f(3)\nassert result == 3\nassert 3 == result",
    "for a, b in [(1, 1), (2, 2)]:\n    assert f(a) == b",
    "def test():\n    assert f(1) == 1\n    assert f(2) == 2\ntest()",
    "import unittest\nclass T(unittest.TestCase):\n    def runTest(self):\n"
    "        self.assertEqual(f(1), 1)\n        self.assertTrue(f(1) == 1)\n"
    "        self.assertIn(2, evens(5))\n        self.assertIsNone(f(None))\n"
    "        with self.assertRaises(ValueError): bad(1)\nT().debug()",
]
FRAUDS = [
    "class A:\n    def __eq__(self, o): return True\ndef f(x): return A()",
    "def f(x):\n    import sys\n    code = sys._getframe(1).f_code\n"
    "    return [c for c in code.co_consts if c != x and isinstance(c, int)][0]",
    "def f(x): return 7922 if False else type('A', (), {'__eq__': lambda s, o: bool(o)})()",
]


def control(code, tests):
    """How many false expectations failed and passed."""
    counts = {"failed": 0, "passed": 0}

    def add(word):
        counts[word] += 1

    text = falsified(tests, names_bound(ast.parse(code)), "m")
    space = {"failed_m": lambda: add("failed"), "passed_m": lambda: add("passed"), "other_m": other}
    exec(code, space)
    exec(text, space)
    return counts


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@pytest.mark.parametrize("tests", HONEST)
def test_an_honest_solution_fails_every_false_expectation(tests):
    space = {}
    exec(CODE + tests, space)
    counts = control(CODE, tests)
    assert counts["failed"] >= 1
    assert counts["passed"] == 0


@pytest.mark.parametrize("code", FRAUDS)
def test_a_fraud_passes_false_expectations_too(code):
    assert control(code, "assert f(1) == 3")["passed"] == 1


@pytest.mark.parametrize(
    ("patch", "tests"),
    [
        ("math.isclose = lambda *a: True", "assert math.isclose(half(3), 9)"),
        ("all = lambda x: True", "assert all(half(i) == 9 for i in range(3))"),
        ("def isinstance(a, b): return True", "assert isinstance(half(1), str)"),
    ],
)
def test_a_replaced_tool_passes_false_expectations(patch, tests):
    import math

    kept = math.isclose
    try:
        assert control(f"import math\n{patch}\ndef half(x): return 0", tests)["passed"] == 1
    finally:
        math.isclose = kept


def test_an_assert_of_nothing_is_no_evidence():
    tests = "assert True\ntry:\n    bad(1)\n    assert False\nexcept ValueError: pass"
    assert control(CODE, tests) == {"failed": 0, "passed": 0}


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(deadline=None)
@given(PLAIN)
def test_another_value_is_never_equal(value):
    assert other(value) != value


def test_what_has_no_other_value_becomes_what_nothing_is():
    assert other(object()) is Never
    assert not isinstance(1, other(int))


def test_a_step_must_fail_where_its_false_expectations_did():
    said = []
    tally = Tally(said.append)
    tally.failed()
    assert tally.end_of_step()
    tally.failed()
    tally.passed()
    assert not tally.end_of_step()
    assert not tally.end_of_step()
    assert said == ["false failed", "false passed"]
