"""Execution: each sample's solution and tests run in the sandbox, and nowhere else."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset

from selfalign_ray import schemas
from selfalign_ray.config import RunConfig
from selfalign_ray.sandbox.config import SandboxConfig
from selfalign_ray.sandbox.pool import Sandbox
from selfalign_ray.sandbox.verdict import Verdict
from selfalign_ray.watch.tally import count, flush, gauge

Row = dict[str, Any]
_COLUMNS = frozenset(field.name for field in schemas.VERDICT)


def execution(ds: Dataset | None, cfg: RunConfig) -> Dataset:
    """Adds `verdicts`, one for each sample that can be executed and was not.

    Args:
        ds: `schemas.HOPS` or `schemas.JUDGED` rows.
        cfg: the sections `validation.execution` and `sandbox`.

    Returns:
        `schemas.JUDGED` rows, as many as came in, in any order. Drop reasons of a row none of
        whose samples passed: no_executable_sample, not one could be executed; sandbox_failed, the
        sandbox itself failed on one of them; no_passing_sample.
    """
    assert ds is not None
    section = cfg.validation.execution
    most = max(1, int(ray.cluster_resources().get("CPU", 1)))
    blocks = ds.repartition(target_num_rows_per_block=section.rows_per_block)
    return blocks.map_batches(
        _SandboxActor,
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=section.actors or 1, max_size=section.actors or most),
        num_cpus=section.num_cpus,
        fn_constructor_kwargs={"config": cfg.sandbox},
    )


class _SandboxActor:
    """One sandbox with its slots; the samples of a block are judged together."""

    def __init__(self, *, config: SandboxConfig) -> None:
        self._sandbox = Sandbox(config)

    def __call__(self, block: pa.Table) -> pa.Table:
        rows = block.to_pylist()
        gauge("execution", rows_in_flight=len(rows))
        programs = [(row, sample) for row in rows for sample in executable(row)]
        began = time.monotonic()
        verdicts = self._sandbox.judge([(s["code"], s["tests"]) for _, s in programs])
        count("execution", busy_seconds=time.monotonic() - began)
        for row in rows:
            row["verdicts"] = row.get("verdicts") or []
        for (row, sample), verdict in zip(programs, verdicts, strict=True):
            row["verdicts"].append(verdict_row(sample["sample_index"], verdict))
            count("execution", samples=1, cpu_seconds=verdict.cpu_seconds, **{verdict.verdict: 1})
        for row in rows:
            row["drop_reason"] = row["drop_reason"] or reason_of(row["verdicts"])
        count("execution", rows=len(rows))
        gauge("execution", rows_in_flight=0)
        flush()  # the actor is killed right after its last block
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
