"""local_test.sh, with stand-ins for what it runs: it ends as they do, and they end with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

SCRIPT = Path(__file__).parents[2] / "cluster" / "local_test.sh"


@pytest.fixture
def started(tmp_path):
    """`started(mypy=...)`: the script, where this text of a shell stands for that program."""
    begun = []
    (tmp_path / "cluster").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "left").mkdir()
    script = Path(shutil.copy(SCRIPT, tmp_path / "cluster"))
    script.with_name("setup.sh").write_text("set_up() { :; }\n")

    def start(**programs):
        for name in ("ruff", "mypy", "pytest"):
            path = tmp_path / ".venv" / "bin" / name
            path.write_text(f"#!/usr/bin/env bash\necho {name} $*\n{programs.get(name, '')}\n")
            path.chmod(0o755)
        begun.append(
            subprocess.Popen(
                ["bash", str(script), "-k", "parse"],
                env=os.environ | {"TMPDIR": str(tmp_path / "left")},
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return begun[-1]

    yield start
    for process in begun:
        with contextlib.suppress(ProcessLookupError):  # all has ended
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


ALL = ["ruff check .", "ruff format --check .", "pytest -k parse", "mypy"]


@pytest.mark.parametrize(
    ("programs", "code", "ran"),
    [
        ({}, 0, ALL),
        ({"ruff": "exit 1"}, 1, ALL[:1]),
        ({"pytest": "exit 2"}, 2, ALL),
        ({"mypy": "exit 1"}, 1, ALL),
        ({"mypy": "sleep 0.3; exit 1"}, 1, ALL),
    ],
)
def test_what_fails_is_its_end_and_tests_run_whatever_the_types_are(started, programs, code, ran):
    process = started(**programs)
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, said.splitlines()) == (code, ran)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15)])
def test_who_ends_it_ends_all_that_it_runs(started, tmp_path, number, code):
    programs = {
        "pytest": f"echo $$ >{tmp_path}/pytest; trap 'exit 2' INT; sleep 600",  # so it takes Ctrl-C
        "mypy": f"echo $$ >{tmp_path}/mypy; exec sleep 600",
    }
    pids = [tmp_path / name for name in programs]
    process = started(**programs)
    until(lambda: all(pid.exists() and pid.read_text() for pid in pids))
    os.killpg(process.pid, number)
    process.communicate(timeout=60)
    assert process.returncode == code
    until(lambda: not any(is_alive(int(pid.read_text())) for pid in pids))
    assert not list((tmp_path / "left").iterdir())


def until(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
