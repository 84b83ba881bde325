"""What a process has to tell the run's tally and has not sent yet, and the thread that sends it."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

NAME = "selfalign-tally"
_SEND_SECONDS = 0.5  # between two sendings of a process
_HEARTBEAT_SECONDS = 5.0  # a gauge that stands still is said again
_LOOKUP_SECONDS = 3.0  # between two searches for a tally that is not there
ANSWER_SECONDS = 10.0  # a tally that is silent for longer counts as gone
LINES_KEPT = 10_000  # log lines that wait for the driver, and for the tally in each process

Figures = dict[str, dict[str, float]]  # stage -> amount -> number


class Line(NamedTuple):
    """One log record of a process."""

    created: float  # seconds since the epoch
    level: int
    logger: str
    role: str  # of the process that said it
    text: str  # with its traceback


def add_figures(total: Figures, more: Mapping[str, Mapping[str, float]]) -> None:
    """Adds `more` to `total`, in place."""
    for stage, amounts in more.items():
        into = total.setdefault(stage, {})
        for amount, number in amounts.items():
            into[amount] = into.get(amount, 0) + number


class Outbox:
    """What this process has not sent yet, and the thread that sends it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Figures = {}
        self._gauges: Figures = {}
        self._unsent_gauges: Figures = {}  # of those, what no tally has been told
        self._lines: deque[Line] = deque(maxlen=LINES_KEPT)
        self._fresh = threading.Event()
        self._sending = threading.Lock()  # one sending at a time
        self._thread: threading.Thread | None = None
        self.tally: Any = None  # the actor's handle
        self.stop = False  # asks that the run end; set by the driver
        self.stopping = False  # what the tally said last
        self._heard = 0.0  # when it did
        self._next_lookup = 0.0

    def count(self, stage: str, amounts: Mapping[str, float]) -> None:
        if self._open():
            with self._lock:
                add_figures(self._counts, {stage: amounts})
            self._fresh.set()

    def gauge(self, stage: str, values: Mapping[str, float]) -> None:
        if self._open():
            with self._lock:
                self._gauges.setdefault(stage, {}).update(values)
                self._unsent_gauges.setdefault(stage, {}).update(values)
            self._fresh.set()

    def replace_gauges(self, stage: str, values: Mapping[str, float]) -> None:
        if self._open():
            with self._lock:
                self._gauges[stage] = dict(values)
                self._unsent_gauges[stage] = dict(values)

    def line(self, line: Line) -> None:
        if self._open():
            with self._lock:
                self._lines.append(line)
            self._fresh.set()

    def send(self) -> None:
        """Sends what has gathered, and waits until it has arrived. Without a tally it is lost.

        Between two searches for a tally it is kept: a process of an earlier job may be the first
        of the next.
        """
        with self._sending:
            if self.tally is None and time.monotonic() < self._next_lookup:
                self._fresh.set()
                return
            with self._lock:
                counts, self._counts = self._counts, {}
                lines = list(self._lines)
                self._lines.clear()
            if not self._deliver(counts, lines):
                self._deliver(counts, lines)  # to the tally of the run that came after

    def _deliver(self, counts: Figures, lines: list[Line]) -> bool:
        """False where the tally was stopped; it is forgotten then, with the gauges it was told."""
        tally = self._find()
        if tally is None:
            return True
        import ray

        with self._lock:
            gauges = {stage: dict(values) for stage, values in self._gauges.items()}
            unsent, self._unsent_gauges = self._unsent_gauges, {}
        try:
            # A future and not ray.get, which would lend this worker's CPU to another task.
            sent: Future[bool] = tally.add.remote(
                _worker(), counts, gauges, lines, self.stop
            ).future()
            self.stopping = sent.result(timeout=ANSWER_SECONDS)
            self._heard = time.monotonic()
        except ray.exceptions.ActorDiedError:
            self.tally, self._next_lookup = None, 0.0
            self.stopping = False
            with self._lock:
                for stage, values in self._unsent_gauges.items():
                    unsent.setdefault(stage, {}).update(values)
                self._gauges, self._unsent_gauges = unsent, {}
            return False
        except Exception:  # noqa: BLE001 - whatever befalls the tally, the work goes on
            log.debug("a tally did not answer", exc_info=True)
        return True

    def clear(self) -> None:
        """Forgets the tally and all that was meant for it."""
        with self._sending, self._lock:
            self.tally = None
            self.stop = self.stopping = False
            self._counts, self._gauges, self._unsent_gauges = {}, {}, {}
            self._lines.clear()

    def is_stale(self) -> bool:
        """Whether the tally may have said something else since."""
        return time.monotonic() - self._heard > _SEND_SECONDS

    def _open(self) -> bool:
        """Whether there may be a tally; starts the thread where there is."""
        if self.tally is None and not in_worker():
            return False
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._run, name="selfalign-tally", daemon=True
                    )
                    self._thread.start()
        return True

    def _run(self) -> None:
        while True:
            # At once after a silence, so that little is lost with a worker that is killed.
            if self._fresh.wait(_HEARTBEAT_SECONDS) or self._gauges:
                self._fresh.clear()
                self.send()
            time.sleep(_SEND_SECONDS)

    def _find(self) -> Any:
        if self.tally is None and in_worker() and time.monotonic() >= self._next_lookup:
            import ray

            try:
                self.tally = ray.get_actor(NAME)
            except Exception:  # noqa: BLE001 - none there, or no Ray to ask: both mean no tally
                self._next_lookup = time.monotonic() + _LOOKUP_SECONDS
        return self.tally


def in_worker() -> bool:
    ray = sys.modules.get("ray")  # not imported: no Ray in this process
    if ray is None or not ray.is_initialized():
        return False
    return bool(ray.get_runtime_context().worker.mode == ray.WORKER_MODE)


def _worker() -> str:
    import ray

    return str(ray.get_runtime_context().get_worker_id())
