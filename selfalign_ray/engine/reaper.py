"""Ends what a process has started when that process dies, however it dies.

vLLM's core outlives an engine's process that is killed, and keeps its GPU's memory: the engine
that Ray starts in its place would find none.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

import psutil

_LOOK_SECONDS = 1.0  # between two looks at who is there


def reap_after_death() -> None:
    """Starts a process that waits for the death of this one, and then kills all below it."""
    # By its path, which does wherever this package came from; -P: nothing beside it is imported.
    command = [sys.executable, "-P", __file__, str(os.getpid())]
    subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603


def reap(process: psutil.Process) -> None:
    """Returns when a process has ended and those that it had started are killed."""
    below: set[psutil.Process] = set()
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        with contextlib.suppress(psutil.Error):
            below = set(process.children(recursive=True))
        time.sleep(_LOOK_SECONDS)
    for one in below:
        if one.pid != os.getpid():
            with contextlib.suppress(psutil.Error):  # gone, or its number is another's now
                one.kill()


if __name__ == "__main__":
    with contextlib.suppress(psutil.NoSuchProcess):
        reap(psutil.Process(int(sys.argv[1])))
