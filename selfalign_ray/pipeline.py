"""Self-align, top to bottom: read `stages` and you have read the pipeline."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from selfalign_ray import schemas
from selfalign_ray.config import RunConfig
from selfalign_ray.decontamination.benchmarks import states_of_benchmarks
from selfalign_ray.decontamination.decontamination import (
    benchmarks_said,
    decontamination,
    final_decontamination,
)
from selfalign_ray.errors import UserError
from selfalign_ray.hops.generate import generate, generate_again, pool_of
from selfalign_ray.hops.shots import read_examples
from selfalign_ray.inputs import states_of_folders, states_of_tables
from selfalign_ray.seeds.docstring_judge import docstring_judge
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
from selfalign_ray.stage import Inputs, Stage, fingerprint_of, no_inputs
from selfalign_ray.validation.cross_execution import cross_execution
from selfalign_ray.validation.execution import execution
from selfalign_ray.validation.judge import judge, shots_of
from selfalign_ray.validation.metrics import metrics
from selfalign_ray.validation.strength import strength

_OF_FILES = ("read", "functions")  # rows made elsewhere are none


def stages(cfg: RunConfig) -> list[Stage]:
    """Every stage in order; each gets the rows that the last saved one above it kept."""
    return [
        # Seeds: open-source files -> good functions. CPU only.
        _stage(
            "read",
            read,
            schemas.FILE,
            (),
            lambda c: [c.source, c.seeds.read],
            inputs=states_of_tables,
        ),
        _stage(
            "functions",
            functions,
            schemas.SEED,
            ("content",),
            lambda c: [c.seeds.functions, c.seeds.quality],  # whose rules it drops by
        ),
        _stage(
            "quality",
            quality,
            schemas.SEED,
            ("seed", "name"),
            lambda c: c.seeds.quality,
            saves=True,
        ),
        _stage(
            "typecheck",
            typecheck,
            schemas.SEED,
            ("seed",),
            lambda c: c.seeds.typecheck,
            saves=cfg.seeds.typecheck.enabled,
        ),
        _stage("unique", unique, schemas.SEED, ("seed",), lambda c: c.seeds.unique, whole=True),
        _stage(
            "near_duplicates",
            near_duplicates,
            schemas.SEED,
            ("seed",),
            lambda c: c.seeds.near_duplicates,
            whole=True,
        ),
        _decontamination("decontamination", decontamination, schemas.SEED, ("seed",), saves=True),
        _stage("sample", sample, schemas.SEED, ("seed",), lambda c: c.seeds.sample, whole=True),
        *([_docstring_judge()] if cfg.seeds.docstring_judge.enabled else []),
        # Hops of one model: seed -> concepts -> instruction [-> tests] -> n responses.
        _hop("concepts", ("seed",)),
        _hop("instruction", ("concepts",)),
        *([_hop("tests", ("instruction",))] if "tests" in cfg.recipe.hops else []),
        _hop("responses", ("instruction",), saves=True),
        # Validation: every response runs in a sandbox, what passes is measured. CPU only, but for
        # further rounds of responses where none has passed.
        _execution("execution"),
        *(s for n in range(2, cfg.generation.rounds + 1) for s in _round(n)),
        _stage(
            "metrics",
            metrics,
            schemas.EXECUTED,
            ("instruction", "samples", "verdicts"),
            lambda c: c.validation.metrics,
            saves=True,
        ),
        *_checks(cfg),
        # Selection: one good response an instruction, nothing of a benchmark, nothing twice.
        _stage(
            "sanitise",
            sanitise,
            schemas.SELECTED,
            ("instruction", "samples", "verdicts", "metrics"),
            lambda c: [c.selection.sanitise, c.recipe],
        ),
        _stage(
            "choose",
            choose,
            schemas.SELECTED,
            ("samples", "verdicts", "metrics", "sanitised"),
            lambda c: c.selection.choose,
            whole=True,
            saves=False,
        ),
        _decontamination(
            "final_decontamination",
            final_decontamination,
            schemas.SELECTED,
            ("final_instruction", "response", "code"),
        ),
        _stage(
            "duplicates",
            duplicates,
            schemas.SELECTED,
            ("instruction", "code"),
            lambda c: c.selection.duplicates,
            whole=True,
        ),
        *_optional(cfg, "novelty", novelty, ("instruction",)),
        *_optional(
            cfg,
            "diversity",
            diversity,
            ("instruction",),
            lambda c: states_of_folders([c.selection.diversity.model]),
        ),
        *_optional(cfg, "balance", balance, needed(cfg.selection.balance)),
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


def _stage(
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


def _decontamination(
    name: str, run: Any, gives: Any, needs: tuple[str, ...], *, saves: bool = False
) -> Stage:
    return _stage(
        name,
        run,
        gives,
        needs,
        lambda c: c.decontamination,
        inputs=lambda c: states_of_benchmarks(c.decontamination),
        says=benchmarks_said,
        saves=saves,
    )


def _optional(
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

    return [_stage(name, run, schemas.SELECTED, needs, decides, inputs=inputs, whole=True)]


def _hop(name: str, needs: tuple[str, ...], *, saves: bool = False) -> Stage:
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
        return states_of_folders([model.id, model.lora])

    return _stage(name, run, gives, needs, decides, inputs=weights, hop=name, saves=saves)


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


def _execution(name: str) -> Stage:
    needs = ("instruction", "samples")
    return _stage(
        name, execution, schemas.JUDGED, needs, lambda c: [c.sandbox, c.validation.execution]
    )


def _judge() -> Stage:
    def decides(cfg: RunConfig) -> Any:
        shown = hashlib.sha256(repr(shots_of(cfg)).encode()).hexdigest()
        return [cfg.validation.judge, shown, *pool_of(cfg, "judge")[1:]]

    needs = ("instruction", "samples", "verdicts", "metrics")
    return _asking("judge", judge, schemas.CHECKED, needs, decides, saves=True)


def _docstring_judge() -> Stage:
    def decides(cfg: RunConfig) -> Any:
        return [cfg.seeds.docstring_judge, *pool_of(cfg, "docstring_judge")[1:]]

    return _asking("docstring_judge", docstring_judge, schemas.SEED, ("seed",), decides, saves=True)


def _checks(cfg: RunConfig) -> list[Stage]:
    """Stages that look at passing samples again, the cheapest first."""
    needs = ("instruction", "samples", "verdicts", "metrics")
    table = [
        (
            _stage(
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
            _stage(
                "cross_execution",
                cross_execution,
                schemas.CHECKED,
                needs[:3],
                lambda c: [c.sandbox, c.validation.cross_execution],
                saves=True,
            ),
            cfg.validation.cross_execution.enabled,
        ),
        (_judge(), cfg.validation.judge.enabled),
    ]
    return [stage for stage, enabled in table if enabled]


def _round(number: int) -> list[Stage]:
    """More responses for the rows without a passing one, and their execution."""
    return [
        dataclasses.replace(
            _hop("responses", ("instruction", "samples", "verdicts")),
            name=f"responses_{number}",
            run=partial(generate_again, round_number=number),
            gives=schemas.JUDGED,
            decides=lambda c: [_decides_hop(c, "responses"), c.generation.again],
        ),
        _execution(f"execution_{number}"),
    ]
