"""functions: what counts as one, which imports it brings, and that no file is too odd."""

from __future__ import annotations

import ast
from textwrap import dedent

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfalign_ray import schemas
from selfalign_ray.ids import content_id
from selfalign_ray.seeds.functions import extract, functions, parse, with_imports
from selfalign_ray.seeds.read import read


def file_row(content: str | None, drop_reason: str | None = None) -> dict:
    return {
        "row_id": "r",
        "source": "folder",
        "repository": "o/n",
        "revision": None,
        "path": "a.py",
        "licenses": ["MIT"],
        "file_id": "f",
        "bytes": 1,
        "content": content,
        "drop_reason": drop_reason,
    }


def extracted(content: str | None, drop_reason: str | None = None, max_chars: int = 1000):
    table = pa.Table.from_pylist([file_row(content, drop_reason)], schema=schemas.FILE)
    found = extract(table, max_chars=max_chars)
    assert found.schema == schemas.SEED
    return found.to_pylist()


def seeds(content: str) -> list[str]:
    return [row["seed"] for row in extracted(dedent(content))]


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
    assert [function.name for function in parse(content).functions] == names


def test_the_source_is_the_function_with_its_decorators():
    module = parse("x = 1\n\n@a\n@b\ndef f():  \n    return 1\t\n\n\n# after\ny = 2\n")
    assert module.functions == [("f", 3, "@a\n@b\ndef f():\n    return 1", True)]


def test_a_row_has_its_files_origin():
    first, second = extracted("import os\n\ndef f():\n    return os\n\ndef g(): pass\n")
    assert first == {
        "row_id": content_id("folder", "o/n", None, "a.py", "f", "0"),
        "source": "folder",
        "repository": "o/n",
        "revision": None,
        "path": "a.py",
        "licenses": ["MIT"],
        "file_id": "f",
        "function_index": 0,
        "seed_id": content_id(first["seed"]),
        "seed": "import os\n\n\ndef f():\n    return os",
        "name": "f",
        "line": 3,
        "drop_reason": None,
    }
    assert second["row_id"] == content_id("folder", "o/n", None, "a.py", "f", "1")
    assert (second["function_index"], second["line"]) == (1, 6)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("x = 1\n", "no_functions"),
        ("# only a comment", "no_functions"),
        ("x = (((\n", "parse_failed"),
        ("\\\n" * 200_000, "parse_failed"),  # takes the parser minutes
    ],
)
def test_a_file_without_functions_is_one_row(content, reason):
    (row,) = extracted(content)
    assert row["drop_reason"] == reason
    assert row["row_id"] == "r"
    assert row["function_index"] is row["seed_id"] is row["seed"] is row["name"] is None


def test_a_dropped_file_passes_through():
    (row,) = extracted(None, "binary")
    assert (row["row_id"], row["drop_reason"]) == ("r", "binary")


def test_an_error_elsewhere_in_the_file_costs_one_function():
    rows = extracted("def f():\n    return 1\n\ndef g():\n    return (]\n\ndef h():\n    pass\n")
    reasons = {row["name"]: row["drop_reason"] for row in rows}
    assert reasons["f"] is None
    assert reasons["g"] == "syntax_error"


def test_a_long_function_is_not_analysed():
    (row,) = extracted("def f():\n    return 1\n", max_chars=10)
    assert (row["name"], row["drop_reason"], row["seed"]) == ("f", "too_long", None)


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


def test_an_import_stands_once():
    content = "import a.b\nimport a.c\nimport a.b\n\ndef f():\n    return a.b.x\n"
    assert seeds(content) == ["import a.b\nimport a.c\n\n\ndef f():\n    return a.b.x"]


def test_equal_functions_have_equal_seed_ids():
    first, second = (
        extracted("def f():\n    return 1   \n"),
        extracted("\n\ndef f():\n    return 1"),
    )
    assert first[0]["seed_id"] == second[0]["seed_id"]


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
        "if TYPE_CHECKING:\n",
    ]
)


@given(st.lists(PIECES, max_size=30).map("".join) | st.text(max_size=100))
def test_any_text(content):
    module = parse(content)
    assert module == parse(content)
    for function in module.functions:
        seed = with_imports(function.source, module.imports)
        assert seed.endswith(function.source)
        assert seed == with_imports(function.source, module.imports)


@pytest.mark.parametrize(
    "body",
    [
        "-" * 5000 + "1",
        "x" + ".a" * 5000,
        "x" + "()" * 5000,
        "1" + "+1" * 5000,
        "lambda: " * 2000 + "1",
        "(" * 5000,
        "[" * 5000,
        "f'{" * 500,
        "1 if x else " * 1000 + "1",
        "not " * 4000 + "1",
    ],
    ids=lambda body: body[:9],
)
def test_deep_nesting(body):
    rows = extracted(f"import os\ndef f(x):\n    os\n    return {body}\n", max_chars=100_000)
    assert len(rows) == 1


@pytest.mark.ray
def test_real_packages(ray_local, run_config):
    cfg = run_config("source=installed", "source.packages=[hydra-core]", "source.limit=null")
    rows = functions(read(None, cfg), cfg).take_all()
    kept = [row for row in rows if row["drop_reason"] is None]
    assert len(kept) > 30
    assert len({row["row_id"] for row in rows}) == len(rows)
    for row in kept:
        assert ast.parse(row["seed"]).body[-1].name == row["name"]
        assert row["licenses"] == ["MIT"]
