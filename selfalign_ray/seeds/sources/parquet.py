"""Parquet files, a row group a part; only the columns that are asked for are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from selfalign_ray.seeds.config import TableSource

# Of a file that is cut short, is no Parquet, lacks a column, or cannot be opened. The middle of a
# file whose footer is whole may hold anything, and pyarrow says so with any of these.
ERRORS = (pa.ArrowException, OSError, EOFError, UnicodeDecodeError)

_ROWS = 64  # read together: a row may be a whole repository
_LISTS = {"list", "element", "item", "bag", "array", "array_element"}  # names writers give levels


def groups(system: pafs.FileSystem, path: str, _size: int, source: TableSource) -> Iterator[int]:
    """The row groups that may hold something listed.

    Raises:
        ArrowInvalid: a column is missing that the source cannot do without.
    """
    with pq.ParquetFile(path, filesystem=system) as file:
        known = {_plain(leaf) for leaf in _leaves(file)}
        columns, wanted = source.columns, source.wanted
        needed = [columns.content if source.fetch is None else columns.blob]
        needed += [columns.language] if wanted.languages is not None else []
        for name in needed:
            nested = f"{columns.files}.{name}"
            if name is not None and not any(_is_or_in(leaf, (name, nested)) for leaf in known):
                tops = ", ".join(sorted(file.schema_arrow.names))
                raise pa.ArrowInvalid(f"no column {name!r} (source.columns); it has {tops}")
        return iter([g for g in range(file.num_row_groups) if _may_hold(file, g, source)])


def records(
    system: pafs.FileSystem, path: str, group: int, source: TableSource, names: Sequence[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The named columns of each row of a group, with its number; not those of other languages."""
    with pq.ParquetFile(path, filesystem=system) as file:
        wanted = (*names, *(f"{source.columns.files}.{name}" for name in names))
        leaves = [leaf for leaf in _leaves(file) if _is_or_in(_plain(leaf), wanted)]
        first = 0
        for batch in file.iter_batches(_ROWS, [group], leaves, use_threads=False):
            rows = _of_languages(batch, source)
            picked = (
                batch if len(rows) == batch.num_rows else batch.take(pa.array(rows, pa.int64()))
            )
            yield from zip((first + row for row in rows), picked.to_pylist(), strict=True)
            first += batch.num_rows


def _of_languages(batch: pa.RecordBatch, source: TableSource) -> list[int]:
    """The rows of the languages asked for; all where the language stands in the files' list."""
    column, languages = source.columns.language, source.wanted.languages
    if languages is None or column not in batch.schema.names:
        return list(range(batch.num_rows))
    mask = pc.is_in(batch.column(column), pa.array(languages, pa.string()))
    return [row for row, holds in enumerate(mask.to_pylist()) if holds]


def _may_hold(file: pq.ParquetFile, group: int, source: TableSource) -> bool:
    """False where the statistics say that no row of the group has a language asked for."""
    languages, place = source.wanted.languages, _place(file, source.columns.language)
    if languages is None or place is None:
        return True
    statistics = file.metadata.row_group(group).column(place).statistics
    if statistics is None or not statistics.has_min_max:
        return True
    return any(statistics.min <= language <= statistics.max for language in languages)


def _place(file: pq.ParquetFile, column: str | None) -> int | None:
    leaves = _leaves(file)
    return leaves.index(column) if column in leaves else None


def _leaves(file: pq.ParquetFile) -> list[str]:
    return [file.schema.column(place).path for place in range(len(file.schema))]


def _plain(leaf: str) -> str:
    """A leaf's path without the levels of its lists."""
    first, *others = leaf.split(".")
    return ".".join([first, *(name for name in others if name not in _LISTS)])


def _is_or_in(leaf: str, names: tuple[str, ...]) -> bool:
    return any(leaf == name or leaf.startswith(f"{name}.") for name in names)
