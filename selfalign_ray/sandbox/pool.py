"""The sandbox as its users see it: programs in, verdicts out."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Self

from selfalign_ray.errors import UserError
from selfalign_ray.sandbox.bpf import ARCHITECTURES
from selfalign_ray.sandbox.config import LEVELS, SandboxConfig
from selfalign_ray.sandbox.launch import (
    Rung,
    StartError,
    Zygote,
    installed,
    ladder,
    plan_of,
    policy_of,
)
from selfalign_ray.sandbox.slot import Slot, tested_zygote, with_named
from selfalign_ray.sandbox.verdict import Verdict
from selfalign_ray.settings import check

_BELOW = (
    "sandbox.minimum_level: this machine does not offer level {} or better.",
    "How to get level A: run as root; in Docker with --cap-add SYS_ADMIN --security-opt",
    "seccomp=unconfined --security-opt apparmor=unconfined; in Kubernetes with securityContext",
    "capabilities.add [SYS_ADMIN]; or let users make namespaces: sysctl user.max_user_namespaces",
    "above 0 and, on Ubuntu, kernel.apparmor_restrict_unprivileged_userns=0.",
    "How to get level B: Linux 5.13 with landlock in /sys/kernel/security/lsm, and a container",
    "runtime that lets the landlock calls through (Docker 23, containerd 1.7).",
    "What was tried:",
)


_Job = tuple[str, str, float | None]  # code, tests, CPU limit


class Sandbox:
    """A pool of slots.

    Generated code runs in none of this process's threads, and none of its memory is forked.
    """

    def __init__(self, config: SandboxConfig) -> None:
        """Finds the best level that this machine offers, and starts the slots.

        Raises:
            UserError: the level is below `minimum_level`, or a setting cannot be.
        """
        check(config, "sandbox")
        self._config = config
        self._rung, self._plan, zygote = best_level(config)
        self._ready = zygote.ready
        self._jobs: SimpleQueue[tuple[_Job, Future[Verdict]] | None] = SimpleQueue()
        self._lock, self._closed = threading.Lock(), False
        self._slots = [Slot(config, self._plan, zygote)]
        self._slots += [Slot(config, self._plan) for _ in range(config.slots - 1)]
        self._threads = [
            threading.Thread(target=self._work, args=(slot,), daemon=True, name=f"slot {index}")
            for index, slot in enumerate(self._slots)
        ]
        for thread in self._threads:
            thread.start()

    def judge(
        self, programs: Sequence[tuple[str, str]], cpu_seconds: Sequence[float] | None = None
    ) -> list[Verdict]:
        """The verdicts of (code, tests) pairs, in order; the slots work in parallel.

        What a slot could not run is tried again once the others are judged, on fresh zygotes.

        Args:
            programs: the pairs.
            cpu_seconds: for each of them its CPU limit, where that is below the setting's.

        Raises:
            ValueError: the sandbox is closed.
        """
        limits: Sequence[float | None] = (
            [None] * len(programs) if cpu_seconds is None else cpu_seconds
        )
        jobs = [(*program, limit) for program, limit in zip(programs, limits, strict=True)]
        verdicts: dict[int, Verdict] = {}
        todo: Sequence[int] = range(len(jobs))
        for _ in range(self._config.attempts):
            judged = self._give([jobs[n] for n in todo])
            verdicts.update((n, done.result()) for n, done in zip(todo, judged, strict=True))
            todo = [n for n in todo if verdicts[n].verdict == "infra"]
            if not todo:
                break
        return list(verdicts.values())

    def describe(self) -> dict[str, Any]:
        """What is enforced here, for a run's manifest."""
        return {
            "level": self._rung.level,
            "layers": self._rung.layers(),
            "policy": policy_of(self._plan),
            "python": self._ready["python"],
            "preloaded": self._ready["preloaded"] + installed(self._config.preload_if_named),
            "profile": self._config.profile,
            "assurance": self._config.assurance,
        }

    def close(self) -> None:
        """Ends all slots, once what they were given is judged."""
        with self._lock:
            self._closed = True
            for _ in self._threads:
                self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _give(self, jobs: Sequence[_Job]) -> list[Future[Verdict]]:
        """Has the slots judge them, whichever is free."""
        with self._lock:
            if self._closed:
                raise ValueError("the sandbox is closed")
            given: list[tuple[_Job, Future[Verdict]]] = [(job, Future()) for job in jobs]
            for pair in given:
                self._jobs.put(pair)
        return [done for _, done in given]

    def _work(self, slot: Slot) -> None:
        while (given := self._jobs.get()) is not None:
            job, done = given
            try:
                done.set_result(slot.judge(*job))
            except Exception as error:  # noqa: BLE001 - raised by `judge`, where somebody waits
                slot.close()
                done.set_exception(error)
        slot.close()


def best_level(config: SandboxConfig) -> tuple[Rung, Mapping[str, Any], Zygote]:
    """Tries the levels from the top, and says which holds, with a zygote that runs at it.

    Raises:
        UserError: none at or above `minimum_level` holds; with the reason of each.
    """
    require_linux()
    reasons = []
    allowed = LEVELS[: LEVELS.index(config.minimum_level) + 1]
    for rung in ladder():
        if rung.level in allowed:
            plan = plan_of(config, rung)
            try:
                return rung, plan, tested_zygote(config, with_named(plan, 0))
            except StartError as error:
                reasons.append(f"  {rung.name()}: {error}")
    advice = "\n".join(_BELOW).format(config.minimum_level)
    raise UserError("\n".join([advice, *reasons]))


def require_linux() -> None:
    machine = os.uname()
    if machine.sysname != "Linux" or machine.machine not in ARCHITECTURES:
        raise UserError(
            f"sandbox: needs Linux on {' or '.join(ARCHITECTURES)}; "
            f"this is {machine.sysname} on {machine.machine}"
        )
