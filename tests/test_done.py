"""done.py: what is in a stage's shards is done once, and what is amiss is named."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from selfalign_ray.done import RowsError, check_files, check_rows, done_files, done_rows
from selfalign_ray.keys import among, keys_of
from selfalign_ray.shards import write_shard
from tests.test_shards import ids_in, table


def functions(*rows):
    """Rows of (file, index, functions of the file); index None: the row stands for the file."""
    return pa.Table.from_pylist(
        [
            {"place_id": file, "row_id": f"{file}/{index}", "functions": share}
            for file, index, share in rows
        ],
        pa.schema([("place_id", "string"), ("row_id", "string"), ("functions", "int32")]),
    )


def coming(*ids):
    return np.sort(keys_of(ids))


def test_done_are_the_rows_in_shards_and_unknown_ones_are_taken_out(tmp_path, caplog):
    write_shard(tmp_path, table("a", "gone"))
    write_shard(tmp_path, table("b"))
    done = done_rows(tmp_path, "metrics", coming("a", "b", "c"))
    assert done.rows == 2
    assert among(keys_of(["a", "b", "c", "gone"]), done.keys).tolist() == [True, True, False, False]
    assert ids_in(tmp_path) == ["a", "b"]
    assert "metrics: 1 rows that no longer come in" in caplog.text


def test_rows_that_are_there_twice_stay_once(tmp_path, caplog):
    write_shard(tmp_path, table("a", "b", "c"), "000000")
    write_shard(tmp_path, table("b", "d"), "000000")
    write_shard(tmp_path, table("b", "c", "c"), "000001")
    ids = coming(*"abcde")
    done = done_rows(tmp_path, "responses", ids)
    assert done.rows == 4
    assert among(coming(*"abcde"), done.keys).sum() == 4
    assert ids_in(tmp_path) == list("abcd")
    assert "responses: 4 rows that are there again are taken out" in caplog.text
    write_shard(tmp_path, table("e"))
    check_rows(tmp_path, "responses", ids, None)


def test_a_row_that_is_twice_in_its_only_shard_is_done_again(tmp_path):
    write_shard(tmp_path, table("a", "b", "b"))
    done = done_rows(tmp_path, "responses", coming("a", "b"))
    assert done.rows == 1
    assert among(keys_of(["a", "b"]), done.keys).tolist() == [True, False]
    assert ids_in(tmp_path) == ["a"]


def test_nothing_is_done_without_a_shard(tmp_path):
    assert done_rows(tmp_path / "none", "metrics", coming("a")).rows == 0
    assert done_files(tmp_path / "none", "quality").rows == 0


def test_a_file_is_done_when_all_its_functions_are(tmp_path):
    write_shard(tmp_path, functions(("whole", 0, 2), ("half", 0, 3), ("none", None, None)))
    write_shard(tmp_path, functions(("whole", 1, 2), ("half", 1, 3)))
    done = done_files(tmp_path, "quality")
    asked = keys_of(["whole", "half", "none", "other"])
    assert among(asked, done.keys).tolist() == [True, False, True, False]
    assert ids_in(tmp_path) == ["none/None", "whole/0", "whole/1"]
    assert done.rows == 3


def test_a_function_that_is_there_twice_does_not_stand_for_another(tmp_path):
    write_shard(tmp_path, functions(("f", 0, 2)), "0")
    write_shard(tmp_path, functions(("f", 0, 2)), "1")
    with pytest.raises(RowsError, match=r"1 files lack some or have some twice \(f\); the same"):
        check_files(tmp_path, "quality")
    assert done_files(tmp_path, "quality").rows == 0


def test_lost_doubled_and_foreign_rows_are_named(tmp_path):
    above = tmp_path / "above"
    for folder in (above, tmp_path / "rows"):
        folder.mkdir()
    write_shard(above, table("a", "b", "c"))
    write_shard(tmp_path / "rows", table("a", "foreign"))
    write_shard(tmp_path / "rows", table("a"))
    keys = coming("a", "b", "c")
    with pytest.raises(RowsError) as error:
        check_rows(tmp_path / "rows", "metrics", keys, above)
    for said in ("1 are there twice (a)", "1 did not come in (foreign)", "2 are missing (b, c)"):
        assert said in str(error.value)
    assert "The same command takes out what is too much and does what is missing" in str(
        error.value
    )
    check_rows(above, "metrics", keys, None)
    assert done_rows(tmp_path / "rows", "metrics", keys).rows == 1
    write_shard(tmp_path / "rows", table("b", "c"))
    check_rows(tmp_path / "rows", "metrics", keys, above)
