import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray.watch import tally
from selfalign_ray.watch.outbox import NAME, Figures, Line, add_figures
from selfalign_ray.watch.tally import Tally

NAMES = st.sampled_from(["read", "concepts", "engine"])
FIGURES = st.dictionaries(NAMES, st.dictionaries(NAMES, st.integers(-100, 100)))


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(FIGURES), st.integers(0, 10))
def test_the_sum_does_not_depend_on_how_counts_are_bundled(parts: list[Figures], cut: int) -> None:
    at_once: Figures = {}
    for part in parts:
        add_figures(at_once, part)
    first: Figures = {}
    second: Figures = {}
    for index, part in enumerate(parts):
        add_figures(first if index < cut else second, part)
    add_figures(first, second)
    assert first == at_once


def test_gauges_are_the_last_of_each_worker() -> None:
    actor = Tally()
    actor.add("a", {"hop": {"rows": 1}}, {"hop": {"in_flight": 5}}, [])
    actor.add("a", {"hop": {"rows": 1}}, {"hop": {"in_flight": 3}}, [])
    actor.add("b", {}, {"hop": {"in_flight": 4}}, [])
    assert actor.snapshot() == {"hop": {"rows": 2, "in_flight": 7}}
    assert actor.snapshot() == actor.snapshot()


def test_a_silent_workers_gauges_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    actor = Tally()
    actor.add("a", {"hop": {"rows": 1}}, {"hop": {"in_flight": 5}}, [])
    later = time.monotonic() + 3600
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert actor.snapshot() == {"hop": {"rows": 1}}


def test_lines_are_taken_once() -> None:
    actor = Tally()
    line = Line(1.0, logging.INFO, "x", "worker", "text")
    actor.add("a", {}, {}, [line])
    assert actor.take_lines() == [line]
    assert actor.take_lines() == []


def test_without_a_tally_nothing_happens() -> None:
    tally.count("read", files=1)
    tally.gauge("read", rows_in_flight=1)
    tally.flush()
    assert tally.snapshot() == {}
    assert tally.counted() == ("", {})
    assert tally.take_lines() == []
    tally.stop_tally()


@pytest.fixture
def running_tally(ray_local: None) -> Iterator[None]:
    tally.start_tally()
    yield
    tally.stop_tally()


@pytest.mark.ray
def test_one_begins_though_the_name_of_the_last_is_not_forgotten_yet(ray_local: None) -> None:
    last: Any = ray.remote(num_cpus=0)(Tally).options(name=NAME).remote()
    ray.get(last.snapshot.remote())
    soon = threading.Timer(1.0, ray.kill, [last])
    soon.start()
    tally.start_tally()
    assert tally.counted() is not None
    tally.stop_tally()


@pytest.mark.ray
def test_what_a_process_counts_between_two_searches_reaches_the_next_tally(
    ray_local: None,
) -> None:
    import ray

    class Worker:
        def count(self) -> None:
            tally.count("read", files=1)
            tally.flush()

    worker = ray.remote(Worker).options(num_cpus=0).remote()
    ray.get(worker.count.remote())  # finds none, and does not look again for a while
    tally.start_tally()
    ray.get(worker.count.remote())
    try:
        assert until("read", "files", 1) == 1
    finally:
        tally.stop_tally()
        ray.kill(worker)


def until(stage: str, amount: str, number: float, seconds: float = 20) -> float:
    """The amount, once it has reached the number or the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = (tally.snapshot() or {}).get(stage, {}).get(amount, 0)
        if found >= number:
            return found
        time.sleep(0.1)
    return (tally.snapshot() or {}).get(stage, {}).get(amount, 0)


@pytest.mark.ray
def test_every_workers_counts_arrive(running_tally: None) -> None:
    import ray

    @ray.remote(num_cpus=1)
    def work(number: int) -> None:
        for _ in range(100):
            tally.count("concepts", prompts=1, seconds=0.5)
        tally.gauge("concepts", rows_in_flight=2)

    ray.get([work.remote(number) for number in range(8)])
    tally.count("concepts", prompts=7)
    assert until("concepts", "prompts", 807) == 807
    assert tally.snapshot()["concepts"]["seconds"] == 400
    assert until("concepts", "rows_in_flight", 2) >= 2


@pytest.mark.ray
def test_a_second_tally_begins_at_zero_and_workers_find_it(running_tally: None) -> None:
    import ray

    @ray.remote(num_cpus=1)
    def work() -> None:
        tally.count("read", files=1)

    ray.get(work.remote())
    assert until("read", "files", 1) == 1
    tally.start_tally()
    assert tally.snapshot() == {}
    ray.get([work.remote() for _ in range(4)])
    assert until("read", "files", 4) == 4


@pytest.mark.ray
def test_the_next_tally_has_what_holds_now_and_not_what_held_in_the_run_before(
    running_tally: None,
) -> None:
    class Worker:
        def hold(self, **values: float) -> None:
            tally.gauge("concepts", **values)
            tally.flush()

    worker = ray.remote(Worker).options(num_cpus=0).remote()
    ray.get(worker.hold.remote(rows_in_flight=5))
    assert tally.snapshot() == {"concepts": {"rows_in_flight": 5}}
    tally.start_tally()
    ray.get(worker.hold.remote(sequences=3))  # its handle is still the last tally's
    try:
        assert tally.snapshot() == {"concepts": {"sequences": 3}}
    finally:
        ray.kill(worker)


@pytest.mark.ray
def test_what_was_flushed_survives_the_worker(running_tally: None) -> None:
    import ray

    @ray.remote(num_cpus=1, max_retries=0)
    def work() -> None:
        tally.count("read", files=1)
        tally.flush()  # the first send goes at once; these would wait for the next
        tally.count("read", files=1)
        tally.flush()
        os._exit(1)

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(work.remote())
    assert tally.snapshot()["read"] == {"files": 2}


@pytest.mark.ray
def test_a_request_to_stop_reaches_every_process_and_ends_with_the_tally(
    running_tally: None,
) -> None:
    import ray

    class Worker:
        def sees(self) -> bool:
            return tally.stopping()

    worker = ray.remote(Worker).options(num_cpus=0).remote()
    assert not ray.get(worker.sees.remote())
    tally.request_stop()
    assert tally.snapshot() == {}  # takes it along
    end = time.monotonic() + 20
    while time.monotonic() < end and not ray.get(worker.sees.remote()):
        time.sleep(0.1)
    assert ray.get(worker.sees.remote())
    assert tally.stopping()
    tally.start_tally()
    assert not tally.stopping()
    while time.monotonic() < end and ray.get(worker.sees.remote()):
        time.sleep(0.1)
    assert not ray.get(worker.sees.remote())
    ray.kill(worker)


@pytest.mark.ray
def test_a_tally_that_does_not_answer_has_not_counted_nothing(
    running_tally: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tally.count("read", files=1)
    assert tally.counted().figures == {"read": {"files": 1}}
    monkeypatch.setattr(tally, "ANSWER_SECONDS", 0.0)
    assert tally.counted() is None


@pytest.mark.ray
def test_a_tally_that_begins_again_is_another(running_tally: None) -> None:
    import ray

    tally.count("read", files=1)
    first = tally.counted()
    assert tally.counted() == first
    ray.kill(ray.get_actor(tally.NAME), no_restart=False)
    end = time.monotonic() + 20
    while (second := tally.counted()) in (None, first) and time.monotonic() < end:
        time.sleep(0.1)
    assert second.figures == {}
    assert second.tally != first.tally


@pytest.mark.ray
def test_a_tally_that_dies_stops_nobody(running_tally: None) -> None:
    import ray

    ray.kill(ray.get_actor(tally.NAME))

    @ray.remote(num_cpus=1)
    def work() -> str:
        tally.count("read", files=1)
        return "done"

    assert ray.get(work.remote()) == "done"
    tally.count("read", files=1)
    assert tally.snapshot() is None, "nobody knows"
