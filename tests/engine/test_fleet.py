"""engine/fleet.py: prompts outlive engines, on real actors that really die."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections import Counter
from pathlib import Path

import pytest
import ray

from selfalign_ray.engine.base import (
    EngineDiedError,
    EngineKilledError,
    Generation,
    Prompt,
    PromptRefusedError,
    Sampling,
    Text,
)
from selfalign_ray.engine.fleet import Fleet
from selfalign_ray.errors import UserError

SAMPLING = Sampling(temperature=1.0, top_p=1.0, n=1, max_tokens=8, stop=())


class FragileEngine:
    """Answers with its process id; dies of "kill", and once, where a path is named, of it."""

    def __init__(self, load_error=None):
        self.load_error = load_error
        self.loaded = False

    async def load(self):
        if self.load_error:
            raise self.load_error
        self.loaded = True

    async def generate(self, prompt):
        assert self.loaded
        text = prompt.text
        if text == "mistake":
            raise UserError("model.x: set it to y")
        if text.startswith("refuse"):
            raise PromptRefusedError("not this one")
        if text.startswith("once "):
            path = Path(text.removeprefix("once "))
            if not path.exists():
                path.touch()
                os._exit(1)
        if text == "kill":
            await asyncio.sleep(0.05)
            os._exit(1)
        await asyncio.sleep(0.2)
        sample = Text(text=str(os.getpid()), finish_reason="stop", output_tokens=1)
        return Generation(texts=[sample], prompt_tokens=1, cached_tokens=0)


def start(count, *, max_restarts=10, load_error=None):
    actor = ray.remote(FragileEngine)
    names = [uuid.uuid4().hex for _ in range(count)]
    return {
        name: actor.options(name=name, num_cpus=0, max_restarts=max_restarts).remote(load_error)
        for name in names
    }


def ask_on(engines, *texts):
    async def run():
        fleet = Fleet(list(engines), model="m", rows_in_flight=20)
        prompts = [
            Prompt(row={}, hop="h", text=text, prefix="", sampling=SAMPLING, seed=0, priority=0)
            for text in texts
        ]
        return await asyncio.gather(*map(fleet.generate, prompts), return_exceptions=True)

    return asyncio.run(run())


def ask(engines, *texts):
    """The same of engines that are there for this alone."""
    try:
        return ask_on(engines, *texts)
    finally:
        for engine in engines.values():
            ray.kill(engine)


@pytest.fixture(scope="module")
def two(ray_local):
    """Engines that no test lets die."""
    engines = start(2)
    ray.get([engine.load.remote() for engine in engines.values()])
    yield engines
    for engine in engines.values():
        ray.kill(engine)


pytestmark = pytest.mark.ray


def test_prompts_are_spread_over_the_engines(two):
    made = ask_on(two, *["x"] * 40)
    shares = Counter(generation.texts[0].text for generation in made)
    assert len(shares) == 2
    assert min(shares.values()) == 20


def test_a_prompt_in_flight_when_its_engine_dies_is_asked_again(ray_local, tmp_path):
    made = ask(start(2), f"once {tmp_path / 'died'}", *["x"] * 20)
    assert all(isinstance(generation, Generation) for generation in made)
    assert (tmp_path / "died").exists()


def test_a_prompt_that_kills_two_engines_is_told_apart_and_the_others_go_on(ray_local):
    killer, *others = ask(start(2), "kill", *["x"] * 20)
    assert isinstance(killer, EngineKilledError)
    kept = [isinstance(generation, Generation) for generation in others]
    # Some may be lost with it, but no more than were asked again beside it.
    assert kept.count(False) <= 3
    assert kept.count(True) >= 17


def test_the_only_engine_is_waited_for_while_it_restarts(ray_local, tmp_path):
    (made,) = ask(start(1), f"once {tmp_path / 'died'}")
    assert isinstance(made, Generation)


def test_a_refusal_is_the_prompt_s_alone(two):
    refused, made = ask_on(list(two)[:1], "refuse me", "x")
    assert isinstance(refused, PromptRefusedError)
    assert str(refused) == "not this one"
    assert isinstance(made, Generation)


def test_when_no_engine_is_left_every_prompt_is_told_why(ray_local):
    told = ask(start(1, max_restarts=0), "kill", "x", "x")
    assert any(isinstance(error, EngineDiedError) for error in told)
    told = ask(start(2, load_error=ValueError("no memory at all")), "x")
    assert isinstance(told[0], EngineDiedError)
    assert "no memory at all" in str(told[0])


def test_an_engine_that_was_gone_before_is_done_without(two):
    (made,) = ask_on(["forgotten", *two], "x")
    assert isinstance(made, Generation)
    (told,) = ask_on(["forgotten"], "x")
    assert isinstance(told, EngineDiedError)
    assert "'forgotten'" in str(told)


def test_a_user_s_mistake_arrives_as_itself(two):
    mistake = UserError("model.x: set it to y")
    for told in (ask_on(list(two)[:1], "mistake"), ask(start(2, load_error=mistake), "x")):
        assert [(type(error), str(error)) for error in told] == [(UserError, str(mistake))]
