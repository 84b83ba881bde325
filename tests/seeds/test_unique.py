"""unique: what counts as equal, which one is kept, and that partitions do not matter."""

from __future__ import annotations

import pyarrow as pa
import pytest
import ray.data
from hypothesis import given
from hypothesis import strategies as st

from selfalign_ray import schemas
from selfalign_ray.seeds.unique import firsts_kept, group_of, unique, with_group


def table(*rows: tuple[str, str | None, str | None]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"row_id": row_id, "source": "s", "path": "p", "seed": seed, "drop_reason": reason}
            for row_id, seed, reason in rows
        ],
        schema=schemas.SEED,
    )


def reasons(seeds: pa.Table) -> dict[str, str | None]:
    return dict(zip(seeds["row_id"].to_pylist(), seeds["drop_reason"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ("def f(): return 1", "def f(): return 1", True),
        ("def f():\n    return 1", "def f():\n\n  return 1\n", True),
        ("def f(): return 1", "def f(): return 2", False),
        ("return 1 1", "return 11", False),
    ],
)
def test_equal(left, right, equal):
    assert (group_of(left) == group_of(right)) is equal


def test_the_smallest_row_id_is_kept_and_dropped_rows_do_not_count():
    seeds = table(
        ("c", "x", None),
        ("b", " x", None),
        ("a", "x", "too_short"),
        ("d", "y", None),
        ("e", None, "no_functions"),
        ("f", None, "no_functions"),
    )
    marked = firsts_kept(with_group(seeds))
    assert marked.schema == schemas.SEED
    assert reasons(marked) == {
        "a": "too_short",
        "b": None,
        "c": "duplicate_seed",
        "d": None,
        "e": "no_functions",
        "f": "no_functions",
    }


def test_an_empty_block():
    assert firsts_kept(with_group(table())).num_rows == 0


@given(st.dictionaries(st.text("ab", min_size=1), st.sampled_from(["x", "x ", "y", "z"])))
def test_one_of_each_group_is_kept_in_any_order(seeds):
    rows = [(row_id, seed, None) for row_id, seed in seeds.items()]
    forward = reasons(firsts_kept(with_group(table(*rows))))
    assert forward == reasons(firsts_kept(with_group(table(*reversed(rows)))))
    kept = [seeds[row_id].strip() for row_id, reason in forward.items() if reason is None]
    assert sorted(kept) == sorted({seed.strip() for seed in seeds.values()})


@pytest.mark.ray
def test_partitions_do_not_matter(ray_local, run_config):
    rows = [(f"{place:03}", f"seed {place % 37}", None) for place in range(100)]
    rows += [(f"dropped {place}", None, "no_functions") for place in range(5)]
    expected = reasons(firsts_kept(with_group(table(*rows))))
    for blocks, partitions in ((1, 1), (7, 3), (3, 8)):
        size = -(-len(rows) // blocks)
        parts = [table(*rows[start : start + size]) for start in range(0, len(rows), size)]
        cfg = run_config(f"seeds.unique.partitions={partitions}")
        found = unique(ray.data.from_arrow(parts), cfg).take_all()
        assert {row["row_id"]: row["drop_reason"] for row in found} == expected
        assert set(found[0]) == set(schemas.SEED.names)
