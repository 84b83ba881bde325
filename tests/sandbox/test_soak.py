import gc
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from selfalign_ray.sandbox.pool import Sandbox

pytestmark = [pytest.mark.sandbox, pytest.mark.slow]

SAMPLES, BATCH = 8_000, 500
MIX = {  # weight, code, tests, verdict
    "passes": (70, "def f(x): return x + 1", "assert f(1) == 2\nassert f(2) == 3", "passed"),
    "fails": (10, "def f(x): return x", "assert f(1) == 2", "assertion"),
    "raises": (5, "def f(x): return x / 0", "assert f(1) == 2", "exception"),
    "broken": (3, "def f(:", "assert f(1) == 2", "syntax_error"),
    "writes": (4, "open('f', 'w').write('x' * 100000)", "", "passed"),
    "prints": (2, "print('x' * 200000)", "", "passed"),
    "threads": (2, "import threading\nt = threading.Thread(target=print)\nt.start()", "", "passed"),
    "numpy": (2, "import numpy\ndef f(x): return numpy.add(x, 1)", "assert f(1) == 2", "passed"),
    "suspicious": (1, "import gc\ndef f(x): return x + 1", "assert f(1) == 2", "passed"),
    "violates": (1, "import ctypes\nctypes.CDLL(None).ptrace(0, 0, 0, 0)", "", "sandbox_violation"),
}  # fmt: skip


def below(pid):
    """The processes below one."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [child, *below(child)]
    return found


def resident(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def namespaces_of(pid):
    return Path(f"/proc/{pid}/ns").iterdir()


def state():
    """What could leak, as counts, and the memory of the worker and its zygotes."""
    gc.collect()
    everyone = [os.getpid(), *below(os.getpid())]
    return {
        "processes": len(everyone),
        "mounts": sum(len(Path(f"/proc/{p}/mountinfo").read_text().splitlines()) for p in everyone),
        "namespaces": len({n.readlink() for p in everyone for n in namespaces_of(p)}),
        "descriptors": sum(1 for p in everyone for _ in Path(f"/proc/{p}/fd").iterdir()),
        "files": len(list(Path(tempfile.gettempdir()).iterdir())),
    }, [resident(p) for p in everyone]  # fmt: skip


def soak(config, folder):
    """Judges all samples and fails where anything is left behind; for a process of its own."""
    tempfile.tempdir = str(folder)
    draw = random.Random(0)
    names = draw.choices(list(MIX), [weight for weight, *_ in MIX.values()], k=SAMPLES)
    with Sandbox(config) as sandbox:
        counts, memory = None, None
        for start in range(0, SAMPLES, BATCH):
            batch = names[start : start + BATCH]
            verdicts = sandbox.judge([MIX[name][1:3] for name in batch])
            wrong = [(n, v) for n, v in zip(batch, verdicts, strict=True) if v.verdict != MIX[n][3]]
            assert not wrong
            if counts is None and start >= 2 * BATCH:  # every kind of zygote has started
                counts, memory = state()
        counts_then, memory_then = state()
    assert counts_then == counts
    # Half a kilobyte a sample.
    assert max(b - a for a, b in zip(memory, memory_then, strict=True)) < 3 << 20
    assert not below(os.getpid())


def test_thousands_of_samples_leave_nothing_behind(configured, tmp_path):
    # No zygote is replaced, so that each one's memory is seen to stay as it is.
    config = configured(slots=2, samples_per_zygote=10 * SAMPLES)
    # In a process of its own: that of the tests may have a Ray, whose own processes come and go.
    process = multiprocessing.get_context("spawn").Process(target=soak, args=(config, tmp_path))
    process.start()
    process.join()
    assert process.exitcode == 0


def test_verdicts_stay_as_they_are_on_a_busy_machine(configured, programs):
    listed = programs("hostile") + [{**p, "expect": "passed"} for p in programs("benign")]
    burn = [sys.executable, "-S", "-c", "while True: pass"]
    busy = [subprocess.Popen(burn) for _ in range(os.cpu_count() or 1)]
    try:
        with Sandbox(configured(slots=2, cpu_seconds=1, wall_seconds=8)) as sandbox:
            if sandbox.describe()["level"] != "A":
                pytest.skip("the verdicts in hostile.yaml are those of level A")
            for turn in range(3):
                if turn:  # what takes all of its seconds has had them
                    listed = [p for p in listed if p["expect"] != "timeout"]
                pairs = [(p["code"], p.get("tests", "")) for p in listed]
                got = {p["name"]: v for p, v in zip(listed, sandbox.judge(pairs), strict=True)}
                assert {
                    p["name"]: (got[p["name"]].verdict, got[p["name"]].detail)
                    for p in listed
                    if got[p["name"]].verdict != p["expect"]
                } == {}
    finally:
        for process in busy:
            process.kill()
            process.wait()
