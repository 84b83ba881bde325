"""The lines that a jailed process writes about its sample, and how the worker reads them. Pure.

    suspicious gc
    loaded 3            the solution has loaded; three tests follow
    1 passed
    2 assertion assert add(1, 2) == 4
    3 passed
    end <nonce> <kind> <detail>

A control run (see `control`) says `false failed` or `false passed` before a test's line. The lines
before the last only say how far a sample came that did not end. A verdict comes from the last line
alone, and only with the nonce, which the process reads after the tests have run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

NONCE_BYTES = 16
DETAIL_CHARACTERS = 300
KINDS = {
    "passed", "assertion", "exception", "out_of_memory", "syntax_error", "sandbox_violation",
}  # fmt: skip


@dataclass(slots=True)
class Report:
    """What could be read; `end` is empty unless there is a last line with the nonce."""

    suspicions: list[str] = field(default_factory=list)
    note: str = ""
    loaded: bool = False
    total: int = 0
    run: int = 0
    failed: list[int] = field(default_factory=list)  # 0 is the first test
    end: str = ""
    detail: str = ""
    # Of a control run: steps whose false expectations failed, as they should, and that passed one.
    false_failed: int = 0
    false_passed: int = 0
    text: str = ""  # the tests with false expectations, where these were asked for
    forged: bool = False  # bytes that no honest report has


def one_line(text: str) -> str:
    """The text on one line of bounded length, fit for UTF-8."""
    short = text[: 2 * DETAIL_CHARACTERS].replace("\r", " ").replace("\n", " ")
    return short.encode("utf-8", "backslashreplace").decode()[:DETAIL_CHARACTERS]


def read(text: bytes, nonce: bytes) -> Report:
    """Reads a report that hostile code may have written into."""
    report = Report()
    lines = text.split(b"\n")
    tail = lines.pop()
    for line in lines:
        if report.end or not _take(report, line.decode("utf-8", "replace"), nonce.hex()):
            report.forged = True
            break
    if tail:
        report.forged = True
    if report.end == "passed":
        complete = report.loaded and report.run == report.total and not report.failed
        report.forged |= not complete
    return report


def _text(rest: str) -> str:
    try:
        value = json.loads(rest)
    except ValueError:
        return ""
    return value if isinstance(value, str) else ""


def _take(report: Report, line: str, nonce: str) -> bool:
    head, _, rest = line.partition(" ")
    if head == "suspicious":
        report.suspicions.append(rest)
        return len(report.suspicions) <= 1_000
    if head == "note":
        report.note = rest
        return True
    if head == "text":
        report.text = _text(rest)
        return bool(report.text)
    if head == "false":
        report.false_failed += rest == "failed"
        report.false_passed += rest != "failed"
        return True
    if head == "loaded":
        fresh = not report.loaded and rest.isdecimal() and len(rest) < 9
        report.loaded, report.total = True, int(rest) if fresh else 0
        return fresh
    if head == "end":
        mark, _, rest = rest.partition(" ")
        kind, _, report.detail = rest.partition(" ")
        if mark != nonce or kind not in KINDS:
            return False
        report.end = kind
        return True
    if not head.isdecimal() or len(head) > 8 or int(head) != report.run + 1:
        return False
    report.run += 1
    kind, _, detail = rest.partition(" ")
    if kind != "passed":
        report.failed.append(report.run - 1)
        report.detail = report.detail or detail
    return report.run <= report.total and kind in KINDS
