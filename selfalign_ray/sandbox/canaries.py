"""Small attacks that each zygote must withstand before it gets a sample.

A canary that runs to its end got through; one that is stopped, in whatever way, was held.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from selfalign_ray.sandbox.config import SandboxConfig
from selfalign_ray.sandbox.execution import Execution, run_together
from selfalign_ray.sandbox.launch import StartError, Zygote
from selfalign_ray.sandbox.verdict import read

_LIBC = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"


@dataclass(frozen=True)
class Canary:
    """One attack; `levels` are those that promise to hold it."""

    name: str
    code: str
    levels: str
    harmless: bool = False  # must run to its end instead


@dataclass(frozen=True)
class Result:
    """What a canary did."""

    canary: Canary
    held: bool
    how: str  # the verdict and its detail
    promised: bool


def canaries(config: SandboxConfig, folder: Path) -> Iterator[Canary]:
    """The attacks; `folder` is the worker's own, with a file `secret` in it."""
    too_much = (config.memory_mb + 64) << 20
    too_long = (config.file_mb << 20) + 1
    yield Canary("read a file of the worker", f"open({str(folder / 'secret')!r}).read()", "AB")
    yield Canary("write a file", f"open({str(folder / 'made')!r}, 'w').write('x')", "ABC")
    yield Canary(
        "change a file's mode", f"import os\nos.chmod({str(folder / 'secret')!r}, 0)", "ABC"
    )
    yield Canary("read the environment of process 1", "open('/proc/1/environ').read()", "AB")
    yield Canary("read the worker's memory", f"open('/proc/{os.getpid()}/mem', 'rb')", "AB")
    yield Canary("signal the worker", f"import os\nos.kill({os.getpid()}, 0)", "ABC")
    yield Canary("open a network socket", "import socket\nsocket.socket()", "ABC")
    yield Canary("become root", "import os\nos.setuid(0)", "ABC")
    yield Canary("run a program", "import os\nos.execv('/bin/true', ['true'])\n", "ABC")
    if config.profile != "fork":
        yield Canary("start a process", "import os\nos.fork()", "ABC")
    yield Canary("mount", _LIBC + "assert libc.mount(b'x', b'/tmp', b'tmpfs', 0, 0) == 0", "ABC")
    yield Canary("trace a process", _LIBC + "assert libc.ptrace(0, 0, 0, 0) == 0", "ABC")
    yield Canary("new namespaces", _LIBC + "assert libc.unshare(0x10000000) == 0", "ABC")
    if os.uname().machine == "x86_64":
        yield Canary("the x32 call table", _LIBC + "libc.syscall(0x40000000 + 39)", "ABC")
    yield Canary("take too much memory", f"x = bytearray({too_much})", "ABCD")
    long = f"with open('long', 'wb') as file:\n    file.write(bytes({too_long}))"
    yield Canary("write too long a file", long, "ABCD")
    yield Canary("exit early with status 0", "import os\nos._exit(0)", "ABCD")
    if config.profile != "strict":
        rare = "import xml.dom.minidom, xmlrpc.client, zoneinfo, sqlite3, decimal, http.cookies"
        yield Canary("import rare modules", rare, "ABCD", harmless=True)


def fly(zygote: Zygote, config: SandboxConfig, level: str) -> list[Result]:
    """Runs all canaries on a zygote, one after the other."""
    results = []
    with tempfile.TemporaryDirectory(prefix="canary-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "secret").write_text("read me")
        (folder / "secret").chmod(0o644)
        for canary in canaries(config, folder):
            [outcome] = run_together([Execution(zygote, [canary.code, ""], config)])
            reading = read(outcome, config.cpu_seconds)
            if reading.verdict == "infra":
                raise StartError(f"the canary '{canary.name}' could not run: {reading.detail}")
            held = (reading.verdict == "passed") == canary.harmless
            how = f"{reading.verdict}: {reading.detail}" if reading.detail else reading.verdict
            results.append(Result(canary, held, how, level in canary.levels))
    return results


def demand(results: list[Result]) -> None:
    """Refuses a zygote that does not hold what its level promises.

    Raises:
        StartError: with the canaries that got through.
    """
    for result in results:
        if result.promised and not result.held and result.canary.harmless:
            raise StartError(
                f"the sandbox's user cannot {result.canary.name} ({result.how}): use an "
                "interpreter that every user may read, such as one in /usr/local or /opt"
            )
        if result.promised and not result.held:
            raise StartError(f"the canary '{result.canary.name}' got through")
