"""cache.py: stages go from run to run whole, and what is withdrawn does not come along."""

from __future__ import annotations

import contextlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from upath import UPath

from selfalign_ray import schemas
from selfalign_ray.cache import Cache, entries, entry_of
from selfalign_ray.places import (
    exists,
    folders_in,
    local_dir,
    parquet,
    remove,
    shards_of,
    shown,
    stored,
)
from selfalign_ray.shards import write_shard
from selfalign_ray.stage import (
    FORMAT,
    SPENT,
    Saved,
    count_by_reason,
    read_manifest,
    read_record,
    write_record,
)
from selfalign_ray.withdraw import main
from selfalign_ray.withdrawn import Withdrawn

NOTHING = Withdrawn(frozenset())


def made(run_dir, *ids, whole="m1", fingerprint="f", cache=None):
    """A stage by hand; `whole` is its manifest's id, None leaves it as a run that was ended."""
    saved = Saved(run_dir, "sample")
    record = {"format": FORMAT, "stage": "sample", "stages": ["sample"], "above": None}
    record |= {"fingerprint": fingerprint, "source": "s", "cache": str(cache) if cache else None}
    saved.begin(record, anew=True)
    for i in ids:
        row = {"row_id": i, "repository": f"repo-{i}", "source": "folder", "path": "p"}
        write_shard(saved.rows, pa.Table.from_pylist([row], schema=schemas.SEED))
    if whole:
        saved.finish(record | {"id": whole, "rows": count_by_reason(saved.rows)})
    return saved


def ids_in(folder):
    return sorted(
        i for p in shards_of(folder / "rows") for i in parquet(p).read()["row_id"].to_pylist()
    )


@pytest.fixture(params=["here", "store"])
def home(request, tmp_path, store):
    """The folder of the run_dirs: theirs, or what stands here for one in a store."""
    return tmp_path / "runs" if request.param == "here" else Path(local_dir("s3://runs/r"))


@pytest.fixture
def cache(home):
    def of(run):
        (home / run).mkdir(exist_ok=True, parents=True)
        return Cache(stored(home) / "cache", home / run)

    return of


def test_a_whole_stage_goes_to_another_run(home, cache):
    saved = made(home / "one", "a", "b")
    spent = {"seconds": 5.0, "figures": {"engine": {"gpu_seconds": 4.0}}}
    write_record(saved.folder / SPENT, spent)
    cache("one").publish(saved)
    other = Saved(home / "two", "sample")
    assert cache("two").take(other, entry_of(saved), NOTHING) is not None
    assert read_record(other.folder / SPENT) == spent
    assert other.manifest() == saved.manifest()
    assert ids_in(other.folder) == ["a", "b"]


@pytest.mark.parametrize("home", ["here"], indirect=True)
def test_on_a_file_system_no_row_is_copied(home, cache):
    saved, other = made(home / "one", "a", "b"), Saved(home / "two", "sample")
    cache("one").publish(saved)
    cache("two").take(other, entry_of(saved), NOTHING)
    for path, twin in zip(shards_of(saved.rows), shards_of(other.rows), strict=True):
        assert path.samefile(twin)


@pytest.mark.parametrize("home", ["store"], indirect=True)
def test_in_a_store_what_is_being_put_is_no_whole_stage_and_is_let_alone(home, cache, store):
    cache("one").publish(made(home / "one", "a", "b", whole="m1"))
    (entry,) = folders_in(stored(home) / "cache")
    half = entry.with_name(entry.name[:-1] + "x")  # of a run that has not come to its manifest
    for name in ("begun.json", f"rows/{shards_of(entry / 'rows')[0].name}"):
        (half / name).write_bytes((entry / name).read_bytes())
    cache("two").publish(made(home / "two", "a", "b", whole="m2"))
    assert not exists(entry)
    assert len(shards_of(half / "rows")) == 1
    other = Saved(home / "three", "sample")
    cache("three").take(other, "sample-f-s", NOTHING)
    assert other.manifest()["id"] == "m2"
    assert ids_in(other.folder) == ["a", "b"]


def test_another_run_finds_nothing_of_other_settings_or_rows(home, cache):
    cache("one").publish(made(home / "one", "a"))
    for entry in ("sample-g-s", "sample-f-t", "unique-f-s"):
        assert cache("two").take(Saved(home / "two", "sample"), entry, NOTHING) is None


def test_the_newest_of_the_same_rows_stays(home, cache):
    cache("one").publish(made(home / "one", "a", whole="m1"))
    cache("two").publish(made(home / "two", "a", whole="m2"))
    (entry,) = entries(stored(home) / "cache")
    assert read_manifest(entry)["id"] == "m2"


def test_a_stage_finalized_early_is_not_shared(home, cache):
    saved = made(home / "one", "a")
    saved.finish(saved.manifest() | {"partial": True})
    cache("one").publish(saved)
    assert list(entries(stored(home) / "cache")) == []


def test_runs_may_publish_at_once(home, cache):
    saved = [made(home / f"r{n}", *"abcd", whole=f"m{n}") for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: cache(f"r{n}").publish(saved[n]), range(4)))
    found = list(entries(stored(home) / "cache"))
    assert found == folders_in(stored(home) / "cache")
    for entry in found:
        assert ids_in(entry) == list("abcd")
        assert read_manifest(entry) is not None
    assert len(found) == 1 or isinstance(found[0], UPath)


def test_what_is_withdrawn_does_not_come_back(home, cache):
    saved = made(home / "one", "a", "b")
    cache("one").publish(saved)
    other = Saved(home / "two", "sample")
    cache("two").take(other, entry_of(saved), Withdrawn(frozenset({("repository", "repo-a")})))
    assert ids_in(other.folder) == ["b"]
    assert other.manifest()["rows"] == {"kept": 1}
    assert ids_in(saved.folder) == ["a", "b"]


def test_without_a_list_no_shard_is_searched(home, cache, monkeypatch):
    saved = made(home / "one", "a", "b")
    cache("one").publish(saved)
    monkeypatch.setattr("selfalign_ray.cache.take_out", lambda *_, **__: pytest.fail("searched"))
    other = Saved(home / "two", "sample")
    cache("two").take(other, entry_of(saved), NOTHING)
    assert ids_in(other.folder) == ["a", "b"]


def test_withdrawal_from_a_run_reaches_the_cache_and_no_other_run(home, cache, tmp_path):
    saved = made(home / "one", "a", "b", cache=stored(home) / "cache")
    cache("one").publish(saved)
    cache("two").take(Saved(home / "two", "sample"), entry_of(saved), NOTHING)
    (tmp_path / "list").write_text("repo-a\n")
    assert main([shown(home / "one"), str(tmp_path / "list")]) == 0
    (entry,) = entries(stored(home) / "cache")
    assert ids_in(entry) == ids_in(saved.folder) == ["b"]
    assert read_manifest(entry)["rows"] == {"kept": 1}
    assert ids_in(Saved(home / "two", "sample").folder) == ["a", "b"]


@pytest.mark.parametrize("whole", ["m1", None])
@pytest.mark.parametrize("shared", [True, False])
def test_what_other_settings_replace_comes_back(home, cache, whole, shared):
    run_dir = home / "one"
    run_dir.mkdir(parents=True)
    places = cache("one") if shared else Cache(None, run_dir)
    saved = made(run_dir, "a", "b", whole=whole)
    entry = entry_of(saved)
    place = places.put_away(saved)
    assert not exists(saved.folder)
    assert place.parent == (stored(home) / "cache" if shared else stored(run_dir) / "replaced")
    assert places.take(saved, entry, NOTHING) == place
    assert ids_in(saved.folder) == ["a", "b"]
    assert (saved.manifest() or {}).get("id") == whole


def test_a_stage_whose_removal_is_ended_is_not_whole(home, cache, monkeypatch):
    saved = made(home / "one", "a", "b")
    entry, places = entry_of(saved), cache("one")
    places.publish(saved)

    def ended(path, **_):
        first = next(iter(shards_of(path / "rows")), None)
        if first is None:
            path.unlink(missing_ok=True)
            return
        remove(first)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
        patched.setattr(shutil, "rmtree", ended)
        patched.setattr("selfalign_ray.cache.remove", ended)
        places.put_away(saved)
    assert saved.manifest() is None
    assert saved.begun() is None
    other = Saved(home / "two", "sample")
    assert cache("two").take(other, entry, NOTHING) is not None
    assert ids_in(other.folder) == ["a", "b"]


@pytest.mark.parametrize("withdrawn", [frozenset(), frozenset({("row_id", "a")})])
def test_a_stage_that_has_lost_rows_is_not_taken(home, cache, caplog, withdrawn):
    saved = made(home / "one", "a", "b", "c")
    cache("one").publish(saved)
    (place,) = entries(stored(home) / "cache")
    lost = next(
        p for p in shards_of(place / "rows") if parquet(p).read()["row_id"][0].as_py() == "b"
    )
    remove(lost)
    other = Saved(home / "two", "sample")
    assert cache("two").take(other, entry_of(saved), Withdrawn(withdrawn)) is None
    assert not exists(other.folder)
    assert "1 of its rows are not there" in caplog.text


def test_a_stage_of_which_the_cache_has_lost_rows_is_put_there_again(home, cache):
    saved = made(home / "one", "a", "b")
    cache("one").publish(saved)
    (place,) = entries(stored(home) / "cache")
    remove(shards_of(place / "rows")[0])
    place = cache("one").put_away(saved)
    assert ids_in(place) == ["a", "b"]


@pytest.fixture(params=["refused", "closed", "format", "shard"])
def unreadable(request, home, cache, monkeypatch):
    """The entry of a stage in the cache, which another user or version has put there."""
    cache("other").publish(made(home / "other", "a", "b", whole="m0"))
    (place,) = entries(stored(home) / "cache")
    if request.param == "format":
        write_record(place / "begun.json", {"format": 99})
    elif request.param == "shard":
        shards_of(place / "rows")[0].write_bytes(b"PAR1PAR1PAR1")
    else:
        # As root may read everything, the refusal is made here: of the files, or of the folder.
        names = ("read_text",) if request.param == "refused" else ("read_text", "is_dir", "iterdir")
        for name in names:
            refuse(monkeypatch, type(place), name, place)
    return place


def refuse(monkeypatch, kind, name, place):
    real = getattr(kind, name)

    def refusing(path, *args, **kwargs):
        if path != place and str(path).startswith(str(place)):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(kind, name, refusing)


def test_an_entry_that_cannot_be_read_counts_for_nothing_and_is_named(
    home, cache, unreadable, caplog
):
    other = Saved(home / "one", "sample")
    assert cache("one").take(other, "sample-f-s", NOTHING) is None
    assert not exists(other.folder)
    assert str(unreadable) in caplog.text
    assert "another name" not in caplog.text


def test_an_entry_that_cannot_be_read_stops_no_run_that_has_done_the_stage(home, cache, unreadable):
    saved = made(home / "one", "a", "b")
    cache("one").publish(saved)
    place = cache("one").put_away(saved)
    assert not exists(saved.folder)
    assert exists(place)


def test_half_stages_of_two_runs_are_both_kept(home, cache):
    one, two = made(home / "one", "a", whole=None), made(home / "two", "b", whole=None)
    cache("one").put_away(one)
    place = cache("two").put_away(two)
    assert place.is_relative_to(stored(home / "two"))
    assert ids_in(place) == ["b"]
    (entry,) = entries(stored(home) / "cache")
    assert ids_in(entry) == ["a"]


def test_a_cache_that_cannot_be_written_stops_no_run(tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    saved = made(tmp_path / "one", "a")
    Cache(tmp_path / "cache", tmp_path / "one").publish(saved)
    assert "stages.cache: cannot put sample" in caplog.text
