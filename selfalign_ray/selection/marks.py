"""What a stage that must see all rows at once does first and last: collect, and mark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset


def collected(ds: Dataset) -> list[pa.Table]:
    """The blocks, here on the driver, that have rows; one without may lack its columns too."""
    return [table for table in ray.get(ds.to_arrow_refs()) if table.num_rows]


def marked(rows: pa.Table, gone: ray.ObjectRef[pa.Table], keys: Sequence[str]) -> pa.Table:
    """`with_marks`, in a task."""
    return with_marks(rows, ray.get(gone), keys)


def key_of(values: Iterable[Any]) -> str:
    """The values joined by a slash; null, as in rows that were made elsewhere, is an empty text."""
    return "/".join("" if value is None else str(value) for value in values)


def with_marks(rows: pa.Table, gone: pa.Table, keys: Sequence[str]) -> pa.Table:
    """A block with what is said of the rows that go.

    Args:
        rows: with `drop_reason`; rows dropped before pass through.
        gone: `key`, then the columns to fill in, `drop_reason` among them.
        keys: the columns whose values, as `key_of` joins them, are the key.
    """
    texts = [pc.coalesce(pc.cast(rows[name], pa.string()), "") for name in keys]
    key = pc.binary_join_element_wise(*texts, "/") if len(texts) > 1 else texts[0]
    alive = pc.is_null(rows["drop_reason"])
    where = pc.if_else(alive, pc.index_in(key, value_set=gone["key"].combine_chunks()), None)
    columns = dict(zip(rows.column_names, rows.columns, strict=True))
    for name in gone.column_names[1:]:
        columns[name] = gone[name].take(where)
    columns["drop_reason"] = pc.coalesce(rows["drop_reason"], columns["drop_reason"])
    return pa.table(columns)
