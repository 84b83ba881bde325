import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selfalign_ray import schemas
from selfalign_ray.report.contamination import as_markdown, take_contamination
from selfalign_ray.report.exports import write_exports
from selfalign_ray.report.saved import chain
from tests.report.conftest import TABLE, row, selected_row, write_stage

STAGES = [*TABLE[:4], "near_duplicates", "decontamination", *TABLE[4:]]
STAGES.insert(STAGES.index("duplicates"), "final_decontamination")


def hit(item: str, share: float, **fields: Any) -> dict[str, Any]:
    base = {"benchmark": "humaneval", "item": item, "part": "prompt", "method": "grams"}
    return base | {"share": share, "near": share < 0.5, "text": "a | b"} | fields


def state(name: str, state: str, detail: str = "") -> dict[str, Any]:
    return {"benchmark": name, "state": state, "place": "p", "revision": "1", "items": 164} | {
        "texts": 492,
        "detail": detail,
    }


def say(run_dir: Path, saved: str, stage: str, *states: dict[str, Any]) -> None:
    """Sets in the manifest of a saved stage what a stage of it was checked against."""
    path = run_dir / "stages" / saved / "manifest.json"
    said = {stage: {"benchmarks": states, "solutions_not_sought": 10}}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"said": said}))


def run_with_hits(write_run: Callable[..., Path]) -> Path:
    run_dir = write_run(duplicates=None)
    rows = [
        row(0, benchmark_hits=[]),
        row(1, benchmark_hits=[hit("HumanEval/1", 0.75)], drop_reason="benchmark_text"),
        row(2, benchmark_hits=[hit("HumanEval/2", 0.25)]),
        row(3, benchmark_hits=None, drop_reason="too_long"),
    ]
    write_stage(run_dir, "decontamination", ["decontamination"], schemas.SEED, rows)
    group = ["sanitise", "choose", "final_decontamination", "duplicates"]
    dropped = {"benchmark_hits": [hit("HumanEval/4", 1.0)], "drop_reason": "benchmark_text"}
    pairs = [selected_row(1, benchmark_hits=[]), selected_row(0, **dropped)]
    write_stage(run_dir, "duplicates", group, schemas.SELECTED, pairs)
    states = [state("humaneval", "checked"), state("mbpp", "off"), state("apps", "missing", "gone")]
    say(run_dir, "decontamination", "decontamination", *states)
    say(run_dir, "duplicates", "final_decontamination", *states)
    return run_dir


def test_the_report_counts_rows_and_names_what_was_not_checked(
    write_run: Callable[..., Path],
) -> None:
    run_dir = run_with_hits(write_run)
    found = take_contamination(chain(run_dir, STAGES, 2))
    text = as_markdown(found)
    assert "**Not checked: mbpp (off), apps (gone).** `decontamination=all`" in text
    assert "| humaneval | checked | 1 | 164 | 1 | 1 | 1 | 0 |" in text
    assert "| apps | missing | 1 |  |  |  |  |  |" in text
    lines = [line for line in text.splitlines() if "HumanEval/" in line]
    assert ["near miss" in line for line in lines] == [False, False, True]
    assert "| final_decontamination | hit |" in lines[0]
    assert "a \\| b" in lines[0]


def test_every_hit_is_a_line(write_run: Callable[..., Path]) -> None:
    run_dir = run_with_hits(write_run)
    assert write_exports(run_dir, chain(run_dir, STAGES, 2), 1)["benchmark_hits.jsonl"] == 3
    lines = [json.loads(line) for line in (run_dir / "benchmark_hits.jsonl").open()]
    assert [line["item"][-1] for line in lines] == ["4", "1", "2"]  # by row
    assert lines[0]["stage"] == "final_decontamination"
    assert lines[1]["path"] == "pkg/file_0.py"


def test_each_stage_stands_for_what_it_was_checked_against(write_run: Callable[..., Path]) -> None:
    run_dir = run_with_hits(write_run)
    humaneval = state("humaneval", "checked")
    apps = [state("apps", "missing", "gone"), state("apps", "checked")]
    say(run_dir, "decontamination", "decontamination", humaneval, apps[0])
    say(run_dir, "duplicates", "final_decontamination", humaneval, apps[1])
    text = as_markdown(take_contamination(chain(run_dir, STAGES, 2)))
    assert "**Not checked: apps (gone, in decontamination).**" in text
    assert "| humaneval | checked | 1 | 164 | 1 | 1 | 1 | 0 |" in text
    assert "| apps | missing | 1 |  |  |  |  |  |" in text
    assert "| apps | checked | 1 | 164 |  |  | 0 | 0 |" in text


def test_hits_that_are_not_shown_do_not_stay_in_memory(write_run: Callable[..., Path]) -> None:
    run_dir = run_with_hits(write_run)
    text = "x" * 100_000
    rows = [row(n, benchmark_hits=[hit(f"X/{n}", n / 400, text=text)]) for n in range(200)]
    write_stage(run_dir, "decontamination", ["decontamination"], schemas.SEED, rows)
    say(run_dir, "decontamination", "decontamination", state("humaneval", "checked"))
    tracemalloc.start()
    found = take_contamination(chain(run_dir, STAGES, 2))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 5e6  # of 20 MB
    assert found is not None
    assert found.rows["decontamination", "humaneval", True] == 200
    assert [h["item"] for h in found.hits if h["near"]] == [f"X/{n}" for n in range(199, 179, -1)]


def test_a_run_without_the_stages_says_nothing(write_run: Callable[..., Path]) -> None:
    run_dir = write_run()
    assert as_markdown(take_contamination(chain(run_dir, TABLE, 2))) == ""
