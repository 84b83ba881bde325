"""What all benchmarks share: CPU time and memory of a process tree; how a result is told, kept."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import resource
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self


def cpu_of_tree() -> float:
    """CPU seconds of this process and of all below it, ended ones included."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    total, waiting = own.ru_utime + own.ru_stime, [os.getpid()]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            for child in task.read_text().split():
                waiting.append(int(child))
                fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
                total += sum(int(f) for f in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    return total


class PeakMemory(threading.Thread):
    """The largest sum of proportional memory of a process and all below it, shared memory too.

    As a context it looks twice a second until it is left.
    """

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self.process, self.peak, self.ended = process, 0, threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join()

    def run(self) -> None:
        while not self.ended.wait(0.5):
            self.peak = max(self.peak, sum(map(_proportional, processes_of(self.process))))

    def reset(self) -> int:
        """The peak so far, in bytes; the next is looked for from now on."""
        peak, self.peak = self.peak, 0
        return peak


def processes_of(root: int) -> Iterator[int]:
    """The ids of a process and of all below it."""
    waiting = [root]
    while waiting:
        process = waiting.pop()
        yield process
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            try:
                waiting += [int(child) for child in task.read_text().split()]
            except OSError:  # it ended meanwhile
                continue


def _proportional(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def load_average() -> float:
    """Of the machine, over the last minute."""
    return round(os.getloadavg()[0], 2)


def processor() -> str:
    """What the cores are, with the widest of their vector units: a model's speed depends on it."""
    lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    said = {name.strip(): value.strip() for name, _, value in lines}
    flags = said.get("flags", "").split()
    widest = next((flag for flag in ("avx512f", "avx2") if flag in flags), None)
    parts = [platform.machine(), said.get("model name"), widest]
    return " ".join(part for part in parts if part)


def tell(
    result: dict[str, Any],
    *,
    load_before: float,
    packages: Sequence[str],
    file: Path | None,
    gpus: float = 0,
) -> None:
    """Prints a result with the machine and the versions as one line, and writes it to the file."""
    devices = f", {gpus:g} GPUs" if gpus else ""
    result = result | {
        "machine": f"{os.cpu_count()} x {processor()}, Linux {platform.release()}{devices}",
        "load_before_and_after": [load_before, load_average()],
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "date": time.strftime("%Y-%m-%d"),
    }
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(json.dumps(result) + "\n")
