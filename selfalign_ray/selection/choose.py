"""Choose: one sample of each instruction becomes its response, or several that differ."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from ray.data import Dataset

from selfalign_ray import schemas
from selfalign_ray.blocks import by_block, with_columns
from selfalign_ray.config import RunConfig
from selfalign_ray.ids import keyed_random
from selfalign_ray.selection.config import ChooseConfig
from selfalign_ray.selection.duplicates import code_key
from selfalign_ray.validation.gates import GATED, measures_of

Row = dict[str, Any]
_COLUMNS = (
    "pass_rate",
    "difficulty_bin",
    "choice",
    "sample_index",
    "final_instruction",
    "response",
    "code",
    "tests",
)


def choose(ds: Dataset, cfg: RunConfig) -> Dataset:
    """Fills in the chosen samples, and how easy the instruction was.

    An instruction with several solutions has up to `k` rows, no two with the same code (as
    `duplicates` compares it), which differ in what this stage fills in alone. By `random`, each
    sample that can be chosen is as likely as any other, drawn by `seed_id`. By `best`, those with
    the highest scores are chosen, and of equal scores one is drawn in the same way.

    Args:
        ds: `schemas.SELECTED` rows without the columns that this stage adds.
        cfg: the section `selection.choose`.

    Returns:
        `schemas.SELECTED` rows, at least as many as came in, in any order: one with `choice` null
        or 0 for each. Drop reason: no_choice, no sample that passed is left.
    """
    run = partial(add_choices, cfg=cfg.selection.choose, run_seed=cfg.run_seed)
    return by_block(ds, run)


def add_choices(batch: pa.Table, cfg: ChooseConfig, run_seed: int) -> pa.Table:
    """The batch with the columns of the chosen samples, and drop reasons; a row for each choice."""
    names = ["seed_id", "samples", "verdicts", *GATED, "sanitised", "drop_reason"]
    rows = batch.select([name for name in names if name in batch.column_names]).to_pylist()
    chosen = [list(choices_of(row, cfg, run_seed)) for row in rows]
    batch = batch.take(pa.array(np.repeat(np.arange(len(rows)), [len(some) for some in chosen])))
    names = [*_COLUMNS, "drop_reason"]
    values = {name: [one[name] for some in chosen for one in some] for name in names}
    return with_columns(batch, schemas.SELECTED, **values)


def choices_of(row: Row, cfg: ChooseConfig, run_seed: int) -> Iterator[Row]:
    """What this stage says of one row: once, or once for each choice."""
    known: Row = {**dict.fromkeys(_COLUMNS), "drop_reason": row["drop_reason"]}
    if row["drop_reason"] is not None:
        yield known
        return
    rate = pass_rate(row)
    known["pass_rate"] = rate
    known["difficulty_bin"] = None if rate is None else bisect_right(cfg.difficulty_edges, rate)
    choices = [s for s in row["sanitised"] or () if s["drop_reason"] is None]
    if not choices:
        yield {**known, "drop_reason": "no_choice"}
        return
    samples = {sample["sample_index"]: sample for sample in row["samples"]}
    seen: set[str] = set()
    for text in _ranked(choices, row, cfg, run_seed):
        sample = samples[text["sample_index"]]
        key = code_key(sample) if cfg.k > 1 else ""
        if key in seen:
            continue
        yield {
            **known,
            "choice": len(seen),
            "sample_index": text["sample_index"],
            "final_instruction": text["instruction"],
            "response": text["response"],
            "code": sample["code"],
            "tests": sample["tests"],
        }
        seen.add(key)
        if len(seen) == cfg.k:
            return


def _ranked(choices: list[Row], row: Row, cfg: ChooseConfig, run_seed: int) -> list[Row]:
    """In a drawn order; by `best`, those of a higher score before."""
    drawn = keyed_random(run_seed, "choose", str(row["seed_id"])).sample(choices, len(choices))
    if cfg.by == "random":
        return drawn
    scores = {index: score(m, cfg.score) for index, m in measures_of(row).items()}
    return sorted(drawn, key=lambda s: -scores.get(s["sample_index"], 0.0))


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
