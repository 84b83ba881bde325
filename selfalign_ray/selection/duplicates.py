"""Duplicates: no instruction and no code twice in the data set."""

from __future__ import annotations

import ast
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa
from ray.data import Dataset

from selfalign_ray.config import RunConfig
from selfalign_ray.ids import content_id, keyed_int
from selfalign_ray.validation.definitions import definitions, parse

Row = dict[str, Any]
_KEY = "duplicates_key"
_PART = "duplicates_part"


def duplicates(ds: Dataset, cfg: RunConfig) -> Dataset:
    """Keeps one row of each group of equals.

    Rows have an order of their own, drawn by `seed_id`. The rule, in two steps:

    1. Of the kept rows with the same instruction, the first in that order stays; the others are
       duplicate_instruction. Equal are instructions that differ in case and white space alone.
    2. Of the rows that are then still kept and have the same code, the first in that order
       stays; the others are duplicate_response. Equal is code that differs in comments,
       docstrings and layout alone.

    So no two kept rows agree in either, and the result does not depend on how rows are spread.
    A row may fall to one that falls itself in the second step: an instruction can be lost to
    another's equal code, and none is kept for it.

    Args:
        ds: `schemas.SELECTED` rows.
        cfg: the section `selection.duplicates`.

    Returns:
        `schemas.SELECTED` rows, as many as came in, in any order.
    """
    section = cfg.selection.duplicates
    steps = [
        (section.by_instruction, instruction_key, "duplicate_instruction"),
        (section.by_code, code_key, "duplicate_response"),
    ]
    for enabled, key_of, reason in steps:
        if enabled:
            keyed = ds.map_batches(
                partial(add_key, key_of=key_of, parts=section.partitions),
                batch_size=None,
                batch_format="pyarrow",
            )
            ds = keyed.groupby(_PART, num_partitions=section.partitions).map_groups(
                partial(keep_first, reason=reason, run_seed=cfg.run_seed), batch_format="pyarrow"
            )
    return ds


def add_key(batch: pa.Table, key_of: Callable[[Row], str], parts: int) -> pa.Table:
    """The batch with a key that equals share, and the part of the shuffle where they meet.

    Many keys share a part: calling a function for each part is faster than for each key.
    """
    rows = batch.select(["row_id", "instruction", "code", "drop_reason"]).to_pylist()
    dropped = [row["drop_reason"] is not None for row in rows]
    keys = [None if out else key_of(row) for row, out in zip(rows, dropped, strict=True)]
    spread = [key or content_id(row["row_id"]) for row, key in zip(rows, keys, strict=True)]
    found = [int(key[:8], 16) % parts for key in spread]
    return batch.append_column(_KEY, pa.array(keys, pa.string())).append_column(
        _PART, pa.array(found, pa.int32())
    )


def keep_first(part: pa.Table, reason: str, run_seed: int) -> pa.Table:
    """One part without its keys: of rows with the same key, all but the first have the reason."""
    rows = part.select([_KEY, "seed_id", "row_id", "drop_reason"]).to_pylist()
    first: dict[str, int] = {}
    for index in sorted(range(len(rows)), key=lambda index: _place(rows[index], run_seed)):
        first.setdefault(rows[index][_KEY], index)
    reasons = [
        row["drop_reason"] if row[_KEY] is None or first[row[_KEY]] == index else reason
        for index, row in enumerate(rows)
    ]
    columns = dict(zip(part.column_names, part.columns, strict=True))
    columns["drop_reason"] = pa.array(reasons, pa.string())
    return pa.table(columns).drop_columns([_KEY, _PART])


def instruction_key(row: Row) -> str:
    """An id of the instruction, whatever its case, white space and form of characters."""
    text = unicodedata.normalize("NFKC", row["instruction"] or "").casefold()
    return content_id("instruction", *text.split())


def code_key(row: Row) -> str:
    """An id of the code's syntax tree without docstrings; of its words where there is none."""
    code = row["code"] or ""
    tree = parse(code)
    if tree is not None:
        for node in [tree, *(found.node for found in definitions(tree))]:
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        try:
            return content_id("tree", ast.dump(tree))
        except (RecursionError, ValueError):  # too deep; an integer of thousands of digits
            pass
    return content_id("words", *code.split())


def _place(row: Row, run_seed: int) -> tuple[int, str]:
    """Where a row stands in the order of all rows."""
    return keyed_int(63, run_seed, "duplicates", str(row["seed_id"])), row["row_id"]
