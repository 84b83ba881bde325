"""What validation and selection cost: measures, test strength, and the novelty filter.

metrics       the static measures of passing samples (metrics.py)
strength      stubs, mutants and coverage in the sandbox, a passing sample (strength.py)
novelty       5,000 instructions: the stage's arithmetic beside a loop that measures every
              instruction against every one kept so far, by the package rouge-score
novelty_100k  100,000 instructions through the stage, as a Ray job of the machine's cores

The instructions are made of sentences in the docstrings of installed packages, with a seed; one in
five is a near-copy of an earlier one, on either side of the threshold. rouge-score takes nearly
half a millisecond a pair, 5,000 instructions thus more than an hour: by default it is measured on
the first --reference-rows of them and its time scaled by the number of pairs, which is counted. The
decisions are then compared with rouge-score's on those rows, and on all rows with those of the same
loop with its subsequence from rapidfuzz. --reference-rows 5000 measures the loop whole.

Each part runs alone with --only; what is compared is measured in turn, round by round.

python benchmarks/bench_selection.py [--only metrics strength] [--rounds 3]
"""

from __future__ import annotations

import argparse
import ast
import logging
import os
import random
import re
import statistics
import sys
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hydra import compose, initialize_config_dir
from rapidfuzz.distance import LCSseq
from rouge_score import rouge_scorer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import load_average, tell
from metrics import metrics
from strength import strength

from selfalign_ray import schemas
from selfalign_ray.config import RunConfig, conf_dir, register_schemas, typed
from selfalign_ray.rouge import share_of, tokens_of
from selfalign_ray.selection.duplicates import place_of
from selfalign_ray.selection.novelty import gone_of, novelty, signed

TARGETS = {"metrics_per_second_per_core": 150, "novelty_ratio": 50}  # at least
CEILINGS = {"novelty_100k_seconds": 600}  # at most
COLUMNS = ("row_id", "source", "path", "seed_id", "instruction")
FRAMES = (
    "Write a Python function that does the following. {}",
    "Create a function `{word}` in Python. {}",
    "Implement the class `{word}` whose purpose is this: {}",
    "You are given a program that must do one more thing. {} Write a function for it.",
    "Develop a utility named {word}. {} Consider the edge cases and return the result.",
    "{}",
)
PACKAGES = ("numpy", "pyarrow", "pandas", "ray", "hydra", "rich", "transformers", "sympy", "scipy")
Figures = dict[str, Any]
Fitness = Callable[[str, str], float]


def config(*overrides: str) -> RunConfig:
    """The default run's settings."""
    register_schemas()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        places = ["runs_root=/nowhere", "run_dir=/nowhere/x"]
        return typed(compose("run", overrides=[*places, *overrides]))


def sentences() -> list[str]:
    """Sentences of 6 to 40 words in docstrings of installed packages, each once, in fixed order."""
    found: dict[str, None] = {}
    root = Path(sysconfig.get_path("purelib"))
    paths = [path for name in PACKAGES for path in sorted((root / name).rglob("*.py"))]
    paths += sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    for path in random.Random(0).sample(paths, min(len(paths), 2_500)):
        for text in _docstrings(path):
            for sentence in re.split(r"(?<=\.)\s+", " ".join(text.split())):
                if 6 <= len(tokens_of(sentence)) <= 40:
                    found[sentence] = None
    return list(found)


def _docstrings(path: Path) -> list[str]:
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError):
        return []
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    return [ast.get_docstring(node) or "" for node in nodes]


def instructions(count: int, pool: list[str]) -> list[str]:
    """Made instructions; the first so many are the same for every count."""
    draw = random.Random(7)
    found: list[str] = []
    while len(found) < count:
        if found and draw.random() < 0.2:
            words = draw.choice(found).split()
            share = draw.uniform(0.05, 0.5)  # of words that change
            other = draw.choice(pool).split()
            words = [draw.choice(other) if draw.random() < share else word for word in words]
            found.append(" ".join(words))
        else:
            body = " ".join(draw.sample(pool, draw.choice((1, 2, 2, 3))))
            word = draw.choice(body.split()).strip(".,:;()`").lower()
            found.append(draw.choice(FRAMES).format(body, word=word))
    return found


def table_of(texts: list[str]) -> pa.Table:
    rows = [(f"r{n}", "made", "made", f"s{n}", text) for n, text in enumerate(texts)]
    dicts = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    schema = [schemas.SELECTED.field(name) for name in (*COLUMNS, "drop_reason")]
    return pa.Table.from_pylist(dicts, schema=pa.schema(schema))


def plain_loop(texts: list[str], fitness: Fitness, least: float) -> tuple[list[int | None], int]:
    """Self-instruct's rule as it reads: the first kept one like each, and the pairs measured."""
    kept: list[int] = []
    found: list[int | None] = []
    pairs = 0
    for row, text in enumerate(texts):
        first = None
        for other in kept:
            pairs += 1
            # Floats put a pair exactly at the threshold on either side of it.
            if fitness(texts[other], text) >= least - 1e-9:
                first = other
                break
        found.append(first)
        if first is None:
            kept.append(row)
    return found, pairs


def by_rouge_score() -> Fitness:
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    return lambda one, other: scorer.score(one, other)["rougeL"].fmeasure


def by_rapidfuzz(texts: list[str]) -> Fitness:
    tokens = {text: tokens_of(text) for text in texts}

    def measure(one: str, other: str) -> float:
        left, right = tokens[one], tokens[other]
        total = len(left) + len(right)
        return 2 * LCSseq.similarity(left, right) / total if left and right else 0.0

    return measure


def timed_run(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def part_novelty(options: argparse.Namespace) -> Figures:
    """novelty_ratio: the plain loop's time over ours; novelty_equal: whether both decide alike."""
    cfg = config()
    least, count = cfg.selection.novelty.rouge_l, options.rows
    table = table_of(instructions(count, sentences()))
    rows = sorted(table.to_pylist(), key=lambda row: place_of(row["seed_id"], cfg.run_seed))
    texts, ids = [row["instruction"] for row in rows], [row["seed_id"] for row in rows]
    some = texts[: min(options.reference_rows, count)]

    def ours() -> dict[str, str]:
        gone = gone_of(signed(table, cfg.run_seed), share_of(least))
        return dict(zip(gone["key"].to_pylist(), gone["not_novel_of"].to_pylist(), strict=True))

    def named(found: list[int | None]) -> dict[str, str]:
        return {ids[n]: ids[of] for n, of in enumerate(found) if of is not None}

    plain_seconds, (plain, all_pairs) = timed_run(
        lambda: plain_loop(texts, by_rapidfuzz(texts), least)
    )
    reference, mine, equal = [], [], True
    for _ in range(options.rounds):
        seconds, (found, pairs) = timed_run(lambda: plain_loop(some, by_rouge_score(), least))
        reference.append(seconds * all_pairs / pairs)
        seconds, gone = timed_run(ours)
        mine.append(seconds)
        equal &= gone == named(plain) and found == plain[: len(some)]
    return {
        "novelty_ratio": round(statistics.median(reference) / statistics.median(mine), 1),
        "novelty_equal": equal,
        "novelty": {
            "instructions": count,
            "tokens_mean": round(statistics.mean(len(tokens_of(text)) for text in texts), 1),
            "gone": len(gone),
            "pairs_of_the_loop": all_pairs,
            "rouge_score_rows": len(some),
            "rouge_score_seconds_of_all": [round(s, 1) for s in reference],
            "rouge_score_is_extrapolated": len(some) < count,
            "loop_with_rapidfuzz_seconds": round(plain_seconds, 2),
            "ours_seconds": [round(s, 3) for s in mine],
        },
    }


def part_novelty_100k(options: argparse.Namespace) -> Figures:
    """novelty_100k_seconds: the stage, from a saved stage's files to rows with their reasons."""
    import ray

    from selfalign_ray.job import configure_ray_data, worker_runtime

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    ray.init(
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        log_to_driver=False,
        runtime_env=worker_runtime(is_local=True),
    )
    configure_ray_data()
    cfg = config()
    with tempfile.TemporaryDirectory() as name:
        table = table_of(instructions(options.many, sentences()))
        for part, start in enumerate(range(0, table.num_rows, 10_000)):
            pq.write_table(table.slice(start, 10_000), f"{name}/{part}.parquet")
        seconds, reasons = timed_run(
            lambda: [
                row["drop_reason"]
                for row in novelty(ray.data.read_parquet(name), cfg)
                .select_columns(["drop_reason"])
                .take_all()
            ]
        )
    ray.shutdown()
    return {
        "novelty_100k_seconds": round(seconds, 1),
        "novelty_100k": {"instructions": len(reasons), "gone": reasons.count("not_novel")},
    }


# By name; a part's figures begin with its targets.
PARTS: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "metrics": lambda options: metrics(options.rounds),
    "strength": lambda options: strength(options.rounds),
    "novelty": part_novelty,
    "novelty_100k": part_novelty_100k,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=5_000, help="of the part novelty")
    parser.add_argument("--reference-rows", type=int, default=500, help="for rouge-score")
    parser.add_argument("--many", type=int, default=100_000, help="rows of novelty_100k")
    parser.add_argument("--results", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    before = load_average()
    result: Figures = {}
    for name in options.only:
        result |= PARTS[name](options)
    missed = [n for n, least in TARGETS.items() if n in result and result[n] < least]
    missed += [n for n, most in CEILINGS.items() if n in result and result[n] > most]
    missed += [n for n, value in result.items() if n.endswith("_equal") and not value]
    result |= {
        "targets": {"at_least": TARGETS, "at_most": CEILINGS},
        "missed": missed,
        "rounds": options.rounds,
    }
    packages = [
        "numpy",
        "pyarrow",
        "pycodestyle",
        "radon",
        "rapidfuzz",
        "ray",
        "rouge-score",
        "ruff",
    ]
    tell(result, load_before=before, packages=packages, file=options.results)


if __name__ == "__main__":
    main()
