"""What of a stage is done, and whether all of it is there once: read off the ids in its shards.

There is no other record of what is done: the rows that a stage which was ended has in its shards
are not done again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from numpy.typing import NDArray
from ray.data import Dataset

from selfalign_ray.blocks import by_block
from selfalign_ray.keys import KEY, ROW_ID, Keys, among, keys_of, repeated
from selfalign_ray.places import Place, batches_at, dataset_at, parquet, shards_of
from selfalign_ray.shards import sound_shards, take_out

log = logging.getLogger(__name__)

# In a seed's file, the place names the file, and `functions` says how many rows it has.
PLACE_ID, SHARE = "place_id", "functions"
_NAMED = 3  # rows that a message names


def kept_keys(folder: Place) -> Keys:
    """The keys of the rows that a saved stage kept, sorted."""
    return _sorted_keys(_columns(folder, [ROW_ID], kept=True))


@dataclass(frozen=True)
class Done:
    """What the shards of a stage say is done."""

    keys: Keys  # sorted; of rows, or of files whose rows are all there
    rows: int

    def skipped(self, rows: Dataset, column: str = ROW_ID) -> Dataset:
        """The rows that are not done."""
        if not len(self.keys):
            return rows
        return by_block(rows, partial(_left, column=column, done=ray.put(self.keys)))


def nothing_done() -> Done:
    return Done(np.empty(0, KEY), 0)


def _left(block: pa.Table, *, column: str, done: Any) -> pa.Table:
    if not block.num_rows:
        return block
    found = among(keys_of(block[column].to_pylist()), ray.get(done))
    return block.filter(pa.array(~found))


def done_rows(folder: Place, stage: str, coming: Keys) -> Done:
    """The rows of a stage that are done; what no longer comes in, or is there again, is taken out.

    A write that is done again has the same name, unless a lost block was made anew for it while
    the run was asked to end: that block has fewer rows.

    Args:
        folder: of the shards.
        stage: its name, for messages.
        coming: keys of the rows that come in, sorted.
    """
    shards = sound_shards(folder)
    keys = _sorted_keys(_columns(folder, [ROW_ID]))
    if len(keys) and not among(keys, coming).all():
        number = _take_rows(shards, stage, lambda ids: ~among(keys_of(ids), coming), ROW_ID)
        log.warning("%s: %d rows that no longer come in are taken out", stage, number)
        keys = _sorted_keys(_columns(folder, [ROW_ID]))
    if len(twice := repeated(keys)):
        number = _take_again(shards, stage, twice)
        log.warning("%s: %d rows that are there again are taken out", stage, number)
        keys = _sorted_keys(_columns(folder, [ROW_ID]))
    return Done(keys, len(keys))


def done_files(folder: Place, stage: str) -> Done:
    """The files all of whose rows are done; the rows of others are taken out."""
    shards = sound_shards(folder)
    whole, half = _files(folder)
    if len(half):
        _take_rows(shards, stage, lambda ids: among(keys_of(ids), half), PLACE_ID)
    return Done(whole, dataset_at(folder).count_rows(cache_metadata=False) if shards else 0)


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
            f"the rows of the stage {stage} in {folder}: {'; '.join(problems)}. The "
            "same command takes out what is too much and does what is missing"
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
            f"twice ({_ids(folder, half, PLACE_ID)}); the same command does them again"
        )


class RowsError(Exception):
    """Rows were lost or doubled: a mistake of this package, or of somebody in its folders."""


def _files(folder: Place) -> tuple[Keys, Keys]:
    """The keys of files with all their rows, each once, and those of others; both sorted."""
    parts = [(np.empty(0, KEY), np.empty(0, KEY), np.empty(0, np.int32))]
    for batch in _columns(folder, [PLACE_ID, ROW_ID, SHARE]):
        share = batch[SHARE] if SHARE in batch.schema.names else pa.nulls(batch.num_rows)
        share = pc.fill_null(share.cast(pa.int32()), 1)  # a row that stands for its file
        ids = (batch[name].to_pylist() for name in (PLACE_ID, ROW_ID))
        parts.append((*map(keys_of, ids), share.to_numpy(zero_copy_only=False)))
    files, rows, shares = (np.concatenate(column) for column in zip(*parts, strict=True))
    if not len(files):
        return files, files
    order = np.lexsort((rows, files))
    files, rows, shares = files[order], rows[order], shares[order]
    is_file = np.append([True], files[1:] != files[:-1])  # whether a row is the first of its file
    is_row = is_file | np.append([True], rows[1:] != rows[:-1])
    first = np.flatnonzero(is_file)
    number = np.diff(np.append(first, len(files)))
    expected = np.maximum.reduceat(shares, first)
    whole = (number == expected) & (np.add.reduceat(is_row, first, dtype=np.int64) == expected)
    files = files[first]
    return files[whole], files[~whole]


def _take_again(shards: Iterable[Place], stage: str, twice: Keys) -> int:
    """Of rows that are there again, leaves those of one shard; of two in one shard, none."""
    number, seen = 0, np.empty(0, KEY)
    for path in shards:
        keys = _sorted_keys(parquet(path).iter_batches(columns=[ROW_ID]))
        go = np.union1d(seen, repeated(keys))
        if among(keys, go).any():
            number += _take_rows([path], stage, partial(_are_among, keys=go), ROW_ID)
        seen = np.union1d(seen, keys[among(keys, twice) & ~among(keys, go)])
    return number


def _are_among(ids: list[str], keys: Keys) -> NDArray[np.bool_]:
    return among(keys_of(ids), keys)


def _take_rows(
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
    chosen = pc.field("drop_reason").is_null() if kept else None
    yield from batches_at(folder, columns, chosen)


def _sorted_keys(batches: Iterable[pa.RecordBatch]) -> Keys:
    found = [keys_of(batch[ROW_ID].to_pylist()) for batch in batches]
    return np.sort(np.concatenate([np.empty(0, KEY), *found]))


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
