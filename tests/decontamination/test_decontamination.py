"""decontamination: rows that go, rows that stay with a near miss, and what is left beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray.data

from selfalign_ray import schemas
from selfalign_ray.decontamination.benchmarks import Text
from selfalign_ray.decontamination.decontamination import (
    BENCHMARKS,
    decontamination,
    final_decontamination,
    judged,
)
from selfalign_ray.decontamination.index import Index
from tests.decontamination.conftest import config

CLEAN = "def half(number: float) -> float:\n    return number / 2"


def seeds(*rows: tuple[str | None, str | None]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"row_id": str(n), "source": "s", "path": "p", "seed": seed, "drop_reason": reason}
            for n, (seed, reason) in enumerate(rows)
        ],
        schema=schemas.SEED,
    )


def solution(humaneval: list[Text], item: str) -> str:
    return next(t.text for t in humaneval if t.item == item and t.part == "solution")


def test_what_goes_has_evidence_and_dropped_rows_are_not_looked_at(
    humaneval: list[Text], index: Index
) -> None:
    taken = solution(humaneval, "HumanEval/0")
    table = seeds((CLEAN, None), (taken, None), (taken, "too_long"), (None, "no_functions"))
    found = judged(table, index, config(), ("seed",), "seed").cast(schemas.SEED).to_pylist()
    assert [row["drop_reason"] for row in found] == [
        None,
        "benchmark_text",
        "too_long",
        "no_functions",
    ]
    assert [bool(row["benchmark_hits"]) for row in found] == [False, True, False, False]
    assert {hit["item"] for hit in found[1]["benchmark_hits"]} == {"HumanEval/0"}


def test_a_near_miss_stays(humaneval: list[Text], index: Index) -> None:
    prompt = next(t.text for t in humaneval if t.item == "HumanEval/10" and t.part == "prompt")
    tokens = prompt.split()
    cut = " ".join(tokens[: len(tokens) * 45 // 100])
    (row,) = judged(seeds((cut, None)), index, config(), ("seed",), "seed").to_pylist()
    assert row["drop_reason"] is None
    assert {hit["near"] for hit in row["benchmark_hits"]} == {True}


def test_blocks_without_rows_and_without_kept_rows(index: Index) -> None:
    for table in (seeds(), seeds((None, "no_functions"))):
        found = judged(table, index, config(), ("seed",), "seed")
        assert found.cast(schemas.SEED).num_rows == table.num_rows


@pytest.mark.ray
def test_both_stages_find_the_same_text_and_say_what_was_not_checked(
    ray_local: None, run_config: Any, humaneval: list[Text]
) -> None:
    cfg = run_config()
    Path(cfg.run_dir).mkdir(parents=True)
    taken = solution(humaneval, "HumanEval/0")
    table = seeds((CLEAN, None), (taken, None))
    found = decontamination(ray.data.from_arrow([table.slice(0, 1), table.slice(1)]), cfg)
    reasons = {row["row_id"]: row["drop_reason"] for row in found.take_all()}
    assert reasons == {"0": None, "1": "benchmark_text"}

    said = json.loads((Path(cfg.run_dir) / BENCHMARKS).read_text())
    states = {each["benchmark"]: each["state"] for each in said["benchmarks"]}
    assert states.pop("humaneval") == "checked"
    assert set(states.values()) == {"off"}

    names = ["final_instruction", "response", "code", "tests"]
    pairs = [dict.fromkeys(names, CLEAN) | {"drop_reason": None} for _ in range(5)]
    for place, name in enumerate(names):
        pairs[place][name] = taken if name == "code" else f"Look:\n{taken}\nDone."
    found = final_decontamination(ray.data.from_items(pairs), cfg)
    kept = [row for row in found.take_all() if row["drop_reason"] is None]
    assert len(kept) == 1
    assert kept[0]["code"] == kept[0]["response"] == CLEAN
