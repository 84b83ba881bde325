"""benchmarks.py: every kind of place and cell, and what is said of one that cannot be read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selfalign_ray.decontamination.benchmarks import cell_texts, read_benchmarks
from selfalign_ray.errors import UserError
from tests.decontamination.conftest import ConfigOf

ROWS = [
    {"id": n, "task": f"task {n}", "head": "def f():\n", "body": f"  return {n}"} for n in (5, 6)
]
OWN = [
    "benchmarks.humaneval.enabled=false",
    "benchmarks.apps.enabled=true",
    "benchmarks.apps.hub=null",
    "benchmarks.apps.item=id",
    "benchmarks.apps.prompts=[task]",
    "benchmarks.apps.solutions=[head+body]",
]


def states_of(config_of: ConfigOf, *overrides: str) -> dict[str, Any]:
    texts, states = read_benchmarks(config_of(*overrides))
    return {state.benchmark: state for state in states} | {"texts": texts}


def test_humaneval_is_whole_and_the_others_are_named_as_off(config_of: ConfigOf) -> None:
    found = states_of(config_of)
    assert (found["humaneval"].state, found["humaneval"].items) == ("checked", 164)
    assert found["humaneval"].revision
    others = [state for name, state in found.items() if name not in ("humaneval", "texts")]
    assert len(others) == 8
    assert {state.state for state in others} == {"off"}
    assert {text.part for text in found["texts"]} == {"prompt", "solution", "test"}


@pytest.mark.parametrize("name", ["own.jsonl", "own.jsonl.gz", "own.json", "own.parquet"])
def test_a_folder_of_any_kind_of_file(tmp_path: Path, config_of: ConfigOf, name: str) -> None:
    lines = "\n".join(json.dumps(row) for row in ROWS).encode()
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / name)
    else:
        data = {"gz": gzip.compress(lines), "json": json.dumps(ROWS).encode(), "jsonl": lines}
        (tmp_path / name).write_bytes(data[Path(name).suffix.strip(".")])
    overrides = [f"benchmarks.apps.path='{tmp_path}'", f"benchmarks.apps.files=['{name}']"]
    found = states_of(config_of, *OWN, *overrides)
    assert found["apps"].items == 2
    assert [(t.item, t.part, t.text) for t in found["texts"]][:2] == [
        ("5", "prompt", "task 5"),
        ("5", "solution", "def f():\n  return 5"),
    ]


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        ("one", ["one"]),
        (["one", "two"], ["one", "two"]),
        ('["one", "two"]', ["one", "two"]),
        ("[1, 2] is a list", ["[1, 2] is a list"]),
        (None, []),
        ([None, "one"], ["one"]),
    ],
)
def test_the_texts_of_a_cell(cell: Any, texts: list[str]) -> None:
    assert cell_texts({"c": cell}, "c", Path("p")) == texts


@pytest.mark.parametrize(
    ("content", "overrides", "said"),
    [
        (None, [], "no file in"),
        (b"not json\n", [], "cannot be read"),
        (b"\x1f\x8b\x08cut", ["benchmarks.apps.files=['own.jsonl.gz']"], "cannot be read"),
        (b'{"id": 1}\n', [], "has no column task; it has id"),
    ],
)
def test_one_that_cannot_be_read_is_an_error_unless_it_may_be_missing(
    tmp_path: Path, config_of: ConfigOf, content: bytes | None, overrides: list[str], said: str
) -> None:
    for name in ("own.jsonl", "own.jsonl.gz") if content else ():
        (tmp_path / name).write_bytes(content or b"")
    places = [f"benchmarks.apps.path='{tmp_path}'", "benchmarks.apps.files=['own.jsonl']"]
    with pytest.raises(UserError, match=rf"decontamination.benchmarks.apps: (.|\n)*{said}"):
        read_benchmarks(config_of(*OWN, *places, *overrides))
    allowed = [*OWN, *places, *overrides, "benchmarks.apps.allow_missing=true"]
    state = states_of(config_of, *allowed)["apps"]
    assert (state.state, state.items) == ("missing", 0)
    assert said in state.detail


def test_a_package_that_is_not_there(config_of: ConfigOf) -> None:
    with pytest.raises(UserError, match="no Python package no_such_package is installed"):
        read_benchmarks(config_of("benchmarks.humaneval.package=no_such_package"))


def test_a_hub_that_cannot_be_reached(
    config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"mbpp: (.|\n)*cannot be had from the hub"):
        read_benchmarks(config_of("benchmarks.mbpp.enabled=true"))


@pytest.mark.parametrize(
    "override",
    [
        "benchmarks.humaneval.path=/data",
        "benchmarks.humaneval.package=null",
        "benchmarks.humaneval.files=[]",
        "near_share=0.9",
        "min_tokens=3",
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(
    config_of: ConfigOf, override: str
) -> None:
    with pytest.raises(UserError):
        config_of(override)
