"""One slot: a zygote, replaced when it has run its share or broke, and the samples on it."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any

from selfalign_ray.sandbox.canaries import demand, fly
from selfalign_ray.sandbox.config import SandboxConfig
from selfalign_ray.sandbox.execution import Execution, run_together
from selfalign_ray.sandbox.launch import StartError, Zygote, policy_of
from selfalign_ray.sandbox.report import one_line
from selfalign_ray.sandbox.suspicion import gives_power
from selfalign_ray.sandbox.verdict import Outcome, Reading, Verdict, read

# Above a lower CPU limit: on a busy machine a sample waits for its turn. As 15 s are above 5 s.
_WAITING_SECONDS = 5.0


class Slot:
    """Judges one program at a time."""

    def __init__(
        self, config: SandboxConfig, plan: Mapping[str, Any], zygote: Zygote | None = None
    ) -> None:
        self._config, self._plan = config, plan
        self._policy = policy_of(plan)
        # By part and by how many modules they have loaded; each starts with its first program.
        self._zygotes: dict[tuple[str, int], Zygote] = {}
        if zygote:
            self._zygotes["run", 0] = zygote
        self._loads = loads_by_name(config.preload_if_named)

    def judge(self, code: str, tests: str, cpu_seconds: float | None = None) -> Verdict:
        """Judges a program; `infra` if the slot could not run it to an end.

        Args:
            code: the solution.
            tests: empty: the solution is run as a script.
            cpu_seconds: a limit below the setting's; brings the wall limit down with it.
        """
        if not (code or "").strip():
            outcome = Outcome(nonce=b"", stopped="syntax_error", reason="there is no code")
            return self._verdict(outcome, read(outcome, 0), "shared")
        try:
            verdict = self._judge(code, tests or "", limited(self._config, cpu_seconds))
        except (StartError, OSError) as error:  # the machine has no more memory, or files
            outcome = Outcome(nonce=b"", infra=f"did not run: {error}")
            verdict = self._verdict(outcome, read(outcome, 0), "shared")
        if verdict.verdict == "infra":
            self.close()
        return verdict

    def close(self) -> None:
        """Ends the zygotes; the next sample starts another."""
        for zygote in self._zygotes.values():
            zygote.close()
        self._zygotes.clear()

    def _judge(self, code: str, tests: str, config: SandboxConfig) -> Verdict:
        splittable = bool(tests.strip())
        if config.assurance == "split" and splittable:
            return self._split(code, tests, config)
        zygote = self._zygote("run", code, tests)
        role = "run" if splittable else "script"
        [outcome] = run_together([Execution(zygote, [code, tests], config, role)])
        reading = read(outcome, config.cpu_seconds)
        if reading.verdict == "passed" and reading.report.suspicions:
            if config.assurance == "auto" and splittable:
                passed = self._verdict(outcome, reading, "shared")
                return self._confirmed(code, tests, config, passed, reading.report.suspicions)
            reading = _with_suspicions(reading)
        return self._verdict(outcome, reading, "shared")

    def _confirmed(
        self, code: str, tests: str, config: SandboxConfig, passed: Verdict, suspicions: list[str]
    ) -> Verdict:
        """A pass in one process, if two confirm it, or if false expectations fail in one."""
        verdict = self._split(code, tests, config)
        if verdict.verdict in {"passed", "infra"}:
            return verdict
        if not any(map(gives_power, suspicions)):
            false = control = self._run("falsify", code, tests, config)
            if false.report.text:
                control = self._run("control", code, false.report.text, config)
            if "infra" in {false.verdict, control.verdict}:
                return replace(verdict, verdict="infra", detail="the control run broke")
            report = control.report
            failed = control.verdict in {"assertion", "exception"} and not report.forged
            if failed and not report.false_passed and 0 < report.false_failed <= len(report.failed):
                words = ", ".join(dict.fromkeys(suspicions))
                return replace(passed, detail=one_line(f"suspicious: {words}"))
        detail = one_line(f"passed in one process, in two: {verdict.detail}")
        return replace(verdict, detail=detail)

    def _run(self, role: str, code: str, tests: str, config: SandboxConfig) -> Reading:
        zygote = self._zygote("run", code, tests)
        [outcome] = run_together([Execution(zygote, [code, tests], config, role)])
        return read(outcome, config.cpu_seconds)

    def _split(self, code: str, tests: str, config: SandboxConfig) -> Verdict:
        """Runs code and tests in a process each; the tests' process decides."""
        first, second = (self._zygote(part, code, tests) for part in ("run", "solution"))
        ours, theirs = socket.socketpair()
        with ours, theirs:
            asking = Execution(first, ["", tests], config, "tests", [ours.fileno()])
            try:
                asked = Execution(second, [code, ""], config, "solution", [theirs.fileno()])
            except OSError:
                asking.finish()
                raise
        outcomes = run_together([asking, asked])
        of_tests, of_code = (read(outcome, config.cpu_seconds) for outcome in outcomes)
        reading = of_tests
        if of_tests.verdict != "passed" and of_code.verdict != "passed":
            # The tests failed because the code did: what became of the code says more.
            reading = Reading(of_code.verdict, of_code.detail, of_tests.report)
        outcome = outcomes[0]
        outcome.cpu_seconds += outcomes[1].cpu_seconds
        outcome.peak_memory_bytes = max(o.peak_memory_bytes for o in outcomes)
        outcome.stdout = (outcomes[1].stdout + outcome.stdout)[: config.output_bytes]
        outcome.stderr = (outcomes[1].stderr + outcome.stderr)[: config.output_bytes]
        return self._verdict(outcome, reading, "split")

    def _zygote(self, part: str, code: str, tests: str) -> Zygote:
        loads = [n for name, n in self._loads.items() if name in code or name in tests]
        count = max(loads, default=0)
        key = part, count
        zygote = self._zygotes.get(key)
        if zygote and zygote.samples >= self._config.samples_per_zygote:
            self._zygotes.pop(key).close()
            zygote = None
        if not zygote:
            self._zygotes[key] = zygote = tested_zygote(self._config, with_named(self._plan, count))
        return zygote

    def _verdict(self, outcome: Outcome, reading: Reading, assurance: str) -> Verdict:
        report = reading.report
        return Verdict(
            verdict=reading.verdict,
            detail=reading.detail,
            cpu_seconds=outcome.cpu_seconds,
            wall_seconds=outcome.wall_seconds,
            peak_memory_bytes=outcome.peak_memory_bytes,
            asserts_run=report.run,
            asserts_failed=len(report.failed),
            asserts_total=report.total,
            failed_asserts=tuple(report.failed),
            stdout=outcome.stdout.decode("utf-8", "replace"),
            stderr=outcome.stderr.decode("utf-8", "replace"),
            level=self._plan["level"],
            policy=self._policy,
            assurance=assurance,
        )


def limited(config: SandboxConfig, cpu_seconds: float | None) -> SandboxConfig:
    """The settings with a CPU limit that is lower, and a wall limit that fits it."""
    if cpu_seconds is None or cpu_seconds >= config.cpu_seconds:
        return config
    wall = min(config.wall_seconds, cpu_seconds + _WAITING_SECONDS)
    return replace(config, cpu_seconds=cpu_seconds, wall_seconds=wall)


def with_named(plan: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The plan of a zygote that loads so many of the modules to be named."""
    return {**plan, "preload_if_named": plan["preload_if_named"][:count]}


def loads_by_name(modules: list[str]) -> dict[str, int]:
    """How many of the modules a program gets that names one of them.

    Those of the standard library stand together; each package ends a group of its own.
    """
    out: dict[str, int] = {}
    count = 0
    tops = (name.partition(".")[0] for name in modules)
    for _, group in groupby(tops, lambda top: top in sys.stdlib_module_names or top):
        names = list(group)
        count += len(names)
        for name in names:
            out.setdefault(name, count)
    return out


def _with_suspicions(reading: Reading) -> Reading:
    """A pass that no second process has confirmed."""
    suspicions = reading.report.suspicions
    changed = dict.fromkeys(s for s in suspicions if s.startswith("changed "))
    if changed:
        return Reading("sandbox_violation", one_line(", ".join(changed)), reading.report)
    detail = one_line(f"suspicious: {', '.join(suspicions)}")
    return Reading(reading.verdict, detail, reading.report)


def tested_zygote(config: SandboxConfig, plan: Mapping[str, Any]) -> Zygote:
    """A zygote that has withstood its canaries.

    Raises:
        StartError: it has not, or did not start.
    """
    zygote = Zygote(plan, config.start_seconds)
    try:
        demand(fly(zygote, config, plan["level"]))
    except BaseException:
        zygote.close()
        raise
    return zygote
