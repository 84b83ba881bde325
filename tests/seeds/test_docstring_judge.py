"""seeds/docstring_judge.py: what is asked of a seed, and which seeds go."""

from __future__ import annotations

import ast
import asyncio
import math
from dataclasses import replace

import pytest

from selfalign_ray import pipeline, schemas
from selfalign_ray.engine.base import Generation, PromptTooLongError, Text
from selfalign_ray.errors import UserError
from selfalign_ray.report.report import report
from selfalign_ray.run import run_stages
from selfalign_ray.seeds import docstring_judge
from selfalign_ray.seeds.docstring_judge import (
    Question,
    check_docstring_judge,
    judged,
    reason_of,
)
from selfalign_ray.stage import Saved
from selfalign_ray.watch.display import Display
from selfalign_ray.watch.tally import start_tally, stop_tally

ON = ("engine=standin", "seeds.docstring_judge.enabled=true")
SEED = {
    "seed_id": "s",
    "seed": 'def f(x: int) -> int:\n    """Double x."""\n    return 2 * x\n',
    "drop_reason": None,
}


class Scores:
    """An engine that finds Yes as likely as told, and No as likely as the rest."""

    model = "scores"

    def __init__(self, yes):
        self.yes, self.asked = yes, []

    async def generate(self, prompt):
        self.asked.append(prompt)
        if isinstance(self.yes, Exception):
            raise self.yes
        chance = self.yes if prompt.scored == " Yes" else 1 - self.yes
        text = Text(
            text=prompt.scored, finish_reason="stop", output_tokens=1, logprob=math.log(chance)
        )
        return Generation(texts=[text], prompt_tokens=9, cached_tokens=0)


def run(cfg, engine, row=SEED, **changes):
    section = replace(cfg.seeds.docstring_judge, **changes)
    return asyncio.run(
        judged(
            row,
            engine=engine,
            question=Question(section),
            more_than=section.more_than,
        )
    )


def test_a_seed_gets_the_probability_of_yes(run_config):
    made = run(run_config(*ON), Scores(0.9))
    assert made["docstring_yes"] == pytest.approx(0.9)
    assert made["drop_reason"] is None


@pytest.mark.parametrize(
    ("yes", "more_than", "reason"),
    [
        (0.51, 0.5, None),
        (0.5, 0.5, "docstring_insufficient"),  # a tie is a No
        (0.49, 0.5, "docstring_insufficient"),
        (None, 0.5, "docstring_not_judged"),
        (0.01, None, None),
        (None, None, None),
    ],
)
def test_what_goes(yes, more_than, reason):
    assert reason_of(yes, more_than) == reason


def test_a_refused_question_is_no_answer(run_config):
    cfg, engine = run_config(*ON), Scores(PromptTooLongError("too long"))
    made = run(cfg, engine)
    assert (made["docstring_yes"], made["drop_reason"]) == (None, "docstring_not_judged")
    assert run(cfg, engine, more_than=None)["drop_reason"] is None


def test_what_was_dropped_before_is_not_asked_about(run_config):
    engine = Scores(0.9)
    row = SEED | {"drop_reason": "not_sampled"}
    assert run(run_config(*ON), engine, row) == row
    assert engine.asked == []


def test_a_row_is_counted_once_it_has_been_judged(run_config, monkeypatch):
    engine, counted = Scores(0.9), []
    monkeypatch.setattr(
        docstring_judge, "count", lambda *_, rows: counted.append((rows, len(engine.asked)))
    )
    run(run_config(*ON), engine)
    run(run_config(*ON), engine, SEED | {"drop_reason": "not_sampled"})
    assert counted == [(1, 2), (1, 2)]


def test_the_question_shows_answers_of_both_kinds_and_ends_before_its_own(run_config):
    engine = Scores(0.9)
    run(run_config(*ON), engine)
    yes, no = engine.asked
    assert yes.text == no.text
    assert (yes.scored, no.scored) == (" Yes", " No")
    assert yes.text.count("Answer: Yes\n\n") == yes.text.count("Answer: No\n\n") == 4
    shots, _, asked = yes.text.rpartition("### Function\n")
    assert "Double x" in asked
    assert "Double x" not in shots
    assert asked.endswith("\nAnswer:")
    answers = [part.split()[0] for part in yes.text.split("Answer:")[1:-1]]
    assert answers not in (["Yes", "No"] * 4, ["No", "Yes"] * 4), "a pattern to follow instead"


def test_the_examples_are_functions_that_the_rules_would_keep(run_config):
    cfg = run_config(*ON)
    for example in cfg.seeds.docstring_judge.examples:
        (function,) = ast.parse(example.code).body
        assert ast.get_docstring(function)
        assert function.returns is not None


def test_a_wrong_question_and_one_sided_examples_are_found_before_any_work(run_config):
    wrong = run_config(*ON, "seeds.docstring_judge.question='{{ name }}'")
    with pytest.raises(UserError, match=r"seeds\.docstring_judge\.question: "):
        check_docstring_judge(wrong)
    one_sided = "seeds.docstring_judge.examples=[{code: x, suffices: true}]"
    with pytest.raises(UserError, match=r"seeds\.docstring_judge\.examples: .*both kinds"):
        run_config(*ON, one_sided)


def test_it_is_there_by_choice_and_seeds_end_before_it(run_config):
    names = [stage.name for stage in pipeline.selected(run_config())]
    assert "docstring_judge" not in names
    names = [stage.name for stage in pipeline.selected(run_config(*ON))]
    assert names.index("docstring_judge") == names.index("sample") + 1
    assert names[names.index("docstring_judge") + 1] == "concepts"
    seeds = pipeline.selected(run_config(*ON, "stages.until=seeds"))
    assert not any(stage.hop for stage in seeds)
    paper = pipeline.selected(run_config("experiment=starcoder2_15b"))
    assert "docstring_judge" in [stage.name for stage in paper]


def test_its_settings_and_model_decide_its_rows(run_config):
    def printed(*overrides):
        cfg = run_config(*ON, *overrides)
        return pipeline.fingerprints(pipeline.selected(cfg), cfg)

    before = printed()
    for override in ("seeds.docstring_judge.more_than=0.6", "model.id=other"):
        after = printed(override)
        assert after["docstring_judge"] != before["docstring_judge"]
        assert after["sample"] == before["sample"]


@pytest.mark.ray
def test_a_run_with_it_counts_and_tells_what_went(ray_local, run_config, tmp_path):
    folder = tmp_path / "code"
    folder.mkdir()
    for n, word in enumerate(["circle", "ring", "disc", "wheel", "coin", "plate"]):
        (folder / f"{word}.py").write_text(
            f"def {word}(radius: float, factor: float) -> float:\n"
            f'    """Return the area of a {word} of this radius, scaled.\n\n'
            f'    The factor may be negative.\n    """\n'
            f"    {word}_{n} = radius * factor + {n}\n    return {word}_{n} ** 2\n"
        )
    cfg = run_config(
        *ON,
        "source=folder",
        f"source.path='{folder}'",
        "source.license=MIT",
        *("seeds.near_duplicates.enabled=false", "seeds.typecheck.enabled=false"),
        "stages.until=docstring_judge",
    )
    names = [stage.name for stage in pipeline.selected(cfg)]
    start_tally()
    try:
        with Display(names, 10) as display:
            assert run_stages(cfg, display).name == "docstring_judge"
    finally:
        stop_tally()
    saved = Saved(tmp_path / "run", "docstring_judge")
    manifest = saved.manifest()
    rows = manifest["rows"]
    assert set(rows) == {"kept", "docstring_insufficient"}, "the stand-in's answers differ"
    assert sum(rows.values()) == 6
    assert manifest["figures"]["docstring_judge"]["prompts"] == 12
    for row in saved.kept().take_all():
        assert row["docstring_yes"] > 0.5
    assert "docstring_yes" in schemas.HOPS.names
    report(cfg, tmp_path / "run", None)
    text = (tmp_path / "run" / "pipeline_report.md").read_text()
    assert "docstring_insufficient" in text
    assert "| docstring_judge | 12 |" in text
    kept = (tmp_path / "run" / "filtered_functions.jsonl").read_text().splitlines()
    assert len(kept) == rows["kept"]
