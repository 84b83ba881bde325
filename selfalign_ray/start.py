"""Entering the pipeline in the middle, with rows that were made elsewhere."""

from __future__ import annotations

import glob
import json
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.data import Dataset

from selfalign_ray.blocks import by_block
from selfalign_ray.config import RunConfig
from selfalign_ray.errors import UserError, first_line
from selfalign_ray.hops.parse import parse_response
from selfalign_ray.ids import content_id
from selfalign_ray.stage import Stage

Row = dict[str, Any]


def read_rows(cfg: RunConfig, stage: Stage) -> Dataset:
    """The rows of `start.rows` with the columns that `start.stage` needs.

    Columns of ours that a row lacks are null, ids are made from content, and `response`, a text,
    serves as the one sample where there is no list `samples`, with the `tests` beside it where it
    holds none; `snippet` or `code` serves as `seed`. A data set of ours is read as it is: a row is
    of its `origin`, and its instruction is the plain one.

    Raises:
        UserError: no file fits, a file cannot be read, or a needed column is missing.
    """
    assert cfg.start.rows is not None
    paths = files_at(cfg.start.rows)
    parquet = [path for path in paths if path.endswith(".parquet")]
    if parquet and len(parquet) != len(paths):
        raise UserError("start.rows: give Parquet files or JSONL files, not both")
    try:
        ds = ray.data.read_parquet(paths) if parquet else ray.data.read_json(paths)
        names = (ds.schema() or pa.schema([])).names
    except (ray.exceptions.RayError, pa.ArrowInvalid, OSError) as error:
        reason = first_line(getattr(error, "cause", error))
        raise UserError(f"start.rows: cannot read {cfg.start.rows}: {reason}") from error
    missing = [need for need in stage.needs if not _has(need, names)]
    if missing:
        others = [f"{name} will do for {n}" for n in missing for name in _OTHER_NAMES.get(n, ())]
        raise UserError(
            f"start.rows: {cfg.start.rows} lacks {', '.join(missing)}, which start.stage="
            f"{stage.name} needs; it has {', '.join(names)}. Name its columns so"
            f"{''.join(f' ({other})' for other in others)}, or start at a stage that needs less"
        )
    adopt = partial(
        _adopt, stage=stage, source=Path(paths[0]).name, heading=cfg.recipe.tests_heading
    )
    return by_block(ds, adopt)


def files_at(pattern: str) -> list[str]:
    """The files of `start.rows`, sorted.

    Raises:
        UserError: no file fits.
    """
    paths = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  a glob of any root
    if not paths:
        raise UserError(f"start.rows: no file fits {pattern}")
    return paths


_OTHER_NAMES = {"seed": ("snippet", "code"), "samples": ("response",)}


def _has(need: str, names: list[str]) -> bool:
    return need in names or any(name in names for name in _OTHER_NAMES.get(need, ()))


def _adopt(block: pa.Table, *, stage: Stage, source: str, heading: str | None) -> pa.Table:
    _check_texts(block, stage, source)
    rows = [adopted(row, stage, source, heading) for row in block.to_pylist()]
    columns = [_column([row[f.name] for row in rows], f, stage, source) for f in stage.gives]
    return pa.Table.from_arrays(columns, schema=stage.gives)


def _check_texts(block: pa.Table, stage: Stage, source: str) -> None:
    """That the columns that are read before they are typed are texts."""
    others = [name for need in stage.needs for name in _OTHER_NAMES.get(need, ())]
    for name in block.column_names:
        kind = block[name].type
        if name in others and not (pa.types.is_null(kind) or pa.types.is_string(kind)):
            raise UserError(_wrong(source, name, pa.string(), stage, f"it is {kind}"))


def _column(values: list[Any], field: pa.Field, stage: Stage, source: str) -> pa.Array:
    try:
        return pa.array(values, field.type)
    except (pa.ArrowException, TypeError, ValueError, AttributeError) as error:
        wrong = _wrong(source, field.name, field.type, stage, first_line(error))
        raise UserError(wrong) from error


def _wrong(source: str, name: str, kind: pa.DataType, stage: Stage, reason: str) -> str:
    return (
        f"start.rows: {source}: the column {name} must be {kind} for start.stage={stage.name}: "
        f"{reason}. Give it that type, or leave it out or name it otherwise where it is not ours"
    )


def adopted(row: Row, stage: Stage, source: str, heading: str | None) -> Row:
    """A foreign row in our columns. What cannot be read is null, and its drop_reason says so."""
    if isinstance(row.get("origin"), dict):
        row = {**row["origin"], **row}
    if isinstance(row.get("plain_instruction"), str):
        row = {**row, "instruction": row["plain_instruction"]}
    if heading is None and isinstance(row.get("tests"), str):  # the recipe has them apart
        row = {"independent_tests": row["tests"], **row}
    known = {field.name: row.get(field.name) for field in stage.gives}
    if "hops" in known:
        known["hops"] = None  # what they cost elsewhere is no cost of this run
    if "seed" in stage.needs:
        known["seed"] = known.get("seed") or row.get("snippet") or row.get("code")
    concepts = row.get("concepts")
    if isinstance(concepts, str):
        known["concepts"] = [part.strip() for part in concepts.split(",") if part.strip()]
    if isinstance(row.get("response"), str) and not isinstance(known.get("samples"), list):
        known["samples"] = [_sample(row, heading)]
    whole = json.dumps(row, sort_keys=True, default=str)
    known["seed_id"] = known.get("seed_id") or content_id(whole)
    known["row_id"] = known.get("row_id") or content_id(
        source, str(row.get("path")), known["seed_id"]
    )
    known["source"] = known.get("source") or source
    known["path"] = known.get("path") or source
    lacking = [need for need in stage.needs if known.get(need) in (None, "", [])]
    known["drop_reason"] = known.get("drop_reason") or (f"no_{lacking[0]}" if lacking else None)
    return known


def _sample(row: Row, heading: str | None) -> Row:
    text, beside = row["response"], row.get("tests")
    parsed = parse_response(text, heading, row.get("independent_tests"))
    if heading is not None and parsed.drop_reason == "no_tests" and isinstance(beside, str):
        text = f"{text}\n\n{heading}\n```python\n{beside}\n```"
        parsed = parse_response(text, heading)
    return {
        "sample_index": 0,
        "text": text,
        "finish_reason": "stop",
        "code": parsed.code,
        "tests": parsed.tests,
        "drop_reason": parsed.drop_reason,
    }
