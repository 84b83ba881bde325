"""places.py: the same verbs for folders and for a store, and a store's refusals in words."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from upath import UPath

from selfalign_ray.done import kept_keys
from selfalign_ray.errors import UserError
from selfalign_ray.keys import keys_of
from selfalign_ray.places import (
    cache_root,
    copy,
    exists,
    fault_of,
    folders_in,
    hasty,
    local_dir,
    place_of,
    remove,
    replacing,
    shards_of,
    shown,
    stored,
)
from selfalign_ray.shards import sound_shards, take_out, write_shard
from selfalign_ray.stage import count_by_reason
from tests.object_store import SECRET
from tests.test_shards import table


@pytest.fixture(params=["here", "store"])
def root(request, tmp_path, store):
    return tmp_path / "root" if request.param == "here" else place_of("s3://runs/root")


@pytest.mark.parametrize(
    "text", ["s3://", "s3://b//r", "s3://b/../r", "ftp://b/r", "file:///r", "s3a://b/r"]
)
def test_what_is_no_place_is_refused(text):
    with pytest.raises(UserError, match="is no place for rows"):
        place_of(text)


def test_what_speaks_to_a_store_may_be_missing(monkeypatch):
    monkeypatch.setattr(UPath, "fs", property(lambda path: __import__("no_such_client")))
    with pytest.raises(UserError, match=r"gs://b/r: .*no_such_client.*pip install .*\[gs\]"):
        place_of("gs://b/r")


def test_a_folder_stands_for_a_place_in_a_store_and_tells_which(store):
    folder = Path(local_dir("s3://bucket/some/runs/")) / "first"
    assert folder.is_relative_to(cache_root())
    assert str(stored(folder)) == shown(folder) == "s3://bucket/some/runs/first"
    assert str(stored(folder / "plan") / "stages") == "s3://bucket/some/runs/first/plan/stages"


def test_a_folder_stands_for_itself(tmp_path):
    assert local_dir("runs") == "runs"
    assert stored(tmp_path) == tmp_path


def test_a_path_carries_no_secret_to_other_processes(store):
    path = place_of("s3://runs/root")
    path.joinpath("x").write_bytes(b"")
    for one in (path, hasty(path), path.fs):
        data = pickle.dumps(one)
        assert SECRET.encode() not in data
        assert store.url.encode() not in data


def test_files_and_folders_are_found_copied_and_removed(root):
    assert not exists(root)
    assert shards_of(root) == []
    assert folders_in(root) == []
    one = root / "one"
    if isinstance(root, Path):
        one.mkdir(parents=True)
    path = write_shard(one, table("a"))
    (one / "other.json").write_text("{}")
    assert shards_of(one) == [path]
    assert [found.name for found in folders_in(root)] == ["one"]
    assert exists(root)
    copy(path, one / "two.parquet")
    assert shards_of(one) == sorted([path, one / "two.parquet"])
    remove(path)
    remove(path)
    assert shards_of(one) == [one / "two.parquet"]
    remove(one)
    assert not exists(one)


def test_memory_does_not_grow_with_the_number_of_shards(tmp_path):
    names = [f"column_{n}" for n in range(100)]
    pq.write_table(pa.table({name: ["text"] for name in names}), tmp_path / "0000.parquet")
    read = """
import resource, sys
from pathlib import Path
from selfalign_ray.places import batches_at
rows = lambda: sum(b.num_rows for b in batches_at(Path(sys.argv[1]), ["column_0"]))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
assert rows() == 1
before = peak()
for n in range(1, 1000):
    (Path(sys.argv[1]) / f"{n:04}.parquet").hardlink_to(Path(sys.argv[1]) / "0000.parquet")
assert rows() == 1000
print(peak() - before)
"""
    ended = subprocess.run(
        [sys.executable, "-c", read, tmp_path], capture_output=True, text=True, check=True
    )
    assert int(ended.stdout) < 40, "MB; 149 where Arrow keeps the footer of each"


def test_copies_go_from_folder_to_store_and_back(tmp_path, store):
    (tmp_path / "x").write_bytes(b"x")
    copy(tmp_path / "x", place_of("s3://runs/x"))
    copy(place_of("s3://runs/x"), tmp_path / "new" / "y")
    assert (tmp_path / "new" / "y").read_bytes() == b"x"
    with pytest.raises(FileNotFoundError):
        copy(place_of("s3://runs/z"), place_of("s3://runs/y"))


def test_shards_in_a_store_are_sound_or_deleted(store, caplog):
    folder = place_of("s3://runs/rows")
    whole, broken = write_shard(folder, table("a", "b")), write_shard(folder, table("c"))
    broken.write_bytes(broken.read_bytes()[:40])
    assert sound_shards(folder) == [whole]
    assert shards_of(folder) == [whole]
    assert str(broken) in caplog.text
    assert take_out(whole, lambda rows: pc.equal(rows["row_id"], "a"), ["row_id"]) == 1
    assert kept_keys(folder).tolist() == keys_of(["b"]).tolist()
    assert count_by_reason(folder) == {"kept": 1}


def test_a_shard_that_cannot_be_made_leaves_nothing_in_a_store(store):
    bad = table("a").append_column("x", pa.array([None], pa.month_day_nano_interval()))
    with pytest.raises(pa.ArrowException):
        write_shard(place_of("s3://runs/rows"), bad)
    assert store.names() == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE])
def test_a_folder_that_cannot_be_listed_is_never_an_empty_one(tmp_path, monkeypatch, number):
    write_shard(tmp_path, table("a"))

    def failing(path):
        raise OSError(number, os.strerror(number), str(path))

    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, failing)
    with pytest.raises(OSError, match=os.strerror(number)):
        shards_of(tmp_path)


def test_what_is_no_folder_has_no_shards(tmp_path):
    (tmp_path / "file").write_text("")
    assert shards_of(tmp_path / "none") == shards_of(tmp_path / "file") == []


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "AccessDenied"])
def test_refused_credentials_are_named_and_never_an_empty_folder(store, code):
    path = place_of("s3://runs/root")
    write_shard(path, table("a"))
    store.refuse = lambda method, path: (403, code)
    for action in (exists, shards_of, sound_shards, count_by_reason, lambda p: p.write_bytes(b"")):
        with pytest.raises(OSError) as error:  # noqa: PT011
            action(path)
        said = fault_of([RuntimeError("a task failed"), error.value], path)
        assert said.startswith(f"s3://runs/root: access is refused ({code}.); give the nodes")
        assert SECRET not in said


def test_a_bucket_that_is_not_there_is_named(store):
    path = place_of("s3://nosuch/root")
    with pytest.raises(FileNotFoundError) as error:
        path.write_bytes(b"")
    assert "s3://nosuch/root: there is no such bucket; make it" in fault_of([error.value], path)


def test_a_store_that_does_not_answer_is_named_within_seconds(store, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    clients = type(place_of("s3://runs/x").fs)
    clients.clear_instance_cache()
    path = hasty(place_of("s3://runs/root"))
    with pytest.raises(Exception, match="Could not connect") as error:
        exists(path)
    assert "cannot be reached" in fault_of([error.value], path)
    clients.clear_instance_cache()


def test_an_overload_that_passes_is_waited_for(store):
    path, left = place_of("s3://runs/x"), [3]

    def refuse(method, path):
        left[0] -= 1
        return (503, "SlowDown") if left[0] >= 0 else None

    store.refuse = refuse
    path.write_bytes(b"x")
    assert store.read("x") == b"x"


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), FileNotFoundError(2, "No such file", "/x"), KeyError("bucket")]
)
def test_other_errors_are_none_of_the_store(store, error):
    assert fault_of([error], place_of("s3://runs/root")) is None
    assert fault_of([PermissionError("Forbidden")], Path("/runs")) is None


def test_a_file_is_replaced_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_of_a_file_that_could_not_be_written_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b"old")

    def fill() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fill()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_have_a_part_each(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    with replacing(path, "1") as one, replacing(path, "2") as two:
        one.write(b"one")
        two.write(b"two")
    assert path.read_bytes() == b"one", "who ends last"
    assert list(tmp_path.iterdir()) == [path]
