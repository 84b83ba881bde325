"""dataset.py and card.py: the folder as `datasets` opens it, and what its card says."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from selfalign_ray import schemas
from selfalign_ray.config import RunConfig
from selfalign_ray.errors import UserError
from selfalign_ray.report import dataset
from selfalign_ray.report.card import Counts, hub_licenses
from selfalign_ray.report.report import Summary, report
from tests.report.conftest import selected_row, stages_of_a_run

Make = Callable[..., Summary]
Load = Callable[..., Any]


@pytest.fixture
def make(run_config: Callable[..., RunConfig], write_run: Callable[..., Path]) -> Make:
    def made(*overrides: str, **replaced: Any) -> Summary:
        return report(run_config(*overrides), write_run(**replaced), None)

    return made


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """`load(folder)`: what `datasets.load_dataset` makes of it, without a network."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()

    def loaded(folder: Path, *subset: str, **others: Any) -> Any:
        cache = str(tmp_path / "cache" / str(time.monotonic_ns()))
        return datasets.load_dataset(str(folder), *subset, split="train", cache_dir=cache, **others)

    return loaded


def front_matter(folder: Path) -> dict[str, Any]:
    _, front, _ = (folder / "README.md").read_text().split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(front)
    return found


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_library_opens_the_folder_as_it_stands(make: Make, load: Load) -> None:
    summary = make()
    assert summary.folder is not None
    assert summary.dataset is not None
    rows = list(load(summary.folder))
    lines = [json.loads(line) for line in summary.dataset.read_text().splitlines()]
    assert len(rows) == 2
    for row, line in zip(rows, lines, strict=True):
        for name in ("row_id", "instruction", "response", "code", "tests", "plain_instruction"):
            assert row[name] == line[name]
        assert row["origin"]["licenses"] == ["MIT"]
        assert row["origin"]["repository"] == "pkg"
        assert row["verdict"]["verdict"] == "passed"
        assert row["metrics"]["asserts"] == 1
        assert (row["samples"], row["samples_passed"], row["pass_rate"]) == (2, 1, 1.0)
    chats = list(load(summary.folder, "messages"))
    assert [chat["row_id"] for chat in chats] == [row["row_id"] for row in rows]
    for chat, row in zip(chats, rows, strict=True):
        assert [turn["role"] for turn in chat["messages"]] == ["user", "assistant"]
        assert [t["content"] for t in chat["messages"]] == [row["instruction"], row["response"]]


def test_every_column_of_a_data_set_row_is_there_or_is_left_out_by_name() -> None:
    published = dataset.published_schema()
    origin = published.field("origin").type
    names = {*published.names, *(origin.field(i).name for i in range(origin.num_fields))}
    evidence = {"benchmark_hits", "agreement", "drop_reason"}
    working = {"samples", "sanitised", "hops", "error", *evidence}
    renamed = {"final_instruction", "verdicts"}
    assert set(schemas.SELECTED.names) - names <= working | renamed
    per_sample = [f.name for f in published if pa.types.is_list(f.type)]
    assert "metrics" not in per_sample


def test_a_row_of_null_columns_can_be_published(make: Make, load: Load) -> None:
    nothing = dict.fromkeys(("verdicts", "metrics", "concepts", "licenses", "repository"))
    summary = make(duplicates=[selected_row(0, **nothing)])
    assert summary.folder is not None
    [row] = load(summary.folder)
    assert row["verdict"] is None
    assert front_matter(summary.folder)["license"] == "unknown"


def test_rows_come_in_order_in_files_of_a_bounded_size(make: Make, load: Load) -> None:
    rows = [selected_row(number // 2, sample_index=number % 2) for number in range(13)]
    summary = make("report.rows_per_file=5", duplicates=rows[::-1])
    folder = summary.folder
    assert folder is not None
    for subset in ("data", "messages"):
        names = [path.name for path in dataset.files_of(folder, subset)]
        starts = [f"train-{number:05d}-of-00003-" for number in range(3)]
        assert [name[: len(starts[0])] for name in names] == starts
    assert [pq.read_metadata(p).num_rows for p in dataset.files_of(folder, "data")] == [5, 5, 3]
    keys = [(row["row_id"], row["sample_index"]) for row in load(folder)]
    assert keys == sorted((row["row_id"], row["sample_index"]) for row in rows)


def test_a_cache_of_the_rows_before_is_not_taken_for_them(make: Make, load: Load) -> None:
    for number in (3, 5):
        folder = make(duplicates=[selected_row(number)]).folder
        assert folder is not None
        assert [row["row_id"] for row in load(folder)] == [f"{number:032x}"]
        assert [row["row_id"] for row in load(folder, "messages")] == [f"{number:032x}"]


def test_the_same_rows_give_the_same_bytes(make: Make) -> None:
    rows = [selected_row(number) for number in range(9)]
    one = make("report.rows_per_file=4", duplicates=rows).folder
    assert one is not None
    before = bytes_of(one)
    again = ["report.rows_per_file=4", "report.rows_per_batch=2", "report.sort_mb=1"]
    backwards = {name: table[::-1] for name, (_, _, table) in stages_of_a_run().items()}
    assert make(*again, **(backwards | {"duplicates": rows[::-1]})).folder == one
    assert bytes_of(one) == before


def test_no_row_is_a_data_set_too_and_its_card_says_why(make: Make, load: Load) -> None:
    rows = [selected_row(n, drop_reason="duplicate_response") for n in range(3)]
    summary = make(duplicates=rows)
    assert summary.folder is not None
    names = {"default": dataset.published_schema().names}
    names["messages"] = ["messages", "row_id", "sample_index"]
    for subset, columns in names.items():
        rows = load(summary.folder, subset, streaming=True)
        assert rows.column_names == columns
        assert list(rows) == []
    text = (summary.folder / "README.md").read_text()
    assert "**0 pairs**" in text
    assert (
        "**This data set is empty**: the last rows were dropped in the stage duplicates, most for "
        "duplicate_response (3 rows)." in text
    )
    assert "license" not in front_matter(summary.folder)


def test_a_run_that_stops_early_leaves_no_folder(make: Make) -> None:
    first = make()
    assert first.folder is not None
    assert make("stages.until=responses").folder is None
    assert not first.folder.exists()


def test_the_card_says_what_the_rows_are(make: Make) -> None:
    rows = [
        selected_row(0),
        selected_row(1, licenses=["Apache-2.0", "PSF-2.0"], repository="a|b"),
        selected_row(2, licenses=["MIT"]),
    ]
    hop = "recipe.hops.responses"
    drawn = [f"{hop}.shots=2", f"{hop}.sampling.n=7", f"{hop}.sampling.temperature=0.25"]
    summary = make(*drawn, duplicates=rows)
    assert summary.folder is not None
    front = front_matter(summary.folder)
    assert front["license"] == ["mit", "apache-2.0", "other"]
    assert front["size_categories"] == ["n<1K"]
    assert [config["config_name"] for config in front["configs"]] == ["default", "messages"]
    assert [config.get("default") for config in front["configs"]] == [True, None]
    text = (summary.folder / "README.md").read_text()
    for said in (
        "# first\n\n**3 pairs** of an instruction and a response in Python, written by tiny",
        "| MIT | 2 | 66.7 % |",
        "| PSF-2.0 | 1 | 33.3 % |",
        "| pkg | 2 |",
        "| a\\|b | 1 |",
        "| read | - too_large | 2 |",
        "| quality | - untyped | 1 |",
        "| duplicates | **kept** of 3 | 3 | 100.0 % |",
        "| run_seed | 3407 |",
        "| responses | 2 | 0.25 | 7 |",
        "**No benchmark was sought**",
        "Tests that the same model wrote may be weak",
    ):
        assert said in text
    assert "STAND-IN" not in text


def test_rows_of_a_stand_in_are_no_result(make: Make) -> None:
    summary = make("engine=standin")
    assert summary.folder is not None
    text = (summary.folder / "README.md").read_text()
    assert "> **STAND-IN ENGINE: NOT A RESULT.**" in text
    assert text.index("STAND-IN") < text.index("**2 pairs**")


def test_secrets_and_places_stay_out_of_the_card(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "not-for-the-card")
    summary = make("name=not-for-the-card")
    assert summary.folder is not None
    for data in bytes_of(summary.folder).values():
        assert b"not-for-the-card" not in data
        assert str(tmp_path).encode() not in data


@pytest.mark.parametrize(
    ("licenses", "named"),
    [
        ({"GPL-3.0-only": 1}, ["gpl-3.0"]),
        ({"LGPL-2.1-or-later": 1, "none found": 1}, ["lgpl-2.1", "unknown"]),
        ({"MIT-0": 2, "PSF-2.0": 1}, ["other"]),
        ({}, []),
    ],
)
def test_licences_have_a_hubs_names(licenses: dict[str, int], named: list[str]) -> None:
    assert hub_licenses(licenses) == named


# Two runs, one folder.


def test_a_second_run_is_refused_in_the_folder_of_the_first(
    make: Make, run_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    place = f"report.dataset_dir={tmp_path}/published"
    first = make(place)
    assert first.folder == tmp_path / "published"
    before = bytes_of(first.folder)
    make(place)  # the same run may
    second = run_config(place, "name=second", f"run_dir={tmp_path}/second")
    with pytest.raises(UserError) as told:
        report(second, tmp_path / "run", None)
    for said in ("report.dataset_dir", "published", "the run first (", "the run second in "):
        assert said in str(told.value)
    assert bytes_of(first.folder) == before


def test_a_folder_of_something_else_is_refused(make: Make, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    make(f"report.dataset_dir={tmp_path}/mine")  # an empty one will do
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="holds something else"):
        make(f"report.dataset_dir={tmp_path}/other")
    assert (tmp_path / "other" / "thesis.tex").read_text() == "x"


def test_behind_a_link_the_folder_that_it_leads_to_is_changed_over(
    make: Make, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "published"
    link.symlink_to(tmp_path / "disk" / "published")
    for number in (3, 5):
        make(f"report.dataset_dir={link}", duplicates=[selected_row(number)])
        (table,) = dataset.rows_of(link)
        assert table["row_id"].to_pylist() == [f"{number:032x}"]
    assert link.is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["published"]
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "published", "run"}


def test_a_mount_point_is_refused_with_a_way_out(make: Make) -> None:
    with pytest.raises(UserError, match=r"/proc is a mount point.*a folder in it"):
        make("report.dataset_dir=/proc")


def test_files_copied_over_another_data_set_do_not_mix(make: Make, load: Load) -> None:
    """`cp -r` of one folder over another leaves files of both; the card names its own."""
    many = make("report.rows_per_file=1", duplicates=[selected_row(n) for n in range(3)]).folder
    assert many is not None
    stale = bytes_of(many)
    one = make(duplicates=[selected_row(9)]).folder
    assert one is not None
    for name, data in stale.items():
        if name.endswith(".parquet"):
            (one / name).write_bytes(data)
    assert [row["row_id"] for row in load(one)] == [f"{9:032x}"]


# Ended on the way.


def _rows(number: int) -> Iterator[dict[str, Any]]:
    row = dict.fromkeys(dataset.published_schema().names)
    for index in range(number):
        yield row | {
            "row_id": f"{index:032x}",
            "sample_index": 0,
            "instruction": f"{number}",
            "response": "x",
            "origin": dict.fromkeys(("licenses", "dataset", "repository")) | {"source": "folder"},
        }


FACTS = {
    **dict.fromkeys(("name", "run", "model", "engine", "source", "run_seed", "choose"), "x"),
    **dict.fromkeys(("standin", "files", "files_with_functions", "ended_by")),
    "rows_per_file": 500,
    "written_by": [],
    "hops": {},
    "benchmarks": [],
    "funnel": [],
    "withdrawn": 0,
}


def _write_for_ever(folder: Path) -> None:
    for number in range(1, 10_000):
        dataset.write_folder(
            folder, _rows(1000 + number % 5), dataset.published_schema(), FACTS | {"n": number}
        )


def test_a_killed_export_leaves_the_old_folder_or_the_new_one(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    dataset.write_folder(folder, _rows(3), dataset.published_schema(), FACTS)
    for moment in range(6):
        process = multiprocessing.get_context("fork").Process(
            target=_write_for_ever, args=(folder,)
        )
        process.start()
        time.sleep(0.15 + 0.03 * moment)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        tables = list(dataset.rows_of(folder))
        number = sum(table.num_rows for table in tables)
        texts = {text for table in tables for text in table["instruction"].to_pylist()}
        assert texts == {str(number)}, "rows of two exports"
        chats = [pq.read_metadata(path).num_rows for path in dataset.files_of(folder, "messages")]
        assert sum(chats) == number
        assert f"**{number:,} pairs**" in (folder / "README.md").read_text()
    counts = dataset.write_folder(folder, _rows(2), dataset.published_schema(), FACTS)
    assert counts.rows == 2
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_a_file_system_that_cannot_exchange_gets_two_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "_exchange", lambda one, other: False)
    for number in (3, 2):
        dataset.write_folder(tmp_path / "d", _rows(number), dataset.published_schema(), FACTS)
    assert sum(table.num_rows for table in dataset.rows_of(tmp_path / "d")) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    dataset.write_folder(tmp_path / "d", _rows(3), dataset.published_schema(), FACTS)

    def rows() -> Iterator[dict[str, Any]]:
        yield from _rows(600)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        dataset.write_folder(tmp_path / "d", rows(), dataset.published_schema(), FACTS)
    assert sum(table.num_rows for table in dataset.rows_of(tmp_path / "d")) == 3


def test_counts_hold_what_a_row_lacks() -> None:
    counts = Counts()
    counts.add(next(_rows(1)))
    assert (counts.rows, counts.licenses["none found"], counts.sources["folder"]) == (1, 1, 1)
