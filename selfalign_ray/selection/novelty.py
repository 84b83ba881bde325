"""Novelty: no instruction that says what one before it says, in nearly the same words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset

from selfalign_ray.blocks import by_block
from selfalign_ray.config import RunConfig
from selfalign_ray.ids import content_id
from selfalign_ray.minhash import Ints
from selfalign_ray.rouge import (
    Texts,
    first_alike,
    hashes_of,
    not_novel,
    rouge_l,
    share_of,
    texts_of,
)
from selfalign_ray.selection.duplicates import place_of
from selfalign_ray.selection.marks import collected, marked

REASON = "not_novel"
# Instructions that are compared with all kept before them at once, spread over tasks; and with
# each other by one process, so that its share of the work is small beside theirs.
_ROUND = 16_384
_TASK = 2_048  # of a round, for one task
_SIGNED = pa.schema(
    [
        ("place", pa.int64()),  # in the drawn order
        ("seed_id", pa.string()),
        ("text_id", pa.string()),  # of the tokens
        ("tokens", pa.large_list(pa.uint64())),
    ]
)
_FOUND = pa.schema([("row", pa.int64()), ("kept", pa.int64()), ("common", pa.int64())])
# What `not_novel_of` finds.
GONE = pa.schema(
    [
        ("key", pa.string()),  # seed_id
        ("not_novel_of", pa.string()),
        ("rouge_l", pa.float64()),
        ("drop_reason", pa.string()),
    ]
)


def novelty(ds: Dataset, cfg: RunConfig) -> Dataset:
    """Self-instruct's rule over all instructions (arXiv 2212.10560).

    Seeds have an order of their own, drawn by `seed_id`. In it, an instruction stays if its
    ROUGE-L with every one that stays before it is below `rouge_l`; the decisions are those of
    comparing it with each of them. What is compared is `instruction`, without the tests that some
    show. The rows of a seed share it: they stay or go together, and do not count against each
    other. An instruction without a token (ASCII letters and digits) is like nothing.

    Work grows with the square of the number of instructions; rouge.py says why it is bearable.
    Reads `ds` twice. The driver holds some 500 bytes an instruction.

    Args:
        ds: `schemas.SELECTED` rows.
        cfg: the section `selection.novelty`.

    Returns:
        The same rows, in any order. Drop reason: not_novel, with `not_novel_of`, the `seed_id` of
        the first that stays and is like it, and their `rouge_l`.
    """
    # Of a saved stage, the other columns are then not read.
    texts = ds.select_columns(["seed_id", "instruction", "drop_reason"])
    tables = collected(by_block(texts, partial(signed, run_seed=cfg.run_seed)))
    table = pa.concat_tables([_SIGNED.empty_table(), *tables])
    gone = ray.put(gone_of(table, share_of(cfg.selection.novelty.rouge_l)))
    return by_block(ds, partial(marked, gone=gone, keys=("seed_id",)))


def signed(batch: pa.Table, run_seed: int) -> pa.Table:
    """The instructions of kept rows that have a token, as `_SIGNED`, each once for a seed."""
    kept = batch.filter(pc.is_null(batch["drop_reason"]))
    columns = (kept[name].to_pylist() for name in ("seed_id", "instruction"))
    pairs = sorted({(str(seed), text or "") for seed, text in zip(*columns, strict=True)})
    rows = [
        {
            "place": place_of(seed_id, run_seed),
            "seed_id": seed_id,
            "text_id": content_id(np.array(tokens, np.uint64).tobytes()),
            "tokens": tokens,
        }
        for (seed_id, _), tokens in zip(pairs, hashes_of(text for _, text in pairs), strict=True)
        if tokens
    ]
    return pa.Table.from_pylist(rows, schema=_SIGNED)


def gone_of(table: pa.Table, share: Fraction) -> pa.Table:
    """Which seeds go, for which, and how alike the two are.

    Args:
        table: `_SIGNED` rows in any order. Where rows made elsewhere give a seed several
            instructions, the one with the least `text_id` stands for all.
        share: ROUGE-L that makes two alike.

    Returns:
        `GONE` rows.
    """
    table = table.sort_by([(name, "ascending") for name in ("place", "seed_id", "text_id")])
    table = table.take(pa.array(_firsts(table["seed_id"])))
    # Equal texts are alike at any share: one is compared, and what is said of it is said of all.
    rows = _firsts(table["text_id"])
    texts = _texts(table["tokens"].take(pa.array(rows)))
    found = _in_rounds(texts, share)
    sizes, seed_ids = texts.sizes, table["seed_id"].to_pylist()
    alike = rouge_l(sizes[found["row"]], sizes[found["kept"]], found["common"].to_numpy())
    text_ids = table["text_id"].to_pylist()
    first = {text_ids[row]: row for row in rows.tolist()}
    said = {
        int(rows[row]): (seed_ids[rows[kept]], value)
        for row, kept, value in zip(
            found["row"].to_pylist(), found["kept"].to_pylist(), alike.tolist(), strict=True
        )
    }
    gone = []
    for row, (seed_id, text_id) in enumerate(zip(seed_ids, text_ids, strict=True)):
        one = first[text_id]
        if row == one and row not in said:
            continue
        of, value = said.get(one, (seed_ids[one], 1.0))
        gone.append((seed_id, of, value, REASON))
    return pa.Table.from_pylist(
        [dict(zip(GONE.names, row, strict=True)) for row in gone], schema=GONE
    )


def _in_rounds(texts: Texts, share: Fraction) -> pa.Table:
    """`not_novel` of distinct texts in order, as `_FOUND` rows: first beside those kept before."""
    found = [_FOUND.empty_table()]
    kept: list[tuple[Ints, ray.ObjectRef[Texts]]] = []  # of each round before
    new = np.empty(0, np.int64)  # kept of the last one
    for start in range(0, len(texts.sizes), _ROUND):
        rows = np.arange(start, min(start + _ROUND, len(texts.sizes)))
        if start:
            kept.append((new, ray.put(texts.take(new))))
            before = _beside(texts, rows, kept, share)
            found.append(before)
            rows = np.setdiff1d(rows, before["row"].to_numpy())
        within = not_novel(texts.take(rows), share)
        found.append(_table(rows[within.left], rows[within.right], within.common))
        new = np.delete(rows, within.left)
    return pa.concat_tables(found)


def _beside(
    texts: Texts, rows: Ints, kept: Sequence[tuple[Ints, Any]], share: Fraction
) -> pa.Table:
    """Of one round's texts those that are like one that was kept before, `_FOUND` rows."""
    parts = math.ceil(len(rows) / _TASK)
    # Of near lengths in a part: a text is compared with texts of near length alone.
    by_length = np.array_split(rows[np.argsort(texts.sizes[rows], kind="stable")], parts)
    work = [(part, ray.put(texts.take(part))) for part in by_length]
    numbers = ray.data.range(parts, override_num_blocks=parts)
    done = collected(by_block(numbers, partial(_first_kept, work=work, kept=kept, share=share)))
    return pa.concat_tables([_FOUND.empty_table(), *done])


def _first_kept(
    numbers: pa.Table,
    work: Sequence[tuple[Ints, Any]],
    kept: Sequence[tuple[Ints, Any]],
    share: Fraction,
) -> pa.Table:
    found = [_FOUND.empty_table()]
    for number in numbers["id"].to_pylist():
        rows, part = work[number]
        texts: Texts = ray.get(part)
        left = np.arange(len(rows))
        for others, chunk in kept:  # in order, so that the first one found is the first of all
            pairs = first_alike(texts.take(left), ray.get(chunk), share)
            found.append(_table(rows[left[pairs.left]], others[pairs.right], pairs.common))
            left = np.delete(left, pairs.left)
    return pa.concat_tables(found).combine_chunks()


def _table(rows: Ints, kept: Ints, common: Ints) -> pa.Table:
    return pa.Table.from_arrays([pa.array(c) for c in (rows, kept, common)], schema=_FOUND)


def _firsts(values: pa.ChunkedArray) -> Ints:
    """Where each value stands first, in ascending order."""
    _, first = np.unique(values.combine_chunks().dictionary_encode().indices, return_index=True)
    return np.sort(first)


def _texts(tokens: pa.ChunkedArray) -> Texts:
    lists = tokens.combine_chunks()
    offsets = np.concatenate([[0], np.cumsum(pc.list_value_length(lists).to_numpy())])
    return texts_of(lists.flatten().to_numpy(), offsets.astype(np.int64))
