"""What the columns of a table say of a file: whether it is wanted, and its content."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from selfalign_ray.ids import content_id
from selfalign_ray.seeds.config import ColumnsConfig, WantedConfig
from selfalign_ray.seeds.headers import with_head
from selfalign_ray.seeds.licenses import judge
from selfalign_ray.seeds.sources import jsonl
from selfalign_ray.seeds.text import clean, decode

Record = dict[Any, Any]


def entries_of(record: Record, columns: ColumnsConfig) -> Iterator[Record]:
    """The files of a row: those of its list, or the row itself."""
    names = {name: column for name, column in vars(columns).items() if name != "files"}
    nested = record.get(columns.files) if columns.files is not None else None
    for item in nested if isinstance(nested, list) else [{}]:
        file = item if isinstance(item, dict) else {}
        entry = {name: _value(column, file, record) for name, column in names.items()}
        entry["problem"] = record.get(jsonl.PROBLEM)
        yield _coerced(entry)


def _value(column: str | None, file: Record, record: Record) -> Any:
    if column is None:
        return None
    value: Any = file if column.split(".")[0] in file else record
    for name in column.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _coerced(entry: Record) -> Record:
    """The entry with null for what is of no use: JSON may hold anything anywhere."""
    for name in ("blob", "encoding", "repository", "revision", "path", "license_type", "language"):
        value = entry[name]
        if value is not None:
            text = value if isinstance(value, str) else str(value)
            entry[name] = text.encode("utf-8", "replace").decode() or None
    for name in ("length", "stars"):
        value = entry[name]
        is_number = isinstance(value, int | float) and value == value
        entry[name] = int(value) if is_number and abs(value) < 2**63 else None
    if not isinstance(entry["content"], str | bytes):
        entry["content"] = None
    given = entry["licenses"]
    given = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    entry["licenses"] = sorted({name.strip() for name in given if isinstance(name, str)} - {""})
    return entry


def refusal(
    entry: Record, wanted: WantedConfig, licenses: Collection[str] | None, max_bytes: int
) -> str | None:
    """Why a file is not wanted, by its columns alone, or None."""
    if entry["problem"] is not None:
        return None  # it has none of them
    kind, length, stars = entry["license_type"], entry["length"], entry["stars"]
    if wanted.license_types is not None and kind is not None and kind not in wanted.license_types:
        return "license_not_allowed"
    _, reason = judge((tuple(entry["licenses"]),) if entry["licenses"] else (), licenses)
    rules = (
        (reason, reason is not None),
        ("vendored", not wanted.vendored and entry["vendored"] is True),
        ("generated", not wanted.generated and entry["generated"] is True),
        ("too_large", length is not None and length > max_bytes),
        ("too_small", length is not None and length < wanted.min_bytes),
        ("few_stars", stars is not None and stars < wanted.min_stars),
    )
    return next((reason for reason, holds in rules if holds), None)


def with_content(
    row: Record, entry: Record, max_bytes: int, licenses: Collection[str] | None
) -> Record:
    """The row with the entry's inline content, or the reason why it has none."""
    content = entry["content"]
    if content is None:
        return {**row, "drop_reason": entry["problem"] or "no_content"}
    if isinstance(content, bytes):
        return with_bytes(row, content, max_bytes, licenses)
    data = content.encode("utf-8", "surrogatepass")
    row["bytes"] = len(data)
    if len(data) > max_bytes:
        return {**row, "drop_reason": "too_large"}
    text, reason = clean(content)
    found = {"file_id": content_id(data), "content": text, "drop_reason": reason}
    return with_head({**row, **found}, licenses)


def with_bytes(
    row: Record, data: bytes, max_bytes: int, licenses: Collection[str] | None
) -> Record:
    """The row with the text of its file's bytes, or the reason why it has none."""
    row["bytes"] = len(data)
    if len(data) > max_bytes:
        return {**row, "drop_reason": "too_large"}
    text, reason = decode(data, row["encoding"])
    found = {"file_id": content_id(data), "content": text, "drop_reason": reason}
    return with_head({**row, **found}, licenses)
