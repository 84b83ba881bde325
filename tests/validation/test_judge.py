"""validation/judge.py: what is asked of the model, and what becomes of its likelihoods."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pyarrow as pa
import pytest

from selfalign_ray import schemas
from selfalign_ray.engine.base import Generation, PromptTooLongError, Text
from selfalign_ray.errors import UserError
from selfalign_ray.hops.shots import read_examples
from selfalign_ray.validation.judge import Questions, check_judge, judged, shots_of

ROW = {"row_id": "r", "seed_id": "s", "instruction": "Write a function `one`.", "drop_reason": None}


class Scores:
    """An engine that finds a text as likely as a function of its prompt says."""

    model = "scores"

    def __init__(self, logprob):
        self.logprob, self.asked = logprob, []

    async def generate(self, prompt):
        self.asked.append(prompt)
        found = self.logprob(prompt)
        if isinstance(found, Exception):
            raise found
        text = Text(text=prompt.scored, finish_reason="stop", output_tokens=4, logprob=found)
        return Generation(texts=[text], prompt_tokens=9, cached_tokens=0)


@pytest.fixture
def cfg(run_config):
    return run_config("engine=standin", "validation.judge.enabled=true")


def run(cfg, engine, row, **changes):
    section = replace(cfg.validation.judge, **changes)
    questions = Questions(section, shots_of(cfg), cfg.run_seed)
    return asyncio.run(judged(row, engine=engine, questions=questions, cfg=section))


def row(codes, *, gates=None, verdicts=None, drop_reason=None):
    count = range(len(codes))
    return {
        **ROW,
        "samples": [{"sample_index": n, "code": codes[n]} for n in count],
        "verdicts": [
            {"sample_index": n, "verdict": (verdicts or {}).get(n, "passed")} for n in count
        ],
        "metrics": [{"sample_index": n, "gate": (gates or {}).get(n)} for n in count],
        "drop_reason": drop_reason,
    }


def likes(good):
    """Yes to prompts with the text `good`, no to the others."""

    def logprob(prompt):
        if prompt.scored not in (" Yes", " No"):
            return -8.0
        last = prompt.text.rpartition("### Task\n")[2]
        return math.log(0.9 if (good in last) == (prompt.scored == " Yes") else 0.1)

    return logprob


def test_a_sample_gets_the_probability_of_yes_and_its_instruction_s_likelihood(cfg):
    made = run(cfg, Scores(likes("return 1")), row(["def one():\n    return 1", "def one(): ..."]))
    first, second = made["judge"]
    assert first == {
        "sample_index": 0,
        "yes": pytest.approx(0.9),
        "instruction_logprob": -2.0,
        "gate": None,
    }
    assert second["yes"] == pytest.approx(0.1)
    assert made["drop_reason"] is None
    pa.array([made["judge"]], schemas.CHECKED.field("judge").type)


def test_the_question_shows_right_and_wrong_programs_and_ends_before_the_answer(cfg):
    engine = Scores(likes("x"))
    run(cfg, engine, row(["CODE"]))
    yes, no, guess = engine.asked
    assert yes.text == no.text
    assert (yes.scored, no.scored) == (" Yes", " No")
    assert yes.text.count("Answer: Yes\n") == yes.text.count("Answer: No\n") == 2
    assert yes.text.endswith("Answer:")
    assert ROW["instruction"] in yes.text
    assert "CODE" in yes.text
    assert "CODE" in guess.text
    assert ROW["instruction"] not in guess.text
    assert guess.scored == ROW["instruction"]
    examples = {e.instruction: e.solution for e in read_examples(None)}
    for part in yes.text.split("### Task\n")[1:-1]:
        instruction, rest = part.split("\n\n### Program\n", 1)
        assert (examples[instruction] in rest) == ("Answer: Yes" in rest)


def test_only_samples_that_passed_and_have_no_gate_are_asked_about(cfg):
    engine = Scores(likes("x"))
    codes = ["passed", "gated", "failed"]
    made = run(cfg, engine, row(codes, gates={1: "pep8"}, verdicts={2: "assertion"}))
    assert [j["sample_index"] for j in made["judge"]] == [0]
    dropped = run(cfg, engine, row(codes, drop_reason="trivial_tests"))
    assert dropped["judge"] == []
    assert dropped["drop_reason"] == "trivial_tests"
    assert len(engine.asked) == 3


@pytest.mark.parametrize(
    ("codes", "min_yes", "gates", "reason"),
    [
        (["good", "bad"], None, [None, None], None),
        (["good", "bad"], 0.5, [None, "judged_no"], None),
        (["bad", "bad"], 0.5, ["judged_no", "judged_no"], "judged_no"),
        (["bad"], 0.05, [None], None),
    ],
)
def test_a_gate_refuses_what_is_unlikely_and_a_row_without_any_other(
    cfg, codes, min_yes, gates, reason
):
    made = run(cfg, Scores(likes("good")), row(codes), min_yes=min_yes)
    assert [j["gate"] for j in made["judge"]] == gates
    assert made["drop_reason"] == reason


def test_what_the_engine_refuses_is_unknown_and_passes_no_gate(cfg):
    engine = Scores(lambda _: PromptTooLongError("too long"))
    made = run(cfg, engine, row(["code"]))
    assert made["judge"] == [
        {"sample_index": 0, "yes": None, "instruction_logprob": None, "gate": None}
    ]
    assert made["drop_reason"] is None
    assert run(cfg, engine, row(["code"]), min_yes=0.1)["drop_reason"] == "judged_no"


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("validation.judge.question='{{ nothing }}'", "validation.judge.question"),
        ("validation.judge.guess='{% if %}'", "validation.judge.guess"),
        ("validation.judge.shots=900", "validation.judge.shots"),
    ],
)
def test_a_wrong_template_or_number_is_found_before_any_work(run_config, override, key):
    cfg = run_config("engine=standin", "validation.judge.enabled=true", override)
    with pytest.raises(UserError, match=key):
        check_judge(cfg)


def test_the_shots_are_the_same_for_every_row_and_run(cfg):
    first, again = (Scores(likes("x")) for _ in range(2))
    run(cfg, first, row(["a"]))
    run(cfg, again, {**row(["a"]), "seed_id": "other"})
    assert first.asked[0].text == again.asked[0].text
