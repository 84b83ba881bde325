"""near_duplicates: which seeds go, what they say, and that dropped rows play no part."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import ray.data

from selfalign_ray import schemas
from selfalign_ray.near_copies import GONE, order_of
from selfalign_ray.seeds.near_duplicates import marked, near_duplicates, texts_of

RUN_SEED = 3407
CODE = '''def area(radius: float, factor: float) -> float:
    """Return the area of a circle of this radius, scaled by a factor."""
    scaled = radius * factor
    return 3.14159 * scaled * scaled + {}
'''
OTHER = (
    "def other(a: int, b: int) -> list[int]:\n    return [c for c in range(a, b) if c % 3 == 1]\n"
)


def table(*rows: tuple[str, str | None, str | None]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"row_id": seed_id, "source": "s", "path": "p", "seed_id": seed_id, "seed": seed}
            | {"drop_reason": reason}
            for seed_id, seed, reason in rows
        ],
        schema=schemas.SEED,
    )


def test_only_kept_seeds_are_compared() -> None:
    seeds = table(("a", CODE, None), ("b", CODE, "too_long"), ("c", None, "no_functions"))
    assert texts_of(seeds).to_pylist() == [{"id": "a", "text": CODE}]


def test_a_seed_that_goes_says_for_which_and_how_alike() -> None:
    gone = pa.Table.from_pylist(
        [{"order": order_of("b", RUN_SEED), "kept_id": "a", "jaccard": 0.75}], schema=GONE
    )
    seeds = table(("a", CODE, None), ("b", CODE, None), ("c", None, "no_functions"))
    found = marked(seeds, gone, RUN_SEED)
    assert found.cast(schemas.SEED).num_rows == 3
    names = ["near_duplicate_of", "near_duplicate_jaccard", "drop_reason"]
    assert [tuple(row.values()) for row in found.select(names).to_pylist()] == [
        (None, None, None),
        ("a", 0.75, "near_duplicate"),
        (None, None, "no_functions"),
    ]


def test_nothing_goes_where_nothing_is_alike() -> None:
    seeds = table(("a", CODE, None), ("b", None, "no_functions"))
    found = marked(seeds, GONE.empty_table(), RUN_SEED)
    assert found.to_pylist() == seeds.to_pylist()
    assert marked(table(), GONE.empty_table(), RUN_SEED).num_rows == 0


@pytest.mark.ray
def test_one_of_a_family_stays_however_rows_are_spread(ray_local: None, run_config: Any) -> None:
    family = [f"{n:02}" for n in range(12)]
    rows = [(name, CODE.format(name), None) for name in family]
    rows += [("other", OTHER, None), ("dropped", CODE.format("x"), "too_long")]
    first = min(family, key=lambda name: order_of(name, RUN_SEED))
    expected = {
        name: (None, None) if name == first else ("near_duplicate", first) for name in family
    }
    expected |= {"other": (None, None), "dropped": ("too_long", None)}
    for blocks in (1, 4):
        spread = [table(*rows[start::blocks]) for start in range(blocks)]
        found = near_duplicates(ray.data.from_arrow(spread), run_config()).take_all()
        reasons = {r["seed_id"]: (r["drop_reason"], r["near_duplicate_of"]) for r in found}
        assert reasons == expected
        assert len(found) == len(rows)
    cfg = run_config("seeds.near_duplicates.enabled=false")
    found = near_duplicates(ray.data.from_arrow([table(*rows)]), cfg).take_all()
    assert sum(row["drop_reason"] is None for row in found) == 13
