"""JSONL files: a plain one is cut into stretches, a compressed one is read from its beginning."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from selfalign_ray.seeds.config import TableSource

PROBLEM = object()  # the key, which no line can give, of why a line is no record

_STRETCH = 64 << 20  # bytes that one task reads of a plain file
_MAX_LINE = 64 << 20  # bytes; a longer line is passed over
_CHUNK = 1 << 16
_CODECS = {".gz": "gzip", ".zst": "zstd"}


def groups(system: pafs.FileSystem, path: str, size: int, _source: TableSource) -> Iterator[int]:
    """The stretches of a file."""
    with system.open_input_stream(path, compression=None):  # whether it can be
        pass
    compressed = _codec(path) is not None
    return iter(range(1 if compressed else max(1, -(-size // _STRETCH))))


def records(
    system: pafs.FileSystem, path: str, group: int, _source: TableSource, _names: Sequence[str]
) -> Iterator[tuple[int, dict[Any, Any]]]:
    """Each line that begins in a stretch, with its offset in the file before compression.

    A line that is no JSON object is a record with a problem: bad_json or too_large.
    """
    codec = _codec(path)
    if codec is not None:
        with system.open_input_stream(path, compression=codec) as file:
            yield from map(_record, _lines(file, 0, None))
        return
    with system.open_input_file(path) as file:
        start = _line_after(file, group * _STRETCH)
        file.seek(start)
        yield from map(_record, _lines(file, start, (group + 1) * _STRETCH))


def _line_after(file: pa.NativeFile, start: int) -> int:
    """Where the first line begins that does not begin before `start`."""
    if start == 0:
        return 0
    offset = start - 1
    file.seek(offset)
    while chunk := file.read(_CHUNK):
        place = chunk.find(b"\n")
        if place >= 0:
            return offset + int(place) + 1
        offset += len(chunk)
    return offset


def _codec(path: str) -> str | None:
    return next((codec for suffix, codec in _CODECS.items() if path.endswith(suffix)), None)


def _record(found: tuple[int, bytes | int]) -> tuple[int, dict[Any, Any]]:
    offset, line = found
    if isinstance(line, int):
        return offset, {PROBLEM: "too_large"}
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return offset, {PROBLEM: "bad_json"}
    return offset, record if isinstance(record, dict) else {PROBLEM: "bad_json"}


def _lines(file: pa.NativeFile, start: int, end: int | None) -> Iterator[tuple[int, bytes | int]]:
    """The lines that begin before `end` with their offsets; of a very long one its length alone."""
    held: list[bytes] = []
    begin, length = start, 0
    while end is None or begin < end:
        chunk = file.read(_CHUNK)
        if not chunk:
            break
        pieces = chunk.split(b"\n")
        for piece in pieces[:-1]:
            length += len(piece) + 1
            line = length if length > _MAX_LINE else b"".join([*held, piece])
            if (end is None or begin < end) and (isinstance(line, int) or line.strip()):
                yield begin, line
            begin, held, length = begin + length, [], 0
        length += len(pieces[-1])
        held = [*held, pieces[-1]] if length <= _MAX_LINE else []
    rest = length if length > _MAX_LINE else b"".join(held)
    if (end is None or begin < end) and (isinstance(rest, int) or rest.strip()):
        yield begin, rest
