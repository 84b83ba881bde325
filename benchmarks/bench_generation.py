"""What the pipeline makes of an engine, beside the same engine bare, and beside its alternatives.

Four comparisons, each in turn within one run, over the same real functions:

bare     all hops through the pipeline, against `vllm.LLM.generate` hop by hop with the prompts,
         shots, seeds and sampling that the pipeline used, on an engine with the same settings
concepts the S->C hop with 8 shots: fixed shot sets against a draw of shots for each row, with as
         many rows at once as the run on a CPU has: its rows are short, and the last ones, which
         are written with the engine nearly empty, would weigh most in a small batch
random   all hops, n = 4: fixed shot sets against a draw of shots for each row
         (both with the recipe sc2_instruct, its texts cut to what a small model can end)
chained  all hops, n = 1: the pipeline against three chained `ray.data.llm` processors

Weights at random (`--load-format dummy`: the shape of a large model without its download) write
nothing that parses; whatever they write goes on to the next hop then, and each sample has all the
tokens that it may have.

Rates are rows over the time from the first prompt to the last sample; loading and the start of
actors are told apart. Each engine is warm: a batch goes through it before, and before each measure
of fixed shot sets, whose shots the drawn ones have pushed out of the cache. Of a prompt with
several samples, what the first one found in the cache counts. Ratios are medians over the repeats.

python benchmarks/bench_generation.py [--rows 16] [--repeats 3] [--parts bare concepts random]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from hydra import compose, initialize_config_dir

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import load_average, tell

from selfalign_ray import pipeline, schemas
from selfalign_ray.config import RunConfig, conf_dir, register_schemas, typed
from selfalign_ray.engine.actor import engines_for, stop_engines
from selfalign_ray.engine.base import Engine, Generation
from selfalign_ray.engine.open import model_path
from selfalign_ray.engine.reaper import reap_after_death
from selfalign_ray.engine.vllm_settings import engine_args, worker_environment
from selfalign_ray.hops.generate import generate, opening_for, shown_examples, through_engines
from selfalign_ray.hops.row import HopShots, RowHops, view_of
from selfalign_ray.hops.shots import Example
from selfalign_ray.ids import keyed_int
from selfalign_ray.job import configure_ray_data, worker_runtime
from selfalign_ray.run import run_stages
from selfalign_ray.stage import Saved
from selfalign_ray.watch.display import Display

PARTS = ("bare", "concepts", "random", "chained")
HOPS = ("concepts", "instruction", "responses")
TARGETS = {
    "ratio_bare": 0.85,
    "ratio_random_shots": 1.8,
    "ratio_random_shots_concepts": 4.0,
    "cache_hit_rate": 0.75,
    "ratio_chained": 1.0,
}
# Shots and prompts as the original has them; texts as short as in the recipe for small models.
PAPER = [
    "recipe=sc2_instruct",
    "recipe.hops.concepts.sampling.max_tokens=40",
    "recipe.hops.concepts.sampling.stop=['\n']",
    "recipe.hops.instruction.sampling.max_tokens=72",
    "recipe.hops.instruction.sampling.stop=['\n']",
    "recipe.hops.responses.sampling.max_tokens=128",
]
RANDOM = [f"recipe.hops.{hop}.shot_sets=null" for hop in HOPS]
GPU_TARGETS = TARGETS | {"ratio_bare": 0.95}
_SEED_BITS = 48  # as the hops draw their seeds
_CONCEPTS_ROWS = 48  # at the least: conf/experiment/embedded.yaml
_FUNCTIONS = 30  # of the installed packages, for each that makes a seed

Row = dict[str, Any]


def config(options: argparse.Namespace, *overrides: str) -> RunConfig:
    """The default run with the benchmark's model and sizes."""
    register_schemas()
    given = [
        f"runs_root='{options.folder}'",
        f"run_dir='{options.folder}/run'",
        f"model.id={options.model}",
        f"model.load_format={options.load_format}",
        f"model.max_model_len={options.max_model_len}",
        f"engine.rows_in_flight={concepts_rows(options)}",
        f"engine.max_num_seqs={options.max_num_seqs}",
        f"engine.gpu_memory_utilization={options.gpu_memory}",
        f"source.limit={_FUNCTIONS * seeds_for(options)}",
        "recipe.hops.responses.sampling.n=4",
        "seeds.sample.limit=null",
    ]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return typed(compose("run", overrides=[*given, *overrides, *options.overrides]))


def concepts_rows(options: argparse.Namespace) -> int:
    """Functions in a measurement of S->C."""
    return max(options.rows, _CONCEPTS_ROWS)


def seeds_for(options: argparse.Namespace) -> int:
    """Functions of all measurements and of those before them, which warm the engine."""
    rows: int = options.rows + concepts_rows(options)
    return rows * (options.repeats + 1)


def seeds(cfg: RunConfig, count: int) -> list[Row]:
    """So many real functions of the installed packages."""
    cfg = dataclasses.replace(cfg, stages=dataclasses.replace(cfg.stages, until="sample"))
    names = [stage.name for stage in pipeline.selected(cfg)]
    with Display(names, 60) as display:
        run_stages(cfg, display)
    rows = Saved(Path(cfg.run_dir), "sample").kept().take(count)
    if len(rows) < count:
        sys.exit(f"{len(rows)} functions in the installed packages, {count} wanted: fewer --rows")
    return rows


def through_pipeline(cfg: RunConfig, rows: Sequence[Row], hops: Sequence[str]) -> list[Row]:
    """The rows after these hops."""
    ds = ray.data.from_arrow(pa.Table.from_pylist(list(rows), schema=schemas.SEED))
    if cfg.model.load_format == "dummy":
        work = partial(any_texts, cfg=cfg, hops=hops, examples=shown_examples(cfg, hops))
        through = through_engines(ds, cfg, hops[0], work, schemas.HOPS)
    else:
        through = generate(ds, cfg, hops=hops)
    made: list[Row] = through.take_all()
    return made


class AnyTexts(RowHops):
    """Hops from which a row goes on with whatever was written."""

    def _parse(self, hop: str, row: Row, made: Generation, texts: list[str], seed: int) -> Row:
        if hop == "responses":
            return super()._parse(hop, row, made, texts, seed)
        return {"concepts": [texts[0]]} if hop == "concepts" else {"instruction": texts[0]}


def any_texts(
    engine: Engine, *, cfg: RunConfig, hops: Sequence[str], examples: Sequence[Example]
) -> Callable[[Row], Awaitable[Row]]:
    """As the stage's own work, with AnyTexts."""
    return AnyTexts(cfg.recipe, hops, examples=examples, engine=engine, run_seed=cfg.run_seed).run


def window(rows: Sequence[Row]) -> float:
    """Seconds from the first prompt to the last sample."""
    costs = [hop for row in rows for hop in row["hops"]]
    return max(c["began"] + c["seconds"] for c in costs) - min(c["began"] for c in costs)


def cached_share(rows: Sequence[Row]) -> float:
    """Of the prompt tokens, from the prefix cache."""
    costs = [hop for row in rows for hop in row["hops"]]
    return sum(c["cached_tokens"] for c in costs) / sum(c["prompt_tokens"] for c in costs)


def asked(cfg: RunConfig, rows: Sequence[Row], name: str) -> Iterator[tuple[str, Row]]:
    """The prompts of a hop and their sampling, as the pipeline asked them."""
    hop = HopShots(
        name,
        cfg.recipe.hops[name],
        examples=shown_examples(cfg, list(HOPS)),
        run_seed=cfg.run_seed,
    )
    for row in rows:
        cost = next((cost for cost in row["hops"] if cost["hop"] == name), None)
        if cost is None:  # the row had stopped before
            continue
        _, shots = hop.shot_sets.of(row["seed_id"])
        text, _ = hop.prompt.prompt(view_of(row), shots[: cost["shots"]])
        seed = keyed_int(_SEED_BITS, cfg.run_seed, "sampling", name, row["seed_id"])
        sampling = dataclasses.asdict(hop.sampling) | {"stop": list(hop.sampling.stop)}
        yield text, sampling | {"seed": seed}


class Bare:
    """`vllm.LLM` with the pipeline's engine settings, on the same GPUs, which it has in turn."""

    def __init__(self, cfg: RunConfig, device: str, gpus: list[str]) -> None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)  # Ray gives an actor of none no GPU
        from vllm import LLM

        reap_after_death()
        args = engine_args(cfg.model, model_path(cfg.model), cfg.engine, device)
        self._llm = LLM(**args)

    def generate(self, prompts: list[str], sampling: list[Row]) -> tuple[float, int]:
        """Seconds, and tokens written."""
        from vllm import SamplingParams

        params = [SamplingParams(**values) for values in sampling]
        began = time.monotonic()
        made = self._llm.generate(prompts, params, use_tqdm=False)
        seconds = time.monotonic() - began
        return seconds, sum(len(sample.token_ids) for one in made for sample in one.outputs)


def start_bare(cfg: RunConfig) -> tuple[Any, float]:
    """The bare engine in an actor, and the seconds until it was there."""
    opening = opening_for(cfg, "concepts")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(number) for number in range(opening.gpus)]
    began = time.monotonic()
    actor = (
        ray.remote(Bare)
        .options(
            num_cpus=cfg.engine.num_cpus,
            runtime_env={"env_vars": worker_environment(cfg.engine, opening.device)},
        )
        .remote(cfg, opening.device, gpus[: opening.gpus])
    )
    ray.get(actor.generate.remote(["x"], [{"max_tokens": 1}]))
    return actor, time.monotonic() - began


class Figures:
    """Lists of measurements by name."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def note(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(round(value, 4))
        sys.stderr.write(f"{name}: {value:.3f}\n")

    def ratio(self, upper: str, lower: str) -> float | None:
        """The median over the repeats; None where one was not measured."""
        pairs = zip(self.values.get(upper, []), self.values.get(lower, []), strict=False)
        values = [a / b for a, b in pairs]
        return round(statistics.median(values), 3) if values else None

    def median(self, name: str) -> float | None:
        values = self.values.get(name)
        return round(statistics.median(values), 3) if values else None


def compare_bare(
    cfg: RunConfig, batches: Sequence[Sequence[Row]], rows: Sequence[Row], out: Figures
) -> None:
    """The pipeline against `LLM.generate`; `rows` warm both."""
    bare, seconds = start_bare(cfg)
    out.note("load_bare", seconds)
    for number, batch in enumerate([rows, *batches]):
        made = through_pipeline(cfg, batch, HOPS)
        costs = [hop for row in made for hop in row["hops"]]
        seconds = tokens = 0.0
        for name in HOPS:
            prompts = list(asked(cfg, made, name))
            if prompts:
                took, written = ray.get(
                    bare.generate.remote([p for p, _ in prompts], [s for _, s in prompts])
                )
                seconds, tokens = seconds + took, tokens + written
        if number:  # the first one fills the caches
            out.note("bare_rows_per_second", len(batch) / seconds)
            out.note("bare_tokens", tokens)
            out.note("pipeline_rows_per_second", len(batch) / window(made))
            out.note("pipeline_tokens", sum(cost["output_tokens"] for cost in costs))
            out.note("cached", cached_share(made))
    ray.kill(bare)


def compare_shots(
    fixed: RunConfig,
    drawn: RunConfig,
    batches: Sequence[Sequence[Row]],
    hops: Sequence[str],
    name: str,
    warm: Sequence[Row],
    out: Figures,
) -> None:
    """Fixed shot sets against a draw for each row; `warm` fills the cache."""
    for number, batch in enumerate(batches):
        both = [(f"{name}_fixed", fixed), (f"{name}_drawn", drawn)]
        for label, cfg in both if number % 2 else reversed(both):
            if cfg is fixed:
                through_pipeline(fixed, warm, hops)
            made = through_pipeline(cfg, batch, hops)
            out.note(f"{label}_rows_per_second", len(batch) / window(made))
            out.note(f"{label}_cached", cached_share(made))
            reached = sum(row["hops"][-1]["hop"] == hops[-1] for row in made)
            out.note(f"{label}_rows_at_the_last_hop", reached / len(made))


def compare_chained(cfg: RunConfig, batches: Sequence[Sequence[Row]], out: Figures) -> None:
    """Three `ray.data.llm` processors, each with an engine of its own, one after the other."""
    for batch in batches:
        stop_engines()
        began = time.monotonic()
        made = through_pipeline(cfg, batch, HOPS)
        out.note("ours_with_load_seconds", time.monotonic() - began)
        out.note("ours_seconds", window(made))
        stop_engines()
        began = time.monotonic()
        out.note("chained_seconds", chained(cfg, made))
        out.note("chained_with_load_seconds", time.monotonic() - began)


def chained(cfg: RunConfig, rows: Sequence[Row]) -> float:
    """Runs the hops as processors; gives the seconds that their engines were busy."""
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    opening = opening_for(cfg, "concepts")
    args = engine_args(cfg.model, model_path(cfg.model), cfg.engine, opening.device)
    environment = worker_environment(cfg.engine, opening.device)
    environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)  # AsyncLLM has no other way
    bundle = {"GPU": 1} if opening.gpus else {"CPU": 1}
    busy = 0.0
    for name in HOPS:
        prompts = list(asked(cfg, rows, name))
        processor = build_processor(
            vLLMEngineProcessorConfig(
                model_source=args.pop("model", None) or model_path(cfg.model),
                engine_kwargs={k: v for k, v in args.items() if v is not None},
                batch_size=1,
                max_concurrent_batches=cfg.engine.rows_in_flight,
                concurrency=1,
                chat_template_stage={"enabled": False},
                tokenize_stage={"enabled": False},
                detokenize_stage={"enabled": False},
                placement_group_config={"bundles": [bundle]},
                runtime_env={"env_vars": environment},
                log_engine_metrics=False,
            ),
            preprocess=lambda row: {
                "prompt": row["prompt"],
                "sampling_params": json.loads(row["sampling"]),
            },
            postprocess=lambda row: {
                "text": row["generated_text"],
                "ended": time.time(),
                "took": row.get("time_taken_llm", 0.0),
            },
        )
        items = [{"prompt": p, "sampling": json.dumps(s | {"n": 1})} for p, s in prompts]
        ended = processor(ray.data.from_items(items)).take_all()
        busy += max(row["ended"] for row in ended) - min(r["ended"] - r["took"] for r in ended)
    return busy


def batched(rows: Sequence[Row], size: int) -> list[Sequence[Row]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def measure(options: argparse.Namespace, out: Figures) -> RunConfig:
    """All parts that are asked for."""
    cfg = config(options)
    rows = seeds(cfg, seeds_for(options))
    for_hops = options.rows * (options.repeats + 1)
    first, *batches = batched(rows[:for_hops], options.rows)
    # Others: a cache may still hold what an earlier part asked.
    first_concepts, *concepts = batched(rows[for_hops:], concepts_rows(options))
    began = time.monotonic()
    engines_for(opening_for(cfg, "concepts"))
    out.note("load_pipeline", time.monotonic() - began)
    if "bare" in options.parts:
        compare_bare(cfg, batches, first, out)
    paper, drawn = config(options, *PAPER), config(options, *PAPER, *RANDOM)
    if "concepts" in options.parts:
        compare_shots(paper, drawn, concepts, ["concepts"], "concepts", first_concepts, out)
    if "random" in options.parts:
        compare_shots(paper, drawn, batches, HOPS, "hops", first, out)
    if "chained" in options.parts:
        one = config(options, "recipe.hops.responses.sampling.n=1")
        compare_chained(one, batches[:2], out)
    stop_engines()
    return cfg


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=16, help="functions at once; S->C: 48 or more")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--model", default="embedded", help="embedded, a folder or a hub id")
    parser.add_argument("--load-format", default="auto", help="dummy: weights at random")
    parser.add_argument("--max-model-len", type=int, default=4096)
    parser.add_argument("--max-num-seqs", type=int, default=64)
    parser.add_argument("--gpu-memory", type=float, default=0.4, help="share, for each of two")
    parser.add_argument("--results", type=Path, help="a JSON file to write")
    parser.add_argument("overrides", nargs="*", help="of the run's settings, as for selfalign")
    options = parser.parse_args()
    out = Figures()
    with tempfile.TemporaryDirectory(prefix="bench_generation_") as folder:
        options.folder = folder
        ray.init(
            num_cpus=max(8, os.cpu_count() or 1),
            include_dashboard=False,
            log_to_driver=False,
            runtime_env=worker_runtime(is_local=True),
        )
        configure_ray_data()
        before = load_average()
        cfg = measure(options, out)
        gpus = ray.cluster_resources().get("GPU", 0)
        ray.shutdown()
    summary = {
        "ratio_bare": out.ratio("pipeline_rows_per_second", "bare_rows_per_second"),
        "ratio_random_shots": out.ratio("hops_fixed_rows_per_second", "hops_drawn_rows_per_second"),
        "ratio_random_shots_concepts": out.ratio(
            "concepts_fixed_rows_per_second", "concepts_drawn_rows_per_second"
        ),
        "cache_hit_rate": out.median("hops_fixed_cached"),
        "ratio_chained": out.ratio("chained_seconds", "ours_seconds"),
        "ratio_chained_with_load": out.ratio("chained_with_load_seconds", "ours_with_load_seconds"),
    }
    targets = GPU_TARGETS if gpus else TARGETS
    missed = [name for name, least in targets.items() if (summary[name] or 0) < least]
    result = {
        **summary,
        "targets": targets,
        "missed": missed,
        "figures": out.values,
        "options": {k: str(v) for k, v in vars(options).items() if k not in ("folder", "results")},
        "config": {
            name: dataclasses.asdict(getattr(cfg, name)) for name in ("model", "engine", "recipe")
        },
    }
    packages = ["ray", "torch", "transformers"]
    tell(result, load_before=before, packages=packages, file=options.results, gpus=gpus)


if __name__ == "__main__":
    main()
