"""engine/actor.py: engines outlive those who ask them, and say why they cannot be had."""

from __future__ import annotations

import dataclasses
import time

import pytest
import ray

from selfalign_ray.engine.actor import engines_for, flush_engines, places, stop_engines
from selfalign_ray.engine.base import Prompt, Sampling
from selfalign_ray.hops.generate import opening_for
from selfalign_ray.watch.tally import counted, start_tally, stop_tally

pytestmark = pytest.mark.ray


@pytest.fixture(autouse=True)
def no_engine_left():
    yield
    stop_engines()


def pids(names):
    return [ray.get_actor(name)._actor_id for name in names]


def is_gone(name, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            ray.get_actor(name)
        except ValueError:
            return True
        time.sleep(0.1)
    return False


def test_engines_that_run_are_given_again(ray_local, run_config):
    opening = opening_for(run_config("engine=standin", "engine.engines=2"), "concepts")
    first = engines_for(opening)
    assert len(first) == 2
    ids = pids(first)
    assert pids(engines_for(opening_for(run_config("engine=standin", "engine.engines=2"), "tests")))
    assert pids(engines_for(opening)) == ids


def test_other_settings_are_other_engines_and_old_ones_can_be_left_out(ray_local, run_config):
    cfg = run_config("engine=standin")
    old = opening_for(cfg, "concepts")
    new = dataclasses.replace(old, pool="other")
    (first,) = engines_for(old)
    (second,) = engines_for(new)
    assert first != second
    stop_engines(but={new.key})
    assert is_gone(first), "Ray takes a moment to forget a name"
    assert ray.get_actor(second)


def test_what_engines_have_counted_is_there_when_a_stage_ends(ray_local, run_config):
    start_tally()
    opening = opening_for(run_config("engine=standin"), "concepts")
    (name,) = engines_for(opening)
    engine = ray.get_actor(name)
    sampling = Sampling(temperature=0, top_p=1, n=1, max_tokens=9, stop=())
    asked = Prompt(
        row={"snippet": "x = 1", "instruction": None},
        hop="concepts",
        text="x",
        prefix="",
        sampling=sampling,
        seed=0,
        priority=0,
    )
    for number in range(1, 8):
        ray.get(engine.generate.remote(asked))
        flush_engines()
        assert counted().figures[f"engine:{opening.pool}-0"]["prompts"] == number
    stop_tally()


@pytest.mark.parametrize("deaths", [1, 2])
def test_what_has_died_for_good_is_begun_anew_and_the_rest_let_alone(ray_local, run_config, deaths):
    cfg = run_config("engine=standin", "engine.engines=2", "engine.max_restarts=0")
    opening = opening_for(cfg, "concepts")
    before = engines_for(opening)
    ids = pids(before)
    for name in before[:deaths]:
        ray.kill(ray.get_actor(name))
        assert is_gone(name)
    after = engines_for(opening)
    assert len(set(after) - set(before)) == deaths
    assert pids(after)[deaths:] == ids[deaths:]


def test_more_engines_may_be_wanted_than_there_is_room_for_now(ray_local, run_config):
    cfg = run_config("engine=standin", "engine.num_cpus=3", "engine.max_engines=3")
    assert len(engines_for(opening_for(cfg, "concepts"))) == 3


def test_an_engine_s_gpus_are_those_of_one_node():
    nodes = [{"Alive": True, "Resources": {"GPU": 4.0}}, {"Alive": True, "Resources": {"GPU": 4.0}}]
    gone = {"Alive": False, "Resources": {"GPU": 8.0}}
    without = {"Alive": True, "Resources": {"CPU": 8.0}}
    assert places([*nodes, gone, without], 8) == 0
    assert places([*nodes, gone, without], 2) == 4
