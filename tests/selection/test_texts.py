from __future__ import annotations

import ast
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray.selection.texts import (
    Block,
    blocks_of,
    comments_of,
    has_stub,
    remove_comments,
    unix_lines,
    without_tests,
)

TESTS = "assert f() == 1"
HEADING = re.compile(r"^[ \t]*\#\ Tests[ \t]*:?[ \t]*$", re.MULTILINE)

# Texts of what a model may write, and of nothing in particular.
_PIECES = st.sampled_from(
    [
        "```",
        "```python",
        "```text",
        "# Tests",
        "# note",
        "def f():",
        "    return 1  # one",
        "    pass",
        "x = '''",
        "x = '#'",
        "x = (1,  # one",
        "2)",
        "\\",
        "",
        "\t",
        "assert f() == 1",
        "\x0c",
        "if x:",
    ]
)
TEXTS = st.lists(_PIECES, max_size=12).map("\n".join) | st.text(max_size=80)


def split(text: str, *, cut: bool = False) -> tuple[str, str | None]:
    return without_tests(text, HEADING, cut=cut)


def test_the_heading_may_stand_in_the_solutions_fence() -> None:
    text = f"```python\ndef f(): return 1\n\n# Tests\n{TESTS}\n```"
    assert split(text) == ("```python\ndef f(): return 1\n```", None)


def test_the_heading_may_stand_above_the_tests_fence() -> None:
    text = f"So:\n```python\ndef f(): return 1\n```\nDone.\n\n# Tests\n```python\n{TESTS}\n```\n"
    assert split(text) == ("So:\n```python\ndef f(): return 1\n```\nDone.", None)


def test_the_heading_may_stand_in_the_tests_fence() -> None:
    text = f"```python\ndef f(): return 1\n```\n```python\n# Tests\n{TESTS}\n```"
    assert split(text) == ("```python\ndef f(): return 1\n```", None)


def test_a_fence_that_the_tests_leave_open_is_fine_unless_the_text_was_cut() -> None:
    text = f"```python\ndef f(): return 1\n# Tests\n{TESTS}\n"
    assert split(text) == ("```python\ndef f(): return 1\n```", None)
    assert split(text, cut=True) == ("", "bad_fence")
    assert split(text + "```", cut=True)[1] is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("```python\ndef f(): return 1\n```", "no_tests"),
        ("", "no_tests"),
        (f"```python\nx = 1\n# Tests\n{TESTS}\n# Tests\n{TESTS}\n```", "two_test_sections"),
        (f"```python\nx = 1\n# Tests\n{TESTS}\n```\n```python\n{TESTS}\n```", "two_test_sections"),
        (f"```\nx = 1\n```\n# Tests\n```\n{TESTS}\n```\n```\n{TESTS}", "two_test_sections"),
        (f"```python\nx = 1\n# Tests\n```python\n{TESTS}\n```", "bad_fence"),
        (f"```python\nx = 1\n```python\ny = 1\n# Tests\n{TESTS}\n```", "bad_fence"),
        (f"```python\nx = 1\n# Tests\n{TESTS}\n```\nThis prints:\n```text\n1\n```", None),
    ],
)
def test_sections_and_fences_are_checked(text: str, reason: str | None) -> None:
    assert split(text)[1] == reason


@settings(deadline=None)
@given(TEXTS, st.booleans())
def test_a_split_text_has_whole_fences_and_no_tests(text: str, cut: bool) -> None:
    above, reason = split(text, cut=cut)
    assert reason in (None, "no_tests", "two_test_sections", "bad_fence")
    if reason is None:
        assert HEADING.search(above) is None
        assert sum(block.language is not None for block in blocks_of(above)) * 2 == len(
            re.findall(r"^[ \t]*```[ \t]*[\w+-]*[ \t]*$", above, re.MULTILINE)
        )


def test_blocks_are_prose_and_fences_in_turn() -> None:
    text = "Hello\n```Python\nx = 1\n```\nthen\n```text\n1\n```"
    assert [b for b in blocks_of(text) if b.content.strip()] == [
        Block("Hello\n", None),
        Block("x = 1\n", "Python"),
        Block("then\n", None),
        Block("1\n", "text"),
    ]


def test_a_block_writes_its_fence_again() -> None:
    assert Block("\n\nx = 1\n\n", "py").text == "```python\nx = 1\n```"
    assert Block("1\n", "text").text == "```text\n1\n```"
    assert Block("prose", None).text == "prose"


@given(st.text(max_size=50))
def test_unix_lines_have_no_carriage_return_and_stay(text: str) -> None:
    assert "\r" not in unix_lines(text)
    assert unix_lines(unix_lines(text)) == unix_lines(text)
    assert unix_lines("a\r\nb\rc\n") == "a\nb\nc\n"


def test_comments_go_and_strings_stay() -> None:
    code = (
        "# head\n"
        "def f(a,  # the first\n"
        "      b):\n"
        "    # note\n"
        "    return '# no comment'  # done\n"
        "'''\n# in a string\n'''"
    )
    assert remove_comments(code) == (
        "def f(a,\n      b):\n    return '# no comment'\n'''\n# in a string\n'''"
    )
    assert comments_of(code) == ["# head", "# the first", "# note", "# done"]


@pytest.mark.parametrize("code", ["x = (1  # open", "def f(:  # no", "'''# open", "if x:\n# y"])
def test_code_that_cannot_be_read_keeps_its_comments(code: str) -> None:
    assert remove_comments(code) == code


@settings(deadline=None)
@given(TEXTS)
def test_removing_comments_changes_no_tree_and_is_done_once(text: str) -> None:
    bare = remove_comments(text)
    assert remove_comments(bare) == bare
    try:
        tree = ast.dump(ast.parse(text))
    except (SyntaxError, ValueError):
        assert bare == text
    else:
        assert ast.dump(ast.parse(bare)) == tree


@pytest.mark.parametrize("body", ["pass", "...", "'''Doc.'''", "'''Doc.'''\n    pass"])
def test_a_function_without_a_body_is_a_stub(body: str) -> None:
    assert has_stub(f"def f():\n    {body}")
    assert has_stub(f"class A:\n    def f(self):\n        {body.replace('    ', '        ')}")
    assert has_stub(f"def g():\n    return 1\nasync def f():\n    {body}")


@pytest.mark.parametrize(
    "code",
    [
        "def f():\n    return 1",
        "class Error(Exception):\n    pass",
        "class A:\n    def __init__(self):\n        pass",
        "class A(ABC):\n    @abstractmethod\n    def f(self): ...",
        "class A(ABC):\n    @abc.abstractmethod\n    def f(self): pass",
        "class A(Protocol):\n    def f(self): ...",
        "class A(typing.Protocol[T]):\n    def f(self): ...",
        "@overload\ndef f(a: int) -> int: ...\ndef f(a): return a",
        "class A:\n    def f(self):\n        raise NotImplementedError",
        "def f():\n    def skip(): pass\n    return skip",
        "def f():\n    raise ValueError",
        "def f(:",
    ],
)
def test_what_needs_no_body_is_no_stub(code: str) -> None:
    assert not has_stub(code)


def test_not_implemented_is_a_stub_outside_of_classes() -> None:
    assert has_stub("def f():\n    raise NotImplementedError")
    assert has_stub("def f():\n    'Doc.'\n    raise NotImplementedError('later')")


@settings(deadline=None)
@given(TEXTS)
def test_no_text_raises(text: str) -> None:
    has_stub(text)
    comments_of(text)
    list(blocks_of(text))
