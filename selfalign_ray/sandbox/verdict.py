"""What became of a sample, and how it is read off a process that ended. Pure."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from selfalign_ray.sandbox import report as reports
from selfalign_ray.sandbox.kernel import FATAL_SIGNALS

VERDICTS = (
    "passed", "assertion", "exception", "timeout", "out_of_memory", "syntax_error",
    "sandbox_violation", "infra",
)  # fmt: skip
# As a status these mean something else: a report that could not be made; nothing.
_OWN_STATUS = (1, signal.SIGSYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one program.

    A test is a top-level statement of the tests that is no definition, import, assignment or
    print; what pytest and unittest would call, and a function with asserts that nothing calls,
    counts too. Tests run in order, also after one that failed, until the code ends, so the first
    `asserts_run` ran. Where there are tests, what the code has under its main guard does not run.
    """

    verdict: str  # one of VERDICTS; `infra` says nothing about the program
    detail: str  # one line: the exception, the failing assert's source, the missing piece
    cpu_seconds: float
    wall_seconds: float
    peak_memory_bytes: int  # resident, with the interpreter's
    asserts_run: int
    asserts_failed: int
    asserts_total: int  # 0 where the code did not load: its tests are not read before
    failed_asserts: tuple[int, ...]  # which ones, the first is 0
    stdout: str  # the first output_bytes of it
    stderr: str
    level: str  # A to D
    policy: str  # hash of what was enforced
    # shared: one process; split: code and tests in two. A shared pass whose detail is
    # `suspicious: ...` could not be repeated in two, but failed tests with false expectations.
    assurance: str


@dataclass(slots=True)
class Outcome:
    """How a sample's process ended, unread."""

    nonce: bytes
    status: int = 0  # as `os.wait` says it
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    peak_memory_bytes: int = 0
    stopped: str = ""  # why the worker ended it: timeout or out_of_memory
    reason: str = ""
    may_kill: bool = False  # its processes could send SIGKILL
    infra: str = ""  # what broke, if the sample did not run to an end
    report: bytes = b""
    stdout: bytes = b""
    stderr: bytes = b""


@dataclass(frozen=True, slots=True)
class Reading:
    """A verdict's word, its detail, and the report that it was read from."""

    verdict: str
    detail: str
    report: reports.Report


def read(outcome: Outcome, cpu_limit: float) -> Reading:
    """The verdict of a process that ended; a pass only from a complete report and exit 0."""
    report = reports.read(outcome.report, outcome.nonce)
    verdict, detail = _judge(outcome, report, cpu_limit)
    return Reading(verdict, reports.one_line(detail), report)


def _judge(outcome: Outcome, report: reports.Report, cpu_limit: float) -> tuple[str, str]:
    if outcome.infra:
        return "infra", outcome.infra
    if outcome.stopped:
        return outcome.stopped, outcome.reason
    if os.WIFSIGNALED(outcome.status):
        return _killed(outcome, os.WTERMSIG(outcome.status), cpu_limit)
    code = os.waitstatus_to_exitcode(outcome.status)
    if code == 1 and outcome.report.startswith(b"infra "):
        return "infra", outcome.report[6:].decode("utf-8", "replace")
    if report.forged:
        return "sandbox_violation", "wrote to, read or closed the channel of its own verdict"
    if code == 0 and report.end:
        detail = report.detail or (report.note if report.end == "passed" else "")
        return report.end, detail
    if code in FATAL_SIGNALS and code not in _OWN_STATUS:
        return _killed(outcome, code, cpu_limit)  # see `kernel.leave_on_signals`
    return "exception", f"the process ended by itself with status {code}, before its verdict"


def _killed(outcome: Outcome, number: int, cpu_limit: float) -> tuple[str, str]:
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    if name == "SIGSYS":
        return "sandbox_violation", "a forbidden system call (SIGSYS)"
    if name in {"SIGKILL", "SIGXCPU"} and outcome.cpu_seconds >= cpu_limit:
        return "timeout", f"used {outcome.cpu_seconds:.1f} s of CPU"
    if name == "SIGKILL" and not outcome.may_kill:
        return "infra", "killed from outside the sandbox, perhaps for the machine's memory"
    if any(sign in outcome.stderr for sign in (b"MemoryError", b"bad_alloc", b"ut of memory")):
        return "out_of_memory", f"killed by {name} for want of memory"
    return "exception", f"killed by {name}"
