"""What may be in no data any more: a list of ids, and the rows that it concerns.

A list is a text file with an id a line, or JSON Lines such as {"repository": "owner/name"} with
one of KINDS, or `id` for whichever it is found as. Empty lines, and those that begin with `#` and
are no JSON, say nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from ray.data import Dataset

from selfalign_ray.blocks import by_block
from selfalign_ray.config import RunConfig
from selfalign_ray.errors import UserError
from selfalign_ray.stage import now, write_whole

KINDS = ("row_id", "seed_id", "file_id", "blob_id", "repository")
ANY = "id"
RECORD = "withdrawn.jsonl"  # in a run_dir, or beside what is no run's: itself a list
REASON = "withdrawn"
_CONTENTS = ("content", "seed", "definition", "name", "signature", "docstring")

Entry = tuple[str, str]  # a kind or ANY, and the id


@dataclass(frozen=True)
class Withdrawn:
    """The ids of some lists, each once."""

    entries: frozenset[Entry]

    def values(self, kind: str) -> frozenset[str]:
        """The ids that are sought as ids of a kind."""
        return frozenset(value for name, value in self.entries if name in (kind, ANY))

    def has(self, kind: str, value: str | None) -> bool:
        return (kind, value) in self.entries or (ANY, value) in self.entries

    def __bool__(self) -> bool:
        return bool(self.entries)


def read_list(path: Path) -> Withdrawn:
    """The ids of one list.

    Raises:
        UserError: it cannot be read, or a line is no entry, with its number.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the list of what is withdrawn cannot be read: {error}") from error
    entries = (_entry(line.strip(), f"{path}:{number}") for number, line in enumerate(lines, 1))
    return Withdrawn(frozenset(entry for entry in entries if entry is not None))


def withdrawn_of(cfg: RunConfig) -> Withdrawn:
    """What a run must not read: the list of its settings, and what was withdrawn from it before.

    Raises:
        UserError: a list cannot be read.
    """
    lists = [Path(cfg.seeds.read.withdrawn)] if cfg.seeds.read.withdrawn else []
    own = Path(cfg.run_dir) / RECORD
    lists += [own] if own.exists() else []
    return Withdrawn(frozenset(entry for path in lists for entry in read_list(path).entries))


def record(path: Path, withdrawn: Withdrawn) -> None:
    """Adds the ids that are new to a record, with the date; the record is itself a list."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    known = read_list(path).entries if old else frozenset()
    new = sorted(withdrawn.entries - known)
    if new:
        date = now()[:10]
        lines = (json.dumps({kind: value, "date": date}) + "\n" for kind, value in new)
        write_whole(path, old + "".join(lines))


def without_withdrawn(ds: Dataset, withdrawn: Withdrawn) -> Dataset:
    """The same rows; those that are withdrawn have the drop_reason `withdrawn` and no content."""
    if not withdrawn:
        return ds
    return by_block(ds, partial(marked, withdrawn=withdrawn))


def marked(batch: pa.Table, withdrawn: Withdrawn) -> pa.Table:
    """A block of files or seeds, with the withdrawn ones dropped and emptied."""
    gone = concerned(batch, withdrawn)
    for at, field in enumerate(batch.schema):
        if field.name in _CONTENTS:
            nothing = pa.scalar(None, field.type)
            emptied = pc.if_else(gone, nothing, batch[field.name])
            batch = batch.set_column(at, field, emptied)
    at = batch.schema.get_field_index("drop_reason")
    reasons = pc.if_else(gone, REASON, batch["drop_reason"].cast(pa.string()))
    return batch.set_column(at, "drop_reason", reasons)


def concerned(table: pa.Table, withdrawn: Withdrawn) -> pa.ChunkedArray:
    """For each row, whether an id of it is withdrawn; its ids may be in the struct `origin`.

    It takes the time of the rows, however long the lists are: blocks are many, and may be small.
    """
    found = pa.chunked_array([pa.array([False] * table.num_rows, pa.bool_())])
    for kind, column in id_columns(table):
        ids = column.cast(pa.string())
        if len(withdrawn.entries) < table.num_rows:
            gone = pc.is_in(ids, value_set=pa.array(withdrawn.values(kind), pa.string()))
        else:
            gone = pa.array([withdrawn.has(kind, i) for i in ids.to_pylist()], pa.bool_())
        found = pc.or_(found, gone)
    return found


def id_columns(table: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """The columns of ids that a table has, by kind."""
    origin = table["origin"] if "origin" in table.column_names else None
    for kind in KINDS:
        if kind in table.column_names:
            yield kind, table[kind]
        elif origin is not None and origin.type.get_field_index(kind) >= 0:
            yield kind, pc.struct_field(origin, kind)


def kinds_of(row: Mapping[str, Any], withdrawn: Withdrawn) -> list[Entry]:
    """The withdrawn ids of a row, each with the kind that it is of there; none: it may stay."""
    origin = row.get("origin")
    ids = {**(origin if isinstance(origin, Mapping) else {}), **row}
    asked = ((kind, ids.get(kind)) for kind in KINDS)
    return [(kind, v) for kind, v in asked if isinstance(v, str) and withdrawn.has(kind, v)]


def _entry(line: str, place: str) -> Entry | None:
    if not line:
        return None
    if not line.startswith("{"):
        return None if line.startswith("#") else (ANY, line)
    try:
        said = json.loads(line)
    except ValueError as error:
        raise UserError(f"{place}: no JSON ({error})") from error
    named = [(kind, said[kind]) for kind in (*KINDS, ANY) if said.get(kind) is not None]
    if len(named) != 1 or not isinstance(named[0][1], str) or not named[0][1]:
        raise UserError(f"{place}: a line names one text of {_either([*KINDS, ANY])}; got {line}")
    return named[0]


def _either(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}"
