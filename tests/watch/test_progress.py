import pytest

from selfalign_ray.watch.progress import DONE, REUSED, RUNNING, WAITING, Progress

NAMES = [
    "read",
    "functions",
    "quality",
    "unique",
    "concepts",
    "instruction",
    "responses",
    "execution",
    "metrics",
]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(clock: Clock) -> Progress:
    return Progress(NAMES, clock)


def states(progress: Progress) -> list[str]:
    return [stage.state for stage in progress.stages]


def test_fused_stages_run_and_end_together(progress: Progress) -> None:
    progress.begin("quality", None)
    assert states(progress) == [RUNNING] * 3 + [WAITING] * 6
    progress.end("quality", {"kept": 5, "untyped": 2}, 1.0)
    progress.reused("unique", {"kept": 5})
    progress.begin("responses", 5)
    assert states(progress) == [DONE] * 3 + [REUSED] + [RUNNING] * 3 + [WAITING] * 2
    quality = progress.stages[2]
    assert (quality.kept, quality.dropped) == (5, 2)


def test_a_row_is_done_when_it_leaves_the_group(progress: Progress) -> None:
    progress.reused("unique", {"kept": 10})
    progress.begin("responses", 10)
    end = progress.running
    assert end is not None
    assert progress.rows_done(end) is None
    progress.observe({"concepts": {"kept": 4, "dropped": 1}})
    assert progress.rows_done(end) == 1
    progress.observe(
        {
            "concepts": {"kept": 6, "dropped": 1},
            "instruction": {"kept": 4, "dropped": 2},
            "responses": {"kept": 3, "dropped": 1},
        }
    )
    assert progress.rows_done(end) == 7
    progress.end("responses", {"kept": 5, "no_code": 5}, 1.0)
    progress.begin("metrics", 5)
    progress.observe({"execution": {"rows": 2, "samples": 16}, "metrics": {"samples": 9}})
    assert progress.running is not None
    assert progress.rows_done(progress.running) == 2


def test_a_row_that_is_tried_again_is_done_when_its_last_round_is(clock: Clock) -> None:
    again = Progress(["responses", "execution", "responses_2", "execution_2", "metrics"], clock)
    again.reused("responses", {"kept": 10})
    again.begin("metrics", 10)
    end = again.running
    assert end is not None
    again.observe({"execution": {"rows": 10, "samples": 40}})
    assert again.rows_done(end) is None  # those that failed are asked for once more
    both = {"execution": {"rows": 10, "samples": 52, "passed": 9}, "execution_2": {"rows": 4}}
    again.observe({"responses": {"prompt_tokens": 50, "cached_tokens": 25}, **both})
    assert again.rows_done(end) == 4
    assert again.facts() == ["50 % cached", "9 passed"]


def test_rate_and_time_left(progress: Progress, clock: Clock) -> None:
    progress.begin("quality", 100)
    assert progress.seconds_left() is None
    for rows in (0, 10, 20):
        progress.observe({"quality": {"rows": rows}})
        clock.now += 5
    assert progress.rows_per_second() == pytest.approx(2)
    assert progress.seconds_left() == pytest.approx(40)


def test_the_rate_is_of_late(progress: Progress, clock: Clock) -> None:
    progress.begin("quality", 10_000)
    for second in range(400):
        clock.now = float(second)
        progress.observe({"quality": {"rows": max(0, second - 300) * 4}})
    assert progress.rows_per_second() == pytest.approx(2, rel=0.02)  # over the later half


def test_the_model_is_loading_until_an_engine_is_there(progress: Progress) -> None:
    progress.begin("responses", 5)
    assert progress.facts() == ["loading the model"]
    progress.observe({"engine": {"rows_in_flight": 4}})
    assert progress.facts() == ["4 in flight"]


def test_no_model_is_loading_where_no_row_waits(progress: Progress) -> None:
    progress.begin("responses", 0)
    assert progress.facts() == []


def test_facts_of_hops_and_of_execution(progress: Progress, clock: Clock) -> None:
    progress.begin("responses", 5)
    hop = {"prompt_tokens": 1000, "cached_tokens": 800, "output_tokens": 0}
    for _ in range(3):
        progress.observe({"concepts": dict(hop)})
        hop["output_tokens"] += 300
        clock.now += 2
    assert progress.facts() == ["150 tok/s", "80 % cached"]
    progress.end("responses", {"kept": 5}, 6.0)
    progress.begin("metrics", 5)
    progress.observe({"execution": {"rows": 1, "passed": 2, "timeout": 5, "cpu_seconds": 3.5}})
    assert progress.facts() == ["5 timeout", "2 passed"]


def test_work_is_what_comes_after_the_first_row_is_under_way(
    progress: Progress, clock: Clock
) -> None:
    progress.begin("responses", 6)
    for in_flight in (0, 0, 6, 4, 2, 0):
        progress.observe({"engine": {"rows_in_flight": in_flight}})
        clock.now += 5
    assert progress.work_seconds(30.0, 6) == pytest.approx(20)
    # Each look stands for the time before it, the first for none.
    assert progress.gauges() == {"engine": {"rows_in_flight_mean": 2.0, "rows_in_flight_most": 6}}


def test_what_left_before_the_first_look_was_as_fast_as_the_rest(
    progress: Progress, clock: Clock
) -> None:
    progress.begin("quality", None)
    progress.observe({})
    clock.now = 10
    progress.observe({"quality": {"rows": 20}})
    assert progress.work_seconds(18.0, 100) == pytest.approx(8 * 100 / 80)
    assert progress.work_seconds(50.0, 21) == 50
    assert progress.work_seconds(18.0, 20) is None
    assert progress.gauges() == {}


def test_a_group_that_nobody_saw_at_work_has_no_work_seconds(progress: Progress) -> None:
    progress.begin("unique", 5)
    progress.observe({"quality": {"rows": 5}})
    assert progress.work_seconds(1.0, 5) is None


def test_one_group_s_looks_are_not_the_next_s(progress: Progress, clock: Clock) -> None:
    progress.begin("responses", 6)
    progress.observe({"engine": {"rows_in_flight": 6}})
    progress.end("responses", {"kept": 6}, 5.0)
    clock.now = 50
    progress.begin("metrics", 6)
    assert progress.gauges() == {}
    progress.observe({"engine": {"rows_in_flight": 0}, "execution": {"rows_in_flight": 6}})
    clock.now = 60
    progress.observe({"execution": {"rows": 6, "rows_in_flight": 0}})
    assert progress.work_seconds(12.0, 6) == pytest.approx(12)
    assert progress.gauges() == {}
