from __future__ import annotations

import pyarrow as pa

from selfalign_ray.selection.marks import with_marks

GONE = pa.schema([("key", pa.string()), ("of", pa.string()), ("drop_reason", pa.string())])


def rows(*found: tuple[str | None, int | None, str | None]) -> pa.Table:
    columns = {"seed_id": pa.string(), "sample_index": pa.int32(), "drop_reason": pa.string()}
    dicts = [dict(zip(columns, one, strict=True)) for one in found]
    return pa.Table.from_pylist(dicts, schema=pa.schema(columns))


def gone(*found: tuple[str, str, str | None]) -> pa.Table:
    dicts = [dict(zip(GONE.names, one, strict=True)) for one in found]
    return pa.Table.from_pylist(dicts, schema=GONE)


def said(table: pa.Table) -> list[tuple[str | None, str | None]]:
    return [(row["of"], row["drop_reason"]) for row in table.to_pylist()]


def test_all_rows_of_a_seed_are_marked_but_for_those_dropped_before() -> None:
    block = pa.concat_tables(
        [rows(("a", 0, None), ("b", 0, None)), rows(("a", 1, "old"), ("a", 2, None))]
    )
    found = with_marks(block, gone(("a", "x", "new")), ["seed_id"])
    assert said(found) == [("x", "new"), (None, None), (None, "old"), ("x", "new")]


def test_what_is_said_need_not_be_a_reason_to_go() -> None:
    found = with_marks(rows(("a", 0, None)), gone(("a", "x", None)), ["seed_id"])
    assert said(found) == [("x", None)]


def test_one_row_of_a_seed_is_found_by_two_columns() -> None:
    block = rows(("a", 0, None), ("a", 1, None), ("a", None, None), (None, 1, None))
    found = with_marks(block, gone(("a/1", "x", "new")), ["seed_id", "sample_index"])
    assert said(found) == [(None, None), ("x", "new"), (None, None), (None, None)]


def test_where_nothing_goes_the_columns_are_there() -> None:
    assert said(with_marks(rows(("a", 0, None)), gone(), ["seed_id"])) == [(None, None)]
    found = with_marks(rows(), gone(("a", "x", "new")), ["seed_id"])
    assert found.num_rows == 0
    assert set(found.column_names) == {"seed_id", "sample_index", "of", "drop_reason"}
