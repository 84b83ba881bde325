"""functions: the rows of a file, and that no file is too odd."""

from __future__ import annotations

import ast

import pyarrow as pa
import pytest

from selfalign_ray import schemas
from selfalign_ray.ids import content_id
from selfalign_ray.seeds.config import FunctionsConfig
from selfalign_ray.seeds.functions import extract, functions
from selfalign_ray.seeds.read import read
from tests.seeds.test_rules import OFF, rules


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


SETTINGS = FunctionsConfig(
    max_chars=1000, methods=False, classes=False, parse_seconds=10, parse_mb=2048
)


def extracted(content: str | None, drop_reason: str | None = None, quality=None, **changes):
    table = pa.Table.from_pylist([file_row(content, drop_reason)], schema=schemas.FILE)
    settings = FunctionsConfig(**{**vars(SETTINGS), **changes})
    found = extract(table, settings=settings, rules=quality or OFF)
    assert found.schema == schemas.SEED
    return found.to_pylist()


def test_a_row_has_its_files_origin():
    first, second = extracted("import os\n\ndef f():\n    return os\n\ndef g(): pass\n")
    assert first == {
        **{name: file_row("").get(name) for name in schemas.SEED.names},
        "row_id": content_id("r", "0"),
        "function_index": 0,
        "seed_id": content_id(first["seed"]),
        "seed": "import os\n\n\ndef f():\n    return os",
        "definition": "function",
        "name": "f",
        "line": 3,
        "last_line": 4,
        "signature": "def f()",
        "docstring": "",
        "drop_reason": None,
    }
    assert second["row_id"] == content_id("r", "1")
    assert (second["function_index"], second["line"], second["last_line"]) == (1, 6, 6)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("x = 1\n", "no_functions"),
        ("# only a comment", "no_functions"),
        ("x = (((\n", "no_functions"),
        ("def (((\n", "parse_failed"),
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


def test_a_file_that_ends_the_parser_costs_that_file():
    endless = "def" + "\\\n" * 200_000  # takes the parser minutes
    table = pa.Table.from_pylist(
        [file_row(text) for text in ("def f(): pass", endless, "def g(): pass")],
        schema=schemas.FILE,
    )
    settings = FunctionsConfig(**{**vars(SETTINGS), "parse_seconds": 1})
    rows = extract(table, settings=settings, rules=OFF).to_pylist()
    assert [row["name"] for row in rows] == ["f", None, "g"]
    assert [row["drop_reason"] for row in rows] == [None, "parse_timeout", None]


def test_a_file_that_takes_too_much_memory_costs_that_file():
    (row,) = extracted("def f(): pass\nx = [" + "[1]," * 3_000_000 + "]", parse_mb=600)
    assert (row["drop_reason"], row["row_id"]) == ("parser_died", "r")


def test_what_the_text_shows_is_dropped_without_its_context():
    (row,) = extracted("import os\ndef f():\n    return os", quality=rules(typed=True))
    assert row["drop_reason"] == "untyped"
    assert row["seed"] == "def f():\n    return os"


def test_methods_and_classes_are_seeds_by_choice():
    content = "class C:\n    def m(self):\n        pass\n\ndef f(): pass\n"

    def names(**choice):
        return [(row["definition"], row["name"]) for row in extracted(content, **choice)]

    assert names() == [("function", "f")]
    assert names(methods=True) == [("method", "C.m"), ("function", "f")]
    assert names(classes=True) == [("class", "C"), ("function", "f")]


def test_a_function_whose_context_is_long_is_dropped():
    (row,) = extracted("X = " + "'" + "x" * 2000 + "'\ndef f():\n    return X\n")
    assert (row["drop_reason"], row["seed"]) == ("too_long", "def f():\n    return X")


def test_a_long_function_is_not_analysed():
    (row,) = extracted("def f():\n    return 1\n", max_chars=10)
    assert (row["name"], row["drop_reason"], row["seed"]) == ("f", "too_long", None)


def test_equal_functions_have_equal_seed_ids():
    first, second = (
        extracted("def f():\n    return 1   \n"),
        extracted("\n\ndef f():\n    return 1"),
    )
    assert first[0]["seed_id"] == second[0]["seed_id"]


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
    assert len(kept) > 5
    assert len([row for row in rows if row["name"]]) > 30
    assert len({row["row_id"] for row in rows}) == len(rows)
    for row in kept:
        assert ast.parse(row["seed"]).body[-1].name == row["name"]
        assert row["docstring"]
        assert row["licenses"] == ["MIT"]
