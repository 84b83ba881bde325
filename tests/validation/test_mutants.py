"""mutants.py: one change each, in another place and of another kind where there are any."""

from __future__ import annotations

import ast
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray.validation.definitions import parse
from selfalign_ray.validation.mutants import mutants, mutations, written
from tests.validation.programs import benign, human_eval

CODE = '''
def price(items: list[int], limit: int = 10) -> int:
    """Sum up to the limit."""
    total = 0
    for item in items[1:]:
        if item > limit and total != 3:
            raise ValueError("too much: 7")
        total += item * 2
    print("total", 3)
    return total if total else -1
'''
PROGRAMS = [code for code, _ in (*benign(), *human_eval())]


def of_kind(code: str, kind: str) -> set[str]:
    tree = ast.parse(code)
    return {written(tree, m) for m in mutations(tree) if m.kind == kind}


@pytest.mark.parametrize(
    ("kind", "code", "expected"),
    [
        ("comparison", "a < b", {"a >= b"}),
        ("boundary", "a < b", {"a <= b"}),
        ("boundary", "range(a, b, 2)", {"range(a + 1, b, 2)", "range(a, b + 1, 2)"}),
        ("boundary", "a[1:b]", {"a[2:b]", "a[1:b + 1]"}),
        ("boundary", "a[b - 1:None]", set()),
        ("comparison", "a in b is c", {"a not in b is c", "a in b is not c"}),
        ("arithmetic", "a + b * c", {"a - b * c", "a + b // c"}),
        ("arithmetic", "a %= b", {"a //= b"}),
        ("arithmetic", "'a' + b", set()),
        ("arithmetic", "'%d' % b", set()),
        ("constant", "f(1, 2.5, 'a', b'a', True, None, ...)", {
            "f(2, 2.5, 'a', b'a', True, None, ...)", "f(1, 3.5, 'a', b'a', True, None, ...)",
            "f(1, 2.5, 'ax', b'a', True, None, ...)", "f(1, 2.5, 'a', b'ax', True, None, ...)",
            "f(1, 2.5, 'a', b'a', False, None, ...)"}),
        ("constant", "x: int = 1", {"x: int = 2"}),
        ("constant", "print('a')\nlog.info(1)\nf'{x:>3} a'\n'text'", set()),
        ("branch", "a if b else c", {"a if not b else c"}),
        ("branch", "while a:\n    pass", set()),
        ("return", "def f():\n    return 1", {"def f():\n    return"}),
        ("return", "def f():\n    return None", set()),
    ],
)  # fmt: skip
def test_each_kind(kind: str, code: str, expected: set[str]) -> None:
    assert of_kind(code, kind) == expected


def test_what_no_test_can_notice_is_left_alone() -> None:
    for mutant in mutants(ast.parse(CODE), 100, random.Random(1)):
        for kept in ("Sum up to the limit.", "too much: 7", "print('total', 3)", "list[int]"):
            assert kept in mutant.code


@pytest.mark.parametrize(
    "code",
    [
        "@lru_cache(maxsize=128)\ndef f():\n    pass",
        "@retry(times=3, delay=0.5)\nclass A:\n    pass",
        "class P(namedtuple('P', 'x y')):\n    pass",
        "a: Ge(0)",
        "def f(a: Gt(1)) -> Lt(2):\n    pass",
        "assert a, 'is {}'.format(a)",
        "logger.log(10, 'done')\nlog('done', 1)",
    ],
)
def test_calls_where_no_test_can_look_are_left_alone(code: str) -> None:
    assert list(mutations(ast.parse(code))) == []


def test_a_logarithm_is_no_message() -> None:
    assert of_kind("y = math.log(x + 1, 2)", "arithmetic") == {"y = math.log(x - 1, 2)"}
    assert of_kind("y = log(x, 2)", "constant") == {"y = log(x, 3)"}


def test_mutants_are_spread_over_kinds_and_statements() -> None:
    found = mutants(ast.parse(CODE), 6, random.Random(3))
    assert {m.kind for m in found} == {
        "comparison", "boundary", "arithmetic", "constant", "return", "branch",
    }  # fmt: skip
    code = "def f(x):\n" + "".join(f"    x{i} = {i}\n" for i in range(8))
    assert len({m.place for m in mutants(ast.parse(code), 8, random.Random(3))}) == 8


def test_the_draw_depends_on_the_generator_alone() -> None:
    draws = [[m.code for m in mutants(ast.parse(CODE), 5, random.Random(s))] for s in (1, 1, 2)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_windows_line_ends_make_the_same_mutants() -> None:
    trees = [ast.parse(CODE), ast.parse(CODE.replace("\n", "\r\n"))]
    one, other = (mutants(tree, 20, random.Random(1)) for tree in trees)
    assert one == other


def differences(one: object, other: object) -> int:
    """How many nodes, the highest that differ, two trees do not share."""
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return 1
        return sum(differences(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, ast.AST) and type(one) is type(other):
        return sum(
            differences(getattr(one, name, None), getattr(other, name, None))
            for name in one._fields
        )
    return int(type(one) is not type(other) or one != other)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(PROGRAMS), st.integers(0, 2**32))
def test_every_mutant_is_a_program_that_differs_by_one_node(code: str, seed: int) -> None:
    tree = parse(code)
    assert tree is not None
    text = ast.unparse(tree)
    before = ast.parse(text)
    found = mutants(tree, 12, random.Random(seed))
    assert len({m.code for m in found}) == len(found)
    for mutant in found:
        assert differences(before, ast.parse(mutant.code)) == 1, mutant
    assert ast.unparse(tree) == text, "the tree has to be as it was"


def test_a_tree_that_is_too_deep_says_so() -> None:
    deep = ast.Name("x")
    for _ in range(5_000):
        deep = ast.UnaryOp(ast.Not(), deep)
    with pytest.raises(RecursionError):
        mutants(ast.Module([ast.Expr(deep)], []), 3, random.Random(1))
