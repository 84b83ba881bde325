"""group.py: a run that was ended, replayed or finalized goes on, and ends as it would have."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from ray.data import DataContext

from selfalign_ray import group, pipeline
from selfalign_ray.errors import StoppedError, UserError
from selfalign_ray.report.report import REPORT, report
from selfalign_ray.run import run_stages
from selfalign_ray.stage import Saved, count_by_reason, recount
from selfalign_ray.watch.display import Display
from tests.conftest import config_in
from tests.support import SELFALIGN, selfalign_here

GOOD = '''"""A module."""


def scaled_{n}(radius: float, factor: float) -> float:
    """Return the radius of a circle, scaled by a factor.

    The factor may be negative.
    """
    scaled = radius * factor + {n}
    return scaled**2


def shifted_{n}(start: float, by: float) -> float:
    """Return the start of an interval, shifted by some length.

    The length may be negative.
    """
    shifted = start + by * {n}
    return shifted / 2
'''
FILES = 7


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Settings of a run over a small folder, whose shards have few rows."""
    folder = tmp_path_factory.mktemp("code")
    for n in range(FILES):
        (folder / f"good_{n}.py").write_text(GOOD.format(n=n))
    (folder / "empty.py").write_text("")
    return [
        *("source=folder", f"source.path='{folder}'", "source.license=MIT", "engine=standin"),
        *("seeds.near_duplicates.jaccard=1", "recipe.hops.responses.sampling.n=2"),
        *("seeds.read.files_per_block=1", "stages.rows_per_file=3", "stages.rows_per_shard=2"),
        *("engine.rows_in_flight=2", "engine.rows_per_block=1", "seeds.sample.limit=null"),
        "seeds.typecheck.enabled=false",  # a checker would start for each of the shards
        "validation.execution.actors=1",
    ]


@pytest.fixture(scope="module")
def first(ray_local, given, tmp_path_factory):
    """The folder of a run that has been through all stages, its cache in it."""
    folder = tmp_path_factory.mktemp("first")
    run(config_in(folder, *given))
    return folder


@pytest.fixture
def cached(first, tmp_path):
    """A run of the test has from the cache what the first one did; nothing it does goes back."""
    shutil.copytree(first / ".stages", tmp_path / ".stages")


def run(cfg):
    names = [stage.name for stage in pipeline.selected(cfg)]
    with Display(names, 10) as display:
        return run_stages(cfg, display)


def saved(cfg, name):
    return Saved(Path(cfg.run_dir), name)


def rows_of(cfg, name):
    """What became of each row, and what was made of it."""
    columns = ("row_id", "drop_reason", "instruction", "path")
    shards = [pq.read_table(path).to_pylist() for path in saved(cfg, name).rows.glob("*.parquet")]
    return sorted([str(row.get(c)) for c in columns] for rows in shards for row in rows)


def end(cfg, name, *, shards):
    """Leaves a stage as a run that was killed after so many shards would have."""
    (saved(cfg, name).folder / "manifest.json").unlink()
    for path in sorted(saved(cfg, name).rows.glob("*.parquet"))[shards:]:
        path.unlink()


@pytest.mark.ray
@pytest.mark.sandbox  # of the first run
def test_what_is_in_shards_is_not_done_again(cached, run_config, given):
    run(run_config(*given, "stages.until=responses"))
    cfg = run_config(*given, "stages.until=responses", "stages.cache=null")
    before = {stage: rows_of(cfg, stage) for stage in ("quality", "unique", "responses")}
    for name in ("responses", "decontamination", "quality"):
        end(cfg, name, shards=2)
        left = {path.name: path.stat().st_ino for path in saved(cfg, name).rows.iterdir()}
        run(cfg)
        assert {stage: rows_of(cfg, stage) for stage in before} == before
        manifest = saved(cfg, name).manifest()
        assert 0 < manifest["found_done"] < sum(manifest["rows"].values())
        assert manifest["done_again_at_most"] > 0
        if name != "quality":  # whose files may lie in two shards
            now = {path.name: path.stat().st_ino for path in saved(cfg, name).rows.iterdir()}
            assert left.items() <= now.items()


@pytest.mark.ray
@pytest.mark.sandbox  # of the first run
def test_as_many_rows_twice_as_are_missing_are_no_whole_stage(
    cached, run_config, given, monkeypatch
):
    run(run_config(*given, "stages.until=responses"))
    cfg = run_config(*given, "stages.until=responses", "stages.cache=null")
    before = rows_of(cfg, "responses")
    shards = sorted(saved(cfg, "responses").rows.glob("*.parquet"))
    missing = pq.read_table(shards[-1]).num_rows
    end(cfg, "responses", shards=len(shards) - 1)

    def write(self, rows, schema, rows_per_file):
        """Of a task that is done again while the run is ended."""
        again = pa.concat_tables(map(pq.read_table, shards[:-1]))[:missing]
        pq.write_table(again, self.rows / "000000-again.parquet")
        return count_by_reason(self.rows)

    with monkeypatch.context() as patched:
        patched.setattr(Saved, "write", write)
        patched.setattr(group, "is_stopping", lambda: True)
        with pytest.raises(StoppedError, match=f"{len(before) - missing} of {len(before)} rows"):
            run(cfg)
    run(cfg)
    assert rows_of(cfg, "responses") == before


@pytest.mark.ray
@pytest.mark.sandbox
def test_runs_share_stages_and_changed_settings_come_back(first, cached, run_config, given):
    cfg = run_config(*given, "stages.until=metrics")
    run(cfg)
    assert saved(cfg, "metrics").manifest() == Saved(first / "run", "metrics").manifest()
    other = run_config(*given, "stages.until=metrics", f"run_dir='{cfg.runs_root}/other'")
    run(other)
    for name in ("quality", "sample", "responses", "metrics"):
        assert saved(other, name).manifest() == saved(cfg, name).manifest()
    assert report(other, Path(other.run_dir), None).problems == []
    # A setting is changed, the run is ended midway, and the setting is changed back and forth.
    changed = run_config(*given, "stages.until=metrics", "validation.metrics.min_asserts=99")
    run(changed)
    assert saved(changed, "metrics").manifest()["rows"]["kept"] == 0
    end(changed, "metrics", shards=3)
    half = rows_of(changed, "metrics")
    (whole,) = Path(changed.stages.cache).glob(
        f"metrics-{saved(changed, 'metrics').begun()['fingerprint']}-*"
    )
    shutil.rmtree(whole)
    run(cfg)
    assert rows_of(cfg, "metrics") == rows_of(other, "metrics")
    run(changed)
    assert saved(changed, "metrics").manifest()["found_done"] == len(half)
    # Files that have changed are other rows.
    path = Path(cfg.source.path) / "good_0.py"
    text, times = path.read_text(), path.stat()
    path.write_text(GOOD.format(n=99))
    third = run_config(*given, "stages.until=quality", f"run_dir='{cfg.runs_root}/third'")
    run(third)
    path.write_text(text)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert any("scaled_99" in row["seed"] for row in saved(third, "quality").kept().take_all())


@pytest.mark.ray
@pytest.mark.sandbox
def test_finalized_is_a_data_set_that_a_run_goes_on_from(cached, run_config, given):
    run(run_config(*given))
    cfg = run_config(*given, "stages.cache=null")
    stages = ("responses", "metrics", "strength", "duplicates")
    before = {stage: rows_of(cfg, stage) for stage in stages}
    end(cfg, "responses", shards=3)
    done = rows_of(cfg, "responses")
    final = run_config(*given, "stages.cache=null", "finalize=true")
    for _ in range(2):
        run(final)
        assert rows_of(final, "responses") == done
        manifest = saved(final, "responses").manifest()
        assert manifest["partial"]
        assert manifest["left_out"] == len(before["responses"]) - len(done)
        summary = report(final, Path(final.run_dir), None)
        assert summary.problems == []
    assert f"{manifest['left_out']} rows had not" in (Path(cfg.run_dir) / REPORT).read_text()
    card = (Path(cfg.run_dir) / "dataset" / "README.md").read_text()
    assert f"{manifest['left_out']} rows had not" in card
    run(cfg)
    assert {stage: rows_of(cfg, stage) for stage in stages} == before
    assert report(cfg, Path(cfg.run_dir), None).problems == []
    assert "PARTIAL" not in (Path(cfg.run_dir) / REPORT).read_text()


@pytest.fixture
def weights(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.safetensors").write_text("one")
    return folder


@pytest.mark.ray
@pytest.mark.sandbox
def test_rows_of_other_weights_are_not_gone_on_with(cached, run_config, given, weights):
    given = [*given, "stages.until=responses", f"model.id='{weights}'"]
    cfg = run_config(*given)
    run(cfg)
    before, first = rows_of(cfg, "responses"), saved(cfg, "responses").manifest()
    shutil.rmtree(Path(cfg.stages.cache) / f"responses-{first['fingerprint']}-{first['source']}")
    end(cfg, "responses", shards=2)
    half = {path.name for path in saved(cfg, "responses").rows.iterdir()}
    (weights / "model.safetensors").write_text("two, longer")
    final = run_config(*given, "finalize=true")
    run(final)  # of what is there, which needs no weights
    assert {path.name for path in saved(final, "responses").rows.iterdir()} == half
    run(cfg)
    second = saved(cfg, "responses").manifest()
    assert rows_of(cfg, "responses") == before
    assert second["found_done"] == 0
    assert second["source"] != first["source"]


@pytest.mark.ray
@pytest.mark.sandbox
def test_samples_that_are_drawn_anew_are_judged_anew(cached, run_config, given):
    cfg = run_config(*given, "stages.until=metrics", "stages.cache=null")
    run(run_config(*given, "stages.until=metrics"))
    before = {name: rows_of(cfg, name) for name in ("responses", "metrics")}
    shutil.rmtree(saved(cfg, "responses").folder)
    run(cfg)
    assert {name: rows_of(cfg, name) for name in before} == before
    assert saved(cfg, "metrics").manifest()["found_done"] == 0


@pytest.mark.ray
@pytest.mark.sandbox
def test_seeds_that_are_found_anew_keep_their_samples(cached, run_config, given):
    cfg = run_config(*given, "stages.until=metrics", "stages.cache=null")
    run(run_config(*given, "stages.until=metrics"))
    before = {name: rows_of(cfg, name) for name in ("responses", "metrics")}
    for name in ("quality", "sample"):
        shutil.rmtree(saved(cfg, name).folder)
    run(cfg)
    for name, rows in before.items():
        assert rows_of(cfg, name) == rows
        assert saved(cfg, name).manifest()["found_done"] == len(rows)


@pytest.mark.ray
def test_finalize_without_a_generated_row_says_so(ray_local, run_config, given):
    with pytest.raises(UserError, match="finalize: no row has been through the stage responses"):
        run(run_config(*given, "finalize=true"))


@pytest.mark.ray
@pytest.mark.sandbox
def test_rows_that_failed_by_error_are_replayed_alone(cached, run_config, given):
    cfg = run_config(*given, "stages.until=metrics")
    run(cfg)
    before = {stage: rows_of(cfg, stage) for stage in ("responses", "metrics")}
    path = sorted(saved(cfg, "responses").rows.glob("*.parquet"))[0]
    rows = pq.read_table(path)
    failed = [{**row, "drop_reason": "engine_killed", "samples": None} for row in rows.to_pylist()]
    path.unlink()  # its inode is the cache's too
    pq.write_table(pa.Table.from_pylist(failed, schema=rows.schema), path)
    recount(saved(cfg, "responses").folder)
    end(cfg, "metrics", shards=0)
    run(cfg)
    assert len(rows_of(cfg, "metrics")) == len(before["metrics"]) - len(failed)
    again = run_config(*given, "stages.until=metrics", "replay.errors=true")
    for _ in range(2):
        run(again)
        assert {stage: rows_of(cfg, stage) for stage in before} == before
    found = saved(cfg, "responses").manifest()["found_done"]
    assert found == len(before["responses"]) - len(failed)


@pytest.mark.ray
def test_ids_that_name_two_rows_are_refused(ray_local, run_config, given, tmp_path):
    (tmp_path / "made.jsonl").write_text('{"seed": "def f(): ...", "concepts": "a"}\n' * 2)
    start = ["start.stage=instruction", f"start.rows='{tmp_path}/made.jsonl'"]
    with pytest.raises(UserError, match=r"start.rows: 1 values of row_id name several rows"):
        run(run_config(*given, *start, "stages.until=instruction"))


@pytest.mark.ray
@pytest.mark.sandbox
def test_a_driver_that_is_killed_loses_and_doubles_nothing(cached, run_config, given, tmp_path):
    expected = run_config(*given, "stages.until=metrics")
    run(expected)
    given = [*given, "stages.until=metrics", "stages.cache=null"]
    common = ["name=killed", "engine.standin_seconds=0.2", f"runs_root={tmp_path}", *given]
    killed = run_config(*given, f"run_dir='{tmp_path}/killed'")

    def shards(name):
        return set(saved(killed, name).rows.glob("*.parquet"))

    instants = [
        (saved(killed, "quality").folder / "begun.json").exists,
        lambda: len(shards("responses")) >= 2,
        lambda: len(shards("metrics")) >= 1,
        None,  # it ends
    ]
    done: set[Path] = set()
    for instant in instants:
        if instant is None:
            ended = selfalign_here(*common, cwd=tmp_path)
            assert ended.returncode == 0, ended.stderr
        else:
            _killed_at(instant, common, tmp_path)
        left = {path for name in ("responses", "metrics") for path in shards(name)}
        assert done <= left, "what was in shards has been done again"
        done = left
    for name in ("quality", "sample", "responses", "metrics"):
        assert rows_of(killed, name) == rows_of(expected, name)
    assert saved(killed, "responses").manifest()["found_done"] >= 4
    log = (tmp_path / "killed" / "pipeline.log").read_text()
    assert "responses: goes on: " in log


def _killed_at(instant, overrides, cwd):
    """Starts a driver, and kills it and all that it has started when something is so."""
    with subprocess.Popen(
        [*SELFALIGN, *overrides], cwd=cwd, start_new_session=True, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 300
        while not instant():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, 9)
        for child in children:
            if child.is_running():
                child.kill()


@pytest.mark.ray
def test_what_engines_hold_is_not_shared_among_the_operators(ray_local, monkeypatch):
    rows = ray.data.range(3)
    monkeypatch.setattr(group, "held_cpus", lambda: 0)
    group._leave_to_engines(rows)
    assert rows.context.execution_options.is_resource_limits_default()
    monkeypatch.setattr(group, "held_cpus", lambda: 1.5)
    group._leave_to_engines(rows)
    more = rows.map_batches(lambda batch: batch)
    assert more.context.execution_options.resource_limits.cpu == 2.5
    assert more.count() == 3
    assert DataContext.get_current().execution_options.is_resource_limits_default()
