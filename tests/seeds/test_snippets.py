"""snippets: what a definition brings along of its file."""

from __future__ import annotations

from textwrap import dedent

import pytest
from hypothesis import given, settings

from selfalign_ray.seeds.rules import fault
from selfalign_ray.seeds.snippets import snippets, stands_alone
from selfalign_ray.seeds.syntax import parse
from tests.seeds.test_functions import SETTINGS
from tests.seeds.test_rules import OFF, rules
from tests.seeds.test_syntax import TEXTS


def seeds(content: str) -> list[str]:
    found = snippets(dedent(content), "a.py", settings=SETTINGS, rules=OFF)
    return [row["seed"] for row in found.rows]


def test_only_the_imports_that_are_used():
    content = """\
        from __future__ import annotations
        import os, sys
        import xml.etree.ElementTree
        import numpy as np
        from typing import (
            Any,  # a comment
            Optional as Maybe,
        )
        from . import sibling
        from .. import *

        def f(x: Any) -> Maybe[int]:
            return sys.argv, xml.etree, sibling.g(x)
        """
    assert seeds(content) == [
        "import sys\n"
        "import xml.etree.ElementTree\n"
        "from typing import Any, Optional as Maybe\n"
        "from . import sibling\n\n\n"
        "def f(x: Any) -> Maybe[int]:\n"
        "    return sys.argv, xml.etree, sibling.g(x)"
    ]


@pytest.mark.parametrize(
    "function",
    [
        "def f(os):\n    return os",
        "def f(x):\n    return x.os",
        "def f(x):\n    return g(os=x)",
        "def f(x):\n    os = x\n    return os",
        "def f(x):\n    return 'os'  # os",
    ],
)
def test_a_name_that_only_looks_like_the_module(function):
    assert seeds(f"import os\n\n{function}\n") == [function]


def test_imports_for_type_checkers_are_imports():
    content = """\
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from collections.abc import Sequence
        if other:
            import os

        def f(x: Sequence[str]):
            return os
        """
    (seed,) = seeds(content)
    assert seed.startswith("from collections.abc import Sequence\n\n\ndef f(")


def test_a_quoted_annotation_brings_what_it_names():
    content = """\
        from typing import TYPE_CHECKING, Literal, TypeVar
        if TYPE_CHECKING:
            from collections.abc import Sequence
        T = TypeVar("T")

        def f(x: "Sequence[T]", order: Literal["asc", "T y p e"]) -> "int":
            return len(x)
        """
    (seed,) = seeds(content)
    assert seed.startswith(
        "from typing import Literal, TypeVar\nfrom collections.abc import Sequence\n\n"
        'T = TypeVar("T")\n\n\ndef f('
    )
    assert fault(seed, "f", "a.py", rules(self_contained=True)) is None


def test_an_import_stands_once():
    content = "import a.b\nimport a.c\nimport a.b\n\ndef f():\n    return a.b.x\n"
    assert seeds(content) == ["import a.b\nimport a.c\n\n\ndef f():\n    return a.b.x"]


def test_constants_and_what_they_use_themselves():
    content = """\
        import re
        import os
        from typing import TypeVar

        T = TypeVar("T")
        _WORD = r"[a-z]+"
        _OTHER = 3
        _PATTERN = re.compile(_WORD)
        _WORD += "!"

        def f(x: T) -> T:
            return _PATTERN.match(x)
        """
    assert seeds(content) == [
        "import re\nfrom typing import TypeVar\n\n"
        'T = TypeVar("T")\n_WORD = r"[a-z]+"\n_PATTERN = re.compile(_WORD)\n_WORD += "!"\n\n\n'
        "def f(x: T) -> T:\n    return _PATTERN.match(x)"
    ]


@pytest.mark.parametrize(
    "binding",
    [
        "HAS_X: bool\ntry:\n    HAS_X = True\nexcept ValueError:\n    HAS_X = False\n",
        "if True:\n    HAS_X = 1\nHAS_X += 1\n",
    ],
)
def test_a_name_that_gets_its_value_elsewhere_is_no_constant(binding):
    function = "def f():\n    return HAS_X"
    assert seeds(f"{binding}{function}\n") == [function]


def test_a_declaration_before_its_assignment_is_not_needed():
    assert seeds("A: int\nA = 1\nA += 1\ndef f():\n    return A\n") == [
        "A = 1\nA += 1\n\n\ndef f():\n    return A"
    ]


def test_constants_that_need_each_other_end():
    content = "A = B\nB = A\ndef f():\n    return A\n"
    assert seeds(content) == ["A = B\nB = A\n\n\ndef f():\n    return A"]


def test_a_local_name_is_no_constant():
    assert seeds("A = 1\ndef f():\n    A = 2\n    return A\n") == [
        "def f():\n    A = 2\n    return A"
    ]


def test_helpers_are_not_brought_along():
    assert seeds("def g(): pass\n\ndef f():\n    return g()\n")[1] == "def f():\n    return g()"


@pytest.mark.parametrize(
    ("line", "foreign"),
    [
        ("import os.path as x", False),
        ("import numpy.linalg as x", True),
        ("from . import x", True),
        ("from .os import x", True),
        ("from os import x", False),
        ("import sys, x", True),
        ("import yaml as x", False),
    ],
)
def test_foreign_imports_are_seen_at_once(line, foreign):
    found = snippets(
        f"{line}\ndef f():\n    return x\n",
        "a.py",
        settings=SETTINGS,
        rules=rules(dependencies=["yaml"]),
    )
    assert found.rows[0]["drop_reason"] == ("foreign_dependency" if foreign else None)


@settings(deadline=None)
@given(TEXTS)
def test_any_text(content):
    module = parse(content)
    for definition in module.definitions:
        seed, _ = stands_alone(module)(definition)
        assert seed.endswith(definition.source)
        assert seed == stands_alone(module)(definition)[0]
