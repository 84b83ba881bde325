"""Choose: one sample of each instruction becomes its response."""

from __future__ import annotations

from functools import partial
from typing import Any

import pyarrow as pa
from ray.data import Dataset

from selfalign_ray import schemas
from selfalign_ray.config import RunConfig
from selfalign_ray.ids import keyed_random
from selfalign_ray.selection.config import ChooseConfig
from selfalign_ray.validation.gates import GATED, measures_of

Row = dict[str, Any]
_COLUMNS = ("pass_rate", "sample_index", "final_instruction", "response", "code", "tests")


def choose(ds: Dataset, cfg: RunConfig) -> Dataset:
    """Fills in the chosen sample, and `pass_rate`: how easy the instruction was.

    By `random`, each sample that can be chosen is as likely as any other, drawn by `seed_id`. By
    `best`, one with the highest score is drawn in the same way.

    Args:
        ds: `schemas.SELECTED` rows without the columns that this stage adds.
        cfg: the section `selection.choose`.

    Returns:
        `schemas.SELECTED` rows, as many as came in, in any order. Drop reason: no_choice, no
        sample that passed is left.
    """
    run = partial(add_choice, cfg=cfg.selection.choose, run_seed=cfg.run_seed)
    return ds.map_batches(run, batch_size=None, batch_format="pyarrow")


def add_choice(batch: pa.Table, cfg: ChooseConfig, run_seed: int) -> pa.Table:
    """The batch with the columns of the chosen samples, and drop reasons."""
    names = ["seed_id", "samples", "verdicts", *GATED, "sanitised", "drop_reason"]
    known = batch.select([name for name in names if name in batch.column_names])
    chosen = [chosen_columns(row, cfg, run_seed) for row in known.to_pylist()]
    columns = dict(zip(batch.column_names, batch.columns, strict=True))
    for name in (*_COLUMNS, "drop_reason"):
        values = [row[name] for row in chosen]
        columns[name] = pa.array(values, schemas.SELECTED.field(name).type)
    return pa.table(columns)


def chosen_columns(row: Row, cfg: ChooseConfig, run_seed: int) -> Row:
    """What this stage says of one row."""
    nothing: Row = dict.fromkeys(_COLUMNS)
    if row["drop_reason"] is not None:
        return {**nothing, "drop_reason": row["drop_reason"]}
    rate = pass_rate(row)
    choices = [s for s in row["sanitised"] or () if s["drop_reason"] is None]
    if not choices:
        return {**nothing, "pass_rate": rate, "drop_reason": "no_choice"}
    if cfg.by == "best":
        scores = {index: score(m, cfg.score) for index, m in measures_of(row).items()}
        best = max(scores.get(s["sample_index"], 0.0) for s in choices)
        choices = [s for s in choices if scores.get(s["sample_index"], 0.0) == best]
    text = keyed_random(run_seed, "choose", str(row["seed_id"])).choice(choices)
    sample = next(s for s in row["samples"] if s["sample_index"] == text["sample_index"])
    return {
        "pass_rate": rate,
        "sample_index": text["sample_index"],
        "final_instruction": text["instruction"],
        "response": text["response"],
        "code": sample["code"],
        "tests": sample["tests"],
        "drop_reason": None,
    }


def score(metrics: Row, weights: dict[str, float]) -> float:
    """The weighted sum of a sample's measures; one that is null counts as 0."""
    return sum(weight * (metrics.get(name) or 0) for name, weight in weights.items())


def pass_rate(row: Row) -> float | None:
    """The share of the samples that passed, those apart on which the sandbox failed.

    A sample that could not be executed has not passed. None where no sample counts.
    """
    verdicts = [verdict["verdict"] for verdict in row["verdicts"] or ()]
    count = len(row["samples"] or ()) - verdicts.count("infra")
    return verdicts.count("passed") / count if count > 0 else None
