"""A whole run in a store: as one in a folder, whatever ends it and wherever it goes on."""

from __future__ import annotations

import io
import json
import os
import subprocess
import threading
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError

from selfalign_ray.report.report import report
from tests.object_store import SECRET
from tests.support import SELFALIGN
from tests.test_group import GOOD, run, saved

RUN = "r/first/"
SAVED = ("quality", "decontamination", "responses", "metrics", "duplicates")


@pytest.fixture
def given(tmp_path):
    """Settings of a run over a small folder, whose shards have few rows."""
    folder = tmp_path / "code"
    folder.mkdir()
    for n in range(4):
        (folder / f"good_{n}.py").write_text(GOOD.format(n=n))
    return [
        *("source=folder", f"source.path='{folder}'", "source.license=MIT", "engine=standin"),
        *("seeds.near_duplicates.jaccard=1", "recipe.hops.responses.sampling.n=2"),
        *("seeds.read.files_per_block=1", "stages.rows_per_file=3", "stages.rows_per_shard=2"),
        *("engine.rows_in_flight=2", "engine.rows_per_block=1", "seeds.sample.limit=null"),
        *("validation.strength.enabled=false", "selection.novelty.enabled=false"),
        *("seeds.typecheck.enabled=false", "validation.execution.actors=1"),
    ]


def start(overrides, tmp_path, store):
    env = os.environ | store.environment
    return subprocess.Popen(
        [*SELFALIGN, *overrides],
        cwd=tmp_path,
        env=env,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(process, store, condition):
    """Waits until a condition of the store's keys is true of a running process."""
    deadline = time.monotonic() + 300
    while not condition(store.names(RUN)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def shards(keys, stage):
    return {k for k in keys if k.startswith(f"{RUN}stages/{stage}/") and k.endswith(".parquet")}


def kill(process):
    children = psutil.Process(process.pid).children(recursive=True)
    for one in [psutil.Process(process.pid), *children]:
        if one.is_running():
            one.kill()
    process.communicate()


def rows_of(tables):
    columns = ("row_id", "drop_reason", "instruction", "path")
    rows = [row for table in tables for row in table.to_pylist()]
    return sorted([str(row.get(column)) for column in columns] for row in rows)


def in_store(store, stage):
    keys = store.names(f"{RUN}stages/{stage}/rows/")
    return rows_of(pq.read_table(io.BytesIO(store.read(key))) for key in keys)


class Reader:
    """Looks at all that is in the store, all the time, as somebody else would."""

    def __init__(self, store):
        self.faults, self.read, self._store, self._done = [], 0, store, threading.Event()
        self._seen = set()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _look(self):
        while not self._done.wait(0.3):
            for key in self._names():
                if key in self._seen:
                    continue
                try:
                    data = self._store.read(key)
                except ClientError:  # deleted meanwhile, or refused
                    continue
                try:
                    self._check(key, data)
                except Exception as error:  # noqa: BLE001
                    self.faults.append(f"{key}: {error!r}")

    def _names(self):
        try:
            return self._store.names()
        except ClientError:
            return []

    def _check(self, key, data):
        if key.endswith(".parquet"):
            pq.read_table(io.BytesIO(data))
            self._seen.add(key)
            self.read += 1
        elif key.endswith(".json"):
            json.loads(data)


@pytest.mark.ray
@pytest.mark.sandbox
def test_what_ends_a_run_in_a_store_loses_and_doubles_nothing(
    ray_local, store, run_config, given, tmp_path
):
    local = run_config(*given)
    run(local)
    report(local, Path(local.run_dir), None)
    slow = ["engine.standin_seconds=0.3"]
    command = ["runs_root=s3://runs/r", "name=first", *given]
    with Reader(store) as reader:
        # Its credentials expire.
        process = start([*command, *slow], tmp_path, store)
        until(process, store, lambda keys: f"{RUN}stages/quality/begun.json" in keys)
        store.refuse = lambda method, path: (403, "ExpiredToken")
        out, err = process.communicate(timeout=300)
        assert process.returncode == 2, (out, err)
        assert "s3://runs/r/first: access is refused (ExpiredToken.)" in err
        assert "Traceback" not in err
        store.refuse = lambda method, path: None
        # Killed.
        process = start([*command, *slow], tmp_path, store)
        until(process, store, lambda keys: shards(keys, "responses"))
        kill(process)
        left = shards(store.names(RUN), "responses")
        # The same command goes on.
        process = start(command, tmp_path, store)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, (out, err)
    assert reader.faults == []
    assert reader.read > len(left)
    assert left <= shards(store.names(RUN), "responses"), "what was in shards has been done again"
    for stage in SAVED:
        shards_here = saved(local, stage).rows.glob("*.parquet")
        assert in_store(store, stage) == rows_of(map(pq.read_table, shards_here))
    for name in ("responses.jsonl", "instruction_dataset.jsonl", "concepts.jsonl"):
        expected = (Path(local.run_dir) / name).read_text().splitlines()
        found = store.read(f"{RUN}{name}").decode().splitlines()
        assert [json.loads(line)["row_id"] for line in found] == [
            json.loads(line)["row_id"] for line in expected
        ]
    assert "report    s3://runs/r/first/pipeline_report.md" in out
    log = store.read(f"{RUN}pipeline.log").decode()
    assert "responses: goes on: " in log
    assert json.loads(store.read(f"{RUN}manifest.json"))["adds_up"] is True
    keys = store.names(RUN)
    assert not [key for key in keys if "/.lock/" in key or key.endswith((".part", "failed.txt"))]
    assert {f"{RUN}dataset/README.md", f"{RUN}.hydra/overrides.yaml"} <= set(keys)
    assert not any(SECRET.encode() in store.read(key) for key in store.names())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
            "s3://runs/r/first: the store cannot be",
        ),
        ({}, "s3://nosuch/r/first: there is no such bucket; make it, or set runs_root"),
    ],
)
def test_a_store_that_will_not_do_is_told_before_work(store, given, tmp_path, change, said):
    root = "s3://runs/r" if change else "s3://nosuch/r"
    result = subprocess.run(
        [*SELFALIGN, f"runs_root={root}", *given],
        env=os.environ | store.environment | change,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 2, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) <= 3
