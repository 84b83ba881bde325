import pytest

from selfalign_ray.watch.progress import Progress
from selfalign_ray.watch.words import amount_done, clock, outcome, plain_line, rate, span


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00"), (59.9, "0:00:59"), (3725, "1:02:05"), (360_000, "100:00:00")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_spans_and_rates() -> None:
    assert [span(s) for s in (0.04, 9.9, 31, 61)] == ["0.0 s", "9.9 s", "31 s", "0:01:01"]
    assert [rate(r) for r in (0.05, 1.26, 310.4)] == ["3.0 rows/min", "1.3 rows/s", "310 rows/s"]


def test_outcome_names_every_reason() -> None:
    counts = {"kept": 1200, "b": 2, "a": 2, "c": 30, "none": 0}
    assert outcome(counts) == "1,200 kept, 34 dropped (c 30, a 2, b 2)"
    assert outcome({"kept": 3}) == "3 kept, 0 dropped"


def test_amounts_as_far_as_known() -> None:
    assert amount_done(None, None) == "under way"
    assert amount_done(None, 5) == "5 rows under way"
    assert amount_done(4, None) == "4 rows"
    assert amount_done(4, 5) == "4 of 5 rows"


def test_a_plain_line() -> None:
    progress = Progress(["concepts", "responses"])
    progress.begin("responses", 24)
    assert progress.running is not None
    line = plain_line(progress, progress.running)
    assert line == "responses: 24 rows under way, loading the model"
