"""run.py: what a run's stages have read, whatever the cache has and whatever has changed since."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfalign_ray import pipeline
from selfalign_ray.report.contamination import as_markdown, take_contamination
from selfalign_ray.report.report import saved_stages
from selfalign_ray.run import run_stages
from selfalign_ray.stage import Saved
from selfalign_ray.watch.display import Display
from tests.support import GOOD, code_in

KEY = "decontamination.benchmarks.mbpp"


def run(cfg):
    names = [stage.name for stage in pipeline.selected(cfg)]
    with Display(names, 10) as display:
        return run_stages(cfg, display)


def contamination_of(cfg):
    run_dir = Path(cfg.run_dir)
    return as_markdown(take_contamination(run_dir, saved_stages(cfg, run_dir)))


def rows_of(cfg, name):
    manifest = Saved(Path(cfg.run_dir), name).manifest()
    return manifest["rows"]


@pytest.fixture
def config(run_config, tmp_path):
    """Settings of a run, by its name, that looks for a benchmark in a folder."""
    given = code_in(tmp_path / "code", 3)
    given += ["seeds.typecheck.enabled=false", "stages.until=decontamination"]
    (tmp_path / "bench").mkdir()
    given += [f"{KEY}.enabled=true", f"{KEY}.allow_missing=true", f"{KEY}.hub=null"]
    given += [f"{KEY}.path='{tmp_path}/bench'", f"{KEY}.files=['*.jsonl']"]
    return lambda name: run_config(*given, f"run_dir='{tmp_path}/{name}'")


def add_item(folder, name, code):
    row = {"task_id": name, "text": "", "code": code, "test_list": []}
    row |= {"challenge_test_list": [], "test_setup_code": ""}
    (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")


TAKEN = GOOD.format(n=1).partition("\n\n\n")[2]


@pytest.mark.ray
def test_a_benchmark_that_was_missing_is_sought_by_the_next_run(ray_local, config, tmp_path):
    run(config("first"))
    assert rows_of(config("first"), "decontamination") == {"kept": 3}
    add_item(tmp_path / "bench", "one", TAKEN)
    run(config("second"))
    assert rows_of(config("second"), "decontamination") == {"kept": 2, "benchmark_text": 1}
    assert "| mbpp | checked |  | 1 | 1 |" in contamination_of(config("second"))


@pytest.mark.ray
def test_a_stage_from_the_cache_says_what_it_was_checked_against(ray_local, config, tmp_path):
    run(config("first"))
    assert "mbpp (no file in " in contamination_of(config("first"))
    run(config("second"))
    one, two = (Saved(tmp_path / n, "decontamination").manifest() for n in ("first", "second"))
    assert one == two
    add_item(tmp_path / "bench", "one", TAKEN)
    assert contamination_of(config("second")) == contamination_of(config("first"))


@pytest.mark.ray
def test_files_that_join_a_benchmark_are_sought_by_the_next_run(ray_local, config, tmp_path):
    add_item(tmp_path / "bench", "one", "def f(x: int) -> int:\n    return x")
    run(config("first"))
    assert rows_of(config("first"), "decontamination") == {"kept": 3}
    add_item(tmp_path / "bench", "two", TAKEN)
    run(config("second"))
    assert rows_of(config("second"), "decontamination") == {"kept": 2, "benchmark_text": 1}
    assert "| mbpp | checked |  | 2 | 1 |" in contamination_of(config("second"))
