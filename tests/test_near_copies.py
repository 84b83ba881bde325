"""near_copies.py: pairs, stars and the whole search beside brute force."""

from __future__ import annotations

import dataclasses
import itertools
import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray.data
from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray.minhash import tokens_of
from selfalign_ray.near_copies import (
    EDGE,
    LikenessConfig,
    Store,
    edges,
    near_copies,
    order_of,
    pairs_of,
    plan,
    signed,
    stars,
)

SEED = 5
CFG = LikenessConfig(
    enabled=True,
    shingle_tokens=2,
    jaccard=0.5,
    bands=60,
    rows_per_band=2,
    bucket_rows=100,
    memory_mb=16,
)
Texts = dict[str, str]


def families(count: int, size: int, seed: int = 0) -> Texts:
    """Groups of texts with some words changed: alike, almost alike and not alike."""
    draw = random.Random(seed)
    texts = {}
    for family in range(count):
        words = [f"w{draw.randrange(10_000)}" for _ in range(40)]
        for member in range(size):
            changed = [w if draw.random() > 0.02 * family else f"x{draw.random()}" for w in words]
            texts[f"{family}-{member}"] = " ".join(changed)
    return texts


def similarity(one: str, other: str) -> float:
    sets = [set(itertools.pairwise(tokens_of(text))) for text in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def brute_force(texts: Texts) -> dict[str, str]:
    """The rule of the module's docstring, each row against each: who goes, and for whom."""
    stay: list[str] = []
    gone = {}
    for name in sorted(texts, key=lambda name: order_of(name, SEED)):
        like = [(-similarity(texts[name], texts[o]), order_of(o, SEED), o) for o in stay]
        like = [found for found in like if -found[0] >= CFG.jaccard]
        if like:
            gone[name] = min(like)[2]
        else:
            stay.append(name)
    return gone


def table(texts: Texts) -> pa.Table:
    return pa.table(
        {"id": pa.array(list(texts), pa.string()), "text": pa.array(texts.values(), pa.string())}
    )


def found_edges(blocks: list[pa.Table], cfg: LikenessConfig = CFG, parts: int = 1) -> pa.Table:
    store = Store([signed(block, cfg, SEED) for block in blocks])
    units = [u._replace(part=part, parts=parts) for u in plan(10, cfg) for part in range(parts)]
    tables = [part for unit in units for part in edges(store, unit, cfg)]
    return pa.concat_tables([EDGE.empty_table(), *tables])


def gone_of(found: pa.Table, texts: Texts) -> dict[str, str]:
    names = {order_of(name, SEED): name for name in texts}
    return {names[row["order"]]: row["kept_id"] for row in found.to_pylist()}


def test_what_goes_is_what_brute_force_says() -> None:
    texts = families(20, 6)
    expected = brute_force(texts)
    assert 10 < len(expected) < 100
    assert gone_of(stars([found_edges([table(texts)])]), texts) == expected


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("blocks", [1, 4])
def test_blocks_parts_and_order_do_not_matter(blocks: int, parts: int) -> None:
    texts = families(8, 5)
    names = random.Random(1).sample(list(texts), len(texts))
    spread = [table({n: texts[n] for n in names[start::blocks]}) for start in range(blocks)]
    found = stars([found_edges([*spread, table({})], parts=parts)])
    assert found.equals(stars([found_edges([table(texts)])]))


def test_the_similarity_is_that_of_the_two_rows() -> None:
    texts = families(10, 4)
    names = {order_of(name, SEED): name for name in texts}
    for row in stars([found_edges([table(texts)])]).to_pylist():
        exact = similarity(texts[names[row["order"]]], texts[row["kept_id"]])
        assert row["jaccard"] == pytest.approx(exact)


def test_each_pair_is_found_once_however_many_bands_it_shares() -> None:
    found = found_edges([table({f"t{n}": f"the same few words {n % 2}" for n in range(20)})])
    pairs = set(zip(found["first"].to_pylist(), found["second"].to_pylist(), strict=True))
    assert len(pairs) == found.num_rows == 190


def test_a_chain_is_not_a_group() -> None:
    words = [f"w{n}" for n in range(60)]
    texts = {f"r{n}": " ".join(words[5 * n : 5 * n + 25]) for n in range(8)}
    gone = gone_of(stars([found_edges([table(texts)])]), texts)
    assert gone == brute_force(texts)
    assert len(texts) - len(gone) > 1
    assert not set(gone.values()) & gone.keys()


def test_texts_without_tokens_and_without_text_are_like_nothing() -> None:
    blocks = [pa.table({"id": ["a", "b", "c", "d"], "text": ["", "()", None, "()"]})]
    assert found_edges(blocks).num_rows == 0


def test_rows_of_one_id_do_not_drop_each_other() -> None:
    twice = pa.concat_tables([table({"a": "one two three"})] * 2)
    assert found_edges([twice]).num_rows == 0


def test_little_memory_gives_the_same_in_more_chunks() -> None:
    texts = {f"t{n}": "the same few words " + "x " * (n % 3) for n in range(300)}
    cfg = dataclasses.replace(CFG, bucket_rows=300)
    found = stars([found_edges([table(texts)], cfg)])
    assert gone_of(found, texts) == brute_force(texts)


def test_a_bucket_larger_than_bucket_rows_loses_no_row_that_is_like_its_first() -> None:
    texts = {f"t{n}": f"the same few words each time {n}" for n in range(50)}
    cfg = dataclasses.replace(CFG, bucket_rows=3)
    found = found_edges([table(texts)], cfg)
    assert len(gone_of(stars([found]), texts)) == 49


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), max_size=40), st.integers(1, 8), st.integers(1, 9))
def test_pairs_are_all_of_equal_keys(keys: list[int], bucket_rows: int, at_once: int) -> None:
    keys.sort()
    chunks = list(pairs_of(np.array(keys, np.uint32), bucket_rows, at_once))
    found = [tuple(pair) for chunk in chunks for pair in chunk.T.tolist()]
    expected = {
        (first, second)
        for second, key in enumerate(keys)
        for first in range(keys.index(key), second)
        if first - keys.index(key) < bucket_rows
    }
    assert len(found) == len(expected)
    assert set(found) == expected
    assert all(0 < chunk.shape[1] < at_once + bucket_rows for chunk in chunks)


@given(st.integers(1, 10**9), st.integers(16, 2_000), st.integers(1, 100))
def test_a_plan_has_each_band_and_part_once(rows: int, memory_mb: int, bands: int) -> None:
    cfg = dataclasses.replace(CFG, memory_mb=memory_mb, bands=bands)
    if rows * 64 / (memory_mb * 2**20) > 50:
        return  # thousands of units, made in the same way
    units = plan(rows, cfg)
    parts = units[0].parts
    assert rows * 64 / parts <= memory_mb * 2**20 / 2
    found = [(band, unit.part) for unit in units for band in unit.bands]
    assert sorted(found) == [(band, part) for band in range(bands) for part in range(parts)]


def test_the_parts_of_the_edges_do_not_matter_to_the_stars() -> None:
    found = found_edges([table(families(10, 4))])
    second = found["second"].to_numpy()
    middle = int(np.median(second))
    halves = [found.filter(pa.array(mask)) for mask in (second < middle, second >= middle)]
    assert stars(halves).equals(stars([found]))


@pytest.mark.ray
def test_the_search_on_ray_is_brute_force_however_rows_are_spread(ray_local: Any) -> None:
    texts = families(12, 5)
    expected = brute_force(texts)
    for blocks in (1, 5):
        names = list(texts)
        spread = [table({n: texts[n] for n in names[start::blocks]}) for start in range(blocks)]
        found = near_copies(ray.data.from_arrow(spread), CFG, SEED)
        assert gone_of(found, texts) == expected
    assert near_copies(ray.data.from_arrow([table({})]), CFG, SEED).num_rows == 0
