"""stage.py: what is saved, when it counts as whole, and what becomes of older results."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from selfalign_ray.stage import Saved, count_by_reason, fingerprint_of, write_whole

SCHEMA = pa.schema([pa.field("row_id", pa.string()), pa.field("drop_reason", pa.string())])


@pytest.fixture
def saved(tmp_path):
    return Saved(tmp_path, "quality")


def finish(saved, fingerprint):
    saved.rows.mkdir(parents=True, exist_ok=True)
    saved.finish({"fingerprint": fingerprint, "rows": {"kept": 0}})


def test_a_folder_without_a_manifest_is_not_whole(saved):
    saved.rows.mkdir(parents=True)
    assert not saved.is_complete("a")


def test_a_cut_manifest_is_none(saved):
    finish(saved, "a")
    path = saved.folder / "manifest.json"
    path.write_text(path.read_text()[:10])
    assert saved.manifest() is None
    assert not saved.is_complete("a")


def test_results_of_other_settings_are_put_aside_and_come_back(saved):
    finish(saved, "a")
    (saved.rows / "mine").write_text("first")
    saved.make_room("b")
    assert not saved.folder.exists()
    finish(saved, "b")
    saved.make_room("a")
    assert saved.is_complete("a")
    assert (saved.rows / "mine").read_text() == "first"
    saved.make_room("b")
    assert saved.is_complete("b")


def test_results_of_the_same_settings_stay(saved):
    finish(saved, "a")
    saved.make_room("a")
    assert saved.is_complete("a")


def test_a_file_is_written_whole_or_not(tmp_path):
    path = tmp_path / "deep" / "file.json"
    write_whole(path, "one")
    write_whole(path, "two")
    assert path.read_text() == "two"
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_another_setting_is_another_fingerprint():
    assert fingerprint_of({"a": 1, "b": [2]}) == fingerprint_of({"b": [2], "a": 1})
    assert fingerprint_of({"a": 1}) != fingerprint_of({"a": 2})


def test_rows_are_counted_by_reason_kept_first(tmp_path):
    for number, reasons in enumerate([["b", None, "a"], ["a", None, None]]):
        table = pa.table({"drop_reason": pa.array(reasons, pa.string())})
        pq.write_table(table, tmp_path / f"{number}.parquet")
    assert json.dumps(count_by_reason(tmp_path)) == '{"kept": 3, "a": 2, "b": 1}'


@pytest.mark.ray
def test_saved_rows_have_the_schema_and_the_kept_ones_are_read_again(ray_local, saved):
    rows = [{"row_id": str(i), "drop_reason": "odd" if i % 2 else None, "x": i} for i in range(9)]
    counts = saved.write(ray.data.from_items(rows), SCHEMA, rows_per_file=100)
    assert counts == {"kept": 5, "odd": 4}
    assert pq.read_table(saved.rows).schema.names == SCHEMA.names
    assert {row["row_id"] for row in saved.kept().take_all()} == {"0", "2", "4", "6", "8"}


@pytest.mark.ray
def test_no_row_at_all_is_an_empty_table(ray_local, saved):
    assert saved.write(None, SCHEMA, rows_per_file=100) == {"kept": 0}
    assert saved.kept().count() == 0


@pytest.mark.ray
def test_a_half_written_stage_is_written_anew(ray_local, saved):
    saved.rows.mkdir(parents=True)
    (saved.rows / "half.parquet").write_bytes(b"PAR1 and no more")
    rows = ray.data.from_items([{"row_id": "a", "drop_reason": None}])
    assert saved.write(rows, SCHEMA, rows_per_file=100) == {"kept": 1}
