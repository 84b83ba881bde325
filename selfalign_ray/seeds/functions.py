"""functions: the top-level functions of each file, with the imports and constants that they use."""

from __future__ import annotations

import functools as ft
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from ray.data import Dataset

from selfalign_ray import schemas
from selfalign_ray.blocks import by_block
from selfalign_ray.config import RunConfig
from selfalign_ray.ids import content_id
from selfalign_ray.seeds.child import Died, Limits, answers
from selfalign_ray.seeds.config import FunctionsConfig, QualityConfig
from selfalign_ray.seeds.snippets import FileSnippets, snippets

# What a function's row has of its file's.
_ORIGIN = [*(field.name for field in schemas.ORIGIN if field.name != "row_id"), "place_id"]


def functions(ds: Dataset, cfg: RunConfig) -> Dataset:
    """One row for each function at the top level of a file; methods and classes by choice.

    Functions inside functions and conditions are no seeds. A function whose file has a syntax
    error elsewhere is one. What a rule of `seeds.quality` is sure to refuse by the text alone
    (rules.py) is dropped here, with the rule's reason, before its context is looked for: it is
    most, and the context is most of the work. Its `seed` is the bare function.

    Args:
        ds: `schemas.FILE` rows.
        cfg: the run's settings.

    Returns:
        `schemas.SEED` rows: each function of a file in turn, or one row for a file that has none
        or was dropped before. Drop reasons: no_functions; parse_failed, no function but a syntax
        error; syntax_error, in the function; too_long, by `functions.max_chars`; parse_timeout and
        parser_died, a file on which the parser ran out of time, or of memory or crashed.
    """
    work = ft.partial(extract, settings=cfg.seeds.functions, rules=cfg.seeds.quality)
    return by_block(ds, work, concurrency=cfg.seeds.concurrency)


def extract(files: pa.Table, *, settings: FunctionsConfig, rules: QualityConfig) -> pa.Table:
    """The functions of a block of files."""
    whole = files.to_pylist()
    items = [(file["content"], file["path"]) for file in whole if file["drop_reason"] is None]
    function = ft.partial(snippets, settings=settings, rules=rules)
    found = answers(function, items, limits_of(settings))
    rows: list[dict[str, Any]] = []
    for file in whole:
        if file["drop_reason"] is not None:
            rows.append(file)
        else:
            rows += _rows(file, next(found))
    return pa.Table.from_pylist(rows, schema=schemas.SEED)


def limits_of(settings: FunctionsConfig) -> Limits:
    """What a file or a function may take to be parsed."""
    return Limits(settings.parse_seconds, settings.parse_mb)


def _rows(file: dict[str, Any], found: FileSnippets | Died) -> Iterator[dict[str, Any]]:
    if isinstance(found, Died):
        yield {**file, "drop_reason": found.reason}
        return
    if not found.rows:
        yield {**file, "drop_reason": "no_functions" if found.intact else "parse_failed"}
    origin = {name: file[name] for name in _ORIGIN}
    for index, row in enumerate(found.rows):
        yield {
            **origin,
            **row,
            "row_id": content_id(file["row_id"], str(index)),
            "functions": len(found.rows),
            "function_index": index,
            "seed_id": content_id(row["seed"]) if row["seed"] is not None else None,
        }
