"""withdrawn.py: lists of ids, and which rows they concern."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray import schemas
from selfalign_ray.config import RunConfig
from selfalign_ray.errors import UserError
from selfalign_ray.withdrawn import (
    ANY,
    KINDS,
    RECORD,
    Withdrawn,
    concerned,
    kinds_of,
    marked,
    read_list,
    record,
    withdrawn_of,
)

LIST = """# asked for on Monday
numpy

  owner/name  \r
{"repository": "pkg", "date": "2026-01-01"}
{"blob_id": "b1", "row_id": null}
{"id": "5eed"}
"""


def test_a_list_has_an_id_a_line_or_says_of_which_kind(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("\ufeff" + LIST, encoding="utf-8")
    assert read_list(tmp_path / "list").entries == {
        (ANY, "numpy"),
        (ANY, "owner/name"),
        ("repository", "pkg"),
        ("blob_id", "b1"),
        (ANY, "5eed"),
    }


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"repository": "a", "blob_id": "b"}', "a line names one text of row_id, "),
        ('{"name": "a"}', "blob_id, repository or id; got"),
        ('{"repository": 3}', "a line names one text"),
        ('{"repository": ""}', "a line names one text"),
        ('{"repository": ', "no JSON"),
    ],
)
def test_a_line_that_is_no_entry_is_told_with_its_number(
    tmp_path: Path, line: str, said: str
) -> None:
    (tmp_path / "list").write_text(f"a\n{line}\n")
    with pytest.raises(UserError, match=r"list:2: ") as told:
        read_list(tmp_path / "list")
    assert said in str(told.value)


def test_a_list_that_is_not_there_is_told_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: the list of what is withdrawn cannot be read"):
        read_list(tmp_path / "nowhere")


def test_a_record_is_a_list_and_has_each_id_once(tmp_path: Path) -> None:
    path = tmp_path / RECORD
    one = Withdrawn(frozenset({("blob_id", "b1"), (ANY, "x")}))
    record(path, one)
    record(path, one)
    two = Withdrawn(frozenset({("blob_id", "b1"), ("seed_id", "s")}))
    record(path, two)
    assert read_list(path).entries == one.entries | two.entries
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 3
    assert all(len(line["date"]) == 10 for line in lines)


IDS = st.sampled_from(["a", "b", "c"])
ROWS = st.lists(
    st.fixed_dictionaries({kind: st.none() | IDS for kind in KINDS}), min_size=1, max_size=8
)
ENTRIES = st.frozensets(st.tuples(st.sampled_from([*KINDS, ANY]), IDS), max_size=4)


@settings(deadline=None)
@given(ROWS, ENTRIES, st.booleans())
def test_tables_and_rows_agree(
    rows: list[dict[str, Any]], entries: frozenset[tuple[str, str]], nested: bool
) -> None:
    withdrawn = Withdrawn(entries)
    if nested:  # as in the data set
        names = ("file_id", "blob_id", "repository")
        rows = [
            {n: v for n, v in row.items() if n not in names}
            | {"origin": {n: row[n] for n in names}}
            for row in rows
        ]
    found = concerned(pa.Table.from_pylist(rows), withdrawn).to_pylist()
    assert found == [bool(kinds_of(row, withdrawn)) for row in rows]
    if not entries:
        assert not any(found)


def test_a_block_of_few_rows_goes_through_no_long_list(monkeypatch: pytest.MonkeyPatch) -> None:
    withdrawn = Withdrawn(frozenset(("blob_id", f"b{n}") for n in range(1000)))
    table = pa.table({"blob_id": ["b7", None, "x"], "repository": ["b7", "b8", "b9"]})

    def gone_through(self: Withdrawn, kind: str) -> frozenset[str]:
        raise AssertionError

    monkeypatch.setattr(Withdrawn, "values", gone_through)
    assert concerned(table, withdrawn).to_pylist() == [True, False, False]


def test_a_withdrawn_seed_is_dropped_and_emptied() -> None:
    rows = [
        {"row_id": n, "source": "folder", "path": "p", "repository": n, "seed": "x = 1", "name": n}
        for n in "ab"
    ]
    rows[0]["drop_reason"] = "untyped"
    batch = pa.Table.from_pylist(rows, schema=schemas.SEED)
    found = marked(batch, Withdrawn(frozenset({("repository", "a")})))
    assert found.schema == schemas.SEED
    first, second = found.to_pylist()
    assert (first["drop_reason"], first["seed"], first["name"]) == ("withdrawn", None, None)
    assert (second["drop_reason"], second["seed"]) == (None, "x = 1")


def test_a_run_reads_neither_its_list_nor_what_was_withdrawn_from_it(
    run_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    assert not withdrawn_of(run_config())
    (tmp_path / "list.txt").write_text("a\n")
    cfg = run_config(f"seeds.read.withdrawn={tmp_path}/list.txt")
    record(tmp_path / "run" / RECORD, Withdrawn(frozenset({("seed_id", "s")})))
    assert withdrawn_of(cfg).entries == {(ANY, "a"), ("seed_id", "s")}
