"""projection.py and projection_text.py: shares, scaling, and what is said of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray.config import RunConfig
from selfalign_ray.report.projection import (
    Amounts,
    Measured,
    Part,
    amounts,
    project,
    slice_of,
    wilson,
)
from selfalign_ray.report.projection_text import about, big, span, write_projection
from selfalign_ray.report.saved import chain
from tests.report.conftest import TABLE, selected_row

RunConfigOf = Callable[..., RunConfig]
SLICE = Measured(
    files=1000,
    good_seeds=50,
    seeds=32,
    accepted=8,
    parts=[
        Part(stages=("quality",), seconds=30, work_seconds=20, by_files=True),
        Part(stages=("unique",), seconds=3, work_seconds=None, by_files=True),
        Part(stages=("concepts", "responses"), seconds=100, work_seconds=80, by_files=False),
    ],
    engine_seconds=(20.0, 80.0),
    gpu_seconds=(40.0, 160.0),
    load_seconds=15.0,
    prompt_tokens=64_000,
    output_tokens={"concepts": 100, "responses": 3100},
    sandbox_cpu_seconds=16.0,
    rows_in_flight_mean=20.0,
)
COUNTS = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@st.composite
def slices(draw: st.DrawFn) -> Measured:
    numbers, times = st.integers(1, 10_000), st.floats(0, 1e5)
    seeds = draw(numbers)
    parts = [
        Part(
            stages=(name,),
            seconds=start + work,
            work_seconds=draw(st.sampled_from([work, None])),
            by_files=name == "quality",
        )
        for name in ("quality", "responses", "duplicates")
        for start, work in [(draw(times), draw(times))]
    ]
    return replace(
        SLICE,
        seeds=seeds,
        accepted=draw(st.integers(0, seeds)),
        good_seeds=draw(numbers),
        files=draw(numbers),
        parts=parts,
        engine_seconds=(draw(times), draw(times)),
        gpu_seconds=(draw(times), draw(times)),
        sandbox_cpu_seconds=draw(times),
    )


def numbers_of(found: Amounts) -> list[float]:
    return [
        found.seeds,
        found.files,
        *found.stage_seconds,
        found.engine_hours,
        found.gpu_hours,
        found.prompt_tokens,
        found.output_tokens,
        found.sandbox_cpu_hours,
    ]


def at_most(less: Amounts, more: Amounts) -> bool:
    return all(a <= b for a, b in zip(numbers_of(less), numbers_of(more), strict=True))


@pytest.mark.parametrize(
    ("hits", "tries", "low", "high"),
    [
        (0, 10, 0.0, 0.2129),  # z^2 / (n + z^2)
        (5, 10, 0.2693, 0.7307),  # half ± z / (2 sqrt(n + z^2))
        (10, 10, 0.7871, 1.0),
        (1, 1, 0.2699, 1.0),
    ],
)
def test_wilsons_interval(hits: int, tries: int, low: float, high: float) -> None:
    assert wilson(hits, tries) == pytest.approx((low, high), abs=5e-5)


@settings(deadline=None)
@given(COUNTS)
def test_the_interval_holds_the_share_and_mirrors(counts: tuple[int, int]) -> None:
    hits, tries = counts
    low, high = wilson(hits, tries)
    assert 0 <= low <= hits / tries <= high <= 1
    assert low < high
    assert wilson(tries - hits, tries) == pytest.approx((1 - high, 1 - low))


@settings(deadline=None)
@given(COUNTS)
def test_more_of_the_same_narrows_the_interval_and_a_hit_raises_it(
    counts: tuple[int, int],
) -> None:
    hits, tries = counts
    low, high = wilson(hits, tries)
    narrow_low, narrow_high = wilson(4 * hits, 4 * tries)
    assert narrow_high - narrow_low < high - low
    if hits < tries:
        more_low, more_high = wilson(hits + 1, tries)
        assert (more_low, more_high) > (low, high)


def test_what_comes_once_is_not_scaled() -> None:
    found = amounts(SLICE, 3200)
    assert found.files == 64_000
    assert found.stage_seconds == [10 + 64 * 20, 3, 20 + 100 * 80]
    assert found.engine_hours == pytest.approx((20 + 8000) / 3600)
    assert found.gpu_hours == pytest.approx((40 + 16_000) / 3600)
    assert found.prompt_tokens == 6_400_000
    assert found.sandbox_cpu_hours == pytest.approx(1600 / 3600)


def test_seeds_follow_from_the_share_and_its_interval() -> None:
    found = project(SLICE, 1000)
    assert found.likely is not None
    assert found.most is not None
    assert found.likely.seeds == 4000
    assert found.least.seeds == -(-1000 // found.share_high)
    assert found.most.seeds == -(-1000 // found.share_low)
    assert SLICE.parts[found.bottleneck].stages == ("concepts", "responses")


@settings(deadline=None)
@given(slices(), st.integers(1, 10**7), st.integers(0, 10**6))
def test_more_rows_never_take_less(measured: Measured, rows: int, more: int) -> None:
    one, other = project(measured, rows), project(measured, rows + more)
    assert at_most(one.least, other.least)
    if one.likely is None:
        assert measured.accepted == 0
        assert one.most is None
        return
    assert one.most is not None
    assert other.likely is not None
    assert other.most is not None
    assert at_most(one.likely, other.likely)
    assert at_most(one.most, other.most)
    assert at_most(one.least, one.likely)
    assert at_most(one.likely, one.most)


@settings(deadline=None)
@given(slices(), st.integers(1, 10**7))
def test_a_slice_that_accepts_more_never_asks_for_more(measured: Measured, rows: int) -> None:
    better = replace(measured, accepted=min(measured.seeds, measured.accepted + 1))
    one, other = project(measured, rows), project(better, rows)
    assert at_most(other.least, one.least)
    if one.likely is not None:
        assert other.likely is not None
        assert at_most(other.likely, one.likely)


def test_the_slice_is_the_same_run_on_few_seeds_elsewhere(run_config: RunConfigOf) -> None:
    cfg = run_config("plan.rows=9", "plan.seeds=7", "plan.files=300", "source.limit=150")
    part = slice_of(cfg)
    assert part.run_dir == f"{cfg.run_dir}/plan"
    assert (part.seeds.sample.limit, part.source.limit) == (7, 150)
    assert slice_of(run_config("plan.rows=9", "source.limit=null")).source.limit == 1000
    changed = replace(part, name=cfg.name, run_dir=cfg.run_dir, source=cfg.source, seeds=cfg.seeds)
    assert changed == cfg
    assert (cfg.seeds.sample.limit, cfg.source.limit) == (48, 150)


@pytest.fixture
def projected(run_config: RunConfigOf, write_run: Callable[..., Path]) -> Callable[..., str]:
    """`projected(["plan.rows=9"], duplicates=rows)`: the text, from the run written by hand."""

    def made(overrides: list[str], **replaced: Any) -> str:
        run_dir = write_run(**replaced)
        cfg = run_config("plan.rows=1000", *overrides)
        return write_projection(cfg, chain(run_dir, TABLE, 1024, "duplicates"), run_dir, cpus=4)

    return made


def test_a_projection_from_saved_stages(projected: Callable[..., str], tmp_path: Path) -> None:
    text = projected(["report.price_per_gpu_hour=3", "plan.seeds=8"])
    for said in (
        "1,000 accepted rows of first, projected from 8 seeds\n",
        "accepted      2 of 8 seeds: 25.0 in 100, 8.7 to 54.0 at",
        "seeds         4,000 (",
        "at 9 good seeds in 10 files",
        "21.0 s of it models",
        "GPU-hours     ",
        "at 3 a GPU-hour",
        "responses writes 73% of the tokens",
        "What the slice cannot tell:",
        "seeds.sample.limit=48 ends the run at about 12 rows",
    ):
        assert said in text
    assert "STAND-IN" not in text
    assert "plan.files" not in text
    assert (tmp_path / "run" / "projection.txt").read_text() in text
    data = json.loads((tmp_path / "run" / "projection.json").read_text())
    assert data["projection"]["likely"]["seeds"] == 4000
    assert data["measured"]["accepted"] == 2


def test_nothing_accepted_still_gives_a_bound(projected: Callable[..., str]) -> None:
    rows = [selected_row(n, drop_reason="duplicate_response") for n in range(3)]
    text = projected(["plan.seeds=9"], duplicates=rows)
    assert "accepted      0 of 8 seeds: 0.0 in 100, 0.0 to 25.3 at" in text
    assert "seeds         at least 3,960" in text
    assert "nothing was accepted" in text
    assert "8 of plan.seeds=9" in text
    assert " to ends" not in text


def test_a_stand_in_says_so(projected: Callable[..., str]) -> None:
    assert "STAND-IN ENGINE: NOT A RESULT" in projected(["engine=standin"])


def test_numbers_as_people_read_them() -> None:
    assert [about(n) for n in (0, 367_346, 12.345, 0.12345)] == ["0", "367,000", "12.3", "0.123"]
    assert [big(n) for n in (12, 12_345, 1.5e7, 2e9)] == ["12.0", "12.3 k", "15.0 M", "2.00 G"]
    assert [span(s) for s in (7, 150, 7300, 2e5)] == ["7.0 s", "2.50 min", "2.03 h", "2.31 days"]
