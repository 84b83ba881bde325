"""A stage: one named step from a Dataset to a Dataset, and what it leaves on disk.

`<run_dir>/stages/<name>/` holds `begun.json`, which is written first and says of which settings
and inputs the rows are; `rows/`, shards (shards.py) with every row that the stage saw, the dropped
ones with their reason; `spent.json` (spent.py); and `manifest.json`, which is written last: a
folder without one is not whole.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset
from ray.data.expressions import col

from selfalign_ray.config import RunConfig
from selfalign_ray.errors import UserError
from selfalign_ray.hops.config import HOP_NAMES
from selfalign_ray.places import Place, at, batches_at, make, remove, replacing, shards_of, stored
from selfalign_ray.shards import ShardSink, write_table
from selfalign_ray.watch.metrics import ROWS
from selfalign_ray.watch.tally import count

log = logging.getLogger(__name__)

KEPT = "kept"
FORMAT = 2  # of what a stage leaves on disk
BEGUN, SPENT, MANIFEST = "begun.json", "spent.json", "manifest.json"
# By a name for people, the state of what a stage reads from outside; None: it is not there.
Inputs = dict[str, str | None]
# Other than the stages' own, so that Ray does not fuse writing with them: the rows of a whole file
# would be one task's, from the first stage of the group on.
_WRITE_CPUS = 0.5
# Their rows leave actors, which count them, in small blocks. To bring those into their schema is
# part of the writing: else Ray would have a task for each.
_IN_ACTORS = (*HOP_NAMES, "docstring_judge", "execution", "strength", "cross_execution", "judge")


def no_inputs(_: RunConfig) -> Inputs:
    """Of a stage that reads nothing but its rows."""
    return {}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One row of the table in pipeline.py."""

    name: str  # also its module, its section of the config and its folder
    run: Callable[..., Dataset]  # of a Dataset, None where there is nothing above, and RunConfig
    gives: pa.Schema  # of the rows after it
    needs: tuple[str, ...]  # columns without which it cannot begin
    decides: Callable[[RunConfig], Any]  # the settings that decide its rows, less run_seed
    inputs: Callable[[RunConfig], Inputs] = no_inputs  # what else decides them, as it is now
    says: Callable[[RunConfig], Any] | None = None  # what its manifest tells of them
    saves: bool = False  # else it is fused into the next that does
    hop: str | None = None  # of the recipe, whose engines it asks
    whole: bool = False  # it sees all rows at once, or makes more of one: redone from its start


@dataclass(frozen=True)
class Saved:
    """A stage's folder, which lies in a store where the run_dir stands for one."""

    run_dir: Path
    name: str

    @property
    def folder(self) -> Place:
        return stored(self.run_dir) / "stages" / self.name

    @property
    def rows(self) -> Place:
        return self.folder / "rows"

    def manifest(self) -> dict[str, Any] | None:
        """What the stage wrote last; None where it did not get that far."""
        return read_manifest(self.folder)

    def begun(self) -> dict[str, Any] | None:
        """What the stage wrote first; None where it is not known of which settings its rows are.

        Raises:
            UserError: another version of this package wrote it.
        """
        return read_begun(self.folder)

    def complete(self, fingerprint: str) -> dict[str, Any] | None:
        """The manifest, where the folder is whole and was made with these settings of all rows."""
        manifest = self.manifest()
        if manifest is None or manifest["fingerprint"] != fingerprint or manifest.get("partial"):
            return None
        return manifest

    def kept(self) -> Dataset:
        """The saved rows without a drop_reason."""
        where, system = at(self.rows)
        return ray.data.read_parquet(where, filesystem=system).filter(
            expr=col("drop_reason").is_null()
        )

    def begin(self, record: Mapping[str, Any], *, anew: bool) -> None:
        """Makes the folder ready for rows.

        Args:
            record: for `begun.json`.
            anew: without the rows that are there.
        """
        remove(self.folder / MANIFEST)
        if anew:
            remove(self.folder)
        make(self.rows)
        write_record(self.folder / BEGUN, record)

    def write(self, rows: Dataset | None, schema: pa.Schema, rows_per_file: int) -> dict[str, int]:
        """Runs the dataset and adds its rows to those that are there; None adds none.

        Returns:
            The number of all rows for each drop_reason, and for `kept`.

        Raises:
            pyarrow.ArrowInvalid: a block does not fit the schema.
        """
        make(self.rows)
        if rows is not None:
            conform = partial(conformed, schema=schema, stage=self.name)
            fused = _WRITE_CPUS if self.name in _IN_ACTORS else None
            rows.map_batches(
                conform, batch_format="pyarrow", batch_size=None, num_cpus=fused
            ).write_datasink(
                ShardSink(self.rows, rows_per_file), ray_remote_args={"num_cpus": _WRITE_CPUS}
            )
        if not shards_of(self.rows):
            write_table(self.rows / "empty.parquet", [], schema)
        return count_by_reason(self.rows)

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Writes the manifest: from here on the stage is whole."""
        write_record(self.folder / MANIFEST, manifest)


def read_manifest(folder: Place) -> dict[str, Any] | None:
    """What a stage or a run wrote last; None where it did not get that far."""
    return read_record(folder / MANIFEST)


def read_begun(folder: Place) -> dict[str, Any] | None:
    """What a stage wrote first, out of its manifest where that is lost.

    Raises:
        UserError: another version of this package wrote it.
    """
    found = read_record(folder / BEGUN) or read_manifest(folder)
    if found is not None and found.get("format") != FORMAT:
        raise UserError(
            f"{folder}: has the format {found.get('format', 0)} of another version of this "
            f"package, which reads {FORMAT}; give the run another name, or take that version"
        )
    return found


def read_record(path: Place) -> dict[str, Any] | None:
    """What `write_record` wrote; None where there is nothing, or nothing that can be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        log.warning("%s is broken and counts for nothing: %s", path, error)
        return None
    return record if isinstance(record, dict) else None


def write_record(path: Place, record: Mapping[str, Any]) -> None:
    """Writes plain data for `read_manifest` or `read_begun`."""
    write_whole(path, json.dumps(record, indent=2) + "\n")


def recount(folder: Place) -> None:
    """Brings a stage's manifest in line with its rows."""
    manifest = read_manifest(folder)
    if manifest is not None:
        write_record(folder / MANIFEST, manifest | {"rows": count_by_reason(folder / "rows")})


def write_whole(path: Place, content: str | bytes) -> None:
    """Writes a file that no reader ever sees half of; a text as UTF-8."""
    data = content.encode() if isinstance(content, str) else content
    if not isinstance(path, Path):
        path.write_bytes(data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(data)


def now() -> str:
    """The time, UTC, ISO 8601."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def fingerprint_of(settings: Any) -> str:
    """Twelve hex digits that change with any of the settings (plain data)."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def count_by_reason(folder: Place) -> dict[str, int]:
    """Rows of a saved stage for each drop_reason, most first after `kept`."""
    reasons: dict[str, int] = {KEPT: 0}
    for batch in batches_at(folder, ["drop_reason"]):
        for pair in pc.value_counts(batch.column("drop_reason")).to_pylist():
            reason = pair["values"] or KEPT
            reasons[reason] = reasons.get(reason, 0) + pair["counts"]
    first, *others = reasons.items()
    return dict([first, *sorted(others, key=lambda item: (-item[1], item[0]))])


def conformed(block: pa.Table, *, schema: pa.Schema, stage: str) -> pa.Table:
    """A block in the schema that its stage gives, and its rows counted.

    Raises:
        pyarrow.ArrowInvalid: it does not fit.
    """
    if block.num_rows == 0:
        return schema.empty_table()
    if stage not in _IN_ACTORS:
        count(stage, rows=block.num_rows)
    reasons = pc.value_counts(block.column("drop_reason")).to_pylist()
    count(f"{stage}{ROWS}", **{pair["values"] or KEPT: pair["counts"] for pair in reasons})
    for field in schema:
        if field.name not in block.column_names:
            block = block.append_column(field.name, pa.nulls(block.num_rows, field.type))
    return block.select(schema.names).cast(schema)
