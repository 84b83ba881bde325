# ruff: noqa: E501 - programs as text
import pytest

from selfalign_ray.errors import UserError
from selfalign_ray.sandbox.pool import Sandbox

pytestmark = pytest.mark.sandbox

POOL = "from multiprocessing import Pool\ndef square(x): return x * x\ndef run(n):\n    with Pool(2) as pool: return pool.map(square, range(n))"
MANAGER = """
from multiprocessing import Manager, Process, Queue
def fill(queue, shared):
    queue.put(1)
    shared['a'] = 2
def run():
    with Manager() as manager:
        shared, queue = manager.dict(), Queue()
        process = Process(target=fill, args=(queue, shared))
        process.start()
        got = queue.get()
        process.join()
        return got, shared['a']
"""
BURN = "import os\nfor _ in range(3): os.fork()\nwhile True: pass"
HUNGRY = """
import os, time
for _ in range(8):
    if os.fork() == 0:
        kept = bytearray(60 << 20)
        for i in range(0, len(kept), 4096): kept[i] = 1
        time.sleep(100)
time.sleep(100)
"""
ORPHANS = "import os, time\nfor _ in range(5):\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(1000)"


@pytest.fixture(scope="module")
def forking(configured):
    try:
        with Sandbox(configured(profile="fork", minimum_level="A", cpu_seconds=2)) as pool:
            yield pool
    except UserError:
        pytest.skip("no namespaces on this machine")


@pytest.mark.parametrize(
    ("code", "tests", "expected"),
    [
        (POOL, "assert run(4) == [0, 1, 4, 9]", "passed"),
        (POOL, "assert run(2) == [0, 2]", "assertion"),
        (MANAGER, "assert run() == (1, 2)", "passed"),
        (BURN, "", "timeout"),
        (HUNGRY, "", "out_of_memory"),
        (ORPHANS, "", "passed"),
        ("import os\nwhile True: os.fork()", "", "exception"),
        ("import socket\nsocket.socket()", "", "exception"),
        ("import os\nos.execv('/bin/sh', ['sh'])", "", "exception"),
        ("import ctypes\nctypes.CDLL(None).unshare(0x10000000)", "", "sandbox_violation"),
    ],
)
def test_processes_are_allowed_counted_together_and_ended(forking, code, tests, expected):
    [verdict] = forking.judge([(code, tests)])
    assert verdict.verdict == expected, verdict.detail


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import math\ndef f(): return math.sqrt(9)", "passed"),
        ("import os", "sandbox_violation"),
        ("def f():\n    from subprocess import run", "sandbox_violation"),
        ("__import__('os')", "exception"),
        ("import collections.abc, statistics\ndef f(): return statistics.mean([3.0])", "passed"),
    ],
)
def test_strict_imports_what_is_listed(configured, code, expected):
    with Sandbox(configured(profile="strict")) as pool:
        [verdict] = pool.judge([(code, "assert f() == 3" if expected == "passed" else "")])
    assert verdict.verdict == expected, verdict.detail
