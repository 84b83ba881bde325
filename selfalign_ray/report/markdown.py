"""`pipeline_report.md`: the run on a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selfalign_ray import pipeline
from selfalign_ray.config import RunConfig
from selfalign_ray.hops.generate import pools_of
from selfalign_ray.report.contamination import Contamination, as_markdown
from selfalign_ray.report.engines import Level
from selfalign_ray.report.examples import show
from selfalign_ray.report.figures import Figures, is_standin
from selfalign_ray.report.funnel import Funnel, Step
from selfalign_ray.report.md import cell, percent, section, table
from selfalign_ray.report.saved import Row
from selfalign_ray.watch.words import span


def markdown(
    cfg: RunConfig,
    funnel: Funnel,
    figures: Figures,
    *,
    contamination: Contamination | None,
    examples: Sequence[Row],
    sandbox: Mapping[str, Any] | None,
) -> str:
    """The whole report.

    Args:
        cfg: the run's settings.
        funnel: where the rows went.
        figures: rates, tokens, verdicts.
        contamination: what was found of benchmarks; None where nothing was looked for.
        examples: accepted pairs to show.
        sandbox: what `Sandbox.describe` says; None where nothing was executed.
    """
    shown = [show(row, n, cfg.report.example_chars) for n, row in enumerate(examples, start=1)]
    sections = [
        f"# selfalign: {cell(cfg.name)}",
        *_banners(cfg, funnel, figures),
        _result(cfg, funnel, figures),
        section("Funnel", _funnel(funnel)),
        section("Time", _time(cfg, funnel, figures)),
        section("Hops", _hops(figures)),
        section("Verdicts", _verdicts(figures)),
        section("Data set", _dataset(figures)),
        section("Decontamination", as_markdown(contamination)),
        section("Examples", "\n\n".join(shown)),
        section("Sandbox", _sandbox(sandbox)),
        section("Settings", _settings(cfg)),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _banners(cfg: RunConfig, funnel: Funnel, figures: Figures) -> Iterator[str]:
    if is_standin(cfg, figures):
        yield (
            "> **STAND-IN ENGINE: NOT A RESULT.** No model wrote these rows: worked examples stand "
            "in their place, to try the pipeline."
        )
    for stage, number in funnel.left_out.items():
        yield (
            f"> **PARTIAL.** The run was finalized before it was done: {number:,} rows had not "
            f"been through the stage {cell(stage)}. The same command without `finalize=true` goes "
            "on with them."
        )
    if funnel.problems:
        lines = "\n".join(f"> - {cell(problem)}" for problem in funnel.problems)
        yield f"> **THE COUNTS DO NOT ADD UP.** Find out why before you use these rows.\n{lines}"


def _result(cfg: RunConfig, funnel: Funnel, figures: Figures) -> str:
    source = "rows made elsewhere" if funnel.files is None else f"{funnel.files:,} files"
    whole = not cfg.stages.until or pipeline.stages(cfg)[-1].name in figures.stage_seconds
    what = "instruction-response pairs" if whole else f"rows after the stage {cfg.stages.until}"
    seconds = sum(figures.stage_seconds.values())
    text = f"**{funnel.kept:,} {what}** from {source} in {span(seconds)}"
    if figures.models:
        text += f", written by {cell(', '.join(figures.models))}"
    if figures.verdicts:
        passed = figures.verdicts.get("passed", 0)
        text += (
            f"; {passed:,} of {figures.samples:,} samples passed ({percent(figures.passed_share)})"
        )
    if loss := funnel.ended_by:
        stage, reason, number = loss
        text += (
            f".\n\nNo row was kept: the last ones were dropped in the stage {cell(stage)}, most "
            f"for {cell(reason)} ({number:,} rows)"
        )
    return f"{text}."


def _funnel(funnel: Funnel) -> str:
    rows: list[tuple[object, ...]] = []
    if funnel.files is not None:
        rows.append(("read", "**files read**", funnel.files, None))
        rows += _dropped(funnel.files_dropped, funnel.files)
        share = percent(_share(funnel.files_with_functions, funnel.files))
        rows.append(("functions", "**files with functions**", funnel.files_with_functions, share))
        rows.append(("functions", "**functions**", funnel.steps[0].rows, None))
    elif funnel.steps:
        rows.append(("start", "**rows**", funnel.steps[0].rows, None))
    for step in funnel.steps:
        rows += _dropped(step.dropped, step.rows)
        rows.append((step.name, "**kept**", step.kept, percent(_share(step.kept, step.rows))))
    note = (
        ""
        if funnel.problems or funnel.left_out
        else "\n\nThe counts add up: each stage saw exactly the rows that the one before it kept."
    )
    return table(("stage", "", "number", "of those before"), rows, numbers=2) + note


def _dropped(reasons: Mapping[tuple[str, str], int], whole: int) -> Iterator[tuple[object, ...]]:
    for (stage, reason), number in reasons.items():
        yield stage, f"- {reason}", number, percent(_share(number, whole))


def _time(cfg: RunConfig, funnel: Funnel, figures: Figures) -> str:
    steps: Mapping[str, Step] = {step.name: step for step in funnel.steps}
    rows = [
        (name, steps[name].rows, f"{seconds:,.1f}", _share(steps[name].rows, seconds))
        for name, seconds in figures.stage_seconds.items()
    ]
    text = table(("saved stage", "rows in", "seconds", "rows/s"), rows, numbers=3)
    lines = list(_rates(cfg, figures))
    lines += [
        f"{cell(stage)} went on where it was: {done:,} rows were done, at most {again:,} of the "
        "others had been begun"
        for stage, (done, again) in funnel.resumed.items()
    ]
    parts = [text, "\n".join(f"- {line}" for line in lines), _engines(figures)]
    return "\n\n".join(part for part in parts if part)


def _engines(figures: Figures) -> str:
    """What each engine did. Levels are given as their mean, and the most that was seen."""
    head = (
        "engine",
        "loaded, s",
        "held, s",
        "GPU-s",
        "prompts",
        "prompt tokens",
        "prefix cached",
        "tokens written",
        "running",
        "waiting",
        "KV cache",
    )
    rows = [
        (
            name,
            f"{engine.load_seconds:,.1f}",
            f"{engine.held_seconds:,.0f}",
            f"{engine.gpu_seconds:,.0f}",
            engine.prompts,
            engine.prompt_tokens,
            percent(_share(engine.cached_tokens, engine.prompt_tokens)),
            engine.output_tokens,
            _level(engine.running),
            _level(engine.waiting),
            _level(engine.kv_cache_usage, share=True),
        )
        for name, engine in figures.each.items()
    ]
    return table(head, rows, numbers=10) if rows else ""


def _level(level: Level | None, *, share: bool = False) -> str:
    if level is None:
        return ""
    if share:
        return f"{percent(level.mean)}, {percent(level.most)} at most"
    return f"{level.mean:,.1f}, {level.most:,.0f} at most"


def _rates(cfg: RunConfig, figures: Figures) -> Iterator[str]:
    if figures.engines:
        each = figures.load_seconds / figures.engines
        yield f"engines started: {figures.engines}, each in {each:.1f} s"
    if (speed := figures.tokens_per_second) is not None:
        yield f"{speed:,.0f} tokens/s written, loading included"
    if (mean := figures.rows_in_flight_mean) is not None:
        yield f"{mean:,.1f} rows in flight at the mean, {figures.rows_in_flight_most:,.0f} at most"
    if (hourly := figures.accepted_per_engine_hour) is not None:
        held = figures.held_seconds
        yield f"{hourly:,.1f} accepted rows per engine-hour; engines were held for {held:,.0f} s"
    per_gpu = figures.accepted_per_gpu_hour
    if per_gpu is not None:
        held = figures.gpu_seconds
        yield f"{per_gpu:,.1f} accepted rows per GPU-hour; GPUs were held for {held:,.0f} GPU-s"
    price = cfg.report.price_per_gpu_hour
    if per_gpu and price:
        yield (
            f"at {price:g} a GPU-hour, {1000 * price / per_gpu:,.2f} for 1,000 accepted rows, or "
            f"{per_gpu / price:,.1f} of them for 1"
        )


def _hops(figures: Figures) -> str:
    rows = [
        (
            name,
            hop.prompts,
            hop.prompt_tokens,
            percent(hop.cached_share),
            hop.output_tokens,
            hop.tokens_per_second,
            hop.in_flight,
            _share(hop.seconds, hop.prompts),
        )
        for name, hop in figures.hops.items()
    ]
    if not rows:
        return ""
    head = (
        "hop",
        "prompts",
        "prompt tokens",
        "prefix cached",
        "tokens written",
        "tokens/s",
        "in flight",
        "s per prompt",
    )
    shares = [
        (figures.cached_share, "of all prompt tokens came from the prefix cache"),
        (figures.distinct_concepts, "of the lists of concepts are distinct"),
        (figures.distinct_instructions, "of the instructions are distinct"),
    ]
    lines = [f"- {percent(share)} {text}" for share, text in shares if share is not None]
    return "\n\n".join([table(head, rows, numbers=7), *(["\n".join(lines)] if lines else [])])


def _verdicts(figures: Figures) -> str:
    samples = figures.samples
    if not figures.verdicts and not figures.not_executed:
        return ""
    rows: list[tuple[object, ...]] = [
        (verdict, number, percent(_share(number, samples)))
        for verdict, number in figures.verdicts.items()
    ]
    rows += [
        (f"not executed: {reason}", number, percent(_share(number, samples)))
        for reason, number in figures.not_executed.items()
    ]
    rest = samples - sum(figures.verdicts.values()) - sum(figures.not_executed.values())
    if rest:
        rows.append(("not executed", rest, percent(_share(rest, samples))))
    rows.append(("**samples**", samples, ""))
    lines = [
        f"- {figures.passed_rows:,} of {figures.executed_rows:,} executed instructions have a "
        "passing sample"
    ]
    if (share := figures.vacuous_share) is not None:
        lines.append(f"- {percent(share)} of the passing samples have only trivial asserts")
    if figures.sandbox_cpu_seconds:
        lines.append(f"- {figures.sandbox_cpu_seconds:,.1f} CPU-seconds in the sandbox")
    if figures.refused:
        refused = ", ".join(f"{cell(why)} {number:,}" for why, number in figures.refused.items())
        lines.append(f"- passing samples refused after that: {refused}")
    return table(("verdict", "samples", "share"), rows, numbers=2) + "\n\n" + "\n".join(lines)


def _dataset(figures: Figures) -> str:
    measures = [
        (name.replace("_", " "), spread.mean, spread.least, spread.median, spread.most)
        for name, spread in figures.measures.items()
    ]
    head = ("of the chosen samples", "mean", "least", "median", "most")
    licenses = [
        (name, number, percent(_share(number, figures.accepted)))
        for name, number in figures.licenses.items()
    ]
    tables = [
        table(head, measures, numbers=4),
        table(("licence of the seed", "rows", "share"), licenses, numbers=2),
    ]
    return "\n\n".join(text for text in tables if text)


def _sandbox(sandbox: Mapping[str, Any] | None) -> str:
    if sandbox is None:
        return ""
    layers = sandbox.get("layers")
    names = [
        (name, "on" if is_on is True else "off" if is_on is False else is_on)
        for name, is_on in (layers.items() if isinstance(layers, Mapping) else ())
    ]
    others = [
        (name, f"{len(value)} modules" if isinstance(value, list | tuple) else value)
        for name, value in sandbox.items()
        if name != "layers"
    ]
    return table(("sandbox", ""), [*others, *names])


def _settings(cfg: RunConfig) -> str:
    responses = cfg.recipe.hops["responses"].sampling
    shots = ", ".join(f"{name} {hop.shots}" for name, hop in cfg.recipe.hops.items())
    heat = ", ".join(
        f"{name} {hop.sampling.temperature:g}" for name, hop in cfg.recipe.hops.items()
    )
    rows = [
        ("run_seed", str(cfg.run_seed)),
        ("source", cfg.source.kind),
        *_pools(cfg),
        ("shots", shots),
        ("temperature", heat),
        ("responses per instruction", f"{responses.n}, of at most {responses.max_tokens} tokens"),
    ]
    return table(("setting", ""), rows) + "\n\nEvery setting is in manifest.json."


def _pools(cfg: RunConfig) -> list[tuple[str, Any]]:
    pools = pools_of(cfg)
    if len(pools) > 1:
        return [
            (f"pool {name}", f"{model.id}, {engine.kind}, engines: {engine.engines}")
            for name, (model, engine) in pools.items()
        ]
    ((model, engine),) = pools.values()
    return [("model", model.id), ("engine", engine.kind), ("engines", engine.engines)]


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
