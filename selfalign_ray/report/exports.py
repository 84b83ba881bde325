"""The files for people and trainers: JSON Lines of what each part of the pipeline made.

Their columns have the names that `start.rows` takes, so each file can enter the pipeline again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from selfalign_ray import schemas
from selfalign_ray.report.contamination import hit_lines
from selfalign_ray.report.lines import SortedLines
from selfalign_ray.report.saved import Row, SavedStage, holding, last_seen
from selfalign_ray.validation.gates import GATED

log = logging.getLogger(__name__)

FUNCTIONS = "filtered_functions.jsonl"
CONCEPTS = "concepts.jsonl"
INSTRUCTIONS = "instructions.jsonl"
RESPONSES = "responses.jsonl"
DATASET = "instruction_dataset.jsonl"
HITS = "benchmark_hits.jsonl"

_SEEDS = (
    *("quality", "typecheck", "unique", "near_duplicates", "decontamination", "sample"),
    "docstring_judge",
)
_SEED_COLUMNS = [name for name in schemas.SEED.names if name in schemas.HOPS.names]
_SEED_COLUMNS.remove("drop_reason")
_CONCEPTS_COLUMNS = [*_SEED_COLUMNS, "concepts", "model"]
_INSTRUCTION_COLUMNS = [*_SEED_COLUMNS, "concepts", "kind", "difficulty", "instruction", "model"]
_NOT_IN_DATASET = ("hops", "sanitised", "error", "benchmark_hits", "agreement", "drop_reason")
DATASET_COLUMNS = [name for name in schemas.SELECTED.names if name not in _NOT_IN_DATASET]
ORIGIN_COLUMNS = [field.name for field in schemas.ORIGIN if field.name != "row_id"]


def write_exports(run_dir: Path, stages: Sequence[SavedStage], sort_mb: int) -> dict[str, int]:
    """Writes each file whose stage there is, in the order of the rows' ids.

    A file of an earlier run whose stage is not there any more is removed.

    Returns:
        The number of lines in each file written.
    """
    written = {}
    for name, rows in (
        (FUNCTIONS, _functions(stages)),
        (CONCEPTS, _filled(stages, "concepts", _CONCEPTS_COLUMNS)),
        (INSTRUCTIONS, _filled(stages, "instruction", _INSTRUCTION_COLUMNS)),
        (RESPONSES, _responses(stages)),
        (DATASET, _dataset(stages)),
        (HITS, hit_lines(stages)),
    ):
        if rows is None:
            (run_dir / name).unlink(missing_ok=True)
            continue
        with SortedLines(run_dir / name, sort_mb * 1024 * 1024) as lines:
            for row in rows:
                lines.add((row["row_id"] or "", row.get("sample_index") or 0), row)
        written[name] = lines.written
        log.info("%s: %s lines", name, f"{lines.written:,}")
    return written


def dataset_stage(stages: Sequence[SavedStage]) -> SavedStage | None:
    """The stage whose kept rows are the data set; None where the run stopped before it."""
    return next((stage for stage in stages if stage.gives_dataset), None)


def _functions(stages: Sequence[SavedStage]) -> Iterator[Row] | None:
    last = [stage for stage in stages if stage.name in _SEEDS][-1:]
    return _rows(last[0].batches(_SEED_COLUMNS, dropped=False)) if last else None


def _filled(
    stages: Sequence[SavedStage], name: str, columns: Sequence[str]
) -> Iterator[Row] | None:
    """The rows in which a hop has filled its column, wherever they stopped later."""
    stage = holding(stages, name)
    if stage is None:
        return None
    return (row for row in _rows(stage.batches(columns)) if row[name])


def _responses(stages: Sequence[SavedStage]) -> Iterator[Row] | None:
    if holding(stages, "responses") is None and holding(stages, "execution") is None:
        return None
    columns = ["row_id", "seed_id", *ORIGIN_COLUMNS, "instruction", "model", "samples", "verdicts"]
    tables = last_seen(stages, ("responses", "execution", "metrics"), columns)
    return (line for row in _rows(tables) for line in _sample_lines(row))


def _sample_lines(row: Row) -> Iterator[Row]:
    samples = row.pop("samples") or ()
    verdicts = {verdict["sample_index"]: verdict for verdict in row.pop("verdicts") or ()}
    for sample in samples:
        verdict = verdicts.get(sample["sample_index"], {})
        yield {
            **row,
            "sample_index": sample["sample_index"],
            "response": sample["text"],
            "code": sample["code"],
            "tests": sample["tests"],
            "finish_reason": sample["finish_reason"],
            "output_tokens": sample["output_tokens"],
            "drop_reason": sample["drop_reason"],
            "verdict": verdict.get("verdict"),
            "detail": verdict.get("detail"),
        }


def _dataset(stages: Sequence[SavedStage]) -> Iterator[Row] | None:
    stage = dataset_stage(stages)
    if stage is None:
        return None
    return (dataset_row(row) for row in _rows(stage.batches(DATASET_COLUMNS, dropped=False)))


def dataset_row(row: Row) -> Row:
    """One line of the data set: the pair, what it came from, and how it was judged."""
    chosen = row["sample_index"]
    verdicts = row["verdicts"] or []
    return {
        "row_id": row["row_id"],
        "seed_id": row["seed_id"],
        "instruction": row["final_instruction"],
        "response": row["response"],
        "code": row["code"],
        "tests": row["tests"],
        "plain_instruction": row["instruction"],  # without the tests that a share of them shows
        "concepts": row["concepts"],
        "kind": row["kind"],
        "difficulty": row["difficulty"],
        "seed": row["seed"],
        "origin": {name: row[name] for name in [*ORIGIN_COLUMNS, "name", "line"]},
        "model": row["model"],
        "sample_index": chosen,
        "samples": len(row["samples"] or ()),
        "samples_executed": len(verdicts),
        "samples_passed": sum(verdict["verdict"] == "passed" for verdict in verdicts),
        "pass_rate": row["pass_rate"],
        "verdict": of_sample(verdicts, chosen),
        **{name: of_sample(row[name] or [], chosen) for name in GATED},
    }


def of_sample(items: Sequence[Row], sample_index: int | None) -> Row | None:
    """The item that says something of a sample."""
    return next((item for item in items if item["sample_index"] == sample_index), None)


def _rows(tables: Iterator[pa.Table]) -> Iterator[Row]:
    for table in tables:
        yield from table.to_pylist()
