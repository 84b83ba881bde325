from __future__ import annotations

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from selfalign_ray import schemas
from selfalign_ray.rouge import share_of
from selfalign_ray.selection import novelty as module
from selfalign_ray.selection.duplicates import place_of
from selfalign_ray.selection.novelty import gone_of, novelty, signed

Row = dict[str, Any]
RUN_SEED = 11
SCORER = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
NAMES = ("row_id", "seed_id", "sample_index", "instruction", "drop_reason")


def row(seed: str, instruction: str | None, index: int = 0, reason: str | None = None) -> Row:
    return dict(zip(NAMES, (seed, f"seed {seed}", index, instruction, reason), strict=True))


def table(rows: list[Row]) -> pa.Table:
    schema = pa.schema([schemas.SELECTED.field(name) for name in NAMES])
    return pa.Table.from_pylist(rows, schema=schema)


def brute_force(rows: list[Row], share: float = 0.7) -> dict[str, str]:
    """Each seed that goes, and for which: every instruction beside every one that stays."""
    texts = {r["seed_id"]: r["instruction"] or "" for r in rows if r["drop_reason"] is None}
    kept: list[str] = []
    gone = {}
    for seed in sorted(texts, key=lambda seed: place_of(seed, RUN_SEED)):
        scores = ((o, SCORER.score(texts[o], texts[seed])["rougeL"].fmeasure) for o in kept)
        if (first := next((o for o, score in scores if score >= share - 1e-9), None)) is not None:
            gone[seed] = first
        else:
            kept.append(seed)
    return gone


def found_in(blocks: list[list[Row]], share: float = 0.7) -> dict[str, str]:
    parts = [signed(table(block), RUN_SEED) for block in blocks]
    gone = gone_of(pa.concat_tables(parts), share_of(share))
    return dict(zip(gone["key"].to_pylist(), gone["not_novel_of"].to_pylist(), strict=True))


_WORDS = st.lists(st.sampled_from("abcde"), max_size=8).map(" ".join)
_ROWS = st.lists(
    st.tuples(st.one_of(st.none(), _WORDS), st.sampled_from([None, None, None, "no_choice"])),
    max_size=30,
).map(lambda found: [row(str(n), *one[:1], reason=one[1]) for n, one in enumerate(found)])


@settings(deadline=None)
@given(_ROWS, st.integers(1, 4), st.randoms())
def test_decisions_are_those_of_brute_force_however_rows_are_spread(
    rows: list[Row], blocks: int, order: Any
) -> None:
    expected = brute_force(rows)
    order.shuffle(rows)
    assert found_in([rows[start::blocks] for start in range(blocks)]) == expected


def test_rows_of_a_seed_do_not_count_against_each_other() -> None:
    rows = [row("a", "sort a list of numbers", index) for index in range(3)]
    assert found_in([rows[:2], rows[2:]]) == {}


def test_a_seed_of_several_instructions_is_judged_the_same_however_they_are_spread() -> None:
    rows = [row("a", f"text {n} of one seed") for n in range(4)] + [row("b", "text 2 of one seed")]
    expected = found_in([rows])
    assert found_in([rows[::-1]]) == expected
    assert found_in([[one] for one in rows]) == expected


def test_what_is_equal_to_one_that_goes_goes_for_the_same() -> None:
    seeds = sorted("abcd", key=lambda seed: place_of(f"seed {seed}", RUN_SEED))
    texts = ["a b c d e f g h i j", "a b c d e f g h y z", "A b c d, e f g h y z!", "q r s"]
    rows = [row(seed, text) for seed, text in zip(seeds, texts, strict=True)]
    parts = gone_of(signed(table(rows), RUN_SEED), share_of(0.7)).to_pylist()
    assert {p["key"]: (p["not_novel_of"], p["rouge_l"], p["drop_reason"]) for p in parts} == {
        f"seed {seed}": (f"seed {seeds[0]}", pytest.approx(0.8), "not_novel") for seed in seeds[1:3]
    }


def test_ten_thousand_equal_instructions_leave_one() -> None:
    rows = [row(str(n), "Sort a list.") for n in range(10_000)]
    gone = found_in([rows])
    first = min((r["seed_id"] for r in rows), key=lambda seed: place_of(seed, RUN_SEED))
    assert len(gone) == 9_999
    assert set(gone.values()) == {first}


def test_nothing_comes_of_nothing() -> None:
    assert found_in([[]]) == {}
    assert found_in([[row("a", "one")]]) == {}
    assert found_in([[row("a", None), row("b", None), row("c", "数"), row("d", "数")]]) == {}


def many(count: int) -> list[Row]:
    draw = random.Random(3)
    texts = [
        " ".join(draw.choices("abcdefghijklmnop", k=draw.randint(4, 14))) for _ in range(count)
    ]
    return [
        row(str(n), draw.choice(texts) if draw.random() < 0.1 else t) for n, t in enumerate(texts)
    ]


@pytest.mark.ray
def test_rounds_over_tasks_decide_as_brute_force(ray_local: None, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_ROUND", 50)
    monkeypatch.setattr(module, "_TASK", 20)
    rows = many(220)
    expected = brute_force(rows, 0.5)
    assert 40 < len(expected) < 200
    assert found_in([rows], 0.5) == expected


@pytest.mark.ray
@pytest.mark.parametrize("blocks", [1, 4])
def test_the_stage_marks_rows_and_says_why(ray_local: None, run_config: Any, blocks: int) -> None:
    cfg = run_config(f"run_seed={RUN_SEED}", "selection.novelty.rouge_l=0.5")
    rows = [*many(40), row("x", "", reason="no_choice"), row("y", None)]
    rows += [{**rows[0], "sample_index": 1}, {**rows[1], "sample_index": 1}]
    expected = brute_force(rows, 0.5)
    assert len(expected) > 5
    ds = ray.data.from_arrow([table(rows[start::blocks]) for start in range(blocks)])
    found = novelty(ds, cfg).take_all()
    assert len(found) == len(rows)
    for one in found:
        if one["row_id"] == "x":
            assert (one["drop_reason"], one["rouge_l"]) == ("no_choice", None)
            continue
        assert one["not_novel_of"] == expected.get(one["seed_id"])
        assert (one["drop_reason"] == "not_novel") is (one["seed_id"] in expected)
        assert (one["rouge_l"] is not None) is (one["seed_id"] in expected)
    gone = novelty(ray.data.from_arrow([table([])]), cfg)
    assert gone.count() == 0


def test_evidence_is_a_number_of_the_two() -> None:
    rows = [row("a", "a b c d e f g h i j"), row("b", "a b c d e f g h i k l m")]
    (gone,) = gone_of(signed(table(rows), RUN_SEED), share_of(0.7)).to_pylist()
    assert gone["rouge_l"] == pytest.approx(18 / 22)
    assert np.isfinite(gone["rouge_l"])
