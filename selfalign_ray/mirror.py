"""What the driver of a run in an object store writes: in a folder here, and copied to the store.

Log, report, exports, data set and settings need a folder: they are appended to, sorted and changed
over. The log and what else tells of a run under way go to the store each minute; the results when
all of them are whole, without a manifest while they are changed, as a reader of the store sees
them.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from upath import UPath

from selfalign_ray.decontamination.decontamination import BENCHMARKS
from selfalign_ray.places import stored
from selfalign_ray.report.comparison import FAILED
from selfalign_ray.report.dataset import CARD, FACTS, FOLDER
from selfalign_ray.report.report import MANIFEST, REPORT
from selfalign_ray.watch.logs import FILE
from selfalign_ray.withdrawn import RECORD

log = logging.getLogger(__name__)

_HYDRA = ".hydra"
_GOES_ON = (FILE, RECORD, BENCHMARKS, f"{FOLDER}/{RECORD}")  # a run adds to it
_NOTES = (FILE, RECORD, BENCHMARKS, FAILED)  # what tells of a run under way, with _HYDRA
_SECONDS = 60.0  # between two copies of the notes
_LEAST_SHARE = 20  # and so many times what the last took: a log of days is long
# The later of a folder's files name the earlier ones.
_LAST = (f"{FOLDER}/{FACTS}", f"{FOLDER}/{CARD}", REPORT, MANIFEST)


class Mirror:
    """A run's folder here and its copy in a store, file by file."""

    def __init__(self, run_dir: Path, store: UPath) -> None:
        self._here, self._there = run_dir, store
        self._states: dict[str, tuple[int, int]] = {}  # of files as they were copied

    def pull(self, *, whole: bool = False) -> None:
        """Fetches what a run adds to, or all of its files; of what grows the longer one stays."""
        for name, size in self._in_store().items():
            path = self._here / name
            grown = name in _GOES_ON and path.exists() and path.stat().st_size >= size
            if not grown and (whole or name in _GOES_ON):
                path.parent.mkdir(parents=True, exist_ok=True)
                part = path.with_name(f".{path.name}.part")
                self._there.fs.get_file((self._there / name).path, str(part))
                part.replace(path)

    def push_notes(self) -> None:
        """Copies what tells of a run under way, where it has changed, and deletes what is gone."""
        here = self._files()
        for name in here:
            if name in _NOTES or name.startswith(f"{_HYDRA}/"):
                self._push(name)
        for name in set(_NOTES) & set(self._in_store()) - set(here):
            self._delete(name)

    def push(self) -> None:
        """Makes the store's copy what is here; meanwhile it has no manifest."""
        here, there = self._files(), self._in_store()
        if MANIFEST in there:
            self._delete(MANIFEST)
        for name in sorted(set(here) - set(_LAST)):
            self._push(name)
        for name in _LAST[:2]:
            if name in here:
                self._push(name)
        for name in sorted(set(there) - set(here) - {MANIFEST}):
            self._delete(name)
        for name in _LAST[2:]:
            if name in here:
                self._push(name)

    def _push(self, name: str) -> None:
        path = self._here / name
        found = path.stat()
        state = (found.st_size, found.st_mtime_ns)
        if self._states.get(name) != state or name == MANIFEST:
            self._there.fs.put_file(str(path), (self._there / name).path)
            self._states[name] = state

    def _delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._there.fs.rm_file((self._there / name).path)
        self._states.pop(name, None)

    def _files(self) -> list[str]:
        """What of the folder here is the run's, but its rows and other runs below it."""
        found = [path for path in self._here.iterdir() if not path.name.startswith(".")]
        for folder in (_HYDRA, FOLDER):
            found += (self._here / folder).rglob("*")
        return [
            path.relative_to(self._here).as_posix()
            for path in found
            if path.is_file() and not path.name.endswith(".part")
        ]

    def _in_store(self) -> dict[str, int]:
        """The same in the store, with sizes."""
        found: dict[str, int] = {}
        for folder, listed in (("", self._there.fs.ls), (_HYDRA, self._find), (FOLDER, self._find)):
            path = (self._there / folder if folder else self._there).path
            with contextlib.suppress(FileNotFoundError):
                for one in listed(path, detail=True):
                    name = one["name"].removeprefix(self._there.path).strip("/")
                    if one["type"] == "file" and name:
                        found[name] = one["size"]
        return found

    def _find(self, path: str, *, detail: bool) -> list[dict[str, Any]]:
        return list(self._there.fs.find(path, detail=detail).values())


@contextlib.contextmanager
def mirrored(run_dir: Path, held: Callable[[], bool]) -> Iterator[None]:
    """Copies a run's folder to its store, if it has one: parts each minute, all of it at the end.

    After an error there are the parts alone, so that the store's results are those of one end.

    Args:
        run_dir: the folder here.
        held: whether the run is still this process's to write.
    """
    store = stored(run_dir)
    if isinstance(store, Path):
        yield
        return
    mirror, done = Mirror(run_dir, store), threading.Event()
    mirror.pull()
    thread = threading.Thread(target=_notes, args=(mirror, done, held), name="mirror", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        done.set()
        thread.join()
        if held():
            _try_notes(mirror)
        raise
    done.set()
    thread.join()
    mirror.push()


@contextlib.contextmanager
def fetched(run_dir: Path, *, changes: bool) -> Iterator[None]:
    """A run's folder here as it is in its store, if it has one; at the end changes go there."""
    store = stored(run_dir)
    if isinstance(store, Path):
        yield
        return
    mirror = Mirror(run_dir, store)
    mirror.pull(whole=True)
    yield
    if changes:
        mirror.push()


def push_notes(run_dir: Path) -> None:
    """Copies to the store, if there is one, what tells of a run that is not whole."""
    store = stored(run_dir)
    if not isinstance(store, Path):
        _try_notes(Mirror(run_dir, store))


def _notes(mirror: Mirror, done: threading.Event, held: Callable[[], bool]) -> None:
    wait = 0.0
    while not done.wait(wait) and held():
        began = time.monotonic()
        _try_notes(mirror)
        wait = max(_SECONDS, _LEAST_SHARE * (time.monotonic() - began))


def _try_notes(mirror: Mirror) -> None:
    try:
        mirror.push_notes()
    except Exception as error:  # noqa: BLE001  the rows' own writers stop the run
        log.warning("the log cannot be copied to the store: %s", error)
