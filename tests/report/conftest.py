"""A run_dir written by hand with the real schemas: small, but with every kind of loss in it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selfalign_ray import schemas
from selfalign_ray.config import RunConfig

Row = dict[str, Any]
TABLE = [
    "read",
    "functions",
    "quality",
    "unique",
    "sample",
    "concepts",
    "instruction",
    "responses",
    "execution",
    "metrics",
    "sanitise",
    "choose",
    "duplicates",
]
HOP_COST = {"shot_set": 0, "shots": 3, "prompt_tokens": 700, "cached_tokens": 560, "seconds": 2.0}
ENGINE = {
    "loads": 1,
    "load_seconds": 21.0,
    "held_seconds": 60.0,
    "gpu_seconds": 120.0,
    "served_seconds": 40.0,
    "prompts": 19,
    "prompt_tokens": 13300,
    "cached_tokens": 10640,
    "output_tokens": 1640,
    "running_seconds": 100.0,
    "running_most": 6,
    "kv_cache_usage_seconds": 10.0,
    "kv_cache_usage_most": 0.5,
}
FIGURES = {
    "engine:shared-0": ENGINE,
    "engine": {"rows_in_flight_mean": 5.5, "rows_in_flight_most": 8.0},
}
SANDBOX_FIGURES = {"execution": {"cpu_seconds": 4.0, "busy_seconds": 6.0}}


def row(number: int, **fields: Any) -> Row:
    """A seed; `fields` override."""
    return {
        "row_id": f"{number:032x}",
        "source": "installed",
        "repository": "pkg",
        "revision": "1.0",
        "path": f"pkg/file_{number // 2}.py",
        "licenses": ["MIT"],
        "file_id": f"{number // 2:032x}",
        "function_index": number % 2,
        "seed_id": f"5eed{number:028x}",
        "seed": f"def f{number}(x: int) -> int:\n    return x + {number}",
        "name": f"f{number}",
        "line": 10 * number + 1,
        "drop_reason": None,
        **fields,
    }


def file_row(number: int, reason: str | None) -> Row:
    empty = dict.fromkeys(("function_index", "seed_id", "seed", "name", "line"))
    return row(900 + number, **empty, drop_reason=reason)


def cost(hop: str, output_tokens: int) -> Row:
    return {"hop": hop, "text": "t", "finish_reason": "stop", **HOP_COST} | {
        "output_tokens": output_tokens
    }


def sample(index: int, reason: str | None = None) -> Row:
    code = None if reason else "def g(x):\n    return x + 1"
    return {
        "sample_index": index,
        "sampling_seed": 7 + index,
        "text": f"```python\n{code}\n```",
        "finish_reason": "stop",
        "output_tokens": 100,
        "code": code,
        "tests": None if reason else "assert g(1) == 2",
        "drop_reason": reason,
    }


def hop_row(number: int, upto: int = 3, **fields: Any) -> Row:
    """A seed that went through the first `upto` hops."""
    costs = [cost("concepts", 20), cost("instruction", 50), cost("responses", 200)][:upto]
    made = {
        "concepts": ["addition", f"numbers {number}"],
        "kind": "function",
        "difficulty": "easy",
        "instruction": f"Write a function g{number}.",
        "samples": [sample(0), sample(1, "no_code")],
    }
    names = ("concepts", "kind", "difficulty", "instruction", "samples")
    filled = {1: names[:1], 2: names[:4], 3: names}[upto]
    hops = {name: made[name] if name in filled else None for name in names}
    return row(number, **hops, hops=costs, model="tiny", error=None) | fields


def executed_row(number: int, verdict: str, **fields: Any) -> Row:
    verdicts = [{"sample_index": 0, "verdict": verdict, "asserts_run": 1, "asserts_total": 1}]
    metrics = [{"sample_index": 0, "lines": 2, "asserts": 1, "trivial_asserts": number % 2}]
    found = {"verdicts": verdicts, "metrics": metrics if verdict == "passed" else []}
    reason = None if verdict == "passed" else "no_passing_sample"
    return hop_row(number) | found | {"drop_reason": reason} | fields


def selected_row(number: int, **fields: Any) -> Row:
    code, tests = "def g(x):\n    return x + 1", "assert g(1) == 2"
    response = f"```python\n{code}\n```"
    chosen = {"sample_index": 0, "response": response, "code": code, "pass_rate": 1.0}
    chosen |= {"final_instruction": f"Write a function g{number}.\n\nIt should pass: {tests}"}
    chosen |= {"sanitised": [{"sample_index": 0, "response": response, "drop_reason": None}]}
    return executed_row(number, "passed") | chosen | {"tests": tests} | fields


def stages_of_a_run() -> dict[str, tuple[list[str], pa.Schema, list[Row]]]:
    """Ten files, twelve functions, and two rows that come through."""
    return {
        "quality": (
            ["read", "functions", "quality"],
            schemas.SEED,
            [
                file_row(0, "too_large"),
                file_row(1, "too_large"),
                file_row(2, "bad_encoding"),
                file_row(3, "no_functions"),
                *(row(n) for n in range(10)),
                row(10, drop_reason="untyped"),
                row(11, drop_reason="no_docstring"),
            ],
        ),
        "unique": (
            ["unique"],
            schemas.SEED,
            [*(row(n) for n in range(9)), row(9, drop_reason="duplicate_seed")],
        ),
        "sample": (
            ["sample"],
            schemas.SEED,
            [*(row(n) for n in range(8)), row(8, drop_reason="not_sampled")],
        ),
        "responses": (
            ["concepts", "instruction", "responses"],
            schemas.HOPS,
            [
                *(hop_row(n) for n in range(5)),
                hop_row(5, samples=[sample(0, "no_code")], drop_reason="no_executable_sample"),
                hop_row(6, 1, drop_reason="instruction_unfinished"),
                row(7, hops=[], model="tiny", drop_reason="prompt_too_long"),
            ],
        ),
        "metrics": (
            ["execution", "metrics"],
            schemas.EXECUTED,
            [
                *(executed_row(n, "passed") for n in range(3)),
                executed_row(3, "assertion"),
                executed_row(4, "timeout"),
            ],
        ),
        "duplicates": (
            ["sanitise", "choose", "duplicates"],
            schemas.SELECTED,
            [
                selected_row(1),
                selected_row(0),
                selected_row(2, drop_reason="duplicate_instruction"),
            ],
        ),
    }


@pytest.fixture
def run_config(run_config: Callable[..., RunConfig]) -> Callable[..., RunConfig]:
    """Settings of the run above, whose last stage is `duplicates`."""
    return lambda *overrides: run_config("selection.novelty.enabled=false", *overrides)


def write_stage(
    run_dir: Path, name: str, group: Sequence[str], schema: pa.Schema, rows: list[Row]
) -> None:
    folder = run_dir / "stages" / name / "rows"
    folder.mkdir(parents=True, exist_ok=True)
    for part, start in enumerate(range(0, len(rows) or 1, 5)):
        table = pa.Table.from_pylist(rows[start : start + 5], schema=schema)
        pq.write_table(table, folder / f"{part}.parquet")
    counts = Counter(r["drop_reason"] or "kept" for r in rows)
    manifest = {
        "stage": name,
        "stages": list(group),
        "fingerprint": f"print-{name}",
        "rows": {"kept": 0, **counts},
        "seconds": 60.0,
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:01:00+00:00",
        "work_seconds": 40.0 if "responses" in group else None,
        "figures": {"responses": FIGURES, "metrics": SANDBOX_FIGURES}.get(name, {}),
    }
    (folder.parent / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """`write_run(metrics=rows)`: the run above in tmp_path, some stages' rows replaced.

    None instead of rows leaves a stage out.
    """

    def write(**replaced: list[Row] | None) -> Path:
        run_dir = tmp_path / "run"
        for name, (group, schema, rows) in stages_of_a_run().items():
            chosen = replaced.get(name, rows)
            if chosen is not None:
                write_stage(run_dir, name, group, schema, chosen)
        return run_dir

    return write
