"""docstring_judge: seeds whose docstring would do to write the function anew, as the model sees it.

The model is asked Yes or No after worked examples of both, and nothing is drawn: how likely is the
one answer against the other?
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from ray.data import Dataset

from selfalign_ray import schemas
from selfalign_ray.config import RunConfig
from selfalign_ray.engine.base import Engine
from selfalign_ray.hops.generate import through_engines
from selfalign_ray.hops.scored import NO, YES, likelihoods, share, template, to_score
from selfalign_ray.seeds.config import DocstringJudgeConfig
from selfalign_ray.watch.tally import count

Row = dict[str, Any]

NAME = "docstring_judge"


def docstring_judge(ds: Dataset, cfg: RunConfig) -> Dataset:
    """Adds `docstring_yes`, the probability that the docstring suffices.

    Args:
        ds: `schemas.SEED` rows.
        cfg: the section `seeds.docstring_judge`, and the model and engine of the run.

    Returns:
        The same rows, in any order. Drop reasons, where `more_than` is a number:
        docstring_insufficient, and docstring_not_judged where the engine refuses the question.

    Raises:
        UserError: the engines cannot be had.
    """
    work = partial(_judging, cfg=cfg.seeds.docstring_judge)
    return through_engines(ds, cfg, NAME, work, schemas.SEED)


def check_docstring_judge(cfg: RunConfig) -> None:
    """Compiles the question.

    Raises:
        UserError: naming the key.
    """
    Question(cfg.seeds.docstring_judge)


class Question:
    """What is asked of a seed, below the worked examples."""

    def __init__(self, cfg: DocstringJudgeConfig) -> None:
        """Compiles the template.

        Raises:
            UserError: it is wrong.
        """
        self._template = template(f"seeds.{NAME}.question", cfg.question, ["code"])
        self._shots = "".join(
            f"{self._of(example.code)}{YES if example.suffices else NO}\n\n"
            for example in cfg.examples
        )

    def about(self, seed: str) -> str:
        """The whole prompt, up to the answer."""
        return self._shots + self._of(seed)

    def _of(self, code: str) -> str:
        return self._template.render(code=code.strip("\n"))


def _judging(engine: Engine, *, cfg: DocstringJudgeConfig) -> Callable[[Row], Awaitable[Row]]:
    question = Question(cfg)
    return partial(judged, engine=engine, question=question, more_than=cfg.more_than)


async def judged(row: Row, *, engine: Engine, question: Question, more_than: float | None) -> Row:
    """One seed with its probability, and its drop_reason; one dropped before passes through.

    Raises:
        EngineDiedError: no engine is left.
    """
    if row["drop_reason"] is None:
        asked = partial(to_score, question.about(row["seed"]), stage=NAME)
        yes = share(*await likelihoods([asked(YES), asked(NO)], engine))
        row = {**row, "docstring_yes": yes, "drop_reason": reason_of(yes, more_than)}
    count(NAME, rows=1)
    return row


def reason_of(yes: float | None, more_than: float | None) -> str | None:
    """Why a seed goes, by the probability of Yes; None while it stays."""
    if more_than is None:
        return None
    if yes is None:
        return "docstring_not_judged"
    return None if yes > more_than else "docstring_insufficient"
