"""How far the run is: what each stage has done, from what the pipeline says and the tally counts.

Stages that are fused run at the same time and end together: `begin`, `end` and `reused` name the
last stage of such a group, the one that saves.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from selfalign_ray.hops.config import HOP_NAMES, in_first_round
from selfalign_ray.sandbox.verdict import VERDICTS
from selfalign_ray.watch.metrics import ENGINE, LEVELS, ROWS
from selfalign_ray.watch.outbox import Figures

KEPT = "kept"
WAITING, RUNNING, DONE, REUSED = "waiting", "running", "done", "reused"

_RATE_SECONDS = 60.0  # least span that a rate is taken over; later half of the stage's time
_HISTORY = 600  # looks that a rate can reach back
_LOOK_SECONDS = 1.0  # between two that are kept
_UNITS = ("prompts", "rows", "samples")  # that a fused stage may count


@dataclass
class StageProgress:
    """One line of the table."""

    name: str
    state: str = WAITING
    ends_group: bool = False
    total: int | None = None  # rows that will come in, where known
    counts: Mapping[str, int] | None = None  # rows by drop_reason and `kept`, once done
    seconds: float = 0.0

    @property
    def kept(self) -> int:
        return (self.counts or {}).get(KEPT, 0)

    @property
    def dropped(self) -> int:
        return sum((self.counts or {}).values()) - self.kept


@dataclass
class Seen:
    """What the looks at a running group saw."""

    started: float | None = None  # when its first row was under way, by the clock
    done_at_start: int = 0  # rows that had left the group by then
    looked: float = 0.0  # the last time
    row_seconds: float = 0.0  # rows in flight, integrated over the time since `started`
    most: float = 0.0  # rows in flight
    levels: Figures = field(default_factory=dict)  # by engine: the most of each of LEVELS


@dataclass
class Progress:
    """The whole table."""

    names: Sequence[str]
    clock: Callable[[], float] = time.monotonic
    figures: Figures = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stages = [StageProgress(name) for name in self.names]
        self.began = self.clock()
        self._group_began = self.began
        self._seen = Seen()
        self._history: deque[tuple[float, float, float]] = deque(maxlen=_HISTORY)

    def begin(self, name: str, total: int | None) -> None:
        for stage in self._group(name):
            stage.state = RUNNING
        end = self._stage(name)
        end.ends_group, end.total = True, total
        self._group_began = self.clock()
        self._seen = Seen()
        self._history.clear()

    def end(self, name: str, counts: Mapping[str, int], seconds: float) -> None:
        for stage in self._group(name):
            stage.state = DONE
        end = self._stage(name)
        end.ends_group, end.counts, end.seconds = True, dict(counts), seconds

    def reused(self, name: str, counts: Mapping[str, int]) -> None:
        for stage in self._group(name):
            stage.state = REUSED
        end = self._stage(name)
        end.ends_group, end.counts = True, dict(counts)

    def observe(self, figures: Figures) -> None:
        """Takes in what the tally says now."""
        now = self.clock()
        self.figures = figures
        running = self.running
        if running and (not self._history or now - self._history[-1][0] >= _LOOK_SECONDS):
            done = self.rows_done(running) or 0
            self._history.append((now, done, self._output_tokens()))
        if running:
            self._look(running, now)

    def work_seconds(self, seconds: float, rows: int) -> float | None:
        """How long a group that has just ended worked at its rows: its time less its start.

        What left the group before the first look at it is taken to have been as fast as the rest.

        Args:
            seconds: of the group.
            rows: that left it.

        Returns:
            Seconds; None where all was over before anyone looked.
        """
        seen = self._seen
        if seen.started is None or rows <= seen.done_at_start:
            return None
        span = seconds - (seen.started - self._group_began)
        worked = max(0.0, span) * rows / (rows - seen.done_at_start)
        return round(min(seconds, worked), 3)

    def gauges(self) -> Figures:
        """What of the group goes up and down, from its first row on.

        For `engine` mean and most of the rows there; for each engine the most of its own levels,
        whose means it counts itself.
        """
        seen = self._seen
        if seen.started is None or not seen.most:
            return {}
        mean = seen.row_seconds / span if (span := seen.looked - seen.started) else seen.most
        rows = {"rows_in_flight_mean": round(mean, 3), "rows_in_flight_most": seen.most}
        return {"engine": rows, **seen.levels}

    def _look(self, running: StageProgress, now: float) -> None:
        seen = self._seen
        in_flight = self._amounts("engine").get("rows_in_flight", 0)
        counted = (self._amounts(stage.name) for stage in self._group(running.name))
        if seen.started is not None:
            seen.row_seconds += in_flight * (now - seen.looked)
        elif in_flight or any(value for amounts in counted for value in amounts.values()):
            seen.started, seen.done_at_start = now, self.rows_done(running) or 0
        seen.looked = now
        seen.most = max(seen.most, in_flight)
        for name, amounts in self._engines():
            most = seen.levels.setdefault(name, {})
            for level in LEVELS:
                if level in amounts:
                    most[f"{level}_most"] = max(most.get(f"{level}_most", 0), amounts[level])

    @property
    def running(self) -> StageProgress | None:
        """The stage that ends the group that runs now."""
        return next((s for s in self.stages if s.state == RUNNING and s.ends_group), None)

    @property
    def elapsed(self) -> float:
        return self.clock() - self.began

    @property
    def group_seconds(self) -> float:
        return self.clock() - self._group_began

    def rows_done(self, end: StageProgress) -> int | None:
        """Rows that have left the group, kept or dropped on the way; None if nobody counts them."""
        done: float | None = None
        dropped = 0.0
        group = self._group(end.name)
        tried_again = {in_first_round(s.name) for s in group if s.name != in_first_round(s.name)}
        for stage in group:
            if stage.name in tried_again:
                continue
            amounts = self._amounts(stage.name)
            if "rows" in amounts:
                done = amounts["rows"]
            elif KEPT in amounts:
                dropped += amounts.get("dropped", 0)
                # What an earlier hop kept is not done before the last hop is.
                done = dropped + (amounts[KEPT] if stage is end else 0)
        return None if done is None else int(done)

    def rows_per_second(self) -> float | None:
        """Over the later part of the running group's time; None while nothing can be said."""
        return self._rate(1)

    def seconds_left(self) -> float | None:
        running, rate = self.running, self.rows_per_second()
        if running is None or running.total is None or not rate:
            return None
        return max(0.0, (running.total - (self.rows_done(running) or 0)) / rate)

    def facts(self) -> list[str]:
        """What else there is to say of the running group, most telling first."""
        running = self.running
        if running is None:
            return []
        names = {in_first_round(stage.name) for stage in self._group(running.name)}
        facts: list[str] = []
        if names & set(HOP_NAMES):
            facts += self._hop_facts(names, running)
        if "execution" in names:
            facts += self._verdict_facts()
        runs = sum(self._amounts(name).get("runs", 0) for name in names)
        return [*facts, *([f"{runs:,.0f} sandbox runs"] if runs else [])]

    def reasons(self) -> dict[str, int]:
        """Rows that have left the running group, by drop_reason and `kept`."""
        left = self._amounts(f"{self.running.name}{ROWS}") if self.running else {}
        return {reason: int(number) for reason, number in left.items()}

    def amount(self, stage: StageProgress) -> str:
        """What a fused stage has counted, in its own unit; empty where it counts nothing."""
        amounts = self._amounts(stage.name)
        unit = next((unit for unit in _UNITS if amounts.get(unit)), None)
        if unit is None:
            return ""
        dropped = amounts.get("dropped", 0)
        text = f"{amounts[unit]:>11,.0f} {unit}"
        return text + (f", {dropped:,.0f} dropped" if dropped else "")

    def _hop_facts(self, names: Collection[str], running: StageProgress) -> Iterator[str]:
        in_flight = self._amounts("engine").get("rows_in_flight", 0)
        hops = [self._amounts(name) for name in names if name in HOP_NAMES]
        prompt_tokens = sum(hop.get("prompt_tokens", 0) for hop in hops)
        cached = sum(hop.get("cached_tokens", 0) for hop in hops)
        rate = self._rate(2)
        if rate is not None and prompt_tokens:
            yield f"{rate:,.0f} tok/s"
        if prompt_tokens:
            yield f"{100 * cached / prompt_tokens:.0f} % cached"
        if not in_flight and not any(hops) and running.total != 0:
            yield "loading the model"
        if in_flight:
            yield f"{in_flight:,.0f} in flight"
            yield from self._engine_facts()

    def _engine_facts(self) -> Iterator[str]:
        engines = [amounts for _, amounts in self._engines()]
        for level in ("running", "waiting"):
            if number := sum(amounts.get(level, 0) for amounts in engines):
                yield f"{number:,.0f} {level}"
        usage = [amounts["kv_cache_usage"] for amounts in engines if "kv_cache_usage" in amounts]
        if usage:
            yield f"KV cache {100 * max(usage):.0f} % full"

    def _engines(self) -> list[tuple[str, Mapping[str, float]]]:
        return [(name, them) for name, them in self.figures.items() if name.startswith(ENGINE)]

    def _verdict_facts(self) -> Iterator[str]:
        amounts = self._amounts("execution")
        verdicts = {name: n for name, n in amounts.items() if n and name in VERDICTS}
        for name, number in sorted(verdicts.items(), key=lambda item: -item[1]):
            yield f"{number:,.0f} {name}"

    def _rate(self, column: int) -> float | None:
        if len(self._history) < 2:
            return None
        now, *_ = last = self._history[-1]
        span = max(_RATE_SECONDS, self.group_seconds / 2)
        first = next(look for look in self._history if look[0] >= now - span)
        seconds, amount = now - first[0], last[column] - first[column]
        return amount / seconds if seconds > 0 and amount > 0 else None

    def _output_tokens(self) -> float:
        return sum(self._amounts(name).get("output_tokens", 0) for name in HOP_NAMES)

    def _amounts(self, name: str) -> Mapping[str, float]:
        return self.figures.get(name, {})

    def _group(self, name: str) -> list[StageProgress]:
        """The stages after the last earlier one that ends a group, up to this one."""
        last = self._index(name)
        first = last
        while first > 0 and not self.stages[first - 1].ends_group:
            first -= 1
        return self.stages[first : last + 1]

    def _stage(self, name: str) -> StageProgress:
        return self.stages[self._index(name)]

    def _index(self, name: str) -> int:
        return [stage.name for stage in self.stages].index(name)
