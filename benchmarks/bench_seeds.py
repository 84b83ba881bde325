"""What seeds cost: parsing, two workers, memory, fetching, near-duplicates.

parse        CPU time of read, functions and quality beside tree-sitter's alone on the same files
two_workers  wall time of the same stages as a Ray job with one task at once and with two
memory       peak memory of `selfalign` until quality, on a little source and on ten times as much
fetch        blobs a second over the number of requests at once, from a store that takes its time
duplicates   near-duplicates beside brute force, and of 200,000 functions (bench_duplicates.py)

Each part runs alone with --only, and then leaves the others' figures in --results as they are;
what is compared is measured in turn, round by round.

python benchmarks/bench_seeds.py [--only parse two_workers] [--rounds 5]
"""

from __future__ import annotations

import argparse
import collections
import gzip
import json
import logging
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hydra import compose, initialize_config_dir

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import PeakMemory, cpu_of_tree, load_average, processes_of, tell

from selfalign_ray.config import RunConfig, conf_dir, register_schemas, typed
from selfalign_ray.seeds.functions import extract, limits_of
from selfalign_ray.seeds.quality import judged
from selfalign_ray.seeds.read import listed_blocks, load, read
from selfalign_ray.seeds.sources.blobs import Fetcher
from selfalign_ray.seeds.sources.tables import LISTED
from selfalign_ray.seeds.syntax import _parser

ROOT = Path(__file__).resolve().parents[1]
TARGETS = {  # at least
    "ratio_parse": 0.6,
    "ratio_two_workers": 1.7,
    "dedup_recall": 0.97,
    "dedup_precision": 0.99,
}
CEILINGS = {"memory_growth": 1.2}  # at most
# As data sets on the hub have them. Ray Data looks for ended tasks up to 0.1 s apart while others
# run, which tasks of some tenths of a second feel.
_GROUP_ROWS = 1000
_SLICE_BLOCKS = 4  # a fifth of a second
_TWO_WORKERS_MB = 480  # a minute's work for one: start and last task take seconds
Figures = dict[str, Any]


def config(*overrides: str) -> RunConfig:
    """The default run's settings."""
    register_schemas()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        places = ["runs_root=/nowhere", "run_dir=/nowhere/x"]
        return typed(compose("run", overrides=[*places, *overrides]))


def files_of_packages(count: int | None) -> pa.Table:
    """`schemas.FILE` rows of installed packages' files that can be read."""
    cfg = config("source=installed", f"source.limit={'null' if count is None else count}")
    blocks = listed_blocks(cfg.source, cfg.run_seed, cfg.seeds.read.licenses, 64)
    table = pa.concat_tables(loaded(block, cfg) for block in blocks)
    return table.filter(table["drop_reason"].is_null())


def loaded(listed: pa.Table, cfg: RunConfig) -> pa.Table:
    settings = cfg.seeds.read
    return load(listed, max_bytes=settings.max_bytes, licenses=settings.licenses)


def _contents(blocks: list[pa.Table], cfg: RunConfig) -> list[bytes]:
    texts = pa.concat_tables(loaded(block, cfg) for block in blocks)["content"].to_pylist()
    return [text.encode() for text in texts if text is not None]


def cost(work: Callable[[], Any]) -> float:
    before = cpu_of_tree()
    work()
    return cpu_of_tree() - before


def cpu_by_kind() -> collections.Counter[str]:
    """CPU seconds so far of the driver, Ray's own processes, its workers and their parsers."""
    spent: collections.Counter[str] = collections.Counter()
    for process in processes_of(os.getpid()):
        try:
            name, _, fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")
            command = Path(f"/proc/{process}/cmdline").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        kind = "ray"  # raylet, GCS and agents
        if process == os.getpid():
            kind = "driver"
        elif b"child import serve" in command:
            kind = "parsers"
        elif "(ray::" in name:
            kind = "workers"
        spent[kind] += sum(int(f) for f in fields.split()[11:13]) / os.sysconf("SC_CLK_TCK")
    return spent


def parse(rounds: int) -> Figures:
    """ratio_parse: bare parsing's CPU time over that of reading, extracting and judging."""
    cfg = config("source=installed", "source.limit=1500")
    settings, rules = cfg.seeds.functions, cfg.seeds.quality
    listed = list(listed_blocks(cfg.source, cfg.run_seed, cfg.seeds.read.licenses, 64))
    slices = [
        listed[first : first + _SLICE_BLOCKS] for first in range(0, len(listed), _SLICE_BLOCKS)
    ]
    contents = [_contents(blocks, cfg) for blocks in slices]
    parser = _parser()

    def bare(contents: list[bytes]) -> None:
        for content in contents:
            parser.parse(content)

    def ours(blocks: list[pa.Table]) -> int:
        rows = 0
        for block in blocks:
            seeds = extract(loaded(block, cfg), settings=settings, rules=rules)
            rows += judged(seeds, rules=rules, limits=limits_of(settings)).num_rows
        return rows

    rows = sum(map(ours, slices))  # starts the process that parses
    figures = []
    for _ in range(rounds):
        # What else the host does comes and goes within seconds: slice by slice it slows both.
        costs = [
            (cost(lambda: bare(texts)), cost(lambda: ours(blocks)))  # noqa: B023  called here
            for texts, blocks in zip(contents, slices, strict=True)
        ]
        figures.append((sum(b for b, _ in costs), sum(o for _, o in costs)))
    megabytes = sum(len(text) for texts in contents for text in texts) / 1e6
    return {
        "ratio_parse": round(statistics.median(b / o for b, o in figures), 3),
        "parse": {
            "files": sum(map(len, contents)),
            "megabytes": round(megabytes, 1),
            "rows": rows,
            "bare_seconds": [round(b, 2) for b, _ in figures],
            "ours_seconds": [round(o, 2) for _, o in figures],
            "megabytes_per_second": round(megabytes / statistics.median(o for _, o in figures), 2),
        },
    }


def write_source(folder: Path, megabytes: int) -> None:
    """Parquet shards of 20 MB of real files, each made different from its other copies."""
    if folder.exists():
        return
    files = files_of_packages(None)
    rows = files.select(["repository", "revision", "path", "licenses", "content"]).to_pylist()
    folder.mkdir(parents=True)
    wanted, shard, copy = megabytes * 10**6, 0, 0
    while wanted > 0:
        copy += 1
        random.Random(copy).shuffle(rows)
        block: list[Any] = []
        size = 0
        for row in rows:
            content = f"# copy {copy}\nCOPY = {copy}\n{row['content']}"
            content = content.replace("def ", f"def c{copy}_") if copy > 1 else content
            block.append({**row, "content": content})
            size += len(content)
            if size >= min(20 * 10**6, wanted):
                path = folder / f"{shard:04}.parquet"
                pq.write_table(pa.Table.from_pylist(block), path, row_group_size=_GROUP_ROWS)
                shard, wanted, block, size = shard + 1, wanted - size, [], 0
                if wanted <= 0:
                    return


def two_workers(rounds: int, folder: Path) -> Figures:
    """ratio_two_workers: wall time with one task at once over that with two."""
    import ray

    from selfalign_ray.job import configure_ray_data, worker_runtime
    from selfalign_ray.seeds.functions import functions
    from selfalign_ray.seeds.quality import quality

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env=worker_runtime(is_local=True),
    )
    configure_ray_data()
    write_source(folder, _TWO_WORKERS_MB)

    def spent(workers: int) -> tuple[float, collections.Counter[str]]:
        cfg = config(
            "source=files",
            f"source.path='{folder}'",
            "source.limit=null",
            f"seeds.concurrency={workers}",
        )
        began, before = time.perf_counter(), cpu_by_kind()
        quality(functions(read(None, cfg), cfg), cfg).materialize()
        return time.perf_counter() - began, cpu_by_kind() - before

    spent(2)  # starts the workers
    with bare_parsers(folder / "0000.parquet") as bare:
        times = [(spent(1), spent(2)) for _ in range(rounds)]
        machine = [2 * bare(1) / bare(2) for _ in range(3 * rounds)]
    ray.shutdown()
    return {
        # Of wall times the best round, the one that other load disturbed least.
        "ratio_two_workers": round(min(o[0] for o, _ in times) / min(t[0] for _, t in times), 2),
        "two_workers": {
            "megabytes": _TWO_WORKERS_MB,
            # Of the work that one bare parser does in a time, what two do that share nothing.
            "machine_ratio": round(statistics.median(machine), 2),
            "machine_ratio_range": [round(min(machine), 2), round(max(machine), 2)],
            "one_seconds": [round(o[0], 1) for o, _ in times],
            "two_seconds": [round(t[0], 1) for _, t in times],
            # Who the cores worked for: what is not the workers' and parsers' is Ray's price.
            "one_cpu_seconds": [_rounded(o[1]) for o, _ in times],
            "two_cpu_seconds": [_rounded(t[1]) for _, t in times],
        },
    }


@contextmanager
def bare_parsers(shard: Path) -> Iterator[Callable[[int], float]]:
    """Seconds in which so many processes at once, each for itself, parse a shard's files."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(_parse_shard, [shard] * 2, chunksize=1)

        def seconds(processes: int) -> float:
            began = time.perf_counter()
            pool.map(_parse_shard, [shard] * processes, chunksize=1)
            return time.perf_counter() - began

        yield seconds


def _parse_shard(shard: Path) -> None:
    for text in pq.read_table(shard, columns=["content"])["content"].to_pylist():
        _parser().parse(text.encode())


def _rounded(seconds: collections.Counter[str]) -> dict[str, float]:
    return {kind: round(value, 1) for kind, value in seconds.most_common()}


def memory(folder: Path, sizes: tuple[int, ...]) -> Figures:
    """memory_growth: peak memory of the job on the largest source over that on the smallest."""
    peaks, seconds = {}, {}
    shutil.rmtree(folder / "runs", ignore_errors=True)  # of another time, to go on with
    for size in sizes:
        write_source(folder / f"{size}", size)
        command = [
            *(sys.executable, "-m", "selfalign_ray"),
            *("source=files", f"source.path={folder}/{size}", "source.limit=null"),
            *(f"runs_root={folder}/runs", f"name=of{size}", "stages.until=quality"),
            # Ray fills the store before it waits: one that the small source fills as well.
            *("engine=standin", "seeds.concurrency=2", "cluster.object_store_mb=256"),
        ]
        began = time.perf_counter()
        with (folder / f"{size}.log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603
                command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
            )
            with PeakMemory(process.pid) as watch:
                code = process.wait()
        if code:
            raise SystemExit((folder / f"{size}.log").read_text())
        peaks[size], seconds[size] = watch.peak, time.perf_counter() - began
    return {
        "memory_growth": round(peaks[sizes[-1]] / peaks[sizes[0]], 2),
        "memory": {
            "megabytes_of_source": list(sizes),
            "peak_megabytes": [round(peaks[size] / 1e6) for size in sizes],
            "seconds": [round(seconds[size]) for size in sizes],
        },
    }


def _serve_blobs(pipe: Any, count: int, delay: float) -> None:
    from tests.seeds.s3_server import s3_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request
    body = "".join(f"x{n} = {n}\n" for n in range(400))
    blobs = {f"b{n}": gzip.compress(f"# {n}\n{body}".encode()) for n in range(count)}
    with s3_server(blobs) as proxy:
        proxy.delay_seconds = delay
        pipe.send(proxy.url)
        while True:
            proxy.refuse_share = pipe.recv()
            pipe.send("set")


@contextmanager
def blob_store(count: int, delay: float) -> Iterator[tuple[str, Any]]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve_blobs, args=(theirs, count, delay), daemon=True)
    process.start()
    try:
        yield ours.recv(), ours
    finally:
        process.terminate()
        process.join()


def fetch(rounds: int) -> Figures:
    """Blobs a second for each number of requests at once, and with a tenth of them refused."""
    count, delay = 200, 0.05
    listed = [
        {
            "row_id": f"b{n}",
            "source": "stack_v2",
            "path": "a.py",
            "blob_id": f"b{n}",
            "encoding": "UTF-8",
        }
        for n in range(count)
    ]
    table = pa.Table.from_pylist(listed, schema=LISTED)
    rates: dict[str, list[float]] = {}
    with blob_store(count, delay) as (url, pipe):
        for _ in range(rounds):
            for concurrency, refused in ((1, 0.0), (4, 0.0), (16, 0.0), (32, 0.0), (16, 0.1)):
                pipe.send(refused)
                pipe.recv()
                cfg = config(
                    "source=stack_v2",
                    f"source.fetch.endpoint='{url}'",
                    "source.fetch.fallback=null",
                    f"source.fetch.concurrency={concurrency}",
                    "source.retry.seconds=0.05",
                )
                actor = Fetcher(cfg.source.fetch, cfg.source.retry, 10**6, None)
                rows = table.slice(0, 40) if concurrency == 1 else table
                began = time.perf_counter()
                (found,) = actor(rows)
                seconds = time.perf_counter() - began
                assert found["content"].null_count == 0, found["drop_reason"].value_counts()
                name = f"{concurrency}" + (" with a tenth refused" if refused else "")
                rates.setdefault(name, []).append(rows.num_rows / seconds)
    return {
        "fetch": {
            "store_delay_seconds": delay,
            "blobs_per_second_by_requests_at_once": {
                name: round(statistics.median(values), 1) for name, values in rates.items()
            },
        }
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parts = ("parse", "two_workers", "memory", "fetch", "duplicates")
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 2000], help="megabytes")
    parser.add_argument("--folder", type=Path, help="where sources are kept for another time")
    parser.add_argument("--results", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    before = load_average()
    result: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        if "parse" in options.only:
            result |= parse(options.rounds)
        if "two_workers" in options.only:
            result |= two_workers(options.rounds, folder / "two_workers")
        if "memory" in options.only:
            result |= memory(folder / "memory", tuple(options.sizes))
        if "fetch" in options.only:
            result |= fetch(options.rounds)
        if "duplicates" in options.only:
            from bench_duplicates import duplicate_figures

            result |= duplicate_figures(rounds=min(3, options.rounds))
    for part in set(options.only) & set(result):
        result[part] |= {
            "load_before_and_after": [before, load_average()],
            "rounds": options.rounds,
            "date": time.strftime("%Y-%m-%d"),
        }
    if options.results and options.results.exists():
        result = json.loads(options.results.read_text()) | result
    missed = [n for n, least in TARGETS.items() if n in result and result[n] < least]
    missed += [n for n, most in CEILINGS.items() if n in result and result[n] > most]
    result |= {"targets": {"at_least": TARGETS, "at_most": CEILINGS}, "missed": missed}
    packages = ["pyarrow", "ray", "smart_open", "tree-sitter", "tree-sitter-python"]
    tell(result, load_before=before, packages=packages, file=options.results)


if __name__ == "__main__":
    main()
