"""The files that hold a stage's rows: written whole or not at all.

A shard is written beside its place and renamed, or put into a store in one request, so that every
`*.parquet` is whole; a write that is done again has the same name, so that it doubles nothing.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ray.data.block import BlockAccessor
from ray.data.datasource import Datasink

from selfalign_ray.errors import UserError
from selfalign_ray.keys import ROW_ID, keys_of
from selfalign_ray.places import Place, at_once, parquet, remove, replacing, shards_of

log = logging.getLogger(__name__)

_GARBLED = (pa.ArrowInvalid, pa.ArrowNotImplementedError)  # what Parquet says of a broken file
_NAMING = (ROW_ID, "sample_index")  # columns that name a shard's rows


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
    """The whole shards of a folder; what is broken, or was being written, is deleted.

    Raises:
        UserError: a shard cannot be read just now.
    """
    if isinstance(folder, Path):
        for part in folder.glob(".*.part"):
            part.unlink()
    shards = shards_of(folder)
    faults = faults_of(shards)
    for path, fault in faults.items():
        log.warning("%s is broken and is deleted; its rows are done again: %s", path, fault)
        remove(path)
    return [path for path in shards if path not in faults]


def faults_of(shards: Sequence[Place]) -> dict[Place, Exception]:
    """The broken ones of some shards, each with what is wrong with it.

    Raises:
        UserError: a shard cannot be read just now.
    """
    here = all(isinstance(path, Path) for path in shards)
    faults = map(_fault, shards) if here else at_once(_fault, shards)
    return {path: f for path, f in zip(shards, faults, strict=True) if f is not None}


def _fault(path: Place) -> Exception | None:
    """What is wrong with a Parquet file's own description of itself."""
    fault: Exception | None = None
    try:
        parquet(path).close()
    except _GARBLED as error:
        fault = error
    except OSError as error:
        if not isinstance(path, Path):
            raise  # nothing is known of the file
        if error.errno is not None:  # the system's, and not what Parquet says of a file
            raise UserError(
                f"{path}: cannot be read ({error}), so that nobody knows whether it is whole; once "
                "it can be, the same command goes on"
            ) from error
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
    with replacing(path, str(os.getpid())) as file:
        _write_to(file, tables, schema)


def _write_to(file: Any, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    with pq.ParquetWriter(file, schema) as writer:
        for table in tables:
            writer.write_table(table)
