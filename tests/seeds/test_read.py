"""read: order, decoding and every reason for which a file is dropped."""

from __future__ import annotations

import os
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfalign_ray import schemas
from selfalign_ray.errors import UserError
from selfalign_ray.ids import content_id
from selfalign_ray.seeds.read import decode, listed_table, load, ordered, read, read_bytes
from selfalign_ray.seeds.sources.listing import ListedFile


def listed(path="a.py", location=b"/nowhere", offer=(("MIT",),)) -> ListedFile:
    return ListedFile("repository", "1.0", path, location, offer)


@pytest.mark.parametrize(
    ("data", "text", "reason"),
    [
        (b"x = 1\n", "x = 1\n", None),
        ("é = 1\n".encode(), "é = 1\n", None),
        ("é = 1\n".encode("utf-8-sig"), "é = 1\n", None),
        ("# coding: latin-1\né = 1\n".encode("latin-1"), "# coding: latin-1\né = 1\n", None),
        (b"a\r\nb\rc\n", "a\nb\nc\n", None),
        (b"", None, "empty"),
        (b" \r\n\t", None, "empty"),
        (b"a\0b", None, "binary"),
        ("x = 1".encode("utf-16"), None, "binary"),
        ("é = 1\n".encode("latin-1"), None, "bad_encoding"),
        (b"# coding: nonesuch\nx", None, "bad_encoding"),
        (b"# coding: rot13\nx", None, "bad_encoding"),
        (b"# coding: hex\nx", None, "bad_encoding"),
        (b"# coding: undefined\nx", None, "bad_encoding"),
        (b"# coding: unicode_escape\n\\ud800", None, "bad_encoding"),
        (b"# coding: unicode_escape\n\\0", None, "binary"),
        (b"\xef\xbb\xbf# coding: latin-1\nx", None, "bad_encoding"),
    ],
)
def test_decode(data, text, reason):
    assert decode(data) == (text, reason)


CODECS = ["utf-8", "utf-7", "idna", "punycode", "cp037", "shift_jis", "utf-16", "zlib", "\0"]


@given(st.binary(max_size=200), st.sampled_from(["", *CODECS]) | st.text(max_size=9))
def test_decode_of_any_bytes_is_text_or_a_reason(data, codec):
    head = f"# coding: {codec}\n".encode() if codec else b""
    text, reason = decode(head + data)
    assert (text is None) != (reason is None)
    assert text is None or "\r" not in text
    assert text is None or text.encode()


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


def test_order_follows_from_run_seed_and_path_alone():
    files = [listed(f"{name}.py") for name in "abcdefgh"]
    assert ordered(files, 1) == ordered(reversed(files), 1)
    assert ordered(files, 1) != ordered(files, 2)
    assert ordered(files[:5], 1) == [f for f in ordered(files, 1) if f in files[:5]]


def test_licences_are_judged_before_content_is_read():
    files = [listed(offer=(("MIT",),)), listed(offer=(("GPL-3.0-only",),)), listed(offer=())]
    table = listed_table(files, "folder", ["MIT"])
    assert table["drop_reason"].to_pylist() == [None, "license_not_allowed", "license_unknown"]
    # Nothing lies at the files' location, and only the first is looked for.
    rows = load(table, max_bytes=9)
    assert rows["drop_reason"].to_pylist() == [
        "unreadable",
        "license_not_allowed",
        "license_unknown",
    ]
    assert rows["licenses"].to_pylist() == [["MIT"], ["GPL-3.0-only"], []]


def test_rows(tmp_path):
    (tmp_path / "a.py").write_bytes(b"x = 1\r\n")
    files = [listed(location=os.fsencode(tmp_path / "a.py"))]
    table = load(listed_table(files, "folder", None), max_bytes=99)
    assert table.schema == schemas.FILE
    file_id = content_id(b"x = 1\r\n")
    assert table.to_pylist() == [
        {
            "row_id": content_id("folder", "repository", "1.0", "a.py", file_id),
            "source": "folder",
            "repository": "repository",
            "revision": "1.0",
            "path": "a.py",
            "licenses": ["MIT"],
            "file_id": file_id,
            "bytes": 7,
            "content": "x = 1\n",
            "drop_reason": None,
        }
    ]


def test_an_empty_block():
    assert load(listed_table([], "folder", None), max_bytes=9).schema == schemas.FILE


@pytest.fixture
def bad_folder(tmp_path):
    """One file for each reason, and two good ones."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "LICENSE").write_text(
        "Permission is hereby granted, free of charge, to any person obtaining a copy of this "
        "software ... and this permission notice shall be included"
    )
    contents = {
        "good.py": b"x = 1\n",
        "latin.py": "# coding: latin-1\nx = 'é'\n".encode("latin-1"),
        "encoding.py": b"x = '\xff'\n",
        "binary.py": b"\x7fELF\0\0",
        "empty.py": b"\n",
        "large.py": b"x = 1\n" * 1000,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "dead.py").symlink_to(folder / "gone.py")
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
        "license_unknown": 1,
    }
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
