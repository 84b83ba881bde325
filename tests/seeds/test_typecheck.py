"""typecheck: what counts as a type error, what does not, and a checker that fails."""

from __future__ import annotations

import subprocess
from typing import Any

import pyarrow as pa
import pytest
import ray.data

from selfalign_ray import schemas
from selfalign_ray.seeds import typecheck as stage
from selfalign_ray.seeds.config import TypecheckConfig
from selfalign_ray.seeds.typecheck import first_errors, judged, typecheck

CFG = TypecheckConfig(enabled=True, seeds_at_once=3, timeout_seconds=60)
GOOD = "import math\n\ndef area(radius: float) -> float:\n    return math.pi * radius**2\n"
BAD = "def half(number: int) -> str:\n    return number / 2\n"


def table(*rows: tuple[str | None, str | None]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"row_id": str(n), "source": "s", "path": "p", "seed": seed, "drop_reason": reason}
            for n, (seed, reason) in enumerate(rows)
        ],
        schema=schemas.SEED,
    )


ERRORS = [
    BAD,
    "def f(a: int) -> int:\n    return a.no_such\n",
    "import os\n\ndef f(a: str) -> str:\n    return os.path.join(a, 3)\n",
    "from typing import Optional\n\ndef f(a: Optional[str]) -> str:\n    return a.upper()\n",
    "def f(a: int) -> int:\n    if a > 1:\n        return a\n",
]
FINE = [
    GOOD,
    "import no_such_module\n\ndef f(a: int) -> int:\n    return no_such_module.g(a) + 'x'\n",
    "from numpy import array\n\ndef f(a: int) -> str:\n    return array([a]).no_such\n",
    "import pandas.core.frame as frame\n\ndef f(a: int) -> int:\n    return frame.No(a)\n",
    "from . import sibling\n\ndef f(a: int) -> int:\n    return sibling.g(a)\n",
    "from collections import no_such\n\ndef f(a: int) -> int:\n    return no_such(a)\n",
    # Of these types are installed here, for one by its own package, for the other by a second.
    "import os, requests\n\ndef f(a: int) -> int:\n    return requests.get(no_such=os)\n",
    "import yaml\n\ndef f(a: int) -> int:\n    return yaml.safe_dump(a, 1, 2, 3, 4).no_such\n",
    "from typing_extensions import Self\n\ndef f(a: int) -> int:\n    return a\n",
    "def f(a, b=1):\n    return a + b\n",
    "x = '\ud800'\n",
    "",
]


def test_errors_of_types_are_found_each_in_its_own_seed() -> None:
    mixed = [code for pair in zip(ERRORS, FINE, strict=False) for code in pair]
    found = first_errors([*mixed, *FINE[len(ERRORS) :]], 60)
    assert [error is not None for error in found] == [True, False] * 5 + [False] * 7
    assert found[0] is not None
    assert found[0].startswith("bad-return, line 2: ")


def test_a_seed_knows_nothing_of_those_checked_with_it() -> None:
    imports = ["import seed_0", "import os, seed_0", "from . import seed_0"]
    asking = [f"{line}\n\ndef f(a: str) -> int:\n    return seed_0.half(a)\n" for line in imports]
    assert first_errors([BAD, *asking], 60)[1:] == [None] * 3


def test_the_first_error_is_told() -> None:
    (found,) = first_errors(["def f(a: int) -> int:\n    a.one\n    a.two\n    return a\n"], 60)
    assert found is not None
    assert "line 2" in found
    assert "`one`" in found


def test_dropped_rows_are_not_checked_and_evidence_stands_beside_the_reason() -> None:
    rows = table((GOOD, None), (BAD, "too_long"), (None, "no_functions"), *[(BAD, None)] * 4)
    found = judged(rows, CFG).cast(schemas.SEED).to_pylist()
    reasons = [row["drop_reason"] for row in found]
    assert reasons == [None, "too_long", "no_functions", *["type_error"] * 4]
    assert [row["type_error"] is not None for row in found] == [False] * 3 + [True] * 4
    assert judged(table(), CFG).num_rows == 0


def test_the_machine_s_own_settings_of_the_checker_play_no_part(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyrefly.toml").write_text('[errors]\nbad-return = "ignore"\n')
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert first_errors([BAD], 60)[0] is not None


@pytest.mark.parametrize("fault", ["crash", "timeout", "no output"])
def test_a_checker_that_fails_on_one_seed_costs_no_row(
    monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    real, counted = stage._checked, []

    def fails(codes: Any, timeout: float) -> Any:
        if "poison" in codes:
            if fault == "timeout":
                raise subprocess.TimeoutExpired("pyrefly", timeout)
            raise ValueError(fault)
        return real(codes, timeout)

    monkeypatch.setattr(stage, "_checked", fails)
    monkeypatch.setattr(stage, "count", lambda *_, **amounts: counted.append(amounts))
    rows = table((BAD, None), ("poison", None), (GOOD, None))
    reasons = judged(rows, CFG)["drop_reason"].to_pylist()
    assert reasons == ["type_error", None, None]
    assert counted == [{"unchecked": 1}]


def test_a_run_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[Any] = []
    monkeypatch.setattr(stage, "count", lambda *_, **amounts: counted.append(amounts))
    assert first_errors([BAD, GOOD], 0.001) == [None, None]
    assert counted == [{"unchecked": 1}] * 2


@pytest.mark.ray
def test_the_stage_and_its_switch(ray_local: None, run_config: Any) -> None:
    rows = ray.data.from_arrow([table((GOOD, None)), table((BAD, None))])
    found = typecheck(rows, run_config()).take_all()
    assert sorted(str(row["drop_reason"]) for row in found) == ["None", "type_error"]
    found = typecheck(rows, run_config("seeds.typecheck.enabled=false")).take_all()
    assert [row["drop_reason"] for row in found] == [None, None]
