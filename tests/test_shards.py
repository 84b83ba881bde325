"""shards.py: a shard is there whole or not at all, and what is in it is done once."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray.places import parquet, shards_of
from selfalign_ray.shards import (
    RowsError,
    among,
    check_files,
    check_rows,
    done_files,
    done_rows,
    keys_of,
    repeated,
    sound_shards,
    take_out,
    write_shard,
)


def table(*ids):
    rows = [{"row_id": i, "drop_reason": None} for i in ids]
    return pa.Table.from_pylist(rows, pa.schema([("row_id", "string"), ("drop_reason", "string")]))


def functions(*rows):
    """Rows of (file, index, functions of the file); index None: the row stands for the file."""
    return pa.Table.from_pylist(
        [
            {"place_id": file, "row_id": f"{file}/{index}", "functions": share}
            for file, index, share in rows
        ],
        pa.schema([("place_id", "string"), ("row_id", "string"), ("functions", "int32")]),
    )


def ids_in(folder):
    return sorted(
        row["row_id"] for path in shards_of(folder) for row in parquet(path).read().to_pylist()
    )


def coming(*ids):
    return np.sort(keys_of(ids))


def test_the_same_rows_have_the_same_name_and_other_rows_another(tmp_path):
    one = write_shard(tmp_path, table("a", "b"))
    assert write_shard(tmp_path, table("b", "a")) == one
    assert write_shard(tmp_path, table("a", "c")) != one
    assert write_shard(tmp_path, table("a\nb")) != write_shard(tmp_path, table("a"))
    assert ids_in(tmp_path).count("b") == 1


def test_a_shard_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "rows").mkdir()
    bad = table("a").append_column("x", pa.array([None], pa.month_day_nano_interval()))
    with pytest.raises(pa.ArrowException):
        write_shard(tmp_path / "rows", bad)
    assert list((tmp_path / "rows").iterdir()) == []


@pytest.mark.parametrize("cut", [0, 3, 40, -1])
def test_a_cut_shard_is_deleted_and_named(tmp_path, caplog, cut):
    whole, broken = write_shard(tmp_path, table("a")), write_shard(tmp_path, table("b"))
    broken.write_bytes(broken.read_bytes()[:cut])
    (tmp_path / ".x.parquet.7.part").write_bytes(b"PAR1")
    assert sound_shards(tmp_path) == [whole]
    assert list(tmp_path.iterdir()) == [whole]
    assert str(broken) in caplog.text


@given(st.lists(st.text()), st.lists(st.text()))
@settings(deadline=None)
def test_ids_are_found_among_others_whatever_they_are(ids, others):
    found = among(keys_of(ids), np.sort(keys_of(others)))
    assert found.tolist() == [i in others for i in ids]


@given(st.lists(st.sampled_from("abcd")))
@settings(deadline=None)
def test_what_is_there_more_than_once_is_found(ids):
    twice = {i for i in ids if ids.count(i) > 1}
    assert set(repeated(np.sort(keys_of(ids)))) == set(keys_of(twice))


def test_done_are_the_rows_in_shards_and_unknown_ones_are_taken_out(tmp_path, caplog):
    write_shard(tmp_path, table("a", "gone"))
    write_shard(tmp_path, table("b"))
    done = done_rows(tmp_path, "metrics", coming("a", "b", "c"))
    assert done.rows == 2
    assert among(keys_of(["a", "b", "c", "gone"]), done.keys).tolist() == [True, True, False, False]
    assert ids_in(tmp_path) == ["a", "b"]
    assert "metrics: 1 rows that no longer come in" in caplog.text


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
    with pytest.raises(RowsError, match=r"1 files lack some or have some twice \(f\)"):
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
    check_rows(above, "metrics", keys, None)


def test_a_link_keeps_the_rows_that_are_taken_out(tmp_path):
    path = write_shard(tmp_path, table("a", "b"))
    (tmp_path / "cache").mkdir()
    os.link(path, tmp_path / "cache" / path.name)
    assert take_out(path, lambda rows: pc.equal(rows["row_id"], "a"), ["row_id"]) == 1
    assert take_out(path, lambda rows: pc.equal(rows["row_id"], "a"), ["row_id"]) == 0
    assert ids_in(tmp_path) == ["b"]
    assert ids_in(tmp_path / "cache") == ["a", "b"]
