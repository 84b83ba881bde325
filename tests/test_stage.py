"""stage.py: what is saved, when it counts as whole, and what becomes of older results."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from selfalign_ray.errors import UserError
from selfalign_ray.stage import FORMAT, Saved, count_by_reason, fingerprint_of, write_whole

SCHEMA = pa.schema([pa.field("row_id", pa.string()), pa.field("drop_reason", pa.string())])


@pytest.fixture
def saved(tmp_path):
    return Saved(tmp_path, "quality")


RECORD = {"format": FORMAT, "fingerprint": "a"}


def finish(saved):
    saved.begin(RECORD, anew=True)
    saved.finish({**RECORD, "rows": {"kept": 0}})


def test_a_folder_without_a_manifest_is_not_whole(saved):
    saved.begin(RECORD, anew=True)
    assert saved.complete("a") is None
    assert saved.begun() == RECORD


def test_a_whole_folder_is_of_its_own_settings_alone(saved):
    finish(saved)
    assert saved.complete("a")
    assert saved.complete("b") is None


def test_a_cut_manifest_is_none_and_its_stage_begun(saved, caplog):
    finish(saved)
    path = saved.folder / "manifest.json"
    path.write_text(path.read_text()[:10])
    assert saved.manifest() is None
    assert saved.complete("a") is None
    assert saved.begun() == RECORD
    assert str(path) in caplog.text


def test_a_stage_without_its_first_record_is_known_by_its_last(saved):
    finish(saved)
    (saved.folder / "begun.json").write_text("{")
    assert saved.begun()["fingerprint"] == "a"


@pytest.mark.parametrize("number", [0, FORMAT + 1])
def test_another_version_s_folder_is_refused_with_the_way_out(saved, number):
    saved.begin({"format": number, "fingerprint": "a"}, anew=True)
    with pytest.raises(UserError, match=r"quality: has the format \d+ .*give the run another name"):
        saved.begun()


def test_a_stage_that_goes_on_keeps_its_rows_and_one_begun_anew_does_not(saved):
    finish(saved)
    (saved.rows / "mine").write_text("first")
    saved.begin(RECORD, anew=False)
    assert (saved.rows / "mine").exists()
    assert saved.manifest() is None
    saved.begin(RECORD, anew=True)
    assert list(saved.rows.iterdir()) == []


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
def test_rows_are_added_to_those_that_are_there(ray_local, saved):
    for i in "ab":
        rows = ray.data.from_items([{"row_id": i, "drop_reason": None}])
        counts = saved.write(rows, SCHEMA, rows_per_file=100)
    assert counts == {"kept": 2}
    again = ray.data.from_items([{"row_id": "b", "drop_reason": None}])
    assert saved.write(again, SCHEMA, rows_per_file=100) == {"kept": 2}


@pytest.mark.ray
@pytest.mark.parametrize("stage", ["quality", "responses"])
def test_a_shard_has_at_least_the_rows_asked_for(ray_local, tmp_path, stage):
    saved = Saved(tmp_path, stage)
    rows = [{"row_id": str(i), "drop_reason": None} for i in range(100)]
    saved.write(ray.data.from_items(rows).repartition(20), SCHEMA, rows_per_file=30)
    sizes = [pq.read_metadata(path).num_rows for path in saved.rows.glob("*.parquet")]
    assert sum(sizes) == 100
    assert len([size for size in sizes if size < 30]) <= 1
