import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfalign_ray.config import RunConfig
from selfalign_ray.report.report import Summary, report
from tests.report.conftest import selected_row, stages_of_a_run

RunConfigOf = Callable[..., RunConfig]
SANDBOX = {"level": "A", "layers": {"seccomp": True, "landlock": False}, "preloaded": ["math"]}


@pytest.fixture
def make(run_config: RunConfigOf, write_run: Callable[..., Path]) -> Callable[..., Summary]:
    """`make(["model.id=x"], metrics=rows)`: the report of the run written by hand."""

    def made(overrides: list[str] | None = None, **replaced: Any) -> Summary:
        cfg = run_config(*(overrides or []))
        return report(cfg, write_run(**replaced), SANDBOX)

    return made


def test_a_run_on_a_page(make: Callable[..., Summary]) -> None:
    summary = make(["report.price_per_gpu_hour=2"])
    assert (summary.kept, summary.problems, summary.standin) == (2, [], False)
    assert summary.dataset is not None
    assert len(summary.dataset.read_text().splitlines()) == summary.kept
    text = summary.report.read_text()
    assert text.startswith("# selfalign: first\n\n**2 instruction-response pairs** from 10 files")
    for said in (
        "| read | - too_large | 2 | 20.0 % |",
        "| instruction | - instruction_unfinished | 1 | 12.5 % |",
        "| duplicates | **kept** | 2 | 66.7 % |",
        "The counts add up",
        "| responses | 6 | 4,200 | 80.0 % | 1,200 | 30.00 | 0.30 | 2.00 |",
        "- 120.0 accepted rows per engine-hour; engines were held for 60 s",
        "- 60.0 accepted rows per GPU-hour; GPUs were held for 120 GPU-s",
        "- at 2 a GPU-hour, 33.33 for 1,000 accepted rows, or 30.0 of them for 1",
        "- 5.5 rows in flight at the mean, 8 at most",
        "- 4.0 CPU-seconds in the sandbox",
        "| not executed: no_code | 6 | 54.5 % |",
        "| MIT | 2 | 100.0 % |",
        "| seccomp | on |",
        "### Example 2",
    ):
        assert said in text
    assert "STAND-IN" not in text


def test_the_manifest_is_whole_and_last(make: Callable[..., Summary]) -> None:
    summary = make(["report.examples=0", "report.price_per_gpu_hour=2"])
    path = summary.report.parent / "manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest["config"]["report"]["examples"] == 0
    assert manifest["funnel"]["files"] == 10
    assert manifest["fingerprints"]["duplicates"] == "print-duplicates"
    assert manifest["sandbox"] == SANDBOX
    assert manifest["licenses"] == {"MIT": 2}
    assert manifest["figures"]["accepted_per_money"] == pytest.approx(30)
    assert manifest["figures"]["hops"]["responses"]["tokens_per_second"] == pytest.approx(30)
    assert {"python", "ray", "pyarrow"} <= manifest["versions"].keys()
    assert manifest["adds_up"] is True
    assert manifest["hardware"]["cores"] >= 1
    times = [p.stat().st_mtime_ns for p in summary.report.parent.iterdir() if p.is_file()]
    assert path.stat().st_mtime_ns == max(times)
    assert not list(summary.report.parent.glob(".*.part"))


def test_secrets_stay_out(make: Callable[..., Summary], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "not-for-the-manifest")
    summary = make(["name=not-for-the-manifest"])
    assert "not-for-the-manifest" not in (summary.report.parent / "manifest.json").read_text()


def test_a_stand_in_is_no_result(make: Callable[..., Summary]) -> None:
    summary = make(["engine=standin"])
    assert summary.standin
    assert "> **STAND-IN ENGINE: NOT A RESULT.**" in summary.report.read_text()


def test_what_no_engine_was_asked_for_is_no_stand_in_s(make: Callable[..., Summary]) -> None:
    without = dict.fromkeys(["responses", "metrics", "duplicates"])
    assert not make(["engine=standin", "stages.until=seeds"], **without).standin


def test_rows_of_a_stand_in_are_no_result_either(make: Callable[..., Summary]) -> None:
    rows = stages_of_a_run()["responses"][2]
    rows[0]["model"] = "standin"
    assert make(responses=rows).standin


def test_rows_that_a_stand_in_wrote_elsewhere_are_no_result_either(
    make: Callable[..., Summary],
) -> None:
    given = ["start.stage=execution", "start.rows=made.jsonl"]
    seeds = dict.fromkeys(["quality", "unique", "sample", "responses"])
    rows = stages_of_a_run()["metrics"][2]
    assert not make(given, **seeds, metrics=rows).standin
    rows[0]["model"] = "standin"
    assert make(given, **seeds, metrics=rows).standin


@pytest.mark.parametrize(
    "overrides",
    [
        ["generation=per_hop", "generation.pools.concepts.engine.kind=standin"],
        [
            "generation=own_judge",
            "generation.pools.judge.engine.kind=standin",
            "validation.judge.enabled=true",
        ],
    ],
)
def test_no_pool_s_stand_in_passes_for_a_model(
    make: Callable[..., Summary], overrides: list[str]
) -> None:
    assert make(overrides).standin


def test_each_pool_is_told_with_its_model(make: Callable[..., Summary]) -> None:
    one = make().report.read_text()
    assert "| model | embedded |" in one
    given = ["generation=per_hop", "generation.pools.responses.model.id=/big"]
    text = make(given).report.read_text()
    assert "| pool concepts | embedded, vllm, engines: 1 |" in text
    assert "| pool responses | /big, vllm, engines: 1 |" in text
    assert "| model |" not in text


def test_a_missing_row_is_said_loudly(
    make: Callable[..., Summary], caplog: pytest.LogCaptureFixture
) -> None:
    summary = make(metrics=stages_of_a_run()["metrics"][2][1:])
    assert "stage responses kept 5 rows, stage metrics saw 4" in summary.problems
    assert "THE COUNTS DO NOT ADD UP" in summary.report.read_text()
    assert "The counts add up" not in summary.report.read_text()
    assert "do not add up" in caplog.text


def test_an_empty_data_set_says_where_the_rows_went(make: Callable[..., Summary]) -> None:
    rows = [selected_row(n, drop_reason="duplicate_response") for n in range(3)]
    summary = make(duplicates=rows)
    assert (summary.kept, summary.problems) == (0, [])
    text = summary.report.read_text()
    assert "**0 instruction-response pairs**" in text
    assert (
        "No row was kept: the last ones were dropped in the stage duplicates, most for "
        "duplicate_response (3 rows)." in text
    )
    assert "## Examples" not in text


def test_a_run_that_stops_early(make: Callable[..., Summary]) -> None:
    summary = make(["stages.until=responses"])
    assert summary.dataset is None
    assert summary.kept == 5
    assert "**5 rows after the stage responses**" in summary.report.read_text()


def test_a_run_that_begins_in_the_middle(make: Callable[..., Summary]) -> None:
    summary = make(["start.stage=concepts", "start.rows=x.jsonl"])
    assert summary.kept == 2
    assert "from rows made elsewhere" in summary.report.read_text()
    assert not (summary.report.parent / "filtered_functions.jsonl").exists()


def test_hostile_texts_stay_in_their_fences(make: Callable[..., Summary]) -> None:
    text = "````\n# Not a heading\n| a | b |\n" + "`" * 9 + "\n<script>\x00\u2028"
    rows = [
        selected_row(
            0, response=text, final_instruction=text, tests="x" * 100_000, concepts=[text]
        ),
        selected_row(1, repository="a`b|c\n# d", licenses=["X|Y`\n"]),
        selected_row(2, response=None, tests=None, concepts=None, verdicts=None, metrics=None),
    ]
    summary = make(duplicates=rows)
    outside, fence = [], ""
    for line in summary.report.read_text().splitlines():
        mark = re.match(r"`{3,}", line)
        if fence:
            fence = "" if line == fence else fence
        elif mark:
            fence = mark.group()
        else:
            outside.append(line)
    assert fence == ""
    headings = [line for line in outside if line.startswith("#")]
    assert "# Not a heading" not in headings
    assert len([line for line in headings if line.startswith("### Example")]) == 3
    assert "more characters)" in summary.report.read_text()


def test_the_same_rows_give_the_same_examples(make: Callable[..., Summary]) -> None:
    one = make(["report.examples=1"]).report.read_text()
    backwards = {name: rows[::-1] for name, (_, _, rows) in stages_of_a_run().items()}
    assert make(["report.examples=1"], **backwards).report.read_text() == one
