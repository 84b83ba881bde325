"""What a long run would take, projected from a small slice that ran.

Two shares are measured on the slice: seeds of the files read, and accepted rows of the seeds that
went through the hops. All else is proportional to files or seeds, but for the start of each stage,
in which engines load, and which comes once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfalign_ray.config import RunConfig
from selfalign_ray.report.figures import SANDBOXED, Figures, sandbox_amount
from selfalign_ray.report.funnel import Funnel
from selfalign_ray.report.hops import has_hops
from selfalign_ray.report.saved import SavedStage

FOLDER = "plan"  # of the slice, in the run_dir
CONFIDENCE = 0.9
_Z = 1.6448536269514722  # the normal distribution has CONFIDENCE within so many deviations
_LAST_OF_SEEDS = "sample"  # what comes after it is proportional to seeds, not to files


@dataclass(frozen=True, kw_only=True)
class Part:
    """One saved stage of the slice."""

    stages: tuple[str, ...]
    seconds: float
    work_seconds: float | None  # less its start; None: over too soon to tell
    by_files: bool  # whether its work grows with files; else with seeds

    @property
    def start_seconds(self) -> float:
        return self.seconds - (self.work_seconds or 0.0)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the slice showed."""

    files: int  # read
    good_seeds: int  # found in them
    seeds: int  # of them, that went through the hops
    accepted: int
    parts: Sequence[Part]
    engine_seconds: tuple[float, float]  # held: until the first row, and from it on
    gpu_seconds: tuple[float, float]  # likewise
    load_seconds: float  # of models, summed over engines
    prompt_tokens: int
    output_tokens: Mapping[str, int]  # by hop
    sandbox_cpu_seconds: float
    rows_in_flight_mean: float | None


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """What a number of seeds takes."""

    seeds: int  # through the hops
    files: int
    stage_seconds: Sequence[float]  # of each part, its start included
    engine_hours: float
    gpu_hours: float
    prompt_tokens: float
    output_tokens: float
    sandbox_cpu_hours: float

    @property
    def seconds(self) -> float:
        return sum(self.stage_seconds)


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Amounts for a number of accepted rows; the ends are those of the share's interval."""

    rows: int
    share: float  # accepted rows for a seed
    share_low: float
    share_high: float
    least: Amounts
    likely: Amounts | None  # None where the slice accepted nothing: only the least is known
    most: Amounts | None

    @property
    def bottleneck(self) -> int:
        """Which part takes the longest."""
        seconds = (self.likely or self.least).stage_seconds
        return max(range(len(seconds)), key=seconds.__getitem__)


def slice_of(cfg: RunConfig) -> RunConfig:
    """The same run on few seeds, in a folder of its own below the run's."""
    files = min(cfg.plan.files, cfg.source.limit or cfg.plan.files)
    limited = dataclasses.replace(cfg.seeds.sample, limit=cfg.plan.seeds)
    return dataclasses.replace(
        cfg,
        name=f"{cfg.name}/{FOLDER}",
        run_dir=str(Path(cfg.run_dir) / FOLDER),
        source=dataclasses.replace(cfg.source, limit=files),
        seeds=dataclasses.replace(cfg.seeds, sample=limited),
        report=dataclasses.replace(cfg.report, dataset_dir=None),
    )


def measure(
    stages: Sequence[SavedStage], funnel: Funnel, figures: Figures, *, sandboxes: int
) -> Measured:
    """What a slice says that ran from its source to its last stage.

    Args:
        stages: the saved ones.
        funnel: their counts.
        figures: their rates.
        sandboxes: actors of them that a long run has.
    """
    names = [stage.name for stage in stages]
    last_of_seeds = names.index(_LAST_OF_SEEDS)
    step = funnel.steps[last_of_seeds]
    parts = [
        _part(stage, by_files=place <= last_of_seeds, sandboxes=sandboxes)
        for place, stage in enumerate(stages)
    ]
    asking = [part for part, stage in zip(parts, stages, strict=True) if has_hops(stage)]
    whole = sum(part.seconds for part in asking)
    start = sum(part.start_seconds for part in asking) / whole if whole else 0.0
    return Measured(
        files=funnel.files or 0,
        good_seeds=step.rows,
        seeds=step.kept,
        accepted=funnel.kept,
        parts=parts,
        engine_seconds=(figures.held_seconds * start, figures.held_seconds * (1 - start)),
        gpu_seconds=(figures.gpu_seconds * start, figures.gpu_seconds * (1 - start)),
        load_seconds=figures.load_seconds,
        prompt_tokens=sum(hop.prompt_tokens for hop in figures.hops.values()),
        output_tokens={name: hop.output_tokens for name, hop in figures.hops.items()},
        sandbox_cpu_seconds=figures.sandbox_cpu_seconds,
        rows_in_flight_mean=figures.rows_in_flight_mean,
    )


def _part(stage: SavedStage, *, by_files: bool, sandboxes: int) -> Part:
    seconds, work = float(stage.manifest["seconds"]), stage.manifest.get("work_seconds")
    if not has_hops(stage) and not set(SANDBOXED).isdisjoint(stage.group):
        # A slice is over before all sandboxes have started: they are the most of what was seen.
        work = min(seconds, sandbox_amount(stage, "busy_seconds") / sandboxes)
    return Part(stages=stage.group, seconds=seconds, work_seconds=work, by_files=by_files)


def project(measured: Measured, rows: int) -> Projection:
    """What so many accepted rows would take. The slice has at least one seed."""
    low, high = wilson(measured.accepted, measured.seeds)
    share = measured.accepted / measured.seeds
    return Projection(
        rows=rows,
        share=share,
        share_low=low,
        share_high=high,
        least=amounts(measured, math.ceil(rows / high)),
        likely=amounts(measured, math.ceil(rows / share)) if measured.accepted else None,
        most=amounts(measured, math.ceil(rows / low)) if measured.accepted else None,
    )


def amounts(measured: Measured, seeds: int) -> Amounts:
    """What so many seeds would take."""
    times = seeds / measured.seeds
    files = math.ceil(seeds * measured.files / measured.good_seeds)
    file_times = files / measured.files
    return Amounts(
        seeds=seeds,
        files=files,
        stage_seconds=[
            part.start_seconds
            + (part.work_seconds or 0.0) * (file_times if part.by_files else times)
            for part in measured.parts
        ],
        engine_hours=_once_and(measured.engine_seconds, times) / 3600,
        gpu_hours=_once_and(measured.gpu_seconds, times) / 3600,
        prompt_tokens=measured.prompt_tokens * times,
        output_tokens=sum(measured.output_tokens.values()) * times,
        sandbox_cpu_hours=measured.sandbox_cpu_seconds * times / 3600,
    )


def wilson(hits: int, tries: int) -> tuple[float, float]:
    """The interval of a share by Wilson's score, at CONFIDENCE.

    It holds where hits are few, none or all, as the usual one does not (E. B. Wilson, Journal of
    the American Statistical Association 22, 1927).
    """
    assert 0 <= hits <= tries
    assert tries
    share, spread = hits / tries, _Z**2 / tries
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    low = 0.0 if hits == 0 else min(share, centre - half)
    return low, 1.0 if hits == tries else max(share, centre + half)


def as_data(measured: Measured, projection: Projection) -> dict[str, Any]:
    """All of it as plain data."""
    return {
        "confidence": CONFIDENCE,
        "measured": dataclasses.asdict(measured),
        "projection": dataclasses.asdict(projection),
        "bottleneck": measured.parts[projection.bottleneck].stages,
    }


def _once_and(seconds: tuple[float, float], times: float) -> float:
    once, each = seconds
    return once + each * times
