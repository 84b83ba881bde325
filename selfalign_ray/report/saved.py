"""The saved stages that led to a run's last rows, and their rows in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from selfalign_ray.places import Place, batches_at
from selfalign_ray.stage import Saved

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class SavedStage:
    """One whole folder below `stages/`."""

    name: str
    group: tuple[str, ...]  # the stages whose work it holds, itself the last
    manifest: Mapping[str, Any]
    rows: Place
    rows_per_batch: int
    gives_dataset: bool  # whether its kept rows are the data set

    def batches(self, columns: Sequence[str], *, dropped: bool | None = None) -> Iterator[pa.Table]:
        """The rows, a batch at a time, in no order that means anything.

        Args:
            columns: of which those that the stage does not have are null.
            dropped: only the dropped rows, only the kept ones, or all.
        """
        reason = pc.field("drop_reason")
        chosen = {None: None, True: reason.is_valid(), False: reason.is_null()}[dropped]
        for batch in batches_at(self.rows, columns, chosen, self.rows_per_batch):
            if batch.num_rows:
                table = pa.table(batch)
                for name in columns:
                    if name not in batch.schema.names:
                        table = table.append_column(name, pa.nulls(batch.num_rows))
                yield table.select(list(columns))


def chain(
    run_dir: Path, table: Sequence[str], rows_per_batch: int, dataset: str | None = None
) -> list[SavedStage]:
    """The saved stages from the first to the last of `table`, each fed by the one before it.

    A folder that another run with other stages left is no part of it.

    Args:
        run_dir: of the run.
        table: the names of the run's stages, in order.
        rows_per_batch: how many rows a stage's batches have at most.
        dataset: the name of the stage whose kept rows are the data set; None: none of them is.
    """
    found: list[SavedStage] = []
    end = len(table)
    while end > 0:
        saved = Saved(run_dir, table[end - 1])
        manifest = saved.manifest()
        if manifest is None:
            end -= 1  # a stage that the run did not reach
            continue
        group = tuple(manifest.get("stages") or [saved.name])
        found.append(
            SavedStage(
                name=saved.name,
                group=group,
                manifest=manifest,
                rows=saved.rows,
                rows_per_batch=rows_per_batch,
                gives_dataset=dataset in group,
            )
        )
        end = list(table).index(group[0]) if group[0] in table else 0
    return found[::-1]


def holding(stages: Sequence[SavedStage], name: str) -> SavedStage | None:
    """The saved stage that holds a stage's work."""
    return next((stage for stage in stages if name in stage.group), None)


def last_seen(
    stages: Sequence[SavedStage], names: Sequence[str], columns: Sequence[str]
) -> Iterator[pa.Table]:
    """Each row that entered the named stages once, as the last of them that saw it left it."""
    concerned = [stage for stage in stages if set(stage.group) & set(names)]
    for stage in concerned[:-1]:
        yield from stage.batches(columns, dropped=True)
    if concerned:
        yield from concerned[-1].batches(columns)
