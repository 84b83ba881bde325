"""What a stage has cost, over all sessions."""

from __future__ import annotations

import pytest

from selfalign_ray import spent
from selfalign_ray.spent import Meter, spent_before
from selfalign_ray.watch.tally import Counted, count, start_tally, stop_tally


@pytest.fixture
def tally(ray_local):
    start_tally()
    yield
    stop_tally()


def test_a_later_session_adds_to_what_earlier_ones_have_spent(tally, tmp_path):
    count("concepts", prompts=100)  # before the stage
    for prompts in (3, 4):
        with Meter(tmp_path).running():
            count("concepts", prompts=prompts)
            count("engine", gpu_seconds=10)
    seconds, figures = spent_before(tmp_path)
    assert figures == {"concepts": {"prompts": 7}, "engine": {"gpu_seconds": 20}}
    assert seconds > 0
    meter = Meter(tmp_path)
    assert meter.before == seconds
    assert meter.figures() == figures


def test_what_a_killed_session_has_spent_is_written_while_it_runs(tally, tmp_path, monkeypatch):
    monkeypatch.setattr(spent, "_KEEP_SECONDS", 0.05)

    class KilledError(Exception):
        pass

    with pytest.raises(KilledError), Meter(tmp_path).running():  # noqa: PT012
        count("engine", gpu_seconds=10)
        while not spent_before(tmp_path)[1]:
            pass
        raise KilledError
    assert spent_before(tmp_path)[1] == {"engine": {"gpu_seconds": 10}}


def test_a_stage_that_never_ran_has_spent_nothing(tmp_path):
    assert spent_before(tmp_path / "none") == (0.0, {})
    (tmp_path / "spent.json").write_text("{ half")
    assert spent_before(tmp_path) == (0.0, {})


def said(monkeypatch, *answers):
    """A tally that has counted so many GPU seconds, each time it is asked; None: no answer."""
    left = list(answers)

    def counted():
        answer = left.pop(0) if len(left) > 1 else left[0]
        if answer is None:
            return None
        tally, number = answer
        return Counted(tally, {"engine": {"gpu_seconds": number}} if number else {})

    monkeypatch.setattr(spent, "counted", counted)


def test_a_tally_that_was_killed_takes_no_costs_back(tmp_path, monkeypatch):
    said(monkeypatch, ("one", 9_000), ("one", 10_000), ("two", 0), ("two", 500))
    meter = Meter(tmp_path)
    found = [meter.figures().get("engine", {}).get("gpu_seconds") for _ in range(3)]
    assert found == [1_000, 1_000, 1_500]


def test_a_stage_that_begins_while_the_tally_is_slow_pays_for_none_before_it(tmp_path, monkeypatch):
    said(monkeypatch, None, ("one", 9_000), ("one", 9_010))
    with Meter(tmp_path).running():
        pass
    assert spent_before(tmp_path)[1] == {}
    said(monkeypatch, None, ("one", 9_000), ("one", 9_010))
    meter = Meter(tmp_path)
    assert meter.figures() == {}
    assert meter.figures() == {"engine": {"gpu_seconds": 10}}


def test_a_slow_tally_loses_nothing_of_what_it_has_said(tmp_path, monkeypatch):
    said(monkeypatch, ("one", 0), ("one", 10), None)
    meter = Meter(tmp_path)
    with meter.running():
        meter.figures()
    assert meter.figures() == spent_before(tmp_path)[1] == {"engine": {"gpu_seconds": 10}}


def test_a_tally_that_is_slow_at_the_end_is_asked_again(tmp_path, monkeypatch):
    said(monkeypatch, ("one", 0), None, ("one", 10))
    assert Meter(tmp_path).figures() == {"engine": {"gpu_seconds": 10}}
