"""engine/stepper.py: prompts join between steps, and an engine that hangs or dies is given up."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from selfalign_ray.engine.base import (
    EngineDiedError,
    Generation,
    Prompt,
    PromptRefusedError,
    Sampling,
    Text,
)
from selfalign_ray.engine.stepper import Stepper

SAMPLING = Sampling(temperature=1.0, top_p=1.0, n=1, max_tokens=4, stop=())
DONE = Generation(
    texts=[Text(text="x", finish_reason="stop", output_tokens=1)], prompt_tokens=1, cached_tokens=0
)


def prompt(row=0):
    return Prompt(row={}, hop="h", text=str(row), prefix="", sampling=SAMPLING, seed=0, priority=0)


class Fake:
    """Admits prompts and ends each after `steps` steps, unless a test gives another step."""

    def __init__(self, *, steps=1, hang_seconds=60.0, step=None):
        self.left: dict[str, int] = {}
        self.steps, self.killed, self.most = steps, 0, 0
        self.stepper = Stepper(
            admit=self.admit, step=step or self.step, kill=self.kill, hang_seconds=hang_seconds
        )

    def admit(self, request_id, prompt, token_ids):
        if token_ids == [13]:
            raise PromptRefusedError("unlucky")
        self.left[request_id] = self.steps

    def step(self):
        self.most = max(self.most, len(self.left))
        time.sleep(0.001)
        self.left = {name: left - 1 for name, left in self.left.items()}
        done = [name for name, left in self.left.items() if left <= 0]
        self.left = {name: left for name, left in self.left.items() if left > 0}
        return [(name, DONE) for name in done]

    def kill(self):
        time.sleep(0.05)  # whoever is told before cannot see it
        self.killed += 1

    def run(self, *prompts):
        async def all_of_them():
            asked = (self.stepper.generate(one, [int(one.text)]) for one in prompts)
            return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 20)

        return asyncio.run(all_of_them())


def test_prompts_share_the_steps():
    fake = Fake(steps=20)
    assert fake.run(*(prompt(row) for row in range(10))) == [DONE] * 10
    assert fake.most > 1


def test_a_refused_prompt_is_refused_alone():
    made = Fake().run(prompt(1), prompt(13), prompt(2))
    assert [type(one) for one in made] == [Generation, PromptRefusedError, Generation]


def test_a_step_that_does_not_return_kills_the_engine():
    forever = threading.Event()
    fake = Fake(step=forever.wait, hang_seconds=0.2)
    made = fake.run(prompt(), prompt())
    assert [type(one) for one in made] == [EngineDiedError] * 2
    assert "no progress" in str(made[0])
    assert fake.killed == 1
    assert [type(one) for one in fake.run(prompt())] == [EngineDiedError], "it came back to life"
    forever.set()


def test_an_engine_whose_processes_are_gone_is_dead_before_it_hangs():
    gone, forever = threading.Event(), threading.Event()
    fake = Fake()
    fake.stepper.close()
    fake.stepper = Stepper(
        admit=fake.admit,
        step=forever.wait,
        kill=fake.kill,
        hang_seconds=60.0,
        is_alive=lambda: not gone.is_set(),
    )
    threading.Timer(0.1, gone.set).start()
    made = fake.run(prompt())
    assert [(type(one), str(one)) for one in made] == [(EngineDiedError, "its processes are gone")]
    assert fake.killed == 1
    forever.set()


def test_steps_that_finish_nothing_kill_the_engine():
    def nothing():
        time.sleep(0.01)
        return []

    fake = Fake(step=nothing, hang_seconds=0.2)
    assert [type(one) for one in fake.run(prompt())] == [EngineDiedError]
    assert fake.killed == 1


def test_tokens_are_progress_though_no_prompt_ends():
    fake = Fake(steps=40, hang_seconds=0.2)

    def slow_but_alive():
        time.sleep(0.02)
        fake.stepper.progressed()
        return Fake.step(fake)

    fake.stepper.close()
    fake.stepper = Stepper(admit=fake.admit, step=slow_but_alive, kill=fake.kill, hang_seconds=0.2)
    assert fake.run(prompt()) == [DONE], "40 steps of 20 ms are more than hang_seconds"


def test_an_idle_engine_does_not_hang():
    fake = Fake(hang_seconds=0.1)
    assert fake.run(prompt()) == [DONE]
    time.sleep(0.4)
    assert fake.run(prompt()) == [DONE]
    assert fake.killed == 0


def test_an_error_in_a_step_ends_all_in_flight_and_all_that_come():
    def broken():
        raise ValueError("out of everything")

    fake = Fake(step=broken)
    made = fake.run(prompt(), prompt())
    assert [str(one) for one in made] == ["ValueError: out of everything"] * 2
    assert fake.killed == 1


def test_a_row_that_goes_away_does_not_stop_the_engine():
    fake = Fake(steps=30)

    async def one_leaves():
        leaving = asyncio.create_task(fake.stepper.generate(prompt(1), [1]))
        staying = asyncio.create_task(fake.stepper.generate(prompt(2), [1]))
        await asyncio.sleep(0.01)
        leaving.cancel()
        return await asyncio.wait_for(staying, 20)

    assert asyncio.run(one_leaves()) == DONE


def test_closing_ends_what_is_in_flight():
    fake = Fake(steps=10**9)

    async def close_midway():
        asked = asyncio.create_task(fake.stepper.generate(prompt(), [1]))
        await asyncio.sleep(0.01)
        fake.stepper.close()
        await asked

    with pytest.raises(EngineDiedError, match="closed"):
        asyncio.run(close_midway())
    assert fake.killed == 0
