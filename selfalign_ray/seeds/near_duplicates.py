"""near_duplicates: of seeds that share most of their token shingles, one is kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset

from selfalign_ray.blocks import by_block
from selfalign_ray.config import RunConfig
from selfalign_ray.near_copies import LikenessConfig, near_copies, order_of


def near_duplicates(ds: Dataset, cfg: RunConfig) -> Dataset:
    """Marks the seeds that are near-copies of one that is kept.

    Seeds have an order of their own, drawn by `seed_id`. One is kept unless a kept seed before it
    has at least the Jaccard similarity `seeds.near_duplicates.jaccard`; so no two kept seeds are
    known to be alike, and each that goes names a kept one. Reads `ds` twice.

    Args:
        ds: `schemas.SEED` rows with distinct ids, as `unique` leaves them.
        cfg: the run's settings.

    Returns:
        The same rows, in any order; rows dropped before pass through. Drop reason:
        near_duplicate, with `near_duplicate_of` and `near_duplicate_jaccard`.
    """
    section = cfg.seeds.near_duplicates
    if not section.enabled:
        return ds
    return without_near_copies(ds, texts_of, section, cfg.run_seed)


def without_near_copies(
    ds: Dataset, texts_of: Callable[[pa.Table], pa.Table], cfg: LikenessConfig, run_seed: int
) -> Dataset:
    """`schemas.SEED` or `schemas.SELECTED` rows with near-copies marked; reads `ds` twice.

    `texts_of` makes of a block what `near_copies` takes, with `seed_id` for `id`.
    """
    gone = ray.put(near_copies(by_block(ds, texts_of), cfg, run_seed))
    return by_block(ds, partial(_marked, gone=gone, run_seed=run_seed))


def texts_of(seeds: pa.Table) -> pa.Table:
    """The seeds that are not dropped, as `near_copies` takes them."""
    kept = seeds.filter(pc.is_null(seeds["drop_reason"]))
    return pa.table({"id": kept["seed_id"], "text": kept["seed"]})


def marked(seeds: pa.Table, gone: pa.Table, run_seed: int) -> pa.Table:
    """A block with the reasons and the seeds that stay in place of those that go.

    Rows are found by their order and not, as in selection/marks.py, by their id: where a million
    go, a block's search among sorted numbers is some 50 times faster.

    Args:
        seeds: rows as in `without_near_copies`.
        gone: as `near_copies` returns it.
        run_seed: which `gone` was made with.
    """
    reasons = seeds["drop_reason"].to_pylist()
    orders = np.array(
        [
            order_of(seed_id, run_seed) if reason is None else -1
            for seed_id, reason in zip(seeds["seed_id"].to_pylist(), reasons, strict=True)
        ],
        np.int64,
    )
    known = gone["order"].to_numpy()
    places = np.searchsorted(known, orders)
    found = np.append(known, -2)[places] == orders
    where = pa.array(places, mask=~found)
    columns = dict(zip(seeds.column_names, seeds.columns, strict=True))
    columns["near_duplicate_of"] = gone["kept_id"].take(where)
    columns["near_duplicate_jaccard"] = gone["jaccard"].take(where)
    columns["drop_reason"] = pa.array(
        [
            "near_duplicate" if is_in else reason
            for is_in, reason in zip(found, reasons, strict=True)
        ],
        pa.string(),
    )
    return pa.table(columns)


def _marked(seeds: pa.Table, gone: ray.ObjectRef[pa.Table], run_seed: int) -> pa.Table:
    return marked(seeds, ray.get(gone), run_seed)
