"""normal.py: what two texts or functions may differ in and still be the same."""

from __future__ import annotations

import ast
import builtins
import textwrap
from keyword import iskeyword

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray.decontamination.normal import (
    asserted,
    bare,
    bodies,
    outline,
    plain_tokens,
    prose,
    quoted_blocks,
    shape_of,
)
from selfalign_ray.validation.definitions import parse


def shapes(code: str) -> list[tuple[str, bytes]]:
    tree = parse(code)
    assert tree is not None
    found = [shape_of(name, node) for name, node, _ in bodies(tree)]
    return [(shape.name, shape.digest) for shape in found if shape is not None]


BASE = """
def clip(values: list[int], low: int = 0) -> list[int]:
    '''Clip them.'''
    found = []
    for value in values:
        if value > low and len(values) > 2:
            found.append(value * 2)
    return found
"""


@pytest.mark.parametrize(
    "other",
    [
        BASE.replace("values", "numbers").replace("low", "least").replace("clip", "f"),
        BASE.replace("'''Clip them.'''\n", "# no docstring\n"),
        BASE.replace(": list[int]", "").replace(" -> list[int]", ""),
        BASE.replace("> 2", "> 17"),
        BASE.replace("found = []", "found: list[int] = []"),
        BASE.replace("def clip", "async def clip"),
        "@cache\n" + BASE.strip(),
        BASE.replace("    ", "\t"),
    ],
)
def test_functions_of_one_shape(other: str) -> None:
    assert shapes(other)[0][1] == shapes(BASE)[0][1]


@pytest.mark.parametrize(
    "other",
    [
        BASE.replace("len(values)", "sum(values)"),
        BASE.replace(" and ", " or "),
        BASE.replace("append", "extend"),
        BASE.replace("value > low", "low > value"),
        BASE.replace("return found", "return values"),
        BASE.replace("> 2", "> 2.0"),
        BASE.replace("low: int = 0", "low: int = None"),
        BASE.replace("    return found", "    found.sort()\n    return found"),
    ],
)
def test_functions_of_another_shape(other: str) -> None:
    assert shapes(other)[0][1] != shapes(BASE)[0][1]


BOUND = """
def {0}(values, *{1}):
    with open(values[0]) as {2}, open(values[1]) as ({3}, *{4}):
        for {5} in {2}:
            pass
    try:
        {6} = [{7} + len({7}) for {7} in {1}]
    except OSError as {8}:
        del {6}
    def {9}({10}=1):
        nonlocal {6}
        return ({11} := {10}) + {9}({0})
    match values:
        case [{12}, *{13}]:
            {14}: int = lambda {15}: {15}
        case {{"a": 1, **{16}}}:
            {17} += 1
    class {18}: pass
    return sorted({11})
"""
OTHERS = [f"v{n}" for n in range(19)]
FREE = sorted(name for name in dir(builtins) if name.isidentifier() and not iskeyword(name))
FREE = [name for name in FREE if name not in ("open", "len", "OSError", "int", "sorted")]


@given(st.permutations(FREE))
def test_a_variable_named_like_a_builtin_is_a_variable(names: list[str]) -> None:
    assert shapes(BOUND.format(*names))[0][1] == shapes(BOUND.format(*OTHERS))[0][1]


def test_true_is_not_one() -> None:
    assert shapes("def f(): return True")[0][1] != shapes("def f(): return 1")[0][1]


SAME = [  # statements that a shape does not tell apart
    ["a = []", "a: list[int] = []"],
    ["", "a: list[int]", "b.c: int"],
    ["for x in a: pass", "async for x in a: pass"],
    ["with a: pass", "async with a: pass"],
    ["def g(): pass", "async def g(): pass", "@a\ndef g() -> int: pass"],
    ["return a + 1", "return a + 2"],
    ["a += 1"],
]
PAIRS = st.sampled_from(SAME).flatmap(lambda same: st.tuples(*[st.sampled_from(same)] * 2))


@settings(deadline=None)
@given(st.lists(PAIRS, max_size=4), st.sampled_from(["", "'Says.'"]))
def test_equal_shapes_have_equal_outlines(pairs: list[tuple[str, str]], docstring: str) -> None:
    found = []
    for statements in ([docstring, *(one for one, _ in pairs)], [other for _, other in pairs]):
        body = textwrap.indent("\n".join([*statements, "pass"]), "    ")
        tree = parse(f"async def f(a, b):\n{body}")
        assert tree is not None
        name, node, own = next(each for each in bodies(tree) if each[1] is tree.body[0])
        found.append((shape_of(name, node), outline(own)))
    assert found[0] == found[1]


def test_functions_are_found_wherever_statements_are() -> None:
    code = """
class A:
    def method(self): return 1
if x:
    def branch(): return 1
else:
    try:
        async def tried(): return 1
    except E:
        def handled():
            def nested(): return 1
            return nested
match x:
    case 1:
        def matched(): return 1
"""
    names = {name for name, _ in shapes(code)}
    assert names == {"method", "branch", "tried", "handled", "nested", "matched", ""}


def test_a_script_is_compared_without_its_imports_and_definitions() -> None:
    script = "import sys\nn = int(input())\nprint(n * 2)\n"
    other = "from sys import stdin\ndef f(): pass\nm = int(input())\nprint(m * 3)\n"
    assert dict(shapes(script))[""] == dict(shapes(other))[""]
    assert "" not in dict(shapes("import sys\ndef f(): pass"))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("def has_close(X1):", ["def", "has", "close", "x1"]),
        ('"split" "strings"', ["split", "strings"]),
        ("\u0441l\u043es\u0435", ["close"]),  # three Cyrillic letters
        ("c\u200bl\u00ado\u0301se", ["close"]),  # invisible ones and an accent
        ("\uff43\uff4c\uff4f\uff53\uff45", ["close"]),  # full width
        ("\U0001d41c\U0001d425\U0001d428\U0001d42c\U0001d41e", ["close"]),  # mathematical bold
        ("\u95b2\u8f72 x", ["\u95b2\u8f72", "x"]),
        ("", []),
    ],
)
def test_tokens_whatever_the_letters_look_like(text: str, tokens: list[str]) -> None:
    assert plain_tokens(text) == tokens


def test_comments_and_quoted_blocks_are_aside_but_strings_are_not() -> None:
    code = 'def f():\n    """Doc # not."""\n    # note "\n    return "a # b" + \'"""\'\n'
    assert plain_tokens(bare(code)) == ["def", "f", "return", "a", "b"]
    assert quoted_blocks(code)[0] == "Doc # not."


def test_what_a_test_asserts_is_left_without_messages_comments_and_frame() -> None:
    test = """
METADATA = {'author': 'x'}
def check(f):
    # Simple cases
    for n in (1, 2):
        assert f(n)  # both
    assert f(3) == [
        3], "Test 3: " + str(f(3))
    assert True, "This prints"
"""
    assert plain_tokens(asserted(test)) == ["assert", "f", "n", "assert", "f", "3", "3"]
    assert asserted("def f(:") == ""
    assert asserted("\ufeffassert f(3) == 3") == "assert f(3) == 3"


@pytest.mark.parametrize(
    "example",
    [
        ">>> f(1)\n2",
        "Example: f(1) is 2",
        "For example, 1 gives 2.",
        "-----Examples-----\n1",
        "Sample Input 1:\n1",
        "e.g. 1 gives 2",
        "assert f(1) == 2",
        "f([1, 2]) ==> 3",
        "* f('a') -> 3",
        "for f() == 3",
    ],
)
def test_prose_ends_where_examples_begin(example: str) -> None:
    task = " Say what f(x) is,\nf(x) = x + 1 and\nexampled samples left.\n"
    assert prose(f"{task}    {example}\nMore.") == task
    assert prose(task) == task


@settings(deadline=None)
@given(st.text("\"'#\\\n ab(", max_size=80))
def test_no_text_raises(text: str) -> None:
    bare(text)
    quoted_blocks(text)
    plain_tokens(text)
    asserted(text)
    assert text.startswith(prose(text))
    tree = parse(text)
    for name, node, body in bodies(tree) if tree else ():
        outline(body)
        shape_of(name, node)


def test_code_that_is_nested_too_deeply_has_no_shape() -> None:
    deep = ast.parse("def f():\n    return 1")
    node: ast.expr = ast.Constant(1)
    for _ in range(5_000):
        node = ast.UnaryOp(ast.USub(), node)
    deep.body[0].body = [ast.Return(node)]  # type: ignore[attr-defined]
    assert shape_of("f", deep) is None
