"""read: the source's files, one row each, with their decoded content."""

from __future__ import annotations

import io
import os
import re
import stat
import tokenize
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import Dataset

from selfalign_ray import schemas
from selfalign_ray.config import RunConfig
from selfalign_ray.errors import UserError
from selfalign_ray.ids import content_id, keyed_int
from selfalign_ray.seeds.config import FolderSource, InstalledSource
from selfalign_ray.seeds.licenses import judge
from selfalign_ray.seeds.sources import folder, installed
from selfalign_ray.seeds.sources.listing import ListedFile

# What a worker gets of a file: its row so far, and where it lies.
_LISTED = pa.schema(
    [
        *(field for field in schemas.FILE if field.name not in ("row_id", "file_id", "content")),
        pa.field("location", pa.binary()),
    ]
)


def read(ds: Dataset | None, cfg: RunConfig) -> Dataset:
    """The files of `cfg.source`.

    Licences are judged on the list, before any content is read; only workers read content, and
    never more than `read.max_bytes` of a file.

    Returns:
        `schemas.FILE` rows, one a file. `source.limit` takes the first files in an order that
        follows from `run_seed`, repository and path. Drop reasons: license_unknown,
        license_not_allowed, unreadable, too_large, empty, binary, bad_encoding.

    Raises:
        UserError: the source names what does not exist, or lists no file.
    """
    assert ds is None, "read is where rows begin"
    source, settings = cfg.source, cfg.seeds.read
    table = listed_table(
        ordered(_files(source), cfg.run_seed)[: source.limit], source.kind, settings.licenses
    )
    if not table.num_rows:
        raise UserError(_nothing_in(source))
    size = settings.files_per_block
    blocks = [table.slice(start, size) for start in range(0, table.num_rows, size)]
    return ray.data.from_arrow(blocks).map_batches(
        partial(load, max_bytes=settings.max_bytes),
        batch_size=None,
        batch_format="pyarrow",
        concurrency=cfg.seeds.concurrency,
    )


def ordered(files: Iterable[ListedFile], run_seed: int) -> list[ListedFile]:
    """The files in the seeded order."""

    def key(file: ListedFile) -> tuple[int, str, str, bytes]:
        place = keyed_int(63, run_seed, "read", file.repository, file.path)
        return place, file.repository, file.path, file.location

    return sorted(files, key=key)


def listed_table(
    files: Iterable[ListedFile], source: str, allowed: Collection[str] | None
) -> pa.Table:
    """The files as a table without content, those with the wrong licence dropped."""
    rows = []
    for file in files:
        licenses, reason = judge(file.offer, allowed)
        rows.append(
            {
                "source": source,
                "repository": file.repository,
                "revision": file.revision,
                "path": file.path,
                "licenses": licenses,
                "drop_reason": reason,
                "location": file.location,
            }
        )
    return pa.Table.from_pylist(rows, schema=_LISTED)


def load(listed: pa.Table, *, max_bytes: int) -> pa.Table:
    """Adds ids, size and content to a block of listed files."""
    return pa.Table.from_pylist(
        [_loaded(row, max_bytes) for row in listed.to_pylist()], schema=schemas.FILE
    )


def read_bytes(location: bytes, max_bytes: int) -> tuple[int | None, bytes | None, str | None]:
    """A file's size and bytes, or its size and the reason why it has none.

    Only regular files are opened for reading: a pipe or device would never end.
    """
    try:
        # NONBLOCK: opening a pipe that nobody writes to returns at once.
        descriptor = os.open(location, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                return None, None, "unreadable"
            if state.st_size > max_bytes:
                return state.st_size, None, "too_large"
            data = file.read(max_bytes + 1)  # a file in /proc says it has none
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None, None, "unreadable"
    if len(data) > max_bytes:
        return None, None, "too_large"
    return len(data), data, None


def decode(data: bytes) -> tuple[str | None, str | None]:
    r"""The text of Python source, its lines ended by "\n", or the reason why it is none.

    The encoding is what the file declares as Python reads it (PEP 263), else UTF-8.
    """
    if not data.strip():
        return None, "empty"
    if b"\0" in data:
        return None, "binary"
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
        text.encode("utf-8")  # some codecs let lone surrogates through
    # SyntaxError: an unknown encoding or two that contradict. LookupError: one that is not for
    # text. AssertionError, OverflowError: codecs such as punycode on bytes they never made.
    except (SyntaxError, LookupError, ValueError, AssertionError, OverflowError):
        return None, "bad_encoding"
    if "\0" in text:
        return None, "binary"
    return re.sub(r"\r\n?", "\n", text), None


def _files(source: object) -> Iterable[ListedFile]:
    match source:
        case InstalledSource():
            return installed.files(source)
        case FolderSource():
            return folder.files(source)
    raise AssertionError(f"no reader for {source}")


def _nothing_in(source: object) -> str:
    if isinstance(source, FolderSource):
        return (
            f"source.path: no file below {source.path} matches source.include {source.include} "
            f"and none of source.exclude {source.exclude}"
        )
    return (
        "source: no .py file in the packages installed here; see source.packages, "
        "source.exclude_packages and source.exclude"
    )


def _loaded(row: dict[str, Any], max_bytes: int) -> dict[str, Any]:
    content = file_id = None
    if row["drop_reason"] is None:
        row["bytes"], data, row["drop_reason"] = read_bytes(row["location"], max_bytes)
        if data is not None:
            file_id = content_id(data)
            content, row["drop_reason"] = decode(data)
    origin = (row["source"], row["repository"], row["revision"], row["path"], file_id)
    return {**row, "row_id": content_id(*origin), "file_id": file_id, "content": content}
