"""JSON Lines in the order of a key, written whole or not at all, in bounded memory."""

from __future__ import annotations

import contextlib
import heapq
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Self

from selfalign_ray.places import replacing

Key = tuple[str, int]

_ROW_BYTES = 256  # that Python takes for a row besides its line: a key, two tuples, a place


class SortedLines:
    """Collects rows with their keys; leaving the `with` block writes the file in key order.

    What does not fit in memory waits in sorted temporary files beside it. After an error there
    is no new file, and an old one is untouched.
    """

    def __init__(self, path: Path, memory_bytes: int) -> None:
        self._path, self._memory_bytes = path, memory_bytes
        self._rows: list[tuple[Key, bytes]] = []
        self._bytes = 0
        self.written = 0
        self._stack = contextlib.ExitStack()
        self._runs: list[IO[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def add(self, key: Key, row: Mapping[str, Any]) -> None:
        line = json_line(row)
        self._rows.append((key, line))
        self._bytes += len(line) + _ROW_BYTES
        self.written += 1
        if self._bytes >= self._memory_bytes:
            self._spill()

    def __exit__(self, kind: object, *_: object) -> None:
        with self._stack:
            if kind is None:
                self._write()

    def _write(self) -> None:
        self._rows.sort()
        runs = [iter(self._rows), *(_spilled(run) for run in self._runs)]
        with replacing(self._path) as file:
            file.writelines(line for _, line in heapq.merge(*runs))

    def _spill(self) -> None:
        temporary = tempfile.TemporaryFile(dir=self._path.parent)  # noqa: SIM115  the stack does
        run = self._stack.enter_context(temporary)
        self._rows.sort()
        for (text, number), line in self._rows:
            run.write(json.dumps([text, number]).encode() + b"\n" + line)
        self._runs.append(run)
        self._rows, self._bytes = [], 0


def json_line(row: Mapping[str, Any]) -> bytes:
    r"""One line of UTF-8. A text that UTF-8 cannot hold makes the line ASCII with \u escapes."""
    text = json.dumps(row, ensure_ascii=False, separators=(", ", ": "))
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(row).encode() + b"\n"


def _spilled(run: IO[bytes]) -> Iterator[tuple[Key, bytes]]:
    run.seek(0)
    while head := run.readline():
        text, number = json.loads(head)
        yield (text, number), run.readline()
