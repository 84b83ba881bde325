"""What a stage has cost, over all sessions."""

from __future__ import annotations

import pytest

from selfalign_ray import spent
from selfalign_ray.spent import Meter, spent_before
from selfalign_ray.watch.tally import count, start_tally, stop_tally


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
