"""What a person sees while the run goes on: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Self

from rich.console import Console
from rich.live import Live

from selfalign_ray.watch.interrupt import is_stopping
from selfalign_ray.watch.logs import QUIET, terminal
from selfalign_ray.watch.metrics import TIME
from selfalign_ray.watch.outbox import Figures
from selfalign_ray.watch.panel import panel
from selfalign_ray.watch.progress import Progress, StageProgress
from selfalign_ray.watch.stall import Stalls
from selfalign_ray.watch.tally import set_gauges, snapshot
from selfalign_ray.watch.words import outcome, plain_line, span

log = logging.getLogger(__name__)

_FRAME_SECONDS = 0.5  # between two looks at the tally


class Display:
    """Shows the stages of a run; `begin`, `end` and `reused` name the stage that saves.

    Every plain line goes to the log too, so that pipeline.log has the run's rhythm.
    """

    def __init__(
        self, stages: Sequence[str], interval: float, *, stall_seconds: float = float("inf")
    ) -> None:
        """Prepares a table of all stages of the run.

        Args:
            stages: their names, in order.
            interval: seconds between two plain lines.
            stall_seconds: without progress until stacks are logged.
        """
        self._progress = Progress(stages)
        self._interval = interval
        self._stalls = Stalls(stall_seconds)
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="display", daemon=True)
        self._stack = contextlib.ExitStack()
        self._live: Live | None = None
        self._extra: dict[str, bool] = {}

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and not Console(stderr=True).is_dumb_terminal:
            self._extra = QUIET
            console = Console(file=self._stack.enter_context(terminal()))
            # What Python writes to stderr meanwhile appears above the table; stdout may be a file.
            self._live = Live(
                console=console, auto_refresh=False, redirect_stdout=sys.stdout.isatty()
            )
            self._stack.enter_context(self._live)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._export(None)  # the report may take long
        if self._live:
            self._draw()  # the last word stays on the terminal
        self._stack.close()

    def begin(self, stage: str, total_rows: int | None, done: int = 0) -> None:
        """A stage, and those fused into it, start.

        Args:
            stage: the last stage of the group.
            total_rows: how many rows will come in; None where nobody knows yet.
            done: rows besides these that an earlier run has done.
        """
        with self._lock:
            self._progress.begin(stage, total_rows)
        rows = "" if total_rows is None else f", {total_rows:,} rows{' are left' if done else ''}"
        begins = f"goes on: {done:,} rows are done" if done else "begins"
        log.info("%s: %s%s", stage, begins, rows, extra=self._extra)

    def end(self, stage: str, counts: Mapping[str, int], seconds: float) -> None:
        """A stage is whole, with so many rows by drop_reason and `kept`."""
        with self._lock:
            self._progress.end(stage, counts, seconds)
        log.info("%s: %s in %s", stage, outcome(counts), span(seconds), extra=self._extra)

    def seen(self, seconds: float, rows: int) -> tuple[float | None, Figures]:
        """What the looks at a group that has just ended found.

        Args:
            seconds: that it took.
            rows: that left it.

        Returns:
            Seconds of work, as Progress.work_seconds gives them, and what Progress.gauges gives.
        """
        with self._lock:
            return self._progress.work_seconds(seconds, rows), self._progress.gauges()

    def reused(self, stage: str, counts: Mapping[str, int]) -> None:
        """A stage was whole before this run."""
        with self._lock:
            self._progress.reused(stage, counts)
        log.info("%s: %s, from before", stage, outcome(counts), extra=self._extra)

    def _run(self) -> None:
        said, was_stopping = time.monotonic(), False
        figures: Figures = {}
        while not self._done.wait(_FRAME_SECONDS):
            if (found := snapshot()) is not None:  # else what was known is shown on
                figures = found
            with self._lock:
                self._progress.observe(figures)
                running = self._progress.running
                self._export(running)
            if running:
                self._stalls.look(running.name, figures)
            if self._live:
                self._draw()
            if is_stopping() and not was_stopping:
                was_stopping = True
                log.warning(
                    "stopping: what is in flight is finished, for cluster.grace_seconds at most; "
                    "the same again stops at once"
                )
            if time.monotonic() - said >= self._interval:
                said = time.monotonic()
                self._say()

    def _export(self, running: StageProgress | None) -> None:
        """Hands the tally what only the driver knows: of the stage that runs, if any."""
        if running is None:
            set_gauges(TIME, {})
            return
        known = {}
        if running.total is not None:
            known["expected_rows"] = float(running.total)
        if (left := self._progress.seconds_left()) is not None:
            known |= {"left_seconds": left, "end_timestamp_seconds": time.time() + left}
        set_gauges(TIME, {f"{running.name}.{name}": value for name, value in known.items()})

    def _draw(self) -> None:
        assert self._live is not None
        console = self._live.console
        with self._lock:
            table = panel(
                self._progress,
                width=console.width,
                height=console.height,
                blocks=not console.options.ascii_only,
                stopping=is_stopping(),
            )
        self._live.update(table, refresh=True)

    def _say(self) -> None:
        with self._lock:
            running = self._progress.running
            line = plain_line(self._progress, running) if running else None
        if line:
            log.info("%s", line, extra=self._extra)
