"""Which benchmarks a run was checked against, and what was found of them in its rows."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfalign_ray.decontamination.benchmarks import CHECKED, OFF
from selfalign_ray.report.md import cell, percent, table
from selfalign_ray.report.saved import Row, SavedStage, holding

STAGES = ("decontamination", "final_decontamination")
_SHOWN = 20  # hits, and as many near misses


@dataclass(frozen=True, kw_only=True)
class Contamination:
    """What the report says of benchmarks."""

    benchmarks: list[Row]  # as `State`, each with the stages of which it is so
    not_sought: int  # solutions
    stages: list[str]  # that looked for them
    rows: Counter[tuple[str, str, bool]]  # rows by stage, benchmark and whether a near miss
    hits: list[Row]  # the first by row, hits and near misses apart


def take_contamination(stages: Sequence[SavedStage]) -> Contamination | None:
    """Reads the hits of the saved stages; None where none of them looked for benchmarks."""
    looked = [name for name in STAGES if holding(stages, name)]
    if not looked:
        return None
    said = {name: _said(stages, name) for name in looked}
    rows: Counter[tuple[str, str, bool]] = Counter()
    shown: dict[bool, list[Row]] = {False: [], True: []}
    for stage in looked:
        for hits in _rows_with_hits(stages, stage):
            rows.update({(stage, hit["benchmark"], hit["near"]) for hit in hits})
            for hit in hits:
                first = shown[hit["near"]]
                bisect.insort(first, hit, key=_rank)
                del first[_SHOWN:]
    return Contamination(
        benchmarks=_benchmarks(said),
        not_sought=max(each["solutions_not_sought"] for each in said.values()),
        stages=looked,
        rows=rows,
        hits=[*shown[False], *shown[True]],
    )


def _said(stages: Sequence[SavedStage], name: str) -> Row:
    """What a stage was checked against, which may be another run's, of another day."""
    stage = holding(stages, name)
    assert stage is not None
    said: Row = stage.manifest["said"][name]
    return said


def _benchmarks(said: Mapping[str, Row]) -> list[Row]:
    """The states of each benchmark: one where all stages found it alike."""
    found: list[Row] = []
    for stage, each in said.items():
        for state in each["benchmarks"]:
            same = next(
                (row for row in found if row | {"stages": 0} == state | {"stages": 0}), None
            )
            if same is None:
                found.append(state | {"stages": [stage]})
            else:
                same["stages"].append(stage)
    names = [row["benchmark"] for row in found]
    return sorted(found, key=lambda row: names.index(row["benchmark"]))


def hit_lines(stages: Sequence[SavedStage]) -> Iterator[Row] | None:
    """Every hit and near miss with its stage and row; None where no stage looked."""
    looked = [name for name in STAGES if holding(stages, name)]
    if not looked:
        return None
    return (hit for name in looked for hits in _rows_with_hits(stages, name) for hit in hits)


def as_markdown(found: Contamination | None) -> str:
    """The section; empty where no stage looked for benchmarks."""
    if found is None:
        return ""
    head = ["benchmark", "", "revision", "items"]
    head += [f"{name}, {kind}" for name in found.stages for kind in ("rows dropped", "near misses")]
    lines = [
        (
            each["benchmark"],
            each["state"],
            each["revision"],
            each["items"] if each["state"] == CHECKED else None,
            *(
                found.rows[stage, each["benchmark"], near]
                if each["state"] == CHECKED and stage in each["stages"]
                else None
                for stage in found.stages
                for near in (False, True)
            ),
        )
        for each in found.benchmarks
    ]
    texts = [_unchecked(found), table(head, lines, numbers=len(head) - 3)]
    hits = [
        (
            hit["stage"],
            "near miss" if hit["near"] else "hit",
            hit["row_id"],
            f"{hit['benchmark']} {hit['item']}",
            f"{hit['part']} by {hit['method']}",
            percent(hit["share"]),
            hit["text"],
        )
        for hit in found.hits
    ]
    texts.append(table(("stage", "", "row", "item", "how", "share", "text"), hits))
    texts.append(
        f"{found.not_sought:,} solutions are too short or allowed and were not sought. A task or "
        "solution that says the same in other words is not found. Every hit and near miss: "
        "benchmark_hits.jsonl."
    )
    return "\n\n".join(text for text in texts if text)


def _unchecked(found: Contamination) -> str:
    others = [
        f"{cell(each['benchmark'])} ({cell(each['detail'] or each['state'])}"
        f"{'' if each['stages'] == found.stages else ', in ' + each['stages'][0]})"
        for each in found.benchmarks
        if each["state"] != CHECKED
    ]
    if not others:
        return ""
    hint = " `decontamination=all` checks all."
    is_off = any(each["state"] == OFF for each in found.benchmarks)
    return f"**Not checked: {', '.join(others)}.**{hint if is_off else ''}"


def _rows_with_hits(stages: Sequence[SavedStage], name: str) -> Iterator[list[Row]]:
    stage = holding(stages, name)
    assert stage is not None
    columns = ["row_id", "seed_id", "repository", "path", "name", "benchmark_hits"]
    for batch in stage.batches(columns):
        for row in batch.to_pylist():
            hits: list[dict[str, Any]] = row.pop("benchmark_hits") or []
            if hits:
                yield [{"stage": name, **row, **hit} for hit in hits]


def _rank(hit: Row) -> tuple[float, str, str]:
    return -hit["share"], hit["row_id"], f"{hit['benchmark']} {hit['item']}"
