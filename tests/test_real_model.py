"""One run with a real model on real vLLM, from installed packages to executed responses."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from tests.support import selfalign

HOPS = {"docstring_judge", "concepts", "instruction", "responses"}


@pytest.mark.ray
@pytest.mark.sandbox
@pytest.mark.slow
def test_a_model_writes_and_the_sandbox_runs_what_it_wrote(tmp_path):
    done = selfalign(
        "source.limit=200",
        "seeds.sample.limit=4",
        "seeds.docstring_judge.enabled=true",
        "seeds.docstring_judge.more_than=null",
        "recipe.hops.responses.sampling.n=2",
        "recipe.hops.responses.sampling.max_tokens=128",
        cwd=tmp_path,
    )
    assert done.returncode in (0, 3), done.stderr  # 3: so few samples need not pass
    run_dir = tmp_path / "runs" / "first"
    manifest = json.loads((run_dir / "manifest.json").read_text())
    assert "standin" not in json.dumps(manifest["config"]["engine"]["kind"])
    judged = pq.read_table(run_dir / "stages" / "docstring_judge" / "rows")["docstring_yes"]
    assert all(0 < yes < 1 for yes in judged.drop_null().to_pylist())
    assert judged.null_count < len(judged)
    responses = [json.loads(line) for line in (run_dir / "responses.jsonl").open()]
    assert responses
    assert {row["model"] for row in responses} == {"embedded"}
    executed = [row for row in responses if row["verdict"] is not None]
    assert executed
    assert all(row["verdict"] != "infra" for row in executed)
    report = (run_dir / "pipeline_report.md").read_text()
    assert "The counts add up" in report
    assert set(report.replace("|", " ").split()) >= HOPS
