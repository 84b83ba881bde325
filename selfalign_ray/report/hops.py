"""What each hop asked of the engines and what that cost, out of the saved rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from selfalign_ray.hops.config import HOP_NAMES, JUDGES, in_first_round
from selfalign_ray.report.engines import counted_by
from selfalign_ray.report.saved import SavedStage, holding, last_seen

_HOP_AMOUNTS = ("prompt_tokens", "cached_tokens", "output_tokens", "seconds")


@dataclass
class HopFigures:
    """One hop over all rows that it asked the engine for."""

    prompts: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompts, from the prefix cache
    output_tokens: int = 0
    seconds: float = 0.0  # of waiting, summed over prompts; many wait at once
    work_seconds: float = 0.0  # wall time of the saved stages it is part of, less their start

    @property
    def cached_share(self) -> float | None:
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else None

    @property
    def tokens_per_second(self) -> float | None:
        """Written tokens over the time that the hop shares with the others of its stage."""
        return self.output_tokens / self.work_seconds if self.work_seconds else None

    @property
    def in_flight(self) -> float | None:
        """Prompts of the hop that the engines had at the mean: Little's law."""
        return self.seconds / self.work_seconds if self.work_seconds else None


def has_hops(stage: SavedStage) -> bool:
    """Whether a saved stage holds what engines did: hops, further rounds of them, judges."""
    return any(hop_of(name) or name in JUDGES for name in stage.group)


def hop_of(stage: str) -> str | None:
    """The hop that a stage runs, `responses` also of `responses_2`; None where it runs none."""
    name = in_first_round(stage)
    return name if name in HOP_NAMES else None


def work_seconds(stage: SavedStage) -> float:
    """Of a saved stage, less its start where that was seen."""
    manifest = stage.manifest
    seen = manifest.get("work_seconds")
    return float(manifest["seconds"] if seen is None else seen)


def hop_figures(stages: Sequence[SavedStage]) -> tuple[dict[str, HopFigures], Counter[str]]:
    """By hop, judges among them, what it cost; and how many rows each model wrote."""
    found = {}
    for hop in HOP_NAMES:
        running = [stage for stage in stages if hop in map(hop_of, stage.group)]
        if running:
            found[hop] = HopFigures(work_seconds=sum(map(work_seconds, running)))
    models: Counter[str] = Counter()
    asking = [name for stage in stages for name in stage.group if hop_of(name)]
    if not asking:  # rows that were made elsewhere say who wrote them
        asking = [name for stage in stages[:1] for name in stage.group]
    for batch in last_seen(stages, asking, ["hops", "model"]):
        models.update(model for model in batch["model"].to_pylist() if model)
        if not pa.types.is_list(batch["hops"].type):
            continue
        costs = pa.Table.from_struct_array(pc.list_flatten(batch["hops"]).combine_chunks())
        sums = costs.group_by("hop").aggregate(
            [("hop", "count"), *((amount, "sum") for amount in _HOP_AMOUNTS)]
        )
        for row in sums.to_pylist():
            if (into := found.get(row["hop"])) is None:
                continue
            into.prompts += row["hop_count"]
            into.prompt_tokens += row["prompt_tokens_sum"] or 0
            into.cached_tokens += row["cached_tokens_sum"] or 0
            into.output_tokens += row["output_tokens_sum"] or 0
            into.seconds += row["seconds_sum"] or 0.0
    found |= _scoring(stages)
    return found, models


def _scoring(stages: Sequence[SavedStage]) -> Iterator[tuple[str, HopFigures]]:
    """What the judges asked: their rows do not say, so by what they counted."""
    for name in JUDGES:
        if (stage := holding(stages, name)) is not None:
            said = counted_by(stage, name)
            yield (
                name,
                HopFigures(
                    prompts=int(said.get("prompts", 0)),
                    prompt_tokens=int(said.get("prompt_tokens", 0)),
                    cached_tokens=int(said.get("cached_tokens", 0)),
                    seconds=said.get("seconds", 0.0),
                    work_seconds=work_seconds(stage),
                ),
            )
