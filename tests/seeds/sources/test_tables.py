"""tables: real schemas, filters before content, places as ids, all that can be broken."""

from __future__ import annotations

import datetime as dt
import gzip
import http.server
import json
import threading
from collections import Counter
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from selfalign_ray import schemas
from selfalign_ray.errors import UserError
from selfalign_ray.seeds.read import read
from selfalign_ray.seeds.sources import jsonl, storage, tables
from selfalign_ray.seeds.sources.tables import LISTED, load, parts

ALLOWED = ["MIT", "Apache-2.0"]
QUICK = ["source.limit=null", "source.retry.attempts=2", "source.retry.seconds=0.01"]


@pytest.fixture
def source_of(run_config, tmp_path):
    def make(kind, *overrides, path=tmp_path / "data"):
        return run_config(f"source={kind}", f"source.path='{path}'", *QUICK, *overrides).source

    return make


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "data"
    made.mkdir()
    return made


def rows_of(source, *, run_seed=1, licenses=ALLOWED, max_bytes=1000, rows=3):
    found = []
    for part in parts(source, run_seed):
        for table in load(
            part,
            source=source,
            run_seed=run_seed,
            licenses=licenses,
            max_bytes=max_bytes,
            rows=rows,
        ):
            assert table.schema == (schemas.FILE if source.fetch is None else LISTED)
            assert 0 < table.num_rows <= rows
            found += table.to_pylist()
    assert len({row["row_id"] for row in found}) == len(found)
    return found


def reasons(rows):
    return Counter(row["drop_reason"] for row in rows)


def v1_row(**changes):
    return {
        "hexsha": "c0ffee",
        "size": 6,
        "ext": "py",
        "lang": "Python",
        "max_stars_repo_path": "pkg/a.py",
        "max_stars_repo_name": "owner/name",
        "max_stars_repo_head_hexsha": "abc",
        "max_stars_repo_licenses": ["MIT"],
        "max_stars_count": 3,
        "content": "x = 1\r\n",
        "avg_line_length": 5.0,
        **changes,
    }


def test_the_stack_v1(folder, source_of):
    table = [
        v1_row(),
        v1_row(lang="C", content="int x;"),
        v1_row(max_stars_repo_licenses=["MIT", "GPL-3.0"]),
        v1_row(max_stars_repo_licenses=["LicenseRef-scancode-unknown"]),
        v1_row(max_stars_repo_licenses=[]),
        v1_row(max_stars_repo_licenses=None),
        v1_row(content=None),
        v1_row(content=" \n"),
        v1_row(content="a\0b"),
        v1_row(content="x" * 2000),
        v1_row(size=2000),
        v1_row(max_stars_repo_path="pkg/a.txt"),
        v1_row(max_stars_repo_path=None, max_stars_repo_name=None, max_stars_count=None),
        v1_row(content="# SPDX-License-Identifier: GPL-2.0-only\n"),
        v1_row(content="# Licensed under the Other License.\n"),
    ]
    pq.write_table(pa.Table.from_pylist(table), folder / "a.parquet", row_group_size=5)
    named = ["source.dataset=bigcode/the-stack-dedup", "source.revision=v1.2"]
    rows = rows_of(source_of("stack_v1", *named))
    assert reasons(rows) == {
        None: 2,
        "license_not_allowed": 3,
        "license_unknown": 3,
        "no_content": 1,
        "empty": 1,
        "binary": 1,
        "too_large": 2,
    }
    first = next(row for row in rows if row["content"] and row["repository"])
    assert first["content"] == "x = 1\n"
    assert (first["repository"], first["revision"], first["path"], first["licenses"]) == (
        "owner/name",
        "abc",
        "pkg/a.py",
        ["MIT"],
    )
    assert (first["blob_id"], first["dataset"], first["bytes"]) == (
        "c0ffee",
        "bigcode/the-stack-dedup@v1.2",
        7,
    )
    nameless = next(row for row in rows if row["repository"] is None)
    assert nameless["path"] == "a.parquet:2:2:0"


def v2_row(unit, **changes):
    now = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    return {
        "blob_id": "b1",
        "directory_id": "d",
        "path": "/pkg/a.py",
        "content_id": "c",
        "detected_licenses": ["MIT"],
        "license_type": "permissive",
        "repo_name": "owner/name",
        "snapshot_id": "s",
        "revision_id": "r1",
        "branch_name": "refs/heads/main",
        "visit_date": now,
        "github_id": None,
        "star_events_count": 5,
        "gha_license_id": None,
        "src_encoding": "UTF-8",
        "language": "Python",
        "is_vendor": False,
        "is_generated": False,
        "length_bytes": 10,
        "extension": "py",
        **changes,
    }


def v2_schema(unit):
    schema = pa.Table.from_pylist([v2_row(unit, github_id=1, gha_license_id="mit")]).schema
    place = schema.get_field_index("visit_date")
    return schema.set(place, pa.field("visit_date", pa.timestamp(unit)))


@pytest.mark.parametrize("unit", ["ns", "us"])
def test_pointers_of_the_stack_v2_are_judged_before_anything_is_fetched(folder, source_of, unit):
    table = [
        v2_row(unit),
        v2_row(unit, license_type="no_license", detected_licenses=[]),
        v2_row(unit, is_vendor=True),
        v2_row(unit, is_generated=True),
        v2_row(unit, length_bytes=10**9),
        v2_row(unit, length_bytes=1),
        v2_row(unit, star_events_count=1),
        v2_row(unit, blob_id=None),
        v2_row(unit, language="C"),
        v2_row(unit, language=None),
        v2_row(unit, is_vendor=None, is_generated=None, length_bytes=None, star_events_count=None),
    ]
    pq.write_table(pa.Table.from_pylist(table, v2_schema(unit)), folder / "a.parquet")
    source = source_of("stack_v2", "source.wanted.min_bytes=2", "source.wanted.min_stars=2")
    rows = rows_of(source)
    assert reasons(rows) == {
        None: 2,
        "license_not_allowed": 1,
        "vendored": 1,
        "generated": 1,
        "too_large": 1,
        "too_small": 1,
        "few_stars": 1,
        "no_blob": 1,
    }
    assert {row["content"] for row in rows} == {None}
    assert rows[0]["encoding"] == "UTF-8"
    assert rows[0]["blob_id"] == "b1"


def test_the_nested_tables_of_the_stack_v2(folder, source_of):
    row = v2_row("us")
    of_repository = ("repo_name", "revision_id", "star_events_count", "visit_date", "github_id")
    file = {key: value for key, value in row.items() if key not in of_repository}
    repository = {key: row[key] for key in of_repository}
    table = [
        {**repository, "files": [file, {**file, "blob_id": "b2", "language": "C"}], "num_files": 2},
        {**repository, "files": [{**file, "blob_id": "b3", "is_vendor": True}], "num_files": 1},
        {**repository, "files": [], "num_files": 0},
        {**repository, "files": None, "num_files": None},
    ]
    pq.write_table(pa.Table.from_pylist(table), folder / "a.parquet")
    rows = [row for row in rows_of(source_of("stack_v2")) if row["blob_id"]]
    assert [(row["blob_id"], row["drop_reason"]) for row in rows] == [
        ("b1", None),
        ("b3", "vendored"),
    ]
    assert {(row["repository"], row["revision"]) for row in rows} == {("owner/name", "r1")}


def v3_row(name, *files, stars=3):
    return {
        "repo_path": name,
        "repo_id": 1,
        "commit_id": f"commit of {name}",
        "github_metadata": {"branch": "main", "commit_count": 1, "stars": stars, "forks": 0},
        "num_files": len(files),
        "files": list(files),
    }


def v3_file(path="a.py", **changes):
    return {
        "content_id": f"id of {path}",
        "content": "x = 1\n",
        "path": path,
        "language": "Python",
        "license_type": "permissive",
        "detected_licenses": ["MIT"],
        **changes,
    }


def test_the_stack_v3(folder, source_of):
    table = [
        v3_row("o/a", v3_file(), v3_file("b.py", content="y = 2\n"), v3_file("c.c", language="C")),
        v3_row("o/b", v3_file(license_type="no_license", detected_licenses=[])),
        v3_row("o/c", v3_file(content=None), stars=None),
        v3_row("o/d", v3_file(), stars=1),
    ]
    pq.write_table(pa.Table.from_pylist(table), folder / "a.parquet", row_group_size=2)
    rows = rows_of(source_of("stack_v3", "source.wanted.min_stars=2"))
    assert reasons(rows) == {None: 2, "license_not_allowed": 1, "no_content": 1, "few_stars": 1}
    kept = [row for row in rows if row["drop_reason"] is None]
    assert [(row["path"], row["content"], row["blob_id"]) for row in kept] == [
        ("a.py", "x = 1\n", "id of a.py"),
        ("b.py", "y = 2\n", "id of b.py"),
    ]
    assert {(row["repository"], row["revision"]) for row in kept} == {("o/a", "commit of o/a")}


def test_content_is_not_read_of_a_group_of_which_nothing_is_wanted(folder, source_of, monkeypatch):
    table = [v1_row(max_stars_repo_licenses=["GPL-3.0"]), v1_row()]
    pq.write_table(pa.Table.from_pylist(table), folder / "a.parquet", row_group_size=1)
    read_columns = []
    whole = pq.ParquetFile.iter_batches

    def spy(self, size, groups, columns, **more):
        read_columns.append((groups, "content" in columns))
        return whole(self, size, groups, columns, **more)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    rows_of(source_of("stack_v1"))
    assert ([0], True) not in read_columns
    assert ([1], True) in read_columns


def test_groups_of_other_languages_are_no_parts(folder, source_of):
    table = [v1_row(lang="C"), v1_row(lang="Java"), v1_row()]
    pq.write_table(pa.Table.from_pylist(table), folder / "a.parquet", row_group_size=1)
    assert [part["group"][0].as_py() for part in parts(source_of("stack_v1"), 1)] == [2]


@pytest.fixture
def shards(folder):
    for shard in range(6):
        table = [v1_row(content=f"x = {shard}{row}\n") for row in range(10)]
        pq.write_table(pa.Table.from_pylist(table), folder / f"{shard}.parquet", row_group_size=4)
    return folder


def test_order_and_ids_follow_from_place_and_seed_alone(shards, source_of, tmp_path):
    named = ["stack_v1", "source.dataset=o/n"]

    def ids(run_seed, *overrides, **more):
        rows = rows_of(source_of(*named, *overrides), run_seed=run_seed, **more)
        return [row["row_id"] for row in rows]

    first = ids(1)
    assert len(first) == 60
    assert ids(1, rows=50) == first
    assert ids(2) != first
    assert sorted(ids(2)) == sorted(first)
    for limit in (1, 7, 25, 60, 100):
        assert ids(1, f"source.limit={limit}") == first[:limit]
    shards.rename(tmp_path / "moved")
    moved = source_of(*named, path=tmp_path / "moved")
    assert [row["row_id"] for row in rows_of(moved)] == first


def test_footers_that_workers_read_change_no_row(shards, source_of, monkeypatch):
    (shards / "2.parquet").write_bytes(b"PAR1")
    (shards / "4.parquet").write_bytes((shards / "4.parquet").read_bytes()[:-40])
    source = source_of("stack_v1")
    eager = rows_of(source)
    monkeypatch.setattr(tables, "_THREADS", 1)  # files whose footers the driver reads at once
    for most, left in ((100, 5), (2, 3)):
        monkeypatch.setattr(tables, "_TABLES", most)
        late = [part for part in parts(source, 1) if part["group"][0].as_py() is None]
        assert sum(part.num_rows for part in late) >= left - 1
        assert len(late) <= most
        assert rows_of(source) == eager


@pytest.mark.parametrize("glob", ["data/*.parquet", "**/*.parquet", "data/[0-9].parquet", "data"])
def test_globs_and_folders(shards, source_of, tmp_path, glob):
    assert len(rows_of(source_of("stack_v1", path=tmp_path / glob))) == 60


def test_one_file_and_a_url(shards, source_of):
    assert len(rows_of(source_of("stack_v1", path=shards / "3.parquet"))) == 10
    assert len(rows_of(source_of("stack_v1", path=f"file://{shards}/*.parquet"))) == 60


def test_any_file_system_of_fsspec(shards, source_of):
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in shards.iterdir():
        memory.pipe_file(f"/bucket/{path.name}", path.read_bytes())
    assert len(rows_of(source_of("stack_v1", path="memory://bucket/*.parquet"))) == 60


def test_a_broken_part_is_a_row_and_the_others_are_read(shards, source_of, caplog):
    half = (shards / "2.parquet").read_bytes()
    (shards / "2.parquet").write_bytes(half[: len(half) // 2])
    (shards / "4.parquet").write_bytes(b"")
    source = source_of("stack_v1")
    rows = rows_of(source)
    assert reasons(rows) == {None: 40, "broken_part": 2}
    broken = [row["path"] for row in rows if row["drop_reason"] == "broken_part"]
    assert sorted(broken) == ["2.parquet:0", "4.parquet:0"]
    assert "2.parquet" in caplog.text
    limited = rows_of(source_of("stack_v1", "source.limit=40"))
    assert reasons(limited)[None] == 40


def test_a_file_broken_in_the_middle_gives_what_it_has(folder, source_of):
    table = [v1_row(content=f"x = {row}  # {'é' * 50}\n") for row in range(200)]
    path = folder / "a.parquet"
    pq.write_table(pa.Table.from_pylist(table), path, row_group_size=100, compression="zstd")
    data = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(1).column(9)
    assert column.path_in_schema == "content"
    begin = column.dictionary_page_offset or column.data_page_offset
    data[begin + 30 : begin + 60] = b"\xff" * 30
    path.write_bytes(data)
    counted = reasons(rows_of(source_of("stack_v1"), rows=1000))
    assert counted["broken_part"] == 1
    assert counted[None] >= 100


def test_only_broken_parts_stop_the_run_with_the_reason(folder, source_of):
    (folder / "a.parquet").write_bytes(b"PAR1 no parquet PAR1")
    with pytest.raises(UserError, match=r"source\.path: no part of .*a\.parquet: "):
        rows_of(source_of("stack_v1"))


def test_a_missing_column_is_told_with_those_that_there_are(folder, source_of):
    pq.write_table(pa.table({"text": ["x"], "lang": ["Python"]}), folder / "a.parquet")
    with pytest.raises(UserError, match=r"no column 'content' \(source\.columns\).*lang, text"):
        rows_of(source_of("stack_v1"))


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("nowhere", "no such file or folder"),
        ("data/*.nothing", "no file fits"),
        ("data", "no file"),
        ("nothing://x", "Protocol not known"),
    ],
)
def test_a_place_that_is_none(folder, source_of, tmp_path, path, told):
    place = path if "://" in path else tmp_path / path
    with pytest.raises(UserError, match=rf"source\.path: .*{told}"):
        rows_of(source_of("files", path=place))


def test_jsonl(folder, source_of):
    lines = [
        {"content": "x = 1\n", "repository": "o/n", "path": "a.py", "licenses": "MIT"},
        {"content": "x = 1\n", "licenses": ["MIT"]},
        {"content": "\ud800", "licenses": ["MIT"]},
        {"content": ["no", "text"], "licenses": ["MIT"]},
        {"licenses": ["MIT"]},
        {"content": "x = 1\n", "licenses": {"MIT": 1}, "path": 3},
    ]
    text = "\n".join([*map(json.dumps, lines), "", '{"content": ', "[1]", "NaN", "[" * 100_000])
    expected = {
        None: 2,
        "bad_encoding": 1,
        "no_content": 2,
        "license_unknown": 1,
        "bad_json": 4,
    }
    (folder / "a.jsonl").write_text(text)
    assert reasons(rows_of(source_of("files"))) == expected
    for name, codec in (("b.jsonl.gz", "gzip"), ("c.jsonl.zst", "zstd")):
        with pa.CompressedOutputStream(str(folder / name), codec) as file:
            file.write(text.encode())
    rows = rows_of(source_of("files"))
    assert reasons(rows) == {reason: 3 * number for reason, number in expected.items()}


def test_a_truncated_gzip_gives_the_lines_before(folder, source_of):
    lines = b"".join(b'{"content": "x = %d", "licenses": ["MIT"]}\n' % n for n in range(20_000))
    data = gzip.compress(lines)
    (folder / "a.jsonl.gz").write_bytes(data[: len(data) // 2])
    whole = reasons(rows_of(source_of("files"), rows=5000))
    assert whole["broken_part"] == 1
    assert 1000 < whole[None] < 19_000
    assert reasons(rows_of(source_of("files", "source.limit=20000"), rows=5000)) == whole
    assert reasons(rows_of(source_of("files", "source.limit=500"))) == {None: 500}


@settings(deadline=None)
@given(
    st.lists(st.binary(max_size=12).map(lambda x: x.replace(b"\n", b"")), max_size=30),
    st.integers(1, 40),
)
@example([b"{}", b" "], 5)
def test_each_line_belongs_to_one_stretch(lines, stretch):
    import tempfile

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(jsonl, "_STRETCH", stretch)
        patch.setattr(jsonl, "_CHUNK", 7)
        path = Path(folder) / "a.jsonl"
        data = b"\n".join(lines)
        path.write_bytes(data)
        system = pa.fs.LocalFileSystem()
        found = [
            offset
            for group in jsonl.groups(system, str(path), len(data), None)
            for offset, _ in jsonl.records(system, str(path), group, None, [])
        ]
    expected, offset = [], 0
    for line in lines:
        if line.strip():
            expected.append(offset)
        offset += len(line) + 1
    assert found == expected


def test_a_very_long_line_is_passed_over(folder, source_of, monkeypatch):
    monkeypatch.setattr(jsonl, "_MAX_LINE", 1000)
    monkeypatch.setattr(jsonl, "_CHUNK", 100)
    good = '{"content": "x = 1", "licenses": ["MIT"]}'
    (folder / "a.jsonl").write_text("\n".join([good, "x" * 5000, good, "x" * 5000]))
    assert reasons(rows_of(source_of("files"))) == {None: 2, "too_large": 2}


@pytest.fixture
def web_server():
    """A server of two JSONL files that first answers each place as often as told with a status."""
    body = "".join(f'{{"content": "x = {n}", "licenses": ["MIT"]}}\n' for n in range(3)).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        statuses: ClassVar[dict[str, list[int]]] = {}

        def do_GET(self):
            if waiting := type(self).statuses.get(self.path.rstrip("/")):
                self.send_response(waiting.pop(0))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            links = b'<a href="a.jsonl">a</a> <a href="b.jsonl">b</a> <a href="a.txt">t</a>'
            data = body if self.path.endswith(".jsonl") else links
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args):
            pass

    storage._system.cache_clear()  # it remembers what it listed
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        # Its end waits for the next look whether it is to end, by default every half a second.
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield Handler.statuses, f"http://127.0.0.1:{server.server_address[1]}/code"
        server.shutdown()


def test_no_row_names_the_password_in_a_source_s_address(source_of, web_server):
    _, url = web_server
    given = url.replace("://", "://me:hunter2hunter2@")
    rows = rows_of(source_of("files", path=f"{given}/*.jsonl"))
    assert {row["dataset"] for row in rows} == {f"{url}/*.jsonl"}
    assert not any("hunter2" in str(row) for row in rows)


@pytest.mark.parametrize("status", [429, 503])
def test_a_listing_that_is_refused_is_asked_for_again(source_of, web_server, caplog, status):
    statuses, url = web_server
    statuses["/code"] = [status]
    assert reasons(rows_of(source_of("files", path=f"{url}/*.jsonl"))) == {None: 6}
    assert "slow down" in caplog.text


@pytest.mark.parametrize(
    ("path", "statuses", "told"),
    [
        ("*.jsonl", {"/code": [429] * 99}, "cannot list http.*429"),
        ("*.jsonl", {"/code": [404] * 99}, "(cannot list|no file fits) http"),
        ("c.jsonl", {"/code/c.jsonl": [404] * 99}, "cannot list http.*no such file"),
    ],
)
def test_a_listing_that_cannot_be_had(source_of, web_server, path, statuses, told):
    known, url = web_server
    known.update(statuses)
    with pytest.raises(UserError, match=rf"source\.path: {told}"):
        rows_of(source_of("files", path=f"{url}/{path}"))


@pytest.mark.parametrize("limit", ["null", 6])
def test_a_part_that_is_refused_is_read_once_it_is_not(source_of, web_server, caplog, limit):
    statuses, url = web_server
    source = source_of("files", f"source.limit={limit}", path=f"{url}/*.jsonl")
    listed = list(parts(source, 1))
    statuses["/code/b.jsonl"] = [429, 429]  # of its head, and then of itself
    rows = [
        row
        for part in listed
        for table in load(part, source=source, run_seed=1, licenses=ALLOWED, max_bytes=1000, rows=3)
        for row in table.to_pylist()
    ]
    assert reasons(rows) == {None: 6}
    assert len({row["row_id"] for row in rows}) == 6
    assert "slow down" in caplog.text


@pytest.mark.parametrize("status", [404, 500, 503])
def test_a_part_that_cannot_be_had_is_a_row_and_the_others_are_read(
    source_of, web_server, caplog, status
):
    statuses, url = web_server
    statuses["/code/b.jsonl"] = [status] * 99
    found = reasons(rows_of(source_of("files", path=f"{url}/*.jsonl")))
    assert found == {None: 3, "broken_part": 1}
    assert f"b.jsonl: {status}" in caplog.text


def test_a_store_whose_package_is_not_installed_is_named(source_of):
    with pytest.raises(UserError, match=r"source\.path: cannot open abfs://.*adlfs"):
        rows_of(source_of("files", path="abfs://container/*.jsonl"))


def test_a_hub_is_read_at_its_commit(source_of, monkeypatch):
    from types import SimpleNamespace

    from huggingface_hub import HfApi, HfFileSystem

    place = SimpleNamespace(
        repo_id="o/n", repo_type="dataset", revision="main", path_in_repo="data/*.parquet"
    )
    monkeypatch.setattr(HfFileSystem, "resolve_path", lambda self, path: place)
    monkeypatch.setattr(HfApi, "repo_info", lambda self, *a, **k: SimpleNamespace(sha="f00d"))
    source = source_of("stack_v1", path="hf://datasets/o/n/data/*.parquet")
    opened = storage.open_storage(source)
    assert (opened.path, opened.revision) == ("datasets/o/n@f00d/data/*.parquet", "f00d")


@pytest.mark.parametrize("kind", ["stack_v1", "stack_v2", "stack_v3"])
def test_a_copy_is_no_data_set_of_the_hub_unless_it_is_called_so(run_config, kind):
    owner = "HuggingFaceCode" if kind == "stack_v3" else "bigcode"
    assert tables.dataset_of(run_config(f"source={kind}").source).startswith(f"{owner}/")
    copy = [f"source={kind}", "source.path=/data/copy/*.parquet"]
    assert tables.dataset_of(run_config(*copy).source) == "/data/copy/*.parquet"
    assert tables.dataset_of(run_config(*copy, "source.dataset=o/n").source) == "o/n"
    other = "source.path=hf://datasets/bigcode/the-stack-v2@main/data/Python/*.parquet"
    assert tables.dataset_of(run_config(f"source={kind}", other).source) == "bigcode/the-stack-v2"


def test_settings_that_contradict(run_config):
    with pytest.raises(UserError, match=r"source\.columns\.content: must be given"):
        run_config("source=files", "source.path=x", "source.columns.content=null")
    with pytest.raises(UserError, match=r"source\.wanted\.languages: needs columns\.language"):
        run_config("source=files", "source.path=x", "source.wanted.languages=[Python]")
    with pytest.raises(UserError, match=r"source\.fetch\.url: must hold \{blob\}"):
        run_config("source=stack_v2", "source.fetch.url='s3://x'")


@pytest.mark.ray
def test_tables_are_read_by_workers(ray_local, run_config, shards):
    (shards / "2.parquet").write_bytes(b"PAR1")
    cfg = run_config("source=stack_v1", f"source.path='{shards}'", *QUICK)
    rows = read(None, cfg).take_all()
    assert reasons(rows) == {None: 50, "broken_part": 1}
    assert sorted(r["row_id"] for r in rows) == sorted(
        r["row_id"] for r in rows_of(cfg.source, run_seed=cfg.run_seed)
    )
