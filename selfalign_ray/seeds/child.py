"""A process that works through items one by one, so that an item that ends it costs that item.

Parsers are C: what crashes them, or keeps them busy for ever, cannot be caught where it happens.
The process is a clean interpreter, not a fork of a Ray worker with its threads; a question and its
answer are pickles with their length before them. A question holds many items, since two processes
that wait for each other at every file find their caches cold. One that is not answered is asked
again item by item.
"""

from __future__ import annotations

import atexit
import contextlib
import functools as ft
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, NamedTuple

_LENGTH = struct.Struct("<Q")
_Answer = tuple[str | None, Any]  # why the function raised, or None and what it gave
_TRIES = 2  # a process may also be killed by others, for memory above all
_QUESTION_BYTES = 1_000_000  # a hundred files


class Limits(NamedTuple):
    """What one item may take."""

    seconds: float  # of CPU
    megabytes: int  # of address space, the interpreter's own included


class Died(NamedTuple):
    """The answer to an item that ends the process."""

    reason: str  # parse_timeout or parser_died


def answers(
    function: Callable[..., Any], items: Iterable[tuple[Any, ...]], limits: Limits
) -> Iterator[Any]:
    """`function(*item)` for each item in turn; a Died for one that ends the process.

    Each process of the job keeps one such child for all its calls.

    Args:
        function: of a module that imports neither Ray nor pyarrow, else its start takes seconds.
        items: its arguments, of types that pickle takes.
        limits: what one item may take.

    Raises:
        RuntimeError: the function raised, with its traceback.
    """
    child = _child(limits)
    pickled = pickle.dumps(function)
    for question in _questions(items):
        for failure, value in child.answers(pickled, question):
            if failure is not None:
                raise RuntimeError(f"in the process for parsing:\n{failure}")
            yield value


def _questions(items: Iterable[tuple[Any, ...]]) -> Iterator[list[bytes]]:
    question, size = list[bytes](), 0
    for item in items:
        question.append(pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL))
        size += len(question[-1])
        if size >= _QUESTION_BYTES:
            yield question
            question, size = [], 0
    if question:
        yield question


class _Child:
    """One such process, started when it is first asked and again after it died."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None

    def answers(self, function: bytes, question: list[bytes]) -> list[_Answer]:
        if len(question) > 1:
            answers = self._asked(function, question)
            if isinstance(answers, list):
                return answers
        return [self._answer(function, item) for item in question]

    def _answer(self, function: bytes, item: bytes) -> _Answer:
        for _ in range(_TRIES):
            answers = self._asked(function, [item])
            if isinstance(answers, list):
                return answers[0]
            if answers == -signal.SIGPROF:
                return None, Died("parse_timeout")
        return None, Died("parser_died")

    def _asked(self, function: bytes, question: list[bytes]) -> list[_Answer] | int:
        """The answers; the exit code of a process that ended meanwhile."""
        if self._process is None:
            self._process = _started(self._limits)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            _send(self._process.stdin, (function, question))
            answers: list[_Answer] = _receive(self._process.stdout)
        except (BrokenPipeError, EOFError):
            return self._buried()
        return answers

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._buried()

    def _buried(self) -> int:
        """The exit code."""
        process, self._process = self._process, None
        assert process is not None
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):  # what was left to send
                assert pipe is not None
                pipe.close()
        return process.wait()


@ft.cache
def _child(limits: Limits) -> _Child:
    child = _Child(limits)
    atexit.register(child.end)
    return child


def _started(limits: Limits) -> subprocess.Popen[bytes]:
    start = "import sys; from selfalign_ray.seeds.child import serve; serve(*sys.argv[1:])"
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-P", "-c", start, *map(str, limits)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )


def serve(seconds: str, megabytes: str) -> None:
    """The child's life: a question, an answer, until nobody asks any more."""
    size = int(megabytes) * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear
    questions = sys.stdin.buffer
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    known: dict[bytes, Callable[..., Any]] = {}
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            pickled, question = _receive(questions)
            if pickled not in known:
                known[pickled] = pickle.loads(pickled)  # noqa: S301  our own process
            answers = []
            for item in question:
                # A signal that nothing handles: the kernel ends the process in the midst of C code.
                signal.setitimer(signal.ITIMER_PROF, float(seconds))
                answers.append(_answer(known[pickled], item))
                signal.setitimer(signal.ITIMER_PROF, 0)
            _send(replies, answers)


def _answer(function: Callable[..., Any], item: bytes) -> _Answer:
    try:
        return None, function(*pickle.loads(item))  # noqa: S301  our own process
    except (MemoryError, RecursionError):
        return None, Died("parser_died")
    except Exception:  # noqa: BLE001  told to the parent, which raises
        return traceback.format_exc(), None


def _send(pipe: IO[bytes], message: Any) -> None:
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    """The next message.

    Raises:
        EOFError: there is none, or half of one.
    """
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (size,) = _LENGTH.unpack(head)
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return pickle.loads(data)  # noqa: S301  our own process
