"""quality: rows in, the same rows with their reasons out."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest

from selfalign_ray import schemas
from selfalign_ray.seeds.child import Limits
from selfalign_ray.seeds.functions import functions
from selfalign_ray.seeds.quality import judged, quality
from selfalign_ray.seeds.read import read
from tests.seeds.test_rules import rules

LIMITS = Limits(10, 2048)


def seed_row(**values) -> dict:
    return dict.fromkeys(schemas.SEED.names) | {"row_id": "r", "source": "s"} | values


def test_rows_dropped_before_pass_through():
    rows = [
        seed_row(path="a.py", drop_reason="no_functions"),
        seed_row(path="a.py", seed="def f(): pass", name="f"),
        seed_row(path="a.py", seed="def f(x): return x", name="f"),
    ]
    table = pa.Table.from_pylist(rows, schema=schemas.SEED)
    marked = judged(table, rules=rules(min_parameters=1), limits=LIMITS)
    assert marked.schema == schemas.SEED
    assert marked["drop_reason"].to_pylist() == ["no_functions", "no_parameters", None]
    assert marked.drop_columns("drop_reason") == table.drop_columns("drop_reason")


@pytest.mark.parametrize(
    ("limits", "reason"),
    [(Limits(10, 2048), "syntax_error"), (Limits(0.05, 2048), "parse_timeout")],
)
def test_a_seed_that_ends_the_parser_costs_that_seed(limits, reason):
    bad = "def f(): return [" + "1," * 500_000
    rows = [
        seed_row(path="a.py", seed=seed, name="f")
        for seed in ("def f(x): return x", bad, "def f(x): return 1")
    ]
    marked = judged(pa.Table.from_pylist(rows, schema=schemas.SEED), rules=rules(), limits=limits)
    assert marked["drop_reason"].to_pylist() == [None, reason, None]


@pytest.mark.ray
def test_real_packages_give_good_seeds(ray_local, run_config):
    cfg = run_config(
        "source=installed", "source.packages=[rich,packaging,click,jinja2]", "source.limit=null"
    )
    rows = quality(functions(read(None, cfg), cfg), cfg).take_all()
    reasons = Counter(row["drop_reason"] for row in rows)
    assert reasons[None] >= 10
    assert reasons["no_functions"] >= 10
    for row in rows:
        if row["drop_reason"] is None:
            assert row["licenses"]
            compile(row["seed"], row["path"], "exec")
