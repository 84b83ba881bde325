"""Runs one sample on one zygote: pipes, limits, the drained output."""

from __future__ import annotations

import itertools
import os
import select
import socket
import time
from collections.abc import Sequence

from selfalign_ray.sandbox.config import SandboxConfig
from selfalign_ray.sandbox.kernel import MESSAGE_BYTES
from selfalign_ray.sandbox.launch import Zygote
from selfalign_ray.sandbox.report import NONCE_BYTES
from selfalign_ray.sandbox.tree import usage
from selfalign_ray.sandbox.verdict import Outcome

_CHUNK = 1 << 16
_CHUNKS_AT_ONCE = 32  # then the clocks are looked at, also of a program that never stops printing
_REPORT_BYTES = 1 << 22
# A report is read at its end; only that of a sample that takes longer is read before.
_PATIENCE_SECONDS = 0.25
_TREE_SECONDS = 0.1  # between looks at all of a sample's processes
# A sample that used a twentieth of a core while its wall time ran was kept waiting by other
# programs, not by itself: it gets its wall time again, so often.
_STARVED_SHARE, _EXTENSIONS = 0.05, 3
_GRACE_SECONDS = 1.0  # for a solution to leave once its tests are over
_ANSWER_SECONDS = 20.0  # for a zygote to answer a kill before it counts as broken
_CPUS = os.cpu_count() or 1


def framed(*texts: str) -> bytes:
    """Texts as the runner takes them, surrogates that stand alone included."""
    parts = [text.encode("utf-8", "surrogatepass") for text in texts]
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def _pipes(number: int) -> list[tuple[int, int]]:
    """So many pipes, or none of them and an OSError."""
    pipes: list[tuple[int, int]] = []
    try:
        pipes.extend(os.pipe() for _ in range(number))
    except OSError:
        for descriptor in itertools.chain(*pipes):
            os.close(descriptor)
        raise
    return pipes


class Execution:
    """One sample under way; an OSError where there are no descriptors left for it."""

    def __init__(
        self,
        zygote: Zygote,
        texts: Sequence[str],
        config: SandboxConfig,
        role: str = "run",
        links: Sequence[int] = (),
    ) -> None:
        self._zygote, self._config = zygote, config
        # Goes from here into the sample's own pipe, past the zygote, and is read after the tests.
        self.outcome = Outcome(nonce=os.urandom(NONCE_BYTES), may_kill=config.profile == "fork")
        self._pending = memoryview(framed(*texts) + self.outcome.nonce)
        (theirs, self._source), *others = _pipes(4)
        self._sinks = [read for read, _ in others]  # stdout, stderr, report
        self._kept: list[list[bytes]] = [[], [], []]
        self._room = [config.output_bytes, config.output_bytes, _REPORT_BYTES]
        given = [theirs, *(write for _, write in others)]
        for descriptor in (self._source, *self._sinks):
            os.set_blocking(descriptor, False)
        self.started = time.monotonic()
        self._check_at = self.started + config.cpu_seconds / _CPUS
        if config.profile == "fork":
            self._check_at = self.started + _TREE_SECONDS
        self._give_up_at = self.started + config.wall_seconds
        self._cpu_seconds = self._spent_before = 0.0
        self._extensions = _EXTENSIONS
        self._patient_until = self.started + _PATIENCE_SECONDS
        self.ended = self._leaving = False
        try:
            socket.send_fds(zygote.control, [role.encode()], [*given, *links])
            zygote.samples += 1
        except OSError as error:
            self._broken(f"the zygote is gone: {error}")
        for descriptor in given:
            os.close(descriptor)
        self._feed()

    def descriptors(self) -> list[tuple[int, int]]:
        """What to wait for, as (descriptor, poll events)."""
        waits = [(self._zygote.control.fileno(), select.POLLIN)]
        watched = self._sinks if time.monotonic() > self._patient_until else self._sinks[:2]
        waits += [(sink, select.POLLIN) for sink in watched if sink >= 0]
        if self._source >= 0:
            waits.append((self._source, select.POLLOUT))
        return waits

    def wakes_at(self) -> float:
        moments = [self._check_at, self._give_up_at]
        if self._patient_until > time.monotonic():
            moments.append(self._patient_until)
        return min(moments)

    def advance(self) -> None:
        """Takes what there is to take, and ends the sample if its limits are reached."""
        self._feed()
        self._drain()
        self._listen()
        now = time.monotonic()
        if not self.ended and now >= self._check_at:
            self._tell(b"cpu")
            self._check_at = now + 1.0  # until the answer says better
            if self._config.profile == "fork":
                self._look_at_all_processes()
        if not self.ended and now >= self._give_up_at:
            self._end_of_time(now)

    def _end_of_time(self, now: float) -> None:
        """A sample that still waits for its share of a busy machine gets more time."""
        spent, self._spent_before = self._cpu_seconds - self._spent_before, self._cpu_seconds
        starved = spent > _STARVED_SHARE * self._config.wall_seconds
        if self.outcome.stopped:
            self._broken("the zygote did not end its sample")
        elif starved and self._extensions > 0 and not self._leaving:
            self._extensions -= 1
            self._give_up_at = now + self._config.wall_seconds
        else:
            self.stop("timeout", f"still running after {now - self.started:.1f} s")

    def _look_at_all_processes(self) -> None:
        seconds, memory = usage(self._zygote.pid)
        self._spent(seconds)
        if memory > self._config.memory_mb << 20:
            self.stop("out_of_memory", f"its processes use {memory >> 20} MiB together")
        self._check_at = min(self._check_at, time.monotonic() + _TREE_SECONDS)

    def stop(self, verdict: str, reason: str) -> None:
        """Ends the sample early, with this verdict."""
        if not self.outcome.stopped and not self.ended:
            self.outcome.stopped, self.outcome.reason = verdict, reason
            self._tell(b"kill")
            self._give_up_at = time.monotonic() + _ANSWER_SECONDS

    def leave_within(self, seconds: float) -> None:
        """Brings the end nearer, once nothing waits for this sample any more."""
        if not self.ended and not self._leaving:
            self._leaving = True
            self._give_up_at = min(self._give_up_at, time.monotonic() + seconds)

    def finish(self) -> Outcome:
        """What became of the sample, once it has ended."""
        self._drain()
        self.outcome.wall_seconds = time.monotonic() - self.started
        for descriptor in (self._source, *self._sinks):
            if descriptor >= 0:
                os.close(descriptor)
        self._source, self._sinks = -1, [-1, -1, -1]
        texts = [b"".join(parts) for parts in self._kept]
        self.outcome.stdout, self.outcome.stderr, self.outcome.report = texts
        return self.outcome

    def _broken(self, reason: str) -> None:
        self.outcome.infra = self.outcome.infra or reason
        self.ended = True

    def _tell(self, message: bytes) -> None:
        try:
            self._zygote.control.send(message)
        except OSError as error:
            self._broken(f"the zygote is gone: {error}")

    def _listen(self) -> None:
        while not self.ended:
            try:
                message = self._zygote.control.recv(MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self._broken(f"the zygote is gone: {error}")
                return
            word, *rest = message.split() or [b""]
            if word == b"end":
                self.outcome.status = int(rest[0])
                self.outcome.cpu_seconds = max(float(rest[1]), self._cpu_seconds)
                self.outcome.peak_memory_bytes = int(rest[2])
                self.ended = True
            elif word == b"cpu":
                self._spent(int(rest[0]) / 1e9)
            else:
                self._broken("the zygote died")

    def _spent(self, seconds: float) -> None:
        self._cpu_seconds = max(self._cpu_seconds, seconds)
        left = self._config.cpu_seconds - self._cpu_seconds
        if left <= 0:
            self.stop("timeout", f"used {seconds:.1f} s of CPU")
        self._check_at = time.monotonic() + max(0.02, left / _CPUS)

    def _feed(self) -> None:
        while self._source >= 0:
            if not self._pending:
                os.close(self._source)
                self._source = -1
                return
            try:
                self._pending = self._pending[os.write(self._source, self._pending[:_CHUNK]) :]
            except BlockingIOError:
                return
            except BrokenPipeError:  # the program ended without reading on
                self._pending = memoryview(b"")

    def _drain(self) -> None:
        for index, sink in enumerate(self._sinks):
            for _ in range(_CHUNKS_AT_ONCE if sink >= 0 else 0):
                try:
                    part = os.read(sink, _CHUNK)
                except BlockingIOError:
                    break
                if not part:
                    os.close(sink)
                    self._sinks[index] = -1
                    break
                if self._room[index] > 0:
                    self._kept[index].append(part[: self._room[index]])
                    self._room[index] -= len(part)


def run_together(executions: Sequence[Execution]) -> list[Outcome]:
    """Waits for all of them to end; the others have a second more than the first one."""
    while waiting := [e for e in executions if not e.ended]:
        poll = select.poll()
        for execution in waiting:
            for descriptor, events in execution.descriptors():
                poll.register(descriptor, events)
        until = min(execution.wakes_at() for execution in waiting)
        poll.poll(max(0.0, until - time.monotonic()) * 1_000 + 1)
        for execution in waiting:
            execution.advance()
        if executions[0].ended:
            for execution in executions[1:]:
                execution.leave_within(_GRACE_SECONDS)
    return [execution.finish() for execution in executions]
