"""sample: how many go on, which ones, and that partitions do not matter."""

from __future__ import annotations

import pyarrow as pa
import pytest
import ray.data

from selfalign_ray import schemas
from selfalign_ray.seeds.sample import first_keys, last_key, sample, sampled


def table(seed_ids: list[str], drop_reason: str | None = None) -> pa.Table:
    rows = [
        {"row_id": i, "source": "s", "path": "p", "seed_id": i, "drop_reason": drop_reason}
        for i in seed_ids
    ]
    return pa.Table.from_pylist(rows, schema=schemas.SEED)


def kept(blocks: list[pa.Table], limit: int, run_seed: int = 1) -> set[str]:
    keys = [
        key
        for block in blocks
        for key in first_keys(block, run_seed=run_seed, limit=limit)["sample_key"].to_pylist()
    ]
    last = last_key(keys, limit)
    marked = pa.concat_tables([sampled(block, run_seed=run_seed, last=last) for block in blocks])
    return set(marked.filter(pa.compute.is_null(marked["drop_reason"]))["seed_id"].to_pylist())


IDS = [f"seed {place}" for place in range(60)]


@pytest.mark.parametrize("limit", [1, 7, 60, 100])
def test_the_limit_is_met_whatever_the_blocks(limit):
    whole = kept([table(IDS)], limit)
    assert len(whole) == min(limit, 60)
    parts = [table(IDS[start : start + 11]) for start in range(0, 60, 11)]
    assert kept(parts[::-1], limit) == whole


def test_a_larger_limit_keeps_the_same_and_more():
    assert kept([table(IDS)], 10) < kept([table(IDS)], 20)


def test_the_run_seed_chooses():
    assert kept([table(IDS)], 10, run_seed=1) != kept([table(IDS)], 10, run_seed=2)


def test_dropped_rows_neither_count_nor_change():
    dropped = table(["a", "b"], "too_short")
    assert len(kept([table(IDS), dropped], 60)) == 60
    assert sampled(dropped, run_seed=1, last=-1) == dropped
    assert kept([dropped], 5) == set()


@pytest.mark.ray
def test_stage(ray_local, run_config):
    blocks = [table(IDS[:25]), table(IDS[25:]), table(["x"], "duplicate_seed")]
    cfg = run_config("seeds.sample.limit=9")
    rows = sample(ray.data.from_arrow(blocks), cfg).take_all()
    assert len(rows) == 61
    chosen = {row["seed_id"] for row in rows if row["drop_reason"] is None}
    assert chosen == kept(blocks, 9, cfg.run_seed)
    everything = sample(ray.data.from_arrow(blocks), run_config("seeds.sample.limit=null"))
    assert sum(row["drop_reason"] is None for row in everything.take_all()) == 60
