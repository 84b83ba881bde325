"""The jailed process that samples are forked from: one a slot, started with exec.

It has one thread and holds nothing of the worker's: no code, no tests, no nonce. The worker sends
it, for each sample, the ends of four pipes; it forks, waits, and answers how the child ended.

    worker                          zygote
    the plan, JSON          ->
                            <-      "mapping"       only with a user namespace of its own
    "mapped"                ->
                            <-      JSON: ready, or what failed
    "run" + descriptors     ->      or "script", "falsify", "control", "solution", "tests"
    "cpu" / "kill"          ->      while a sample runs
                            <-      "cpu <nanoseconds>"
                            <-      "end <status> <cpu seconds> <peak bytes>"
    (end of file)           ->      kills the sample and leaves
"""

from __future__ import annotations

import base64
import contextlib
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from selfalign_ray.sandbox import kernel, runner, split, tampering, view
from selfalign_ray.sandbox.bpf import with_own_pid
from selfalign_ray.sandbox.channel import Channel

_THREAD_STACK_BYTES = 1 << 20  # 8 MiB would let the memory limit hold only 30 threads
_NAMESPACES = kernel.NEW_MOUNTS | kernel.NEW_UTS | kernel.NEW_IPC | kernel.NEW_PIDS | kernel.NEW_NET


class SetupError(Exception):
    """A layer that the plan asks for does not hold here."""


def main(descriptor: int, register_at_fork: Callable[..., None]) -> None:
    control = socket.socket(fileno=descriptor)
    plan = json.loads(control.recv(kernel.MESSAGE_BYTES))
    try:
        if plan["namespaces"]:
            _enter_namespaces(control, plan)
        zygote = Zygote(control, plan)
    except Exception as error:  # noqa: BLE001 - told to the worker, which tries the next level
        control.send(json.dumps({"failed": f"{type(error).__name__}: {error}"}).encode())
        os._exit(1)
    os.register_at_fork = register_at_fork
    zygote.serve()


def _enter_namespaces(control: socket.socket, plan: dict[str, Any]) -> None:
    """Goes on as process 1 of new namespaces; this process stays as its parent and waits."""
    with contextlib.suppress(PermissionError):
        os.setgroups([])
    if plan["user_namespace"]:
        kernel.unshare(_NAMESPACES | kernel.NEW_USER)
        control.send(b"mapping")
        if control.recv(kernel.MESSAGE_BYTES) != b"mapped":
            os._exit(1)
    else:
        kernel.unshare(_NAMESPACES)
    child = os.fork()
    if child == 0:
        kernel.die_with_parent()
        return
    control.close()
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


class Zygote:
    """Sets the jail up, then forks samples."""

    def __init__(self, control: socket.socket, plan: dict[str, Any]) -> None:
        self._control, self._plan = control, plan
        kernel.small_pages()
        kernel.adopt_orphans()
        loaded = self._preload()
        packages = view.package_paths(plan["package_folders"])
        self._baseline = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
        self._pid = os.getpid()
        self._own_pids = -1
        # Where a sample may write. multiprocessing keeps its semaphores in shared memory.
        folders = view.scratch_folders(packages)
        os.environ.update(HOME=folders[0], TMPDIR=folders[0])
        self._folders = [*folders, *([view.SHARED] if plan["profile"] == "fork" else [])]
        self._scratch: view.Scratch | None = None
        if plan["namespaces"]:
            self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
            own_view = view.View(packages, self._folders)
            self._drop_user()
            own_view.enter()
            self._scratch = view.Scratch(
                own_view, self._folders, megabytes=plan["scratch_mb"], files=plan["scratch_files"]
            )
            self._scratch.mount()
            kernel.leave_on_signals()
        else:
            os.chdir("/")
        kernel.no_new_privileges()
        kernel.undumpable()
        self._readable = view.readable(packages)
        self._ruleset = -1
        self._renew_ruleset()
        programs = [base64.b64decode(text) for text in plan["filters"]]
        self._closing_program = programs[1] if programs else b""
        self._closing = kernel.Filter(self._closing_program)
        threading.stack_size(_THREAD_STACK_BYTES)
        self._limits = self._resource_limits()
        runner.warm_up()
        for name in [n for n in sys.modules if n.startswith("selfalign_ray")]:
            del sys.modules[name]
        sys.path.remove(plan["root"])
        sys.argv[:] = ["main.py"]
        self._taken = tampering.snapshots()
        gc.collect()
        gc.disable()
        gc.freeze()  # a collection in a child would write to every page it shares with us
        kernel.trim_heap()
        if programs:
            kernel.Filter(programs[0]).install()
        self._try()
        ready = {"python": sys.version.split()[0], "preloaded": loaded}
        control.send(json.dumps(ready).encode())

    def _try(self) -> None:
        """Closes the jail around a throw-away child: what fails there would fail in each sample."""
        source, sink = os.pipe()
        self._new_process_ids()
        child = os.fork()
        if child == 0:
            try:
                self._close_jail()
            except OSError as error:
                os.write(sink, str(error).encode())
                os._exit(1)
            os._exit(0)
        os.close(sink)
        reason = os.read(source, 1_000).decode()
        os.close(source)
        _, status = os.waitpid(child, 0)
        if reason or status:
            raise SetupError(reason or f"a sample's process ends with status {status}")

    def serve(self) -> NoReturn:
        while True:
            try:
                message, descriptors, _, _ = socket.recv_fds(self._control, kernel.MESSAGE_BYTES, 8)
            except OSError:
                os._exit(0)
            if not message:
                os._exit(0)
            if descriptors:  # else "kill" or "cpu" for a sample that has just ended
                self._run(message.decode(), descriptors)

    def _preload(self) -> list[str]:
        sys.path += self._plan["package_folders"]
        loaded = []
        for name in [*self._plan["preload"], *self._plan["preload_if_named"]]:
            try:
                importlib.import_module(name)
            except ImportError:
                continue  # said in `ready`
            loaded.append(name)
        if "numpy" in loaded:
            sys.modules["numpy"].random.seed(0)
        return loaded

    def _drop_user(self) -> None:
        """Leaves the worker's user; the capabilities over our own namespaces stay."""
        kernel.freeze_capability_rules()
        kernel.drop_bounding_capabilities()
        inside = self._plan["inside_id" if self._plan["user_namespace"] else "uid"]
        os.setresgid(inside, inside, inside)
        os.setresuid(inside, inside, inside)

    def _renew_ruleset(self) -> None:
        """Landlock's rules name folders as they are now: a new scratch needs new rules."""
        if self._ruleset >= 0:
            os.close(self._ruleset)
            self._ruleset = -1
        if self._plan["landlock"]:
            inside = self._plan["namespaces"]
            self._ruleset = kernel.landlock_ruleset(
                self._plan["landlock"],
                read=["/"] if inside else [*self._readable, "/dev/urandom", "/dev/zero"],
                write=self._folders if inside else [],
                devices=["/dev/null"],
            )

    def _resource_limits(self) -> list[tuple[int, tuple[int, int]]]:
        plan, mega = self._plan, 1 << 20
        pairs = {
            resource.RLIMIT_AS: self._baseline + plan["memory_mb"] * mega,
            resource.RLIMIT_CPU: int(plan["cpu_seconds"] + 0.999) + plan["cpu_backstop_seconds"],
            resource.RLIMIT_FSIZE: plan["file_mb"] * mega,
            resource.RLIMIT_NOFILE: plan["open_files"],
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_MEMLOCK: 0,
            resource.RLIMIT_MSGQUEUE: 0,
        }
        if plan["namespaces"] or plan["uid"]:
            pairs[resource.RLIMIT_NPROC] = plan["processes"] + 1  # and the zygote
        return [(kind, (value, value)) for kind, value in pairs.items()]

    def _run(self, role: str, descriptors: list[int]) -> None:
        self._new_process_ids()
        child = os.fork()
        if child == 0:
            try:
                self._become_sample(role, descriptors)
            except BaseException as error:  # noqa: BLE001 - the jail did not close
                with contextlib.suppress(OSError):
                    os.write(descriptors[3], f"infra {type(error).__name__}: {error}\n".encode())
            os._exit(1)
        for descriptor in descriptors:
            os.close(descriptor)
        self._wait(child)

    def _new_process_ids(self) -> None:
        if self._own_pids >= 0:
            kernel.setns(self._own_pids, kernel.NEW_PIDS)  # or a second unshare fails: EINVAL
            kernel.unshare(kernel.NEW_PIDS)

    def _wait(self, child: int) -> None:
        pidfd = os.pidfd_open(child)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        alive = True
        while alive:
            for descriptor, _ in poll.poll():
                if descriptor == pidfd:
                    alive = False
                    continue
                message = self._control.recv(kernel.MESSAGE_BYTES)
                if message == b"cpu":
                    used = time.clock_gettime_ns((~child << 3) | 2)  # CPUCLOCK_SCHED of a process
                    self._control.send(b"cpu %d" % used)
                else:
                    self._kill(child)
                    if not message:
                        os._exit(0)
        os.close(pidfd)
        _, status, usage = os.wait4(child, 0)
        if self._own_pids < 0:
            self._kill_rest(child)
        if self._scratch is not None and self._scratch.touched():
            self._scratch.unmount()
            self._scratch.mount()
            self._renew_ruleset()
        seconds = usage.ru_utime + usage.ru_stime
        self._control.send(b"end %d %.6f %d" % (status, seconds, usage.ru_maxrss * 1024))

    def _kill(self, child: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        if self._own_pids < 0:
            self._kill_rest(child)

    def _kill_rest(self, group: int) -> None:
        """Without process ids of their own: the sample's group, and orphans, which come to us."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)

    def _become_sample(self, role: str, descriptors: list[int]) -> NoReturn:
        code, out, err, report, *links = descriptors
        os.dup2(out, 1)
        os.dup2(err, 2)
        for descriptor in (out, err, self._control.fileno()):
            os.close(descriptor)
        self._close_jail()
        channel = Channel(code, report)
        if role in {"run", "script"}:
            script = role == "script"
            runner.run(channel, lambda: runner.run_shared(channel, self._taken, self._plan, script))
        if role == "falsify":
            runner.run(channel, lambda: runner.run_falsify(channel))
        if role == "control":
            runner.run(channel, lambda: runner.run_control(channel, self._plan))
        link = socket.socket(fileno=links[0])
        work = {"solution": split.run_solution, "tests": split.run_split_tests}[role]
        runner.run(channel, lambda: work(channel, link, self._plan))

    def _close_jail(self) -> None:
        """Closes the jail around this process, layer by layer."""
        if self._own_pids >= 0:
            os.close(self._own_pids)
        else:
            os.setsid()
            if self._plan["uid"]:
                os.setgroups([])
                os.setresgid(*[self._plan["uid"]] * 3)
                os.setresuid(*[self._plan["uid"]] * 3)
        for kind, values in self._limits:
            resource.setrlimit(kind, values)
        kernel.drop_capabilities()
        if self._own_pids < 0:  # else the kernel ends it with the zygote's namespace
            kernel.die_with_parent()  # a change of user would take it back
            if os.getppid() != self._pid:
                os._exit(1)
        if self._ruleset >= 0:
            kernel.landlock_enter(self._ruleset)
            os.close(self._ruleset)
        if self._own_pids >= 0:
            self._closing.install()
        elif self._closing_program:
            kernel.Filter(with_own_pid(self._closing_program, os.getpid())).install()
