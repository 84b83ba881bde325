"""Engines in actors of their own: loaded once, asked by every stage and by every job of a sweep.

An engine apart from the actors through which rows stream outlives the stage that asked for it, and
when it dies, the rows it was working on have lost one prompt and not the hops behind them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ray

from selfalign_ray.engine.base import EngineDiedError, Generation, LoadedEngine, Prompt
from selfalign_ray.engine.config import EngineConfig, ModelConfig
from selfalign_ray.engine.open import open_engine
from selfalign_ray.engine.vllm_settings import worker_environment
from selfalign_ray.errors import UserError
from selfalign_ray.hops.config import RecipeConfig
from selfalign_ray.hops.shots import Example
from selfalign_ray.ids import content_id
from selfalign_ray.nodes import slivers
from selfalign_ray.watch.metrics import ENGINE, LEVELS
from selfalign_ray.watch.tally import count, flush, gauge

log = logging.getLogger(__name__)

_TICK_SECONDS = 1.0  # between two entries of what an engine costs
_FLUSH_SECONDS = 3.0  # for those that have no place, or load
_PATIENCE_SECONDS = 30.0  # between two lines about engines that have no place yet


@dataclass(frozen=True, kw_only=True)
class Opening:
    """All that an engine is made of."""

    pool: str  # engines of two pools are never shared
    engine: EngineConfig
    model: ModelConfig
    device: str
    recipe: RecipeConfig | None  # with `examples`: what the stand-in answers from
    examples: Sequence[Example]

    @property
    def gpus(self) -> int:
        """That an engine takes."""
        if self.device != "cuda":
            return 0
        return self.model.tensor_parallel_size * self.model.pipeline_parallel_size

    @property
    def most(self) -> int:
        """Engines that there may be."""
        return self.engine.max_engines or self.engine.engines

    @property
    def key(self) -> str:
        """The same for openings that one engine can serve."""
        return content_id(repr(asdict(self)))


class EngineActor:
    """One engine, which loads when it is asked to: anew after each restart."""

    def __init__(self, opening: Opening, number: int = 0) -> None:
        """Prepares to load.

        Args:
            opening: what the engine is made of.
            number: of the engine in its pool.
        """
        self._opening = opening
        self._figures = f"{ENGINE}{opening.pool}-{number}"
        self._engine: LoadedEngine | None = None
        self._cost = threading.Thread(target=self._tick, name="cost", daemon=True)
        self._cost.start()

    async def load(self) -> None:
        """Returns when the engine takes prompts.

        Raises:
            UserError: the model cannot be loaded as it is set.
        """
        if self._engine is not None:
            return
        opening, began = self._opening, time.monotonic()
        self._engine = open_engine(
            opening.engine,
            opening.model,
            device=opening.device,
            recipe=opening.recipe,
            examples=opening.examples,
        )
        seconds = time.monotonic() - began
        log.info("engine for %s ready after %.1f s", self._engine.model, seconds)
        count(self._figures, load_seconds=seconds, loads=1)

    async def generate(self, prompt: Prompt) -> Generation:
        """As Engine.generate; an engine that dies takes this process with it."""
        await self.load()  # a restart may go unnoticed where nothing was in flight
        assert self._engine is not None
        try:
            made = await self._engine.generate(prompt)
        except EngineDiedError:
            log.exception("leaving: the engine died")
            flush()
            # Nothing in this process can go on; Ray starts another.
            os._exit(1)
        count(
            self._figures,
            prompts=1,
            prompt_tokens=made.prompt_tokens,
            cached_tokens=made.cached_tokens,
            output_tokens=sum(text.output_tokens for text in made.texts),
        )
        return made

    async def flush(self) -> None:
        """Returns when all that this process has counted has arrived."""
        await asyncio.to_thread(flush)

    def _tick(self) -> None:
        last, tokens = time.monotonic(), 0.0
        while True:
            time.sleep(_TICK_SECONDS)
            now = time.monotonic()
            seconds, last = now - last, now
            gpu_seconds = seconds * self._opening.gpus
            count(self._figures, held_seconds=seconds, gpu_seconds=gpu_seconds)
            if self._engine is None:
                continue
            stats = self._engine.stats()
            known = {name: stats[name] for name in LEVELS if name in stats}
            gauge(self._figures, **known)
            # What a level is at the mean is its sum over time by the time.
            sums = {f"{name}_seconds": level * seconds for name, level in known.items()}
            count(self._figures, served_seconds=seconds, **sums)
            if more := stats.get("generated_tokens", 0) - tokens:
                # Counted as they are written and not when a sample ends: a sign of life.
                count(self._figures, generated_tokens=more)
                tokens += more


# By Opening.key: the opening, and each engine's name and actor, which lives as long as its handle
# here.
_running: dict[str, tuple[Opening, dict[int, tuple[str, Any]]]] = {}


def engines_for(opening: Opening) -> list[str]:
    """Names of the actors of the opening's engines, of which `engine.engines` are loaded.

    Those beyond them take their place when the cluster has one, which a cluster that grows by
    demand brings about. Engines that run already are given as they are, and those that have died as
    often as they may are begun anew: the fleet waits for whatever loads.

    Raises:
        UserError: the model cannot be loaded.
    """
    _, engines = _running.setdefault(opening.key, (opening, {}))
    gone = [n for n in range(opening.most) if n not in engines or not _is_there(engines[n][0])]
    for number in gone:
        name = f"engine-{uuid.uuid4().hex}"  # Ray takes a moment to forget one that was killed
        engines[number] = name, _start(opening, name, number)
    if len(gone) == len(engines):
        try:
            _wait([actor for _, actor in engines.values()], opening)
        except BaseException:
            stop_engines()
            raise
    return [name for name, _ in engines.values()]


def held_cpus() -> float:
    """Logical CPUs that the engines which run reserve; less those that may still join."""
    return sum(opening.engine.engines * opening.engine.num_cpus for opening, _ in _running.values())


def flush_engines() -> None:
    """Waits until all that the engines have counted has arrived, for none of them long."""
    actors = [actor for _, engines in _running.values() for _, actor in engines.values()]
    if actors:
        asked = [actor.flush.remote() for actor in actors]
        ray.wait(asked, num_returns=len(asked), timeout=_FLUSH_SECONDS)


def stop_engines(*, but: Collection[str] = ()) -> None:
    """Ends the engines that run, but those with these keys, and frees what they hold."""
    for key in [key for key in _running if key not in but]:
        for _, engine in _running.pop(key)[1].values():
            ray.kill(engine)


def _start(opening: Opening, name: str, number: int) -> Any:
    engine = opening.engine
    return (
        ray.remote(EngineActor)
        .options(
            name=name,
            num_cpus=engine.num_cpus,
            num_gpus=opening.gpus,
            resources=slivers(engine.resources),
            max_restarts=engine.max_restarts,
            max_task_retries=0,  # the fleet decides what is asked again
            max_concurrency=2 * engine.rows_in_flight,
            runtime_env={"env_vars": worker_environment(engine, opening.device)},
        )
        .remote(opening, number)
    )


def _is_there(name: str) -> bool:
    try:
        ray.get_actor(name)
    except ValueError:
        return False
    return True


def _wait(engines: Sequence[Any], opening: Opening) -> None:
    waiting = [engine.load.remote() for engine in engines]
    missing = opening.engine.engines
    while missing > 0:
        ready, waiting = ray.wait(waiting, num_returns=1, timeout=_PATIENCE_SECONDS)
        if not ready and not _has_place(opening):
            log.warning(
                "waiting for room for %d more engines, each with %g GPUs of one node and %g CPUs; "
                "model.tensor_parallel_size times model.pipeline_parallel_size is that many GPUs",
                missing,
                opening.gpus,
                opening.engine.num_cpus,
            )
        for reference in ready:
            try:
                ray.get(reference)
            except ray.exceptions.RayActorError as error:
                raise UserError(
                    f"model.id={opening.model.id}: the engine's process died while it loaded, for "
                    "want of memory in most cases; see pipeline.log. A smaller "
                    "model.max_model_len, engine.cpu_kv_cache_gb or engine.gpu_memory_utilization "
                    "takes less"
                ) from error
        missing -= len(ready)


def _has_place(opening: Opening) -> bool:
    """Whether the engines that are not ready load, rather than wait for a machine."""
    if not opening.gpus:
        return True
    # An engine of another pool holds its GPUs for as long as it may be asked.
    others = sum(one.engine.engines * one.gpus for one, _ in _running.values() if one != opening)
    room = places(ray.nodes(), opening.gpus) - others / opening.gpus
    return room >= opening.engine.engines


def places(nodes: Sequence[dict[str, Any]], gpus: int) -> float:
    """Engines of so many GPUs that the nodes hold: all GPUs of an engine are on one node."""
    alive = [node["Resources"].get("GPU", 0) for node in nodes if node["Alive"]]
    return float(sum(there // gpus for there in alive))
