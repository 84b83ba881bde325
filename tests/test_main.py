"""__main__.py and job.py: what a person sees who runs the command, rightly and wrongly."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
import ray
import yaml

from selfalign_ray.__main__ import _user_error
from selfalign_ray.errors import UserError
from tests.support import GOOD, SELFALIGN, code_in, selfalign, selfalign_here


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["seeds.sample.limit=many"], "seeds.sample.limit"),
        (["plan.rows=0"], "plan.rows: must be at least 1; got 0"),
        (["plan.rows=5", "stages.until=seeds"], "plan.rows: "),
        (["engine.rows_in_flight=0"], "engine.rows_in_flight: must be at least 1; got 0"),
        (["run_seed=many"], "run_seed"),
        (["engine=nosuch"], "standin"),
        (["stages.until=nosuch"], "stages.until: no stage 'nosuch'"),
        (["model.id=/no/such/model"], "model.id: there is no folder /no/such/model"),
        (["source=folder"], "source.path"),
        (["recipe.hops.responses.shots=99"], "recipe.hops.responses.shots: 99 asked for"),
        (["runs_root=/proc/nowhere", "engine=standin"], "/proc/nowhere"),
        (["name="], "name: must be a folder below runs_root, no part with a dot first; got ''"),
        (["name=a/../../b"], "name: must be a folder below runs_root"),
    ],
)
def test_a_mistake_is_told_in_a_line_with_its_key(tmp_path, overrides, said):
    done = selfalign_here(*overrides, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["recipe.hops.concepts.sampling.temprature=1"], "temprature"),  # before anything starts
        (["source=folder", "source.path=/no/such/code", "engine=standin"], "/no/such/code"),
    ],
)
def test_a_process_leaves_with_the_mistake_and_nothing_else(tmp_path, overrides, said):
    done = selfalign(*overrides, cwd=tmp_path, timeout=120)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("sweep", [[], ["-m", "run_seed=1,2"]])
def test_a_secret_among_the_settings_is_in_no_file(tmp_path, sweep):
    secret, short = "s3cr3t-of-the-bucket", "pin123"
    given = [f"+source.storage.secret_key={secret}", f"+source.storage.token={short}"]
    given += ["source=files", "source.path=s3://bucket/code", f"stages.until='{secret}'"]
    done = selfalign_here(*sweep, *given, "run_seed=3" if not sweep else "name=s", cwd=tmp_path)
    assert done.returncode == 2
    files = [path for path in tmp_path.rglob("*") if path.suffix in (".yaml", ".txt")]
    texts = {path.name: path.read_text() for path in files}
    assert {"failed.txt", "config.yaml", "hydra.yaml", "overrides.yaml"} <= texts.keys()
    assert ("multirun.yaml" in texts) == bool(sweep)
    for text in texts.values():
        assert secret not in text
        assert short not in text
    overrides = yaml.safe_load(texts["overrides.yaml"])
    assert "+source.storage.secret_key=***" in overrides
    assert "source=files" in overrides
    assert yaml.safe_load(texts["config.yaml"])["runs_root"] == "runs"


def test_help_and_config_are_printed_without_a_run(tmp_path):
    shown = selfalign_here("--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert "source=folder source.path=DIR" in shown.stdout
    # Options may stand anywhere.
    config = selfalign_here("run_seed=7", "--cfg", "job", "engine=standin", cwd=tmp_path)
    assert config.returncode == 0
    assert "kind: standin" in config.stdout
    assert "run_seed: 7" in config.stdout
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("number", ["ENOSPC", "EACCES", "EROFS"])
def test_what_the_machine_lacks_is_told_with_the_path(number):
    import errno

    error = RuntimeError("a task failed")
    error.__cause__ = OSError(getattr(errno, number), "x", "/disk/a")
    assert _user_error(error, "/runs").startswith("/disk/a: ")
    error.__cause__ = OSError(getattr(errno, number), "x", "a text of Ray's")
    assert _user_error(error, "/runs").startswith("/runs: ")


@pytest.mark.ray
def test_a_mistake_that_a_worker_finds_is_told_in_its_own_words(ray_local):
    def found(block):
        raise UserError("start.rows: made.jsonl: no such column")

    with pytest.raises(Exception, match="no such column") as caught:
        ray.data.range(1).map_batches(found).materialize()
    assert _user_error(caught.value, "/runs") == "start.rows: made.jsonl: no such column"


def test_another_error_is_not_told_as_the_user_s():
    assert _user_error(RuntimeError("ours"), "/runs") is None


@pytest.mark.ray
def test_what_outlasts_the_grace_period_is_interrupted_and_the_sweep_with_it(tmp_path):
    given = [*code_in(tmp_path / "code", 4), "engine=standin", "engine.standin_seconds=600"]
    given += ["cluster.grace_seconds=2", "cluster.progress_seconds=0.5"]
    run_dir = tmp_path / "runs" / "first" / "0"
    with started("-m", "run_seed=1,2", *given, cwd=tmp_path) as process:
        wait_for(run_dir / "pipeline.log", "responses: .* in flight")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted; the same command goes on" in said
    assert "Traceback" not in said
    assert not (run_dir / "manifest.json").exists()
    assert not (tmp_path / "runs" / "first" / "1").exists()


@pytest.mark.ray
def test_the_first_signal_lets_what_is_in_flight_be_finished(ray_local, tmp_path):
    # Two rows at a time, each for three seconds: many more than can be done are there.
    few = ["engine.rows_in_flight=2", "engine.rows_per_block=1", "engine.standin_seconds=1"]
    given = [*code_in(tmp_path / "code", 16), "engine=standin", "stages.until=responses"]
    given.append("cluster.progress_seconds=0.5")
    run_dir = tmp_path / "runs" / "first"
    with started(*given, *few, cwd=tmp_path) as process:
        wait_for(run_dir / "pipeline.log", r"responses: [1-9]\d* of ")
        os.kill(process.pid, signal.SIGTERM)  # as a scheduler does
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "stopping: what is in flight is finished" in said
    found = re.search(r"responses has (\d+) of (\d+) rows; the same command goes on", said)
    assert found, said
    done, whole = int(found[1]), int(found[2])
    saved = pq.read_table(run_dir / "stages" / "responses" / "rows")
    assert 0 < done < whole
    assert saved.num_rows == done
    assert not (run_dir / "stages" / "responses" / "manifest.json").exists()
    again = selfalign_here(*given, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    rows = pq.read_table(run_dir / "stages" / "responses" / "rows").to_pylist()
    assert len({row["row_id"] for row in rows}) == len(rows) == whole
    manifest = json.loads((run_dir / "stages" / "responses" / "manifest.json").read_text())
    assert manifest["figures"]["concepts"]["prompts"] == whole  # of both sessions together
    # What was in flight was finished as if nothing had happened.
    texts = {row["row_id"]: (row["samples"], row["drop_reason"]) for row in rows}
    for row in saved.to_pylist():
        assert texts[row["row_id"]] == (row["samples"], row["drop_reason"])


@contextlib.contextmanager
def started(*overrides, cwd):
    """`selfalign`, running, as the leader of a process group; ended in any case."""
    with subprocess.Popen(
        [*SELFALIGN, *overrides],
        cwd=cwd,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(file, pattern, seconds=300):
    """Until a file holds a text that fits."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if file.exists() and re.search(pattern, file.read_text()):
            return
        time.sleep(0.2)
    pytest.fail(f"{file} never said {pattern}")


@pytest.mark.ray
def test_the_jobs_of_a_sweep_share_a_loaded_engine_and_outlive_one_that_fails(tmp_path):
    given = [*code_in(tmp_path / "code", 4), "engine=standin"]
    given += ["stages.until=nosuch,concepts", "run_seed=1,2"]
    done = selfalign(*given[:2], "-m", *given[2:], cwd=tmp_path)  # wherever -m stands
    assert done.returncode == 2
    logs = [path.read_text() for path in sorted(tmp_path.glob("runs/first/*/pipeline.log"))]
    assert [log.count("engine for standin ready") for log in logs] == [1, 0]
    assert "- job 1: stages.until: no stage 'nosuch'" in done.stdout
    text = (tmp_path / "runs/first/comparison.md").read_text()
    assert done.stdout.endswith(text.partition("\n![")[0])
    first, _, third, _ = (tmp_path / "runs/first/comparison.csv").read_text().splitlines()[1:]
    assert first.startswith("0,nosuch,1,,")
    assert third.startswith("2,concepts,1,")


@pytest.mark.ray
@pytest.mark.sandbox
def test_a_plan_goes_on_where_it_was_and_leaves_the_run_alone(ray_local, tmp_path):
    common = [*code_in(tmp_path / "code", 8), "engine=standin"]
    plan = ["plan.rows=5000", "plan.seeds=5"]
    done = selfalign_here(*common, *plan, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "5,000 accepted rows of first, projected from 5 seeds" in done.stdout
    run_dir = tmp_path / "runs" / "first"
    assert not (run_dir / "stages").exists()
    stage = json.loads((run_dir / "plan" / "stages" / "sample" / "manifest.json").read_text())
    assert stage["rows"] == {"kept": 5, "not_sampled": 3}
    # None of the seeds passes a gate that no program can meet: a bound, and the exit code for it.
    never = "validation.metrics.min_asserts=1000"
    again = selfalign_here(*common, *plan, never, cwd=tmp_path)
    assert again.returncode == 3, again.stderr
    assert "from before" in again.stderr
    assert "seeds         at least " in again.stdout
    card = (run_dir / "plan" / "dataset" / "README.md").read_text()
    assert "**This data set is empty**: the last rows were dropped in the stage metrics" in card
    assert (run_dir / "plan" / "instruction_dataset.jsonl").read_text() == ""


@pytest.mark.ray
@pytest.mark.sandbox
def test_what_lies_where_the_command_runs_is_no_module_of_ours(tmp_path):
    told = tmp_path / "told"
    for name in ("numpy", "ray", "selfalign_ray", "struct", "typing"):
        trap = f"\nwith open({str(told)!r}, 'a') as file:\n    print(__name__, file=file)\n"
        (tmp_path / f"{name}.py").write_text(GOOD.format(n=len(name)) + trap)
    overrides = ["source=folder", "source.path=.", "seeds.read.licenses=null", "engine=standin"]
    # -P, as the installed command has it; without, Python itself looks there.
    done = subprocess.run(
        [sys.executable, "-P", "-m", "selfalign_ray", *overrides],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not told.exists(), told.read_text()
