"""minhash.py: sets, bands and similarities, each beside a plain computation of the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray.minhash import Sets, band_keys, jaccard, shingled, tokens_of, windows

TEXTS = st.lists(st.text("ab_ (", max_size=40), max_size=8)


def plain(text: str, size: int) -> set[tuple[str, ...]]:
    """The shingles as tuples of tokens."""
    tokens = tokens_of(text)
    if len(tokens) < size:
        return {tuple(tokens)} if tokens else set()
    return {tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)}


@settings(deadline=None)
@given(TEXTS, st.integers(1, 6))
def test_sets_are_the_distinct_runs_of_tokens(texts: list[str], size: int) -> None:
    sets = shingled(texts, size)
    assert sets.sizes.tolist() == [len(plain(text, size)) for text in texts]
    for start, end in zip(sets.offsets, sets.offsets[1:], strict=False):
        values = sets.values[start:end].tolist()
        assert values == sorted(set(values))


@settings(deadline=None)
@given(st.lists(st.text("ab ", min_size=1, max_size=60), min_size=2, max_size=8), st.integers(1, 5))
def test_similarity_is_that_of_the_sets(texts: list[str], size: int) -> None:
    texts = [text for text in texts if tokens_of(text)]
    sets = shingled(texts, size)
    left, right = np.triu_indices(len(texts))
    for i, j, found in zip(left, right, jaccard(sets, left, right), strict=True):
        one, other = plain(texts[i], size), plain(texts[j], size)
        assert found == pytest.approx(len(one & other) / len(one | other))


def test_many_pairs_at_once_are_as_each_alone() -> None:
    sets = shingled([f"a b c {n % 7} d e {n % 5}" for n in range(70)], 2)
    left, right = (side.ravel() for side in np.indices((70, 70)))
    found = jaccard(sets, left, right)
    assert len(found) == 4_900
    assert found[123] == jaccard(sets, left[123:124], right[123:124])[0]


def test_sets_are_taken_in_any_order_and_twice() -> None:
    sets = shingled(["a b", "", "c d e", "f"], 1)
    taken = sets.take(np.array([2, 1, 2, 0]))
    assert taken.sizes.tolist() == [3, 0, 3, 2]
    assert taken.values[:3].tolist() == taken.values[3:6].tolist()


def test_keys_do_not_depend_on_the_company() -> None:
    texts = [" ".join(f"w{n}x{k}" for k in range(n + 1)) for n in range(40)]
    together = band_keys(shingled(texts, 3), 7, 2)
    for n in (0, 17, 39):
        alone = band_keys(shingled(texts[n : n + 1], 3), 7, 2)
        assert together[n].tolist() == alone[0].tolist()


def test_a_set_larger_than_a_chunk_has_the_minima_of_all_its_shingles() -> None:
    values = np.arange(0, 200_000, dtype=np.uint32)
    whole = Sets(values, np.array([0, len(values)]))
    halves = Sets(values, np.array([0, 100_000, 200_000]))
    whole_keys, half_keys = band_keys(whole, 200, 1), band_keys(halves, 200, 1)
    agree = (half_keys == whole_keys).mean(axis=1)
    assert agree.sum() == pytest.approx(1)  # the least is in one half or the other
    assert agree[0] == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.8])
def test_bands_agree_as_often_as_the_theory_says(similarity: float) -> None:
    draw = np.random.default_rng(7)
    shared, own = round(200 * similarity), round(200 * (1 - similarity) / 2)
    agreed = []
    for _ in range(60):
        values = draw.integers(0, 2**32, shared + 2 * own, np.uint32)
        one = np.sort(values[: shared + own])
        other = np.sort(np.concatenate([values[:shared], values[shared + own :]]))
        sets = Sets(np.concatenate([one, other]), np.array([0, len(one), len(one) + len(other)]))
        keys = band_keys(sets, 80, 2)
        agreed.append((keys[0] == keys[1]).mean())
    assert np.mean(agreed) == pytest.approx(similarity**2, abs=0.04)


def test_hashes_are_the_same_in_every_process() -> None:
    hashes, _ = windows([["one", "two", "three"]], 2)
    assert hashes.tolist() == [925262562320278646, 750378937481902481]
