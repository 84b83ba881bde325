"""A run in which nothing moves: noticed, and the stacks of what hangs put into the log.

Every worker registers a signal at which the interpreter writes all its threads' stacks into memory
that others can read; that works without the interpreter's lock, which native code that hangs may
hold. A task on each node sends the signal to that node's workers and brings back what they wrote.

The run goes on waiting. Engines that hang and programs that never end are ended by their own
watchdogs; what else stands still, a shared disk or a cluster that waits for machines, may move
again, and a run that was ended does not.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from selfalign_ray.watch.metrics import TIME
from selfalign_ray.watch.outbox import Figures

log = logging.getLogger(__name__)

_NAME = "selfalign-stacks"
_WRITE_SECONDS = 1.0  # for the processes of a node to write their stacks
_NODE_SECONDS = 60.0  # for a node to answer
# What an engine or a process counts while it merely is there.
_IDLE = {"held_seconds", "gpu_seconds", "served_seconds"}
_LEVEL_SUMS = re.compile(r"(running|waiting|kv_cache_usage)_seconds")
# Threads with a frame of these are at work; others wait for some, or belong to libraries.
_WORKING = re.compile(r'File "[^"]*/(?:selfalign_ray/(?!watch/)|ray/data/)')


class Stalls:
    """Looks at the figures again and again, and tells once of each time that nothing moves."""

    def __init__(self, seconds: float) -> None:
        """Begins as if something had just moved.

        Args:
            seconds: without progress until stacks are logged.
        """
        self._seconds = seconds
        self._last: Figures = {}
        self._moved = time.monotonic()
        self._told = False

    def look(self, stage: str, figures: Figures) -> None:
        """Takes in what the tally counts now; on a stall, logs from another thread."""
        now = time.monotonic()
        counts = progress_of(figures) | {"": {stage: 1}}
        if counts != self._last:
            self._last, self._moved, self._told = counts, now, False
        elif now - self._moved > self._seconds and not self._told:
            self._told = True
            threading.Thread(
                target=_tell, args=(stage, now - self._moved, figures), name="stall", daemon=True
            ).start()


def progress_of(figures: Figures) -> Figures:
    """The figures that change only when rows, tokens or verdicts move."""
    return {
        stage: {
            name: number
            for name, number in amounts.items()
            if name not in _IDLE and not _LEVEL_SUMS.fullmatch(name)
        }
        for stage, amounts in figures.items()
        if stage != TIME
    }


def _tell(stage: str, seconds: float, figures: Figures) -> None:
    log.warning(
        "%s: nothing has moved for %.0f s (cluster.stall_seconds); the run waits on.\n"
        "The tally: %s\nThe driver:\n%s",
        stage,
        seconds,
        json.dumps(figures, sort_keys=True),
        own_stacks(),
    )
    # Apart, since the cluster may be what hangs.
    log.warning("the workers where a thread is at work:\n%s", "\n".join(stacks_of_workers()))


def own_stacks() -> str:
    """Of all threads of this process."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        return file.read()


def stacks_of_workers() -> list[str]:
    """What `node_stacks` finds on each node of the cluster."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look: Any = ray.remote(num_cpus=0, max_retries=0)(node_stacks)
    asked: dict[str, Future[list[str]]] = {}
    for node in ray.nodes():
        if node["Alive"]:
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[node["NodeManagerHostname"]] = (
                look.options(scheduling_strategy=here).remote().future()
            )
    found: list[str] = []
    for name, answer in asked.items():
        try:
            found += [f"{name}, {text}" for text in answer.result(timeout=_NODE_SECONDS)]
        except Exception as error:  # noqa: BLE001 - the node may be what hangs
            found.append(f"{name}: no answer: {type(error).__name__}: {error}")
    return found


def write_stacks_on_signal() -> None:
    """Makes this worker write its stacks when `node_stacks` asks for them."""
    with contextlib.suppress(OSError):
        descriptor = os.memfd_create(_NAME)
        faulthandler.register(signal.SIGUSR2, file=descriptor, all_threads=True)


def node_stacks() -> list[str]:
    """What the workers of this node do now, in the threads that are at work; runs on the node."""
    workers = [(pid, path) for pid, path in _workers() if pid != os.getpid()]
    sizes = {}
    for pid, path in workers:
        with contextlib.suppress(OSError):
            sizes[path] = path.stat().st_size
            os.kill(pid, signal.SIGUSR2)
    time.sleep(_WRITE_SECONDS)
    found = []
    for pid, path in workers:
        with contextlib.suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
            file.seek(sizes[path])
            if threads := working(file.read()):
                found.append(f"worker {pid}:\n" + "\n".join(threads))
    return found


def working(text: str) -> list[str]:
    """Of what faulthandler writes, the threads that are at work on rows; like ones are one."""
    stacks: dict[str, list[str]] = {}
    for thread in re.split(r"\n+(?=Thread |Current thread )", text.strip()):
        head, _, stack = thread.partition("\n")
        if _WORKING.search(stack):
            stacks.setdefault(stack, []).append(head)
    return [
        f"{heads[0]}{f' and {more} like it' if (more := len(heads) - 1) else ''}\n{stack}"
        for stack, heads in stacks.items()
    ]


def _workers() -> Iterator[tuple[int, Path]]:
    """This user's processes on this node that know the signal, and what they write into."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):  # it ended, or is another user's
                for descriptor in (process / "fd").iterdir():
                    if str(descriptor.readlink()).startswith(f"/memfd:{_NAME}"):
                        yield int(process.name), descriptor
                        break
