"""Execution: each sample's solution and tests run in the sandbox, and nowhere else."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pyarrow as pa
from ray.data import Dataset

from selfalign_ray import schemas
from selfalign_ray.config import RunConfig
from selfalign_ray.sandbox.pool import Sandbox
from selfalign_ray.sandbox.verdict import Verdict
from selfalign_ray.validation.sandboxes import in_sandboxes
from selfalign_ray.watch.tally import count

Row = dict[str, Any]
_COLUMNS = frozenset(field.name for field in schemas.VERDICT)


def execution(ds: Dataset, cfg: RunConfig, *, stage: str = "execution") -> Dataset:
    """Adds `verdicts`, one for each sample that can be executed and was not.

    Args:
        ds: `schemas.HOPS` or `schemas.JUDGED` rows.
        cfg: the sections `validation.execution` and `sandbox`.
        stage: what its rows are counted under; samples of all rounds are under `execution`.

    Returns:
        `schemas.JUDGED` rows, as many as came in, in any order. Drop reasons of a row none of
        whose samples passed: no_executable_sample, not one could be executed; sandbox_failed, the
        sandbox itself failed on one of them; no_passing_sample.
    """
    return in_sandboxes(ds, stage, add_verdicts, cfg.sandbox, cfg.validation.execution)


def add_verdicts(block: pa.Table, sandbox: Sandbox) -> pa.Table:
    """The block with the verdicts of all its samples, which are judged together."""
    rows = block.to_pylist()
    programs = [(row, sample) for row in rows for sample in executable(row)]
    began = time.monotonic()
    verdicts = sandbox.judge([(s["code"], s["tests"]) for _, s in programs])
    count("execution", busy_seconds=time.monotonic() - began)
    for row in rows:
        row["verdicts"] = row.get("verdicts") or []
    for (row, sample), verdict in zip(programs, verdicts, strict=True):
        row["verdicts"].append(verdict_row(sample["sample_index"], verdict))
        count("execution", samples=1, cpu_seconds=verdict.cpu_seconds, **{verdict.verdict: 1})
    for row in rows:
        row["drop_reason"] = row["drop_reason"] or reason_of(row["verdicts"])
    return pa.Table.from_pylist(rows, schema=schemas.JUDGED)


def executable(row: Row) -> list[Row]:
    """The samples of a kept row that have code and tests, and no verdict yet."""
    if row["drop_reason"] is not None:
        return []
    judged = {verdict["sample_index"] for verdict in row.get("verdicts") or ()}
    return [
        sample
        for sample in row["samples"] or ()
        if sample["drop_reason"] is None and sample["sample_index"] not in judged
    ]


def verdict_row(sample_index: int, verdict: Verdict) -> Row:
    """The columns of `schemas.VERDICT`; what a program printed is not kept."""
    fields = dataclasses.asdict(verdict) | {"sample_index": sample_index}
    return {name: value for name, value in fields.items() if name in _COLUMNS}


def reason_of(verdicts: list[Row]) -> str | None:
    """Why a row with these verdicts stops; None where a sample passed."""
    names = {verdict["verdict"] for verdict in verdicts}
    if "passed" in names:
        return None
    if not names:
        return "no_executable_sample"
    return "sandbox_failed" if "infra" in names else "no_passing_sample"
