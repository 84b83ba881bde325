"""The few accepted pairs that the report shows whole."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from selfalign_ray.ids import keyed_int
from selfalign_ray.report.exports import DATASET_COLUMNS, dataset_row, dataset_stage
from selfalign_ray.report.md import fenced
from selfalign_ray.report.saved import Row, SavedStage, to_rows


def pick(stages: Sequence[SavedStage], number: int, run_seed: int) -> list[Row]:
    """Rows of the data set, drawn by the run's seed and their ids."""
    stage = dataset_stage(stages)
    if stage is None or not number:
        return []
    best = heapq.nsmallest(
        number,
        (
            (keyed_int(63, run_seed, "report", row_id), row_id)
            for batch in stage.batches(["row_id"], dropped=False)
            for row_id in batch["row_id"].to_pylist()
        ),
    )
    wanted = {row_id: place for place, (_, row_id) in enumerate(best)}
    return sorted(_rows(stage, wanted), key=lambda row: wanted[row["row_id"]])


def show(row: Row, number: int, limit: int) -> str:
    """One pair as Markdown: seed, concepts, instruction, response, tests, verdict."""
    origin = row["origin"]
    place = " ".join(filter(None, [origin["repository"], origin["revision"]]))
    licenses = ", ".join(origin["licenses"] or ["none found"])
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


def _rows(stage: SavedStage, wanted: dict[str, int]) -> Iterator[Row]:
    for batch in stage.batches(DATASET_COLUMNS, dropped=False):
        ids = batch["row_id"].to_pylist()
        chosen = [index for index, row_id in enumerate(ids) if row_id in wanted]
        if chosen:
            yield from (dataset_row(row) for row in to_rows(batch.take(chosen)))
