"""hops/row.py: a row's way through the hops, and every way in which it can stop."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from selfalign_ray.engine.base import (
    EngineDiedError,
    EngineKilledError,
    Generation,
    PromptRefusedError,
    PromptTooLongError,
    Text,
)
from selfalign_ray.hops.row import RowHops
from selfalign_ray.hops.shots import read_examples

HOPS = ("concepts", "instruction", "responses")
GOOD = {
    "concepts": " recursion, sets",
    "instruction": "f(x)` that doubles x.",
    "responses": 'x):\n    """Double."""\n    return 2 * x\n\n# Tests\nassert f(1) == 2\n',
}


class ScriptedEngine:
    """Answers each hop with a given text; keeps the prompts it was asked."""

    model = "scripted"
    max_model_len = 100_000

    def __init__(self, texts=None, finish="stop", error=None):
        self.texts = GOOD | (texts or {})
        self.finish, self.error, self.asked = finish, error, []

    async def generate(self, prompt):
        if len(prompt.text) > self.max_model_len - prompt.sampling.max_tokens:
            raise PromptTooLongError("too long")
        self.asked.append(prompt)
        if self.error:
            raise self.error
        text = self.texts[prompt.hop]
        return Generation(
            texts=[Text(text=text, finish_reason=self.finish, output_tokens=3)] * prompt.sampling.n,
            prompt_tokens=len(prompt.text),
            cached_tokens=1,
        )


def row(**columns):
    return {"row_id": "r", "seed_id": "s", "seed": "def g(): ...", "drop_reason": None} | columns


@pytest.fixture
def run(run_config):
    def run(engine, *rows, names=HOPS, overrides=(), run_seed=7):
        cfg = run_config("experiment=embedded", *overrides)
        hops = RowHops(
            cfg.recipe, names, examples=read_examples(None), engine=engine, run_seed=run_seed
        )

        async def all_rows():
            return await asyncio.gather(*(hops.run(r) for r in rows or (row(),)))

        return asyncio.run(all_rows())

    return run


def test_a_row_goes_through_all_hops_and_gains_their_columns(run):
    (done,) = run(ScriptedEngine())
    assert done["drop_reason"] is None
    assert done["concepts"] == ["recursion", "sets"]
    assert done["instruction"] == "Write a Python function `f(x)` that doubles x."
    assert [sample["tests"] for sample in done["samples"]] == ["assert f(1) == 2"] * 4
    assert done["samples"][0]["code"].startswith("def f(x):")
    assert [hop["hop"] for hop in done["hops"]] == list(HOPS)
    assert done["model"] == "scripted"


def test_deeper_hops_go_first(run):
    engine = ScriptedEngine()
    run(engine)
    priorities = [prompt.priority for prompt in engine.asked]
    assert priorities == sorted(set(priorities), reverse=True)


def test_seeds_differ_by_row_hop_and_sample(run):
    engine = ScriptedEngine()
    rows = run(engine, row(seed_id="a"), row(seed_id="b"))
    assert len({prompt.seed for prompt in engine.asked}) == 6
    seeds = [sample["sampling_seed"] for done in rows for sample in done["samples"]]
    assert len(set(seeds)) == 8


def test_the_same_row_asks_the_same_whatever_runs_beside_it(run):
    alone, among = ScriptedEngine(), ScriptedEngine()
    run(alone, row(seed_id="a"))
    run(among, *(row(seed_id=name) for name in "cba"))
    asked = {(p.hop, p.seed, p.text) for p in among.asked}
    assert {(p.hop, p.seed, p.text) for p in alone.asked} <= asked


@pytest.mark.parametrize(
    ("texts", "reason", "hops"),
    [
        ({"concepts": " , "}, "no_concepts", 1),
        ({"instruction": "word " * 100}, "instruction_too_long", 2),
    ],
)
def test_text_that_does_not_parse_stops_the_row_with_the_reason(run, texts, reason, hops):
    (done,) = run(ScriptedEngine(texts))
    assert done["drop_reason"] == reason
    assert len(done["hops"]) == hops


def test_an_instruction_that_repeats_a_shot_s_is_not_asked_again(run):
    example = next(e for e in read_examples(None) if e.name.startswith("tiny_"))
    said = example.instruction.removeprefix("Write a Python function `").upper()
    (done,) = run(ScriptedEngine({"instruction": said}))
    assert done["drop_reason"] == "instruction_of_shot"
    assert len(done["hops"]) == 2


def test_unfinished_text_stops_the_row_and_is_kept(run):
    (done,) = run(ScriptedEngine(finish="length"))
    assert done["drop_reason"] == "concepts_unfinished"
    assert done["hops"][0]["text"] == " recursion, sets"
    assert done["hops"][0]["finish_reason"] == "length"


def test_an_unfinished_sample_is_marked_and_not_executed(run):
    instructed = row(instruction="Write `f`.")
    (done,) = run(ScriptedEngine(finish="length"), instructed, names=["responses"])
    assert {sample["drop_reason"] for sample in done["samples"]} == {"unfinished"}
    assert done["drop_reason"] is None  # execution judges


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PromptRefusedError("too odd"), "prompt_refused"),
        (EngineKilledError("two died"), "engine_killed"),
        (RuntimeError("boom"), "hop_failed"),
    ],
)
def test_an_engine_error_is_the_row_s_alone(run, error, reason):
    class Picky(ScriptedEngine):
        async def generate(self, prompt):
            self.error = error if "def bad" in prompt.row["snippet"] else None
            return await super().generate(prompt)

    good, bad = run(Picky(), row(), row(seed="def bad(): ..."))
    assert good["drop_reason"] is None
    assert bad["drop_reason"] == reason
    assert str(error) in bad["error"]


def test_a_dead_engine_is_no_row_s_fault(run):
    with pytest.raises(EngineDiedError):
        run(ScriptedEngine(error=EngineDiedError("gone")))


def test_what_the_stand_in_began_is_never_a_model_s(run):
    (done,) = run(ScriptedEngine(), row(model="standin"))
    assert done["model"] == "standin"
    assert [hop["model"] for hop in done["hops"]] == ["scripted"] * 3


def test_a_dropped_row_passes_untouched(run):
    engine = ScriptedEngine()
    (done,) = run(engine, row(drop_reason="why"))
    assert (done["drop_reason"], engine.asked) == ("why", [])


def test_shots_give_way_to_a_long_snippet_and_the_row_says_so(run):
    roomy, tight = ScriptedEngine(), ScriptedEngine()
    run(roomy, row(), names=["concepts"])
    tight.max_model_len = len(roomy.asked[0].text) + 39  # one less than the text may need
    (done,) = run(tight, row(), names=["concepts"])
    assert done["hops"][0]["shots"] == 3
    assert len(tight.asked[0].text) < len(roomy.asked[0].text)


def test_a_prompt_that_never_fits_is_marked(run):
    engine = ScriptedEngine()
    engine.max_model_len = 3000
    (done,) = run(engine, row(seed="x" * 4000))
    assert (done["drop_reason"], engine.asked) == ("prompt_too_long", [])
    assert "too long" in done["error"]


def test_kind_and_difficulty_are_drawn_by_row(run):
    overrides = ["recipe.kinds=[function,class]", "recipe.difficulties=[easy,hard]"]
    rows = [row(seed_id=str(i)) for i in range(40)]
    drawn = {
        (r["kind"], r["difficulty"]) for r in run(ScriptedEngine(), *rows, overrides=overrides)
    }
    assert len(drawn) == 4


def test_tests_of_their_own_never_see_a_response_and_serve_every_sample(run):
    engine = ScriptedEngine({"tests": "assert f(2) == 4\n", "responses": "x):\n    return 2 * x\n"})
    overrides = ["recipe=independent_tests"]
    (done,) = run(engine, names=("tests", "responses"), overrides=overrides)
    assert done["independent_tests"] == "assert f(2) == 4"
    assert {sample["tests"] for sample in done["samples"]} == {"assert f(2) == 4"}
    asked = next(prompt for prompt in engine.asked if prompt.hop == "tests")
    assert "return 2" not in asked.text


def test_prose_is_one_concept(run):
    engine = ScriptedEngine({"concepts": "A set drops what\nit has seen.\n\nMore."})
    (done,) = run(engine, names=["concepts"], overrides=["recipe.concepts_form=prose"])
    assert done["concepts"] == ["A set drops what it has seen."]


def test_the_forced_start_is_the_end_of_the_prompt(run):
    engine = ScriptedEngine()
    run(engine)
    assert all(prompt.text.endswith(prompt.prefix) for prompt in engine.asked)
    assert engine.asked[2].prefix == "```python\ndef f("


@pytest.fixture
def again(run_config):
    def again(engine, judged, round_number=2):
        cfg = run_config("experiment=embedded", "generation.again.n=3")
        hops = RowHops(
            cfg.recipe, ["responses"], examples=read_examples(None), engine=engine, run_seed=7
        )
        return asyncio.run(hops.again(judged, cfg.generation.again, round_number))

    return again


def test_a_further_round_adds_samples_of_its_own_seeds_and_temperature(run, again):
    first, second = ScriptedEngine(), ScriptedEngine()
    (done,) = run(first, row(instruction="Write `f(x)`."), names=["responses"])
    more = again(second, {**done, "drop_reason": "no_passing_sample"})
    assert [sample["sample_index"] for sample in more["samples"]] == list(range(7))
    assert len({sample["sampling_seed"] for sample in more["samples"]}) == 7
    assert more["drop_reason"] is None
    (asked,) = second.asked
    assert (asked.sampling.n, asked.sampling.temperature) == (3, 0.9)
    assert len(more["hops"]) == 2
    third = ScriptedEngine()
    again(third, {**done, "drop_reason": "no_passing_sample"}, round_number=3)
    assert third.asked[0].seed != asked.seed


@pytest.mark.parametrize("reason", [None, "sandbox_failed", "engine_killed"])
def test_a_further_round_leaves_other_rows_alone(again, reason):
    engine = ScriptedEngine()
    judged = row(instruction="Write `f(x)`.", samples=[], hops=[]) | {"drop_reason": reason}
    assert again(engine, judged) == judged
    assert engine.asked == []


def test_a_further_round_that_fails_leaves_what_was_there(again):
    judged = row(instruction="Write `f(x)`.", samples=[], hops=[], drop_reason="no_passing_sample")
    done = again(ScriptedEngine(error=PromptRefusedError("odd")), judged)
    assert done["drop_reason"] == "no_passing_sample"
    assert "odd" in done["error"]


def test_a_hop_of_its_own_takes_the_row_further(run):
    (first,) = run(ScriptedEngine(), names=["concepts"])
    assert "instruction" not in first
    (done,) = run(ScriptedEngine(), first, names=["instruction", "responses"])
    assert [hop["hop"] for hop in done["hops"]] == list(HOPS)


def test_sampling_is_the_recipe_s(run, run_config):
    engine = ScriptedEngine()
    run(engine)
    hops = run_config("experiment=embedded").recipe.hops
    assert [p.sampling.temperature for p in engine.asked] == [
        hop.sampling.temperature for hop in hops.values()
    ]
    assert dataclasses.astuple(engine.asked[2].sampling)[2] == 4
