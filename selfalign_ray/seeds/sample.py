"""sample: the seeds that go on to the model."""

from __future__ import annotations

from functools import partial

import pyarrow as pa
from ray.data import Dataset

from selfalign_ray import schemas
from selfalign_ray.blocks import by_block, with_columns
from selfalign_ray.config import RunConfig
from selfalign_ray.ids import keyed_int

_KEY = "sample_key"


def sample(ds: Dataset, cfg: RunConfig) -> Dataset:
    """Keeps `sample.limit` seeds, chosen by run seed and `seed_id` alone.

    A larger limit keeps the same seeds and more. Reads `ds` once beforehand, for its keys.

    Args:
        ds: `schemas.SEED` rows.
        cfg: the run's settings.

    Returns:
        The same rows, those beyond the limit dropped as not_sampled.
    """
    limit = cfg.seeds.sample.limit
    if limit is None:
        return ds
    first = partial(first_keys, run_seed=cfg.run_seed, limit=limit)
    last = last_key([row[_KEY] for row in by_block(ds, first).iter_rows()], limit)
    return by_block(ds, partial(sampled, run_seed=cfg.run_seed, last=last))


def first_keys(seeds: pa.Table, *, run_seed: int, limit: int) -> pa.Table:
    """The `limit` smallest keys of a block's kept seeds."""
    keys = [key for key in _keys(seeds, run_seed) if key is not None]
    return pa.table({_KEY: pa.array(sorted(keys)[:limit], pa.int64())})


def last_key(keys: list[int], limit: int) -> int:
    """The largest key that is still within the limit; -1 where there are no keys."""
    return sorted(keys)[:limit][-1] if keys else -1


def sampled(seeds: pa.Table, *, run_seed: int, last: int) -> pa.Table:
    """A block of seeds, those whose key comes after `last` dropped."""
    keys, reasons = _keys(seeds, run_seed), seeds["drop_reason"].to_pylist()
    marked = [
        "not_sampled" if key is not None and key > last else reason
        for key, reason in zip(keys, reasons, strict=True)
    ]
    return with_columns(seeds, schemas.SEED, drop_reason=marked)


def _keys(seeds: pa.Table, run_seed: int) -> list[int | None]:
    """One key a row; None for a row that is dropped."""
    return [
        keyed_int(63, run_seed, "sample", seed_id) if reason is None else None
        for seed_id, reason in zip(
            seeds["seed_id"].to_pylist(), seeds["drop_reason"].to_pylist(), strict=True
        )
    ]
