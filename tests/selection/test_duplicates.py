from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa
import pytest
import ray
from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray import schemas
from selfalign_ray.ids import keyed_int
from selfalign_ray.near_copies import order_of
from selfalign_ray.selection.duplicates import (
    add_key,
    code_key,
    duplicates,
    instruction_key,
    keep_first,
    near_texts,
    pair_key,
)

Row = dict[str, Any]
RUN_SEED = 7
STEPS: list[tuple[Callable[[Row], str], str]] = [
    (instruction_key, "duplicate_instruction"),
    (code_key, "duplicate_response"),
]


def row(number: int, instruction: str, code: str, drop_reason: str | None = None) -> Row:
    return {
        "row_id": f"row {number}",
        "seed_id": f"seed {number}",
        "sample_index": 0,
        "instruction": instruction,
        "final_instruction": instruction,
        "response": code,
        "code": code,
        "drop_reason": drop_reason,
    }


def table(rows: list[Row]) -> pa.Table:
    schema = pa.schema([schemas.SELECTED.field(name) for name in row(0, "", "")])
    return pa.Table.from_pylist(rows, schema=schema)


def by_parts(rows: list[Row], parts: int) -> dict[str, str | None]:
    """What the stage does, with the shuffle done here."""
    for key_of, reason in STEPS:
        keyed = add_key(table(rows), key_of=key_of)
        numbers = [zlib.crc32(key.encode()) % parts for key in keyed["duplicates_key"].to_pylist()]
        keep = partial(keep_first, reason=reason, run_seed=RUN_SEED)
        chosen = [pa.array([n == part for n in numbers], pa.bool_()) for part in range(parts)]
        blocks = [keyed.filter(rows_of_part) for rows_of_part in chosen]
        rows = pa.concat_tables(map(keep, blocks)).to_pylist()
    return {r["row_id"]: r["drop_reason"] for r in rows}


def brute_force(rows: list[Row]) -> dict[str, str | None]:
    """The rule of the docstring: each row against each."""
    place = {r["row_id"]: keyed_int(63, RUN_SEED, "duplicates", r["seed_id"]) for r in rows}
    reasons = {r["row_id"]: r["drop_reason"] for r in rows}
    for key_of, reason in STEPS:
        kept = [r for r in rows if reasons[r["row_id"]] is None]
        for one in kept:
            others = [o for o in kept if key_of(o) == key_of(one)]
            if any(place[o["row_id"]] < place[one["row_id"]] for o in others):
                reasons[one["row_id"]] = reason
    return reasons


_ROWS = st.lists(
    st.tuples(
        st.sampled_from(["Sort a list", "sort a  LIST", "Sort a set", "Add two numbers"]),
        st.sampled_from(["x = 1", "x=1  # one", "x = 2", "def f(: pass", "def  f(: pass"]),
        st.sampled_from([None, None, None, "no_choice"]),
    ),
    max_size=12,
).map(lambda found: [row(number, *one) for number, one in enumerate(found)])


@settings(deadline=None)
@given(_ROWS, st.integers(1, 5), st.randoms())
def test_the_result_is_that_of_brute_force_however_rows_are_spread(
    rows: list[Row], parts: int, order: Any
) -> None:
    expected = brute_force(rows)
    order.shuffle(rows)
    found = by_parts(rows, parts)
    assert found == expected
    kept = [r for r in rows if found[r["row_id"]] is None]
    for key_of, _ in STEPS:
        assert len({key_of(r) for r in kept}) == len(kept)


def test_a_row_may_fall_to_one_that_falls_itself() -> None:
    numbers = sorted(range(3), key=lambda n: keyed_int(63, RUN_SEED, "duplicates", f"seed {n}"))
    first, second, third = numbers
    rows = [row(first, "a", "x = 1"), row(second, "b", "x = 1"), row(third, "b", "x = 2")]
    assert by_parts(rows, 1) == {
        f"row {first}": None,
        f"row {second}": "duplicate_response",
        f"row {third}": "duplicate_instruction",
    }


def test_the_same_row_twice_is_kept_once() -> None:
    twice = add_key(table([row(0, "a", "x = 1")] * 2), key_of=code_key)
    reasons = keep_first(twice, reason="duplicate_response", run_seed=RUN_SEED)["drop_reason"]
    assert reasons.to_pylist() == [None, "duplicate_response"]


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("Sort a list.", "sort  A\nlist. ", True),
        ("Sort a list.", "Sort a set.", False),
        ("Sort a list", "Sort alist", False),
        ("\ufb01nd \uff58", "find x", True),
    ],
)
def test_instructions_are_equal_but_for_case_and_white_space(
    one: str, other: str, *, equal: bool
) -> None:
    keys = [instruction_key(row(0, text, "")) for text in (one, other)]
    assert (keys[0] == keys[1]) is equal


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("def f(a): return a", "def f(a):\n    # same\n    '''Doc.'''\n    return a\n", True),
        ("x = 'a'", 'x = "a"', True),
        ("def f(a): return a", "def f(b): return b", False),
        ("def f(a): 'Doc.'", "def f(a): pass", True),
        ("'''Doc.'''\nx = 1", "x = 1", True),
        ("def f(: pass", "def  f(:\n pass", True),
        ("x = 0x" + "f" * 5_000, "x  = 0x" + "f" * 5_000, True),
    ],
)
def test_codes_are_equal_but_for_comments_docstrings_and_layout(
    one: str, other: str, *, equal: bool
) -> None:
    keys = [code_key(row(0, "", text)) for text in (one, other)]
    assert (keys[0] == keys[1]) is equal


@settings(deadline=None)
@given(st.text(max_size=60))
def test_no_text_raises(text: str) -> None:
    code_key(row(0, "", text))
    instruction_key(row(0, text, ""))


def of_seed(seed: int, index: int, code: str, instruction: str = "Sort a list") -> Row:
    """One of several rows of a seed."""
    return {**row(seed, instruction, code), "sample_index": index, "row_id": f"row {seed}"}


def kept_of(rows: list[Row], key_of: Callable[[Row], str], reason: str) -> list[tuple[str, int]]:
    keep = partial(keep_first, reason=reason, run_seed=RUN_SEED)
    found = keep(add_key(table(rows), key_of=key_of)).to_pylist()
    return sorted((r["row_id"], r["sample_index"]) for r in found if r["drop_reason"] is None)


def test_the_rows_of_a_seed_do_not_count_against_each_other_by_instruction() -> None:
    rows = [of_seed(seed, index, f"x = {index}") for seed in (1, 2) for index in range(3)]
    first = min((1, 2), key=lambda n: keyed_int(63, RUN_SEED, "duplicates", f"seed {n}"))
    kept = kept_of(rows, instruction_key, "duplicate_instruction")
    assert kept == [(f"row {first}", index) for index in range(3)]
    twice = kept_of(rows[:1] * 2, instruction_key, "duplicate_instruction")
    assert twice == [("row 1", 0)]


def test_by_code_every_row_counts() -> None:
    rows = [of_seed(1, index, "x = 1") for index in range(3)]
    assert kept_of(rows, code_key, "duplicate_response") == [("row 1", 0)]


def test_a_pair_is_instruction_response_and_names_to_the_letter() -> None:
    def key(instruction: str, response: str, code: str) -> str:
        return pair_key(
            {
                "final_instruction": instruction,
                "instruction": "",
                "response": response,
                "code": code,
            }
        )

    one = key("Sort.", "A", "def f(): pass\n\ndef g(): pass")
    assert one == key("Sort.", "A", "class C:\n    def g(self): ...\n\ndef f(): return 1")
    assert one != key("sort.", "A", "def f(): pass\n\ndef g(): pass")
    assert one != key("Sort.", "B", "def f(): pass\n\ndef g(): pass")
    assert one != key("Sort.", "A", "def f(): pass\n\ndef h(): pass")
    assert key("", "", "def f(:") == key("", "", "x")
    elsewhere = {"final_instruction": None, "instruction": "Sort.", "response": "A", "code": None}
    assert pair_key(elsewhere) == key("Sort.", "A", "")


def test_texts_for_near_copies_are_of_kept_rows_and_whole() -> None:
    rows = [row(0, "a", "b"), row(1, "a", "b", "no_choice"), {**row(2, "a", "b"), "code": None}]
    assert near_texts(table(rows)).to_pylist() == [
        {"id": "seed 0", "text": "a\nb\nb"},
        {"id": "seed 2", "text": "a\nb\n"},
    ]


@pytest.mark.ray
def test_near_copies_go_with_all_rows_of_their_seed(ray_local: None, run_config: Any) -> None:
    words = " ".join(f"w{n}" for n in range(200))
    rows = [
        {**of_seed(seed, index, f"x{index} = {seed}", f"{words} {seed}"), "response": f"r{index}"}
        for seed in range(4)
        for index in range(2)
    ]
    rows.append(row(9, "Something else that nothing is like at all.", "y = 1"))
    rows.append(row(8, f"{words} 8", "z = 1", "no_choice"))
    cfg = run_config(f"run_seed={RUN_SEED}")
    found = duplicates(ray.data.from_arrow([table(rows[:5]), table(rows[5:])]), cfg).take_all()
    first = min(range(4), key=lambda n: order_of(f"seed {n}", RUN_SEED))
    assert len(found) == len(rows)
    for one in found:
        number = int(one["seed_id"].split()[1])
        gone = number < 4 and number != first
        reason = "near_duplicate" if gone else {8: "no_choice"}.get(number)
        assert one["drop_reason"] == reason
        assert one["near_duplicate_of"] == (f"seed {first}" if gone else None)
        assert (one["near_duplicate_jaccard"] or 1) > 0.7
    cfg = run_config("selection.duplicates.near.enabled=false")
    found = duplicates(ray.data.from_arrow([table(rows)]), cfg).take_all()
    assert sum(one["drop_reason"] is None for one in found) == 9


@pytest.mark.ray
@pytest.mark.parametrize("blocks", [1, 4])
def test_the_stage_gives_the_same_however_rows_are_spread(
    ray_local: None, run_config: Any, blocks: int
) -> None:
    cfg = run_config(f"run_seed={RUN_SEED}")
    rows = [
        row(n, f"Task {n % 5}", f"x = {n % 7}", "no_choice" if n % 4 == 0 else None)
        for n in range(24)
    ]
    spread = [table(rows[start::blocks]) for start in range(blocks)]
    found = duplicates(ray.data.from_arrow(spread), cfg).take_all()
    assert {r["row_id"]: r["drop_reason"] for r in found} == brute_force(rows)
    assert set(rows[0]) <= set(found[0]) <= set(schemas.SELECTED.names)


@pytest.mark.ray
def test_each_criterion_is_a_switch(ray_local: None, run_config: Any) -> None:
    rows = [row(0, "a", "x = 1"), row(1, "a", "x = 1"), row(2, "b", "x = 1")]
    for by, count in (("instruction", 2), ("code", 1), ("pair", 2)):
        switches = [f"by_{name}={by == name}" for name in ("instruction", "code", "pair")]
        switches.append("near.enabled=false")
        cfg = run_config(*(f"selection.duplicates.{switch}" for switch in switches))
        found = duplicates(ray.data.from_arrow([table(rows)]), cfg).take_all()
        assert sum(r["drop_reason"] is None for r in found) == count


@pytest.mark.ray
def test_rows_that_are_all_dropped_pass_through(ray_local: None, run_config: Any) -> None:
    rows = [row(n, "a", "x = 1", "no_choice") for n in range(3)]
    found = duplicates(ray.data.from_arrow([table(rows)]), run_config()).take_all()
    assert [r["drop_reason"] for r in found] == ["no_choice"] * 3
