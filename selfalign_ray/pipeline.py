"""Self-align, top to bottom: read `stages` and you have read the pipeline."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from selfalign_ray import schemas
from selfalign_ray.config import RunConfig
from selfalign_ray.decontamination.decontamination import decontamination, final_decontamination
from selfalign_ray.errors import UserError
from selfalign_ray.inputs import states_of_folders, states_of_tables
from selfalign_ray.kinds import (
    decontamination_stage,
    docstring_judge_stage,
    execution_stage,
    hop_stage,
    judge_stage,
    plain_stage,
    round_stages,
    selection_stages,
)
from selfalign_ray.seeds.functions import functions
from selfalign_ray.seeds.near_duplicates import near_duplicates
from selfalign_ray.seeds.quality import quality
from selfalign_ray.seeds.read import read
from selfalign_ray.seeds.sample import sample
from selfalign_ray.seeds.typecheck import typecheck
from selfalign_ray.seeds.unique import unique
from selfalign_ray.selection.balance import balance, needed
from selfalign_ray.selection.choose import choose
from selfalign_ray.selection.diversity import diversity
from selfalign_ray.selection.duplicates import duplicates
from selfalign_ray.selection.novelty import novelty
from selfalign_ray.selection.sanitise import sanitise
from selfalign_ray.settings import deciding
from selfalign_ray.stage import Stage, fingerprint_of
from selfalign_ray.validation.cross_execution import cross_execution
from selfalign_ray.validation.metrics import metrics
from selfalign_ray.validation.strength import strength

_OF_FILES = ("read", "functions")  # rows made elsewhere are none


def stages(cfg: RunConfig) -> list[Stage]:
    """Every stage in order; each gets the rows that the last saved one above it kept."""
    return [
        # Seeds: open-source files -> good functions. CPU only.
        plain_stage(
            "read",
            read,
            schemas.FILE,
            (),
            lambda c: [c.source, c.seeds.read],
            inputs=states_of_tables,
        ),
        plain_stage(
            "functions",
            functions,
            schemas.SEED,
            ("content",),
            lambda c: [c.seeds.functions, c.seeds.quality],  # whose rules it drops by
        ),
        plain_stage(
            "quality",
            quality,
            schemas.SEED,
            ("seed", "name"),
            lambda c: c.seeds.quality,
            saves=True,
        ),
        plain_stage(
            "typecheck",
            typecheck,
            schemas.SEED,
            ("seed",),
            lambda c: c.seeds.typecheck,
            saves=cfg.seeds.typecheck.enabled,
        ),
        plain_stage(
            "unique", unique, schemas.SEED, ("seed",), lambda c: c.seeds.unique, whole=True
        ),
        plain_stage(
            "near_duplicates",
            near_duplicates,
            schemas.SEED,
            ("seed",),
            lambda c: c.seeds.near_duplicates,
            whole=True,
        ),
        decontamination_stage(
            "decontamination", decontamination, schemas.SEED, ("seed",), saves=True
        ),
        plain_stage(
            "sample", sample, schemas.SEED, ("seed",), lambda c: c.seeds.sample, whole=True
        ),
        *([docstring_judge_stage()] if cfg.seeds.docstring_judge.enabled else []),
        # Hops of one model: seed -> concepts -> instruction [-> tests] -> n responses.
        hop_stage("concepts", ("seed",)),
        hop_stage("instruction", ("concepts",)),
        *([hop_stage("tests", ("instruction",))] if "tests" in cfg.recipe.hops else []),
        hop_stage("responses", ("instruction",), saves=True),
        # Validation: every response runs in a sandbox, what passes is measured. CPU only, but for
        # further rounds of responses where none has passed.
        execution_stage("execution"),
        *(s for n in range(2, cfg.generation.rounds + 1) for s in round_stages(n)),
        plain_stage(
            "metrics",
            metrics,
            schemas.EXECUTED,
            ("instruction", "samples", "verdicts"),
            lambda c: c.validation.metrics,
            saves=True,
        ),
        *_checks(cfg),
        # Selection: one good response an instruction, nothing of a benchmark, nothing twice.
        plain_stage(
            "sanitise",
            sanitise,
            schemas.SELECTED,
            ("instruction", "samples", "verdicts", "metrics"),
            lambda c: [c.selection.sanitise, c.recipe],
        ),
        plain_stage(
            "choose",
            choose,
            schemas.SELECTED,
            ("samples", "verdicts", "metrics", "sanitised"),
            lambda c: c.selection.choose,
            whole=True,
            saves=False,
        ),
        decontamination_stage(
            "final_decontamination",
            final_decontamination,
            schemas.SELECTED,
            ("final_instruction", "response", "code"),
        ),
        plain_stage(
            "duplicates",
            duplicates,
            schemas.SELECTED,
            ("instruction", "code"),
            lambda c: c.selection.duplicates,
            whole=True,
        ),
        *selection_stages(cfg, "novelty", novelty, ("instruction",)),
        *selection_stages(
            cfg,
            "diversity",
            diversity,
            ("instruction",),
            lambda c: states_of_folders([c.selection.diversity.model]),
        ),
        *selection_stages(cfg, "balance", balance, needed(cfg.selection.balance)),
    ]


def fingerprints(table: Sequence[Stage], cfg: RunConfig) -> dict[str, str]:
    """For each stage, a hash of the settings that decide its rows and those of all above it."""
    settings: list[Any] = [cfg.run_seed, deciding(cfg.start)]
    prints = {}
    for stage in table:
        settings.append([stage.name, deciding(stage.decides(cfg))])
        prints[stage.name] = fingerprint_of(settings)
    return prints


def selected(cfg: RunConfig) -> list[Stage]:
    """The stages from `start.stage` to `stages.until`; the last of them saves.

    Raises:
        UserError: there is no such stage, or the two keys do not fit each other.
    """
    table = stages(cfg)
    names = [stage.name for stage in table]
    first = _index(names, cfg.start.stage, "start.stage") if cfg.start.stage else 0
    last = _index(names, cfg.stages.until, "stages.until") if cfg.stages.until else len(names) - 1
    if last < first:
        raise UserError(
            f"stages.until: {cfg.stages.until} comes before start.stage, {cfg.start.stage}"
        )
    if bool(cfg.start.stage) != bool(cfg.start.rows):
        raise UserError("start: give both start.stage and start.rows, or neither")
    if cfg.start.stage in _OF_FILES:
        later = [name for name in names if name not in _OF_FILES]
        raise UserError(
            f"start.stage: {cfg.start.stage} takes the files of a source, not rows; use "
            f"source=folder, or start at one of {', '.join(later)}"
        )
    *others, end = table[first : last + 1]
    return [*others, dataclasses.replace(end, saves=True)]


def _index(names: list[str], name: str, key: str) -> int:
    ends = {
        "seeds": "sample",  # the last without a model
        "hops": "responses",
        "validation": names[names.index("sanitise") - 1],
        "selection": names[-1],
    }
    name = ends.get(name, name)
    if name not in names:
        raise UserError(f"{key}: no stage {name!r}; the stages are {', '.join(names)}")
    return names.index(name)


def _checks(cfg: RunConfig) -> list[Stage]:
    """Stages that look at passing samples again, the cheapest first."""
    needs = ("instruction", "samples", "verdicts", "metrics")
    table = [
        (
            plain_stage(
                "strength",
                strength,
                schemas.CHECKED,
                needs,
                lambda c: [c.sandbox, c.validation.strength],
                saves=True,
            ),
            cfg.validation.strength.enabled,
        ),
        (
            plain_stage(
                "cross_execution",
                cross_execution,
                schemas.CHECKED,
                needs[:3],
                lambda c: [c.sandbox, c.validation.cross_execution],
                saves=True,
            ),
            cfg.validation.cross_execution.enabled,
        ),
        (judge_stage(), cfg.validation.judge.enabled),
    ]
    return [stage for stage, enabled in table if enabled]
