"""An engine that computes in steps, stepped by a thread of its own and watched by another.

Prompts join between two steps, so an engine with continuous batching is refilled as rows move on
from hop to hop, and no barrier drains it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from selfalign_ray.engine.base import EngineDiedError, Generation, Prompt, PromptRefusedError

log = logging.getLogger(__name__)

_LOOKS = 10  # of the watchdog in the time that makes an engine dead
_LOOK_SECONDS = 1.0  # between two of them at most
_CLOSE_SECONDS = 30.0  # for the last step; its thread ends with the process all the same


class Stepper:
    """Prompts in from any thread's event loop, and out as the engine finishes them."""

    def __init__(
        self,
        *,
        admit: Callable[[str, Prompt, list[int]], None],
        step: Callable[[], Iterable[tuple[str, Generation | PromptRefusedError]]],
        kill: Callable[[], None],
        hang_seconds: float,
        is_alive: Callable[[], bool] = lambda: True,
    ) -> None:
        """Starts both threads.

        Args:
            admit: takes a prompt and its tokens under an id, or raises PromptRefusedError. Only
                the stepping thread calls it and `step`.
            step: computes a little and returns what that finished. Called while there is work.
            kill: ends what the engine computes with; called once, by either thread, where the
                engine died, before anybody is told: the process may end as soon as one is.
            hang_seconds: that may pass without progress while a prompt waits.
            is_alive: whether what the engine computes with is there; called by the watchdog.
        """
        self._admit, self._step, self._kill = admit, step, kill
        self._hang_seconds, self._is_alive = hang_seconds, is_alive
        self._inbox: queue.SimpleQueue[tuple[str, Prompt, list[int]] | None] = queue.SimpleQueue()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()  # of the three below
        self._futures: dict[str, Future[Generation]] = {}
        self._dead: str | None = None
        self._progress = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine-step", daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch, name="engine-watch", daemon=True).start()

    async def generate(self, prompt: Prompt, token_ids: list[int]) -> Generation:
        """As Engine.generate."""
        future: Future[Generation] = Future()
        future.set_running_or_notify_cancel()  # a row that goes away does not stop the engine
        with self._lock:
            if self._dead:
                raise EngineDiedError(self._dead)
            if not self._futures:
                self._progress = time.monotonic()  # it was idle, not hung
            request_id = str(next(self._numbers))
            self._futures[request_id] = future
        self._inbox.put((request_id, prompt, token_ids))
        return await asyncio.wrap_future(future)

    def progressed(self) -> None:
        """Tells the watchdog that tokens came, though no prompt may have ended."""
        with self._lock:
            self._progress = time.monotonic()

    def close(self) -> None:
        """Ends the thread after the step that it is in."""
        self._end("the engine was closed", kill=False)
        self._inbox.put(None)
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            self._loop()
        except Exception as error:
            log.exception("the engine died")
            self._end(f"{type(error).__name__}: {error}", kill=True)

    def _loop(self) -> None:
        admitted: set[str] = set()
        while True:
            while not admitted or not self._inbox.empty():
                item = self._inbox.get()
                if item is None:
                    return
                request_id, prompt, token_ids = item
                try:
                    self._admit(request_id, prompt, token_ids)
                except PromptRefusedError as error:
                    self._finish(request_id, error)
                else:
                    admitted.add(request_id)
            for request_id, outcome in self._step():
                admitted.discard(request_id)
                self._finish(request_id, outcome)

    def _finish(self, request_id: str, outcome: Generation | PromptRefusedError) -> None:
        with self._lock:
            self._progress = time.monotonic()
            future = self._futures.pop(request_id, None)
        if future is None:
            return  # the watchdog has told its row already
        if isinstance(outcome, PromptRefusedError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def _watch(self) -> None:
        while not self._ended.wait(min(self._hang_seconds / _LOOKS, _LOOK_SECONDS)):
            if not self._is_alive():
                log.error("the engine died: its processes are gone")
                self._end("its processes are gone", kill=True)
                return
            with self._lock:
                waiting = len(self._futures)
                silent = time.monotonic() - self._progress
            if waiting and silent > self._hang_seconds:
                reason = f"no progress for {silent:.0f} s while {waiting} prompts wait"
                log.error("the engine hangs: %s (engine.hang_seconds)", reason)
                self._end(reason, kill=True)

    def _end(self, reason: str, *, kill: bool) -> None:
        """Fails everything in flight and all that comes; the second time, nothing."""
        with self._lock:
            if self._dead:
                return
            self._dead = reason
            futures = list(self._futures.values())
            self._futures.clear()
        self._ended.set()
        if kill:
            self._kill()
        for future in futures:
            future.set_exception(EngineDiedError(reason))
