"""Ctrl-C that is always heard: an interrupt is repeated until it ends the block it fell into."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def interruptible(repeat_seconds: float = 2.0) -> Iterator[None]:
    """Lets a SIGINT leave the block as KeyboardInterrupt, whatever it falls into.

    Python raises the exception in whatever the main thread happens to run. Where that is a
    finaliser or a callback of a library's, Ray's among them, it is printed or dropped, and the
    run would go on as if nobody had asked it to stop. SIGALRM repeats it until it gets here.
    Outside the main thread, where no signal arrives, the block runs as it is.

    Args:
        repeat_seconds: between two attempts.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, repeat_seconds)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGINT)}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        # First of all: from here on no repetition may break into what is put away.
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            if handler is not None:  # else it was not set from Python
                signal.signal(number, handler)
