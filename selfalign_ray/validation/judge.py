"""Judge: what the model itself thinks of a passing sample, by likelihoods alone.

Two questions, each of which costs a prefill and draws nothing. Does this program do all that the
instruction asks: how likely is Yes, against No? And how likely is the instruction, given the
program: of a program that does something else it is less so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ray.data import Dataset

from selfalign_ray import schemas
from selfalign_ray.config import RunConfig
from selfalign_ray.engine.base import Engine, Prompt
from selfalign_ray.errors import UserError
from selfalign_ray.hops.generate import through_engines
from selfalign_ray.hops.scored import NO, YES, likelihoods, share, template, to_score
from selfalign_ray.hops.shots import Example, named, read_examples
from selfalign_ray.ids import keyed_random
from selfalign_ray.validation.config import JudgeConfig
from selfalign_ray.validation.gates import reason_of, ungated
from selfalign_ray.watch.tally import count

Row = dict[str, Any]


def judge(ds: Dataset, cfg: RunConfig) -> Dataset:
    """Adds `judge`, a value for each sample that passed and that no gate refused.

    Args:
        ds: `schemas.EXECUTED` or `schemas.CHECKED` rows.
        cfg: the section `validation.judge`, and the model and engine of the run.

    Returns:
        `schemas.CHECKED` rows, as many as came in, in any order. A sample whose `yes` is below
        `min_yes`, or unknown, has the gate judged_no; a row all of whose samples have a gate has
        it as drop_reason. What the engine refuses is null, and no other reason to drop a row.

    Raises:
        UserError: the engines cannot be had.
    """
    examples = shots_of(cfg)
    work = partial(_judging, cfg=cfg.validation.judge, examples=examples, run_seed=cfg.run_seed)
    return through_engines(ds, cfg, "judge", work, schemas.CHECKED)


def check_judge(cfg: RunConfig) -> None:
    """Compiles the templates and finds the examples.

    Raises:
        UserError: naming the key.
    """
    Questions(cfg.validation.judge, shots_of(cfg), cfg.run_seed)


def shots_of(cfg: RunConfig) -> list[Example]:
    """The worked examples that the question may show: those of the responses."""
    return named(read_examples(cfg.recipe.examples), cfg.recipe.hops["responses"].examples)


class Questions:
    """The prompts: two answers to one question, and an instruction to be guessed."""

    def __init__(self, cfg: JudgeConfig, examples: Sequence[Example], run_seed: int) -> None:
        """Compiles the templates and draws the shots, the same for every row.

        Raises:
            UserError: a template is wrong, or there are fewer examples than `shots`.
        """
        if len(examples) < max(cfg.shots, 2):
            raise UserError(
                f"validation.judge.shots: {cfg.shots} asked for, but there are {len(examples)} "
                "examples, and a wrong program is another example's, so two at the least"
            )
        fields = ["instruction", "code"]
        self._question = template("validation.judge.question", cfg.question, fields)
        self._guess = template("validation.judge.guess", cfg.guess, fields)
        self._shots = "".join(map(self._shot, _drawn(examples, cfg.shots, run_seed)))

    def prompts(self, row: Mapping[str, Any], sample: Mapping[str, Any]) -> list[Prompt]:
        """What is to be scored of a sample: Yes, No, the instruction."""
        fields = {"instruction": row["instruction"], "code": sample["code"]}
        asked = self._shots + self._question.render(**fields)
        guessed = self._guess.render(**fields)
        texts = [(asked, YES), (asked, NO), (guessed, str(row["instruction"]))]
        return [to_score(text, scored, stage="judge") for text, scored in texts]

    def _shot(self, pair: tuple[Example, Example]) -> str:
        """A worked example: an instruction with its own program, or with another's."""
        asked, shown = pair
        fields = {"instruction": asked.instruction, "code": shown.solution}
        answer = YES if asked is shown else NO
        return f"{self._question.render(**fields)}{answer}\n\n"


def _drawn(
    examples: Sequence[Example], shots: int, run_seed: int
) -> Iterator[tuple[Example, Example]]:
    """Pairs of an instruction's and a program's example; in turn the same one and two."""
    rng = keyed_random(run_seed, "judge")
    asked = rng.sample(list(examples), k=shots)
    for number, example in enumerate(asked):
        other = rng.choice([e for e in examples if e is not example])
        yield example, example if number % 2 == 0 else other


def _judging(
    engine: Engine, *, cfg: JudgeConfig, examples: Sequence[Example], run_seed: int
) -> Callable[[Row], Awaitable[Row]]:
    questions = Questions(cfg, examples, run_seed)
    return partial(judged, engine=engine, questions=questions, cfg=cfg)


async def judged(row: Row, *, engine: Engine, questions: Questions, cfg: JudgeConfig) -> Row:
    """One row with its judgements, and its drop_reason where no sample is left.

    Raises:
        EngineDiedError: no engine is left.
    """
    samples = [sample for sample, _ in ungated(row)]
    found = await asyncio.gather(
        *(_judgement(sample, questions.prompts(row, sample), engine) for sample in samples)
    )
    for judgement in found:
        too_low = cfg.min_yes is not None and (judgement["yes"] or 0.0) < cfg.min_yes
        judgement["gate"] = "judged_no" if too_low else None
    row = {**row, "judge": list(found)}
    reason = reason_of(row, "judge", ["judged_no"])
    count("judge", rows=1, samples=len(found))
    return {**row, "drop_reason": reason}


async def _judgement(sample: Row, prompts: Sequence[Prompt], engine: Engine) -> Row:
    """One value of `schemas.JUDGEMENT`, without its gate."""
    yes, no, instruction = await likelihoods(prompts, engine)
    judgement: Row = dict.fromkeys(schemas.JUDGEMENT.names)
    judgement["sample_index"] = sample["sample_index"]
    judgement["yes"] = share(yes, no)
    if instruction is not None and instruction.logprob is not None and instruction.output_tokens:
        judgement["instruction_logprob"] = instruction.logprob / instruction.output_tokens
    return judgement
