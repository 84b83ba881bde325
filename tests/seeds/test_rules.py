"""rules: each rule on code that just meets it and code that just fails it."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfalign_ray.errors import UserError
from selfalign_ray.seeds.config import QualityConfig
from selfalign_ray.seeds.parsed import Snippet
from selfalign_ray.seeds.rules import fault, glance, is_generated
from selfalign_ray.seeds.syntax import parse

OFF = QualityConfig(
    skip_tests=False,
    skip_generated=False,
    min_lines=0,
    max_lines=None,
    min_parameters=0,
    typed=False,
    returns_value=False,
    min_docstring_words=0,
    summary_line=False,
    described=False,
    banned_words=None,
    min_complexity=None,
    max_complexity=None,
    banned_imports=None,
    dependencies=None,
    self_contained=False,
)

GOOD = '''\
from collections.abc import Sequence


def longest(words: Sequence[str], *, least: int = 0) -> str:
    """The longest of the words, the first of several."""
    found = [word for word in words if len(word) >= least]
    if not found:
        raise ValueError("no word is long enough")
    return max(found, key=len)
'''


def rules(**changes) -> QualityConfig:
    return QualityConfig(**{**vars(OFF), **changes})


def reason(code: str, path: str = "p/a.py", **changes) -> str | None:
    code = dedent(code)
    name = code.rpartition("def ")[2].partition("(")[0]
    return fault(code, name, path, rules(**changes))


def test_a_good_seed_meets_the_rules_of_the_paper(run_config):
    assert fault(GOOD, "longest", "p/a.py", run_config().seeds.quality) is None


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        ("test_f", "a.py", "is_test"),
        ("test", "a.py", "is_test"),
        ("tester", "a.py", None),
        ("testify", "a.py", None),
        ("latest", "a.py", None),
        ("f", "tests/a.py", "is_test"),
        ("f", "p/test/a.py", "is_test"),
        ("f", "p/test_a.py", "is_test"),
        ("f", "p/a_test.py", "is_test"),
        ("f", "p/conftest.py", "is_test"),
        ("f", "p/latest.py", None),
        ("f", "p/contest.py", None),
    ],
)
def test_tests(name, path, expected):
    code = f"def {name}(): return 1"
    assert fault(code, name, path, rules(skip_tests=True)) == expected
    assert fault(code, name, path, OFF) is None


@pytest.mark.parametrize(
    "code",
    [
        "def f(:",
        "def g(): pass",
        "",
        "x = 1",
        "print 'hello'",
        "def f(): return '\0'",
        "def f(): return '\ud800'",
        "def f(a, a): return a",
        "def f(): nonlocal x",
        "def f(): await x",
        "def f(): break",
        "def f(): return " + "-" * 9000 + "1",
        "def f(): return " + "(" * 900,
    ],
)
def test_syntax(code):
    assert fault(code, "f", "a.py", OFF) == "syntax_error"


def test_other_peoples_warnings_are_silent(recwarn):
    assert fault("def f(): return '\\d' is 1", "f", "a.py", OFF) is None
    assert not recwarn.list


FIVE = '''\
import os


@cache
def f(x):

    """Doc."""
    y = x
    return y
'''


def test_lines_are_the_functions_own_and_not_blank():
    assert Snippet(FIVE, "f").lines == 5
    assert reason(FIVE, min_lines=5, max_lines=5) is None
    assert reason(FIVE, min_lines=6) == "too_short"
    assert reason(FIVE, max_lines=4) == "too_long"


@pytest.mark.parametrize(
    ("signature", "count"),
    [
        ("", 0),
        ("self", 0),
        ("cls", 0),
        ("self, x", 1),
        ("x, self", 2),
        ("x", 1),
        ("*args", 1),
        ("**kwargs", 1),
        ("*, x", 1),
        ("x, /, y, *args, z, **kwargs", 5),
        ("x=():", 1),
    ],
)
def test_parameters(signature, count):
    signature = signature.removesuffix(":")
    code = f"def f({signature}): return 1"
    assert reason(code, min_parameters=count) is None
    assert reason(code, min_parameters=count + 1) == "no_parameters"


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        ("(x: int) -> int", None),
        ("(x: int)", "untyped"),
        ("(x) -> int", "untyped"),
        ("(x: int, *args) -> int", "untyped"),
        ("(x: int, **kwargs) -> int", "untyped"),
        ("(x: int, *, y) -> int", "untyped"),
        ("(x, /, y: int) -> int", "untyped"),
        ("(self, x: int) -> int", None),
        ("(x: int, *args: int, y: int, **kwargs: int) -> None", None),
    ],
)
def test_types(signature, expected):
    assert reason(f"def f{signature}: return 1", typed=True) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return 1", None),
        ("return x", None),
        ("return False", None),
        ("if x:\n        return 1", None),
        ("for x in y:\n        while x:\n            return x", None),
        ("try:\n        pass\n    except E:\n        return x", None),
        ("with x:\n        return x", None),
        ("match x:\n        case 1:\n            return x", None),
        ("pass", "no_return_value"),
        ("return", "no_return_value"),
        ("return None", "no_return_value"),
        ("def g():\n        return 1", "no_return_value"),
        ("class C:\n        def g(self):\n            return 1", "no_return_value"),
        ("g = lambda: 1", "no_return_value"),
        ("yield 1", "no_return_value"),
        ("x = yield\n    return x", "no_return_value"),
        ("yield from x\n    return 1", "no_return_value"),
        ("def g():\n        yield 1\n    return g", None),
    ],
)
def test_return_value(body, expected):
    assert fault(f"def f(x):\n    {body}\n", "f", "a.py", rules(returns_value=True)) == expected


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("pass", "no_docstring"),
        ("x = 'a b c'", "no_docstring"),
        ("''", "no_docstring"),
        ("'  '", "no_docstring"),
        ("b'a b c'", "no_docstring"),
        ("f'a b c'", "no_docstring"),
        ("'two words'", "short_docstring"),
        ("'--- -- --'", "short_docstring"),
        ("'now three words'", None),
        ("'''Now:\n\n    three.words'''", None),
    ],
)
def test_docstring(docstring, expected):
    code = f"def f():\n    {docstring}\n"
    assert fault(code, "f", "a.py", rules(min_docstring_words=3)) == expected


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("One sentence.", None),
        ("  One sentence, `quoted.`  ", None),
        ("One sentence.\n\n    And more", None),
        ("\n    On the second line!\n    ", None),
        ("No full stop", "no_summary_line"),
        ("A sentence that goes on\n    for two lines.", "no_summary_line"),
        ("A sentence.\n    Its details follow at once.", "no_summary_line"),
        ("", "no_summary_line"),
    ],
)
def test_summary_lines(docstring, expected):
    code = f'def f():\n    """{docstring}"""\n'
    assert fault(code, "f", "a.py", rules(summary_line=True)) == expected


@pytest.mark.parametrize(
    ("docstring", "body", "expected"),
    [
        ("Return the sum of a and b.", "return a + b", None),
        ("Sum.\n\n    :param a: one\n    :param b: two\n    :returns: a sum", "return a", None),
        ("Args:\n        a: one\n        b: two", "print(a)", None),  # nothing is returned
        ("Return the sum of a and the other.", "return a + b", "undescribed"),
        ("The abs of a and b.", "return a + b", "undescribed"),
        ("Return the abc of a_b and b.", "return a + b", "undescribed"),
    ],
)
def test_what_a_docstring_describes(docstring, body, expected):
    code = f'def f(a, b):\n    """{docstring}"""\n    {body}\n'
    assert fault(code, "f", "a.py", rules(described=True)) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("# TODO: the other half", "banned_word"),
        ("x = 'a BUG'", "banned_word"),
        ("'See (bug).'", "banned_word"),
        ("debug = 1", None),
        ("todo_list = ladybugs = 1", None),
    ],
)
def test_banned_words_are_whole_words(line, expected):
    code = f"def f():\n    {line}\n    return 1\n"
    assert fault(code, "f", "a.py", rules(banned_words=["todo", "bug"])) == expected


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [(3, 3, None), (4, None, "too_simple"), (None, 2, "too_complex"), (None, None, None)],
)
def test_complexity(least, most, expected):
    code = "def f(x):\n    if x:\n        return 1\n    return [y for y in x]\n"
    setting = rules(min_complexity=least, max_complexity=most)
    assert fault(code, "f", "a.py", setting) == expected
    in_class = "class A:\n    " + code.replace("\n", "\n    ")
    assert fault(in_class, "A", "a.py", setting) == expected
    assert fault(in_class, "A.f", "a.py", setting) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("# Generated by the compiler. Change its input instead.\n", True),
        ("#!/bin/python\n#\n#   @generated\n", True),
        ("# AUTO-GENERATED FILE\n", True),
        ("x = 1\n# do not edit\n", True),
        ("\n" * 20 + "# do not edit\n", False),
        ("x = 'generated by hand'\n", False),
        ("# Regenerated by nobody; what a program generates.\n", False),
        ("", False),
    ],
)
def test_generated_files_say_so_in_a_comment_at_their_head(content, expected):
    assert is_generated(content) == expected


BANNED = ["socket", "os.system", "http.client", "builtins.open", "pathlib.Path"]


@pytest.mark.parametrize(
    ("code", "banned"),
    [
        ("import socket\ndef f(): return socket", True),
        ("import socket as s\ndef f(): return s", True),
        ("from socket import *\ndef f(): return 1", True),
        ("from socket import create_connection as c\ndef f(): return c", True),
        ("def f():\n    import socket", True),
        ("import socketserver\ndef f(): return socketserver", False),
        ("def f(socket): return socket.recv()", False),
        ("def f(): return 'import socket'", False),
        ("import os\ndef f(): return os.system('x')", True),
        ("import os as o\ndef f(): return o.system", True),
        ("from os import system\ndef f(): return system", True),
        ("from os import system as s\ndef f(): return s", True),
        ("import os\ndef f(): return os.path.join('a')", False),
        ("from os import path\ndef f(): return path.join('a')", False),
        # What a dotted import binds is its first part.
        ("import os.path\ndef f(): return os.system('x')", True),
        ("import os, os.path\ndef f(): return os.system('x')", True),
        ("import os.path\nimport os\ndef f(): return os.system('x')", True),
        ("import os.path\ndef f(): return os.path.join('a')", False),
        ("import os.path as p\ndef f(): return p.join('a')", False),
        ("import os.path as os\ndef f(): return os.system('a')", False),
        ("import http.server\ndef f(): return http.client.X", True),
        ("import http.server as http\ndef f(): return http.client.X", False),
        ("import http.client\ndef f(): return http.client.X", True),
        ("import http\ndef f(): return http.HTTPStatus", False),
        ("from http import client\ndef f(): return client", True),
        ("def f(): return open('x')", True),
        ("def f(open): return open('x')", False),
        ("def f(x): return x.open('x')", False),
        ("import gzip\ndef f(): return gzip.open('x')", False),
        ("from pathlib import Path\ndef f(x: Path): return x", True),
        ("from pathlib import PurePath\ndef f(x: PurePath): return x", False),
    ],
)
def test_banned_imports(code, banned):
    expected = "banned_import" if banned else None
    assert fault(code, "f", "a.py", rules(banned_imports=BANNED)) == expected
    assert fault(code, "f", "a.py", OFF) is None


@pytest.mark.parametrize(
    ("code", "allowed", "foreign"),
    [
        ("import os, json\ndef f(): return os", [], False),
        ("import numpy as np\ndef f(): return np", [], True),
        ("import numpy as np\ndef f(): return np", ["numpy"], False),
        ("from numpy.linalg import norm\ndef f(): return norm", ["numpy"], False),
        ("from . import x\ndef f(): return x", [], True),
        ("from .os import x\ndef f(): return x", [], True),
        ("def f():\n    import numpy", [], True),
        ("from __future__ import annotations\ndef f(): return 1", [], False),
    ],
)
def test_dependencies(code, allowed, foreign):
    expected = "foreign_dependency" if foreign else None
    assert fault(code, "f", "a.py", rules(dependencies=allowed)) == expected


@pytest.mark.parametrize(
    ("code", "resolved"),
    [
        ("def f(x): return len(x)", True),
        ("def f(x): return g(x)", False),
        ("def f(x): return f(x)", True),
        ("import os\ndef f(x): return os", True),
        ("def f(x: Seq): return x", False),
        ("@deco\ndef f(x): return x", False),
        ("def f(x=DEFAULT): return x", False),
        ("def f(x): return [y for y in x]", True),
        ("def f(x): return __name__", True),
        ("def f(x): return __file__", False),
        # What stands in quotes is a name all the same.
        ("def f(x: 'Seq[int]'): return x", False),
        ("def f(x: 'list[int]') -> 'dict[str, int]': return x", True),
        ("from typing import Any\ndef f(x: 'Any'): return x", True),
        ("from typing import Optional\ndef f(x: Optional['Seq']): return x", False),
        ("def f(x) -> 'f': return x", True),
        ("def f(x: 'no name ('): return x", True),
        ("def f(x: 'no name (', y: 'Seq'): return x", False),
        ("from typing import Literal\ndef f(x: Literal['asc', 'a b']): return x", True),
    ],
)
def test_self_contained(code, resolved):
    expected = None if resolved else "unresolved_name"
    assert fault(code, "f", "a.py", rules(self_contained=True)) == expected


PIECES = st.sampled_from(
    [
        *(
            "def f(x):\n",
            "    ",
            "return x",
            "\n",
            "import os\n",
            "from . import b\n",
            "@d\n",
            "yield",
        ),
        *("(", ")", "'", '"""', "\\\n", "é", "\0", "\ud800", "\t", "class C:\n", "async "),
        *("os.path", "lambda: 1"),
    ]
)


@given(st.lists(PIECES, max_size=25).map("".join) | st.text(max_size=80), st.text(max_size=9))
def test_any_text_gets_an_answer(seed, path):
    strict = rules(
        skip_tests=True,
        min_lines=1,
        max_lines=9,
        min_parameters=1,
        typed=True,
        returns_value=True,
        min_docstring_words=1,
        summary_line=True,
        described=True,
        banned_words=["x"],
        min_complexity=1,
        max_complexity=9,
        banned_imports=BANNED,
        dependencies=[],
        self_contained=True,
    )
    for setting in (OFF, strict):
        assert fault(seed, "f", path, setting) == fault(seed, "f", path, setting)


def test_lines_that_contradict(run_config):
    with pytest.raises(UserError, match=r"seeds\.quality\.max_lines: must be at least min_lines"):
        run_config("seeds.quality.min_lines=9", "seeds.quality.max_lines=8")
    with pytest.raises(UserError, match=r"seeds\.quality\.max_complexity: must be at least min_c"):
        run_config("seeds.quality.min_complexity=9", "seeds.quality.max_complexity=8")
    run_config("seeds.quality.min_complexity=9")


CLASS = '''\
class Stack(list):
    """A stack of numbers."""

    def push(self, number: int) -> int:
        """Put a number on top."""
        self.append(number)
        return len(self)

    def clear(self, deep):
        pass
'''


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("Stack", {}, None),
        ("Stack", {"min_lines": 8}, None),
        ("Stack", {"min_lines": 9}, "too_short"),
        ("Stack", {"min_parameters": 2}, None),
        ("Stack", {"min_parameters": 3}, "no_parameters"),
        ("Stack", {"typed": True}, "untyped"),
        ("Stack", {"returns_value": True}, None),
        ("Stack", {"min_docstring_words": 4}, None),
        ("Stack", {"min_docstring_words": 5}, "short_docstring"),
        ("Stack.clear", {}, None),
        ("Stack.clear", {"min_lines": 3}, "too_short"),
        ("Stack.clear", {"returns_value": True}, "no_return_value"),
        ("Stack.clear", {"min_docstring_words": 1}, "no_docstring"),
        ("Stack.clear", {"self_contained": True}, None),
        ("Stack.push", {}, "syntax_error"),  # not the last
        ("Other", {}, "syntax_error"),
        ("Stack.clear.f", {}, "syntax_error"),
    ],
)
def test_classes_and_methods(name, changes, expected):
    assert fault(CLASS, name, "a.py", rules(**changes)) == expected


def test_what_a_glance_refuses_fails_that_rule(run_config):
    """On the real code of some packages."""
    import jinja2
    import packaging
    import rich

    strict = run_config().seeds.quality
    seen = set()
    for package in (jinja2, packaging, rich):
        for path in Path(package.__file__).parent.rglob("*.py"):
            for definition in parse(path.read_text(), methods=True, classes=True).definitions:
                reason = glance(definition, path.name, strict)
                if reason is None:
                    continue
                seen.add((definition.kind, reason))
                only = {key: vars(OFF)[key] for key in vars(OFF)} | {
                    key: getattr(strict, key) for key in SWITCH[reason]
                }
                found = fault(definition.source, definition.name, path.name, QualityConfig(**only))
                assert found == reason, definition
    assert {reason for _, reason in seen} >= {"too_short", "untyped", "no_docstring", "too_long"}


SWITCH = {
    "is_test": ["skip_tests"],
    "too_short": ["min_lines"],
    "too_long": ["max_lines"],
    "untyped": ["typed"],
    "no_docstring": ["min_docstring_words"],
    "short_docstring": ["min_docstring_words"],
    "no_return_value": ["returns_value"],
}
