"""read: order and every reason for which a file is dropped."""

from __future__ import annotations

import os
from collections import Counter
from types import SimpleNamespace

import pyarrow as pa
import pytest

from selfalign_ray import schemas
from selfalign_ray.errors import UserError
from selfalign_ray.ids import content_id
from selfalign_ray.seeds import read as module
from selfalign_ray.seeds.read import listed_blocks, listed_table, load, read, read_bytes
from selfalign_ray.seeds.sources.listing import ListedFile
from tests.seeds.known_licenses import MIT


def listed(path="a.py", location=b"/nowhere", offer=(("MIT",),)) -> ListedFile:
    return ListedFile("repository", "1.0", path, location, offer)


def test_read_bytes(tmp_path):
    place = tmp_path / "a.py"
    place.write_bytes(b"12345")
    location = os.fsencode(place)
    assert read_bytes(location, 5) == (5, b"12345", None)
    assert read_bytes(location, 4) == (5, None, "too_large")
    assert read_bytes(location + b"x", 5) == (None, None, "unreadable")
    assert read_bytes(os.fsencode(tmp_path), 5) == (None, None, "unreadable")
    assert read_bytes(b"a\0b", 5) == (None, None, "unreadable")


def test_a_pipe_or_device_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.py")
    assert read_bytes(os.fsencode(tmp_path / "pipe.py"), 5) == (None, None, "unreadable")
    assert read_bytes(b"/dev/zero", 5) == (None, None, "unreadable")


def test_a_huge_file_is_not_loaded(tmp_path):
    with (tmp_path / "huge.py").open("wb") as file:
        file.truncate(1 << 40)  # sparse
    assert read_bytes(os.fsencode(tmp_path / "huge.py"), 10**6) == (1 << 40, None, "too_large")


def order(files, run_seed, monkeypatch, limit=None, size=3):
    monkeypatch.setattr(module, "listed_files", lambda _source: files)
    source = SimpleNamespace(limit=limit, kind="folder")
    blocks = list(listed_blocks(source, run_seed, None, size))
    assert all(0 < block.num_rows <= size for block in blocks)
    return [path for block in blocks for path in block["path"].to_pylist()]


def test_order_follows_from_run_seed_and_path_alone(monkeypatch):
    files = [listed(f"{name}.py") for name in "abcdefgh"]
    first = order(files, 1, monkeypatch)
    assert sorted(first) == [file.path for file in files]
    assert order(files[::-1], 1, monkeypatch, size=5) == first
    assert order(files, 2, monkeypatch) != first
    assert order(files[:5], 1, monkeypatch) == [p for p in first if p < "f"]
    for limit in range(1, 10):
        assert order(files, 1, monkeypatch, limit=limit) == first[:limit]


def test_a_long_list_is_ordered_window_by_window(monkeypatch):
    monkeypatch.setattr(module, "_WINDOW", 4)
    files = [listed(f"{name}.py") for name in "abcdefghij"]
    found = order(files, 1, monkeypatch)
    assert [sorted(found[start : start + 4]) for start in (0, 4, 8)] == [
        [f.path for f in files[start : start + 4]] for start in (0, 4, 8)
    ]
    assert order(files, 1, monkeypatch, limit=3) == order(files[::-1], 1, monkeypatch, limit=3)


def test_licences_are_judged_before_content_is_read():
    files = [listed(offer=(("MIT",),)), listed(offer=(("GPL-3.0-only",),)), listed(offer=())]
    table = listed_table(files, "folder", ["MIT"])
    assert table["drop_reason"].to_pylist() == [None, "license_not_allowed", "license_unknown"]
    # Nothing lies at the files' location, and only the first is looked for.
    rows = load(table, max_bytes=9, licenses=None)
    assert rows["drop_reason"].to_pylist() == [
        "unreadable",
        "license_not_allowed",
        "license_unknown",
    ]
    assert rows["licenses"].to_pylist() == [["MIT"], ["GPL-3.0-only"], []]


def test_rows(tmp_path):
    (tmp_path / "a.py").write_bytes(b"x = 1\r\n")
    files = [listed(location=os.fsencode(tmp_path / "a.py"))]
    table = load(listed_table(files, "folder", None), max_bytes=99, licenses=None)
    assert table.schema == schemas.FILE
    file_id = content_id(b"x = 1\r\n")
    assert table.to_pylist() == [
        {
            "row_id": content_id("folder", "repository", "1.0", "a.py", file_id),
            "place_id": content_id("place", "folder", "repository", "a.py", files[0].location),
            "source": "folder",
            "repository": "repository",
            "revision": "1.0",
            "path": "a.py",
            "licenses": ["MIT"],
            "file_id": file_id,
            "dataset": None,
            "blob_id": None,
            "bytes": 7,
            "content": "x = 1\n",
            "drop_reason": None,
        }
    ]


def test_an_empty_block():
    assert load(listed_table([], "folder", None), max_bytes=9, licenses=None).schema == schemas.FILE


@pytest.fixture
def bad_folder(tmp_path):
    """One file for each reason, and two good ones."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "LICENSE").write_text(MIT)
    contents = {
        "good.py": b"x = 1\n",
        "latin.py": "# coding: latin-1\nx = 'é'\n".encode("latin-1"),
        "encoding.py": b"x = '\xff'\n",
        "binary.py": b"\x7fELF\0\0",
        "empty.py": b"\n",
        "large.py": b"x = 1\n" * 1000,
        "copied.py": b"# SPDX-License-Identifier: GPL-3.0-only\n",
        "other.py": b"# Licensed under the Other License.\n",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe.py")
    (folder / "other").mkdir()
    (folder / "other/LICENSE").write_text("All rights reserved.")
    (folder / "other/closed.py").write_text("x = 1\n")
    return folder


@pytest.mark.ray
def test_bad_files_are_counted(ray_local, run_config, bad_folder):
    cfg = run_config(
        "source=folder",
        f"source.path='{bad_folder}'",
        "source.limit=null",
        "seeds.read.max_bytes=1000",
        "seeds.read.files_per_block=2",
    )
    rows = read(None, cfg).take_all()
    assert Counter(row["drop_reason"] for row in rows) == {
        None: 2,
        "bad_encoding": 1,
        "binary": 1,
        "empty": 1,
        "too_large": 1,
        "unreadable": 1,
        "license_unknown": 2,
        "license_not_allowed": 1,
    }
    assert all((row["content"] is None) == (row["drop_reason"] is not None) for row in rows)
    assert len({row["row_id"] for row in rows}) == len(rows)
    assert {row["source"] for row in rows} == {"folder"}


@pytest.mark.ray
def test_two_runs_read_the_same(ray_local, run_config):
    overrides = ["source=installed", "source.packages=[hydra-core,omegaconf]", "source.limit=30"]

    def row_ids(*more):
        rows = read(None, run_config(*overrides, *more)).take_all()
        return sorted(row["row_id"] for row in rows)

    first = row_ids()
    assert len(first) == 30
    assert row_ids("seeds.read.files_per_block=3") == first
    assert row_ids("run_seed=7") != first
    assert set(first) < set(row_ids("source.limit=60"))


def test_an_empty_folder(run_config, tmp_path):
    cfg = run_config("source=folder", f"source.path='{tmp_path}'")
    with pytest.raises(UserError, match=r"source\.path: no file below .* source\.include"):
        read(None, cfg)


def test_no_installed_package(run_config):
    cfg = run_config("source=installed", "source.exclude=['*']")
    with pytest.raises(UserError, match=r"source: no \.py file .* source\.exclude"):
        read(None, cfg)


def test_licences_of_every_row_are_allowed_or_a_reason(run_config):
    cfg = run_config("source=installed", "source.limit=null")
    from selfalign_ray.seeds.sources import installed

    allowed = cfg.seeds.read.licenses
    table = listed_table(installed.files(cfg.source), "installed", allowed)
    kept = table.filter(pa.compute.is_null(table["drop_reason"]))
    assert kept.num_rows > 1000
    for licenses in kept["licenses"].to_pylist():
        assert licenses
        assert {name.split(" WITH ")[0] for name in licenses} <= set(allowed)
