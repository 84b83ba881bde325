from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
import ray

from selfalign_ray import schemas
from selfalign_ray.errors import UserError
from selfalign_ray.selection.choose import add_choices, choices_of, choose, pass_rate, score
from selfalign_ray.selection.config import SelectionConfig
from selfalign_ray.settings import check

Row = dict[str, Any]
Selection = Callable[..., SelectionConfig]


def row(*asserts: int, seed_id: str = "s", refused: tuple[int, ...] = (), **others: Any) -> Row:
    """A row whose samples have so many asserts; those in `refused` cannot be chosen."""
    indexes = range(len(asserts))
    return {
        "row_id": seed_id,
        "seed_id": seed_id,
        "samples": [
            {"sample_index": i, "code": f"code {i}", "tests": f"tests {i}"} for i in indexes
        ],
        "verdicts": [{"sample_index": i, "verdict": "passed"} for i in indexes],
        "metrics": [{"sample_index": i, "asserts": n} for i, n in enumerate(asserts)],
        "sanitised": [
            {
                "sample_index": i,
                "instruction": f"instruction {i}",
                "response": None if i in refused else f"response {i}",
                "drop_reason": "incomplete" if i in refused else None,
            }
            for i in indexes
        ],
        "drop_reason": None,
        **others,
    }


def choices(judged: Row, cfg: SelectionConfig) -> list[Row]:
    return list(choices_of(judged, cfg.choose, 7))


def chosen(judged: Row, cfg: SelectionConfig) -> Row:
    (found,) = choices(judged, cfg)
    return found


def test_the_columns_are_those_of_the_chosen_sample(selection: Selection) -> None:
    found = chosen(row(1, 2, 3, refused=(0, 1)), selection("choose.by=random"))
    assert found == {
        "pass_rate": 1.0,
        "difficulty_bin": 2,
        "choice": 0,
        "sample_index": 2,
        "final_instruction": "instruction 2",
        "response": "response 2",
        "code": "code 2",
        "tests": "tests 2",
        "drop_reason": None,
    }


def test_random_is_fair_and_fixed_by_the_id(selection: Selection) -> None:
    cfg = selection("choose.by=random")
    rows = [row(1, 9, 1, 1, seed_id=str(number), refused=(3,)) for number in range(300)]
    first = [chosen(r, cfg)["sample_index"] for r in rows]
    counts = Counter(first)
    assert set(counts) == {0, 1, 2}
    assert min(counts.values()) > 70
    assert [chosen(r, cfg)["sample_index"] for r in reversed(rows)] == first[::-1]


def test_best_has_the_highest_score_of_those_that_can_be_chosen(selection: Selection) -> None:
    cfg = selection("choose.by=best")
    assert chosen(row(1, 3, 2), cfg)["sample_index"] == 1
    assert chosen(row(1, 3, 2, refused=(1,)), cfg)["sample_index"] == 2
    ties = {chosen(row(3, 1, 3, seed_id=str(n)), cfg)["sample_index"] for n in range(50)}
    assert ties == {0, 2}


def test_the_score_weighs_columns_and_null_is_nothing(selection: Selection) -> None:
    weights = selection().choose.score
    good = {"asserts": 4, "trivial_asserts": 1, "repeated_asserts": 1, "type_coverage": 0.5}
    assert score(good, weights) == pytest.approx(2.1)
    assert score({"asserts": None, "pep8_per_line": 2.0}, weights) == -1
    assert score({}, weights) == 0


def with_codes(judged: Row, *codes: str) -> Row:
    """The row with other solutions."""
    pairs = zip(judged["samples"], codes, strict=True)
    return {**judged, "samples": [{**sample, "code": code} for sample, code in pairs]}


def test_up_to_k_solutions_that_differ_are_rows_best_first(selection: Selection) -> None:
    judged = with_codes(row(1, 4, 3, 2, 5, refused=(4,)), "x = 1", "x = 2", "x=2 # two", "x=3", "")
    found = choices(judged, selection("choose.k=3"))
    assert [(one["choice"], one["sample_index"]) for one in found] == [(0, 1), (1, 3), (2, 0)]
    assert [one["response"] for one in found] == ["response 1", "response 3", "response 0"]
    assert {one["drop_reason"] for one in found} == {None}
    assert len(choices(judged, selection("choose.k=9"))) == 3
    assert len(choices(judged, selection("choose.k=2"))) == 2


def test_the_first_of_k_is_the_one_of_k_1(selection: Selection) -> None:
    for by in ("random", "best"):
        for number in range(20):
            judged = row(1, 3, 3, 1, seed_id=str(number))
            first, *others = choices(judged, selection(f"choose.by={by}", "choose.k=4"))
            assert first == chosen(judged, selection(f"choose.by={by}"))
            assert len({one["sample_index"] for one in [first, *others]}) == 4


def test_k_random_solutions_are_fair(selection: Selection) -> None:
    cfg = selection("choose.by=random", "choose.k=2")
    found = [choices(row(1, 9, 1, seed_id=str(n)), cfg) for n in range(300)]
    counts = Counter(one["sample_index"] for both in found for one in both)
    assert min(counts.values()) > 160


@pytest.mark.parametrize(("passed", "found"), [(0, 0), (2, 0), (3, 1), (6, 1), (7, 2), (10, 2)])
def test_the_difficulty_follows_from_the_pass_rate(
    selection: Selection, passed: int, found: int
) -> None:
    verdicts = [{"verdict": "passed" if n < passed else "assertion"} for n in range(10)]
    judged = row(*[1] * 10, verdicts=verdicts)
    assert chosen(judged, selection("choose.difficulty_edges=[0.3,0.7]"))["difficulty_bin"] == found
    assert chosen(judged, selection("choose.difficulty_edges=[]"))["difficulty_bin"] == 0


def test_no_rate_has_no_difficulty(selection: Selection) -> None:
    judged = row(1, verdicts=[{"verdict": "infra"}])
    assert chosen(judged, selection())["difficulty_bin"] is None


@pytest.mark.parametrize("edges", ["[0.7,0.3]", "[0.5,0.5]", "[0,0.5]", "[0.5,1.1]"])
def test_edges_ascend_between_0_and_1(selection: Selection, edges: str) -> None:
    with pytest.raises(UserError, match="difficulty_edges"):
        check(selection(f"choose.difficulty_edges={edges}"))


def test_without_a_choice_the_row_stops(selection: Selection) -> None:
    for judged in (row(1, 2, refused=(0, 1)), row(), row(1, sanitised=None, metrics=None)):
        found = chosen(judged, selection())
        assert (found["drop_reason"], found["response"]) == ("no_choice", None)


def test_a_row_dropped_before_stays_as_it_is(selection: Selection) -> None:
    found = chosen(row(1, drop_reason="bad_fence"), selection())
    assert found.pop("drop_reason") == "bad_fence"
    assert set(found.values()) == {None}


@pytest.mark.parametrize(
    ("verdicts", "samples", "rate"),
    [
        (["passed", "assertion", "passed", "timeout"], 4, 0.5),
        (["passed"], 4, 0.25),
        (["passed", "infra"], 2, 1.0),
        (["infra"], 1, None),
        ([], 0, None),
    ],
)
def test_pass_rate(verdicts: list[str], samples: int, rate: float | None) -> None:
    judged = {"samples": [{}] * samples, "verdicts": [{"verdict": v} for v in verdicts]}
    assert pass_rate(judged) == rate


@pytest.mark.parametrize(
    "override", ["choose.score.beauty=1", "choose.score.sample_index=1", "choose.score.gate=1"]
)
def test_only_numbers_of_metrics_have_a_weight(selection: Selection, override: str) -> None:
    with pytest.raises(UserError, match=override.removesuffix("=1")):
        check(selection(override))


def table(*rows: Row) -> pa.Table:
    schema = pa.schema([schemas.SELECTED.field(name) for name in rows[0]])
    return pa.Table.from_pylist(list(rows), schema=schema)


def test_a_batch_has_typed_columns(selection: Selection) -> None:
    found = add_choices(table(row(1, drop_reason="bad_fence")), selection().choose, 7)
    for name in ("pass_rate", "choice", "sample_index", "response", "drop_reason"):
        assert found.schema.field(name).type == schemas.SELECTED.field(name).type


def test_a_batch_has_a_row_for_each_choice_and_one_for_each_row_without(
    selection: Selection,
) -> None:
    rows = [row(1, 2), row(1, refused=(0,)), row(1, drop_reason="bad_fence"), row(4, 5, 6)]
    rows = [{**one, "row_id": f"r{n}"} for n, one in enumerate(rows)]
    found = add_choices(table(*rows), selection("choose.k=2").choose, 7)
    assert found["row_id"].to_pylist() == ["r0", "r0", "r1", "r2", "r3", "r3"]
    assert found["choice"].to_pylist() == [0, 1, None, None, 0, 1]
    assert found["sample_index"].to_pylist() == [1, 0, None, None, 2, 1]


@pytest.mark.ray
def test_the_stage_chooses_for_every_row(ray_local: None, run_config: Any) -> None:
    rows = [row(1, 2), row(1, refused=(0,)), row(1, drop_reason="bad_fence")]
    found = choose(ray.data.from_arrow([table(r) for r in rows]), run_config()).take_all()
    ends = sorted((str(r["drop_reason"]), r["response"]) for r in found)
    assert ends == [("None", "response 1"), ("bad_fence", None), ("no_choice", None)]


def test_the_papers_settings_choose_at_random(run_config: Any) -> None:
    found = run_config("selection=paper").selection
    assert found.choose.by == "random"
    assert (found.sanitise.shown_tests_share, found.sanitise.shown_tests_max_asserts) == (0.5, 5)
