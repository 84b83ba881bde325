"""The gates on samples that passed: what they refuse, what is left, and why a row has none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

Row = dict[str, Any]
SANDBOX_FAILED = "sandbox_failed"  # the gate of what the sandbox could not run: no fault of the row
# Columns with a value for each sample, `gate` among its fields. A row may lack some.
GATED = ("metrics", "strength", "cross_execution", "judge")


class Limit(NamedTuple):
    """What a gate asks of a measure: at least, at most, or nothing where both are null."""

    gate: str
    value: float | None  # null: could not be measured
    least: float | None = None
    most: float | None = None


def refused_by(limits: Iterable[Limit]) -> str | None:
    """The first gate that refuses its measure; what could not be measured is `unmeasured`."""
    for gate, value, least, most in limits:
        if least is None and most is None:
            continue
        if value is None:
            return "unmeasured"
        if (least is not None and value < least) or (most is not None and value > most):
            return gate
    return None


def passing(row: Row) -> list[Row]:
    """The samples of a kept row whose verdict is passed."""
    if row["drop_reason"] is not None:
        return []
    passed = {v["sample_index"] for v in row["verdicts"] or () if v["verdict"] == "passed"}
    return [sample for sample in row["samples"] or () if sample["sample_index"] in passed]


def measures_of(row: Row) -> dict[int, Row]:
    """By sample_index what each of these columns says of the sample, in one; the first gate."""
    found: dict[int, Row] = {}
    for column in GATED:
        for measured in row.get(column) or ():
            into = found.setdefault(measured["sample_index"], {"gate": None})
            gate = into["gate"] or measured.get("gate")
            into.update(measured, gate=gate)
    return found


def ungated(row: Row) -> Iterator[tuple[Row, Row]]:
    """The samples of a kept row that passed and that no gate refused, each with its measures."""
    measures = measures_of(row)
    for sample in passing(row):
        found = measures.get(sample["sample_index"], {})
        if found.get("gate") is None:
            yield sample, found


def reason_of(row: Row, column: str, order: Sequence[str]) -> str | None:
    """Why a row with this column filled in stops, where no sample is left.

    It is the gate of the column that refused most of its samples, the first in `order` of equals;
    sandbox_failed where that refused any, which done again may be left. None where a sample is
    left or the column refused none.
    """
    had: str | None = row["drop_reason"]
    gates = Counter(str(m["gate"]) for m in row[column] or () if m["gate"] is not None)
    if had is not None or not gates or next(ungated(row), None) is not None:
        return had
    if SANDBOX_FAILED in gates:
        return SANDBOX_FAILED
    return min(gates, key=lambda gate: (-gates[gate], order.index(gate)))
