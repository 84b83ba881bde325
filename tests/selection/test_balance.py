from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
import ray
from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray import schemas
from selfalign_ray.errors import UserError
from selfalign_ray.selection.balance import KEYS, balance, cap_of, gone_of
from selfalign_ray.selection.config import SelectionConfig
from selfalign_ray.selection.duplicates import place_of
from selfalign_ray.selection.marks import with_marks
from selfalign_ray.settings import check

Row = dict[str, Any]
RUN_SEED = 5
NAMES = ("row_id", "seed_id", "sample_index", "difficulty_bin", "concepts", "drop_reason")
ON = "balance.enabled=true"
OFF = ("balance.difficulty_share=null", "balance.concept_share=null")


def row(number: int, bin_: int | None, *concepts: str, index: int = 0) -> Row:
    values = (f"r{number}", f"s{number}", index, bin_, list(concepts), None)
    return dict(zip(NAMES, values, strict=True))


def table(rows: list[Row]) -> pa.Table:
    schema = pa.schema([schemas.SELECTED.field(name) for name in NAMES])
    return pa.Table.from_pylist(rows, schema=schema)


_ROWS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, None]), st.lists(st.sampled_from(["a", "A ", "b", "c"]), max_size=3)
    ),
    max_size=30,
).map(lambda found: [row(n, bin_, *concepts) for n, (bin_, concepts) in enumerate(found)])


@settings(deadline=None)
@given(_ROWS, st.integers(1, 5), st.integers(1, 5), st.randoms())
def test_no_kind_has_more_rows_than_its_cap_and_none_goes_without_need(
    rows: list[Row], of_bin: int, of_concept: int, order: Any
) -> None:
    from tests.selection.conftest import loaded

    caps = (f"balance.difficulty_rows={of_bin}", f"balance.concept_rows={of_concept}")
    cfg = loaded(SelectionConfig, "selection/default.yaml", ON, *OFF, *caps).balance
    gone = {r["key"]: r["drop_reason"] for r in gone_of(rows, cfg, RUN_SEED).to_pylist()}
    order.shuffle(rows)
    again = gone_of(rows, cfg, RUN_SEED).to_pylist()
    assert {r["key"]: r["drop_reason"] for r in again} == gone
    bins: Counter[int | None] = Counter()
    concepts: Counter[str] = Counter()
    for one in sorted(rows, key=lambda r: place_of(r["seed_id"], RUN_SEED)):
        names = {name.strip().lower() for name in one["concepts"]}
        full = "over_difficulty" if bins[one["difficulty_bin"]] == of_bin else None
        if full is None and any(concepts[name] == of_concept for name in names):
            full = "over_concept"
        assert gone.get(f"{one['seed_id']}/0") == full
        if full is None:
            bins[one["difficulty_bin"]] += 1
            concepts.update(names)


@pytest.mark.parametrize(
    ("rows", "share", "found"),
    [(None, None, float("inf")), (3, None, 3), (None, 0.1, 2), (3, 0.1, 2), (1, 0.9, 1)],
)
def test_the_smaller_of_two_caps_holds(rows: int | None, share: float | None, found: float) -> None:
    assert cap_of(rows, share, 25) == found
    assert cap_of(None, 0.01, 5) == 1


def test_enabled_without_a_cap_is_refused(selection: Callable[..., SelectionConfig]) -> None:
    with pytest.raises(UserError, match=r"balance.enabled: must be false where no cap"):
        check(selection(ON, *OFF))
    check(selection(*OFF))


def test_rows_that_were_made_elsewhere_and_have_no_index_go_too(
    selection: Callable[..., SelectionConfig],
) -> None:
    rows = [{**row(n, 0, "sets"), "sample_index": None} for n in range(4)]
    cfg = selection(ON, *OFF, "balance.concept_rows=1").balance
    found = with_marks(table(rows), gone_of(rows, cfg, RUN_SEED), KEYS)
    assert Counter(found["drop_reason"].to_pylist()) == {"over_concept": 3, None: 1}


@pytest.mark.ray
@pytest.mark.parametrize("blocks", [1, 3])
def test_the_stage_marks_single_rows_of_a_seed(
    ray_local: None, run_config: Any, blocks: int
) -> None:
    rows = [row(n, 0, "sets", index=index) for n in range(3) for index in range(3)]
    rows += [{**row(7, 1), "drop_reason": "not_novel", "sample_index": None}, row(8, None)]
    off = [f"selection.{switch}" for switch in (ON, *OFF)]
    cfg = run_config(f"run_seed={RUN_SEED}", *off, "selection.balance.difficulty_rows=4")
    ds = ray.data.from_arrow([table(rows[start::blocks]) for start in range(blocks)])
    found = balance(ds, cfg).take_all()
    assert Counter(r["drop_reason"] for r in found) == {
        "over_difficulty": 5,
        "not_novel": 1,
        None: 5,
    }
    first = min(range(3), key=lambda n: place_of(f"s{n}", RUN_SEED))
    assert [r["drop_reason"] for r in found if r["seed_id"] == f"s{first}"] == [None] * 3
