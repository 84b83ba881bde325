"""Near-duplicates of real functions: what is found beside brute force, how fast, in what memory.

The functions, methods among them, are those of the packages installed here and of Python itself,
one of each that are equal but for white space. Recall and precision are of pairs: brute force
counts the shingles, as tuples of tokens, that each two functions share. Time and memory are of
the whole search on a local Ray with two CPUs; the hash shuffle of the band keys alone, which the
search does without, is measured in turn with it.

python benchmarks/bench_duplicates.py [--sample 20000] [--rows 200000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import logging
import os
import random
import statistics
import sys
import sysconfig
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])  # of Ray's workers

import numpy as np
import pyarrow as pa
import ray
from measure import load_average, tell
from omegaconf import OmegaConf

from selfalign_ray.config import conf_dir
from selfalign_ray.decontamination.benchmarks import read_benchmarks
from selfalign_ray.decontamination.config import DecontaminationConfig
from selfalign_ray.decontamination.index import Content, build_index, find
from selfalign_ray.ids import content_id
from selfalign_ray.job import configure_ray_data
from selfalign_ray.minhash import tokens_of
from selfalign_ray.near_copies import LikenessConfig, Store, edges, near_copies, plan, signed, stars

SEED = 3407
TARGETS = {"dedup_recall": 0.97, "dedup_precision": 0.99}
Pairs = set[tuple[str, str]]


def settings(path: str, kind: type, section: str | None = None) -> Any:
    """A section of conf/ as it stands."""
    loaded = OmegaConf.load(Path(conf_dir()) / path)
    loaded.pop("defaults")
    chosen = loaded[section] if section else loaded
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), chosen))


def real_functions(count: int) -> dict[str, str]:
    """Functions of 5 to 150 lines by an id of their text, from files in a seeded order."""
    folders = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")}
    files = sorted({path for folder in folders for path in Path(folder).rglob("*.py")})
    random.Random(SEED).shuffle(files)
    found: dict[str, str] = {}
    for path in files:
        with contextlib.suppress(OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            for text in _functions_of(path.read_text(encoding="utf-8")):
                found.setdefault(content_id(*text.split()), text)
                if len(found) == count:
                    return found
    return found


def _functions_of(source: str) -> Iterator[str]:
    if len(source) > 1_000_000:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
    lines = source.split("\n")
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        waiting += [n for n in getattr(node, "body", ()) if isinstance(n, ast.stmt)]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            whole = lines[node.lineno - 1 : node.end_lineno]
            if 5 <= len(whole) <= 150:
                yield "\n".join(line[node.col_offset :] for line in whole)


def brute_force(texts: dict[str, str], cfg: LikenessConfig) -> Pairs:
    """All pairs that are alike, each in the order of their ids."""
    numbers: dict[tuple[str, ...], int] = {}
    sets = []
    for text in texts.values():
        tokens, size = tokens_of(text), cfg.shingle_tokens
        runs = [tuple(tokens[i : i + size]) for i in range(max(1, len(tokens) - size + 1))]
        sets.append(np.array(sorted({numbers.setdefault(r, len(numbers)) for r in runs if r}), int))
    sizes = np.array([len(one) for one in sets])
    rows = np.repeat(np.arange(len(sets)), sizes)
    order = np.argsort(np.concatenate(sets), kind="stable")
    holders = np.split(rows[order], np.cumsum(np.bincount(np.concatenate(sets)))[:-1])
    names = list(texts)
    found = set()
    for row, shingles in enumerate(sets):
        if not len(shingles):
            continue
        common = np.bincount(np.concatenate([holders[s] for s in shingles]), minlength=len(sets))
        others = np.flatnonzero(common[row + 1 :]) + row + 1
        similar = common[others] / (sizes[row] + sizes[others] - common[others])
        for other in others[similar >= cfg.jaccard]:
            found.add(_pair(names[row], names[int(other)]))
    return found


def found_pairs(texts: dict[str, str], cfg: LikenessConfig) -> tuple[Pairs, int]:
    """The pairs that the search finds, without Ray, and how many rows go."""
    table = pa.table({"id": list(texts), "text": list(texts.values())})
    blocks = [signed(table, cfg, SEED)]
    tables = [part for unit in plan(len(texts), cfg) for part in edges(Store(blocks), unit, cfg)]
    found = pa.concat_tables(tables)
    names = dict(zip(blocks[0]["order"].to_pylist(), blocks[0]["id"].to_pylist(), strict=True))
    both = zip(found["first"].to_pylist(), found["second"].to_pylist(), strict=True)
    return {_pair(names[a], names[b]) for a, b in both}, stars([found]).num_rows


def _pair(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)


class Memory:
    """The most private memory of any Ray worker, sampled."""

    def __init__(self) -> None:
        self.most_mb = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            for folder in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    if (folder / "comm").read_text().startswith("ray::"):
                        self.most_mb = max(self.most_mb, _private_mb(folder))


def _private_mb(folder: Path) -> float:
    lines = (folder / "smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def shuffle_keys(rows: int, cfg: LikenessConfig) -> None:
    """Ray Data's hash shuffle of random keys, as many as the bands of so many rows have."""

    def keys(batch: pa.Table) -> pa.Table:
        draw = np.random.default_rng(batch["id"][0].as_py())
        ids = np.repeat(batch["id"].to_numpy(), cfg.bands)
        return pa.table({"key": draw.integers(0, 2**32, len(ids)), "id": ids})

    def count(batch: pa.Table) -> pa.Table:
        return pa.table({"rows": [batch.num_rows]})

    made = ray.data.range(rows, override_num_blocks=24).map_batches(
        keys, batch_size=None, batch_format="pyarrow"
    )
    met = made.repartition(8, keys=["key"])
    met.map_batches(count, batch_size=None, batch_format="pyarrow").materialize()


def search(
    texts: dict[str, str], cfg: LikenessConfig, rounds: int, store_mb: int
) -> dict[str, Any]:
    """Seconds of the search and of the shuffle, in turn, and the most memory of a worker."""
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        object_store_memory=store_mb << 20,
    )
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    configure_ray_data()
    names, step = list(texts), -(-len(texts) // 24)
    parts = [names[start : start + step] for start in range(0, len(names), step)]
    tables = [pa.table({"id": part, "text": [texts[n] for n in part]}) for part in parts]
    near_copies(ray.data.from_arrow(tables[:2]), cfg, SEED)  # workers start
    seconds: dict[str, list[float]] = {"search": [], "shuffle": []}
    gone = 0
    most_mb = 0.0
    for _ in range(rounds):
        began = time.monotonic()
        with Memory() as memory:
            gone = near_copies(ray.data.from_arrow(tables), cfg, SEED).num_rows
        seconds["search"].append(time.monotonic() - began)
        most_mb = max(most_mb, memory.most_mb)
        began = time.monotonic()
        shuffle_keys(len(texts), cfg)
        seconds["shuffle"].append(time.monotonic() - began)
    ray.shutdown()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "dedup_rows": len(texts),
        "dedup_rows_dropped": gone,
        "dedup_seconds": round(medians["search"], 1),
        "key_shuffle_seconds": round(medians["shuffle"], 1),
        "dedup_task_memory_mb": cfg.memory_mb,
        "dedup_worker_private_mb": round(most_mb),
        "dedup_object_store_mb": store_mb,
        "ratio_search_to_key_shuffle": round(medians["search"] / medians["shuffle"], 2),
    }


def decontamination(texts: dict[str, str]) -> dict[str, Any]:
    """Rows a second of one core, and the items that real functions hit."""
    cfg = settings("decontamination/default.yaml", DecontaminationConfig)
    index = build_index(read_benchmarks(cfg)[0], cfg)
    rows = [Content((text,), text) for text in texts.values()]
    began, found = time.process_time(), []
    for start in range(0, len(rows), 500):
        found += find(rows[start : start + 500], index, cfg)
    seconds = time.process_time() - began
    hits = [hit for row in found for hit in row if not hit["near"]]
    return {
        "decontamination_rows_per_second": round(len(rows) / seconds),
        "decontamination_hits": sorted({hit["item"] for hit in hits}),
    }


def duplicate_figures(
    sample: int = 20_000, rows: int = 200_000, rounds: int = 3, store_mb: int = 600
) -> dict[str, Any]:
    """All figures of this file."""
    cfg = settings("seeds/default.yaml", LikenessConfig, "near_duplicates")
    texts = real_functions(max(sample, rows))
    some = dict(list(texts.items())[:sample])
    truth, (found, gone) = brute_force(some, cfg), found_pairs(some, cfg)
    return {
        "dedup_recall": round(len(found & truth) / len(truth), 4),
        "dedup_precision": round(len(found & truth) / len(found), 4),
        "sample": len(some),
        "sample_pairs": len(truth),
        "sample_dropped": gone,
        **search(dict(list(texts.items())[:rows]), cfg, rounds, store_mb),
        **decontamination(some),
        "config": dataclasses.asdict(cfg),
    }


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    before = load_average()
    figures = duplicate_figures(options.sample, options.rows, options.rounds)
    result = figures | {
        "missed": [name for name, least in TARGETS.items() if figures[name] < least],
        "targets": TARGETS,
        "rounds": options.rounds,
    }
    packages = ["numpy", "pyarrow", "ray"]
    tell(result, load_before=before, packages=packages, file=options.results)


if __name__ == "__main__":
    main()
