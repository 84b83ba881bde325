"""watch/stall.py: a run in which nothing moves says where it stands still."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from selfalign_ray.watch import stall, tally
from selfalign_ray.watch.logs import FILE, setup_driver
from selfalign_ray.watch.stall import Stalls, progress_of, working

DUMP = """Thread 0x00007f01 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 324 in wait
  File "/x/selfalign_ray/watch/tally.py", line 9 in _run

Current thread 0x00007f02 (most recent call first):
  File "/usr/lib/python3.11/re/__init__.py", line 176 in search
  File "/x/selfalign_ray/seeds/rules.py", line 12 in looks_bad
"""


def test_only_threads_at_work_on_rows_are_shown_and_like_ones_once() -> None:
    (thread,) = working(DUMP)
    assert thread.startswith("Current thread 0x00007f02 (most recent call first):\n")
    assert "looks_bad" in thread
    again = DUMP.partition("\n\n")[2].replace("Current thread", "Thread").replace("f02", "f03")
    (both,) = working(f"{DUMP}\n{again}")
    assert "and 1 like it" in both.splitlines()[0]


def test_being_there_is_no_progress() -> None:
    idle: tally.Figures = {
        "engine:shared-0": {"held_seconds": 5, "gpu_seconds": 5, "loads": 1}
        | {"served_seconds": 5, "running_seconds": 9, "generated_tokens": 3},
        "time": {"responses.left_seconds": 9},
    }
    assert progress_of(idle) == {"engine:shared-0": {"loads": 1, "generated_tokens": 3}}


def test_a_stall_is_told_once_until_something_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(stall, "_tell", lambda stage, seconds, figures: told.append(seconds))
    stalls = Stalls(60)
    for second, tokens in ((0, 1), (59, 1), (61, 1), (200, 1), (201, 2), (260, 2), (262, 2)):
        now[0] = second
        stalls.look("responses", {"engine:shared-0": {"output_tokens": tokens}})
        for thread in threading.enumerate():
            if thread.name == "stall":
                thread.join()
    assert told == [61, 61]


@pytest.mark.ray
def test_the_stack_of_a_stage_that_hangs_in_a_worker_is_in_the_log(
    ray_local: None, tmp_path: Path
) -> None:
    """With the interpreter's lock held: a pattern that takes for ever, as one in a stage might."""
    import ray

    log = setup_driver(tmp_path)
    tally.start_tally()

    @ray.remote(num_cpus=0, max_retries=0)
    def hang() -> None:
        namespace: dict[str, object] = {}
        source = 'import re\ndef looks_bad():\n    re.match(r"(a|a)*b", "a" * 60)\n'
        exec(compile(source, "/x/selfalign_ray/seeds/hangs.py", "exec"), namespace)
        namespace["looks_bad"]()  # type: ignore[operator]

    hanging = hang.remote()
    try:
        stalls = Stalls(1.0)
        end = time.monotonic() + 60
        while time.monotonic() < end and "looks_bad" not in (tmp_path / FILE).read_text():
            stalls.look("quality", {"quality": {"rows": 3}})
            time.sleep(0.2)
    finally:
        ray.cancel(hanging, force=True)
        tally.stop_tally()
        log.close()
    said = (tmp_path / FILE).read_text()
    assert "quality: nothing has moved for" in said
    assert '"rows": 3' in said
    assert re.search(r"worker \d+:\n", said)
    assert "hangs.py" in said
    assert "in looks_bad" in said
    assert "in test_the_stack_of_a_stage_that_hangs" in said  # the driver's own


def test_a_process_that_does_not_know_the_signal_gets_none() -> None:
    """By default it ends a process."""
    code = "from selfalign_ray.watch.stall import write_stacks_on_signal as w; w(); "
    with (
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other,
        subprocess.Popen([sys.executable, "-c", code + "import time; time.sleep(60)"]) as ours,
    ):
        end = time.monotonic() + 30
        while time.monotonic() < end and ours.pid not in dict(stall._workers()):
            time.sleep(0.1)
        found = dict(stall._workers())
        assert ours.pid in found
        assert other.pid not in found
        stacks = " ".join(stall.node_stacks())  # neither of them is at work on rows
        assert str(ours.pid) not in stacks
        assert str(other.pid) not in stacks
        assert "most recent call first" in found[ours.pid].read_text()
        assert other.poll() is None
        assert ours.poll() is None
        other.kill()
        ours.kill()
