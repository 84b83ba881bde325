"""Free names: what code takes from outside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfalign_ray.seeds.names import free_names


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def f(x):\n    return x + y", {"y"}),
        ("def f(x: int) -> List[int]:\n    return [x]", {"int", "List"}),
        ("@cache\ndef f(x=DEFAULT):\n    return x", {"cache", "DEFAULT"}),
        ("def f(n):\n    return f(n - 1)", set()),
        ("def f():\n    import os\n    return os.path", set()),
        ("import os\ndef f():\n    return os.path", set()),
        ("def f(xs):\n    return [x * k for x in xs]", {"k"}),
        ("def f():\n    def g():\n        return h\n    return g", {"h"}),
        ("def f():\n    class C(Base):\n        a = b\n    return C", {"Base", "b"}),
        ("def f():\n    global counter\n    counter += 1", {"counter"}),
        ("def f(o):\n    return o.attribute", set()),
        ("def f(x):\n    return g(keyword=x)", {"g"}),
        # "top" is what Python calls a module's table too.
        ("def top(x):\n    y = x\n    return y + z", {"z"}),
        ("class top:\n    a = b\n    global c\n    c = a", {"b", "c"}),
        ("def f(:", set()),
        ("x = '\\d'", set()),
        # What stands in quotes in an annotation is a name all the same.
        ("def f(x: 'Seq[K]') -> 'Map':\n    return x", {"Seq", "K", "Map"}),
        ("def f(x: 'Opt[\"Seq\"]'):\n    return x", {"Opt", "Seq"}),
        (
            "class A:\n    def f(self, *x: 'Seq', **y: 'Map') -> 'A':\n        return x",
            {"Seq", "Map"},
        ),
        ("T = TypeVar('T')\ndef f(x: 'T'):\n    return x", {"TypeVar"}),
        ("X: 'Seq' = ()", {"Seq"}),
        ("def f(x: Lit['asc', 'desc']):\n    return x", {"Lit", "asc", "desc"}),
        ("def f(x: Literal['asc', 'open']):\n    return x", {"Literal"}),
        ("def f(x: 'typing.Literal[\"asc\"]'):\n    return x", {"typing"}),
        ("def f(x: Annotated['Seq', 'a note', \"x\"]):\n    return x", {"Annotated", "Seq"}),
        # One that is no type hides none of the others.
        ("def f(x: 'a b', y: 'Seq'):\n    return x", {"Seq"}),
        ("def f(x=d['k']):\n    return x['asc']", {"d"}),
    ],
)
def test_free_names(source, names):
    assert free_names(source) == names


@given(st.text() | st.text(alphabet="def f(x):\n =[]{}'\"\\\0\ud800"))
def test_any_text(text):
    assert isinstance(free_names(text), frozenset)
