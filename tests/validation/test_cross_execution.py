"""cross_execution.py: the matrix, the clusters and the gate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from selfalign_ray import schemas
from selfalign_ray.config import conf_dir
from selfalign_ray.sandbox.__main__ import settings as sandbox_settings
from selfalign_ray.sandbox.pool import Sandbox
from selfalign_ray.validation.config import CrossExecutionConfig
from selfalign_ray.validation.cross_execution import (
    add_agreement,
    cross_execution,
    matrix_of,
    ranked,
    scores,
)

Row = dict[str, Any]
RIGHT, OTHER = "def add(a, b):\n    return a + b", "def add(x, y):\n    return y + x"
WRONG = "def add(a, b):\n    return a - b"
NAMED = "def plus(a, b):\n    return a + b"
ONE, TWO, LAX = "assert add(1, 2) == 3", "assert add(5, -1) == 4", "assert add(3, 0) == 3"
OF_PLUS = "assert plus(1, 1) == 2"
SAMPLES = [
    (RIGHT, ONE, "passed"),
    (OTHER, TWO, "passed"),
    (WRONG, LAX, "passed"),
    (WRONG, ONE, "assertion"),
    (NAMED, OF_PLUS, "passed"),
]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(sandbox_settings({"slots": 2})) as pool:
        yield pool


def config(**changes: Any) -> CrossExecutionConfig:
    """The default settings with these changes."""
    default = OmegaConf.load(Path(conf_dir()) / "validation" / "default.yaml")["cross_execution"]
    merged = OmegaConf.merge(OmegaConf.structured(CrossExecutionConfig), default, changes)
    made = OmegaConf.to_object(merged)
    assert isinstance(made, CrossExecutionConfig)
    return made


def row(*samples: tuple[str, str, str], **columns: Any) -> Row:
    return {
        "independent_tests": None,
        "samples": [
            {"sample_index": n, "code": code, "tests": tests}
            for n, (code, tests, _) in enumerate(samples)
        ],
        "verdicts": [
            {"sample_index": n, "verdict": verdict, "detail": ""}
            for n, (_, _, verdict) in enumerate(samples)
        ],
        "metrics": [],
        "drop_reason": None,
        **columns,
    }


def table(*rows: Row) -> pa.Table:
    fields = [schemas.CHECKED.field(name) for name in rows[0]]
    return pa.Table.from_pylist(list(rows), schema=pa.schema(fields))


class Counting:
    """The real sandbox, and what it was asked."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.asked: list[tuple[str, str]] = []
        self._sandbox = sandbox

    def judge(self, programs: list[tuple[str, str]]) -> Any:
        self.asked += programs
        return self._sandbox.judge(programs)


@pytest.mark.sandbox
def test_the_matrix_has_each_pair_once_and_runs_no_hopeless_one(sandbox: Sandbox) -> None:
    counting: Any = Counting(sandbox)
    twin = (RIGHT, TWO, "passed")
    block = table(row(*SAMPLES, twin))
    (out,) = add_agreement(block, counting, config()).to_pylist()
    assert out["agreement"] == {
        "solutions": [0, 1, 2, 3, 4, 5],
        "tests": [0, 1, 2, 4],
        "cells": ["pppi", "pppi", "ffpi", "ffpi", "iiip", "pppi"],
    }
    assert len(counting.asked) == len(set(counting.asked)) == 4
    assert not any(OF_PLUS in pair or NAMED in pair for pair in counting.asked)
    found = {m["sample_index"]: m for m in out["cross_execution"]}
    assert {i: m["cluster"] for i, m in found.items()} == {0: 0, 1: 0, 5: 0, 2: 1, 3: 1, 4: 2}
    assert found[0] == {
        "sample_index": 0,
        "cluster": 0,
        "cluster_size": 3,
        "tests_passed": 3,
        "passed_share": 1.0,
        "agreement": pytest.approx(3 / 6 * 3 / 4),
        "gate": None,
    }
    assert (found[2]["passed_share"], found[4]["passed_share"]) == (pytest.approx(1 / 3), 1.0)


@pytest.mark.sandbox
def test_a_mismatch_that_only_a_run_shows_is_no_failure(sandbox: Sandbox) -> None:
    hidden = "import functools\n@functools.cache\ndef add(a):\n    return a + 2"
    given = row((RIGHT, ONE, "passed"), (hidden, "assert add(1) == 3", "passed"))
    (out,) = add_agreement(table(given), sandbox, config()).to_pylist()
    assert out["agreement"]["cells"] == ["pi", "ip"]


@pytest.mark.sandbox
def test_independent_tests_are_a_column_and_the_samples_own_cost_nothing(sandbox: Sandbox) -> None:
    counting: Any = Counting(sandbox)
    same = row((RIGHT, ONE, "passed"), (WRONG, ONE, "assertion"), independent_tests=ONE)
    apart = row((RIGHT, ONE, "passed"), (WRONG, LAX, "passed"), independent_tests=TWO)
    out = add_agreement(table(same, apart), counting, config()).to_pylist()
    assert out[0]["agreement"] == {"solutions": [0, 1], "tests": [0], "cells": ["p", "f"]}
    assert out[1]["agreement"]["tests"] == [0, 1, -1]
    assert out[1]["agreement"]["cells"] == ["ppp", "fpf"]
    assert len(counting.asked) == 4


@pytest.mark.sandbox
def test_the_gate_refuses_who_stands_alone(sandbox: Sandbox) -> None:
    rows = table(row(*SAMPLES[:3]), row(SAMPLES[0], SAMPLES[4]))
    out = add_agreement(rows, sandbox, config(min_agreement=0.5)).to_pylist()
    assert [m["gate"] for m in out[0]["cross_execution"]] == [None, None, "disagreement"]
    assert [r["drop_reason"] for r in out] == [None, "disagreement"]


def test_of_too_many_samples_those_that_passed_are_taken() -> None:
    many = row(*[SAMPLES[3]] * 3, *SAMPLES[:3])
    matrix = matrix_of(many, config(max_samples=2))
    assert [sample["sample_index"] for sample in matrix.samples] == [3, 4]
    found = scores(matrix, many, config(max_samples=2, min_agreement=0.1))
    assert found[-1] == {
        "sample_index": 5,
        "cluster": None,
        "cluster_size": None,
        "tests_passed": None,
        "passed_share": None,
        "agreement": None,
        "gate": "unmeasured",
    }


def test_what_the_sandbox_failed_on_is_unknown_and_no_failure() -> None:
    matrix = matrix_of(row((RIGHT, ONE, "infra"), (OTHER, TWO, "passed")), config())
    assert matrix.letters(RIGHT) == "--"
    assert matrix.letters(OTHER) == "-p"
    deep = "x = " + "-" * 9_000 + "1"
    assert matrix_of(row((deep, deep, "syntax_error")), config()).letters(deep) == "f"


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.integers(0, 20), st.frozensets(st.integers(0, 4)), min_size=1))
def test_clusters_are_ranked_by_solutions_times_tests(passed: dict[int, frozenset[int]]) -> None:
    clusters = ranked(passed)
    assert sorted(i for _, members in clusters.values() for i in members) == sorted(passed)
    by_rank = sorted(clusters.items(), key=lambda item: item[1][0])
    products = [len(tests) * len(members) for tests, (_, members) in by_rank]
    assert products == sorted(products, reverse=True)
    assert [rank for _, (rank, _) in by_rank] == list(range(len(clusters)))


@pytest.mark.ray
@pytest.mark.sandbox
def test_the_stage_keeps_every_row(ray_local: None, run_config: Any) -> None:
    rows = [row(*SAMPLES[:2]), row(SAMPLES[0], drop_reason="no_passing_sample")]
    ds = ray.data.from_arrow([table(r) for r in rows])
    found = cross_execution(ds, run_config()).take_all()
    cells = {str(r["drop_reason"]): r["agreement"] for r in found}
    assert cells["None"]["cells"] == ["pp", "pp"]
    assert not cells["no_passing_sample"]
