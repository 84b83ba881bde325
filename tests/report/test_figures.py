import json
from collections.abc import Callable
from pathlib import Path

import pytest

from selfalign_ray import schemas
from selfalign_ray.report.engines import Level
from selfalign_ray.report.figures import Figures, as_data, take_figures
from selfalign_ray.report.hops import hop_of
from selfalign_ray.report.saved import chain
from tests.report.conftest import (
    TABLE,
    executed_row,
    hop_row,
    sample,
    selected_row,
    stages_of_a_run,
    write_stage,
)


def figures_of(run_dir: Path, table: list[str] = TABLE) -> Figures:
    return take_figures(chain(run_dir, table, 3, "duplicates"))


def test_hops_are_summed_over_all_rows_that_asked(write_run: Callable[..., Path]) -> None:
    figures = figures_of(write_run())
    assert {name: hop.prompts for name, hop in figures.hops.items()} == {
        "concepts": 7,
        "instruction": 6,
        "responses": 6,
    }
    assert figures.output_tokens == 7 * 20 + 6 * 50 + 6 * 200
    assert figures.cached_share == pytest.approx(0.8)
    assert figures.hops["concepts"].seconds == pytest.approx(14.0)
    assert figures.tokens_per_second == pytest.approx(1640 / 60)
    assert figures.hops["responses"].tokens_per_second == pytest.approx(1200 / 40)
    assert figures.hops["responses"].in_flight == pytest.approx(12 / 40)
    assert (figures.rows_in_flight_mean, figures.rows_in_flight_most) == (5.5, 8.0)
    assert figures.models == {"tiny": 8}
    assert (figures.engines, figures.load_seconds) == (1, 21.0)


def test_every_sample_has_a_verdict_or_a_reason(write_run: Callable[..., Path]) -> None:
    figures = figures_of(write_run())
    assert figures.verdicts == {"passed": 3, "assertion": 1, "timeout": 1}
    assert figures.not_executed == {"no_code": 6}
    assert figures.samples == 11
    assert (figures.executed_rows, figures.passed_rows) == (5, 3)
    assert figures.passed_share == pytest.approx(3 / 11)
    assert figures.vacuous_share == pytest.approx(1 / 3)
    assert figures.sandbox_cpu_seconds == 4.0


def test_accepted_rows_an_hour(write_run: Callable[..., Path]) -> None:
    figures = figures_of(write_run())
    assert figures.accepted == 2
    assert figures.accepted_per_engine_hour == pytest.approx(120)
    assert figures.accepted_per_gpu_hour == pytest.approx(60)
    figures.gpu_seconds = 0
    assert figures.accepted_per_gpu_hour is None


def test_each_engine_has_its_own_figures_and_levels_are_means(
    write_run: Callable[..., Path],
) -> None:
    engines = figures_of(write_run()).each
    assert list(engines) == ["shared-0"]
    engine = engines["shared-0"]
    assert (engine.loads, engine.prompts, engine.gpu_seconds) == (1, 19, 120.0)
    assert engine.running == Level(mean=2.5, most=6)
    assert engine.kv_cache_usage == Level(mean=0.25, most=0.5)
    assert engine.waiting is None


def test_hops_of_further_rounds_are_hops() -> None:
    assert [hop_of(name) for name in ("responses_2", "concepts", "execution_2", "read")] == [
        "responses",
        "concepts",
        None,
        None,
    ]


def test_a_run_that_begins_after_the_hops_counts_its_further_rounds(
    write_run: Callable[..., Path],
) -> None:
    run_dir = write_run(metrics=None)
    group = ["execution", "responses_2", "execution_2", "metrics"]
    rows = [executed_row(0, "passed"), executed_row(1, "timeout")]
    write_stage(run_dir, "metrics", group, schemas.EXECUTED, rows)
    figures = figures_of(run_dir, [*group, *TABLE[TABLE.index("sanitise") :]])
    assert list(figures.hops) == ["responses"]
    assert figures.hops["responses"].prompts == 2
    assert figures.hops["responses"].work_seconds == 60


def test_what_hops_cost_another_run_is_no_cost_of_this_one(write_run: Callable[..., Path]) -> None:
    run_dir = write_run(responses=None)
    write_stage(run_dir, "responses", ["responses"], schemas.HOPS, [hop_row(0), hop_row(1)])
    figures = figures_of(run_dir, TABLE[TABLE.index("responses") :])
    assert list(figures.hops) == ["responses"]
    assert figures.output_tokens == 2 * 200


def test_licences_and_measures_of_the_data_set(write_run: Callable[..., Path]) -> None:
    rows = stages_of_a_run()["duplicates"][2]
    rows[0]["licenses"] = ["MIT", "Apache-2.0"]
    rows[1]["licenses"] = []
    figures = figures_of(write_run(duplicates=rows))
    assert figures.licenses == {"MIT": 1, "Apache-2.0": 1, "none found": 1}
    assert (figures.measures["lines"].mean, figures.measures["lines"].most) == (2.0, 2.0)
    assert "type_coverage" not in figures.measures  # null everywhere


def test_a_model_that_repeats_itself_is_seen(write_run: Callable[..., Path]) -> None:
    same = {"instruction": "Write  a function G.", "concepts": ["B", "a"]}
    other = {"instruction": "write a function g.", "concepts": ["a ", "b"]}
    rows = [hop_row(n, **(same if n % 2 else other)) for n in range(8)]
    figures = figures_of(write_run(responses=rows), TABLE[: TABLE.index("responses") + 1])
    assert figures.distinct_instructions == pytest.approx(1 / 8)
    assert figures.distinct_concepts == pytest.approx(1 / 8)


def test_what_refused_passing_samples(write_run: Callable[..., Path]) -> None:
    metrics, chosen = (stages_of_a_run()[name][2] for name in ("metrics", "duplicates"))
    metrics[0]["metrics"][0]["gate"] = "trivial_tests"
    chosen[0]["sanitised"][0]["drop_reason"] = "bad_fence"
    figures = figures_of(write_run(metrics=metrics, duplicates=chosen))
    assert figures.refused == {"trivial_tests": 1, "bad_fence": 1}


def test_a_row_of_several_choices_refuses_its_samples_once(write_run: Callable[..., Path]) -> None:
    sanitised = [
        {"sample_index": n, "response": None, "drop_reason": None if n else "incomplete"}
        for n in range(4)
    ]
    chosen = [
        selected_row(0, sanitised=sanitised, choice=n, sample_index=n + 1, drop_reason=reason)
        for n, reason in enumerate(["duplicate_instruction", None, None])
    ]
    unchosen = selected_row(1, sanitised=sanitised[:1], choice=None, drop_reason="no_choice")
    figures = figures_of(write_run(duplicates=[*chosen, unchosen]))
    assert figures.refused == {"incomplete": 2}


def test_what_refused_samples_for_their_tests(write_run: Callable[..., Path]) -> None:
    chosen = stages_of_a_run()["duplicates"][2]
    chosen[0]["strength"] = [{"sample_index": 0, "gate": None, "killed_share": 0.5}]
    figures = figures_of(write_run(duplicates=chosen))
    assert figures.measures["killed_share"].mean == 0.5


def test_a_run_of_seeds_alone(write_run: Callable[..., Path]) -> None:
    figures = figures_of(write_run(), TABLE[: TABLE.index("sample") + 1])
    assert figures.hops == {}
    assert figures.distinct_concepts is None
    assert figures.tokens_per_second is None
    assert list(figures.stage_seconds) == ["quality", "unique", "sample"]


def test_empty_stages(write_run: Callable[..., Path]) -> None:
    figures = figures_of(write_run(responses=[], metrics=[], duplicates=[]))
    assert (figures.samples, figures.verdicts, figures.accepted) == (0, {}, 0)
    assert figures.distinct_instructions is None
    json.dumps(as_data(figures))


def test_a_row_without_samples(write_run: Callable[..., Path]) -> None:
    rows = [hop_row(0, samples=None), hop_row(1, samples=[]), hop_row(2, samples=[sample(0)])]
    figures = figures_of(write_run(responses=rows), TABLE[: TABLE.index("responses") + 1])
    assert figures.samples == 1
