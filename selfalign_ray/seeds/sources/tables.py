"""The sources `files`, `stack_v1`, `stack_v2` and `stack_v3`: code in the rows of tables.

A part is what one task reads: a row group of a Parquet file, or a stretch of a JSONL file. Files
and parts come in a seeded order; a row's id follows from its place, so that two equal rows are two.
"""

from __future__ import annotations

import functools as ft
import itertools
import logging
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa

from selfalign_ray import schemas
from selfalign_ray.errors import UserError
from selfalign_ray.ids import content_id, keyed_int
from selfalign_ray.seeds.config import TableSource
from selfalign_ray.seeds.sources import jsonl, parquet
from selfalign_ray.seeds.sources.entries import Record, entries_of, refusal, with_content
from selfalign_ray.seeds.sources.listing import matcher
from selfalign_ray.seeds.sources.storage import (
    Storage,
    base_of,
    dataset_of,
    file_system,
    is_throttled,
    list_files,
    open_storage,
    patiently,
    pause,
)

log = logging.getLogger(__name__)


# What a worker gets of a part.
PART = pa.schema(
    [
        pa.field("place", pa.string()),  # the file, relative to the source's folder
        pa.field("path", pa.string()),  # where a worker opens it
        pa.field("size", pa.int64()),  # of the file, bytes
        pa.field("group", pa.int64()),  # row group or stretch; null: all, and no footer read yet
        pa.field("take", pa.int64()),  # listed files of it to take; null: all
        pa.field("dataset", pa.string()),  # recorded on each row
        pa.field("problem", pa.string()),  # why it cannot be read
    ]
)
# A row on its way to its content: the file's, and the codec of its bytes.
LISTED = pa.schema([*schemas.FILE, pa.field("encoding", pa.string())])

_THREADS = 16  # that read footers on the driver: they wait for the store
_TABLES = 1000  # at most, of files whose footers are left to the workers: each is a task
_BLOCK_BYTES = 32 << 20  # of content, that leave a worker together
_FORMATS = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}


class _File(NamedTuple):
    place: str
    path: str
    size: int


def parts(source: TableSource, run_seed: int) -> Iterator[pa.Table]:
    """The source's parts in the seeded order, until `source.limit` files are in them.

    Only footers are read here, and for a limit the columns that decide what is listed. Without one
    the driver reads footers until it has seen that the source is one, and workers the others: there
    may be thousands. Those parts are whole files, several a table where they are very many.

    Raises:
        UserError: the source cannot be listed, holds nothing, or no part of it can be read.
    """
    storage = open_storage(source)
    revision = source.revision or storage.revision
    dataset = dataset_of(source) + (f"@{revision}" if revision else "")
    files = _files(source, storage)
    log.info("source.path: %s files in %s", f"{len(files):,}", source.path)
    files.sort(key=lambda file: (keyed_int(63, run_seed, "read", file.place), file.place))
    usable, taken, problem = False, 0, ""
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(files), _THREADS):
            if usable and source.limit is None:
                yield from _left(files[start:], dataset)
                return
            window = files[start : start + _THREADS]
            described = pool.map(ft.partial(_described, source, run_seed), window)
            for part in itertools.chain.from_iterable(described):
                part["dataset"] = dataset
                if part["problem"] is None and source.limit is not None:
                    _cut(part, source, source.limit - taken)
                    taken += part["take"] or 0
                usable, problem = usable or part["problem"] is None, part["problem"] or problem
                if part["take"] != 0:
                    yield pa.Table.from_pylist([part], schema=PART)
                if source.limit is not None and taken >= source.limit:
                    return
    if not usable:
        raise UserError(f"source.path: no part of {source.path} can be read: {problem}")


def check(source: TableSource) -> None:
    """That the source is there and holds a file.

    Raises:
        UserError: it cannot be listed or holds nothing.
    """
    _files(source, open_storage(source))


def _files(source: TableSource, storage: Storage) -> list[_File]:
    base = base_of(storage)
    found = [
        _File(place, f"{base}/{place}".rstrip("/"), size)
        for place, size in list_files(source, storage)
    ]
    files = [file for file in found if _format(source, file.path) is not None]
    if not files:
        raise UserError(
            f"source.path: {source.path} holds no file named .parquet, .jsonl, .jsonl.gz or "
            ".jsonl.zst; name the format with source.format"
        )
    return files


def _left(files: Sequence[_File], dataset: str) -> Iterator[pa.Table]:
    """Whole files, in their order, in tables of as many as leave `_TABLES` of them."""
    parts = [_part(file) | {"group": None, "dataset": dataset} for file in files]
    size = max(1, -(-len(parts) // _TABLES))
    for start in range(0, len(parts), size):
        yield pa.Table.from_pylist(parts[start : start + size], schema=PART)


def _part(file: _File) -> Record:
    return {**file._asdict(), "group": 0, "take": None, "problem": None}


def load(
    work: pa.Table,
    *,
    source: TableSource,
    run_seed: int,
    licenses: Collection[str] | None,
    max_bytes: int,
    rows: int,
) -> Iterator[pa.Table]:
    """The files of parts, in tables of at most so many rows, in the part's order.

    The tables are `schemas.FILE`, or `LISTED` where contents are fetched.

    What is not wanted has no content and its reason. Where contents are fetched, the others have
    none either.
    """
    schema = schemas.FILE if source.fetch is None else LISTED
    block: list[Record] = []
    size = 0
    for row in _rows_of_parts(work, source, run_seed, licenses, max_bytes):
        block.append(row)
        size += len(row["content"] or "")
        if len(block) >= rows or size >= _BLOCK_BYTES:
            yield pa.Table.from_pylist(block, schema=schema)
            block, size = [], 0
    if block:
        yield pa.Table.from_pylist(block, schema=schema)


def _rows_of_parts(
    work: pa.Table,
    source: TableSource,
    run_seed: int,
    licenses: Collection[str] | None,
    max_bytes: int,
) -> Iterator[Record]:
    """The rows of each part; what cannot be read of one is its last row."""
    for whole in work.to_pylist():
        for part in _opened(whole, source, run_seed):
            try:
                if part["problem"] is None:
                    yield from _patient_rows(part, source, licenses, max_bytes)
            except Exception as error:  # noqa: BLE001  ours are raised again
                part["problem"] = _problem(part["path"], error)
            if part["problem"] is not None:
                yield _broken(part, source)


def _opened(part: Record, source: TableSource, run_seed: int) -> list[Record]:
    """The parts of a file whose footer nobody has read yet, or the part as it is."""
    if part["problem"] is not None or part["group"] is not None:
        return [part]
    file = _File(part["place"], part["path"], part["size"])
    return [found | {"dataset": part["dataset"]} for found in _described(source, run_seed, file)]


def _cut(part: Record, source: TableSource, left: int) -> None:
    """Sets how many listed files to take of a part, of those that are left to take."""

    def take() -> None:
        part["take"] = 0
        for _ in itertools.islice(_entries(part, source), left):
            part["take"] += 1

    try:
        patiently(take, source.retry)
    except Exception as error:  # noqa: BLE001  ours are raised again
        problem = _problem(part["path"], error)
        if part["take"]:
            part["take"] += 1  # the worker meets what is broken after those before it
        else:
            part.update(take=None, problem=problem)


def _problem(path: str, error: Exception) -> str:
    """What is said of a part that cannot be read.

    Raises:
        Exception: the error is none of a store, a file or a client, but a mistake of ours.
    """
    # Of the errors of the client that fsspec has for HTTP, most are no OSErrors.
    if isinstance(error, parquet.ERRORS) or type(error).__module__.startswith("aiohttp."):
        return f"{path}: {error.__cause__ or error}"
    raise error


def _described(source: TableSource, run_seed: int, file: _File) -> list[Record]:
    """The parts of one file; one with a problem for a file that cannot be read."""
    part = _part(file)
    system = file_system(source)
    reader = _reader(source, file.path)
    try:
        groups = patiently(
            lambda: reader.groups(system, file.path, file.size, source), source.retry
        )
    except Exception as error:  # noqa: BLE001  ours are raised again
        problem = _problem(file.path, error)
        log.warning("a part of the source cannot be read: %s", problem)
        return [{**part, "problem": problem}]
    key = ft.partial(keyed_int, 63, run_seed, "read", file.place)
    return [{**part, "group": group} for group in sorted(groups, key=lambda g: (key(str(g)), g))]


def _format(source: TableSource, path: str) -> str | None:
    if source.format is not None:
        return source.format
    name = path.removesuffix(".gz").removesuffix(".zst")
    return next((kind for suffix, kind in _FORMATS.items() if name.endswith(suffix)), None)


def _reader(source: TableSource, path: str) -> Any:
    return parquet if _format(source, path) == "parquet" else jsonl


def _entries(part: Record, source: TableSource, *, content: bool = False) -> Iterator[Record]:
    """What the columns say of each listed file of a part, by the names of ColumnsConfig.

    Without its content, unless that is asked for; then `problem` says why a record has none.
    """
    system = file_system(source)
    listed = _listed(source.include, source.exclude)
    languages = source.wanted.languages
    reader = _reader(source, part["path"])
    columns = vars(source.columns)
    unread = ("files",) if content else ("files", "content")
    names = [name for key, name in columns.items() if name is not None and key not in unread]
    for row, record in reader.records(system, part["path"], part["group"], source, names):
        for index, entry in enumerate(entries_of(record, source.columns)):
            if languages is not None and entry["language"] not in languages:
                continue
            if entry["path"] is None or listed(entry["path"]):
                entry["place"] = f"{part['place']}:{part['group']}:{row}:{index}"
                yield entry


def _listed(include: Sequence[str], exclude: Sequence[str]) -> Any:
    included, excluded = matcher(include), matcher(exclude)
    return lambda path: included(path) and not excluded(path)


def _patient_rows(
    part: Record, source: TableSource, licenses: Collection[str] | None, max_bytes: int
) -> Iterator[Record]:
    """The same as `_rows`; gone on with, ever later, where the store asks to slow down."""
    done = attempts = 0
    while True:
        try:
            for row in itertools.islice(_rows(part, source, licenses, max_bytes), done, None):
                yield row
                done, attempts = done + 1, 0
        except Exception as error:
            attempts += 1
            if attempts >= source.retry.attempts or not is_throttled(error):
                raise
            pause(error, attempts - 1, source.retry)
        else:
            return


def _rows(
    part: Record, source: TableSource, licenses: Collection[str] | None, max_bytes: int
) -> Iterator[Record]:
    """The listed files of a part as rows of `LISTED`."""
    judged = (
        (entry, refusal(entry, source.wanted, licenses, max_bytes))
        for entry in itertools.islice(_entries(part, source), part["take"])
    )
    if source.fetch is not None:
        for entry, reason in judged:
            lacking = (entry["problem"] or "no_blob") if entry["blob"] is None else None
            yield _row(entry, part, source, reason or lacking)
        return
    # No content is read of a part of which nothing is wanted.
    wanted = any(reason is None for _, reason in judged)
    entries = _entries(part, source, content=wanted)
    for entry in itertools.islice(entries, part["take"]):
        reason = refusal(entry, source.wanted, licenses, max_bytes)
        row = _row(entry, part, source, reason)
        yield row if reason is not None else with_content(row, entry, max_bytes, licenses)


def _row(entry: Record, part: Record, source: TableSource, reason: str | None) -> Record:
    row_id = content_id(source.kind, part["dataset"], entry["place"])
    return {
        "row_id": row_id,
        "place_id": row_id,
        "source": source.kind,
        "repository": entry["repository"],
        "revision": entry["revision"],
        "path": entry["path"] or entry["place"],
        "licenses": entry["licenses"],
        "dataset": part["dataset"],
        "blob_id": entry["blob"],
        "bytes": entry["length"],
        "encoding": entry["encoding"],
        "content": None,
        "file_id": None,
        "drop_reason": reason,
    }


def _broken(part: Record, source: TableSource) -> Record:
    """The one row of a part that cannot be read, or not to its end."""
    log.warning("a part of the source cannot be read: %s", part["problem"])
    empty = dict.fromkeys(vars(source.columns)) | {"licenses": []}
    place = f"{part['place'] or part['path']}:{part['group']}"
    return _row({**empty, "place": place}, part, source, "broken_part")
