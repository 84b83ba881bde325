"""What the run has done so far: one small actor that every process of the job adds to.

`count` and `gauge` only touch a dictionary of their own process; a thread there sends what has
gathered to the actor, at most twice a second; `flush` sends it now. None of them does anything
where there is no Ray or no tally.

The answer to each sending says whether the run is to stop, so that every process that counts
knows it without being asked: `stopping`.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

from selfalign_ray.watch.metrics import Exported
from selfalign_ray.watch.outbox import (
    ANSWER_SECONDS,
    LINES_KEPT,
    NAME,
    Figures,
    Line,
    Outbox,
    add_figures,
    in_worker,
)

_NAME_SECONDS = 20.0  # within which Ray has forgotten the name of an actor that was killed
_FORGET_SECONDS = 20.0  # the gauges of a worker that went silent no longer count


class Counted(NamedTuple):
    """What a tally has counted since it began."""

    tally: str  # another where it was killed, and began again at zero
    figures: Figures


class Tally:
    """The actor's state: counters, the last gauges of each worker, log lines for the driver."""

    def __init__(self, run: str = "") -> None:
        """Begins at zero.

        Args:
            run: what the exported metrics call the run; empty: none are exported.
        """
        self._name = uuid.uuid4().hex
        self._counters: Figures = {}
        self._gauges: dict[str, tuple[float, Figures]] = {}
        self._lines: deque[Line] = deque(maxlen=LINES_KEPT)
        self._stopping = False
        self._exported = Exported(run) if run else None

    def add(
        self,
        worker: str,
        counts: Figures,
        gauges: Figures,
        lines: list[Line],
        stop: bool = False,  # noqa: FBT001, FBT002  a call to an actor
    ) -> bool:
        """Takes in what a process sends; `stop` ends the run. Gives whether it is to end."""
        add_figures(self._counters, counts)
        self._gauges[worker] = (time.monotonic(), gauges)
        self._lines.extend(lines)
        self._stopping = self._stopping or stop
        if self._exported:
            self._exported.add(counts)
            self._exported.hold(self._held)
        return self._stopping

    def counted(self) -> Counted:
        """The counters without the gauges."""
        return Counted(self._name, self._counters)

    def snapshot(self) -> Figures:
        figures = self._held()
        add_figures(figures, self._counters)
        return figures

    def _held(self) -> Figures:
        """The gauges of the workers that were heard of lately."""
        figures: Figures = {}
        since = time.monotonic() - _FORGET_SECONDS
        for heard, gauges in self._gauges.values():
            if heard >= since:
                add_figures(figures, gauges)
        return figures

    def take_lines(self) -> list[Line]:
        """The lines since the last call."""
        lines = list(self._lines)
        self._lines.clear()
        return lines


_outbox = Outbox()
_left: deque[Line] = deque()  # lines that a stopped tally still held


def count(stage: str, /, **amounts: float) -> None:
    """Adds to counters of a stage, from any process of the job."""
    _outbox.count(stage, amounts)


def gauge(stage: str, /, **values: float) -> None:
    """Sets what holds in this process now; the tally sums over processes."""
    _outbox.gauge(stage, values)


def set_gauges(stage: str, values: Mapping[str, float]) -> None:
    """Sets what holds in this process now, in place of all that held before; sent with the next."""
    _outbox.replace_gauges(stage, values)


def flush() -> None:
    """Waits until all that this process has counted has arrived.

    An actor that calls it before a batch's rows leave loses no count, however soon after its last
    batch it is killed.
    """
    if _outbox.tally is not None or in_worker():
        _outbox.send()


def stopping() -> bool:
    """Whether the run is to begin nothing new; at most half a second old, false without a tally."""
    if (_outbox.tally is not None or in_worker()) and _outbox.is_stale():
        _outbox.send()
    return _outbox.stopping


def request_stop() -> None:
    """Asks, on the driver, that the run end; the next sending takes it along. Safe in a handler."""
    _outbox.stop = True


def log_line(line: Line) -> None:
    """Hands a log record to the driver."""
    _outbox.line(line)


def start_tally(run: str = "") -> Any:
    """Starts the job's tally and gives its handle. A tally left from before is replaced.

    Args:
        run: what the exported metrics call the run; empty: none are exported.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    stop_tally()
    here = ray.get_runtime_context().get_node_id()
    actor: Any = ray.remote(num_cpus=0, max_restarts=-1)(Tally)
    named = actor.options(
        name=NAME, scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=True)
    )
    tally = _begun(named, run)
    ray.get(tally.snapshot.remote())  # it runs
    _outbox.tally = tally
    return tally


def _begun(named: Any, run: str) -> Any:
    """The actor; one that was killed just before keeps its name for a moment."""
    import ray

    until = time.monotonic() + _NAME_SECONDS
    while True:
        try:
            return named.remote(run)
        except ray.exceptions.ActorAlreadyExistsError:
            if time.monotonic() > until:
                raise
            time.sleep(_NAME_SECONDS / 100)


def stop_tally() -> None:
    """Ends the job's tally; lines that it still held stay for `take_lines`."""
    if _outbox.tally is None:
        return
    import ray

    _outbox.send()
    _left.extend(take_lines())
    tally = _outbox.tally
    _outbox.clear()
    if tally is not None and ray.is_initialized():
        ray.kill(tally)


def snapshot() -> Figures | None:
    """All counters and gauges by stage, on the driver; empty where there is no tally.

    None where the tally does not answer.
    """
    if _outbox.tally is None:
        return {}
    _outbox.send()
    found: Figures | None = _ask("snapshot")
    return found


def counted() -> Counted | None:
    """All counters by stage, without the gauges, on the driver; empty where there is no tally.

    None where the tally does not answer: nobody knows what it has counted.
    """
    if _outbox.tally is None:
        return Counted("", {})
    _outbox.send()
    found: Counted | None = _ask("counted")
    return found


def take_lines() -> list[Line]:
    """The log lines of all processes since the last call, on the driver."""
    lines = [_left.popleft() for _ in range(len(_left))]
    if _outbox.tally is not None:
        lines += _ask("take_lines") or []
    return lines


def _ask(method: str) -> Any:
    tally = _outbox.tally
    try:
        asked: Future[Any] = getattr(tally, method).remote().future()
        return asked.result(timeout=ANSWER_SECONDS)
    except Exception:  # noqa: BLE001 - a tally that cannot answer is no reason to stop
        return None
