"""hops/prompt.py and conf/recipe/: how a prompt is laid out."""

from __future__ import annotations

import dataclasses

import pytest

from selfalign_ray.errors import UserError
from selfalign_ray.hops.prompt import HopPrompt, called_name
from selfalign_ray.hops.shots import read_examples

ROW = {
    "snippet": "def f(x): ...",
    "concepts": ["a", "b"],
    "kind": "function",
    "difficulty": "easy",
    "instruction": "Write a Python function `take(x: int)` that takes.",
}


@pytest.fixture(params=["sc2_instruct", "short"])
def recipe(request, run_config):
    return run_config(f"recipe={request.param}").recipe


def test_a_prompt_shows_every_shot_and_ends_with_the_row_s_forced_start(recipe):
    examples = read_examples(None)
    for name, hop in recipe.hops.items():
        prompt = HopPrompt(name, hop, examples)
        text = prompt.prompt(ROW, examples[:2])
        assert text.startswith(hop.preamble)
        assert text.count(prompt.output(examples[0])) == 1
        assert text.endswith(prompt.prefix(ROW))


def test_prompts_with_the_same_shots_share_all_but_the_row(recipe):
    examples = read_examples(None)
    hop = HopPrompt("concepts", recipe.hops["concepts"], examples)
    one, other = (hop.prompt({**ROW, "snippet": s}, examples[:3]) for s in ("1", "2"))
    shared = next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
    assert one[shared:].startswith("1\n```")


def test_a_shot_s_answer_ends_where_the_engine_stops(recipe):
    for name, hop in recipe.hops.items():
        prompt = HopPrompt(name, hop, read_examples(None))
        text = prompt.prompt(ROW, read_examples(None)[:2])
        answers = text.split(prompt.output(read_examples(None)[0]))[1]
        body = prompt.output(read_examples(None)[0]).removeprefix("```python")
        assert any(stop in body + answers for stop in hop.sampling.stop)


def test_an_unknown_field_in_a_template_is_named_with_its_key(recipe):
    hop = dataclasses.replace(recipe.hops["concepts"], input="{{ snipet }}")
    with pytest.raises(UserError, match=r"recipe\.hops\.concepts\.input: .*snipet"):
        HopPrompt("concepts", hop, read_examples(None))


@pytest.mark.parametrize(
    ("instruction", "name"),
    [
        ("Write a Python function `take(x: int) -> int` that takes.", "take"),
        ("Write `take` that takes `x`.", "take"),
        ("Write something.", ""),
        ("Use `a + b` in it.", ""),
    ],
)
def test_the_name_an_instruction_gives_is_found(instruction, name):
    assert called_name(instruction) == name
