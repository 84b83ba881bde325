import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from selfalign_ray.errors import UserError
from selfalign_ray.sandbox import launch, pool
from selfalign_ray.sandbox.config import LEVELS
from selfalign_ray.sandbox.execution import Execution
from selfalign_ray.sandbox.launch import StartError, Zygote, ladder, plan_of, policy_of
from selfalign_ray.settings import check

pytestmark = pytest.mark.sandbox

CONFINE = Path(__file__).with_name("confine.py")
ROWS = [
    {"id": "good", "code": "def f(): return 1", "tests": "assert f() == 1"},
    {"id": "bad", "code": "def f(): return 2", "tests": "assert f() == 1"},
    {"id": "socket", "code": "import socket\nsocket.socket()", "tests": ""},
    {"id": "fork", "code": "import os\nos.fork()", "tests": ""},
    {"id": "trace", "code": "import ctypes\nctypes.CDLL(None).ptrace(0, 0, 0, 0)", "tests": ""},
    {"id": "kill", "code": "import os\nos.kill(os.getppid() or 999999, 9)", "tests": ""},
    {"id": "self", "code": "import os\nos.kill(os.getpid(), 9)\nraise ValueError", "tests": ""},
    {"id": "loop", "code": "while True: pass", "tests": ""},
    {"id": "memory", "code": "x = bytearray(10 ** 10)", "tests": ""},
    {"id": "threads", "code": "import threading\nt = threading.Thread(target=print)\nt.start()\n"
                              "t.join()", "tests": "assert not t.is_alive()"},
]  # fmt: skip
EXPECTED = {
    "good": "passed", "bad": "assertion", "socket": "exception", "fork": "exception",
    "trace": "sandbox_violation", "kill": "exception", "self": "exception", "loop": "timeout",
    "memory": "out_of_memory", "threads": "passed", "write": "exception", "unlink": "exception",
}  # fmt: skip


def command(tmp_path, machine, *arguments):
    return subprocess.run(
        [sys.executable, CONFINE, *machine, "--", sys.executable, "-m", "selfalign_ray.sandbox",
         *arguments, "--slots", "1"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip


def run_on(tmp_path, machine, rows, *options):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = command(
        tmp_path, machine, "run", source, target, *options,
        "--cpu-seconds", "1", "--cpu-backstop-seconds", "1", "--wall-seconds", "15",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {row["id"]: row for row in map(json.loads, target.read_text().splitlines())}


@pytest.mark.parametrize(
    ("machine", "level"),
    [
        (["--user"], "A"),
        (["--user", "--no-namespaces"], "B"),
        (["--user", "--no-user-namespaces"], "B"),
        (["--no-capabilities", "--no-namespaces"], "B"),
        (["--no-kill", "--no-namespaces"], "B"),
        (["--user", "--no-namespaces", "--no-landlock"], "C"),
    ],
)
def test_a_poorer_machine_runs_at_the_best_level_that_it_has(tmp_path, machine, level):
    kept = tmp_path / "kept"
    kept.write_text("of the worker")
    write = {"id": "write", "code": f"open({str(kept)!r}, 'w')", "tests": ""}
    unlink = {"id": "unlink", "code": f"import os\nos.unlink({str(kept)!r})", "tests": ""}
    rows = run_on(tmp_path, machine, [*ROWS, write, unlink], "--minimum-level", level)
    assert {row["level"] for row in rows.values()} == {level}
    verdicts = {name: row["verdict"] for name, row in rows.items()}
    assert verdicts == EXPECTED
    assert kept.read_text() == "of the worker"


SENDS = """
import socket
a, b = socket.socketpair(socket.AF_UNIX, socket.{kind})
a.send(b"to its other end")
assert b.recv(16) == b"to its other end"
try:
    a.sendto(b"to the machine", {address!r})
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("machine", "level"),
    [
        (["--user", "--no-namespaces"], "B"),
        (["--user", "--no-namespaces", "--no-landlock"], "C"),
    ],
)
def test_no_socket_of_the_machine_hears_from_a_sample(tmp_path, machine, level):
    address = str(tmp_path / "log")
    kinds = ("SOCK_DGRAM", "SOCK_RAW", "SOCK_STREAM", "SOCK_SEQPACKET")
    rows = [{"id": k, "code": SENDS.format(kind=k, address=address), "tests": ""} for k in kinds]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(address)
        Path(address).chmod(0o777)
        log.setblocking(False)
        found = run_on(tmp_path, machine, rows, "--minimum-level", level)
        with pytest.raises(BlockingIOError):
            log.recv(100)
    assert {row["level"] for row in found.values()} == {level}
    verdicts = [found[kind]["verdict"] for kind in kinds]
    assert verdicts == ["exception", "exception", "passed", "passed"]


def test_without_seccomp_the_last_level_judges_only_if_it_is_asked_for(tmp_path):
    machine = ["--user", "--no-namespaces", "--no-landlock", "--no-seccomp"]
    harmless = [row for row in ROWS if row["id"] in {"good", "bad", "loop", "memory", "threads"}]
    rows = run_on(tmp_path, machine, harmless, "--minimum-level", "D")
    assert {row["level"] for row in rows.values()} == {"D"}
    assert {n: row["verdict"] for n, row in rows.items()} == {n: EXPECTED[n] for n in rows}


def test_a_machine_below_the_minimum_is_refused_with_what_to_do(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps(ROWS[0]) + "\n")
    machine = ["--user", "--no-namespaces", "--no-landlock"]
    done = command(tmp_path, machine, "run", source, tmp_path / "out.jsonl")
    assert done.returncode == 2
    for word in ("minimum_level", "level B", "landlock", "Kubernetes", "Docker", "level A:"):
        assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_probe_names_levels_layers_and_canaries(tmp_path):
    done = command(tmp_path, ["--user", "--no-namespaces"], "probe")
    assert done.returncode == 0
    assert "best level: B" in done.stdout
    assert "+ seccomp" in done.stdout
    assert "read a file of the worker" in done.stdout
    assert "level A: no (" in done.stdout


@pytest.mark.parametrize("rung", ladder(), ids=lambda rung: rung.name())
def test_a_sample_ends_with_its_zygote(configured, rung):
    config = configured()
    try:
        zygote = Zygote(plan_of(config, rung), config.start_seconds)
    except StartError as error:
        pytest.skip(str(error))
    code = "import time\nprint('runs', flush=True)\ntime.sleep(10**9)"
    execution = Execution(zygote, [code, ""], config, "script")
    deadline = time.monotonic() + 30
    while not execution._kept[0] and time.monotonic() < deadline:
        execution.advance()
        time.sleep(0.01)
    family = [zygote.pid, *below(zygote.pid)]
    assert len(family) == (3 if rung.namespaces else 2)
    try:
        os.kill(family[-2], signal.SIGKILL)
        while any(map(is_alive, family)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_alive(family[-1])
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(family[-1], signal.SIGKILL)
        execution.finish()
        zygote.close()


def below(pid):
    """Its child, the child of that, and so on: each has one."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [found for child in children for found in (int(child), *below(child))]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_policy_hash_follows_what_is_enforced(configured):
    rung = ladder()[0]
    same = policy_of(plan_of(configured(), rung))
    assert same == policy_of(plan_of(configured(slots=2, wall_seconds=20), rung))
    assert same != policy_of(plan_of(configured(memory_mb=512), rung))
    assert same != policy_of(plan_of(configured(), ladder()[-1]))


def test_levels_are_tried_from_the_best(configured, monkeypatch):
    tried = []

    def refuse(_, plan):
        tried.append(plan["level"])
        raise StartError("not {here}")

    monkeypatch.setattr(pool, "tested_zygote", refuse)
    with pytest.raises(UserError, match=r"not \{here\}"):
        pool.Sandbox(configured(minimum_level="C"))
    assert tried == sorted(tried)
    assert set(tried) <= set(LEVELS[:3])


def test_a_machine_that_no_jail_is_made_for_is_told_so():
    program = (
        "import os, sys\nhere = os.uname()\n"
        "os.uname = lambda: os.uname_result((*here[:4], 'ppc64le'))\n"
        "from selfalign_ray.sandbox.__main__ import main\nsys.exit(main(['probe']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "sandbox: needs Linux on x86_64 or aarch64; this is Linux on ppc64le\n"


def test_forking_needs_the_level_that_ends_all_processes(configured):
    with pytest.raises(UserError, match="minimum_level"):
        check(configured(profile="fork", minimum_level="B"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_gives_each_zygote_a_user_of_its_own():
    assert launch._outside_id(1) != launch._outside_id(2)
    assert launch._outside_id(1) > 60_000
