"""What a stage has cost so far, over all the sessions that worked on it.

`spent.json` in the stage's folder is written anew while the stage runs: of a session that is
killed no more than the last seconds are missing from what the report says.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping

from selfalign_ray.places import Place
from selfalign_ray.stage import SPENT, read_record, write_record
from selfalign_ray.watch.metrics import ROWS
from selfalign_ray.watch.outbox import Figures, add_figures
from selfalign_ray.watch.tally import counted

_KEEP_SECONDS = 15.0  # between two writings
_ATTEMPTS = 3  # at the end, of a tally that is slow


def spent_before(folder: Place) -> tuple[float, Figures]:
    """Seconds and figures of the sessions so far; none where no stage has begun."""
    found = read_record(folder / SPENT) or {}
    return float(found.get("seconds", 0.0)), found.get("figures", {})


class Meter:
    """Counts from now on, on top of what earlier sessions have spent."""

    def __init__(self, folder: Place) -> None:
        """Begins to count.

        Args:
            folder: of the stage.
        """
        self._file = folder / SPENT
        self.before, self._figures = spent_before(folder)
        self._began, self._seen = time.monotonic(), counted()
        self._looking, self._writing = threading.Lock(), threading.Lock()
        self._ended = threading.Event()

    @property
    def seconds(self) -> float:
        """Of this session."""
        return time.monotonic() - self._began

    def figures(self) -> Figures:
        """All sessions' counters, this one's included, as far as the tally says them."""
        for _ in range(_ATTEMPTS):
            if self._look():
                break
        return self._known()

    def _look(self) -> bool:
        """Adds what was counted since the last look; false where the tally does not answer.

        Before the first answer nothing is known, so nothing before it is this stage's.
        """
        with self._looking:
            now, seen = counted(), self._seen
            if now is None:
                return False
            if seen is not None:
                # One that was killed begins at zero.
                before = seen.figures if seen.tally == now.tally else {}
                add_figures(self._figures, _difference(now.figures, before))
            self._seen = now
            return True

    def _known(self) -> Figures:
        with self._looking:
            return {stage: dict(amounts) for stage, amounts in self._figures.items()}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """A block during which, and at whose end, what is spent is written down."""
        threading.Thread(target=self._run, name="spent", daemon=True).start()
        try:
            yield
            self._keep()
        finally:
            self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(_KEEP_SECONDS):
            with contextlib.suppress(Exception):  # what is wrong with the place, the rows will tell
                self._keep()

    def _keep(self) -> None:
        self._look()
        seconds, figures = self.seconds, self._known()
        with self._writing:
            if not self._ended.is_set():
                record = {"seconds": round(self.before + seconds, 3), "figures": figures}
                write_record(self._file, record)


def _difference(after: Mapping[str, Mapping[str, float]], before: Figures) -> Figures:
    """What was counted between two snapshots."""
    found = {
        stage: {
            name: value - before.get(stage, {}).get(name, 0)
            for name, value in amounts.items()
            if value != before.get(stage, {}).get(name, 0)
        }
        for stage, amounts in after.items()
        if not stage.endswith(ROWS)  # the manifest has them
    }
    return {stage: amounts for stage, amounts in found.items() if amounts}
