"""The files that hold a stage's rows: written whole or not at all, and what is done is in them.

There is no other record of what is done. A shard is written beside its place and renamed, or put
into a store in one request, so that every `*.parquet` is whole; a write that is done again has the
same name, so that it doubles nothing; the rows that a stage which was ended has in its shards are
not done again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from numpy.typing import NDArray
from ray.data import Dataset
from ray.data.block import BlockAccessor
from ray.data.datasource import Datasink

from selfalign_ray.places import Place, at_once, dataset_at, parquet, remove, shards_of

log = logging.getLogger(__name__)

# Names a row wherever rows do not become more; in a seed's file, the place names the file.
ROW_ID, PLACE_ID, SHARE = "row_id", "place_id", "functions"
_NAMING = (ROW_ID, "sample_index")  # columns that name a shard's rows
_NAMED = 3  # rows that a message names
_KEY = "S16"  # of a row: half a SHA-256, for ids from elsewhere have any length

Keys = NDArray[np.bytes_]


class ShardSink(Datasink[None]):
    """Ray Data's write: one shard a task."""

    def __init__(self, folder: Place, rows: int) -> None:
        """Prepares the writing of shards.

        Args:
            folder: that they lie in.
            rows: that a shard has at least, but for the last.
        """
        self._folder, self._rows = folder, rows

    @property
    def min_rows_per_write(self) -> int:
        return self._rows

    def write(self, blocks: Iterable[Any], ctx: Any) -> None:
        """Writes the blocks of one task, which Ray may start again with the same blocks."""
        tables = [BlockAccessor.for_block(block).to_arrow() for block in blocks]
        tables = [table for table in tables if table.num_rows]
        if tables:
            write_shard(self._folder, pa.concat_tables(tables), f"{ctx.task_idx:06d}")


def write_shard(folder: Place, table: pa.Table, prefix: str = "") -> Place:
    """Writes a shard whose name follows from the ids in it."""
    digest = hashlib.sha256()
    for name in _NAMING:
        if name in table.column_names:
            digest.update(np.sort(keys_of(map(str, table[name].to_pylist()))).tobytes())
    path = folder / f"{prefix}-{digest.hexdigest()[:16]}.parquet"
    write_table(path, [table], table.schema)
    return path


def sound_shards(folder: Place) -> list[Place]:
    """The whole shards of a folder; what is broken, or was being written, is deleted."""
    if isinstance(folder, Path):
        for part in folder.glob(".*.part"):
            part.unlink()
    shards = shards_of(folder)
    faults = map(_fault, shards) if isinstance(folder, Path) else at_once(_fault, shards)
    found = []
    for path, fault in zip(shards, faults, strict=True):
        if fault is None:
            found.append(path)
        else:
            log.warning("%s is broken and is deleted; its rows are done again: %s", path, fault)
            remove(path)
    return found


def _fault(path: Place) -> Exception | None:
    """What is wrong with a Parquet file's own description of itself."""
    fault: Exception | None = None
    try:
        parquet(path).close()
    except pa.ArrowException as error:
        fault = error
    except OSError as error:
        if not isinstance(path, Path) or isinstance(error, PermissionError):
            raise  # nothing is known of the file
        fault = error
    return fault


def take_out(
    path: Place,
    chosen: Callable[[pa.Table], Any],
    columns: Iterable[str],
    into: Place | None = None,
) -> int:
    """Takes rows out of a Parquet file by a new file, and says how many; none: there is no new one.

    A hard link to the old file keeps the old rows.

    Args:
        path: of the file.
        chosen: a mask of the rows that go, for a table with some columns.
        columns: that it needs; those that the file lacks are not there.
        into: the new file; None: in the old one's place.
    """
    file = parquet(path)
    names = [name for name in columns if name in file.schema_arrow.names]
    number = sum(
        pc.sum(chosen(pa.table(batch))).as_py() or 0 for batch in file.iter_batches(columns=names)
    )
    if number:
        tables = (pa.table(batch) for batch in file.iter_batches())
        left = (table.filter(pc.invert(chosen(table))) for table in tables)
        write_table(into or path, left, file.schema_arrow)
    return number


def write_table(path: Place, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Writes a Parquet file that no reader ever sees half of."""
    if not isinstance(path, Path):
        # In memory: to close a half-written file of fsspec's would be to publish it.
        whole = pa.BufferOutputStream()
        _write_to(whole, tables, schema)
        path.write_bytes(whole.getvalue().to_pybytes())
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            _write_to(file, tables, schema)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _write_to(file: Any, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    with pq.ParquetWriter(file, schema) as writer:
        for table in tables:
            writer.write_table(table)


def keys_of(ids: Iterable[str | None]) -> Keys:
    """A key of a fixed width for each id."""
    digests = (hashlib.sha256((i or "").encode()).digest()[:16] for i in ids)
    return np.frombuffer(b"".join(digests), dtype=_KEY)


def kept_keys(folder: Place) -> Keys:
    """The keys of the rows that a saved stage kept, sorted."""
    return _sorted_keys(_columns(folder, [ROW_ID], kept=True))


def keys_in(rows: Dataset) -> Keys:
    """The keys of a dataset's rows, sorted. Reads it once."""
    keyed = rows.map_batches(_with_keys, batch_format="pyarrow", batch_size=None)
    found = [np.frombuffer(row["keys"], dtype=_KEY) for row in keyed.iter_rows()]
    return np.sort(np.concatenate([np.empty(0, _KEY), *found]))


def _with_keys(block: pa.Table) -> pa.Table:
    return pa.table({"keys": [keys_of(block[ROW_ID].to_pylist()).tobytes()]})


def repeated(keys: Keys) -> Keys:
    """The keys that are there more than once, of sorted ones."""
    return np.unique(keys[1:][keys[1:] == keys[:-1]])


def among(keys: Keys, others: Keys) -> NDArray[np.bool_]:
    """For each key, whether it is one of the others, which are sorted."""
    if not len(others):
        return np.zeros(len(keys), dtype=bool)
    places = np.minimum(np.searchsorted(others, keys), len(others) - 1)
    return np.asarray(others[places] == keys)


@dataclass(frozen=True)
class Done:
    """What the shards of a stage say is done."""

    keys: Keys  # sorted; of rows, or of files whose rows are all there
    rows: int

    def skipped(self, rows: Dataset, column: str = ROW_ID) -> Dataset:
        """The rows that are not done."""
        if not len(self.keys):
            return rows
        skip = partial(_left, column=column, done=ray.put(self.keys))
        return rows.map_batches(skip, batch_format="pyarrow", batch_size=None)


def nothing_done() -> Done:
    return Done(np.empty(0, _KEY), 0)


def _left(block: pa.Table, *, column: str, done: Any) -> pa.Table:
    if not block.num_rows:
        return block
    found = among(keys_of(block[column].to_pylist()), ray.get(done))
    return block.filter(pa.array(~found))


def done_rows(folder: Place, stage: str, coming: Keys) -> Done:
    """The rows of a stage that are done; those that no longer come in are taken out.

    Args:
        folder: of the shards.
        stage: its name, for messages.
        coming: keys of the rows that come in, sorted.
    """
    shards = sound_shards(folder)
    keys = _sorted_keys(_columns(folder, [ROW_ID]))
    if len(keys) and not among(keys, coming).all():
        number = _take_unknown(shards, stage, lambda ids: ~among(keys_of(ids), coming), ROW_ID)
        log.warning("%s: %d rows that no longer come in are taken out", stage, number)
        keys = _sorted_keys(_columns(folder, [ROW_ID]))
    return Done(keys, len(keys))


def done_files(folder: Place, stage: str) -> Done:
    """The files all of whose rows are done; the rows of others are taken out."""
    shards = sound_shards(folder)
    whole, half = _files(folder)
    if len(half):
        _take_unknown(shards, stage, lambda ids: among(keys_of(ids), half), PLACE_ID)
    return Done(whole, dataset_at(folder).count_rows() if shards else 0)


def check_rows(folder: Place, stage: str, coming: Keys, above: Place | None) -> None:
    """That the shards of a stage hold each row that came in, once.

    Args:
        folder: of the shards.
        stage: its name.
        coming: keys of the rows that came in, sorted.
        above: the shards that they came from, to name the missing ones; None: from elsewhere.

    Raises:
        RowsError: else, with the ids.
    """
    keys = _sorted_keys(_columns(folder, [ROW_ID]))
    twice = repeated(keys)
    unknown = keys[~among(keys, coming)]
    missing = coming[~among(coming, keys)]
    problems = []
    if len(twice):
        problems.append(f"{len(twice)} are there twice ({_ids(folder, twice)})")
    if len(unknown):
        problems.append(f"{len(unknown)} did not come in ({_ids(folder, unknown)})")
    if len(missing):
        named = "of start.rows" if above is None else _ids(above, missing)
        problems.append(f"{len(missing)} are missing ({named})")
    if problems:
        raise RowsError(
            f"the rows of the stage {stage} in {folder}: {'; '.join(problems)}. Its shards stay as "
            "they are; without that folder the same command does the stage again"
        )


def check_files(folder: Place, stage: str) -> None:
    """That the shards of a stage hold all rows of each file that they have a row of, once.

    Raises:
        RowsError: else, with the ids.
    """
    _, half = _files(folder)
    if len(half):
        raise RowsError(
            f"the rows of the stage {stage} in {folder}: {len(half)} files lack some or have some "
            f"twice ({_ids(folder, half, PLACE_ID)})"
        )


class RowsError(Exception):
    """Rows were lost or doubled: a mistake of this package, or of somebody in its folders."""


def _files(folder: Place) -> tuple[Keys, Keys]:
    """The keys of files with all their rows, each once, and those of others."""
    seen: list[pa.Table] = []
    for batch in _columns(folder, [PLACE_ID, ROW_ID, SHARE]):
        share = batch[SHARE] if SHARE in batch.schema.names else pa.nulls(batch.num_rows)
        share = pc.fill_null(share.cast(pa.int32()), 1)  # a row that stands for its file
        seen.append(pa.table({"file": batch[PLACE_ID], "row": batch[ROW_ID], "share": share}))
    if not seen:
        return np.empty(0, _KEY), np.empty(0, _KEY)
    grouped = pa.concat_tables(seen).group_by("file")
    counted = grouped.aggregate([("row", "count"), ("row", "count_distinct"), ("share", "max")])
    whole = pc.and_(
        pc.equal(counted["row_count"], counted["share_max"]),
        pc.equal(counted["row_count_distinct"], counted["share_max"]),
    )
    files = counted["file"]
    parts = (files.filter(whole), files.filter(pc.invert(whole)))
    first, second = (np.sort(keys_of(part.to_pylist())) for part in parts)
    return first, second


def _take_unknown(
    shards: Iterable[Place], stage: str, go: Callable[[list[str]], NDArray[np.bool_]], column: str
) -> int:
    number = 0
    for path in shards:
        went = take_out(path, lambda table: pa.array(go(table[column].to_pylist())), [column])
        if went:
            log.info("%s: %d rows are taken out of %s", stage, went, path.name)
        number += went
    return number


def _columns(folder: Place, columns: list[str], *, kept: bool = False) -> Iterator[pa.RecordBatch]:
    if not shards_of(folder):
        return
    rows = dataset_at(folder)
    names = [name for name in columns if name in rows.schema.names]
    chosen = pc.field("drop_reason").is_null() if kept else None
    yield from rows.to_batches(columns=names, filter=chosen, batch_readahead=2)


def _sorted_keys(batches: Iterable[pa.RecordBatch]) -> Keys:
    found = [keys_of(batch[ROW_ID].to_pylist()) for batch in batches]
    return np.sort(np.concatenate([np.empty(0, _KEY), *found]))


def _ids(folder: Place, keys: Keys, column: str = ROW_ID) -> str:
    """Some of the ids that have these keys."""
    found: dict[str, None] = {}
    for batch in _columns(folder, [column]):
        ids = batch[column].to_pylist()
        found.update(dict.fromkeys(np.array(ids, object)[among(keys_of(ids), keys)]))
        if len(found) >= _NAMED:
            break
    more = ", ..." if len(keys) > _NAMED else ""
    return ", ".join(list(found)[:_NAMED]) + more
