import ast

import pytest

from selfalign_ray.sandbox.suite import future_flags, steps


def counted(source):
    return [step.source() for step in steps(ast.parse(source)) if step.test]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("assert f(1) == 2\nassert f(2) == 3", 2),
        ("import math\nx = 1\ndef g(): pass\n'text'\nassert x", 1),
        ("for i in range(3):\n    assert f(i)", 1),
        ("check(f)", 1),
        ("print('done')", 0),
        ("try:\n    f()\nexcept ValueError:\n    pass", 1),
        ("if __name__ == '__main__':\n    unittest.main()", 1),
        ("", 0),
    ],
)
def test_counts_what_is_no_definition(source, expected):
    assert len(counted(source)) == expected


def test_calls_test_functions_that_nothing_calls():
    source = "def test_a(): pass\ndef test_b(): pass\ndef test_c(fixture): pass\ntest_b()"
    assert counted(source) == ["test_b()", "test_a()"]


def test_runs_asynchronous_test_functions():
    assert counted("async def test_a(): pass") == ["__import__('asyncio').run(test_a())"]


def test_runs_test_cases_that_no_runner_is_called_for():
    case = "class A(unittest.TestCase):\n    def test(self): pass\n"
    assert counted(case) == ["__import__('unittest').main(defaultTest='A')"]
    assert counted(case + "unittest.main()") == ["unittest.main()"]


def test_calls_the_methods_of_test_classes():
    source = "class TestA:\n    def test_x(self): pass\n    def helper(self): pass"
    assert counted(source) == ["TestA().test_x()"]


def test_a_long_statement_is_shown_in_one_bounded_line():
    [line] = counted("assert f([" + "1, " * 500 + "])")
    assert len(line) == 203
    assert line.endswith("...")


def test_future_imports_hold_for_every_step():
    import __future__

    flag = future_flags(ast.parse("from __future__ import annotations\nassert 1"))
    assert flag == __future__.annotations.compiler_flag
