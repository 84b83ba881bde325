"""What all benchmarks share: the CPU time of a process tree, and how a result is told and kept."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


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


def load_average() -> float:
    """Of the machine, over the last minute."""
    return round(os.getloadavg()[0], 2)


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
        "machine": f"{os.cpu_count()} x {platform.machine()}, Linux {platform.release()}{devices}",
        "load_before_and_after": [load_before, load_average()],
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "date": time.strftime("%Y-%m-%d"),
    }
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(json.dumps(result) + "\n")
