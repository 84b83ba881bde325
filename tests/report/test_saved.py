from collections.abc import Callable
from pathlib import Path

from selfalign_ray import schemas
from selfalign_ray.report.saved import chain, holding, last_seen
from tests.report.conftest import TABLE, hop_row, write_stage

SAVED = ["quality", "unique", "sample", "responses", "metrics", "duplicates"]


def test_the_chain_of_a_whole_run(write_run: Callable[..., Path]) -> None:
    stages = chain(write_run(), TABLE, 3)
    assert [stage.name for stage in stages] == SAVED
    found = holding(stages, "instruction")
    assert found is not None
    assert found.name == "responses"


def test_a_run_that_stopped_or_began_in_the_middle(write_run: Callable[..., Path]) -> None:
    run_dir = write_run(metrics=None, duplicates=None)
    assert [s.name for s in chain(run_dir, TABLE[: TABLE.index("responses") + 1], 3)] == SAVED[:4]
    assert [s.name for s in chain(run_dir, TABLE[5:8], 3)] == ["responses"]
    assert chain(run_dir, TABLE[:1], 3) == []


def test_a_folder_beside_the_chain_does_not_count(write_run: Callable[..., Path]) -> None:
    run_dir = write_run()
    write_stage(run_dir, "concepts", ["concepts"], schemas.HOPS, [hop_row(1, 1)])
    assert [stage.name for stage in chain(run_dir, TABLE, 3)] == SAVED


def test_a_stage_without_a_manifest_is_not_whole(write_run: Callable[..., Path]) -> None:
    run_dir = write_run()
    (run_dir / "stages" / "duplicates" / "manifest.json").unlink()
    assert [stage.name for stage in chain(run_dir, TABLE, 3)] == SAVED[:-1]


def test_batches_are_bounded_and_lack_no_column(write_run: Callable[..., Path]) -> None:
    stage = chain(write_run(), TABLE, 2)[0]
    batches = list(stage.batches(["row_id", "no_such_column"]))
    assert max(batch.num_rows for batch in batches) <= 2
    assert sum(batch.num_rows for batch in batches) == 16
    assert {batch.column_names[1] for batch in batches} == {"no_such_column"}
    kept = sum(batch.num_rows for batch in stage.batches(["row_id"], dropped=False))
    dropped = sum(batch.num_rows for batch in stage.batches(["row_id"], dropped=True))
    assert (kept, dropped) == (10, 6)


def test_each_row_is_seen_once_where_it_ended(write_run: Callable[..., Path]) -> None:
    stages = chain(write_run(), TABLE, 3)
    names = ("responses", "execution", "metrics")
    rows = [
        row
        for batch in last_seen(stages, names, ["row_id", "verdicts"])
        for row in batch.to_pylist()
    ]
    assert len(rows) == 8
    assert len({row["row_id"] for row in rows}) == 8
    assert sum(row["verdicts"] is not None for row in rows) == 5
