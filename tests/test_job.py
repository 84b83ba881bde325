"""One job on the driver, without a process of its own."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import platform
import signal
import time
from pathlib import Path

import pytest
import ray

from selfalign_ray import job
from selfalign_ray.errors import TakenError, UserError


@pytest.mark.ray
def test_a_signal_while_the_report_is_written_ends_the_run(ray_local, run_config, monkeypatch):
    def report(*_):
        os.kill(os.getpid(), signal.SIGTERM)  # without our handler it would end pytest
        time.sleep(60)

    monkeypatch.setattr(job, "setup_driver", lambda *_: None)  # the console stays pytest's
    monkeypatch.setattr(job, "run_stages", lambda *_, **__: None)
    monkeypatch.setattr(job, "report", report)
    with pytest.raises(KeyboardInterrupt):
        job.run_job(run_config("engine=standin", "stages.until=concepts"))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_with_the_way_out(tmp_path, monkeypatch, number):
    def flock(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    said = f"runs_root: {tmp_path}/run/.lock lies on a file system without locks"
    with pytest.raises(UserError, match=said), job.sole(tmp_path / "run"):
        pass


def test_a_run_that_is_taken_is_told_with_process_and_host(tmp_path):
    who = rf"process {os.getpid()} on {platform.node()} since 20"
    with job.sole(tmp_path), pytest.raises(TakenError, match=who), job.sole(tmp_path):
        pass


def test_keys_and_secrets_of_the_settings_are_masked_in_the_log(run_config, monkeypatch):
    monkeypatch.setenv("TEAM_LETTERS", "key-of-the-servers")
    monkeypatch.setenv("OTHER_LETTERS", "key-of-other-servers")
    cfg = run_config(
        *("engine=openai", "engine.base_urls=[http://h/v1]", "engine.api_key_env=TEAM_LETTERS"),
        *("generation=per_hop", "+source.storage.secret_key=of-the-bucket", "source=files"),
        *("source.path=s3://b/x", "generation.pools.responses.engine.api_key_env=OTHER_LETTERS"),
    )
    expected = {"key-of-the-servers", "key-of-other-servers", "of-the-bucket"}
    assert set(job.secrets_of(cfg)) == expected


@pytest.mark.ray
def test_a_worker_s_processes_import_nothing_from_where_they_run(ray_local, tmp_path):
    told = tmp_path / "told"
    for name in ("multiprocessing", "signal", "struct"):
        (tmp_path / f"{name}.py").write_text(f"open({str(told)!r}, 'w')\nraise SystemExit\n")

    @ray.remote
    def spawned(folder):  # as vLLM begins its core
        before = Path.cwd()
        os.chdir(folder)
        try:
            process = multiprocessing.get_context("spawn").Process(target=os.getpid)
            process.start()
            process.join()
        finally:
            os.chdir(before)
        return process.exitcode

    assert ray.get(spawned.remote(str(tmp_path))) == 0
    assert not told.exists()
