import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfalign_ray import pipeline, schemas
from selfalign_ray.config import RunConfig
from selfalign_ray.report.exports import write_exports
from selfalign_ray.report.saved import chain
from tests.report.conftest import (
    TABLE,
    hop_row,
    row,
    selected_row,
    stages_of_a_run,
    write_stage,
)

UNTIL_RESPONSES = TABLE[: TABLE.index("responses") + 1]


def export(run_dir: Path, table: list[str] = TABLE, rows_per_batch: int = 3) -> dict[str, int]:
    return write_exports(run_dir, chain(run_dir, table, rows_per_batch, "duplicates"), 1)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_file_of_a_whole_run(write_run: Callable[..., Path]) -> None:
    run_dir = write_run()
    counts = export(run_dir)
    assert counts == {
        "filtered_functions.jsonl": 8,
        "concepts.jsonl": 7,
        "instructions.jsonl": 6,
        "responses.jsonl": 11,
        "instruction_dataset.jsonl": 2,
    }
    for name, number in counts.items():
        ids = [(line["row_id"], line.get("sample_index", 0)) for line in lines_of(run_dir / name)]
        assert len(ids) == number
        assert ids == sorted(ids)


def test_a_line_of_the_data_set(write_run: Callable[..., Path]) -> None:
    run_dir = write_run()
    export(run_dir)
    line = lines_of(run_dir / "instruction_dataset.jsonl")[0]
    assert line["instruction"].endswith("assert g(1) == 2")
    assert line["plain_instruction"] == "Write a function g0."
    assert line["response"].startswith("```python")
    assert line["origin"]["licenses"] == ["MIT"]
    assert line["origin"]["path"] == "pkg/file_0.py"
    assert (line["samples"], line["samples_executed"], line["samples_passed"]) == (2, 1, 1)
    assert line["verdict"]["verdict"] == "passed"
    assert line["metrics"]["asserts"] == 1


def test_a_line_a_sample(write_run: Callable[..., Path]) -> None:
    run_dir = write_run()
    export(run_dir)
    lines = lines_of(run_dir / "responses.jsonl")
    found = [(line["verdict"], line["drop_reason"]) for line in lines[:2]]
    assert found == [("passed", None), (None, "no_code")]
    assert lines[-1]["row_id"] == f"{5:032x}"  # dropped before execution, and still there


def test_files_do_not_depend_on_batches_or_shards(write_run: Callable[..., Path]) -> None:
    run_dir = write_run()
    export(run_dir, rows_per_batch=1000)
    before = {path.name: path.read_bytes() for path in run_dir.glob("*.jsonl")}
    backwards = {name: rows[::-1] for name, (_, _, rows) in stages_of_a_run().items()}
    export(write_run(**backwards), rows_per_batch=2)
    assert {path.name: path.read_bytes() for path in run_dir.glob("*.jsonl")} == before


def test_files_of_stages_that_are_gone_go(write_run: Callable[..., Path]) -> None:
    run_dir = write_run()
    export(run_dir)
    counts = export(run_dir, UNTIL_RESPONSES)
    assert sorted(path.name for path in run_dir.glob("*.jsonl")) == sorted(counts)
    assert "instruction_dataset.jsonl" not in counts


def test_an_empty_run_leaves_empty_files(write_run: Callable[..., Path]) -> None:
    run_dir = write_run(responses=[], metrics=[], duplicates=[])
    counts = export(run_dir)
    assert counts["instruction_dataset.jsonl"] == 0
    assert (run_dir / "instruction_dataset.jsonl").read_text() == ""


@pytest.mark.parametrize(
    "text", ["```\n" * 50, "\u2028 \x85 \x00 \r\n", '"\\', "x" * 3_000_000, "\U0001f600"]
)
def test_any_text_stays_on_its_line(write_run: Callable[..., Path], text: str) -> None:
    run_dir = write_run(duplicates=[selected_row(0, response=text)])
    export(run_dir)
    data = (run_dir / "instruction_dataset.jsonl").read_bytes()
    assert data.count(b"\n") == 1
    assert json.loads(data)["response"] == text


def test_the_functions_are_those_that_the_last_stage_of_seeds_kept(
    tmp_path: Path, run_config: Callable[..., RunConfig]
) -> None:
    stages = pipeline.stages(run_config("seeds.docstring_judge.enabled=true"))
    names = [s.name for s in stages if s.gives is schemas.SEED and s.saves]
    assert "typecheck" in names
    rows = [row(n) for n in range(len(names) + 1)]
    for number, name in enumerate(names):
        rows[number]["drop_reason"] = "refused"
        write_stage(tmp_path, name, [name], schemas.SEED, rows[number:])
        counts = export(tmp_path, names[: number + 1])
        assert counts["filtered_functions.jsonl"] == len(names) - number


def test_a_run_with_hops_saved_apart(write_run: Callable[..., Path]) -> None:
    run_dir = write_run(metrics=None, duplicates=None)
    first = [hop_row(n, 1) for n in range(7)]
    first.append(hop_row(7, 1, concepts=None, drop_reason="no_concepts"))
    write_stage(run_dir, "concepts", ["concepts"], schemas.HOPS, first)
    rest = [hop_row(n) for n in range(7)]
    write_stage(run_dir, "responses", ["instruction", "responses"], schemas.HOPS, rest)
    counts = export(run_dir, UNTIL_RESPONSES)
    assert counts["concepts.jsonl"] == 7
    assert counts["instructions.jsonl"] == 7
    assert counts["responses.jsonl"] == 14
