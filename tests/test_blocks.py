"""blocks.py: columns that are filled in."""

from __future__ import annotations

import pyarrow as pa

from selfalign_ray.blocks import with_columns

SCHEMA = pa.schema([("name", pa.string()), ("number", pa.int32()), ("drop_reason", pa.string())])


def test_columns_are_typed_as_in_the_schema_and_the_others_stay_as_they_are() -> None:
    name = pa.field("name", pa.string(), nullable=False)
    block = pa.table([["a", "b"], [None, None]], schema=pa.schema([name, SCHEMA.field(2)]))
    found = with_columns(block, SCHEMA, number=[1, None], drop_reason=[None, None])
    assert found.schema == pa.schema([name, SCHEMA.field(2), SCHEMA.field(1)])
    assert found["number"].to_pylist() == [1, None]


def test_a_block_without_rows_has_the_columns_too() -> None:
    block = pa.schema([("name", pa.string())]).empty_table()
    assert with_columns(block, SCHEMA, number=[]).schema.names == ["name", "number"]
