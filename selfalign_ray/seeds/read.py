"""read: the source's files, one row each, with their decoded content."""

from __future__ import annotations

import heapq
import itertools
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray.data import Dataset

from selfalign_ray import schemas
from selfalign_ray.blocks import by_block
from selfalign_ray.config import RunConfig
from selfalign_ray.done import PLACE_ID, Done, nothing_done
from selfalign_ray.errors import UserError
from selfalign_ray.ids import content_id, keyed_int
from selfalign_ray.seeds.config import (
    FolderSource,
    InstalledSource,
    SourceConfig,
    TableSource,
)
from selfalign_ray.seeds.headers import with_head
from selfalign_ray.seeds.licenses import judge
from selfalign_ray.seeds.sources import folder, installed, tables
from selfalign_ray.seeds.sources.blobs import Fetcher
from selfalign_ray.seeds.sources.listing import ListedFile
from selfalign_ray.seeds.text import decode
from selfalign_ray.withdrawn import withdrawn_of, without_withdrawn

_WINDOW = 100_000  # files of a list in the driver's memory at once

# What a worker gets of a file: its row so far, and where it lies.
_LISTED = pa.schema(
    [
        *(field for field in schemas.FILE if field.name not in ("row_id", "file_id", "content")),
        pa.field("location", pa.binary()),
    ]
)


def read(ds: Dataset | None, cfg: RunConfig, *, done: Done | None = None) -> Dataset:
    """The files of `cfg.source`, less those whose `place_id` is done.

    What can be judged on the list is, before any content is read; only workers read content, and
    never more than `read.max_bytes` of a file (a Parquet page apart). A file whose head names a
    licence of its own needs that one to be allowed too.

    Returns:
        `schemas.FILE` rows, one a file. `source.limit` takes the first files in an order that
        follows from `run_seed` and the files' places alone. Drop reasons: license_unknown,
        license_not_allowed, unreadable, too_large, empty, binary, bad_encoding, unknown_codec;
        for tables those that WantedConfig names, no_content, bad_json and broken_part (a row
        group or file that cannot be read); where contents are fetched those of `blobs.Fetcher`;
        before all others withdrawn.

    Raises:
        UserError: the source names what does not exist, lists no file or cannot be read at all.
    """
    assert ds is None, "read is where rows begin"
    source = cfg.source
    done = done or nothing_done()
    if isinstance(source, TableSource):
        rows = _read_tables(source, cfg, done)
    else:
        rows = _read_files(cfg, done)
    return without_withdrawn(rows, withdrawn_of(cfg))


def check_source(source: SourceConfig) -> None:
    """That the source is there and holds a file, of which nothing is read.

    Raises:
        UserError: it cannot be listed or holds nothing.
    """
    if isinstance(source, TableSource):
        tables.check(source)
    elif not any(True for _ in listed_files(source)):
        raise UserError(_nothing_in(source))


def _read_files(cfg: RunConfig, done: Done) -> Dataset:
    source = cfg.source
    settings = cfg.seeds.read
    blocks = listed_blocks(source, cfg.run_seed, settings.licenses, settings.files_per_block)
    # Each block goes to Ray's store, which spills: the driver does not hold the list.
    refs: list[Any] = [ray.put(block) for block in blocks]
    if not refs:
        raise UserError(_nothing_in(source))
    listed = done.skipped(ray.data.from_arrow_refs(refs), PLACE_ID)
    load_files = partial(load, max_bytes=settings.max_bytes, licenses=settings.licenses)
    return by_block(listed, load_files, concurrency=cfg.seeds.concurrency)


def _read_tables(source: TableSource, cfg: RunConfig, done: Done) -> Dataset:
    settings = cfg.seeds.read
    parts: list[Any] = [ray.put(part) for part in tables.parts(source, cfg.run_seed)]
    if not parts:
        raise UserError(f"source.path: nothing in {source.path} is of source.wanted.languages")
    load_parts = partial(
        tables.load,
        source=source,
        run_seed=cfg.run_seed,
        licenses=settings.licenses,
        max_bytes=settings.max_bytes,
        rows=settings.files_per_block,
    )
    listed = ray.data.from_arrow_refs(parts)
    rows = by_block(listed, load_parts, concurrency=cfg.seeds.concurrency)
    rows = done.skipped(rows, PLACE_ID)
    fetch = source.fetch
    if fetch is None:
        return rows
    return rows.map_batches(
        Fetcher,
        fn_constructor_args=(fetch, source.retry, settings.max_bytes, settings.licenses),
        batch_size=fetch.files_per_batch,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=fetch.actors),
        num_cpus=fetch.cpus,
    )


def listed_blocks(
    source: SourceConfig, run_seed: int, licenses: Collection[str] | None, size: int
) -> Iterator[pa.Table]:
    """The source's files in the seeded order, `size` a table, without content.

    With a limit the order is that of all files; without one it is that of each window of files
    as they are listed, so that a list longer than memory need not be sorted.
    """
    files = iter(listed_files(source))
    order = partial(_order, run_seed)
    if source.limit is not None:
        windows = iter([heapq.nsmallest(source.limit, files, key=order)])
    else:
        windows = iter(lambda: sorted(itertools.islice(files, _WINDOW), key=order), [])
    for window in windows:
        for start in range(0, len(window), size):
            yield listed_table(window[start : start + size], source.kind, licenses)


def _order(run_seed: int, file: ListedFile) -> tuple[int, str, str, bytes]:
    place = keyed_int(63, run_seed, "read", file.repository, file.path)
    return place, file.repository, file.path, file.location


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
                "place_id": content_id("place", source, file.repository, file.path, file.location),
                "licenses": licenses,
                "drop_reason": reason,
                "location": file.location,
            }
        )
    return pa.Table.from_pylist(rows, schema=_LISTED)


def load(listed: pa.Table, *, max_bytes: int, licenses: Collection[str] | None) -> pa.Table:
    """Adds ids, size and content to a block of listed files, and what their heads say."""
    rows = [_loaded(row, max_bytes, licenses) for row in listed.to_pylist()]
    return pa.Table.from_pylist(rows, schema=schemas.FILE)


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


def listed_files(source: object) -> Iterable[ListedFile]:
    """The files of a source that is no table, in any order."""
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


def _loaded(
    row: dict[str, Any], max_bytes: int, licenses: Collection[str] | None
) -> dict[str, Any]:
    content = file_id = None
    if row["drop_reason"] is None:
        row["bytes"], data, row["drop_reason"] = read_bytes(row["location"], max_bytes)
        if data is not None:
            file_id = content_id(data)
            content, row["drop_reason"] = decode(data)
    origin = (row["source"], row["repository"], row["revision"], row["path"], file_id)
    ids = {"row_id": content_id(*origin), "file_id": file_id}
    return with_head({**row, **ids, "content": content}, licenses)
