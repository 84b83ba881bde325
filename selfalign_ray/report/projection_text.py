"""A projection as a person reads it, with what the slice cannot tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from selfalign_ray.config import RunConfig
from selfalign_ray.engine.standin import STANDIN
from selfalign_ray.hops.generate import pools_of
from selfalign_ray.places import shown
from selfalign_ray.report.figures import take_figures
from selfalign_ray.report.funnel import take_funnel
from selfalign_ray.report.projection import (
    CONFIDENCE,
    Amounts,
    Measured,
    Projection,
    as_data,
    measure,
    project,
)
from selfalign_ray.report.saved import SavedStage
from selfalign_ray.stage import write_record, write_whole

TEXT, DATA = "projection.txt", "projection.json"
_LABEL_COLUMNS = 14


def write_projection(
    cfg: RunConfig, stages: Sequence[SavedStage], run_dir: Path, *, cpus: float
) -> str:
    """Projects `plan.rows` from a slice that has ended, and writes it as text and as JSON.

    Args:
        cfg: of the long run.
        stages: the slice's saved ones.
        run_dir: of the slice.
        cpus: of the cluster.

    Returns:
        The text.
    """
    assert cfg.plan.rows is not None
    measured = measure(
        stages,
        take_funnel(stages),
        take_figures(stages),
        sandboxes=cfg.validation.execution.actors or max(1, int(cpus)),
    )
    projection = project(measured, cfg.plan.rows)
    text = projection_text(cfg, measured, projection)
    write_record(run_dir / DATA, as_data(measured, projection))
    write_whole(run_dir / TEXT, text)
    return (
        f"\n{text}\nslice       {shown(run_dir)}\nnext        the same command without plan.rows\n"
    )


def projection_text(cfg: RunConfig, measured: Measured, projection: Projection) -> str:
    """The whole projection."""
    lines = [
        f"{projection.rows:,} accepted rows of {cfg.name}, projected from {measured.seeds} seeds",
        *_standin(cfg),
        "",
        *(f"{name:<{_LABEL_COLUMNS}}{text}" for name, text in _facts(cfg, measured, projection)),
        "",
        *_table(measured, projection),
        "",
        "What the slice cannot tell:",
        *(f"- {line}" for line in _unknown(cfg, measured, projection)),
        *(["", *limits] if (limits := list(_limits(cfg, measured, projection))) else []),
    ]
    return "\n".join(lines) + "\n"


def _standin(cfg: RunConfig) -> Iterator[str]:
    if any(engine.kind == STANDIN for _, engine in pools_of(cfg).values()):
        yield "STAND-IN ENGINE: NOT A RESULT. No model would be as fast, nor pass as often."


def _facts(cfg: RunConfig, measured: Measured, projection: Projection) -> Iterator[tuple[str, str]]:
    def spread(amount: Callable[[Amounts], float], words: Callable[[float], str] = about) -> str:
        least = words(amount(projection.least))
        if projection.likely is None or projection.most is None:
            return f"at least {least}"
        return f"{words(amount(projection.likely))} ({least} to {words(amount(projection.most))})"

    low, high = 100 * projection.share_low, 100 * projection.share_high
    yield (
        "accepted",
        f"{measured.accepted} of {measured.seeds} seeds: {100 * projection.share:.1f} in 100, "
        f"{low:.1f} to {high:.1f} at {CONFIDENCE:.0%} confidence",
    )
    yield "seeds", spread(lambda a: a.seeds)
    found = f"{measured.good_seeds:,} good seeds in {measured.files:,} files"
    yield "source files", f"{spread(lambda a: a.files)}, at {found}"
    engines = sum(engine.engines for _, engine in pools_of(cfg).values())
    start = sum(part.start_seconds for part in measured.parts)
    yield (
        "wall time",
        f"{spread(lambda a: a.seconds, span)}, with {engines} engine{'s' * (engines != 1)}",
    )
    load = f"{span(measured.load_seconds)} of it models, summed over engines"
    yield "  once", f"{span(start)} to start the stages, {load}"
    yield "engine-hours", spread(lambda a: a.engine_hours)
    has_gpus = any(measured.gpu_seconds)
    yield "GPU-hours", spread(lambda a: a.gpu_hours) if has_gpus else "none: no engine held a GPU"
    yield "tokens", f"{spread(lambda a: a.prompt_tokens, big)} in prompts"
    yield "", f"{spread(lambda a: a.output_tokens, big)} written"
    yield "sandbox", f"{spread(lambda a: a.sandbox_cpu_hours)} CPU-hours"
    price = cfg.report.price_per_gpu_hour
    if price is None:
        yield "cost", "unknown: report.price_per_gpu_hour is not set"
    elif has_gpus:
        yield "cost", f"{spread(lambda a: a.gpu_hours * price)}, at {price:g} a GPU-hour"
    else:
        yield "cost", "unknown: no engine held a GPU"
    yield "bottleneck", _bottleneck(measured, projection)


def _bottleneck(measured: Measured, projection: Projection) -> str:
    amounts, place = projection.likely or projection.least, projection.bottleneck
    stages, written = measured.parts[place].stages, measured.output_tokens
    text = f"{', '.join(stages)}: {amounts.stage_seconds[place] / amounts.seconds:.0%} of the time"
    if (total := sum(written.values())) and set(stages) & written.keys():
        hop = max(written, key=written.__getitem__)
        text += f"; {hop} writes {written[hop] / total:.0%} of the tokens"
    return text


def _table(measured: Measured, projection: Projection) -> Iterator[str]:
    amounts = projection.likely or projection.least
    head = "projected" if projection.likely else "at least"
    yield f"{'stages':<42}{'slice, start':>14}{'work':>12}{head + '  ':>16}"
    for part, seconds in zip(measured.parts, amounts.stage_seconds, strict=True):
        work = "too short" if part.work_seconds is None else span(part.work_seconds)
        name = ", ".join(part.stages)
        whole = span(seconds) + (" +" if part.work_seconds is None else "  ")
        yield f"{name:<42}{span(part.start_seconds):>14}{work:>12}{whole:>16}"


def _unknown(cfg: RunConfig, measured: Measured, projection: Projection) -> Iterator[str]:
    if projection.likely is None:
        yield (
            "the most: nothing was accepted, so the share may be any number down to none; "
            "a larger plan.seeds tells more"
        )
    served = [engine for _, engine in pools_of(cfg).values()]
    most = sum(engine.engines * engine.rows_in_flight for engine in served)
    if (mean := measured.rows_in_flight_mean) is not None:
        yield (
            f"a full batch: {mean:,.1f} rows were in flight at the mean, of {most:,} that the "
            "engines take; a long run writes more tokens a second where that is less"
        )
    yield (
        "the tail: the last rows of a slice leave the engines half empty for a larger part of its "
        "time than those of a long run"
    )
    yield "a warm cache: the first prompts of each shot set are computed whole, in a run only once"
    yield (
        "duplicates: the more rows, the more of them are alike, among the seeds and in the data "
        "set, so that the share of accepted rows falls"
    )
    yield "how many files the source has, and whether their luck is that of the slice's"
    short = ["+".join(part.stages) for part in measured.parts if part.work_seconds is None]
    if short:
        yield f"what was over too soon to measure; only its start is counted: {', '.join(short)}"
    yield "machines that fail, or come and go"


def _limits(cfg: RunConfig, measured: Measured, projection: Projection) -> Iterator[str]:
    """Settings that would end the long run before its rows are there."""
    if measured.seeds < cfg.plan.seeds:
        yield (
            f"The slice found {measured.seeds} of plan.seeds={cfg.plan.seeds} in "
            f"{measured.files:,} files: a larger plan.files finds more."
        )
    needs = projection.likely or projection.least
    files = measured.files * measured.seeds / measured.good_seeds  # for the seeds that ran
    for key, limit, needed, unit in (
        ("seeds.sample.limit", cfg.seeds.sample.limit, needs.seeds, measured.seeds),
        ("source.limit", cfg.source.limit, needs.files, files),
    ):
        if limit is not None and limit < needed:
            rows = limit * measured.accepted / unit
            yield f"{key}={limit} ends the run at about {rows:,.0f} rows: {key}=null sets no limit."


def about(number: float) -> str:
    """A number to three digits.

    >>> about(367_346), about(0.12345)
    ('367,000', '0.123')
    """
    if number == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(number)))
    return f"{round(number, digits):,.{max(0, digits)}f}"


def big(number: float) -> str:
    """A number to three digits, in thousands (k), millions (M) or billions (G)."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= unit:
            return about(number / unit) + name
    return about(number)


def span(seconds: float) -> str:
    """A length of time in its own unit: seconds, minutes, hours or days."""
    for unit, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{about(seconds / unit)} {name}"
    return f"{seconds:.1f} s"
