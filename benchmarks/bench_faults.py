"""Kills every kind of process of a run with -9, and looks whether the data set notices.

A cluster of three nodes stands on this machine, and a run with the stand-in goes over it again and
again: the same command after each death of its driver, until it ends. Victims: the driver, an
engine actor, a sandbox actor, a zygote, a worker node (raylet, workers and its part of the object
store at once), and the driver at two chosen instants: between a shard's last byte and its name, and
between the last shard and the manifest. Every run that ends is compared with an undisturbed one,
stage by stage: which rows there are, and why each stopped.

overhead_standin is measured on rows that the stand-in takes 1 ms a prompt for: the share of rows/s
that a stage with shards, and a hundred thousand rows that are done to tell its own from, gives up
against the same rows through the same actors into a plain `write_parquet`. What a row costs more
in milliseconds, overhead_ms_per_row, is the same with any engine: at ten rows a second 1 ms is 1 %.
resume_seconds is the time from the command to the first new shard of a run that has so many rows
done. long_memory_growth is what a run over a million rows takes at most after its first tenth,
the report included, over what it takes in that tenth: driver, workers, Ray and its object store
together.

python benchmarks/bench_faults.py [--parts kills overhead resume long] [--kills 30]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from hydra import compose, initialize_config_dir
from ray.cluster_utils import Cluster

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import PeakMemory, load_average, processes_of, tell

from selfalign_ray import schemas
from selfalign_ray.config import conf_dir, register_schemas, typed
from selfalign_ray.done import Done
from selfalign_ray.hops.generate import generate
from selfalign_ray.ids import content_id
from selfalign_ray.job import configure_ray_data
from selfalign_ray.keys import keys_of
from selfalign_ray.stage import Saved, conformed

PARTS = {  # and the options that each takes
    "kills": ("kills", "rows", "seed"),
    "overhead": ("overhead_rows", "repeats", "finished"),
    "resume": ("finished",),
    "long": ("long_rows",),
}
LEAST = {"kills": 30}
MOST = {
    "rows_lost": 0,
    "rows_doubled": 0,
    "overhead_standin": 0.03,
    "resume_seconds": 60.0,
    "long_memory_growth": 1.2,
}
HOPS = ("concepts", "instruction", "responses")
STAGES = ("responses", "metrics", "duplicates")  # that a run of this benchmark saves
_NODE = {"num_cpus": 4, "object_store_memory": 150 * 1024 * 1024}
_LONGEST = 900.0  # seconds that one attempt of a run may take
_STORE_MB = 512  # of the long run
# What conf/engine/vllm.yaml has, and so the size of a shard; the runs that are killed have less.
_AS_A_GPU_S = ("engine.rows_in_flight=256", "engine.rows_per_block=8")

Victim = Callable[["Scene"], bool]  # kills, and says whether there was anything to kill


def seeds(path: Path, count: int) -> None:
    """So many functions, all different, as rows for `start.stage=concepts`."""
    rows = [
        {
            "row_id": content_id("row", str(n)),
            "seed_id": content_id("seed", str(n)),
            "seed": f"def add_{n}(value: int) -> int:\n    return value + {n}\n",
            "source": "made",
            "path": f"made/{n}.py",
            "repository": f"made-{n % 7}",
            "licenses": ["MIT"],
        }
        for n in range(count)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


def command(folder: Path, name: str, *overrides: str) -> list[str]:
    """A run over the seeds of a folder, as a person gives it."""
    return [
        *(sys.executable, "-m", "selfalign_ray"),
        *("start.stage=concepts", f"start.rows={folder}/seeds.parquet", "stages.cache=null"),
        *("engine=standin", "engine.rows_in_flight=16", "engine.rows_per_block=4"),
        *("validation.strength.enabled=false", "selection.novelty.enabled=false"),
        *(f"runs_root={folder}", f"name={name}", *overrides),
    ]


def launch(folder: Path, name: str, *overrides: str) -> subprocess.Popen[bytes]:
    """Begins, or goes on with, a run in a process group of its own."""
    with (folder / f"{name}.out").open("ab") as log:
        return subprocess.Popen(  # noqa: S603  our own command
            command(folder, name, *overrides), stdout=log, stderr=log, start_new_session=True
        )


class Scene:
    """A cluster on this machine, and a command that runs on it."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder, self.rows = folder, rows
        self.cluster = Cluster(initialize_head=True, head_node_args=_NODE)
        self.nodes = [self.cluster.add_node(**_NODE) for _ in range(2)]
        self.driver: subprocess.Popen[bytes] | None = None
        self.run_dir = folder

    def start(self, name: str) -> None:
        """Begins, or goes on with, a run on the cluster."""
        self.run_dir = self.folder / name
        address = f"cluster.address={self.cluster.address}"
        self.driver = launch(self.folder, name, address, "engine.standin_seconds=0.05")

    def processes(self, *words: str) -> list[psutil.Process]:
        """Those of the cluster whose command line has all these words."""
        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if all(word in line for word in words):
                    found.append(process)
        return found

    def workers(self) -> list[psutil.Process]:
        """The cluster's workers. A node ends with its agents, which have such names too."""
        agents = {process.pid for process in self.processes("ray::", "Agent")}
        return [process for process in self.processes("ray::") if process.pid not in agents]

    def ended(self) -> int | None:
        """The driver's exit code; None while it runs."""
        assert self.driver is not None
        return self.driver.poll()


def kill_driver(scene: Scene) -> bool:
    assert scene.driver is not None
    if scene.ended() is not None:
        return False
    os.killpg(scene.driver.pid, signal.SIGKILL)
    scene.driver.wait()
    return True


def _kill_one(*words: str) -> Victim:
    def kill(scene: Scene) -> bool:
        for process in scene.processes(*words)[:1]:
            with contextlib.suppress(psutil.Error):
                process.kill()
                return True
        return False

    return kill


def kill_node(scene: Scene) -> bool:
    """A worker node, with all that it computes and stores; another takes its place."""
    node = scene.nodes.pop(0)
    scene.cluster.remove_node(node, allow_graceful=False)
    scene.nodes.append(scene.cluster.add_node(**_NODE))
    return True


def kill_before_commit(scene: Scene) -> bool:
    """The driver and every worker, while a shard is written and has no name yet."""
    return _kill_when(scene, lambda: any(scene.run_dir.glob("stages/*/rows/.*.part*")))


def kill_before_manifest(scene: Scene) -> bool:
    """The driver, when a stage's last shard is there and its manifest is not."""
    saved = {p.parent.name for p in scene.run_dir.glob("stages/*/manifest.json")}

    def last_shard() -> bool:
        for name in STAGES:
            if name not in saved:
                rows = sum(pq.read_metadata(p).num_rows for p in _shards(scene.run_dir, name))
                return rows >= scene.rows and not (_stage(scene, name) / "manifest.json").exists()
        return False

    return _kill_when(scene, last_shard)


def _stage(scene: Scene, name: str) -> Path:
    return scene.run_dir / "stages" / name


def _shards(run_dir: Path, stage: str) -> Iterator[Path]:
    yield from (run_dir / "stages" / stage / "rows").glob("*.parquet")


def _kill_when(scene: Scene, seen: Callable[[], bool]) -> bool:
    """Looks without a pause, and kills the driver and all workers at once."""
    began = time.monotonic()
    while scene.ended() is None and time.monotonic() - began < 30:
        with contextlib.suppress(OSError, pa.ArrowInvalid):
            if seen():
                workers = scene.workers()
                for process in workers:
                    with contextlib.suppress(psutil.Error):
                        process.suspend()
                if not seen():
                    for process in workers:
                        with contextlib.suppress(psutil.Error):
                            process.resume()
                    continue
                kill_driver(scene)
                for process in workers:
                    with contextlib.suppress(psutil.Error):
                        process.kill()
                return True
    return False


VICTIMS: dict[str, Victim] = {
    "driver": kill_driver,
    "engine": _kill_one("ray::EngineActor"),
    "sandbox": _kill_one("ray::", "_SandboxActor"),
    "zygote": _kill_one("selfalign_ray.sandbox.zygote"),
    "node": kill_node,
    "before_commit": kill_before_commit,
    "before_manifest": kill_before_manifest,
}


def identities(run_dir: Path) -> dict[str, Counter[tuple[str, str | None]]]:
    """Per stage, its rows by id and drop_reason, and how often each is there."""
    found = {}
    for name in STAGES:
        rows: Counter[tuple[str, str | None]] = Counter()
        for path in _shards(run_dir, name):
            table = pq.read_table(path, columns=["seed_id", "drop_reason"])
            rows.update(
                zip(table["seed_id"].to_pylist(), table["drop_reason"].to_pylist(), strict=True)
            )
        found[name] = rows
    lines = (run_dir / "instruction_dataset.jsonl").read_text().splitlines()
    found["data set"] = Counter((_unmeasured(line), None) for line in lines)
    return found


def _unmeasured(line: str) -> str:
    """A row of the data set without what a clock or the kernel measured."""
    row = json.loads(line)
    for name in ("cpu_seconds", "wall_seconds", "peak_memory_bytes"):
        del row["verdict"][name]
    return json.dumps(row)


def finish(scene: Scene, name: str) -> None:
    """Gives the command until it ends well."""
    assert scene.driver is not None
    for _ in range(5):
        if scene.driver.wait(_LONGEST) in (0, 3):
            return
        scene.start(name)
    sys.exit(f"the run does not end:\n{(scene.folder / f'{name}.out').read_text()[-4000:]}")


def torment(scene: Scene, kills: int, rng: random.Random) -> dict[str, Any]:
    """Kills so many times, over as many runs as that takes, and compares each with the first."""
    scene.start("undisturbed")
    began = time.monotonic()
    finish(scene, "undisturbed")
    seconds = time.monotonic() - began
    expected = identities(scene.run_dir)
    done: Counter[str] = Counter()
    lost = doubled = runs = 0
    due = [name for _ in range(-(-kills // len(VICTIMS))) for name in VICTIMS]
    rng.shuffle(due)
    while done.total() < kills:
        runs += 1
        name = f"run{runs}"
        scene.start(name)
        while done.total() < kills:
            # So often that a run is hit several times, and so seldom that it comes to its end.
            time.sleep(rng.uniform(1.0, max(10.0, seconds / 6)))
            if scene.ended() in (0, 3):
                break
            if scene.ended() is not None:
                scene.start(name)
                continue
            victim = next((name for name in due if VICTIMS[name](scene)), None)
            if victim is not None:  # there is no engine in metrics, and no zygote in responses
                due.remove(victim)
                done[victim] += 1
                sys.stderr.write(f"{done.total()}: {victim} in {name}\n")
        finish(scene, name)
        seen = identities(scene.run_dir)
        for stage, rows in expected.items():
            missing, more = rows - seen[stage], seen[stage] - rows
            lost += missing.total()
            doubled += more.total()
            if missing or more:
                sys.stderr.write(f"{name}: {stage}: lost {missing}, doubled {more}\n")
    return {
        "kills": done.total(),
        "rows_lost": lost,
        "rows_doubled": doubled,
        "victims": dict(done),
        "runs": runs,
        "undisturbed_seconds": round(seconds, 1),
    }


def kills(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All victims, on a cluster of its own."""
    seeds(folder / "seeds.parquet", options.rows)
    scene = Scene(folder, options.rows)
    try:
        return torment(scene, options.kills, random.Random(options.seed))
    finally:
        if scene.driver is not None:
            kill_driver(scene)
        scene.cluster.shutdown()


def overhead(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The share of rows/s that shards and the record of what is done cost."""
    seeds(folder / "seeds.parquet", options.overhead_rows)
    register_schemas()
    given = command(folder, "overhead", "engine.standin_seconds=0.001", *_AS_A_GPU_S)[3:]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = typed(compose("run", overrides=[*given, f"run_dir={folder}/overhead"]))
    ray.init(include_dashboard=False, log_to_driver=False, num_cpus=4)
    configure_ray_data()
    table = pq.read_table(folder / "seeds.parquet")
    blocks = [table.slice(start, 500) for start in range(0, table.num_rows, 500)]
    done = Done(np.sort(keys_of(f"other {n}" for n in range(options.finished))), options.finished)
    conform = partial(conformed, schema=schemas.HOPS, stage="responses")

    def rows() -> ray.data.Dataset:
        given = ray.data.from_arrow(blocks)
        return given.map_batches(_seed_rows, batch_format="pyarrow", batch_size=None)

    def plain(number: int) -> None:
        made = generate(rows(), cfg, hops=HOPS)
        made.map_batches(conform, batch_format="pyarrow", batch_size=None).write_parquet(
            f"{folder}/plain{number}", min_rows_per_file=cfg.stages.rows_per_file
        )

    def ours(number: int) -> None:
        made = generate(done.skipped(rows()), cfg, hops=HOPS)
        saved = Saved(folder / f"ours{number}", "responses")
        saved.write(made, schemas.HOPS, cfg.engine.rows_in_flight)

    plain(-1)  # loads the engine
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    for number in range(options.repeats):
        both: list[tuple[str, Callable[[int], None]]] = [("plain", plain), ("ours", ours)]
        for name, work in both if number % 2 else both[::-1]:
            began = time.monotonic()
            work(number)
            seconds[name].append(round(time.monotonic() - began, 2))
    ray.shutdown()
    plain_seconds, our_seconds = (statistics.median(seconds[name]) for name in ("plain", "ours"))
    more = (our_seconds - plain_seconds) / options.overhead_rows
    return {
        "overhead_standin": round(1 - plain_seconds / our_seconds, 4),
        "overhead_ms_per_row": round(1000 * more, 2),
        "overhead_seconds": seconds,
    }


def _seed_rows(block: pa.Table) -> pa.Table:
    for field in schemas.SEED:
        if field.name not in block.column_names:
            block = block.append_column(field.name, pa.nulls(block.num_rows, field.type))
    return block.select(schemas.SEED.names)


def resume(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """A run is ended after its first shard, is given more, and goes on."""
    seeds(folder / "seeds.parquet", options.finished + 1000)
    rows = folder / "resumed" / "stages" / "responses" / "rows"
    given = ("stages.until=responses", "engine.standin_seconds=0.001")
    _until_new_shard(folder, rows, given)
    for part in rows.glob(".*.part"):
        part.unlink()
    there = {row_id for path in rows.glob("*.parquet") for row_id in _ids(path)}
    template = pq.read_table(next(rows.glob("*.parquet"))).slice(0, 1)
    left = [n for n in range(options.finished) if content_id("row", str(n)) not in there]
    for start in range(0, len(left), 1000):
        numbers = left[start : start + 1000]
        table = template.take([0] * len(numbers))
        for column, kind in (("row_id", "row"), ("seed_id", "seed")):
            values = pa.array([content_id(kind, str(n)) for n in numbers])
            table = table.set_column(
                table.column_names.index(column), template.schema.field(column), values
            )
        pq.write_table(table, rows / f"made-{start}.parquet")
    return {"resume_seconds": round(_until_new_shard(folder, rows, given), 1)}


def _ids(path: Path) -> list[str]:
    ids: list[str] = pq.read_table(path, columns=["row_id"])["row_id"].to_pylist()
    return ids


def _until_new_shard(folder: Path, rows: Path, given: Sequence[str]) -> float:
    """Seconds from the command to the next shard; then the run is killed."""
    before = set(rows.glob("*.parquet"))
    began = time.monotonic()
    driver = launch(folder, "resumed", *given)
    try:
        while not set(rows.glob("*.parquet")) - before:
            if driver.poll() is not None or time.monotonic() - began > _LONGEST:
                sys.exit(f"no shard was written:\n{(folder / 'resumed.out').read_text()[-4000:]}")
            time.sleep(0.05)
        return time.monotonic() - began
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
        time.sleep(5)  # its Ray ends by itself


def long(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """A run over very many rows, and the memory that it takes as it goes on."""
    seeds(folder / "seeds.parquet", options.long_rows)
    rows = folder / "long" / "stages" / "concepts" / "rows"
    given = ("stages.until=concepts", "engine.standin_seconds=0.001", "engine.rows_in_flight=256")
    sizes = ("engine.rows_per_block=64", f"cluster.object_store_mb={_STORE_MB}")
    began = time.monotonic()
    driver = launch(folder, "long", *given, *sizes)
    tenths: list[int] = []
    seen: dict[str, int] = {}  # rows by shard
    stored = spilled = 0
    try:
        with PeakMemory(driver.pid) as watch:
            while driver.poll() is None:
                time.sleep(5)
                stored = max(stored, _stored(driver.pid))
                spilled = max(spilled, _spilled(driver.pid))
                for path in rows.glob("*.parquet"):
                    if path.name not in seen:
                        seen[path.name] = pq.read_metadata(path).num_rows
                if sum(seen.values()) >= options.long_rows * (len(tenths) + 1) / 10:
                    tenths.append(watch.reset())
        tenths.append(watch.reset())  # the report
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)
    if driver.returncode not in (0, 3):
        sys.exit((folder / "long.out").read_text())
    seconds = time.monotonic() - began
    return {
        "long_memory_growth": round(max(tenths[1:]) / tenths[0], 2),
        "long": {
            "rows": options.long_rows,
            "seconds": round(seconds),
            "rows_per_second": round(options.long_rows / seconds),
            "peak_mb_by_tenth": [round(peak / 1e6) for peak in tenths],
            "object_store_mb": [round(stored / 2**20), _STORE_MB],
            "spilled_mb": round(spilled / 2**20),
        },
    }


def _stored(root: int) -> int:
    """Bytes of Ray's object store that have been touched, by its file in shared memory."""
    found = 0
    for process in processes_of(root):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{process}/comm").read_text().strip() != "raylet":
                continue
            for descriptor in Path(f"/proc/{process}/fd").iterdir():
                if "plasma" in str(descriptor.readlink()):
                    found = max(found, descriptor.stat().st_blocks * 512)
    return found


def _spilled(root: int) -> int:
    """Bytes that the run's Ray holds on disk for want of room in its store."""
    for process in processes_of(root):
        with contextlib.suppress(OSError):
            for part in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0"):
                if part.startswith(b"--session_dir="):
                    folder = Path(part.partition(b"=")[2].decode())
                    files = folder.glob("ray_spilled_objects_*/*")
                    return sum(path.stat().st_size for path in files)
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--rows", type=int, default=300, help="of the run that is killed")
    parser.add_argument("--finished", type=int, default=100_000, help="rows of the resumed run")
    parser.add_argument("--long-rows", type=int, default=1_000_000)
    parser.add_argument("--overhead-rows", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=3, help="of the overhead")
    parser.add_argument("--seed", type=int, default=1, help="of the instants")
    parser.add_argument("--results", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    before = load_average()
    result: dict[str, Any] = {}
    for name, part in zip(PARTS, (kills, overhead, resume, long), strict=True):
        if name in options.parts:
            with tempfile.TemporaryDirectory(prefix="bench_faults_") as folder:
                result |= part(Path(folder), options)
    given = vars(options)
    result["options"] = {part: {key: given[key] for key in PARTS[part]} for part in options.parts}
    if options.results and options.results.exists():
        earlier = json.loads(options.results.read_text())
        result["options"] = earlier["options"] | result["options"]
        result = earlier | result
    missed = [name for name, least in LEAST.items() if result.get(name, 0) < least]
    missed += [name for name, most in MOST.items() if result.get(name, most + 1) > most]
    result |= {"targets": LEAST | MOST, "missed": missed}
    tell(result, load_before=before, packages=["ray", "pyarrow"], file=options.results)


if __name__ == "__main__":
    main()
