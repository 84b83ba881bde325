"""lease.py: one process has a run in a store, and one that is gone is followed by one other."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace

import pytest
from fsspec.implementations import memory
from upath import UPath

from selfalign_ray import lease
from selfalign_ray.errors import TakenError

HERE, OTHER, THIRD = "here@a", "other@b", "third@c"


class Clock:
    """The time of the store and, offset, of this process; `at` for what happens meanwhile."""

    def __init__(self):
        self.now, self._events = 1_000_000.0, []

    def at(self, seconds, action):
        self._events.append((self.now + seconds, action))

    def sleep(self, seconds):
        self.now += seconds
        for event in [event for event in self._events if event[0] <= self.now]:
            self._events.remove(event)
            event[1]()


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    here = SimpleNamespace(monotonic=lambda: clock.now - 777_777, sleep=clock.sleep)
    monkeypatch.setattr(lease, "time", here)
    stores = SimpleNamespace(now=lambda tz: dt.datetime.fromtimestamp(clock.now, tz))
    monkeypatch.setattr(memory, "datetime", stores)
    return clock


@pytest.fixture
def folder(clock):
    path = UPath("memory://runs/first/.lock")
    yield path
    memory.MemoryFileSystem.store.clear()


def renews(clock, folder, number):
    """Lets a holder write its object every so often."""

    def once():
        path = folder / f"{number:06d}"
        path.write_bytes(path.read_bytes())
        clock.at(lease.RENEW_SECONDS, once)

    clock.at(lease.RENEW_SECONDS, once)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_nobody_has_is_had_at_once(clock, folder):
    began = clock.now
    assert lease.acquire(folder, HERE, None) == 1
    assert clock.now == began
    assert lease.latest(folder).token == HERE


def test_a_second_run_is_refused_by_the_name_of_the_first(clock, folder):
    lease.acquire(folder, OTHER, None)
    renews(clock, folder, 1)
    began = clock.now
    with pytest.raises(TakenError, match=r"runs/first is in use by process \d+ on .* since 20"):
        lease.acquire(folder, HERE, None)
    assert clock.now - began <= lease.RENEW_SECONDS + 5
    assert names(folder) == ["000001"]


def test_what_is_not_renewed_is_taken_over_and_not_before(clock, folder):
    lease.acquire(folder, OTHER, None)
    clock.sleep(lease.STALE_SECONDS / 2)
    began = clock.now
    assert lease.acquire(folder, HERE, None) == 2
    waited = clock.now - began
    assert lease.STALE_SECONDS / 2 < waited < lease.STALE_SECONDS / 2 + 10


def test_a_process_that_this_folder_knows_to_be_gone_is_not_waited_for(clock, folder):
    lease.acquire(folder, OTHER, None)
    began = clock.now
    assert lease.acquire(folder, HERE, OTHER) == 2
    assert clock.now == began


def test_of_two_that_take_over_one_gets_it(clock, folder):
    lease.acquire(folder, OTHER, None)
    clock.sleep(lease.STALE_SECONDS + 1)
    original = lease._store_now

    def meanwhile(*arguments):
        lease._store_now = original
        assert lease.acquire(folder, THIRD, None) == 2
        renews(clock, folder, 2)
        return original(*arguments)

    lease._store_now = meanwhile
    try:
        with pytest.raises(TakenError):
            lease.acquire(folder, HERE, None)
    finally:
        lease._store_now = original
    assert lease.latest(folder).token == THIRD


def test_one_that_ends_while_it_is_waited_for_leaves_the_run(clock, folder):
    lease.acquire(folder, OTHER, None)
    clock.at(10, (folder / "000001").unlink)
    assert lease.acquire(folder, HERE, None) == 1


@pytest.fixture
def held(clock, folder):
    """A lease whose thread does nothing by itself."""
    lost = []
    number = lease.acquire(folder, HERE, None)
    ours = lease.Lease(folder, HERE, number, lambda: lost.append(clock.now))
    ours.lost = lost
    yield ours
    ours.release()


def test_renewing_is_seen_by_others(clock, folder, held):
    before = lease.latest(folder).renewed
    clock.sleep(20)
    held.renew()
    assert lease.latest(folder).renewed == before + 20


def test_what_was_taken_over_is_not_renewed_and_not_let_go_for_the_other(clock, folder, held):
    clock.sleep(lease.STALE_SECONDS + 1)
    assert lease.acquire(folder, OTHER, None) == 2
    with pytest.raises(TakenError, match="was taken over by process"):
        held.renew()
    held.release()
    assert lease.latest(folder).token == OTHER


def test_letting_go_leaves_nothing(clock, folder):
    lease.acquire(folder, OTHER, None)
    clock.sleep(lease.STALE_SECONDS + 1)
    ours = lease.Lease(folder, HERE, lease.acquire(folder, HERE, None), lambda: None)
    ours.release()
    assert lease.latest(folder) is None


def held_until_lost(folder, action):
    """Has a run, does something, and works until a thread breaks in."""
    with lease.leased(folder.parent, HERE, None):
        action()
        while True:
            pass


def test_a_run_that_is_lost_ends_with_the_reason(monkeypatch, clock, folder):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)

    def taken():
        clock.now += lease.STALE_SECONDS + 1
        lease.acquire(folder, OTHER, None)

    with pytest.raises(TakenError, match="was taken over by"):
        held_until_lost(folder, taken)
    assert lease.latest(folder).token == OTHER


def test_a_store_that_is_away_for_long_ends_the_run(monkeypatch, clock, folder):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    asked = []

    def away(folder):
        asked.append(clock.now)
        clock.now += 30
        raise ConnectionError("nobody answers")

    with pytest.raises(TakenError, match=r"cannot be held: nobody answers"):
        held_until_lost(folder, lambda: monkeypatch.setattr(lease, "latest", away))
    assert len(asked) > 1
    assert asked[-1] - asked[0] < lease.STALE_SECONDS
