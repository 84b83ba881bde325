"""Who has a run in an object store: for as long as they say so again and again.

A store has no locks that end with a process, but it can make an object only where there is none.
`<run>/.lock/` holds numbered objects, of which the last says who has the run. Who has it writes
that object again every RENEW_SECONDS; one that nobody has written for STALE_SECONDS, by the store's
own times, is followed by the next number. Only one of those who try can make that.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from upath import UPath

from selfalign_ray.errors import TakenError
from selfalign_ray.places import hasty, remove
from selfalign_ray.stage import now
from selfalign_ray.watch.interrupt import end_at_once

log = logging.getLogger(__name__)

FOLDER = ".lock"  # in a run's folder in the store
RENEW_SECONDS, STALE_SECONDS = 20.0, 120.0
_LOOK_SECONDS = 5.0  # between two looks at somebody else's
_DIGITS = 6


@dataclass(frozen=True)
class Holder:
    """What the last object says."""

    number: int
    token: str
    text: str  # who it is, for people
    renewed: float  # seconds, the store's time


def latest(folder: UPath) -> Holder | None:
    """Who has the run; None: nobody."""
    numbers = _numbers(folder)
    if not numbers:
        return None
    path = _object(folder, max(numbers))
    try:
        said = json.loads(path.read_text())
        renewed = store_time(path)
    except FileNotFoundError:  # it has ended meanwhile
        return latest(folder)
    return Holder(max(numbers), said["token"], said["text"], renewed)


def store_time(path: UPath) -> float:
    """When an object was written, by the store."""
    return float(path.fs.modified(path.path).timestamp())


def acquire(folder: UPath, token: str, before: str | None) -> int:
    """Makes the object that says that the run is ours, and gives its number.

    Where somebody has it, waits until they say so again, or have not for STALE_SECONDS.

    Args:
        folder: of the objects.
        token: names this process.
        before: the last process of this very folder here, which is not there any more.

    Raises:
        TakenError: somebody else has it, and is there.
    """
    first: Holder | None = None
    offset = 0.0  # of the store's clock
    while (found := latest(folder)) is not None and found.token != before:
        if first is None:
            first, offset = found, _store_now(folder, token) - time.monotonic()
            log.warning("%s: waiting to see whether %s still has it", folder.parent, found.text)
        elif (found.token, found.renewed) != (first.token, first.renewed):
            raise TakenError(f"run_dir: {folder.parent} is in use by {found.text}")
        if time.monotonic() + offset - found.renewed > STALE_SECONDS:
            log.warning("%s: %s is gone; the run is taken over", folder.parent, found.text)
            break
        time.sleep(_LOOK_SECONDS)
    number = found.number + 1 if found else 1
    text = this_process()
    content = json.dumps({"token": token, "text": text}).encode()
    path = _object(folder, number)
    try:
        path.fs.pipe_file(path.path, content, mode="create")
    except FileExistsError:  # somebody was quicker
        return acquire(folder, token, before)
    return number


class Lease:
    """A run in a store that is ours, said again by a thread."""

    def __init__(self, folder: UPath, token: str, number: int, lost: Callable[[], None]) -> None:
        """Begins to renew.

        Args:
            folder: of the objects.
            token: names this process.
            number: of our object.
            lost: called from a thread once the run is not ours any more.
        """
        self.fault: str | None = None  # why it is not ours any more
        self._folder, self._token, self._number, self._lost = folder, token, number, lost
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    def renew(self) -> None:
        """Says once more that the run is ours.

        Raises:
            TakenError: it is somebody else's.
        """
        found = latest(self._folder)
        if found is None or found.token != self._token:
            other = found.text if found else "somebody who has ended since"
            raise TakenError(f"run_dir: {self._folder.parent} was taken over by {other}")
        path = _object(self._folder, self._number)
        path.write_bytes(path.read_bytes())

    def release(self) -> None:
        """Lets others have the run."""
        self._done.set()
        self._thread.join()
        if self.fault is None:
            for number in sorted(_numbers(self._folder)):
                if number <= self._number:  # ours the last: those before are not to count again
                    remove(_object(self._folder, number))

    def _run(self) -> None:
        renewed = time.monotonic()
        while not self._done.wait(RENEW_SECONDS):
            try:
                self.renew()
                renewed = time.monotonic()
            except TakenError as error:
                self.fault = str(error)
            except Exception as error:  # noqa: BLE001  a store's clients raise what they like
                log.warning("%s: cannot say that the run is ours: %s", self._folder, error)
                if time.monotonic() - renewed > STALE_SECONDS - 2 * RENEW_SECONDS:
                    self.fault = (
                        f"run_dir: {self._folder.parent} cannot be held: {error}; once it can be "
                        "written again, the same command goes on"
                    )
            if self.fault is not None:
                log.error("%s", self.fault)
                self._lost()
                return


@contextlib.contextmanager
def leased(run: UPath, token: str, before: str | None) -> Iterator[Lease]:
    """Holds a run in a store for this process; ends it at once when that is lost.

    Raises:
        TakenError: somebody else has it, or has it meanwhile.
    """
    folder = hasty(run) / FOLDER
    lease = Lease(folder, token, acquire(folder, token, before), end_at_once)
    try:
        yield lease
    except KeyboardInterrupt as error:
        if lease.fault is not None:
            raise TakenError(lease.fault) from error
        raise
    finally:
        with contextlib.suppress(OSError):  # it goes stale by itself
            lease.release()


def this_process() -> str:
    """Who this is, for people."""
    return f"process {os.getpid()} on {platform.node()} since {now()}"


def new_token() -> str:
    """Names a process for all time, and its machine."""
    return f"{uuid.uuid4().hex}@{platform.node()}"


def is_of_here(token: str) -> bool:
    """Whether a token names a process of this machine."""
    return token.partition("@")[2] == platform.node()


def _store_now(folder: UPath, token: str) -> float:
    """The store's time."""
    path = folder / f"probe-{token}"
    path.write_bytes(b"")
    try:
        return store_time(path)
    finally:
        remove(path)


def _numbers(folder: UPath) -> list[int]:
    try:
        names = [name.rpartition("/")[2] for name in folder.fs.ls(folder.path, detail=False)]
    except FileNotFoundError:
        return []
    return [int(name) for name in names if name.isdigit()]


def _object(folder: UPath, number: int) -> Any:
    return folder / f"{number:0{_DIGITS}d}"
