"""Duplicates: no instruction and no code twice in the data set, nor nearly so."""

from __future__ import annotations

import ast
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from ray.data import Dataset

from selfalign_ray import schemas
from selfalign_ray.blocks import by_block, with_columns
from selfalign_ray.config import RunConfig
from selfalign_ray.ids import content_id, keyed_int
from selfalign_ray.seeds.near_duplicates import without_near_copies
from selfalign_ray.validation.definitions import definitions, parse

Row = dict[str, Any]
INSTRUCTION = "duplicate_instruction"
_TEXTS = ("instruction", "final_instruction", "response", "code")
_KEY = "duplicates_key"


def duplicates(ds: Dataset, cfg: RunConfig) -> Dataset:
    """Keeps one row of each group of equals, and of near-copies.

    Rows have an order of their own, drawn by `seed_id`. The rule, a step for each switch, of the
    rows that are kept until then:

    1. `by_pair`: of those with the same final instruction, response and set of names of functions,
       the first in that order stays; the others are duplicate_pair. Alone, this is what
       SelfCodeAlign's release was made with; beside `by_instruction` it finds nothing.
    2. `by_instruction`: of those with the same instruction, the first's seed stays; the others are
       duplicate_instruction. Equal are instructions that differ in case and white space alone.
    3. `by_code`: of those with the same code, the first stays; the others are duplicate_response.
       Equal is code that differs in comments, docstrings and layout alone.
    4. `near`: `near_copies` of instruction, response and code as one text; the seed whose row is
       like another's goes, with all its rows, as near_duplicate.

    So no two kept rows agree in what a switch asks, and the result does not depend on how rows are
    spread. The rows of a seed, as many as `choose.k`, share an instruction and are meant to: by
    instruction and near-copies they do not count against each other. A row may fall to one that
    falls itself in a later step: an instruction can be lost to another's equal code, and none is
    kept for it.

    Args:
        ds: `schemas.SELECTED` rows.
        cfg: the section `selection.duplicates`.

    Returns:
        `schemas.SELECTED` rows, as many as came in, in any order. A near_duplicate has
        `near_duplicate_of`, a `seed_id`, and `near_duplicate_jaccard`.
    """
    section = cfg.selection.duplicates
    steps = [
        (section.by_pair, pair_key, "duplicate_pair"),
        (section.by_instruction, instruction_key, INSTRUCTION),
        (section.by_code, code_key, "duplicate_response"),
    ]
    for enabled, key_of, reason in steps:
        if enabled:
            keyed = by_block(ds, partial(add_key, key_of=key_of))
            # Ray keeps the rows of a key in one block whatever its size.
            met = keyed.repartition(section.partitions, keys=[_KEY])
            ds = by_block(met, partial(keep_first, reason=reason, run_seed=cfg.run_seed))
    if section.near.enabled:
        ds = ds.materialize()  # it is read twice, and what is above it would run twice
        ds = without_near_copies(ds, near_texts, section.near, cfg.run_seed)
    return ds


def add_key(batch: pa.Table, key_of: Callable[[Row], str]) -> pa.Table:
    """The batch with a key that equals share; a row that is already dropped has one of its own."""
    rows = batch.select([*_TEXTS, "row_id", "drop_reason"]).to_pylist()
    keys = [row["row_id"] if row["drop_reason"] is not None else key_of(row) for row in rows]
    return batch.append_column(_KEY, pa.array(keys, pa.string()))


def keep_first(block: pa.Table, reason: str, run_seed: int) -> pa.Table:
    """A block of whole groups without its keys: all but the first of each have the reason.

    By instruction, the other rows of the first's seed stay too.
    """
    names = [_KEY, "seed_id", "row_id", "sample_index", "drop_reason"]
    rows = block.select(names).to_pylist()
    first: dict[str, Row] = {}
    alive = [row for row in rows if row["drop_reason"] is None]
    for row in sorted(alive, key=lambda row: _place(row, run_seed)):
        one = first.setdefault(row[_KEY], row)
        others = reason == INSTRUCTION and one["seed_id"] == row["seed_id"]
        if one is not row and not (others and one["sample_index"] != row["sample_index"]):
            row["drop_reason"] = reason
    reasons = [row["drop_reason"] for row in rows]
    return with_columns(block.drop_columns([_KEY]), schemas.SELECTED, drop_reason=reasons)


def near_texts(batch: pa.Table) -> pa.Table:
    """The kept rows as `near_copies` takes them; those of a seed share an id."""
    kept = batch.filter(pc.is_null(batch["drop_reason"]))
    texts = [pc.coalesce(kept[name], "") for name in ("instruction", "response", "code")]
    return pa.table({"id": kept["seed_id"], "text": pc.binary_join_element_wise(*texts, "\n")})


def pair_key(row: Row) -> str:
    """An id of what a model would learn from the row, to the letter."""
    tree = parse(row["code"] or "")
    found = [] if tree is None else [one.node for one in definitions(tree)]
    names = {node.name for node in found if not isinstance(node, ast.ClassDef)}
    instruction = row["final_instruction"] or row["instruction"]  # rows made elsewhere
    return content_id("pair", instruction, row["response"], *sorted(names))


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


def place_of(seed_id: str, run_seed: int) -> int:
    """Where the rows of a seed stand in the order of all rows."""
    return keyed_int(63, run_seed, "duplicates", seed_id)


def _place(row: Row, run_seed: int) -> tuple[int, str, int]:
    return place_of(str(row["seed_id"]), run_seed), row["row_id"], row["sample_index"] or 0
