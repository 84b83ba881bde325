"""The hops as a Ray Data stage: rows stream through actors that ask the engines."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset

from selfalign_ray import schemas
from selfalign_ray.config import RunConfig
from selfalign_ray.engine.actor import Opening, engines_for
from selfalign_ray.engine.base import Engine
from selfalign_ray.engine.config import EngineConfig, ModelConfig
from selfalign_ray.engine.fleet import Fleet
from selfalign_ray.engine.open import device_of
from selfalign_ray.engine.standin import STANDIN
from selfalign_ray.engine.weights import at_commits, name_of, revisions_of
from selfalign_ray.hops.row import HopShots, Row, RowHops
from selfalign_ray.hops.shots import Example, named, read_examples
from selfalign_ray.nodes import ROWS_CPUS
from selfalign_ray.stage import Inputs
from selfalign_ray.watch.tally import flush, gauge, stopping

SHARED = "shared"  # the pool of the hops that have none of their own
# Rows of so many engines pass through one actor, which only renders, waits and parses.
_ENGINES_PER_ACTOR = 8


def generate(ds: Dataset, cfg: RunConfig, *, hops: Sequence[str]) -> Dataset:
    """Takes each row through the named hops of the recipe, on engines that all of them share.

    Args:
        ds: `schemas.SEED` rows, or `schemas.HOPS` rows that some hops have been through.
        cfg: the whole run's settings.
        hops: names of hops of one pool, in order.

    Returns:
        `schemas.HOPS` rows, as many as came in, in any order. RowHops.run names the drop reasons.
        Randomness is keyed by `seed_id`; a batch's make-up can still change a float's last bit.

    Raises:
        UserError: the engines cannot be had.
    """
    work = partial(_hops_of, cfg=cfg, hops=list(hops), examples=shown_examples(cfg, hops))
    return through_engines(ds, cfg, hops[0], work, schemas.HOPS)


def generate_again(ds: Dataset, cfg: RunConfig, *, round_number: int) -> Dataset:
    """Draws more responses for the rows that execution found without a passing sample.

    Args:
        ds: `schemas.EXECUTED` rows without `metrics`, dropped ones too.
        cfg: the whole run's settings.
        round_number: from 2.

    Returns:
        The same rows; those that got more samples have no drop_reason until they are executed.

    Raises:
        UserError: the engines cannot be had.
    """
    hops = ["responses"]
    examples = shown_examples(cfg, hops)
    work = partial(_hops_of, cfg=cfg, hops=hops, examples=examples, round_number=round_number)
    return through_engines(ds, cfg, "responses", work, schemas.JUDGED)


def through_engines(
    ds: Dataset,
    cfg: RunConfig,
    hop: str,
    work: Callable[[Engine], Callable[[Row], Awaitable[Row]]],
    gives: pa.Schema,
) -> Dataset:
    """Takes each row through some work that asks engines, many rows at once.

    Args:
        ds: rows.
        cfg: the whole run's settings.
        hop: whose pool serves the work.
        work: called in each actor with what stands for all engines of the pool; gives the
            coroutine function that takes a row.
        gives: the schema of what comes out.

    Raises:
        UserError: the engines cannot be had.
    """
    opening = opening_for(cfg, hop)
    engine = opening.engine
    actors = -(-opening.most // _ENGINES_PER_ACTOR)
    calls = max(1, opening.most * engine.rows_in_flight // engine.rows_per_block // actors)
    blocks = ds.repartition(target_num_rows_per_block=engine.rows_per_block)
    return blocks.map_batches(
        _RowsActor,
        batch_size=None,  # a batch is a block: it leaves when its slowest row is done
        batch_format="pyarrow",
        compute=ActorPoolStrategy(
            size=actors,
            max_tasks_in_flight_per_actor=calls,
            max_concurrent_calls_per_actor=calls,
            enable_true_multi_threading=True,  # else the calls wait for each other
        ),
        num_cpus=ROWS_CPUS,
        fn_constructor_kwargs={
            "engines": engines_for(opening),
            "model": name_of(opening.model, engine),
            "rows_in_flight": engine.rows_in_flight,
            "work": work,
            "gives": gives,
        },
    )


def opening_for(cfg: RunConfig, hop: str) -> Opening:
    """What the engines that serve a hop are made of.

    Raises:
        UserError: the cluster lacks the device.
    """
    pool, model, engine = pool_of(cfg, hop)
    hops = [name for name in cfg.recipe.hops if pool_of(cfg, name)[0] == pool]
    standin = engine.kind == STANDIN
    return Opening(
        pool=pool,
        engine=engine,
        model=model,
        device=device_of(
            engine, ray.cluster_resources().get("GPU", 0), may_grow=cfg.cluster.autoscaling
        ),
        recipe=cfg.recipe if standin else None,
        examples=shown_examples(cfg, hops) if standin else [],
    )


def pool_of(cfg: RunConfig, hop: str) -> tuple[str, ModelConfig, EngineConfig]:
    """The name and the settings of the pool that serves a hop."""
    for name, pool in cfg.generation.pools.items():
        if hop in pool.hops:
            return name, pool.model, pool.engine
    return SHARED, cfg.model, cfg.engine


def pools_of(cfg: RunConfig) -> dict[str, tuple[ModelConfig, EngineConfig]]:
    """By name, the settings of the pools that serve the hops and judges of a whole run."""
    asking = list(cfg.recipe.hops)
    asking += ["judge"] * cfg.validation.judge.enabled
    asking += ["docstring_judge"] * cfg.seeds.docstring_judge.enabled
    return {pool: (model, engine) for pool, model, engine in (pool_of(cfg, n) for n in asking)}


def commits_of_model(cfg: RunConfig, hop: str) -> Inputs:
    """By their keys: the commits that a hop's model and adapter are at; of those from the hub."""
    pool, model, engine = pool_of(cfg, hop)
    return {_key(pool, name): commit for name, commit in revisions_of(model, engine).items()}


def models_at_commits(
    cfg: RunConfig, hops: Iterable[str], known: Mapping[str, str | None]
) -> RunConfig:
    """The settings with the hops' models at the commits `known` by key, else those of now."""
    shared, pools = cfg.model, dict(cfg.generation.pools)
    asked = {pool: (model, engine) for pool, model, engine in (pool_of(cfg, hop) for hop in hops)}
    for pool, (model, engine) in asked.items():
        commits = {name: known.get(_key(pool, name)) for name in ("id", "lora")}
        there = at_commits(model, engine, commits)
        if pool == SHARED:
            shared = there
        else:
            pools[pool] = dataclasses.replace(pools[pool], model=there)
    return dataclasses.replace(
        cfg, model=shared, generation=dataclasses.replace(cfg.generation, pools=pools)
    )


def _key(pool: str, name: str) -> str:
    return f"model.{name}" if pool == SHARED else f"generation.pools.{pool}.model.{name}"


def shown_examples(cfg: RunConfig, hops: Sequence[str]) -> list[Example]:
    """The examples that some of the hops may show, by name: what an actor is sent stays small."""
    examples = read_examples(cfg.recipe.examples)
    shown = {e.name for hop in hops for e in named(examples, cfg.recipe.hops[hop].examples)}
    return [example for example in examples if example.name in shown]


def check_hop(cfg: RunConfig, name: str) -> None:
    """Compiles a hop's templates and draws its shot sets, as every actor will.

    Raises:
        UserError: an example, a template or the number of shots is wrong.
    """
    examples = read_examples(cfg.recipe.examples)
    HopShots(name, cfg.recipe.hops[name], examples=examples, run_seed=cfg.run_seed)


def _hops_of(
    engine: Engine,
    *,
    cfg: RunConfig,
    hops: list[str],
    examples: list[Example],
    round_number: int = 1,
) -> Callable[[Row], Awaitable[Row]]:
    runner = RowHops(cfg.recipe, hops, examples=examples, engine=engine, run_seed=cfg.run_seed)
    if round_number == 1:
        return runner.run
    return partial(runner.again, again=cfg.generation.again, round_number=round_number)


class _RowsActor:
    """Rows on their way through hops; the engines are elsewhere.

    Each of its threads waits for a block; all rows meet on one event loop. Once the run is to end,
    a block that was not begun comes back without its rows.
    """

    def __init__(
        self,
        *,
        engines: list[str],
        model: str,
        rows_in_flight: int,
        work: Callable[[Engine], Callable[[Row], Awaitable[Row]]],
        gives: pa.Schema,
    ) -> None:
        self._work = work(Fleet(engines, model=model, rows_in_flight=rows_in_flight))
        self._gives = gives
        self._in_flight = 0
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="rows", daemon=True).start()

    def __call__(self, block: pa.Table) -> pa.Table:
        if stopping():
            return self._gives.empty_table()
        rows = block.to_pylist()
        done = asyncio.run_coroutine_threadsafe(self._run_all(rows), self._loop)
        try:
            return pa.Table.from_pylist(done.result(), schema=self._gives)
        finally:
            flush()  # the actor is killed right after its last block

    async def _run_all(self, rows: list[Row]) -> list[Row]:
        return await asyncio.gather(*(self._run(row) for row in rows))

    async def _run(self, row: Row) -> Row:
        self._in_flight += 1
        gauge("engine", rows_in_flight=self._in_flight)
        try:
            return await self._work(row)
        finally:
            self._in_flight -= 1
            gauge("engine", rows_in_flight=self._in_flight)
