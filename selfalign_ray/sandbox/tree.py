"""What a sample's processes use together, where its profile lets it have several."""

from __future__ import annotations

import contextlib
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
        _, shared = _used(zygote)
        for pid in _descendants(zygote):
            spent, resident = _used(pid)
            seconds += spent
            memory += max(0, resident - shared)
    return seconds, memory


def _descendants(pid: int) -> Iterator[int]:
    for child in _children(pid):
        yield child
        yield from _descendants(child)


def _children(pid: int) -> Iterator[int]:
    """A process belongs to the thread that made it."""
    with contextlib.suppress(OSError):  # it has ended
        for task in list(Path(f"/proc/{pid}/task").iterdir()):
            with contextlib.suppress(OSError):
                yield from map(int, (task / "children").read_text().split())


def _used(pid: int) -> tuple[float, int]:
    """Its own time and that of its children that have ended; resident memory that is no file's."""
    try:
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
        _, resident, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
    except OSError:
        return 0.0, 0
    return sum(map(int, times)) / _TICKS, max(0, resident - shared) * _PAGE
