"""What each engine of a run did, out of what the saved stages counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selfalign_ray.report.saved import SavedStage
from selfalign_ray.watch.metrics import ENGINE


@dataclass
class Level:
    """Something of an engine that goes up and down, over the time since it was loaded."""

    mean: float
    most: float  # that was seen


@dataclass
class EngineFigures:
    """One engine over the saved stages that asked it. A level that it does not tell is None."""

    loads: int = 0  # so that one that was restarted has several
    load_seconds: float = 0.0
    held_seconds: float = 0.0
    gpu_seconds: float = 0.0
    prompts: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    running: Level | None = None  # samples that decode
    waiting: Level | None = None  # samples that wait in the engine
    kv_cache_usage: Level | None = None  # share of the KV cache


def counted_by(stage: SavedStage, name: str) -> Mapping[str, float]:
    found: Mapping[str, float] = stage.manifest.get("figures", {}).get(name, {})
    return found


def engine_figures(stages: Sequence[SavedStage]) -> dict[str, EngineFigures]:
    sums: dict[str, dict[str, float]] = {}
    most: dict[str, dict[str, float]] = {}
    for stage in stages:
        for name in stage.manifest.get("figures", {}):
            if not name.startswith(ENGINE):
                continue
            engine = name.removeprefix(ENGINE)
            counted, levels = sums.setdefault(engine, {}), most.setdefault(engine, {})
            for amount, number in counted_by(stage, name).items():
                if amount.endswith("_most"):
                    levels[amount] = max(levels.get(amount, number), number)
                else:
                    counted[amount] = counted.get(amount, 0) + number
    return {engine: _engine(sums[engine], most[engine]) for engine in sorted(sums)}


def _engine(sums: Mapping[str, float], most: Mapping[str, float]) -> EngineFigures:
    def level(name: str) -> Level | None:
        seconds, highest = sums.get("served_seconds"), most.get(f"{name}_most")
        if not seconds or highest is None:
            return None
        return Level(mean=sums.get(f"{name}_seconds", 0.0) / seconds, most=highest)

    return EngineFigures(
        loads=int(sums.get("loads", 0)),
        load_seconds=sums.get("load_seconds", 0.0),
        held_seconds=sums.get("held_seconds", 0.0),
        gpu_seconds=sums.get("gpu_seconds", 0.0),
        prompts=int(sums.get("prompts", 0)),
        prompt_tokens=int(sums.get("prompt_tokens", 0)),
        cached_tokens=int(sums.get("cached_tokens", 0)),
        output_tokens=int(sums.get("output_tokens", 0)),
        running=level("running"),
        waiting=level("waiting"),
        kv_cache_usage=level("kv_cache_usage"),
    )
