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
    assert len(others) == 14
    assert {state.state for state in others} == {"off"}
    assert {text.part for text in found["texts"]} == {"prompt", "solution", "test"}


# A row of each as its owner publishes it: the columns' names and types, our own contents.
TASK = "Write a function that returns the sum of the two largest numbers of a list of numbers."
HEAD = "def two_largest(numbers: list[int]) -> int:\n"
BODY = "    first, second = sorted(numbers)[-2:]\n    return first + second\n"
CHECKS = ["assert two_largest([1, 2, 3]) == 5", "assert two_largest([-4, -5, -6]) == -9"]
HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": f'{HEAD}    """{TASK}"""\n',
    "canonical_solution": BODY,
    "entry_point": "two_largest",
    "test": "\n".join(CHECKS),
}
EVOEVAL = {**HUMANEVAL, "task_id": "EvoEval/0", "inputs": [[[1, 2]]], "parent": "HumanEval/0"}
PUBLISHED = {
    "humaneval_plus": ("data/test-00000-of-00001-5973.parquet", HUMANEVAL),
    "mbpp": (
        "full/test-00000-of-00001.parquet",
        {
            "task_id": 11,
            "text": TASK,
            "code": HEAD + BODY,
            "test_list": CHECKS,
            "test_setup_code": "",
            "challenge_test_list": [],
        },
    ),
    "mbpp_plus": (
        "data/test-00000-of-00001-d578.parquet",
        {
            "task_id": 11,
            "code": HEAD + BODY,
            "prompt": TASK,
            "source_file": "a.ipynb",
            "test_imports": [],
            "test_list": CHECKS,
            "test": "\n".join(CHECKS),
        },
    ),
    "ds_1000": (
        "test.jsonl",
        {
            "prompt": TASK,
            "reference_code": BODY,
            "metadata": {"problem_id": 0, "library": "Numpy", "perturbation_type": "Origin"},
            "code_context": "\n".join(CHECKS),
        },
    ),
    "livecodebench": (
        "test6.jsonl",
        {
            "question_title": "Two largest",
            "question_content": TASK,
            "platform": "leetcode",
            "question_id": "2727",
            "contest_id": "weekly",
            "contest_date": "2025-01-01T00:00:00",
            "starter_code": f"class Solution:\n    {HEAD}        ",
            "difficulty": "easy",
            "public_test_cases": '[{"input": "[1, 2]", "output": "3", "testtype": "functional"}]',
            "private_test_cases": "eJxrYJmqyAAA",
            "metadata": '{"func_name": "two_largest"}',
        },
    ),
    "bigcodebench": (
        "data/v0.1.4-00000-of-00001.parquet",
        {
            "task_id": "BigCodeBench/0",
            "complete_prompt": f'{HEAD}    """{TASK}"""\n',
            "instruct_prompt": TASK,
            "canonical_solution": BODY,
            "code_prompt": HEAD,
            "test": "\n".join(CHECKS),
            "entry_point": "two_largest",
            "doc_struct": "{}",
            "libs": "['math']",
        },
    ),
    "apps": (
        "test.jsonl",
        {
            "id": 0,
            "question": TASK,
            "solutions": json.dumps([HEAD + BODY, HEAD + BODY + "\n"]),
            "input_output": '{"inputs": ["1 2"], "outputs": ["3"]}',
            "difficulty": "interview",
            "url": "https://example.org/0",
            "starter_code": "",
        },
    ),
    "evoeval_difficult": ("test.jsonl", EVOEVAL),
    "evoeval_tool_use": ("test.jsonl", EVOEVAL),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_benchmark_is_read_as_its_owner_publishes_it(
    tmp_path: Path, config_of: ConfigOf, name: str
) -> None:
    place, row = PUBLISHED[name]
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    # Beside it the splits that nobody is measured on, which must stay out.
    other = file.name.replace("test", "train").replace("v0.1.4", "v0.1.0")
    for at, content in ((file, row), (file.with_name(other), dict.fromkeys(row, "TRAIN"))):
        if at.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist([content]), at)
        else:
            at.write_text(json.dumps(content) + "\n")
    key = f"benchmarks.{name}"
    place_of = [f"{key}.enabled=true", f"{key}.hub=null", f"{key}.path='{tmp_path}'"]
    texts, states = read_benchmarks(config_of("benchmarks.humaneval.enabled=false", *place_of))
    state = next(state for state in states if state.benchmark == name)
    assert (state.state, state.items) == ("checked", 1)
    said = {part: " ".join(t.text for t in texts if t.part == part) for part in ("prompt", "test")}
    assert TASK in said["prompt"]
    assert not any("TRAIN" in text.text for text in texts)
    solutions = [text.text for text in texts if text.part == "solution"]
    assert any("two_largest" in text or BODY in text for text in solutions)
    has_tests = name in ("mbpp", "mbpp_plus", "ds_1000", "bigcodebench")
    assert ("assert two_largest([1, 2, 3]) == 5" in said["test"]) == has_tests


def test_every_benchmark_is_on_where_all_are_asked_for(run_config: Any) -> None:
    benchmarks = run_config("decontamination=all").decontamination.benchmarks
    assert set(PUBLISHED) < set(benchmarks)
    assert all(benchmark.enabled for benchmark in benchmarks.values())
    hubs = [benchmark.hub for benchmark in benchmarks.values()]
    assert len(set(hubs)) == len(hubs), "two of them are the same"


def test_tests_are_read_with_the_name_of_the_function_for_candidate_as_well(
    tmp_path: Path, config_of: ConfigOf
) -> None:
    row = {"id": 1, "task": "task", "check": "assert candidate(1)", "name": "two_largest"}
    (tmp_path / "own.jsonl").write_text(json.dumps(row) + "\n")
    key = "benchmarks.apps"
    places = [f"{key}.path='{tmp_path}'", f"{key}.files=['own.jsonl']", f"{key}.solutions=[]"]
    tests = [f"{key}.tests=[check]", f"{key}.entry_point=name"]
    found = states_of(config_of, *OWN, *places, *tests)
    said = [text.text for text in found["texts"] if text.part == "test"]
    assert said == ["assert candidate(1)", "assert two_largest(1)"]


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


def test_an_error_of_the_hub_that_says_nothing_is_named(
    config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub")

    def failing(*_: Any, **__: Any) -> None:
        raise OSError

    monkeypatch.setattr("huggingface_hub.snapshot_download", failing)
    with pytest.raises(UserError, match="cannot be had from the hub: OSError"):
        read_benchmarks(config_of("benchmarks.mbpp.enabled=true"))


@pytest.mark.parametrize(
    "override",
    [
        "benchmarks.humaneval.path=/data",
        "benchmarks.humaneval.package=null",
        "benchmarks.humaneval.files=[]",
        "near_share=0.9",
        "min_tokens=3",
        "min_prompt_tokens=7",
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(
    config_of: ConfigOf, override: str
) -> None:
    with pytest.raises(UserError):
        config_of(override)
