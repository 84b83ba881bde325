"""Blocks of rows: the same work on each of a Dataset's, and columns filled in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:  # Ray takes a second to import, which modules with settings do without
    from ray.data import Dataset


def by_block(
    ds: Dataset,
    work: Callable[[pa.Table], pa.Table | Iterator[pa.Table]],
    *,
    concurrency: int | None = None,
) -> Dataset:
    """What `work` makes of each block, whole and as a table.

    Args:
        ds: any rows.
        work: given a block, a block or several.
        concurrency: tasks at a time, at most; None: as CPUs allow.
    """
    return ds.map_batches(work, batch_size=None, batch_format="pyarrow", concurrency=concurrency)


def with_columns(block: pa.Table, schema: pa.Schema, **values: Sequence[Any]) -> pa.Table:
    """The block with these columns, typed as in the schema, new or in place of those it has."""
    for name, found in values.items():
        field, place = schema.field(name), block.schema.get_field_index(name)
        column = pa.array(found, field.type)
        if place < 0:
            block = block.append_column(field, column)
        else:
            block = block.set_column(place, field, column)
    return block
