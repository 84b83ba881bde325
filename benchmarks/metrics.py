"""The part `metrics` of bench_selection.py: what the static measures of a passing sample cost.

The samples are functions and classes of 20 to 32 lines out of Python's library, each with five
asserts and an instruction that names it; what pycodestyle and radon take of that alone is measured
in turn with it, round by round.
"""

from __future__ import annotations

import ast
import os
import random
import statistics
import sys
import sysconfig
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
from hydra import compose, initialize_config_dir
from radon.complexity import add_inner_blocks
from radon.visitors import ComplexityVisitor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from selfalign_ray import schemas
from selfalign_ray.config import conf_dir, register_schemas, typed
from selfalign_ray.validation.definitions import parse
from selfalign_ray.validation.metrics import add_metrics, style

Figures = dict[str, Any]
LINES = range(20, 33)
KINDS = (ast.FunctionDef, ast.ClassDef)


def metrics(rounds: int, samples: int = 256) -> Figures:
    """metrics_per_second_per_core: samples whose every static measure is taken."""
    register_schemas()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        places = ["runs_root=/nowhere", "run_dir=/nowhere/x"]
        section = typed(compose("run", overrides=places)).validation.metrics
    codes = definitions_of_the_library(samples)
    table = table_of(codes)
    ours, alone = [], []
    for _ in range(rounds + 1):  # the first fills caches
        began = cpu_seconds()
        found = add_metrics(table, section)
        ours.append((cpu_seconds() - began) / samples)
        began = cpu_seconds()
        for code in codes:
            style(code, section)
            tree = parse(code)
            assert tree is not None
            add_inner_blocks(ComplexityVisitor.from_ast(tree).blocks)
        alone.append((cpu_seconds() - began) / samples)
    measured = [m for row in found["metrics"].to_pylist() for m in row]
    assert len(measured) == samples
    return {
        "metrics_per_second_per_core": round(1 / statistics.median(ours[1:]), 1),
        "metrics": {
            "samples": samples,
            "lines_mean": round(statistics.mean(m["lines"] for m in measured), 1),
            "milliseconds": [round(1e3 * seconds, 2) for seconds in ours[1:]],
            "pycodestyle_and_radon_milliseconds": [round(1e3 * s, 2) for s in alone[1:]],
        },
    }


def cpu_seconds() -> float:
    """Of this process and of the checkers that it has run and waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def definitions_of_the_library(count: int) -> list[str]:
    """So many, drawn with a seed."""
    found: list[str] = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        source = path.read_text(encoding="utf-8")
        with warnings.catch_warnings(action="ignore"):
            body = ast.parse(source).body
        texts = [ast.get_source_segment(source, node) for node in body if isinstance(node, KINDS)]
        found += [text for text in texts if text and text.count("\n") + 1 in LINES]
    return random.Random(0).sample(found, count)


def table_of(codes: list[str]) -> pa.Table:
    """One row and one passing sample each."""
    rows = []
    for code in codes:
        node = ast.parse(code).body[0]
        assert isinstance(node, KINDS)
        tests = "\n".join(f"assert {node.name}({n}) == {n + 1}" for n in range(5))
        rows.append(
            {
                "instruction": f"Write `{node.name}`. It takes `value` and returns a list.",
                "samples": [{"sample_index": 0, "code": code, "tests": tests}],
                "verdicts": [{"sample_index": 0, "verdict": "passed"}],
                "drop_reason": None,
            }
        )
    fields = [schemas.EXECUTED.field(name) for name in rows[0]]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))
