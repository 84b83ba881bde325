from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
import ray

from selfalign_ray import schemas
from selfalign_ray.errors import UserError
from selfalign_ray.selection.choose import add_choice, choose, chosen_columns, pass_rate, score
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


def chosen(judged: Row, cfg: SelectionConfig) -> Row:
    return chosen_columns(judged, cfg.choose, 7)


def test_the_columns_are_those_of_the_chosen_sample(selection: Selection) -> None:
    found = chosen(row(1, 2, 3, refused=(0, 1)), selection("choose.by=random"))
    assert found == {
        "pass_rate": 1.0,
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
    found = add_choice(table(row(1, drop_reason="bad_fence")), selection().choose, 7)
    for name in ("pass_rate", "sample_index", "response", "drop_reason"):
        assert found.schema.field(name).type == schemas.SELECTED.field(name).type


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
