"""decontamination and final_decontamination: no row holds a benchmark's text."""

from __future__ import annotations

import dataclasses
import functools as ft
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.data import Dataset

from selfalign_ray import schemas
from selfalign_ray.blocks import by_block, with_columns
from selfalign_ray.config import RunConfig
from selfalign_ray.decontamination.benchmarks import read_benchmarks, states_of_benchmarks
from selfalign_ray.decontamination.config import DecontaminationConfig
from selfalign_ray.decontamination.index import Content, Hit, Index, build_index, find
from selfalign_ray.settings import deciding
from selfalign_ray.stage import fingerprint_of, read_record, write_record

BENCHMARKS = "benchmarks.json"  # in the run_dir: which the last stage to look has checked
_ROWS_AT_ONCE = 500  # whose tokens are in memory together
REASON = "benchmark_text"


def decontamination(ds: Dataset, cfg: RunConfig) -> Dataset:
    """Marks the seeds that hold a benchmark's text.

    Args:
        ds: `schemas.SEED` rows.
        cfg: the group `decontamination`.

    Returns:
        The same rows; rows dropped before pass through. Drop reason: benchmark_text, with
        `benchmark_hits`, which also holds near misses of rows that are kept.

    Raises:
        UserError: a benchmark cannot be read.
    """
    return _decontaminated(ds, cfg, ("seed",), "seed")


def final_decontamination(ds: Dataset, cfg: RunConfig) -> Dataset:
    """Marks the pairs whose instruction, response, code or tests hold a benchmark's text.

    Args:
        ds: `schemas.SELECTED` rows.
        cfg: the group `decontamination`.

    Returns:
        The same rows, as `decontamination` returns them.

    Raises:
        UserError: a benchmark cannot be read.
    """
    return _decontaminated(ds, cfg, ("final_instruction", "response", "code", "tests"), "code")


def benchmarks_said(cfg: RunConfig) -> dict[str, Any]:
    """Which benchmarks a stage that has just begun is checked against, and which not.

    Raises:
        UserError: a benchmark cannot be read.
    """
    said = read_record(Path(cfg.run_dir) / BENCHMARKS)
    if said is None or said.get("of") != _of(cfg):  # the stage has no row left to look at
        _record_benchmarks(cfg)
        said = read_record(Path(cfg.run_dir) / BENCHMARKS)
    assert said is not None
    return {name: said[name] for name in ("benchmarks", "solutions_not_sought")}


def _of(cfg: RunConfig) -> str:
    settings = cfg.decontamination
    return fingerprint_of([deciding(settings), states_of_benchmarks(settings)])


def _record_benchmarks(cfg: RunConfig) -> Index:
    """Reads the benchmarks, and leaves in the run_dir which were checked and which were not.

    Raises:
        UserError: a benchmark cannot be read.
    """
    of = _of(cfg)
    found, states = read_benchmarks(cfg.decontamination)
    index = build_index(found, cfg.decontamination)
    said = {
        "of": of,
        "benchmarks": [dataclasses.asdict(state) for state in states],
        "solutions_not_sought": index.trivial,
    }
    write_record(Path(cfg.run_dir) / BENCHMARKS, said)
    return index


def _decontaminated(ds: Dataset, cfg: RunConfig, texts: Sequence[str], code: str) -> Dataset:
    index = _record_benchmarks(cfg)
    judge = ft.partial(
        _judged, index=ray.put(index), cfg=cfg.decontamination, texts=texts, code=code
    )
    return by_block(ds, judge)


def judged(
    rows: pa.Table, index: Index, cfg: DecontaminationConfig, texts: Sequence[str], code: str
) -> pa.Table:
    """A block of rows with `benchmark_hits` and the reasons filled in.

    Args:
        rows: with `drop_reason` and the columns named.
        index: of the benchmarks.
        cfg: the settings.
        texts: columns that are searched as text.
        code: the column that is searched by tree.
    """
    reasons = rows["drop_reason"].to_pylist()
    hits: list[list[Hit] | None] = [None] * len(reasons)
    waiting = [place for place, reason in enumerate(reasons) if reason is None]
    for start in range(0, len(waiting), _ROWS_AT_ONCE):
        places = waiting[start : start + _ROWS_AT_ONCE]
        some = rows.select(list(dict.fromkeys([*texts, code]))).take(pa.array(places)).to_pylist()
        contents = [Content(tuple(r[name] or "" for name in texts), r[code] or "") for r in some]
        for place, found in zip(places, find(contents, index, cfg), strict=True):
            hits[place] = found
            if any(not hit["near"] for hit in found):
                reasons[place] = REASON
    # Of seeds and of selected rows, these columns are the same.
    return with_columns(rows, schemas.SEED, benchmark_hits=hits, drop_reason=reasons)


def _judged(
    rows: pa.Table,
    index: ray.ObjectRef[Index],
    cfg: DecontaminationConfig,
    texts: Sequence[str],
    code: str,
) -> pa.Table:
    return judged(rows, _index(index), cfg, texts, code)


@ft.lru_cache(maxsize=1)
def _index(index: ray.ObjectRef[Index]) -> Index:
    """The index, read once in each worker."""
    found: Index = ray.get(index)
    return found
