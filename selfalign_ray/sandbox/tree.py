"""What a sample's processes use together, where its profile lets it have several."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def usage(launcher: int) -> tuple[float, int]:
    """CPU seconds and own memory in bytes of a sample and all its processes.

    Args:
        launcher: the process that the worker started; its child is the zygote, whose child is
            the sample.
    """
    seconds, memory = 0.0, 0
    for zygote in _children(launcher):
        shared = _memory(zygote)
        for sample in _children(zygote):
            for pid in (sample, *_descendants(sample)):
                seconds += _seconds(pid)
                memory += max(0, _memory(pid) - shared)
    return seconds, memory


def _children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # it has ended
        return []


def _descendants(pid: int) -> Iterator[int]:
    for child in _all_threads_children(pid):
        yield child
        yield from _descendants(child)


def _all_threads_children(pid: int) -> Iterator[int]:
    """A process belongs to the thread that made it."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return
    for task in tasks:
        try:
            text = (task / "children").read_text()
        except OSError:
            continue
        yield from (int(child) for child in text.split())


def _seconds(pid: int) -> float:
    """Its own time and that of its children that have ended (fields 14 to 17)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) / _TICKS


def _memory(pid: int) -> int:
    """Resident memory that is not a file's."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return max(0, int(fields[1]) - int(fields[2])) * _PAGE
