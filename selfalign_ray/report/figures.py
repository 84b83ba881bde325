"""Rates, tokens, verdicts, costs and diversity of a run, out of its saved rows and manifests."""

from __future__ import annotations

import dataclasses
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selfalign_ray.config import RunConfig
from selfalign_ray.engine.standin import STANDIN
from selfalign_ray.hops.generate import pools_of
from selfalign_ray.report.engines import EngineFigures, counted_by, engine_figures
from selfalign_ray.report.exports import dataset_stage
from selfalign_ray.report.hops import HopFigures, has_hops, hop_figures, work_seconds
from selfalign_ray.report.saved import SavedStage, holding, last_seen
from selfalign_ray.validation.gates import GATED, measures_of

NOT_EXECUTED = "not executed"
NO_LICENSE = "none found"  # what a row without a licence counts as
MEASURES = (
    "lines",
    "asserts",
    "pep8_per_line",
    "type_coverage",
    "docstring_coverage",
    "complexity_max",
    "killed_share",
    "line_coverage",
    "branch_coverage",
)
SANDBOXED = ("execution", "strength", "cross_execution")  # the stages that run programs


@dataclass
class Spread:
    """One measure over the data set."""

    mean: float
    least: float
    median: float
    most: float


@dataclass
class Figures:
    """What the report says in numbers. A share is None where there is nothing to share."""

    stage_seconds: dict[str, float] = field(default_factory=dict)  # by saved stage
    hops: dict[str, HopFigures] = field(default_factory=dict)
    load_seconds: float = 0.0  # of models, summed over engines
    engines: int = 0  # loads, so that one that was restarted counts twice
    held_seconds: float = 0.0  # of engines, from their start to their end, summed
    gpu_seconds: float = 0.0  # of the GPUs that they held
    hop_seconds: float = 0.0  # wall time of the saved stages that ask engines, loading included
    each: dict[str, EngineFigures] = field(default_factory=dict)  # by engine, pool and number
    rows_in_flight_mean: float | None = None  # at the engines, over those stages less their start
    rows_in_flight_most: float | None = None
    sandbox_cpu_seconds: float = 0.0
    samples: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)  # samples by verdict, most first
    not_executed: dict[str, int] = field(default_factory=dict)  # samples by drop_reason
    executed_rows: int = 0
    passed_rows: int = 0  # with at least one passing sample
    refused: dict[str, int] = field(default_factory=dict)  # passing samples, by what refused them
    vacuous_share: float | None = None  # of passing samples whose asserts are all trivial
    distinct_concepts: float | None = None  # distinct lists as a share of lists
    distinct_instructions: float | None = None
    measures: dict[str, Spread] = field(default_factory=dict)  # of the data set's samples
    licenses: dict[str, int] = field(default_factory=dict)  # rows of the data set, most first
    models: dict[str, int] = field(default_factory=dict)  # rows by the model that wrote them
    accepted: int = 0

    @property
    def output_tokens(self) -> int:
        return sum(hop.output_tokens for hop in self.hops.values())

    @property
    def cached_share(self) -> float | None:
        asked = sum(hop.prompt_tokens for hop in self.hops.values())
        cached = sum(hop.cached_tokens for hop in self.hops.values())
        return cached / asked if asked else None

    @property
    def tokens_per_second(self) -> float | None:
        """Written tokens over the hops' wall time, loading included."""
        return self.output_tokens / self.hop_seconds if self.hop_seconds else None

    @property
    def passed_share(self) -> float | None:
        """Of all samples."""
        return self.verdicts.get("passed", 0) / self.samples if self.samples else None

    @property
    def accepted_per_engine_hour(self) -> float | None:
        """Rows of the data set for an hour of an engine, loading included; None without engines."""
        return self.accepted / (self.held_seconds / 3600) if self.held_seconds else None

    @property
    def accepted_per_gpu_hour(self) -> float | None:
        """Rows of the data set for an hour of a GPU, loading included; None without GPUs."""
        return self.accepted / (self.gpu_seconds / 3600) if self.gpu_seconds else None


def is_standin(cfg: RunConfig, figures: Figures) -> bool:
    """Whether the stand-in engine wrote or judged any row."""
    asked = {engine.kind for _, engine in pools_of(cfg).values()} if figures.hops else set()
    return STANDIN in asked or STANDIN in figures.models


def take_figures(stages: Sequence[SavedStage]) -> Figures:
    """Reads manifests and rows."""
    figures = Figures(stage_seconds={s.name: float(s.manifest["seconds"]) for s in stages})
    for stage in stages:
        figures.sandbox_cpu_seconds += sandbox_amount(stage, "cpu_seconds")
        if has_hops(stage):
            figures.hop_seconds += float(stage.manifest["seconds"])
    _take_in_flight(figures, stages)
    figures.each = engine_figures(stages)
    for engine in figures.each.values():
        figures.load_seconds += engine.load_seconds
        figures.engines += engine.loads
        figures.held_seconds += engine.held_seconds
        figures.gpu_seconds += engine.gpu_seconds
    figures.hops, models = hop_figures(stages)
    figures.models = most_first(models)
    _take_samples(figures, stages)
    _take_dataset(figures, stages)
    figures.distinct_concepts = _distinct(stages, "concepts")
    figures.distinct_instructions = _distinct(stages, "instruction")
    return figures


def sandbox_amount(stage: SavedStage, amount: str) -> float:
    """What the sandboxes of a saved stage's group have counted."""
    return sum(counted_by(stage, name).get(amount, 0.0) for name in SANDBOXED)


def _take_in_flight(figures: Figures, stages: Sequence[SavedStage]) -> None:
    seen = [
        (engine["rows_in_flight_mean"], engine["rows_in_flight_most"], work_seconds(stage))
        for stage in stages
        if "rows_in_flight_mean" in (engine := counted_by(stage, "engine"))
    ]
    if seconds := sum(weight for _, _, weight in seen):
        figures.rows_in_flight_mean = sum(mean * weight for mean, _, weight in seen) / seconds
        figures.rows_in_flight_most = max(most for _, most, _ in seen)


def _take_samples(figures: Figures, stages: Sequence[SavedStage]) -> None:
    verdicts: Counter[str] = Counter()
    unexecuted: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    vacuous = measured = 0
    columns = ["samples", "verdicts", *GATED]
    for batch in last_seen(stages, ("responses", "execution", *GATED), columns):
        for row in _slim(batch).to_pylist():
            figures.samples += len(row["samples"] or ())
            unexecuted.update(reason for reason in row["samples"] or () if reason)
            found = row["verdicts"] or ()
            verdicts.update(verdict or NOT_EXECUTED for verdict in found)
            figures.executed_rows += bool(found)
            figures.passed_rows += "passed" in found
            gates = (measures["gate"] for measures in measures_of(row).values())
            refused.update(gate for gate in gates if gate)
            for metric in row["metrics"] or ():
                if metric["asserts"] is not None:
                    measured += 1
                    vacuous += metric["asserts"] <= (metric["trivial_asserts"] or 0)
    figures.verdicts = most_first(verdicts)
    figures.not_executed = most_first(unexecuted)
    if (selected := holding(stages, "sanitise")) is not None:
        for batch in selected.batches(["sanitised", "choice"]):
            for row in batch.to_pylist():
                if not row["choice"]:  # the further choices of a row have the same samples
                    reasons = (s["drop_reason"] for s in row["sanitised"] or ())
                    refused.update(reason for reason in reasons if reason)
    figures.refused = most_first(refused)
    figures.vacuous_share = vacuous / measured if measured else None


def _slim(batch: pa.Table) -> pa.Table:
    """Samples as their drop reasons and verdicts as their names: without the texts."""
    for column, wanted in (("samples", "drop_reason"), ("verdicts", "verdict")):
        lists = batch[column]
        if pa.types.is_list(lists.type):
            parts = [_member(chunk, wanted) for chunk in lists.chunks]
            place = batch.column_names.index(column)
            batch = batch.set_column(place, column, pa.chunked_array(parts))
    return batch


def _member(lists: pa.ListArray, name: str) -> pa.ListArray:
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values = pc.struct_field(pc.list_flatten(lists), name)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _take_dataset(figures: Figures, stages: Sequence[SavedStage]) -> None:
    stage = dataset_stage(stages)
    if stage is None:
        return
    licenses: Counter[str] = Counter()
    measured = {name: array("d") for name in MEASURES}  # a list would take four times as much
    for batch in stage.batches(["licenses", "sample_index", *GATED], dropped=False):
        figures.accepted += batch.num_rows
        for row in batch.to_pylist():
            licenses.update(row["licenses"] or [NO_LICENSE])
            for name, number in measures_of(row).get(row["sample_index"], {}).items():
                if name in measured and number is not None:
                    measured[name].append(number)
    figures.licenses = most_first(licenses)
    figures.measures = {name: _spread(values) for name, values in measured.items() if values}


def most_first(counts: Counter[str]) -> dict[str, int]:
    """The counts, the highest first, equal ones by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _spread(values: Sequence[float]) -> Spread:
    numbers = np.asarray(values, dtype=np.float64)
    return Spread(
        mean=float(numbers.mean()),
        least=float(numbers.min()),
        median=float(np.median(numbers)),
        most=float(numbers.max()),
    )


def _distinct(stages: Sequence[SavedStage], column: str) -> float | None:
    """The share of distinct values: equal but for case, white space and, in lists, order."""
    stage = holding(stages, column)
    if stage is None:
        return None
    hashes = np.fromiter(_hashes(stage, column), dtype=np.int64)
    return len(np.unique(hashes)) / len(hashes) if len(hashes) else None


def _hashes(stage: SavedStage, column: str) -> Iterator[int]:
    for batch in stage.batches([column]):
        for row in batch.to_pylist():
            value = row[column]
            if isinstance(value, str):
                yield hash(_plain(value))
            elif value:
                yield hash(frozenset(map(_plain, value)))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def as_data(figures: Figures) -> dict[str, object]:
    """The figures as plain data for the manifest."""
    hops = {
        name: dataclasses.asdict(hop)
        | {
            "cached_share": hop.cached_share,
            "tokens_per_second": hop.tokens_per_second,
            "in_flight": hop.in_flight,
        }
        for name, hop in figures.hops.items()
    }
    return dataclasses.asdict(figures) | {
        "hops": hops,
        "output_tokens": figures.output_tokens,
        "cached_share": figures.cached_share,
        "tokens_per_second": figures.tokens_per_second,
        "passed_share": figures.passed_share,
        "accepted_per_engine_hour": figures.accepted_per_engine_hour,
        "accepted_per_gpu_hour": figures.accepted_per_gpu_hour,
    }
