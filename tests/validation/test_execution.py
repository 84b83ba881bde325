import pyarrow as pa
import pytest

from selfalign_ray import schemas
from selfalign_ray.sandbox.__main__ import settings
from selfalign_ray.sandbox.pool import Sandbox
from selfalign_ray.validation.execution import add_verdicts, executable, reason_of

GOOD, WRONG = "def f(): return 1", "def f(): return 2"


def sample(index, code, tests="assert f() == 1", drop_reason=None):
    return {"sample_index": index, "code": code, "tests": tests, "drop_reason": drop_reason}


def row(*samples, drop_reason=None):
    return {"samples": list(samples), "drop_reason": drop_reason}


def test_only_kept_samples_of_kept_rows_are_executed():
    kept, lost = sample(0, GOOD), sample(1, None, drop_reason="no_code")
    assert executable(row(kept, lost)) == [kept]
    assert executable(row(kept, drop_reason="engine")) == []
    assert executable({"samples": None, "drop_reason": None}) == []


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["passed", "assertion", "infra"], None),
        (["assertion", "timeout"], "no_passing_sample"),
        (["assertion", "infra"], "sandbox_failed"),
        ([], "no_executable_sample"),
    ],
)
def test_a_row_stops_where_no_sample_passed(verdicts, expected):
    assert reason_of([{"verdict": verdict} for verdict in verdicts]) == expected


@pytest.mark.sandbox
def test_the_samples_of_a_block_are_judged_together_and_no_row_is_lost():
    rows = [
        row(
            sample(0, WRONG), sample(2, GOOD), sample(3, "x = '"), sample(4, None, None, "no_code")
        ),
        row(sample(0, WRONG)),
        row(sample(0, GOOD), drop_reason="engine_error"),
    ]
    fields = [f for f in schemas.HOPS if f.name in {"samples", "drop_reason"}]
    block = pa.Table.from_pylist(rows, schema=pa.schema(fields))
    with Sandbox(settings({"slots": 2})) as sandbox:
        out = add_verdicts(block, sandbox).to_pylist()
    assert [r["drop_reason"] for r in out] == [None, "no_passing_sample", "engine_error"]
    first = {v["sample_index"]: v["verdict"] for v in out[0]["verdicts"]}
    assert first == {0: "assertion", 2: "passed", 3: "syntax_error"}
    assert out[2]["verdicts"] == []
