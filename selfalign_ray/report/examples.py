"""The few accepted pairs that the report shows whole."""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterator, Sequence

import pyarrow as pa

from selfalign_ray.ids import keyed_int
from selfalign_ray.report.exports import DATASET_COLUMNS, dataset_row, dataset_stage
from selfalign_ray.report.figures import NO_LICENSE
from selfalign_ray.report.lines import Key
from selfalign_ray.report.md import fenced
from selfalign_ray.report.saved import Row, SavedStage

_KEY = ("row_id", "sample_index")  # of a row of the data set


def pick(stages: Sequence[SavedStage], number: int, run_seed: int) -> list[Row]:
    """Rows of the data set, drawn by the run's seed and their ids."""
    stage = dataset_stage(stages)
    if stage is None or not number:
        return []
    best = heapq.nsmallest(
        number,
        (
            (keyed_int(63, run_seed, "report", row_id, str(sample_index)), row_id, sample_index)
            for batch in stage.batches(_KEY, dropped=False)
            for row_id, sample_index in _keys(batch)
        ),
    )
    wanted = {(row_id, sample_index): place for place, (_, row_id, sample_index) in enumerate(best)}
    return sorted(
        _rows(stage, wanted), key=lambda row: wanted[row["row_id"], row["sample_index"] or 0]
    )


def _keys(batch: pa.Table) -> Iterator[Key]:
    for row_id, sample_index in zip(*(batch[name].to_pylist() for name in _KEY), strict=True):
        yield row_id, sample_index or 0


def show(row: Row, number: int, limit: int) -> str:
    """One pair as Markdown: seed, concepts, instruction, response, tests, verdict."""
    origin = row["origin"]
    place = " ".join(filter(None, [origin["repository"], origin["revision"]]))
    licenses = ", ".join(origin["licenses"] or [NO_LICENSE])
    verdict = row["verdict"] or {}
    judged = f"{verdict.get('verdict')}, {verdict.get('asserts_run')} asserts run"
    of_all = f"{row['samples_passed']} of {row['samples']} samples passed"
    parts = [
        f"### Example {number}",
        "Seed:",
        fenced(f"{place} {origin['path']}:{origin['line']} ({licenses})", "text"),
        fenced(row["seed"] or "", "python", limit),
        "Concepts:",
        fenced(", ".join(row["concepts"] or []), "text", limit),
        "Instruction:",
        fenced(row["instruction"] or "", "text", limit),
        "Response:",
        fenced(row["response"] or "", "markdown", limit),
        "Tests:",
        fenced(row["tests"] or "", "python", limit),
        f"Verdict: {judged}; {of_all}.",
    ]
    return "\n\n".join(parts)


def _rows(stage: SavedStage, wanted: Container[Key]) -> Iterator[Row]:
    for batch in stage.batches(DATASET_COLUMNS, dropped=False):
        chosen = [index for index, key in enumerate(_keys(batch)) if key in wanted]
        if chosen:
            yield from (dataset_row(row) for row in batch.take(chosen).to_pylist())
