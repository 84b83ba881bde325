"""hops/scored.py: what a likelihood comes to, and what is no question."""

from __future__ import annotations

import asyncio
import math

import pytest

from selfalign_ray.engine.base import Generation, PromptTooLongError, Text
from selfalign_ray.errors import UserError
from selfalign_ray.hops.scored import likelihoods, share, template, to_score


def text(logprob):
    return Text(text="t", finish_reason="stop", output_tokens=1, logprob=logprob)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [(-1.0, -1.0, 0.5), (0.0, -2000.0, 1.0), (-2000.0, 0.0, 0.0), (math.log(3), 0.0, 0.75)],
)
def test_a_share_is_a_probability_however_far_apart_the_two_are(one, other, expected):
    assert share(text(one), text(other)) == pytest.approx(expected)


@pytest.mark.parametrize("unknown", [None, text(None)])
def test_a_share_with_an_unknown_is_unknown(unknown):
    assert share(text(-1.0), unknown) is share(unknown, text(-1.0)) is None


@pytest.mark.parametrize("source", ["{{ nothing }}", "{% if %}", "{{ code.__class__.x }}"])
def test_a_wrong_template_is_told_with_its_key(source):
    with pytest.raises(UserError, match=r"^the\.key: "):
        template("the.key", source, ["code"])


def test_a_refused_text_is_none_beside_the_others():
    class Engine:
        model = "m"

        async def generate(self, prompt):
            if prompt.scored == "long":
                raise PromptTooLongError("too long")
            return Generation(texts=[text(-2.0)], prompt_tokens=3, cached_tokens=0)

    asked = [to_score("ask", scored, stage="s") for scored in ("long", "t")]
    assert asyncio.run(likelihoods(asked, Engine())) == [None, text(-2.0)]
