import ast

import pytest

from selfalign_ray.sandbox.suite import changes_made, future_flags, main_guard, steps


def counted(source):
    return [step.source() for step in steps(ast.parse(source)) if step.test]


def ran(source):
    space = {"pytest": pytest, "out": []}
    for step in steps(ast.parse(source)):
        exec(compile(ast.Module([step.node], []), "x", "exec"), space)
    return space["out"]


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
    source = "def test_a(): pass\ndef test_b(): pass\ntest_b()"
    assert counted(source) == ["test_b()", "test_a()"]


def test_a_test_whose_arguments_nobody_gives_is_called_all_the_same():
    assert counted("def test_c(fixture): pass") == ["test_c()"]


def test_parametrized_tests_are_called_with_each_case():
    source = (
        "@pytest.mark.parametrize('a, b', [(1, 2), (3, 4)])\ndef test_x(a, b): out.append((a, b))"
    )
    assert ran(source) == [(1, 2), (3, 4)]
    one = "@pytest.mark.parametrize('a', [1, pytest.param(2)])\n"
    more = "@pytest.mark.parametrize(['b'], [[5], [6]])\ndef test_x(a, b): out.append((a, b))"
    assert sorted(ran(one + more)) == [(1, 5), (1, 6), (2, 5), (2, 6)]


@pytest.mark.parametrize("given", ["'a', argvalues=[1, 2]", "argvalues=[1, 2], argnames='a'"])
def test_parameters_may_be_given_by_keyword(given):
    assert ran(f"@pytest.mark.parametrize({given})\ndef test_x(a): out.append(a)") == [1, 2]


@pytest.mark.parametrize(
    "given",
    ["'a'", "*two", "'a', *two", "**both", "'a', []", "'a', (n for n in ())", "'a', none or []"],
)
def test_a_test_of_which_no_case_can_be_run_fails(given):
    space = "two, both, none = ('a', [1]), {'argnames': 'a', 'argvalues': [1]}, ()\n"
    source = f"{space}@pytest.mark.parametrize({given})\ndef test_x(a): pass"
    with pytest.raises((TypeError, KeyError)):
        ran(source)
    with pytest.raises((TypeError, KeyError)):
        ran(source.replace("@", "@pytest.mark.parametrize('b', [1])\n@").replace("(a)", "(a, b)"))


def test_a_test_that_yields_fails_as_a_call_of_it_runs_nothing():
    for source in ("def test_x():\n    yield", "class TestA:\n    def test_x(self): yield from ()"):
        with pytest.raises(TypeError, match="test_x yields"):
            ran(source)
    assert ran("def test_x():\n    def f(): yield 1\n    out.extend(f())") == [1]
    assert not counted("def pairs():\n    assert x\n    yield 1")


def test_fixtures_are_made_for_the_tests_that_name_them():
    source = (
        "@pytest.fixture\ndef base(): return 2\n@pytest.fixture()\ndef box(base): yield [base]\n"
        "class TestBox:\n    def setup_method(self): self.y = 7\n"
        "    def test_x(self, box): out.append((box, self.y))\n"
        "def test_path(tmp_path): out.append(tmp_path.is_dir())"
    )
    assert ran(source) == [([2], 7), True]


def test_a_fixture_is_not_taken_down_before_its_test():
    source = (
        "@pytest.fixture\ndef box():\n    kept = [1]\n"
        "    try: yield kept\n    finally: kept.clear()\n"
        "@pytest.fixture\ndef bag(box): yield box\n"
        "def test_x(bag, box): out.append((*bag, *box))\n"
        "class TestBox:\n    def setup_method(self): pass\n"
        "    def test_y(self, bag): out.append((*bag,))"
    )
    assert ran(source) == [(1, 1), (1,)]


def test_a_fixture_is_made_once_for_a_test():
    source = (
        "@pytest.fixture\ndef file(tmp_path): return tmp_path / 'a'\n"
        "@pytest.mark.parametrize('n', [1, 2])\n"
        "def test_x(file, n, tmp_path): out.append((file.parent == tmp_path, tmp_path))"
    )
    (first, folder), (second, another) = ran(source)
    assert first
    assert second
    assert folder != another


def test_a_fixture_may_hold_functions_that_yield():
    source = (
        "@pytest.fixture\ndef pairs():\n    def f(): yield 1\n    return f\n"
        "def test_x(pairs): out.extend(pairs())"
    )
    assert ran(source) == [1]


def test_marked_tests_are_skipped():
    assert not counted("@pytest.mark.skip(reason='x')\ndef test_x(): pass")


def test_a_function_with_asserts_that_nothing_calls_is_called():
    assert counted("def checks():\n    assert f() == 1\ndef helper(): pass") == ["checks()"]
    assert counted("def checks():\n    assert f()\nchecks()") == ["checks()"]


def test_pytests_own_start_is_left_out():
    start = "if __name__ == '__main__':\n    import pytest\n    pytest.main([__file__])"
    assert counted(f"def test_a(): pass\n{start}") == ["test_a()"]


def test_imports_under_a_condition_are_no_start_of_pytest():
    assert ran("if out == []:\n    import math\nout.append(math.sqrt(4))") == [2.0]


@pytest.mark.parametrize("test", ["__name__ == '__main__'", "'__main__' == __name__"])
def test_the_main_guard_is_taken_out(test):
    tree = ast.parse(f"x = 1\nif {test}:\n    y = 2\nz = 3")
    guarded = main_guard(tree)
    assert ast.unparse(guarded) == "y = 2"
    assert ast.unparse(tree) == "x = 1\nz = 3"
    assert main_guard(tree) is None


@pytest.mark.parametrize(("script", "rest"), [(False, "x = 3\nz = 4"), (True, "z = 4")])
def test_the_main_guards_alternative_is_for_tests(script, rest):
    tree = ast.parse("if __name__ == '__main__':\n    y = 2\nelse:\n    x = 3\nz = 4")
    assert ast.unparse(main_guard(tree, script=script)) == "y = 2"
    assert ast.unparse(tree) == rest


def test_what_tests_replace_is_known():
    source = "builtins.input = f\nwith patch('time.time'): pass\nmath.isclose(1, 2)"
    assert {"input", "time"} <= changes_made(ast.parse(source))
    assert "isclose" not in changes_made(ast.parse(source))


def test_runs_asynchronous_test_functions():
    assert counted("async def test_a(): pass") == ["__import__('asyncio').run(test_a())"]


def test_runs_test_cases_that_no_runner_is_called_for():
    case = "class A(unittest.TestCase):\n    def test(self): pass\n"
    assert counted(case) == ["__import__('unittest').main(defaultTest='A')"]
    assert counted(case + "unittest.main()") == ["unittest.main()"]


@pytest.mark.parametrize(
    "other",
    [
        "import pytest\nif __name__ == '__main__':\n    pytest.main([__file__])",
        "from pytest import main\nmain([__file__])",
        "x = main('a')",
        "async def main(): pass\nasyncio.run(main())",
        "def run(): unittest.main()",
        "suite = unittest.TestSuite()",
        "loader = unittest.defaultTestLoader",
        "app.main()",
    ],
)
def test_what_is_called_main_elsewhere_runs_no_test_case(other):
    case = "import unittest\nclass A(unittest.TestCase):\n    def test(self): pass\n"
    assert "__import__('unittest').main(defaultTest='A')" in counted(case + other)


@pytest.mark.parametrize(
    "runner",
    [
        "unittest.main()",
        "if __name__ == '__main__':\n    unittest.main(argv=[''], exit=False)",
        "from unittest import main\nmain()",
        "from unittest import main as run_all\nrun_all()",
        "import unittest as u\nu.main()",
        "def main(): unittest.main()\nmain()",
        "unittest.TextTestRunner().run(unittest.TestSuite([A('test')]))",
        "from unittest import TextTestRunner\nTextTestRunner(verbosity=2).run(A('test'))",
    ],
)
def test_a_runner_of_the_tests_own_is_left_to_them(runner):
    case = "import unittest\nclass A(unittest.TestCase):\n    def test(self): pass\n"
    assert "__import__('unittest').main(defaultTest='A')" not in counted(case + runner)


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
