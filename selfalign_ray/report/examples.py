"""The few accepted pairs that the report shows whole."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence

from selfalign_ray.ids import keyed_int
from selfalign_ray.report.exports import DATASET_COLUMNS, dataset_row, dataset_stage
from selfalign_ray.report.md import fenced
from selfalign_ray.report.saved import Row, SavedStage, to_rows

_ID = ("row_id", "sample_index")


def pick(stages: Sequence[SavedStage], number: int, run_seed: int) -> list[Row]:
    """Rows of the data set, drawn by the run's seed and their ids."""
    stage = dataset_stage(stages)
    if stage is None or not number:
        return []
    best = heapq.nsmallest(
        number,
        (
            (keyed_int(63, run_seed, "report", row_id), row_id, sample_index or 0)
            for batch in stage.batches(list(_ID), dropped=False)
            for row_id, sample_index in zip(*(batch[n].to_pylist() for n in _ID), strict=True)
        ),
    )
    wanted = {(row_id, index): place for place, (_, row_id, index) in enumerate(best)}
    found = _rows(stage, wanted)
    return sorted(found, key=lambda row: wanted[row["row_id"], row["sample_index"] or 0])


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


def _rows(stage: SavedStage, wanted: Mapping[tuple[str, int], int]) -> Iterator[Row]:
    for batch in stage.batches(DATASET_COLUMNS, dropped=False):
        ids = zip(*(batch[name].to_pylist() for name in _ID), strict=True)
        chosen = [n for n, (row_id, index) in enumerate(ids) if (row_id, index or 0) in wanted]
        if chosen:
            yield from (dataset_row(row) for row in to_rows(batch.take(chosen)))
