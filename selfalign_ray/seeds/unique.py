"""unique: of seeds that are equal but for white space, one is kept."""

from __future__ import annotations

import pyarrow as pa
from ray.data import Dataset

from selfalign_ray import schemas
from selfalign_ray.blocks import by_block, with_columns
from selfalign_ray.config import RunConfig
from selfalign_ray.ids import content_id

_GROUP = "group"


def unique(ds: Dataset, cfg: RunConfig) -> Dataset:
    """Marks all but one of each group of equal seeds as duplicate_seed.

    Kept is the one with the smallest `row_id`, however the rows are spread. The rows are shuffled
    so that a group lies in one block; a block is in memory at once.

    Args:
        ds: `schemas.SEED` rows.
        cfg: the run's settings.

    Returns:
        The same rows, in any order; rows dropped before pass through.
    """
    grouped = by_block(ds, with_group)
    # Ray keeps the rows of a key in one block whatever its size: its own groups rest on that.
    return by_block(grouped.repartition(cfg.seeds.unique.partitions, keys=[_GROUP]), firsts_kept)


def with_group(seeds: pa.Table) -> pa.Table:
    """Adds what equal seeds share; a row that is already dropped is a group of its own."""
    columns = (seeds[name].to_pylist() for name in ("row_id", "seed", "drop_reason"))
    groups = [
        group_of(seed) if reason is None else row_id
        for row_id, seed, reason in zip(*columns, strict=True)
    ]
    return seeds.append_column(_GROUP, pa.array(groups, pa.string()))


def group_of(seed: str) -> str:
    """An id of the code, whatever its white space."""
    return content_id("group", *seed.split())


def firsts_kept(seeds: pa.Table) -> pa.Table:
    """A block of whole groups without the group's column, the first of each by `row_id` kept."""
    row_ids, reasons = seeds["row_id"].to_pylist(), seeds["drop_reason"].to_pylist()
    first: dict[str, int] = {}
    for place, group in enumerate(seeds[_GROUP].to_pylist()):
        if group not in first or row_ids[place] < row_ids[first[group]]:
            first[group] = place
    kept = set(first.values())
    marked = [
        reason if reason is not None or place in kept else "duplicate_seed"
        for place, reason in enumerate(reasons)
    ]
    return with_columns(seeds.drop_columns([_GROUP]), schemas.SEED, drop_reason=marked)
