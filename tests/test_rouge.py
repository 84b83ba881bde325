"""rouge.py: the same pairs and decisions as the package rouge-score, pair by pair."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer, tokenize

from selfalign_ray import rouge
from selfalign_ray.rouge import (
    Pairs,
    Texts,
    alike,
    first_alike,
    hashes_of,
    not_novel,
    rouge_l,
    share_of,
    texts_of,
    tokens_of,
)

SCORER = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
# Two decisions of the package may differ where its floats fall on either side of the threshold.
NEAR = 1e-9


def texts(strings: list[str]) -> Texts:
    lists = list(hashes_of(strings))
    offsets = np.cumsum([0, *map(len, lists)])
    return texts_of(np.array([h for one in lists for h in one], np.uint64), offsets)


def measure(one: str, other: str) -> float:
    score: float = SCORER.score(one, other)["rougeL"].fmeasure
    return score


def brute_force(strings: list[str], share: float) -> dict[int, int]:
    """Each that goes, and the first that stays before it and is like it."""
    gone: dict[int, int] = {}
    for row, text in enumerate(strings):
        kept = (other for other in range(row) if other not in gone)
        like = (o for o in kept if measure(strings[o], text) >= share - NEAR)
        if (first := next(like, None)) is not None:
            gone[row] = first
    return gone


def decided(pairs: Pairs) -> dict[int, int]:
    return dict(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))


_SHARES = st.sampled_from([0.7, 0.5, 0.3, 0.9, 1.0, 0.6667, 0.01])
_WORDS = st.lists(st.sampled_from("abcdef"), max_size=12).map(" ".join)
_MANY = st.lists(_WORDS, max_size=40)


@given(st.text(max_size=40))
@example("Größe_1, İSTANBUL \u212a 2nd")
@example("   ")
def test_tokens_are_those_of_rouge_score(text: str) -> None:
    assert tokens_of(text) == tokenize.tokenize(text, None)


@settings(deadline=None)
@given(_MANY, _SHARES)
def test_decisions_are_those_of_brute_force_with_rouge_score(
    strings: list[str], share: float
) -> None:
    assert decided(not_novel(texts(strings), share_of(share))) == brute_force(strings, share)


@settings(deadline=None)
@given(_MANY, _MANY, _SHARES)
def test_every_pair_that_is_alike_is_found_once(
    left: list[str], right: list[str], share: float
) -> None:
    found = alike(texts(left), texts(right), share_of(share))
    expected = {
        (i, j): measure(one, other)
        for i, one in enumerate(left)
        for j, other in enumerate(right)
        if measure(one, other) >= share - NEAR
    }
    pairs = list(zip(found.left.tolist(), found.right.tolist(), strict=True))
    assert sorted(pairs) == sorted(expected)
    sizes = texts(left).sizes[found.left], texts(right).sizes[found.right]
    assert rouge_l(*sizes, found.common).tolist() == pytest.approx([expected[p] for p in pairs])


@pytest.mark.parametrize("step", [1, 3, 7])
def test_steps_tiles_and_chunks_do_not_matter(monkeypatch: Any, step: int) -> None:
    draw = random.Random(step)
    strings = [" ".join(draw.choices("abcdefghijkl", k=draw.randint(0, 30))) for _ in range(120)]
    expected = brute_force(strings, 0.5)
    assert 20 < len(expected) < 110
    for name, value in {"_STEP": step, "_ROWS": 2, "_COLUMNS": 3, "_MEASURED": 5}.items():
        monkeypatch.setattr(rouge, name, value)
    monkeypatch.setattr(rouge, "_SIGNED", step)
    assert decided(not_novel(texts(strings), share_of(0.5))) == expected


@pytest.mark.parametrize("bits_per_token", [0.01, 0.3, 4.0, 1e9])
def test_the_width_of_the_signatures_does_not_matter(
    monkeypatch: Any, bits_per_token: float
) -> None:
    draw = random.Random(5)
    strings = [" ".join(draw.choices("abcd", k=draw.randint(60, 150))) for _ in range(60)]
    monkeypatch.setattr(rouge, "_BITS_PER_TOKEN", bits_per_token)
    found = decided(not_novel(texts(strings), share_of(0.65)))
    assert found == brute_force(strings, 0.65)
    assert len(found) > 10


def test_a_pair_exactly_at_the_threshold_is_alike() -> None:
    words = [f"w{n}" for n in range(20)]
    for size in range(10, 21, 10):  # 7 of 10 and 14 of 20 words in common
        one = " ".join(words[:size])
        other = " ".join(words[: size * 7 // 10] + [f"x{n}" for n in range(size * 3 // 10)])
        assert decided(not_novel(texts([one, other]), share_of(0.7))) == {1: 0}
        assert decided(not_novel(texts([one, other]), share_of(0.7001))) == {}


def test_the_order_of_words_counts() -> None:
    words = [f"w{n}" for n in range(30)]
    strings = [" ".join(words), " ".join(words[::-1]), " ".join(words[:29])]
    assert decided(not_novel(texts(strings), share_of(0.7))) == {2: 0}


def test_texts_without_a_token_are_like_nothing() -> None:
    strings = ["", "", "数字の和を返す", "数字の和を返す", "...", "a", "a"]
    assert decided(not_novel(texts(strings), share_of(0.01))) == {6: 5}
    assert decided(not_novel(texts([]), share_of(0.7))) == {}
    assert len(alike(texts([]), texts(["a"]), share_of(0.7)).left) == 0


def test_texts_of_thousands_of_words_and_tokens() -> None:
    draw = random.Random(2)
    long = [f"t{draw.randrange(70_000)}" for _ in range(5_000)]
    changed = [word if n % 5 else "changed" for n, word in enumerate(long)]
    other = [f"u{n}" for n in range(70_000)]  # more tokens than there are short code points
    strings = [" ".join(one) for one in (long, changed, other, other[:60_000], long[:2_000])]
    found = not_novel(texts(strings), share_of(0.7))
    assert decided(found) == {1: 0, 3: 2}
    assert found.common.tolist() == [4_000, 60_000]


def test_many_near_copies_cost_their_number_not_its_square() -> None:
    strings = [f"write a function that adds the number {n} to each item" for n in range(20_000)]
    found = not_novel(texts(strings), share_of(0.7))
    assert set(found.right.tolist()) == {0}
    assert len(found.left) == 19_999


def test_the_first_of_several_is_named() -> None:
    strings = ["a b c d e f g h i j", "a b c d e f k l m n", "a b c d e f g h m n"]
    assert decided(not_novel(texts(strings), share_of(0.7))) == {2: 0}
    pairs = first_alike(texts(strings[2:]), texts(strings[:2]), Fraction(6, 10))
    assert decided(pairs) == {0: 0}
