"""`dataset/`: what `datasets.load_dataset` opens: Parquet files, a chat form and a card.

    README.md                                the card, and which files are which subset
    data/train-00000-of-00002-HASH.parquet   the subset `default`: every column
    messages/train-00000-of-...              the subset `messages`: the pairs as chats
    dataset.json                             what the card says that the rows do not

The same rows give the same bytes, whatever their batches were. The hash is that of a subset's
files: `datasets` knows what it has in its cache by the names of files alone, and would give old
rows, or those of another folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from selfalign_ray import schemas
from selfalign_ray.report.card import Counts, Facts, card
from selfalign_ray.report.exports import DATASET_COLUMNS, ORIGIN_COLUMNS, dataset_row, of_sample
from selfalign_ray.report.lines import SortedLines
from selfalign_ray.report.saved import Row, SavedStage
from selfalign_ray.stage import read_record, write_record, write_whole
from selfalign_ray.withdrawn import RECORD, Withdrawn, record

FOLDER, CARD, FACTS = "dataset", "README.md", "dataset.json"
DATA, MESSAGES = "data", "messages"
_ROWS_PER_GROUP = 1000  # of a file, in memory together when it is written or read
_SAMPLES = ("samples", "verdicts")  # which dataset_row reads
_TURN = pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())])
_CHAT = pa.schema(
    [
        pa.field("messages", pa.list_(_TURN)),
        pa.field("row_id", pa.string()),
        pa.field("sample_index", pa.int32()),
    ]
)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def published_schema() -> pa.Schema:
    """The columns of `default`: those of a line of the data set, and all others of SELECTED.

    A column that has an item for each sample, as `metrics` has, holds the chosen sample's alone.
    """
    selected = schemas.SELECTED
    names = [*ORIGIN_COLUMNS, "name", "line"]
    types = {
        "plain_instruction": pa.string(),
        "origin": pa.struct([pa.field(name, selected.field(name).type) for name in names]),
        **dict.fromkeys(("samples", "samples_executed", "samples_passed"), pa.int32()),
        "verdict": schemas.VERDICT,
    }
    first = dataset_row(dict.fromkeys(DATASET_COLUMNS))
    fields = [pa.field(n, types.get(n) or _one(selected.field(n).type)) for n in first]
    others = [selected.field(name) for name in _others(first)]
    return pa.schema([*fields, *(pa.field(f.name, _one(f.type)) for f in others)])


def published_row(row: Row) -> Row:
    """One row of `default`."""
    first = dataset_row(row)
    for name in _others(first):
        value = row[name]
        if _is_per_sample(schemas.SELECTED.field(name).type):
            value = of_sample(value or (), row["sample_index"])
        first[name] = value
    return first


def _others(row: Row) -> Iterator[str]:
    """The columns of the data set that a line of it does not have."""
    said = {*row, *row["origin"], *_SAMPLES, "final_instruction"}
    return (name for name in DATASET_COLUMNS if name not in said)


def _is_per_sample(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) and pa.types.is_struct(kind.value_type)
    return bool(is_list and kind.value_type.get_field_index("sample_index") >= 0)


def _one(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if _is_per_sample(kind) else kind


def sorted_rows(stage: SavedStage, scratch: Path, sort_mb: int) -> Iterator[Row]:
    """The data set's rows by `row_id` and `sample_index`, sorted on disk in the scratch file."""
    with SortedLines(scratch, sort_mb * 1024 * 1024) as lines:
        for batch in stage.batches(DATASET_COLUMNS, dropped=False):
            for row in batch.to_pylist():
                lines.add((row["row_id"], row["sample_index"] or 0), published_row(row))
    try:
        with scratch.open("rb") as found:
            for line in found:
                yield json.loads(line)
    finally:
        scratch.unlink()


def write_folder(
    folder: Path,
    rows: Iterable[Row],
    schema: pa.Schema,
    facts: Facts,
    withdrawn: Withdrawn | None = None,
) -> Counts:
    """Writes the whole folder beside the old one and changes the two over.

    Whoever ends it on the way leaves the old folder or the new one, not a part of either. The
    record of what was withdrawn from the old one stays.

    Args:
        folder: to write; of a link, what it leads to.
        rows: in their order; read once.
        schema: of `default`.
        facts: for the card.
        withdrawn: ids to add to the record.
    """
    folder = folder.resolve()  # else the link itself would be changed over
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of one that was ended
    part.mkdir(parents=True)
    if (folder / RECORD).exists():
        shutil.copy(folder / RECORD, part / RECORD)
    if withdrawn:
        record(part / RECORD, withdrawn)
    counts = Counts()
    size = facts["rows_per_file"]
    data, messages = _Files(part / DATA, schema, size), _Files(part / MESSAGES, _CHAT, size)
    with data, messages:
        for row in rows:
            data.add(row)
            messages.add(_chat(row))
            counts.add(row)
    files = {"default": data.pattern, "messages": messages.pattern}
    write_record(part / FACTS, facts)
    write_whole(part / CARD, card(facts, counts, files))
    _change_over(part, folder)
    return counts


def read_facts(folder: Path) -> Facts | None:
    """What a folder of ours says of itself; None where it is no such folder."""
    facts = read_record(folder / FACTS)
    return facts if facts and "run" in facts and "rows_per_file" in facts else None


def files_of(folder: Path, subset: str) -> list[Path]:
    """A subset's files in order."""
    return sorted((folder / subset).glob("*.parquet"))


def rows_of(folder: Path) -> Iterator[pa.Table]:
    """The rows of `default`, in order, a row group at a time."""
    for path in files_of(folder, DATA):
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


def _chat(row: Row) -> Row:
    pair = (("user", row["instruction"]), ("assistant", row["response"]))
    turns = [{"role": role, "content": text} for role, text in pair]
    return {"messages": turns, "row_id": row["row_id"], "sample_index": row["sample_index"]}


class _Files:
    """Parquet files of so many rows; without a row there is one that is empty."""

    def __init__(self, folder: Path, schema: pa.Schema, rows_per_file: int) -> None:
        folder.mkdir()
        self.pattern = ""  # of the files' paths in the folder above, when all are written
        self._folder, self._schema, self._rows_per_file = folder, schema, rows_per_file
        self._waiting: list[Row] = []
        self._paths: list[Path] = []
        self._in_file = 0
        self._stack = contextlib.ExitStack()
        self._open()

    def __enter__(self) -> _Files:
        return self

    def add(self, row: Row) -> None:
        if self._in_file == self._rows_per_file:
            self._flush()
            self._stack.close()
            self._open()
        self._waiting.append(row)
        self._in_file += 1
        if len(self._waiting) == _ROWS_PER_GROUP:
            self._flush()

    def __exit__(self, kind: object, *_: object) -> None:
        with self._stack:
            if kind is None:
                self._flush()
        if kind is None:
            end = f"of-{len(self._paths):05d}-{_digest(self._paths)}.parquet"
            for number, path in enumerate(self._paths):
                path.rename(path.with_name(f"train-{number:05d}-{end}"))
            self.pattern = f"{self._folder.name}/train-*-{end}"

    def _open(self) -> None:
        path = self._folder / f"{len(self._paths)}.part"
        writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._writer = self._stack.enter_context(writer)
        self._paths.append(path)
        self._in_file = 0

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=self._schema))
            self._waiting = []


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


def _change_over(new: Path, old: Path) -> None:
    """Puts the new folder in the old one's place, and removes the old one."""
    if not old.exists():
        new.rename(old)
        return
    if not _exchange(new, old):  # a file system that cannot; for a moment there is none
        aside = old.with_name(f".{old.name}.old")
        shutil.rmtree(aside, ignore_errors=True)
        old.rename(aside)
        new.rename(old)
        new = aside
    shutil.rmtree(new)


def _exchange(one: Path, other: Path) -> bool:
    """Changes two paths over in one step, if the file system can."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    paths = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other))
    done: Any = rename(*paths, _RENAME_EXCHANGE)
    return bool(done == 0)
