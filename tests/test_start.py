"""start.py: rows made elsewhere, a data set of ours among them, in the middle of the pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfalign_ray import pipeline
from selfalign_ray.report.report import report
from selfalign_ray.run import run_stages
from selfalign_ray.start import adopted
from selfalign_ray.watch.display import Display
from tests.support import code_in

FENCED = "```python\ndef f(x):\n    return x\n```"
SAME = ("instruction", "plain_instruction", "response", "code", "tests", "origin", "seed")
WHOLE = f"{FENCED}\n\n# Tests\n```python\nassert f(1) == 1\n```"


@pytest.fixture
def execution(run_config):
    cfg = run_config("start.stage=execution", "start.rows=made.jsonl")
    return pipeline.selected(cfg)[0]


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"response": WHOLE}, WHOLE),
        ({"response": WHOLE, "samples": 10}, WHOLE),
        ({"response": WHOLE, "tests": "assert f(2)"}, WHOLE),
        ({"response": FENCED, "tests": "assert f(1) == 1"}, WHOLE),
        ({"response": FENCED, "tests": None}, FENCED),
    ],
)
def test_a_response_is_the_one_sample_with_the_tests_beside_it(execution, columns, text):
    row = adopted({"instruction": "Write f.", **columns}, execution, "made.jsonl", "# Tests")
    (sample,) = row["samples"]
    assert (sample["text"], sample["code"]) == (text, "def f(x):\n    return x")
    assert sample["tests"] == ("assert f(1) == 1" if text == WHOLE else None)


def test_tests_stay_apart_where_the_recipe_has_them_so(execution):
    row = {"instruction": "Write f.", "response": FENCED, "tests": "assert f(1)"}
    made = adopted(row, execution, "made.jsonl", None)
    assert made["independent_tests"] == made["samples"][0]["tests"] == "assert f(1)"
    assert made["samples"][0]["text"] == FENCED


def test_samples_that_are_there_are_left_as_they_are(execution):
    there = [{"sample_index": 3, "code": "f = abs", "tests": "assert f(1)", "text": "x"}]
    row = adopted({"instruction": "i", "samples": there, "response": WHOLE}, execution, "m", None)
    assert row["samples"] == there


def test_what_hops_cost_elsewhere_is_no_cost_of_this_run(execution):
    cost = {"hop": "responses", "prompt_tokens": 100, "output_tokens": 50}
    row = {"instruction": "i", "samples": [{"text": WHOLE}], "hops": [cost], "model": "theirs"}
    made = adopted(row, execution, "made.parquet", None)
    assert made["hops"] is None
    assert made["model"] == "theirs"


@pytest.mark.ray
@pytest.mark.sandbox
def test_a_data_set_of_ours_is_executed_anew_as_it_is(ray_local, run_config, tmp_path):
    def made(name, *overrides):
        cfg = run_config("engine=standin", *overrides, f"run_dir='{tmp_path}/{name}'")
        with Display([stage.name for stage in pipeline.selected(cfg)], 10) as display:
            run_stages(cfg, display)
        summary = report(cfg, Path(cfg.run_dir), None)
        rows = [json.loads(line) for line in summary.dataset.read_text().splitlines()]
        assert summary.standin
        return summary, {row["row_id"]: {name: row[name] for name in SAME} for row in rows}

    first, rows = made("first", *code_in(tmp_path / "code", 4))
    assert rows
    for place in (first.dataset, f"{first.folder}/data/*.parquet"):
        start = ["start.stage=execution", f"start.rows='{place}'"]
        assert made(Path(place).suffix, *start)[1] == rows
