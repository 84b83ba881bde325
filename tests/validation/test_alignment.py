from __future__ import annotations

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray.validation.alignment import asked_by, unmet_by


def asked(instruction: str) -> list[str]:
    return [str(one) for one in asked_by(instruction)]


def unmet(instruction: str, code: str) -> list[str]:
    return [str(one) for one in unmet_by(ast.parse(code), asked_by(instruction))]


@pytest.mark.parametrize(
    ("instruction", "found"),
    [
        ("Write a function `add`.", ["function add"]),
        (
            "Write a function `add(a, b: int = 0, *rest)`.",
            ["function add", "parameter a", "parameter b", "parameter rest"],
        ),
        ("Write a function add_all(numbers) in Python.", ["function add_all", "parameter numbers"]),
        ("Implement the function total_cost below.", ["function total_cost"]),
        ("Write a function named solve.", ["function solve"]),
        ('The function is for sums. It should be called "sum_of".', ["function sum_of"]),
        ("Write a method, which is called flatten, for lists.", ["function flatten"]),
        (
            "Create a class named Cache with methods `get` and `put`.",
            ["function get", "function put", "class Cache"],
        ),
        ("Define the class LruCache(size).", ["class LruCache"]),
        ("Implement `Stack` as a class.", ["class Stack"]),
        (
            "It has the parameters `first`, `second` and `third`.",
            ["parameter first", "parameter second", "parameter third"],
        ),
        ("The `limit` parameter is optional.", ["parameter limit"]),
        ("It takes a list `rows` and returns `True`.", ["parameter rows"]),
        ("It returns a new list.", ["returns list"]),
        ("It returns a list, and for one row it returns a string.", []),
        ("Do so without using recursion.", ["without recursion"]),
        ("Do not use `sorted()` or any loops.", ["without sorted", "without loops"]),
        ("You must not use the re module.", ["without re"]),
        ("Avoid external libraries, as `add` does.", ["without other libraries"]),
        ("Do not use `collections.Counter` but a dict.", ["without Counter"]),
    ],
)
def test_what_is_asked_for_by_name_is_found(instruction: str, found: list[str]) -> None:
    assert asked(instruction) == found


@pytest.mark.parametrize(
    "instruction",
    [
        "",
        "Write a function that is simple to use.",
        "Write a class of functions which is called often.",
        "The function called with 3 returns 5.",
        "Call the function once. The class is empty.",
        "Do not use the function `eval_all`.".replace("use", "return"),
        "It returns the number of words.",
        "Do not worry about loops.",
        "Здесь ничего не названо.",
    ],
)
def test_prose_that_names_nothing_asks_for_nothing(instruction: str) -> None:
    assert [one for one in asked(instruction) if not one.startswith("function eval")] == []


def test_a_thing_asked_for_twice_is_one() -> None:
    assert asked("Write a function `f`. The function `f` is fast.") == ["function f"]


@pytest.mark.parametrize(
    ("instruction", "code", "missing"),
    [
        ("a function `add(a, b)`", "def add(a, b): ...", []),
        ("a function `add(a, b)`", "def add(a, c): ...", ["parameter b"]),
        ("a function `add(a, b)`", "def plus(a, b): ...", ["function add"]),
        ("a function `add`", "add = lambda a: a", []),
        ("a function `add`", "class Sum:\n    def add(self): ...", []),
        ("a class named Sum", "class Sum: ...", []),
        ("a class named Sum", "def Sum(): ...", ["class Sum"]),
        ("a function `f` that returns a list", "def f() -> list[int]: ...", []),
        ("a function `f` that returns a list", "def f(): ...", []),
        ("a function `f` that returns a list", "def f() -> 'typing.List | None': ...", []),
        ("a function `f` that returns a list", "def f() -> Optional[List[int]]: ...", []),
        ("a function `f` that returns a list", "def f() -> T: ...", []),
        ("a function `f` that returns a list", "def f() -> dict: ...", ["returns list"]),
        ("a function `f` that returns a string", "def f() -> int: ...", ["returns string"]),
        ("without recursion", "", []),
        ("without using recursion", "def f(n): return f(n - 1)", ["without recursion"]),
        ("without using recursion", "def f(n): return g(n - 1)", []),
        ("avoid using loops", "while x: ...", ["without loops"]),
        ("avoid using loops", "[x for x in y]", []),
        ("do not use list comprehensions", "[x for x in y]", ["without comprehensions"]),
        ("do not use `sorted`", "sorted(x)", ["without sorted"]),
        ("do not use `sorted`", "def sorted(x): ...\nsorted(1)", []),
        ("do not use `sort`", "x.sort()", ["without sort"]),
        ("do not use the math module", "import math", ["without math"]),
        ("do not use `math.prod`", "from math import prod", ["without prod"]),
        ("do not use external libraries", "import os, json.decoder", []),
        ("do not use external libraries", "import numpy as np", ["without other libraries"]),
        (
            "without using regular expressions",
            "from re import sub",
            ["without regular expressions"],
        ),
        ("without using any imports", "import os", ["without imports"]),
        ("do not use global variables", "def f():\n    global x", ["without global variables"]),
        ("do not use lambdas", "f(lambda: 1)", ["without lambdas"]),
    ],
)
def test_what_the_code_lacks_or_has_although_forbidden_is_unmet(
    instruction: str, code: str, missing: list[str]
) -> None:
    assert unmet(instruction, code) == missing


_WORDS = st.sampled_from(
    ["function", "class", "named", "called", "`", "'", "(", ")", "a", "x_y", "Foo", "parameters",
     "and", ",", ".", "returns", "a", "list", "do not use", "without using", "loops", "`f(`", "it",
     "should be", "takes", "\n", "`f(a=)`", "write", "`f(a, a)`"]
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(_WORDS, max_size=40).map(" ".join) | st.text())
def test_any_instruction_is_read(instruction: str) -> None:
    found = asked_by(instruction)
    assert len(set(found)) == len(found)
    wanted = [one for one in found if one.kind != "without" and one.kind != "returns"]
    assert set(wanted) <= set(unmet_by(ast.parse(""), found))


def test_a_long_instruction_is_read_in_time_of_its_length() -> None:
    for part in ("`a`, ", "named ", "takes `x` ", "do not use ", "a function ", "( "):
        asked_by(part * 20_000)
