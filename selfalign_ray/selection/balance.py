"""Balance: not too many rows of one difficulty, nor of one concept."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset

from selfalign_ray.blocks import by_block
from selfalign_ray.config import RunConfig
from selfalign_ray.selection.config import BalanceConfig
from selfalign_ray.selection.duplicates import place_of
from selfalign_ray.selection.marks import collected, key_of, marked

Row = dict[str, Any]
_COLUMNS = ["seed_id", "sample_index", "difficulty_bin", "concepts", "drop_reason"]
KEYS = ("seed_id", "sample_index")
GONE = pa.schema([("key", pa.string()), ("drop_reason", pa.string())])


def balance(ds: Dataset, cfg: RunConfig) -> Dataset:
    """Keeps at most so many rows of a `difficulty_bin` and of a concept.

    Rows have an order of their own, drawn by `seed_id`, and are taken in it: one goes whose bin is
    full, or one of whose concepts is. Concepts are equal but for case and white space; rows
    without a bin are a bin of their own. A share is of the kept rows that come in, and of a share
    and a number the smaller holds. Reads `ds` twice; the driver holds ids and concepts.

    Args:
        ds: `schemas.SELECTED` rows.
        cfg: the section `selection.balance`.

    Returns:
        The same rows, in any order. Drop reasons: over_difficulty, over_concept.
    """
    # Of a saved stage, the other columns are then not read.
    found = collected(by_block(ds.select_columns(_COLUMNS), kept_rows))
    rows = [row for table in found for row in table.to_pylist()]
    gone = ray.put(gone_of(rows, cfg.selection.balance, cfg.run_seed))
    return by_block(ds, partial(marked, gone=gone, keys=KEYS))


def needed(cfg: BalanceConfig) -> tuple[str, ...]:
    """The columns without which there is nothing to balance."""
    by_bin = cfg.difficulty_rows is not None or cfg.difficulty_share is not None
    by_concept = cfg.concept_rows is not None or cfg.concept_share is not None
    return (*(("difficulty_bin",) if by_bin else ()), *(("concepts",) if by_concept else ()))


def kept_rows(batch: pa.Table) -> pa.Table:
    """The rows that are not dropped before."""
    return batch.filter(pc.is_null(batch["drop_reason"])).select(_COLUMNS[:-1])


def gone_of(rows: list[Row], cfg: BalanceConfig, run_seed: int) -> pa.Table:
    """`GONE` rows: which of the kept rows go, and why."""
    of_bin = cap_of(cfg.difficulty_rows, cfg.difficulty_share, len(rows))
    of_concept = cap_of(cfg.concept_rows, cfg.concept_share, len(rows))
    bins: Counter[int | None] = Counter()
    concepts: Counter[str] = Counter()
    gone = []
    for row in sorted(rows, key=lambda row: _place(row, run_seed)):
        names = {" ".join(name.casefold().split()) for name in row["concepts"] or () if name}
        if bins[row["difficulty_bin"]] >= of_bin:
            reason = "over_difficulty"
        elif any(concepts[name] >= of_concept for name in names):
            reason = "over_concept"
        else:
            bins[row["difficulty_bin"]] += 1
            concepts.update(names)
            continue
        gone.append({"key": key_of(row[name] for name in KEYS), "drop_reason": reason})
    return pa.Table.from_pylist(gone, schema=GONE)


def cap_of(rows: int | None, share: float | None, all_rows: int) -> float:
    """The most rows of one kind: at least 1; infinite where no cap is given."""
    by_share = math.inf if share is None else max(1, math.floor(share * all_rows))
    return min(math.inf if rows is None else rows, by_share)


def _place(row: Row, run_seed: int) -> tuple[int, str, int]:
    return place_of(str(row["seed_id"]), run_seed), str(row["seed_id"]), row["sample_index"] or 0
