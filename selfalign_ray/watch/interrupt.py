"""The ways in which a run is asked to end: softly first, then at once, and always heard.

The first Ctrl-C or SIGTERM, which a scheduler sends before it takes a node, lets what is in flight
be finished and written, where something is: within a `draining` block. Elsewhere, at the second
and after the grace period it ends the run at once.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pyarrow as pa

from selfalign_ray.watch.tally import request_stop, stopping

_drains = False  # whether there is anything to finish
_asked = False  # whether the run is to end


def is_stopping() -> bool:
    """Whether this process was asked to end its run, and finishes what is in flight."""
    return _asked


def unless_stopping(block: pa.Table) -> pa.Table:
    """The rows, in a worker; none of them once the run is to end."""
    return block.slice(0, 0) if block.num_rows and stopping() else block


@contextlib.contextmanager
def draining() -> Iterator[None]:
    """A block in which the first signal stops nothing; whoever looks at `is_stopping` ends it."""
    global _drains  # noqa: PLW0603  a process has one run
    _drains = True
    try:
        yield
    finally:
        _drains = False


@contextlib.contextmanager
def interruptible(grace_seconds: float, repeat_seconds: float = 2.0) -> Iterator[None]:
    """Lets SIGINT and SIGTERM leave the block as KeyboardInterrupt, whatever they fall into.

    Python raises the exception in whatever the main thread happens to run. Where that is a
    finaliser or a callback of a library's, Ray's among them, it is printed or dropped, and the
    run would go on as if nobody had asked it to stop. SIGALRM repeats it until it gets here.
    Outside the main thread, where no signal arrives, the block runs as it is.

    Args:
        grace_seconds: from the first signal to the interrupt, where the block drains.
        repeat_seconds: between two attempts.
    """
    global _asked  # noqa: PLW0603  a process has one run
    _asked = False
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, _frame: FrameType | None) -> None:
        global _asked  # noqa: PLW0603
        if _drains and not _asked and number != signal.SIGALRM:
            # No lock may be taken here, so nothing is logged; the display says it.
            _asked = True
            request_stop()
            signal.setitimer(signal.ITIMER_REAL, grace_seconds)
            return
        signal.setitimer(signal.ITIMER_REAL, repeat_seconds)
        raise KeyboardInterrupt

    numbers = (signal.SIGALRM, signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
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


def end_at_once() -> None:
    """Ends this process's run as a second signal does; from any thread."""
    global _asked  # noqa: PLW0603  a process has one run
    _asked = True
    _thread.interrupt_main()
