"""The run's figures as Prometheus metrics: the tally exports them through Ray's metrics agent.

Ray serves them on each node's metrics port under `ray_<name>`, counters with `_total` behind it,
and lists the nodes in the file that Prometheus discovers them by. A node has that agent where
`ray[default]` is installed, as in Ray's images; elsewhere nothing is exported and nothing fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from selfalign_ray.sandbox.verdict import VERDICTS
from selfalign_ray.watch.outbox import Figures

PREFIX = "selfalign_"
COUNTER, GAUGE = "counter", "gauge"
ROWS = ".rows"  # figures of `<stage>.rows`: rows by drop_reason and `kept`, as they leave
ENGINE = "engine:"  # figures of `engine:<pool>-<number>`: those of one engine
LEVELS = ("running", "waiting", "kv_cache_usage")  # of an engine: what goes up and down
TIME = "time"  # figures of the driver's: `<stage>.left_seconds` and the like
_HOLD_SECONDS = 2.0  # between two settings of the gauges
_TOKENS = {"prompt_tokens": "prompt", "cached_tokens": "cached", "output_tokens": "output"}


class Metric(NamedTuple):
    """One metric; all have the tag `run` besides."""

    kind: str
    tags: tuple[str, ...]
    about: str


# By name without the prefix.
METRICS = {
    "rows": Metric(
        COUNTER, ("stage", "reason"), "rows that left a saved stage; reason=kept: all well"
    ),
    "hop_rows": Metric(COUNTER, ("stage", "outcome"), "rows that a hop kept or dropped"),
    "prompts": Metric(COUNTER, ("stage",), "prompts that the engines answered"),
    "tokens": Metric(
        COUNTER, ("stage", "kind"), "prompt, of them cached, and output tokens of a hop"
    ),
    "wait_seconds": Metric(COUNTER, ("stage",), "that rows waited for a hop, summed"),
    "verdicts": Metric(COUNTER, ("stage", "verdict"), "samples that were executed"),
    "sandbox_runs": Metric(COUNTER, ("stage",), "programs run beyond the samples themselves"),
    "sandbox_cpu_seconds": Metric(COUNTER, ("stage",), "CPU time of programs in sandboxes"),
    "engine_loads": Metric(COUNTER, ("engine",), "times that an engine was loaded"),
    "engine_load_seconds": Metric(COUNTER, ("engine",), "that loading took"),
    "engine_held_seconds": Metric(COUNTER, ("engine",), "that an engine was there"),
    "engine_gpu_seconds": Metric(COUNTER, ("engine",), "of the GPUs that an engine held"),
    "engine_tokens": Metric(COUNTER, ("engine", "kind"), "prompt, cached and output tokens"),
    "rows_in_flight": Metric(GAUGE, ("stage",), "rows that engines or sandboxes have"),
    "engine_running_samples": Metric(GAUGE, ("engine",), "samples that decode now"),
    "engine_waiting_samples": Metric(GAUGE, ("engine",), "samples that wait in the engine"),
    "engine_kv_cache_usage_ratio": Metric(GAUGE, ("engine",), "share of the KV cache in use"),
    "stage_expected_rows": Metric(GAUGE, ("stage",), "rows that come into the running stage"),
    "stage_left_seconds": Metric(GAUGE, ("stage",), "that the running stage will still take"),
    "stage_end_timestamp_seconds": Metric(GAUGE, ("stage",), "estimated end, since the epoch"),
}

Reading = tuple[str, tuple[str, ...], float]  # metric, values of its tags, number


def readings(figures: Figures) -> Iterator[Reading]:
    """What the figures of the tally, counters or gauges, say of each metric."""
    for stage, amounts in figures.items():
        if stage.endswith(ROWS):
            for reason, number in amounts.items():
                yield "rows", (stage.removesuffix(ROWS), reason), number
        elif stage.startswith(ENGINE):
            yield from _of_engine(stage.removeprefix(ENGINE), amounts)
        elif stage == TIME:
            for key, number in amounts.items():
                name, _, what = key.rpartition(".")
                yield f"stage_{what}", (name,), number
        elif stage == "engine":
            if "rows_in_flight" in amounts:
                yield "rows_in_flight", ("hops",), amounts["rows_in_flight"]
        else:
            yield from _of_stage(stage, amounts)


def _of_engine(engine: str, amounts: Mapping[str, float]) -> Iterator[Reading]:
    names = {
        "loads": "engine_loads",
        "load_seconds": "engine_load_seconds",
        "held_seconds": "engine_held_seconds",
        "gpu_seconds": "engine_gpu_seconds",
        "running": "engine_running_samples",
        "waiting": "engine_waiting_samples",
        "kv_cache_usage": "engine_kv_cache_usage_ratio",
    }
    for amount, number in amounts.items():
        if amount in names:
            yield names[amount], (engine,), number
        elif amount in _TOKENS:
            yield "engine_tokens", (engine, _TOKENS[amount]), number


def _of_stage(stage: str, amounts: Mapping[str, float]) -> Iterator[Reading]:
    is_hop = "prompts" in amounts or "prompt_tokens" in amounts
    for amount, number in amounts.items():
        if amount in _TOKENS:
            yield "tokens", (stage, _TOKENS[amount]), number
        elif amount in VERDICTS:
            yield "verdicts", (stage, amount), number
        elif amount in ("kept", "dropped") and is_hop:
            yield "hop_rows", (stage, amount), number
        elif amount == "seconds" and is_hop:
            yield "wait_seconds", (stage,), number
        elif amount in ("prompts", "rows_in_flight"):
            yield amount, (stage,), number
        elif amount == "runs":
            yield "sandbox_runs", (stage,), number
        elif amount == "cpu_seconds":
            yield "sandbox_cpu_seconds", (stage,), number


class Exported:
    """The metrics of one run, in the process that exports them."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._made: dict[str, Any] = {}
        self._set: set[tuple[str, tuple[str, ...]]] = set()  # gauges that are not 0
        self._held = 0.0  # when they were set

    def add(self, counts: Figures) -> None:
        """Counts on."""
        for name, tags, number in readings(counts):
            if number > 0 and METRICS[name].kind == COUNTER:
                self._metric(name).inc(float(number), self._tags(name, tags))

    def hold(self, gauges: Callable[[], Figures]) -> None:
        """Sets the gauges, now and then; those that nobody says any more are 0."""
        now = time.monotonic()
        if now - self._held < _HOLD_SECONDS:
            return
        self._held = now
        said: set[tuple[str, tuple[str, ...]]] = set()
        for name, tags, number in readings(gauges()):
            if METRICS[name].kind == GAUGE:
                said.add((name, tags))
                self._metric(name).set(number, self._tags(name, tags))
        for name, tags in self._set - said:
            self._metric(name).set(0, self._tags(name, tags))
        self._set = said

    def _metric(self, name: str) -> Any:
        from ray.util.metrics import Counter, Gauge

        if name not in self._made:
            metric = METRICS[name]
            kind = Counter if metric.kind == COUNTER else Gauge
            self._made[name] = kind(
                f"{PREFIX}{name}", description=metric.about, tag_keys=("run", *metric.tags)
            )
        return self._made[name]

    def _tags(self, name: str, values: tuple[str, ...]) -> dict[str, str]:
        return {"run": self._run, **dict(zip(METRICS[name].tags, values, strict=True))}
