"""`pipeline.log`: one file a run, with the records of the driver and of every worker.

A worker hands its records to the tally; the driver alone writes the file. The console shows the
project's own lines from the driver and its own warnings, each kind a few times only; what
libraries say is for the file.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import datetime as dt
import logging
import os
import platform
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from selfalign_ray.watch import tally
from selfalign_ray.watch.masking import Masker
from selfalign_ray.watch.outbox import Line
from selfalign_ray.watch.stall import write_stacks_on_signal

FILE = "pipeline.log"
OURS = "selfalign_ray"
QUIET = {"quiet": True}  # `extra=QUIET`: for the file, not for the console

_COLLECT_SECONDS = 1.0  # between two looks at what the workers said
_ALIKE = 3  # warnings of one kind that the console shows
_CONSOLE_CHARACTERS = 240  # of a line on the console; the file has it whole
_FORMATTER = logging.Formatter()


def setup_worker() -> None:
    """Makes a worker's records reach pipeline.log: Ray's `worker_process_setup_hook`.

    Ours from INFO, everyone's from WARNING. Its stacks can be asked for too.
    """
    write_stacks_on_signal()
    # vLLM would replace the handlers of its loggers as it is imported.
    os.environ.setdefault("VLLM_CONFIGURE_LOGGING", "0")
    role = f"worker {os.getpid()}@{platform.node()}"
    _attach(_WorkerHandler(role, Masker(os.environ)))


def setup_driver(run_dir: Path, secrets: Iterable[str] = ()) -> RunLog:
    """Begins or continues `run_dir/pipeline.log`, and takes the console over.

    From then on Ray's own console handlers are silent: its records from WARNING come through
    here, and its progress bars' notices not at all.

    Args:
        run_dir: where the file is; made if missing.
        secrets: values to mask, besides those of variables that look like secrets.
    """
    if _current:
        _current[0].close()
    return RunLog(run_dir, Masker(os.environ, secrets))


class RunLog:
    """The open log of this process's run; there is one at a time."""

    def __init__(self, run_dir: Path, masker: Masker) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self._masker = masker
        self._file: TextIO = (run_dir / FILE).open("a", encoding="utf-8", errors="backslashreplace")
        self._write = threading.Lock()
        self._console = Console()
        self._handler = _DriverHandler(self)
        self._silenced = _silence_consoles()
        _attach(self._handler)
        logging.captureWarnings(capture=True)
        self._done = threading.Event()
        self._collector = threading.Thread(target=self._collect, name="run-log", daemon=True)
        self._collector.start()
        _current.append(self)
        atexit.register(self.close)

    def close(self) -> None:
        """Writes what the workers still had to say, and gives the console back."""
        if self._done.is_set():
            return
        self._done.set()
        self._collector.join()
        self._take_lines()
        _current.remove(self)
        atexit.unregister(self.close)
        logging.captureWarnings(capture=False)
        _detach(self._handler)
        for logger, handler in self._silenced:
            logger.addHandler(handler)
        with self._write, contextlib.suppress(OSError):  # a full disk
            self._file.close()

    def fileno(self) -> int:
        return self._file.fileno()

    def take(self, line: Line, *, console: bool) -> None:
        """Writes a line, and shows it where the console is to have it."""
        line = line._replace(text=self._masker.text(line.text))
        with self._write, contextlib.suppress(OSError, ValueError):
            # A full disk or a closed file must not stop what is being logged about.
            self._file.write(file_text(line))
            self._file.flush()
        if console:
            self._console.show(line)

    def _collect(self) -> None:
        while not self._done.wait(_COLLECT_SECONDS):
            self._take_lines()

    def _take_lines(self) -> None:
        for line in sorted(tally.take_lines(), key=lambda line: line.created):
            self.take(line, console=line.level >= logging.WARNING and _is_ours(line.logger))


_current: list[RunLog] = []


@contextlib.contextmanager
def terminal() -> Iterator[TextIO]:
    """The terminal behind `sys.stderr`, for a display that nothing else may write into.

    Meanwhile what native code writes to that descriptor, as Ray's does, goes to pipeline.log.
    """
    sys.stderr.flush()
    descriptor = sys.stderr.fileno()
    kept = os.dup(descriptor)
    with os.fdopen(kept, "w", encoding="utf-8", errors="replace") as stream:
        try:
            if _current:
                os.dup2(_current[0].fileno(), descriptor)
            yield stream
        finally:
            stream.flush()
            os.dup2(kept, descriptor)


class Console:
    """Short lines on the terminal. Looks up `sys.stderr` anew: a live display stands in for it."""

    def __init__(self) -> None:
        self._seen: collections.Counter[str] = collections.Counter()

    def show(self, line: Line) -> None:
        text = console_text(line)
        if line.level >= logging.WARNING:
            kind = re.sub(r"\d+", "#", f"{line.logger} {line.level} {line.text[:80]}")
            self._seen[kind] += 1
            if self._seen[kind] > _ALIKE:
                return
            if self._seen[kind] == _ALIKE:
                text += f" (more of these only in {FILE})"
        with contextlib.suppress(OSError, ValueError):  # a closed terminal
            sys.stderr.write(text + "\n")


def file_text(line: Line) -> str:
    """A line of the file; what a message has below its first line is set in, so none looks real."""
    time = dt.datetime.fromtimestamp(line.created).astimezone()
    head = f"{time:%Y-%m-%d %H:%M:%S}.{time.microsecond // 1000:03d}"
    first, *more = line.text.splitlines() or [""]
    level = logging.getLevelName(line.level)
    lines = [f"{head} {level:<8} {line.logger} [{line.role}] {first}"]
    return "".join(f"{text}\n" for text in [*lines, *(f"    {text}" for text in more)])


def console_text(line: Line) -> str:
    """A line on the console: ours as it is, a warning with its origin."""
    first, *more = line.text.splitlines() or [""]
    text = first[:_CONSOLE_CHARACTERS]
    if line.level >= logging.WARNING:
        text = f"{logging.getLevelName(line.level)} {line.logger}: {text}"
    if more or len(first) > _CONSOLE_CHARACTERS:
        text += f" ... (all of it in {FILE})"
    return text


def _line(record: logging.LogRecord, role: str, masker: Masker) -> Line:
    text = masker.text(_FORMATTER.format(record))
    return Line(record.created, record.levelno, record.name, role, text)


def _is_ours(logger: str) -> bool:
    return logger == OURS or logger.startswith(f"{OURS}.")


class _WorkerHandler(logging.Handler):
    def __init__(self, role: str, masker: Masker) -> None:
        super().__init__()
        self._role, self._masker, self._pid = role, masker, os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        if os.getpid() == self._pid:  # a forked child has no connection to the tally
            tally.log_line(_line(record, self._role, self._masker))


class _DriverHandler(logging.Handler):
    def __init__(self, log: RunLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        quiet = getattr(record, "quiet", False) or not _is_ours(record.name)
        self._log.take(_line(record, "driver", self._log._masker), console=not quiet)


class _FromWarning(logging.Filter):
    """Ours from any level that their loggers let through, other people's from WARNING."""

    def filter(self, record: logging.LogRecord) -> bool:
        return _is_ours(record.name) or record.levelno >= logging.WARNING


def _places() -> list[logging.Logger]:
    # Ray's two loggers do not hand their records on to the root.
    return [logging.getLogger(name) for name in (None, "ray", "ray.data")]


def _attach(handler: logging.Handler) -> None:
    handler.addFilter(_FromWarning())
    for logger in _places():
        logger.addHandler(handler)
    logging.getLogger(OURS).setLevel(logging.INFO)


def _detach(handler: logging.Handler) -> None:
    for logger in _places():
        logger.removeHandler(handler)
    handler.close()


def _silence_consoles() -> list[tuple[logging.Logger, logging.Handler]]:
    """Takes off the handlers that write to the console, and gives them with their loggers."""
    import ray.data  # sets its handlers as it is imported

    # Says on each run that progress bars are off, as a warning; off is what we want.
    logging.getLogger(ray.data.__name__ + "._internal.progress").setLevel(logging.ERROR)
    found = [
        (logger, handler)
        for logger in _places()
        for handler in logger.handlers
        if getattr(handler, "stream", None) in (sys.stderr, sys.stdout)
    ]
    for logger, handler in found:
        logger.removeHandler(handler)
    return found
