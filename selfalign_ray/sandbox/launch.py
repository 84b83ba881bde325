"""Starts zygotes: the worker's side of a jail, and the ladder of levels.

Which level holds is found by trying the best one first; each failure is kept as the reason.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfalign_ray.sandbox import kernel
from selfalign_ray.sandbox.config import SandboxConfig
from selfalign_ray.sandbox.policy import filters

# Where no sample may fork, what modules of the library do after a fork is left out: the zygote has
# one thread and seeds `random` itself, and each of these functions costs pages of memory.
_BOOT = (
    "import os, sys; sys.path.append(sys.argv[2]); kept = os.register_at_fork; "
    "os.register_at_fork = kept if sys.argv[3] == 'fork' else lambda **_: None; "
    "from selfalign_ray.sandbox.zygote import main; main(int(sys.argv[1]), kept)"
)
# Not -I, which is -E -P -s: the environment is ours alone, and -E would ignore the hash seed.
_FLAGS = ("-s", "-P", "-S", "-B")
_ENVIRONMENT = {
    "HOME": "/tmp",  # noqa: S108 - the view's own
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    "PYTHONHASHSEED": "0",  # the same order of sets in every zygote, so the same verdicts
    "PYTHONUTF8": "1",
    "MALLOC_ARENA_MAX": "1",  # an arena a thread reserves 64 MiB of the memory limit
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_OVER_USERS = (1 << 5) | (1 << 6) | (1 << 7)  # CAP_KILL, CAP_SETGID, CAP_SETUID
_INSIDE_ID = 1000  # what a sample sees as its user and group
_SETTINGS = (
    "cpu_seconds", "cpu_backstop_seconds", "memory_mb", "scratch_mb", "scratch_files", "file_mb",
    "processes", "open_files", "profile", "imports", "preload", "preload_if_named",
)  # fmt: skip


class StartError(Exception):
    """A zygote did not start; the message is its reason."""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One way to close the jail."""

    level: str
    namespaces: bool
    user_namespace: bool
    landlock: int  # the kernel's version, 0 for none
    seccomp: bool

    def name(self) -> str:
        own = " without a user namespace" if self.namespaces and not self.user_namespace else ""
        return f"level {self.level}{own}"

    def layers(self) -> dict[str, bool]:
        return {
            "user namespace": self.user_namespace,
            "pid, mount, net, ipc and uts namespaces": self.namespaces,
            "own file system and scratch": self.namespaces,
            "no /proc": self.namespaces or self.landlock > 0,
            "landlock": self.landlock > 0,
            "landlock network rules": self.landlock >= 4,
            "landlock signal scope": self.landlock >= 6,
            "seccomp": self.seccomp,
            "another user": may_change_user(),
            "no capabilities": True,
            "rlimits": True,
        }


def ladder() -> list[Rung]:
    """The ways from the best to the worst."""
    landlock = kernel.landlock_version()
    own = Rung(level="A", namespaces=True, user_namespace=True, landlock=landlock, seccomp=True)
    bare = replace(own, namespaces=False, user_namespace=False)
    rungs = [own, replace(own, user_namespace=False)]
    if landlock:
        rungs.append(replace(bare, level="B"))
    rungs.append(replace(bare, level="C", landlock=0))
    return [*rungs, replace(bare, level="D", landlock=0, seccomp=False)]


def plan_of(config: SandboxConfig, rung: Rung) -> dict[str, Any]:
    """What a zygote is told."""
    programs = filters(
        os.uname().machine,
        own_files=rung.namespaces,
        landlock_abi=rung.landlock,
        forks=config.profile == "fork",
    )
    return {
        **{name: getattr(config, name) for name in _SETTINGS},
        "level": rung.level,
        "namespaces": rung.namespaces,
        "user_namespace": rung.user_namespace,
        "landlock": rung.landlock,
        "filters": [base64.b64encode(p).decode() for p in programs] if rung.seccomp else [],
    }


def policy_of(plan: Mapping[str, Any]) -> str:
    """A hash of all that is enforced, the same on every machine that enforces the same."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:12]


def installed(modules: list[str]) -> list[str]:
    """Those that this interpreter finds."""
    return [m for m in modules if importlib.util.find_spec(m.partition(".")[0])]


def package_folders(preload: list[str]) -> list[str]:
    """The folders in which the modules outside the standard library are installed."""
    found = []
    for top in {name.partition(".")[0] for name in preload}:
        if top in sys.stdlib_module_names:
            continue
        with contextlib.suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(top)
            if spec and spec.origin:
                up = 1 if spec.submodule_search_locations else 0
                found.append(str(Path(spec.origin).parents[up]))
    return sorted(set(found))


class Zygote:
    """A running zygote."""

    def __init__(self, plan: Mapping[str, Any], start_seconds: float) -> None:
        """Starts it.

        Raises:
            StartError: a layer does not hold, or it took too long.
            OSError: the machine has no room for another process.
        """
        self.samples = 0
        self._last_words = ""
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        root = str(Path(__file__).resolve().parents[2])
        environment = dict(_ENVIRONMENT)
        if "LD_LIBRARY_PATH" in os.environ:  # where an interpreter may find its own library
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        command = [
            sys.executable,
            *_FLAGS,
            "-c",
            _BOOT,
            str(theirs.fileno()),
            root,
            plan["profile"],
        ]
        with theirs, contextlib.ExitStack() as unless_started:
            unless_started.callback(self.control.close)
            self._process = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
                cwd="/",
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
            unless_started.pop_all()
        self.pid = self._process.pid
        self.control.settimeout(start_seconds)
        try:
            self.ready = self._set_up(plan, root)
        except (OSError, StartError) as error:
            self.close()
            raise StartError(self._reason(error)) from error
        self.control.settimeout(0)

    def _set_up(self, plan: Mapping[str, Any], root: str) -> dict[str, Any]:
        mine = {
            "package_folders": package_folders([*plan["preload"], *plan["preload_if_named"]]),
            "root": root,
            "inside_id": _INSIDE_ID,
            "uid": 0 if plan["user_namespace"] or not may_change_user() else _outside_id(self.pid),
        }
        self.control.send(json.dumps({**plan, **mine}).encode())
        answer = self.control.recv(kernel.MESSAGE_BYTES)
        if answer == b"mapping":
            self._map_ids()
            self.control.send(b"mapped")
            answer = self.control.recv(kernel.MESSAGE_BYTES)
        ready: dict[str, Any] = json.loads(answer or b'{"failed": "it died"}')
        if "failed" in ready:
            raise StartError(ready["failed"])
        return ready

    def _map_ids(self) -> None:
        """Root gives the zygote a user and a group of its own; others can only give theirs."""
        place = Path(f"/proc/{self.pid}")
        outside_user, outside_group = os.geteuid(), os.getegid()
        if may_change_user():
            outside_user = outside_group = _outside_id(self.pid)
        (place / "setgroups").write_text("deny")
        (place / "uid_map").write_text(f"{_INSIDE_ID} {outside_user} 1")
        (place / "gid_map").write_text(f"{_INSIDE_ID} {outside_group} 1")

    def _reason(self, error: Exception) -> str:
        last = self._last_words.strip().rpartition("\n")[2]
        return f"{error}; {last}" if last else str(error)

    def close(self) -> None:
        """Ends it and all that it runs."""
        self.control.close()  # it leaves by itself, and its namespaces end with it
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stderr and not self._process.stderr.closed:
            self._last_words = self._process.stderr.read().decode("utf-8", "replace")
            self._process.stderr.close()


def may_change_user() -> bool:
    """Whether this process is root with the rights to become somebody else and to end that one."""
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    return os.geteuid() == 0 and effective & _OVER_USERS == _OVER_USERS


def _outside_id(pid: int) -> int:
    """A user id that nobody has, another one for each zygote on the machine."""
    first, inside, length = 0, 0, 1
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        start, _, count = (int(word) for word in line.split())
        if start + count > first + length:
            first, inside, length = start, start, count
    top = min(first + length, 1 << 31)
    return max(inside, top - 1 - pid % max(1, min(length // 2, 1 << 22)))
