"""blobs: real gzip from an S3-compatible server, with every fault a store and a blob can have."""

from __future__ import annotations

import gzip
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selfalign_ray import schemas
from selfalign_ray.errors import UserError
from selfalign_ray.seeds.read import read
from selfalign_ray.seeds.sources.blobs import Fetcher, Pace
from selfalign_ray.seeds.sources.tables import LISTED
from tests.seeds.s3_server import s3_server, zipped

LONG = "".join(f"x{n} = {random.Random(n).random()}\n" for n in range(300))
BLOBS = {
    **{f"good{n}": zipped(f"x = {n}\n") for n in range(20)},
    "latin": zipped("é = 1\n", "latin-1"),
    "koi8": zipped("ж = 1\n", "koi8-r"),
    "lying": zipped("é = 1\n", "latin-1"),
    "alien": zipped("x = 1\n"),
    "cut": zipped(LONG)[:-900],
    "raw": b"x = 1\n" * 9,
    "spoilt": zipped(LONG)[:40] + b"\xff" * 40 + zipped(LONG)[80:],
    "void": b"",
    "gpl": zipped("# SPDX-License-Identifier: GPL-3.0-only\n"),
    "bomb": gzip.compress(b"x" * 10**8),
    "large": zipped("x = 1\n" * 1000),
    "busy": zipped("x = 1\n"),
    "sick": zipped("x = 1\n"),
}
ENCODINGS = {"latin": "ISO-8859-1", "koi8": "KOI8-R", "alien": "x-martian", "good0": None}
EXPECTED = {
    **dict.fromkeys([f"good{n}" for n in range(20)] + ["latin", "koi8"]),
    "lying": "bad_encoding",
    "alien": "unknown_codec",
    "cut": "blob_truncated",
    "raw": "bad_gzip",
    "spoilt": "bad_gzip",
    "void": "empty",
    "gpl": "license_not_allowed",
    "bomb": "too_large",
    "large": "too_large",
    "busy": "fetch_throttled",
    "sick": "fetch_failed",
    "none": "blob_missing",
    "no/../such key?": "blob_missing",
}


@pytest.fixture(scope="module")
def store():
    with s3_server(BLOBS) as proxy:
        yield proxy


@pytest.fixture
def server(store):
    store.seen.clear()
    store.delay_seconds, store.refuse_share = 0.0, 0.0
    store.statuses = {"/content/busy": 503, "/content/sick": 500}
    return store


@pytest.fixture
def source_of(run_config, server, tmp_path):
    def make(*overrides, fallback="null"):
        return run_config(
            "source=stack_v2",
            f"source.path='{tmp_path}/*.parquet'",
            f"source.fetch.endpoint='{server.url}'",
            f"source.fetch.fallback={fallback}",
            "source.fetch.concurrency=8",
            "source.fetch.timeout_seconds=5",
            "source.retry.seconds=0.01",
            "source.retry.attempts=5",
            "source.limit=null",
            *overrides,
        ).source

    return make


def fetcher(source, max_bytes=5000):
    return Fetcher(source.fetch, source.retry, max_bytes, ["MIT"])


def listed(*blobs, drop_reason=None):
    rows = [
        {
            "row_id": blob,
            "source": "stack_v2",
            "path": "a.py",
            "blob_id": blob,
            "encoding": ENCODINGS.get(blob, "UTF-8"),
            "drop_reason": drop_reason,
        }
        for blob in blobs
    ]
    return pa.Table.from_pylist(rows, schema=LISTED)


def fetched(actor, table):
    (found,) = actor(table)
    assert found.schema == schemas.FILE
    assert found["row_id"].to_pylist() == table["row_id"].to_pylist()
    return found.to_pylist()


def test_no_row_is_lost_and_each_fault_has_its_reason(source_of, server):
    server.refuse_share = 0.2
    rows = fetched(fetcher(source_of()), listed(*EXPECTED))
    assert {row["blob_id"]: row["drop_reason"] for row in rows} == EXPECTED
    contents = {row["blob_id"]: row["content"] for row in rows}
    assert contents["good3"] == "x = 3\n"
    assert contents["latin"] == "é = 1\n"
    assert contents["koi8"] == "ж = 1\n"
    for row in rows:
        assert (row["content"] is None) == (row["drop_reason"] is not None)


def test_what_was_dropped_before_is_not_fetched(source_of, server):
    (row,) = fetched(fetcher(source_of()), listed("good1", drop_reason="vendored"))
    assert (row["drop_reason"], row["content"]) == ("vendored", None)
    assert not server.seen


def test_a_missing_blob_is_asked_for_once_and_a_busy_store_again(source_of, server):
    fetched(fetcher(source_of("source.retry.attempts=3")), listed("none", "busy", "good1"))
    asked = {path.rsplit("/", 1)[-1]: number for path, number in server.seen.items()}
    assert (asked["none"], asked["busy"], asked["good1"]) == (1, 3, 1)


def test_a_fallback_is_asked_where_the_store_refuses(source_of, server):
    server.statuses = {"/softwareheritage/content/": 403}
    fallback = f"'{server.url}/softwareheritage/./content/{{blob}}'"
    with s3_server({"good1": BLOBS["good1"], "good2": BLOBS["good2"]}) as other:
        fallback = f"'{other.url}/softwareheritage/content/{{blob}}'"
        actor = fetcher(source_of(fallback=fallback))
        rows = [fetched(actor, listed(blob))[0] for blob in ("good1", "good2", "none")]
    assert [row["drop_reason"] for row in rows] == [None, None, "blob_missing"]
    assert rows[0]["content"] == "x = 1\n"
    assert sum(server.seen.values()) == 1, "what works is asked first from then on"


@pytest.mark.parametrize("endpoint", ["closed", "denied"])
def test_a_store_that_gives_nothing_stops_the_run(source_of, server, endpoint):
    server.statuses = {"/content/": 403}
    url = server.url if endpoint == "denied" else "http://127.0.0.1:9"
    source = source_of(
        f"source.fetch.endpoint='{url}'",
        "source.fetch.give_up_after=3",
        "source.retry.attempts=1",
    )
    with pytest.raises(UserError, match=r"source\.fetch\.url: none of the first 3 blobs .*s3://"):
        fetched(fetcher(source), listed(*(f"good{n}" for n in range(9))))


def test_some_refusals_do_not_stop_it(source_of, server):
    server.statuses = {"/content/good1": 403}
    source = source_of("source.fetch.give_up_after=2", "source.fetch.concurrency=1")
    rows = fetched(fetcher(source), listed("none", *(f"good{n}" for n in range(20))))
    assert Counter(row["drop_reason"] for row in rows) == {
        None: 9,
        "fetch_denied": 11,
        "blob_missing": 1,
    }


def test_signed_requests_carry_credentials(source_of, server, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    (row,) = fetched(fetcher(source_of("source.fetch.signed=true")), listed("good1"))
    assert row["content"] == "x = 1\n"


def test_the_bucket_of_tokens_holds_the_rate():
    pace = Pace(per_second=100, burst=5)
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: pace.wait(), range(25)))
    assert time.monotonic() - began >= 20 / 100 * 0.99


def test_a_pause_holds_for_all():
    pace = Pace(per_second=None, burst=1)
    pace.pause(0.2)
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: pace.wait(), range(4)))
    assert time.monotonic() - began >= 0.2 * 0.99


@pytest.mark.ray
def test_the_whole_source(ray_local, run_config, source_of, server, tmp_path):
    server.refuse_share = 0.1
    rows = [
        {
            "blob_id": blob,
            "path": f"{blob}.py",
            "detected_licenses": ["MIT"],
            "license_type": "permissive",
            "repo_name": "o/n",
            "revision_id": "r",
            "star_events_count": 1,
            "src_encoding": ENCODINGS.get(blob, "UTF-8"),
            "language": "Python",
            "is_vendor": False,
            "is_generated": blob == "good5",
            "length_bytes": None,
        }
        for blob in EXPECTED
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=10)
    cfg = run_config("source=stack_v2", "seeds.read.max_bytes=5000")
    cfg.source = source_of("source.fetch.files_per_batch=7")
    found = {row["blob_id"]: row for row in read(None, cfg).take_all()}
    expected = {**EXPECTED, "good5": "generated"}
    assert {blob: row["drop_reason"] for blob, row in found.items()} == expected
    assert not any("good5" in path for path in server.seen)
    assert found["good1"]["content"] == "x = 1\n"
    assert found["good1"]["path"] == "good1.py"
