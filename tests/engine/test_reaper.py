"""reaper.py: what an engine's process has started dies with it."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

PROGRAM = """
import multiprocessing, sys, time
from selfalign_ray.engine.reaper import reap_after_death

def core():
    below = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    below.start()
    time.sleep(600)

if __name__ == "__main__":
    reap_after_death()
    multiprocessing.get_context("spawn").Process(target=core).start()
    print("started", flush=True)
    {then}
"""


@pytest.fixture
def program(tmp_path):
    """Starts the program with a last line; gives it, and all below it once they are there."""
    found = []

    def start(then="time.sleep(600)"):
        path = tmp_path / "program.py"
        path.write_text(PROGRAM.replace("{then}", then))
        started = psutil.Popen(
            [sys.executable, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        found.append(started)
        started.stdout.readline()
        until(lambda: len(started.children(recursive=True)) >= 4)  # core, below, tracker, reaper
        time.sleep(2)  # the reaper has looked
        found.extend(started.children(recursive=True))
        return started, found[1:]

    yield start
    for process in found:
        if process.is_running():
            process.kill()


def until(holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def gone(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_all_below_a_killed_process_die(program):
    killed, below = program()
    assert not any(map(gone, below))
    killed.kill()
    killed.wait()
    until(lambda: all(map(gone, below)))


def test_a_process_that_leaves_by_itself_leaves_nothing(program):
    left, below = program("import os; sys.stdin.readline(); os._exit(1)")
    assert not any(map(gone, below))
    left.stdin.close()
    left.wait()
    until(lambda: all(map(gone, below)))
