"""withdraw.py: rows leave every file of a finished data set, and do not come back."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from selfalign_ray.config import RunConfig, config_of
from selfalign_ray.errors import UserError
from selfalign_ray.places import local_dir
from selfalign_ray.report import dataset
from selfalign_ray.report.report import report
from selfalign_ray.withdraw import main, withdraw
from selfalign_ray.withdrawn import RECORD, Withdrawn, read_list
from tests.object_store import BUCKET, Server
from tests.report.conftest import (  # noqa: F401 - a fixture
    executed_row,
    hop_row,
    row,
    selected_row,
    write_run,
)

NO_NOVELTY = "selection.novelty.enabled=false"  # the run by hand ends with `duplicates`
OURS = "def secret_of_theirs(): ..."


@pytest.fixture
def finished(
    run_config: Callable[..., RunConfig],
    write_run: Callable[..., Path],  # noqa: F811
) -> Callable[..., Path]:
    """`finished(overrides)`: a run of two repositories, reported; `theirs` has rows 1 and 3."""

    def made(*overrides: str) -> Path:
        def of(number: int) -> dict[str, Any]:
            ids = {"blob_id": f"blob{number}", "file_id": f"file{number}"}
            if number in (1, 3):
                return {**ids, "repository": "theirs", "seed": OURS}
            return {**ids, "repository": "mine", "seed": f"seed {number}"}

        run_dir = write_run(
            quality=[row(n, **of(n)) for n in range(5)],
            unique=[row(n, **of(n)) for n in range(5)],
            sample=[row(n, **of(n)) for n in range(5)],
            responses=[hop_row(n, **of(n)) for n in range(5)],
            metrics=[
                *(executed_row(n, "passed", **of(n)) for n in range(4)),
                executed_row(4, "timeout", **of(4)),
            ],
            duplicates=[
                *(selected_row(n, **of(n)) for n in range(3)),
                selected_row(3, **of(3), drop_reason="duplicate_instruction"),
            ],
        )
        report(run_config("report.examples=9", NO_NOVELTY, *overrides), run_dir, None)
        return run_dir

    return made


def listed(*lines: str) -> Withdrawn:
    return Withdrawn(frozenset(("id", line) for line in lines))


def texts_below(folder: Path) -> str:
    """All that a person could read in it, but for who had it last."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".parquet":
            found.append(json.dumps(pq.read_table(path).to_pylist()))
        elif path.is_file() and path.name not in (RECORD, ".lock"):
            found.append(path.read_text())
    return "\n".join(found)


def test_a_repository_leaves_every_file_of_a_run(finished: Callable[..., Path]) -> None:
    run_dir = finished()
    assert OURS in texts_below(run_dir)
    found = withdraw(run_dir, listed("theirs", "nobody"), dry_run=False)
    assert found.problems == []
    assert OURS not in texts_below(run_dir)
    assert "theirs" not in texts_below(run_dir)
    assert found.rows["instruction_dataset.jsonl"] == 1
    assert found.rows["dataset"] == 1
    assert found.rows["stages/quality"] == 2
    assert found.rows["responses.jsonl"] == 4
    assert found.dataset_rows == {"repository": 1}
    lines = (run_dir / "instruction_dataset.jsonl").read_text().splitlines()
    assert [json.loads(line)["origin"]["repository"] for line in lines] == ["mine", "mine"]
    card = (run_dir / "dataset" / "README.md").read_text()
    assert "**2 pairs**" in card
    assert "2 ids have been withdrawn" in card
    manifest = json.loads((run_dir / "manifest.json").read_text())
    assert manifest["adds_up"] is True
    assert manifest["files"]["instruction_dataset.jsonl"] == 2
    assert "**2 instruction-response pairs**" in (run_dir / "pipeline_report.md").read_text()
    said = [json.loads(line) for line in (run_dir / RECORD).read_text().splitlines()]
    assert [line["id"] for line in said] == ["nobody", "theirs"]
    assert all(set(line) == {"id", "date"} for line in said)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("blob_id", "blob1"),
        ("seed_id", f"5eed{1:028x}"),
        ("row_id", f"{1:032x}"),
        ("repository", "theirs"),
    ],
)
@pytest.mark.parametrize("any_kind", [True, False])
def test_each_kind_of_id_finds_the_row(
    finished: Callable[..., Path], kind: str, value: str, any_kind: bool
) -> None:
    run_dir = finished()
    entry = ("id" if any_kind else kind, value)
    found = withdraw(run_dir, Withdrawn(frozenset({entry})), dry_run=False)
    assert found.dataset_rows == {kind: 1}
    assert {name for name, _ in found.ids} == {kind}
    rows = [table["row_id"].to_pylist() for table in dataset.rows_of(run_dir / "dataset")]
    assert rows == [[f"{n:032x}" for n in (0, 2)]]


def test_an_id_of_another_kind_finds_nothing(finished: Callable[..., Path]) -> None:
    run_dir = finished()
    found = withdraw(run_dir, Withdrawn(frozenset({("blob_id", "theirs")})), dry_run=False)
    assert not any(found.rows.values())


def test_a_dry_run_changes_nothing_and_says_the_same(finished: Callable[..., Path]) -> None:
    run_dir = finished()

    def state() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in run_dir.rglob("*") if p.is_file()}

    before = state()
    looked = withdraw(run_dir, listed("theirs"), dry_run=True)
    assert state() == before
    assert looked == withdraw(run_dir, listed("theirs"), dry_run=False)


def test_done_twice_is_done_once(finished: Callable[..., Path]) -> None:
    run_dir = finished()
    withdraw(run_dir, listed("theirs"), dry_run=False)
    first = texts_below(run_dir)
    again = withdraw(run_dir, listed("theirs"), dry_run=False)
    assert not any(again.rows.values())
    assert texts_below(run_dir) == first
    assert len((run_dir / RECORD).read_text().splitlines()) == 1


def test_what_was_ended_on_the_way_is_gone_on_with(
    finished: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = finished()

    def ended(stage: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("selfalign_ray.withdraw.recount", ended)
        with pytest.raises(KeyboardInterrupt):
            withdraw(run_dir, listed("theirs"), dry_run=False)
    assert withdraw(run_dir, listed("theirs"), dry_run=False).problems == []
    assert json.loads((run_dir / "manifest.json").read_text())["adds_up"] is True
    assert OURS not in texts_below(run_dir)


def test_the_folder_of_a_run_stands_for_the_run(finished: Callable[..., Path]) -> None:
    run_dir = finished()
    withdraw(run_dir / "dataset", listed("theirs"), dry_run=False)
    assert OURS not in texts_below(run_dir)
    for name in ("instruction_dataset.jsonl", "responses.jsonl"):
        assert withdraw(run_dir / name, listed("theirs"), dry_run=False).rows[name] == 0


def test_a_folder_away_from_its_run_is_rewritten(
    finished: Callable[..., Path], tmp_path: Path
) -> None:
    run_dir = finished()
    away = tmp_path / "published"
    (run_dir / "dataset").rename(away)
    found = withdraw(away, listed("theirs"), dry_run=False)
    assert found.rows == {"published": 1}
    assert "theirs" not in texts_below(away)
    assert pq.read_metadata(dataset.files_of(away, "messages")[0]).num_rows == 2
    card = (away / "README.md").read_text()
    assert "**2 pairs**" in card
    assert "| withdrawal | **kept** of 3 | 2 | 66.7 % |" in card
    assert "1 id has been withdrawn" in card
    withdraw(away, listed("mine"), dry_run=False)
    card = (away / "README.md").read_text()
    assert "**0 pairs**" in card
    assert "dropped in the stage withdrawal" in card
    assert read_list(away / RECORD).entries == {("id", "theirs"), ("id", "mine")}


def test_a_published_folder_gets_nothing_back(
    finished: Callable[..., Path], run_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    place = f"report.dataset_dir={tmp_path}/published"
    run_dir = finished(place)
    withdraw(tmp_path / "published", listed("theirs"), dry_run=False)
    report(run_config(place, NO_NOVELTY), run_dir, None)
    assert "theirs" not in texts_below(tmp_path / "published")
    found = withdraw(run_dir, listed("mine"), dry_run=False)
    assert found.rows[f"{tmp_path}/published"] == 2
    assert sum(table.num_rows for table in dataset.rows_of(tmp_path / "published")) == 0


def test_a_file_of_lines_alone(finished: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "away.jsonl"
    (finished() / "instruction_dataset.jsonl").rename(path)
    before = path.read_bytes().splitlines()
    assert withdraw(path, listed("theirs"), dry_run=False).rows == {"away.jsonl": 1}
    assert path.read_bytes().splitlines() == [before[0], before[2]]
    assert (tmp_path / RECORD).exists()


def test_stages_that_were_put_aside_and_a_slice_lose_the_rows_too(
    finished: Callable[..., Path],
) -> None:
    run_dir = finished()
    (run_dir / "replaced").mkdir()
    (run_dir / "stages" / "sample").rename(run_dir / "replaced" / "sample-0123")
    (run_dir / "plan").mkdir()
    (run_dir / "stages" / "unique").rename(run_dir / "plan" / "unique")
    (run_dir / "plan" / "stages").mkdir()
    (run_dir / "plan" / "unique").rename(run_dir / "plan" / "stages" / "unique")
    found = withdraw(run_dir, listed("theirs"), dry_run=False)
    assert found.rows["replaced/sample-0123"] == 2
    assert found.rows["plan/stages/unique"] == 2
    assert OURS not in texts_below(run_dir)


def test_what_of_a_cache_cannot_be_read_is_named_and_all_else_loses_the_rows(
    finished: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir, cache = finished(), tmp_path / "cache"
    manifest = run_dir / "stages" / "sample" / "manifest.json"
    known = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**known, "cache": str(cache)}))
    for name in ("sample-0", "sample-1"):
        shutil.copytree(run_dir / "stages" / "sample", cache / name)
    (shard,) = (cache / "sample-0" / "rows").iterdir()
    shard.write_bytes(b"no Parquet")
    (tmp_path / "list.txt").write_text("theirs\n")
    assert main([str(run_dir), str(tmp_path / "list.txt")]) == 1
    said = capsys.readouterr().out
    assert f"cannot be read, and keeps what it has: {cache}/sample-0: " in said
    assert "the counts do not add up" not in said
    shard.unlink()
    assert OURS not in texts_below(tmp_path)


def test_a_run_that_has_not_ended_loses_them_without_a_report(
    finished: Callable[..., Path],
) -> None:
    run_dir = finished()
    (run_dir / "manifest.json").unlink()
    withdraw(run_dir, listed("theirs"), dry_run=False)
    assert OURS not in texts_below(run_dir)
    assert not (run_dir / "pipeline_report.md").exists()


def test_a_run_under_way_is_left_alone(finished: Callable[..., Path]) -> None:
    from selfalign_ray.job import sole

    run_dir = finished()
    with sole(run_dir), pytest.raises(UserError, match="is in use by process"):
        withdraw(run_dir, listed("theirs"), dry_run=False)
    assert OURS in texts_below(run_dir)


def test_the_command_says_how_many_and_what_it_did_not_find(
    finished: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = finished()
    (tmp_path / "list.txt").write_text("theirs\nnobody\n")
    arguments = [str(run_dir), str(tmp_path / "list.txt")]
    assert main([*arguments, "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("would withdraw: ")
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "  instruction_dataset.jsonl                1\n" in said
    assert "  by repository: 1 found, 1 rows of the data set\n" in said
    assert "  not found: nobody\n" in said


@pytest.mark.parametrize("where", ["nowhere", "empty", "list.txt"])
def test_what_is_no_data_set_is_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    (tmp_path / "list.txt").write_text("x\n")
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / where), str(tmp_path / "list.txt")]) == 2
    assert f"{where}: is no run_dir, no folder dataset/" in capsys.readouterr().err
    assert main([str(tmp_path), str(tmp_path / "no_list")]) == 2
    assert "no_list" in capsys.readouterr().err


@pytest.mark.parametrize(
    "overrides", [[], ["source=folder", "source.path=/x"], ["source=stack_v2"]]
)
def test_the_settings_of_a_manifest_are_those_of_the_run(
    run_config: Callable[..., RunConfig], overrides: list[str]
) -> None:
    cfg = run_config(NO_NOVELTY, *overrides)
    assert config_of(json.loads(json.dumps(dataclasses.asdict(cfg)))) == cfg


def test_a_run_in_a_store_loses_the_rows_there(
    finished: Callable[..., Path], store: Server, tmp_path: Path
) -> None:
    run_dir = finished()
    for path in filter(Path.is_file, run_dir.rglob("*")):
        key = f"r/first/{path.relative_to(run_dir)}"
        store.client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
    (tmp_path / "list").write_text("theirs\n")
    for dry_run in (True, False):
        before = {key: store.read(key) for key in store.names()}
        options = ["--dry-run"] if dry_run else []
        assert main(["s3://runs/r/first", str(tmp_path / "list"), *options]) == 0
        after = {key: store.read(key) for key in store.names()}
        assert (after == before) is dry_run
    for key, data in after.items():
        path = tmp_path / "after" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert OURS not in texts_below(tmp_path / "after")
    assert "theirs" not in texts_below(tmp_path / "after")
    names = {path.relative_to(run_dir).as_posix() for path in run_dir.rglob("*.json*")}
    assert {f"r/first/{name}" for name in [*names, RECORD]} <= set(after)
    manifest = json.loads(after["r/first/manifest.json"])
    assert manifest["adds_up"] is True
    assert manifest["files"]["instruction_dataset.jsonl"] == 2
    with pytest.raises(UserError, match="s3://runs/nosuch: is no run_dir"):
        withdraw(Path(local_dir("s3://runs/nosuch")), listed("theirs"), dry_run=False)
