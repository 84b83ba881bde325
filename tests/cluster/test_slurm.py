"""slurm.sh: nodes that join, a run on them, and a requeue before the time is over.

Slurm's own commands are stood in for by two scripts; nodes, cluster and run are real, and all of
this machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.support import code_in, selfalign_here

ROOT = Path(__file__).parents[2]
SRUN = """#!/usr/bin/env bash
# The command once on each of so many nodes.
nodes=1
while [[ $1 == --* ]]; do
    case $1 in --nodes=*) nodes=${1#*=} ;; esac
    shift
done
for ((node = 0; node < nodes; node++)); do "$@" & done
wait
"""
SCONTROL = '#!/usr/bin/env bash\necho "$*" >> "$STAND_INS/requeued"\n'


@pytest.fixture
def job(tmp_path):
    """`job(*overrides)`: the script as Slurm starts it on the first of two nodes."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    number = random.SystemRandom().randrange(10**6)
    slurm = {"SUBMIT_DIR": ROOT, "JOB_ID": number, "NNODES": 2, "CPUS_PER_TASK": 4}
    slurm_environment = {f"SLURM_{name}": str(value) for name, value in slurm.items()}
    paths = {"STAND_INS": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def begun(*overrides):
        return subprocess.Popen(
            ["bash", str(ROOT / "cluster" / "slurm.sh"), *overrides],
            env=os.environ | slurm_environment | paths,
            start_new_session=True,
            stdout=(tmp_path / "job.log").open("a"),
            stderr=subprocess.STDOUT,
        )

    yield begun
    end(number)


def end(number):
    """Kills what a job has started, as Slurm does when its script ends."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SLURM_JOB_ID") == str(number):
                process.kill()


def _responses(run_dir):
    lines = (run_dir / "responses.jsonl").read_text().splitlines()
    return sorted((row["row_id"], row["response"]) for row in map(json.loads, lines))


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_whose_time_is_over_goes_back_to_the_queue_and_on(ray_local, job, tmp_path):
    given = ["engine=standin", "stages.until=responses"]
    alone = selfalign_here(*given, *code_in(tmp_path / "code", 8), "name=alone", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    runs = tmp_path / "runs"
    seeds = f"start.rows={runs}/alone/stages/sample/rows/*.parquet"
    given += ["start.stage=concepts", seeds, f"runs_root={runs}", "name=queued"]
    given += ["stages.cache=null", "engine.rows_per_block=1"]
    shards = runs / "queued" / "stages" / "responses" / "rows"
    log = tmp_path / "job.log"

    process = job(*given, "engine.rows_in_flight=1", "engine.standin_seconds=2")
    deadline = time.monotonic() + 300
    while not list(shards.glob("*.parquet")):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=180) == 130, log.read_text()
    assert "the time is over (exit code 130)" in log.read_text()
    command, number = (tmp_path / "requeued").read_text().split()
    assert command == "requeue"
    end(number)
    before = set(shards.glob("*.parquet"))
    assert len(before) < 8

    process = job(*given)
    assert process.wait(timeout=300) == 0, log.read_text()
    assert before <= set(shards.glob("*.parquet")), "what was in shards has been done again"
    assert _responses(runs / "queued") == _responses(runs / "alone")
    assert (tmp_path / "requeued").read_text().split() == [command, number]
