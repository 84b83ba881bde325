"""quality: static rules that a seed must meet, asked in order; the first that fails is the reason.

The rules themselves are in rules.py.
"""

from __future__ import annotations

from functools import partial

import pyarrow as pa
from ray.data import Dataset

from selfalign_ray import schemas
from selfalign_ray.blocks import by_block, with_columns
from selfalign_ray.config import RunConfig
from selfalign_ray.seeds.child import Died, Limits, answers
from selfalign_ray.seeds.config import QualityConfig
from selfalign_ray.seeds.functions import limits_of
from selfalign_ray.seeds.rules import fault
from selfalign_ray.withdrawn import withdrawn_of, without_withdrawn


def quality(ds: Dataset, cfg: RunConfig) -> Dataset:
    """Marks the seeds that fail a rule of the section `seeds.quality`.

    Args:
        ds: `schemas.SEED` rows.
        cfg: the run's settings.

    Returns:
        The same rows; rows dropped before pass through. Drop reasons: is_test, syntax_error,
        those that QualityConfig names beside its rules, those of a seed that ends the parser
        (see `functions`), and withdrawn, which empties the row.
    """
    judge = partial(judged, rules=cfg.seeds.quality, limits=limits_of(cfg.seeds.functions))
    rows = by_block(ds, judge, concurrency=cfg.seeds.concurrency)
    return without_withdrawn(rows, withdrawn_of(cfg))


def judged(seeds: pa.Table, *, rules: QualityConfig, limits: Limits) -> pa.Table:
    """A block of seeds with the reasons filled in."""
    reasons = seeds["drop_reason"].to_pylist()
    columns = [seeds[name].to_pylist() for name in ("seed", "name", "path")]
    places = [place for place, reason in enumerate(reasons) if reason is None]
    items = (tuple(column[place] for column in columns) for place in places)
    found = answers(partial(fault, rules=rules), items, limits)
    for place, answer in zip(places, found, strict=True):
        reasons[place] = answer.reason if isinstance(answer, Died) else answer
    return with_columns(seeds, schemas.SEED, drop_reason=reasons)
