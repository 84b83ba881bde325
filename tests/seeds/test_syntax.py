"""syntax: what stands at the top level of a file, and that any text can be asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray.seeds import syntax
from selfalign_ray.seeds.syntax import Constant, Definition, parse


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("def f(): pass\n", ["f"]),
        ("async def f(): pass\n", ["f"]),
        ("@a\n@b(1)\ndef f(): pass\n", ["f"]),
        ("@a\nclass C:\n    def f(self): pass\n", []),
        ("class C:\n    def f(self): pass\n", []),
        ("def f():\n    def g(): pass\n", ["f"]),
        ("if x:\n    def f(): pass\n", []),
        ("f = lambda: 1\n", []),
        ("def f(): pass\ndef f(): pass\n", ["f", "f"]),
        ("def f[T](x: T) -> T: return x\n", ["f"]),
        ("def é(): pass\n", ["é"]),
        ("x = (\ndef f(): pass\n", ["f"]),
    ],
)
def test_top_level_functions(content, names):
    assert [function.name for function in parse(content).definitions] == names


def test_a_definition():
    module = parse(
        "x = 1\n\n@a\n@b\nasync def f(\n    x: int\n) -> int:  # c\n    return 1\t\n\n\n# z\n"
    )
    assert module.definitions == [
        Definition(
            kind="function",
            name="f",
            line=3,
            last_line=8,
            source="@a\n@b\nasync def f(\n    x: int\n) -> int:  # c\n    return 1",
            lines=6,
            signature="async def f(\n    x: int\n) -> int",
            docstring="",
            intact=True,
        )
    ]


CLASS = """\
@dataclass
class Stack(list):
    size: int

    @property
    def top(self) -> int:
        '''The last.'''

        return self[-1]

    class Inner:
        def f(self): pass

    async def push(self, x): self.append(x)
"""


def test_methods_stand_in_their_class():
    top, push = parse(CLASS, methods=True).definitions
    assert (top.kind, top.name, top.line, top.last_line) == ("method", "Stack.top", 5, 9)
    assert (top.lines, top.signature, top.docstring) == (
        4,
        "def top(self) -> int",
        "The last.",
    )
    assert top.source.startswith("class Stack(list):\n    @property\n    def top(self)")
    assert push.source == ("class Stack(list):\n    async def push(self, x): self.append(x)")
    for method in (top, push):
        compile(method.source, "seed", "exec")


def test_classes():
    (found,) = parse(CLASS, classes=True).definitions
    assert (found.kind, found.name, found.line) == ("class", "Stack", 1)
    assert found.signature == "class Stack(list)"
    assert found.source == CLASS.rstrip()


@pytest.mark.parametrize(
    ("body", "docstring"),
    [
        ("'one'", "one"),
        ("'one' ' two'", "one two"),
        (r'"""a\tb"""', "a       b"),
        ('"""a""" """b"""', "ab"),
        ('"""a" b"""', 'a" b'),
        (r"'a\tb'", "a       b"),
        (r"r'a\tb'", r"a\tb"),
        ('"""\n    First.\n\n        Second.\n    """', "First.\n\n    Second."),
        ("# before\n    'one'", "one"),
        ('("""one""")', "one"),
        ("((  # before\n    'one'\n    ' two'\n    ))", "one two"),
        ("('one',)", ""),
        ("('one' + 'two')", ""),
        ("({[]: 1})", ""),
        ("b'one'", ""),
        ("f'one'", ""),
        ("x = 'one'", ""),
        ("'one', 'two'", ""),
        ("pass; 'one'", ""),
    ],
)
def test_docstrings(body, docstring):
    (found,) = parse(f"def f():\n    {body}\n").definitions
    assert found.docstring == docstring


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("A = 1", ("A",)),
        ("A: int = 1", ("A",)),
        ("A, B = 1, 2", ("A", "B")),
        ("(A, B) = 1, 2", ("A", "B")),
        ("A = B = 1", ("A", "B")),
        ("A.b = 1", None),
        ("A[0] = 1", None),
        ("A, b.c = 1, 2", None),
        ("f(A)", None),
        ("A: int", None),  # a declaration gives A no value, and the next one needs a value
        ("A += 1", None),
    ],
)
def test_constants(line, names):
    assert parse(f"{line}\ndef f(): pass\n").constants == ([Constant(names, line)] if names else [])


def test_a_file_that_is_not_parsed_holds_no_function(monkeypatch):
    """On the real code of some packages: what the text rules out, the parser does not find."""
    import jinja2
    import packaging
    import rich

    passed_over = []
    for package in (jinja2, packaging, rich):
        for path in Path(package.__file__).parent.rglob("*.py"):
            text = path.read_text()
            quick = parse(text)
            with monkeypatch.context() as patch:
                patch.setattr(syntax, "_FUNCTION", ("",))
                assert parse(text).definitions == quick.definitions
            if not (quick.imports or quick.definitions):
                passed_over.append(path)
    assert len(passed_over) > 10


PIECES = st.sampled_from(
    [
        *(
            "def f(x):\n",
            "    ",
            "return x",
            "\n",
            "import os",
            "from a import b\n",
            "@d\n",
            "async ",
        ),
        *("(", ")", "[", "'", '"""', "\\\n", "é", "\0", "\ud800", "\t", "class C:\n", ":"),
        *("if TYPE_CHECKING:\n", "A = ", "A += 1"),
    ]
)
TEXTS = st.lists(PIECES, max_size=30).map("".join) | st.text(max_size=100)


@settings(deadline=None)
@given(TEXTS)
def test_any_text(content):
    module = parse(content, methods=True, classes=True)
    assert module == parse(content, methods=True, classes=True)
    lines = content.split("\n")
    for found in module.definitions:
        assert 1 <= found.line <= found.last_line <= len(lines)
