"""hops/prompt.py and conf/recipe/: how a prompt is laid out."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from selfalign_ray.config import conf_dir
from selfalign_ray.errors import UserError
from selfalign_ray.hops.prompt import HopPrompt, called_name
from selfalign_ray.hops.shots import named, read_examples

RECIPES = sorted(path.stem for path in Path(conf_dir(), "recipe").glob("*.yaml"))
ROW = {
    "snippet": "def f(x): ...",
    "concepts": ["a", "b"],
    "kind": "function",
    "difficulty": "easy",
    "instruction": "Write a Python function `take(x: int)` that takes.",
}


@pytest.fixture(params=RECIPES)
def recipe(request, run_config):
    return run_config(f"recipe={request.param}").recipe


def test_a_prompt_shows_every_shot_and_ends_with_the_row_s_forced_start(recipe):
    for name, hop in recipe.hops.items():
        examples = named(read_examples(None), hop.examples)
        prompt = HopPrompt(name, hop, examples)
        text, prefix = prompt.prompt(ROW, examples[:2])
        assert text.startswith(hop.preamble)
        assert text.count(prompt.output(examples[0])) == 1
        assert text.endswith(prefix)


def test_prompts_with_the_same_shots_share_all_but_the_row(recipe):
    examples = named(read_examples(None), recipe.hops["concepts"].examples)
    hop = HopPrompt("concepts", recipe.hops["concepts"], examples)
    one, other = (hop.prompt({**ROW, "snippet": s}, examples[:3])[0] for s in ("1", "2"))
    shared = next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
    assert one[shared:].startswith("1\n```")


def test_a_shot_is_as_if_new_wherever_and_however_often_it_is_shown(recipe):
    for name, hop in recipe.hops.items():
        examples = named(read_examples(None), hop.examples)[:3]
        used = HopPrompt(name, hop, examples)
        for shots in itertools.permutations(examples, 2):
            new = HopPrompt(name, hop, examples)
            assert used.prompt(ROW, shots) == new.prompt(ROW, shots)


def test_a_shot_s_answer_ends_where_the_engine_stops(recipe):
    for name, hop in recipe.hops.items():
        examples = named(read_examples(None), hop.examples)
        prompt = HopPrompt(name, hop, examples)
        text, _ = prompt.prompt(ROW, examples[:2])
        answers = text.split(prompt.output(examples[0]))[1]
        body = prompt.output(examples[0]).removeprefix("```python")
        assert any(stop in body + answers for stop in hop.sampling.stop)


def test_an_unknown_field_in_a_template_is_named_with_its_key(recipe):
    hop = dataclasses.replace(recipe.hops["concepts"], input="{{ snipet }}")
    with pytest.raises(UserError, match=r"recipe\.hops\.concepts\.input: .*snipet"):
        HopPrompt("concepts", hop, read_examples(None))


def test_an_example_without_a_part_that_a_template_shows_is_named(run_config):
    hop = run_config("recipe=docstring_concept").recipe.hops["concepts"]
    hop = dataclasses.replace(hop, examples="tiny_shout,unit_converter")
    with pytest.raises(UserError, match=r"hops\.concepts\.output: .*idea.*tiny_shout"):
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
