"""How each kind of stage is made that stands in the table of pipeline.py."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

from selfalign_ray import schemas
from selfalign_ray.config import RunConfig
from selfalign_ray.decontamination.benchmarks import states_of_benchmarks
from selfalign_ray.decontamination.decontamination import benchmarks_said
from selfalign_ray.hops.generate import commits_of_model, generate, generate_again, pool_of
from selfalign_ray.hops.shots import read_examples
from selfalign_ray.inputs import states_of_folders
from selfalign_ray.seeds.docstring_judge import docstring_judge
from selfalign_ray.stage import Inputs, Stage, no_inputs
from selfalign_ray.validation.execution import execution
from selfalign_ray.validation.judge import judge, shots_of


def plain_stage(
    name: str,
    run: Any,
    gives: Any,
    needs: tuple[str, ...],
    decides: Any,
    *,
    whole: bool = False,
    saves: bool | None = None,
    **more: Any,
) -> Stage:
    """A row of the table; what is `whole` saves its rows, if it is not told otherwise."""
    return Stage(
        name=name,
        run=run,
        gives=gives,
        needs=needs,
        decides=decides,
        saves=whole if saves is None else saves,
        whole=whole,
        **more,
    )


def decontamination_stage(
    name: str, run: Any, gives: Any, needs: tuple[str, ...], *, saves: bool = False
) -> Stage:
    """A search for benchmarks; what they hold decides its rows, and its manifest says which."""
    return plain_stage(
        name,
        run,
        gives,
        needs,
        lambda c: c.decontamination,
        inputs=lambda c: states_of_benchmarks(c.decontamination),
        says=benchmarks_said,
        saves=saves,
    )


def selection_stages(
    cfg: RunConfig,
    name: str,
    run: Any,
    needs: tuple[str, ...],
    inputs: Callable[[RunConfig], Inputs] = no_inputs,
) -> list[Stage]:
    """A stage of selection that is there where its section is enabled: it would copy every row."""
    if not getattr(cfg.selection, name).enabled:
        return []

    def decides(cfg: RunConfig) -> Any:
        return getattr(cfg.selection, name)

    return [plain_stage(name, run, schemas.SELECTED, needs, decides, inputs=inputs, whole=True)]


def hop_stage(name: str, needs: tuple[str, ...], *, saves: bool = False) -> Stage:
    """A hop of the recipe."""
    return _asking(
        name,
        partial(generate, hops=[name]),
        schemas.HOPS,
        needs,
        lambda cfg: _decides_hop(cfg, name),
        saves=saves,
    )


def _asking(
    name: str, run: Any, gives: Any, needs: tuple[str, ...], decides: Any, *, saves: bool
) -> Stage:
    """A stage that asks engines."""

    def weights(cfg: RunConfig) -> Inputs:
        _, model, _ = pool_of(cfg, name)
        return states_of_folders([model.id, model.lora]) | commits_of_model(cfg, name)

    return plain_stage(name, run, gives, needs, decides, inputs=weights, hop=name, saves=saves)


def _decides_hop(cfg: RunConfig, name: str) -> Any:
    recipe = cfg.recipe
    shown = repr(read_examples(recipe.examples)).encode()
    _, model, engine = pool_of(cfg, name)
    return [
        [recipe.kinds, recipe.difficulties, recipe.max_instruction_words, recipe.concepts_form],
        recipe.tests_heading if name == "responses" else None,
        hashlib.sha256(shown).hexdigest(),
        recipe.hops[name],
        model,
        engine,
    ]


def execution_stage(name: str) -> Stage:
    """Samples run in the sandbox."""
    needs = ("instruction", "samples")
    return plain_stage(
        name,
        partial(execution, stage=name),
        schemas.JUDGED,
        needs,
        lambda c: [c.sandbox, c.validation.execution],
    )


def judge_stage() -> Stage:
    """The model's own word on passing samples."""

    def decides(cfg: RunConfig) -> Any:
        shown = hashlib.sha256(repr(shots_of(cfg)).encode()).hexdigest()
        return [cfg.validation.judge, shown, *pool_of(cfg, "judge")[1:]]

    needs = ("instruction", "samples", "verdicts", "metrics")
    return _asking("judge", judge, schemas.CHECKED, needs, decides, saves=True)


def docstring_judge_stage() -> Stage:
    """The model's own word on seeds."""

    def decides(cfg: RunConfig) -> Any:
        return [cfg.seeds.docstring_judge, *pool_of(cfg, "docstring_judge")[1:]]

    return _asking("docstring_judge", docstring_judge, schemas.SEED, ("seed",), decides, saves=True)


def round_stages(number: int) -> list[Stage]:
    """More responses for the rows without a passing one, and their execution."""
    return [
        dataclasses.replace(
            hop_stage("responses", ("instruction", "samples", "verdicts")),
            name=f"responses_{number}",
            run=partial(generate_again, round_number=number),
            gives=schemas.JUDGED,
            decides=lambda c: [_decides_hop(c, "responses"), c.generation.again],
        ),
        execution_stage(f"execution_{number}"),
    ]
