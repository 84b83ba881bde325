"""submit.py: what it sends, and what it refuses before anything is sent."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import psutil
import pytest
import requests
from ray.job_submission import JobStatus

from selfalign_ray.config import register_schemas
from selfalign_ray.errors import UserError
from tests.support import code_in, selfalign_here

SCRIPT = Path(__file__).parents[2] / "cluster" / "submit.py"
_spec = importlib.util.spec_from_file_location("submit", SCRIPT)
submit = importlib.util.module_from_spec(_spec)
sys.modules["submit"] = submit  # its dataclasses look their module up
_spec.loader.exec_module(submit)
register_schemas()
DONE = JobStatus.SUCCEEDED


def client(*jobs):
    return SimpleNamespace(list_jobs=lambda: list(jobs))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "such as s3://bucket/runs; got runs"),
        (["runs_root=/x", "nosuch=1"], "nosuch"),
        (["runs_root=/x", "seeds.sample.limit=many"], "seeds.sample.limit"),
        (["runs_root=/x", "engine.rows_in_flight=0"], "engine.rows_in_flight: must be at least 1"),
        (["runs_root=/x", "run_seed=1,2"], "run_seed"),
        (["runs_root=/x", "name"], "name"),
        (["-m", "runs_root=/x", "run_seed=1,many"], "run_seed=many"),
        (["runs_root=/x", "-m", "run_seed=1,many"], "run_seed=many"),
        (["runs_root=/x", "--env", "SELFALIGN_NOT_SET"], "--env: SELFALIGN_NOT_SET is not set"),
    ],
)
def test_a_mistake_is_told_before_anything_is_sent(capsys, arguments, said):
    assert submit.main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("submit.py: error: ")
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("address", "said"),
    [("head:6379", "head:6379 is none of"), ("http://127.0.0.1:9", "no Ray dashboard answers")],
)
def test_an_address_where_no_dashboard_is_is_told(address, said):
    # In a process of its own: how Ray authenticates is settled once for all in a process.
    given = [sys.executable, str(SCRIPT), "runs_root=/x", "--address", address]
    done = subprocess.run(given, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("submit.py: error: --address: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_sweep_is_one_run_a_point_each_in_the_folder_that_selfalign_m_gives_it():
    given = ["runs_root=/shared/runs", "name=s", "run_seed=1,2", "model=embedded,starcoder2_15b"]
    points = submit.points_of(given, is_sweep=True)
    assert [point.run_dir for point in points] == [f"/shared/runs/s/{n}" for n in range(4)]
    assert [[w for w in p.overrides if w.startswith("run_seed")] for p in points] == [
        ["run_seed=1"],
        ["run_seed=1"],
        ["run_seed=2"],
        ["run_seed=2"],
    ]
    words = shlex.split(points[3].command)
    assert words[:3] == ["python", "-m", "selfalign_ray"]
    assert "hydra.run.dir=${local_dir:${runs_root}}/${name}/3" in words
    assert "hydra.mode=RUN" in words


def test_a_preset_s_sweep_is_taken_and_a_given_value_wins():
    given = ["runs_root=/x", "experiment=sweep_temperature"]
    assert len(submit.points_of(given, is_sweep=True)) == 4
    given.append("recipe.hops.responses.sampling.temperature=0.5")
    assert len(submit.points_of(given, is_sweep=True)) == 1
    both = ["runs_root=/x", "experiment=embedded,starcoder2_15b"]
    assert len(submit.points_of(both, is_sweep=True)) == 2


def test_a_text_with_quotes_and_spaces_reaches_the_run_as_it_was():
    text = "source.path='/data/my code/*.parquet'"
    (point,) = submit.points_of(["runs_root=/x", "source=files", text], is_sweep=False)
    assert shlex.split(point.command)[-1] == text


def test_a_secret_is_in_the_environment_and_not_on_the_command_line(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    environment = submit.runtime_env(None, ["HF_TOKEN"])
    assert environment["env_vars"]["HF_TOKEN"] == "hf_secret"
    (point,) = submit.points_of(["runs_root=/x"], is_sweep=False)
    assert "hf_secret" not in point.command
    assert "uv" not in environment


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_what_is_installed_is_what_was_compiled(kind):
    from ray.runtime_env import RuntimeEnv

    environment = submit.runtime_env(kind, [])
    assert any(line.startswith("ray==") for line in environment["uv"]["packages"])
    assert "--no-deps" in environment["uv"]["uv_pip_install_options"]
    RuntimeEnv(uv=environment["uv"])  # Ray takes it


def test_a_run_dir_that_an_unfinished_job_writes_is_refused():
    points = submit.points_of(["runs_root=/x", "name=a"], is_sweep=False)
    meta = {"run_dir": "/x/a"}
    done = SimpleNamespace(metadata=meta, status=JobStatus.STOPPED, submission_id="j1")
    submit._check_free(client(done, SimpleNamespace(metadata=None)), points)
    busy = SimpleNamespace(metadata=meta, status=JobStatus.RUNNING, submission_id="j2")
    with pytest.raises(UserError, match="/x/a is the run of the job j2, which is running"):
        submit._check_free(client(done, busy), points)


class Away:
    """A client whose cluster cannot be reached at times: an exception in place of an answer."""

    def __init__(self, *, logs=(), infos=(), stops=()):
        self.logs, self.infos, self.stops = list(logs), list(infos), list(stops)

    async def tail_job_logs(self, name):
        for part in self.logs.pop(0):
            if isinstance(part, Exception):
                raise part
            yield part

    def get_job_info(self, name):
        return SimpleNamespace(
            status=self.get_job_status(name), driver_exit_code=None, message=None
        )

    def get_job_status(self, name):
        return answer(self.infos)

    def stop_job(self, name):
        return answer(self.stops)


def answer(answers):
    found = answers.pop(0) if len(answers) > 1 else answers[0]
    if isinstance(found, Exception):
        raise found
    return found


GONE = requests.exceptions.ConnectionError("Connection aborted.")


@pytest.fixture
def asleep(monkeypatch):
    """Passes the time that submit.py waits; gives what it waited."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


@pytest.mark.parametrize("error", [aiohttp.ClientPayloadError("away"), RuntimeError("code 1006")])
def test_a_log_is_followed_on_where_the_connection_broke(asleep, capsys, error):
    logs = [["one\n", "tw", error], [OSError("no route")], ["one\ntwo\n", "three\n"]]
    there = Away(logs=logs, infos=[JobStatus.RUNNING, GONE, GONE, JobStatus.RUNNING, DONE])
    assert submit._follow(there, ["j1"]) == 0
    assert capsys.readouterr().out == "one\ntwo\nthree\n"


def test_a_cluster_that_stays_away_is_told_and_its_jobs_are_said_to_go_on(
    asleep, capsys, monkeypatch
):
    there = Away(logs=[[GONE]], infos=[GONE])
    monkeypatch.setattr(submit, "_client", lambda _: there)
    monkeypatch.setattr(submit, "_check_free", lambda *_: None)
    monkeypatch.setattr(submit, "_submit", lambda *_: "j1")
    assert submit.main(["runs_root=/x"]) == 1
    said = capsys.readouterr().err
    assert "Connection aborted" in said
    assert "the jobs go on by themselves: ray job status|logs|stop j1" in said
    assert asleep[0] > 60


def test_jobs_are_stopped_once_the_cluster_answers(asleep, capsys):
    there = Away(stops=[GONE, True], infos=[GONE, JobStatus.RUNNING, JobStatus.STOPPED])
    assert submit._stop(there, ["j1"]) == 130
    assert "stopped; the same command goes on" in capsys.readouterr().err
    there = Away(stops=[GONE])
    assert submit._stop(there, ["j1"]) == 1
    assert "the jobs go on by themselves: ray job status|logs|stop j1" in capsys.readouterr().err


@pytest.fixture(scope="module")
def head():
    """The address of the dashboard of a Ray of its own, as `ray start --head` starts it."""
    import socket

    def free():
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            return found.getsockname()[1]

    # Not below tmp_path: the paths of Ray's sockets must be short. Another temporary folder than
    # the default's also keeps other Rays of the machine from taking this one for theirs.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as place:
        dashboard, token = free(), "0" * 64
        command = [
            str(Path(sys.executable).parent / "ray"),
            *("start", "--head", "--block", "--disable-usage-stats", "--num-cpus=4"),
            *(f"--port={free()}", f"--dashboard-port={dashboard}", f"--temp-dir={place}"),
            *(f"--ray-client-server-port={free()}", f"--metrics-export-port={free()}"),
            *(f"--dashboard-agent-listen-port={free()}", "--object-store-memory=200000000"),
            "--dashboard-agent-grpc-port=0",
        ]
        auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, **auth, "PATH": path}
        with subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            address = f"http://127.0.0.1:{dashboard}"
            try:
                _wait_for(address, token)
                yield {**environment, "RAY_API_SERVER_ADDRESS": address}
            finally:
                # At a signal it would wait half a minute for what it has started.
                for started in psutil.Process(process.pid).children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        started.kill()
                process.kill()
                process.wait(timeout=60)


def _wait_for(address, token):
    asked = urllib.request.Request(
        f"{address}/api/jobs/", headers={"Authorization": f"Bearer {token}"}
    )
    deadline = time.monotonic() + 180
    while True:
        try:
            with urllib.request.urlopen(asked, timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline, "no dashboard: is ray[default] installed?"
            time.sleep(0.5)


def _rows(path):
    """The rows without what a clock or the kernel measured."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        for name in ("cpu_seconds", "wall_seconds", "peak_memory_bytes"):
            del row["verdict"][name]
    return rows


@pytest.mark.ray
@pytest.mark.sandbox
@pytest.mark.slow
def test_a_job_stopped_and_submitted_again_gives_the_data_set_of_the_local_run(
    ray_local, head, tmp_path
):
    given = [*code_in(tmp_path / "code", 6), "engine=standin"]
    given += ["validation.strength.enabled=false", "selection.novelty.enabled=false"]
    given.append("stages.cache=null")  # else the one run has it all from the other
    alone = selfalign_here(*given, "name=local", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    there = [*given, f"runs_root={tmp_path}/runs", "name=submitted"]
    run_dir = tmp_path / "runs" / "submitted"

    slow = [sys.executable, str(SCRIPT), *there, "engine.standin_seconds=30"]
    with subprocess.Popen(slow, env=head, stderr=subprocess.PIPE, text=True) as process:
        sample = run_dir / "stages" / "sample" / "manifest.json"
        deadline = time.monotonic() + 300
        while not sample.exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        second = subprocess.run(slow, env=head, capture_output=True, text=True, check=False)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=180)
    assert second.returncode == 2
    assert f"name: {run_dir} is the run of the job" in second.stderr
    assert process.returncode == 130, said
    assert "stopped; the same command goes on" in said
    assert not (run_dir / "instruction_dataset.jsonl").exists()

    # As the README has it, without submit.py.
    ray = str(Path(sys.executable).parent / "ray")
    command = [ray, "job", "submit", "--working-dir", str(SCRIPT.parents[1])]
    entrypoint = [sys.executable, "-m", "selfalign_ray", *there]
    again = subprocess.run(
        [*command, "--", *entrypoint], env=head, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stdout
    assert "from before" in again.stdout
    local = tmp_path / "runs" / "local" / "instruction_dataset.jsonl"
    assert _rows(run_dir / local.name) == _rows(local)
    assert json.loads((run_dir / "manifest.json").read_text())["adds_up"]
