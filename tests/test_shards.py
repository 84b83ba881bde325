"""shards.py: a shard is there whole or not at all, and has the name of its rows."""

from __future__ import annotations

import errno
import os

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from selfalign_ray import shards
from selfalign_ray.errors import UserError
from selfalign_ray.places import parquet, shards_of
from selfalign_ray.shards import sound_shards, take_out, write_shard


def table(*ids):
    rows = [{"row_id": i, "drop_reason": None} for i in ids]
    return pa.Table.from_pylist(rows, pa.schema([("row_id", "string"), ("drop_reason", "string")]))


def ids_in(folder):
    return sorted(
        row["row_id"] for path in shards_of(folder) for row in parquet(path).read().to_pylist()
    )


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


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.EACCES])
def test_a_shard_that_cannot_be_read_just_now_stays_and_is_named(tmp_path, monkeypatch, number):
    path = write_shard(tmp_path, table("a"))

    def failing(path):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(shards, "parquet", failing)
    with pytest.raises(UserError, match=f"{path.name}: cannot be read .*the same command goes on"):
        sound_shards(tmp_path)
    assert ids_in(tmp_path) == ["a"]


def test_a_lack_of_memory_says_nothing_of_a_shard(tmp_path, monkeypatch):
    write_shard(tmp_path, table("a"))

    def failing(path):
        raise pa.ArrowMemoryError("malloc of size 64 failed")

    monkeypatch.setattr(shards, "parquet", failing)
    with pytest.raises(MemoryError):
        sound_shards(tmp_path)
    assert ids_in(tmp_path) == ["a"]


def test_a_link_keeps_the_rows_that_are_taken_out(tmp_path):
    path = write_shard(tmp_path, table("a", "b"))
    (tmp_path / "cache").mkdir()
    os.link(path, tmp_path / "cache" / path.name)
    assert take_out(path, lambda rows: pc.equal(rows["row_id"], "a"), ["row_id"]) == 1
    assert take_out(path, lambda rows: pc.equal(rows["row_id"], "a"), ["row_id"]) == 0
    assert ids_in(tmp_path) == ["b"]
    assert ids_in(tmp_path / "cache") == ["a", "b"]
