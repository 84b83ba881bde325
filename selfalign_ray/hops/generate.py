"""The hops as a Ray Data stage: engine actors through which rows stream."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import warnings
from collections.abc import Sequence

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset
from ray.util.annotations import RayDeprecationWarning

from selfalign_ray import schemas
from selfalign_ray.config import RunConfig
from selfalign_ray.engine.base import EngineDiedError
from selfalign_ray.engine.open import device_of, open_engine
from selfalign_ray.engine.vllm import worker_environment
from selfalign_ray.hops.row import HopShots, Row, RowHops
from selfalign_ray.hops.shots import Example, named, read_examples
from selfalign_ray.watch.tally import count, flush, gauge

log = logging.getLogger(__name__)


def generate(ds: Dataset | None, cfg: RunConfig, *, hops: Sequence[str]) -> Dataset:
    """Takes each row through the named hops of the recipe, on engines that all hops share.

    Args:
        ds: `schemas.SEED` rows, or `schemas.HOPS` rows that some hops have been through.
        cfg: the whole run's settings.
        hops: names of hops, in order.

    Returns:
        `schemas.HOPS` rows, as many as came in, in any order. RowHops.run names the drop reasons.
        Randomness is keyed by `seed_id`; a batch's make-up can still change a float's last bit.
    """
    assert ds is not None
    engine, model = cfg.engine, cfg.model
    device = device_of(engine, ray.cluster_resources().get("GPU", 0))
    gpus = model.tensor_parallel_size * model.pipeline_parallel_size if device == "cuda" else 0
    calls = max(1, engine.rows_in_flight // engine.rows_per_block)
    blocks = ds.repartition(target_num_rows_per_block=engine.rows_per_block)
    with warnings.catch_warnings():
        # Ray 2.60 deprecates free keywords and has no other way yet to make restarts finite; a
        # prompt that always kills its engine would else be tried for ever.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        return blocks.map_batches(
            _EngineActor,
            batch_size=None,  # a batch is a block: it leaves when its slowest row is done
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                size=engine.engines,
                max_tasks_in_flight_per_actor=calls,
                max_concurrent_calls_per_actor=calls,
                enable_true_multi_threading=True,  # else the calls wait for each other
            ),
            num_cpus=engine.num_cpus,
            num_gpus=gpus,
            fn_constructor_kwargs={
                "cfg": cfg,
                "hops": list(hops),
                "device": device,
                "examples": shown_examples(cfg, hops),
            },
            runtime_env={"env_vars": worker_environment(engine, device)},
            max_restarts=engine.max_restarts,
            max_task_retries=engine.max_restarts,
        )


def shown_examples(cfg: RunConfig, hops: Sequence[str]) -> list[Example]:
    """The examples that some of the hops may show, by name: what an actor is sent stays small."""
    examples = read_examples(cfg.recipe.examples)
    shown = {e.name for hop in hops for e in named(examples, cfg.recipe.hops[hop].examples)}
    return [example for example in examples if example.name in shown]


def check_hop(cfg: RunConfig, name: str) -> None:
    """Compiles a hop's templates and draws its shot sets, as every engine will.

    Raises:
        UserError: an example, a template or the number of shots is wrong.
    """
    examples = read_examples(cfg.recipe.examples)
    HopShots(name, cfg.recipe.hops[name], examples=examples, run_seed=cfg.run_seed)


class _EngineActor:
    """One engine. Its threads each wait for a block; all rows meet on one event loop."""

    def __init__(
        self, *, cfg: RunConfig, hops: list[str], device: str, examples: list[Example]
    ) -> None:
        began = time.monotonic()
        engine = open_engine(
            cfg.engine, cfg.model, device=device, recipe=cfg.recipe, examples=examples
        )
        self._runner = RowHops(
            cfg.recipe,
            hops,
            examples=examples,
            engine=engine,
            run_seed=cfg.run_seed,
            observe=_count_hop,
        )
        self._in_flight = 0
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="rows", daemon=True).start()
        seconds = time.monotonic() - began
        log.info("engine for %s ready after %.1f s", engine.model, seconds)
        count("engine", load_seconds=seconds, engines=1)

    def __call__(self, block: pa.Table) -> pa.Table:
        rows = block.to_pylist()
        done = asyncio.run_coroutine_threadsafe(self._run_all(rows), self._loop)
        try:
            return pa.Table.from_pylist(done.result(), schema=schemas.HOPS)
        except EngineDiedError:
            # Nothing in this process can go on; Ray starts another and gives it the blocks.
            log.exception("leaving: the engine died")
            flush()
            os._exit(1)
        finally:
            flush()  # the actor is killed right after its last block

    async def _run_all(self, rows: list[Row]) -> list[Row]:
        return await asyncio.gather(*(self._run(row) for row in rows))

    async def _run(self, row: Row) -> Row:
        self._in_flight += 1
        gauge("engine", rows_in_flight=self._in_flight)
        try:
            return await self._runner.run(row)
        finally:
            self._in_flight -= 1
            gauge("engine", rows_in_flight=self._in_flight)


def _count_hop(cost: Row, went_on: bool) -> None:  # noqa: FBT001  RowHops calls it
    names = ("prompt_tokens", "cached_tokens", "output_tokens", "seconds")
    amounts = {name: cost[name] for name in names}
    count(cost["hop"], prompts=1, kept=int(went_on), dropped=int(not went_on), **amounts)
