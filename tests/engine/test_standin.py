"""engine/standin.py: what it says parses in every recipe, and never looks like a model's."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from selfalign_ray.config import conf_dir
from selfalign_ray.engine.base import Prompt, Sampling
from selfalign_ray.engine.standin import StandinEngine
from selfalign_ray.hops.row import RowHops
from selfalign_ray.hops.shots import read_examples

RECIPES = sorted(path.stem for path in Path(conf_dir(), "recipe").glob("*.yaml"))


@pytest.fixture(params=RECIPES)
def rows(request, run_config):
    cfg = run_config(f"recipe={request.param}")
    engine = StandinEngine(cfg.recipe, read_examples(None), 0.0)
    hops = RowHops(
        cfg.recipe, list(cfg.recipe.hops), examples=read_examples(None), engine=engine, run_seed=1
    )
    seeds = [
        {"row_id": str(i), "seed_id": str(i), "seed": "def f(): ...", "drop_reason": None}
        for i in range(20)
    ]

    async def run():
        return await asyncio.gather(*(hops.run(seed) for seed in seeds))

    return asyncio.run(run())


def test_every_row_gets_concepts_instruction_and_programs(rows):
    assert {row["drop_reason"] for row in rows} == {None}
    assert all(sample["code"] and sample["tests"] for row in rows for sample in row["samples"])


def test_a_text_is_scored_by_a_draw_and_not_judged(run_config):
    engine = StandinEngine(run_config().recipe, read_examples(None), 0.0)
    none = Sampling(temperature=0.0, top_p=1.0, n=1, max_tokens=1, stop=())
    asked = Prompt(
        row={}, hop="judge", text="a", prefix="", sampling=none, seed=1, priority=0, scored=" Yes"
    )
    found = {
        seed: asyncio.run(engine.generate(replace(asked, seed=seed))).texts[0].logprob
        for seed in (1, 2)
    }
    assert found[1] == asyncio.run(engine.generate(asked)).texts[0].logprob != found[2]
    assert all(logprob < 0 for logprob in found.values())


def test_instructions_are_distinct(rows):
    assert len({row["instruction"] for row in rows}) == len(rows)


def test_some_samples_are_spoilt_and_some_are_not(rows):
    spoilt = [("return not " in s["code"]) for row in rows for s in row["samples"]]
    assert 0 < sum(spoilt) < len(spoilt)


def test_rows_say_that_no_model_wrote_them(rows):
    assert {row["model"] for row in rows} == {"standin"}


def test_unspoilt_samples_are_what_their_instruction_asks_for(rows):
    solutions = {e.instruction: e.solution for e in read_examples(None)}
    for row in rows:
        instruction = next(i for i in solutions if row["instruction"].startswith(i))
        assert solutions[instruction] in [sample["code"] for sample in row["samples"]]
