"""gates.py: what every stage after the metrics takes for a sample that is left."""

from __future__ import annotations

from typing import Any

import pytest

from selfalign_ray.validation.gates import measures_of, reason_of, ungated

Row = dict[str, Any]


def row(count: int, **columns: Any) -> Row:
    return {
        "samples": [{"sample_index": n} for n in range(count)],
        "verdicts": [{"sample_index": n, "verdict": "passed"} for n in range(count)],
        "drop_reason": None,
        **columns,
    }


def gate(index: int, name: str | None, **measures: Any) -> Row:
    return {"sample_index": index, "gate": name, **measures}


def test_a_sample_is_left_where_no_column_refused_it() -> None:
    judged = row(
        4,
        metrics=[gate(0, "pep8"), gate(1, None, asserts=3), gate(2, None)],
        strength=[gate(1, None, killed_share=0.5), gate(2, "weak_tests")],
        cross_execution=None,
    )
    left = {sample["sample_index"]: measures for sample, measures in ungated(judged)}
    assert list(left) == [1, 3]
    assert left[1]["asserts"] == 3
    assert left[1]["killed_share"] == 0.5
    assert measures_of(judged)[0]["gate"] == "pep8"


def test_the_first_column_that_refused_a_sample_names_the_gate() -> None:
    judged = row(1, metrics=[gate(0, "pep8")], strength=[gate(0, None)])
    assert measures_of(judged)[0]["gate"] == "pep8"


@pytest.mark.parametrize(
    ("strength", "reason"),
    [
        (["a", "b", "b"], "b"),
        (["b", "a", None], None),
        (["b", "a"], None),  # the third was not measured
        (["b", "a", "c"], "a"),  # of equals the first in the order
        (["b", "b", "sandbox_failed"], "sandbox_failed"),  # which may get through another time
    ],
)
def test_a_row_stops_by_the_gate_of_most_samples(strength: list[str], reason: str | None) -> None:
    judged = row(3, strength=[gate(n, name) for n, name in enumerate(strength)])
    assert reason_of(judged, "strength", ("a", "b", "c")) == reason


def test_a_row_that_stopped_before_keeps_its_reason() -> None:
    judged = row(1, strength=[gate(0, "a")], drop_reason="no_passing_sample")
    assert reason_of(judged, "strength", ("a",)) == "no_passing_sample"
