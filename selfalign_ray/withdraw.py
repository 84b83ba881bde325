"""`selfalign-withdraw`: takes rows, and all that was made from them, out of a finished data set.

selfalign-withdraw WHERE LIST    a run_dir, a folder dataset/ or a JSONL file; a list of ids
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selfalign_ray.cache import REPLACED, entries
from selfalign_ray.config import RunConfig, config_of
from selfalign_ray.errors import UserError
from selfalign_ray.job import sole
from selfalign_ray.mirror import fetched, push_notes
from selfalign_ray.places import (
    Place,
    exists,
    fault_of,
    local_dir,
    parquet,
    place_of,
    replacing,
    shards_of,
    stored,
)
from selfalign_ray.report.card import after_withdrawal, run_id
from selfalign_ray.report.dataset import DATA, FOLDER, files_of, read_facts, rows_of, write_folder
from selfalign_ray.report.projection import FOLDER as PLAN
from selfalign_ray.report.report import REPORT, dataset_dir, report_again
from selfalign_ray.report.saved import Row
from selfalign_ray.shards import take_out
from selfalign_ray.stage import BEGUN, read_manifest, read_record, recount
from selfalign_ray.withdrawn import (
    ANY,
    KINDS,
    RECORD,
    Entry,
    Withdrawn,
    concerned,
    kinds_of,
    read_list,
    record,
)


@dataclass
class Found:
    """What a list concerns, here."""

    ids: set[Entry] = field(default_factory=set)  # that rows of any file have, by kind
    row_ids: set[str] = field(default_factory=set)  # of those rows
    rows: dict[str, int] = field(default_factory=dict)  # that go, by file
    dataset_rows: Counter[str] = field(default_factory=Counter)  # that go, by kind
    problems: list[str] = field(default_factory=list)  # a sentence each


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code is 2 for a mistake of the user's."""
    options = _parser().parse_args(arguments)
    try:
        listed = read_list(options.list)
        found = withdraw(Path(local_dir(options.where)), listed, dry_run=options.dry_run)
    except UserError as error:
        sys.stderr.write(f"selfalign-withdraw: error: {error}\n")
        return 2
    except Exception as error:
        fault = fault_of([error], place_of(options.where))
        if fault is None and isinstance(error, OSError):
            fault = f"{error.filename}: {error.strerror}"
        if fault is None:
            raise
        sys.stderr.write(f"selfalign-withdraw: error: {fault}\n")
        return 2
    sys.stdout.write(told(found, listed, dry_run=options.dry_run))
    return 1 if found.problems else 0


def withdraw(where: Path, withdrawn: Withdrawn, *, dry_run: bool) -> Found:
    """Takes the rows out; done again, or gone on with after it was ended, it does the rest.

    Of a run that is every file with rows in it: the exports, `dataset/`, the saved stages with
    those that were put aside, and the slice of a plan. The report and the counts of manifests and
    card are written anew. Each file is the old one or the new one at any time.

    Args:
        where: a run_dir, a folder that a run exported, or a JSONL file of a run. A folder or file
            that lies in its run_dir stands for the run, which else would write the rows again.
            What lies in a store is named by what stands for it here.
        withdrawn: the list.
        dry_run: only look.

    Raises:
        UserError: there is nothing of the kind, or a run is under way in it.
    """
    where = where.absolute()
    run_dir = next((p for p in (where, where.parent) if exists(stored(p) / "stages")), None)
    stands = run_dir == where or where.name == FOLDER or stored(where).is_file()
    if run_dir is not None and stands:
        with contextlib.nullcontext() if dry_run else sole(run_dir):
            return _from_run(run_dir, withdrawn, dry_run=dry_run)
    if where != stored(where):
        raise UserError(f"{stored(where)}: is no run_dir; of what lies in a store give the run")
    if read_facts(where) is None and not (where.is_file() and where.suffix == ".jsonl"):
        raise UserError(
            f"{where}: is no run_dir, no folder {FOLDER}/ of a run and no JSONL file of one"
        )
    found = Found()
    _look(where, withdrawn, found)
    found.rows = {where.name: _take(where, withdrawn, found, dry_run=dry_run)}
    if where.is_file() and not dry_run:
        record(where.with_name(RECORD), withdrawn)
    return found


def told(found: Found, withdrawn: Withdrawn, *, dry_run: bool) -> str:
    """What was found and done, for people."""
    lines = [f"{'would withdraw' if dry_run else 'withdrawn'}: {sum(found.rows.values()):,} rows"]
    lines += [f"  {name:<32} {number:>9,}" for name, number in found.rows.items()]
    for kind in KINDS:
        if ids := sum(name == kind for name, _ in found.ids):
            rows = found.dataset_rows[kind]
            lines.append(f"  by {kind}: {ids:,} found, {rows:,} rows of the data set")
    missing = sorted(
        value
        for kind, value in withdrawn.entries
        if not any((name, value) in found.ids for name in (KINDS if kind == ANY else [kind]))
    )
    lines += [f"  not found: {value}" for value in missing]
    lines += found.problems
    return "\n".join(lines) + "\n"


def _from_run(run_dir: Path, withdrawn: Withdrawn, *, dry_run: bool) -> Found:
    with fetched(run_dir, changes=not dry_run):
        found = _from_files(run_dir, withdrawn, dry_run=dry_run)
    plan = run_dir / PLAN
    if exists(stored(plan) / "stages"):
        slice_of_it = _from_run(plan, withdrawn, dry_run=dry_run)
        found.ids |= slice_of_it.ids
        found.rows |= {f"{PLAN}/{name}": number for name, number in slice_of_it.rows.items()}
        found.problems += slice_of_it.problems
    return found


def _from_files(run_dir: Path, withdrawn: Withdrawn, *, dry_run: bool) -> Found:
    manifest = read_manifest(run_dir)
    cfg = _config(manifest, run_dir)
    root = stored(run_dir)
    stages = [stage for kind in (REPLACED, "stages") for stage in entries(root / kind)]
    others = [stage for cache in _caches(stages) for stage in entries(cache)]
    places: list[Place] = [path for path in sorted(run_dir.glob("*.jsonl")) if path.name != RECORD]
    places += [folder for folder in _folders(run_dir, cfg) if read_facts(folder)]
    found = Found()
    for place in [*places, *stages]:
        _look(place, withdrawn, found)
    stages += [stage for stage in others if _could_look(stage, withdrawn, found)]
    if not dry_run:
        record(run_dir / RECORD, withdrawn)  # first: what is read again from now on lacks it
        push_notes(run_dir)
        (run_dir / REPORT).unlink(missing_ok=True)  # it shows rows
    for place in [*places, *stages]:  # the stages last: from them it is known what goes elsewhere
        number = _take(place, withdrawn, found, dry_run=dry_run)
        found.rows[_named(place, run_dir)] = number
    if not dry_run:
        for stage in stages:
            recount(stage)
        if cfg is not None and manifest is not None:
            problems = report_again(cfg, run_dir, manifest)
            found.problems += [f"the counts do not add up: {problem}" for problem in problems]
    return found


def _named(path: Any, run_dir: Path) -> str:
    """A file's or stage's path in its run, or whole where it lies elsewhere."""
    roots: list[Any] = [run_dir, stored(run_dir)]
    for root in roots:
        if isinstance(path, type(root)) and path.is_relative_to(root):
            return str(path.relative_to(root))
    return str(path)


def _folders(run_dir: Path, cfg: RunConfig | None) -> Iterator[Path]:
    """Where a run's data set may lie as a folder."""
    yield run_dir / FOLDER
    folder = dataset_dir(cfg) if cfg is not None else None
    if cfg and folder and (read_facts(folder) or {}).get("run") == run_id(cfg):
        yield folder


def _caches(stages: Sequence[Place]) -> list[Place]:
    """The caches into which these stages were put."""
    records = (read_manifest(stage) or read_record(stage / BEGUN) or {} for stage in stages)
    found = {cache for record in records if (cache := record.get("cache"))}
    return [place_of(cache) for cache in sorted(found)]


def _config(manifest: Mapping[str, Any] | None, run_dir: Path) -> RunConfig | None:
    """The settings of a run; None where it has not ended, or ended with other settings than ours.

    Its next end then writes the report.
    """
    with contextlib.suppress(UserError):
        if manifest:
            cfg = config_of(manifest["config"])
            # What stood for a store may have been another machine's.
            is_here = stored(run_dir) == run_dir
            return cfg if is_here else dataclasses.replace(cfg, run_dir=str(run_dir))
    return None


def _look(place: Place, withdrawn: Withdrawn, found: Found) -> None:
    """Adds what the list concerns in a file or folder."""
    for rows in _suspects(place, withdrawn):
        for row in rows:
            if kinds := kinds_of(row, withdrawn):
                found.ids.update(kinds)
                found.row_ids.update([row["row_id"]] if row.get("row_id") else [])


def _could_look(stage: Place, withdrawn: Withdrawn, found: Found) -> bool:
    """The same in a cache, where others leave what they alone can read."""
    try:
        _look(stage, withdrawn, found)
    except (OSError, pa.ArrowInvalid) as error:
        found.problems.append(f"cannot be read, and keeps what it has: {stage}: {error}")
        return False
    return True


def _suspects(place: Place, withdrawn: Withdrawn) -> Iterator[list[Row]]:
    if isinstance(place, Path) and place.is_file():
        yield from ([row] for row, _ in _lines(place))
        return
    for table in _tables(place):
        yield table.filter(concerned(table, withdrawn)).to_pylist()


def _tables(folder: Place) -> Iterator[pa.Table]:
    """The ids in a saved stage or a folder of ours, a batch at a time."""
    for path in shards_of(folder / DATA) or shards_of(folder / "rows"):
        file = parquet(path)
        names = [name for name in (*KINDS, "origin") if name in file.schema_arrow.names]
        for batch in file.iter_batches(columns=names):
            yield pa.table(batch)


def _take(place: Place, withdrawn: Withdrawn, found: Found, *, dry_run: bool) -> int:
    """Takes rows out of a file or folder, and says how many."""
    gone = Withdrawn(withdrawn.entries.union(("row_id", row_id) for row_id in found.row_ids))
    if isinstance(place, Path) and place.is_file():
        return _take_lines(place, gone, dry_run=dry_run)
    if not isinstance(place, Path) or read_facts(place) is None:
        return sum(_take_rows(path, gone, dry_run=dry_run) for path in shards_of(place / "rows"))
    lost = [row for rows in _suspects(place, gone) for row in rows]
    found.dataset_rows.update(kind for row in lost for kind, _ in kinds_of(row, gone)[-1:])
    if not dry_run:
        _take_from_folder(place, withdrawn, gone, len(lost))
    return len(lost)


def _take_from_folder(folder: Path, withdrawn: Withdrawn, gone: Withdrawn, number: int) -> None:
    facts = read_facts(folder)
    assert facts is not None
    tables = (table.filter(pc.invert(concerned(table, gone))) for table in rows_of(folder))
    rows = (row for table in tables for row in table.to_pylist())
    known = read_list(folder / RECORD).entries if (folder / RECORD).exists() else frozenset()
    ids = len(known | withdrawn.entries)
    schema = pq.read_schema(files_of(folder, DATA)[0])
    write_folder(folder, rows, schema, after_withdrawal(facts, number, ids), withdrawn)


def _take_rows(path: Place, gone: Withdrawn, *, dry_run: bool) -> int:
    """Takes rows out of a Parquet file of a saved stage."""
    if not dry_run:
        return take_out(path, lambda table: concerned(table, gone), KINDS)
    file = parquet(path)
    names = [name for name in KINDS if name in file.schema_arrow.names]
    batches = map(pa.table, file.iter_batches(columns=names))
    return sum(pc.sum(concerned(table, gone)).as_py() or 0 for table in batches)


def _take_lines(path: Path, gone: Withdrawn, *, dry_run: bool) -> int:
    number = sum(bool(kinds_of(row, gone)) for row, _ in _lines(path))
    if number and not dry_run:
        with replacing(path) as file:
            file.writelines(line for row, line in _lines(path) if not kinds_of(row, gone))
    return number


def _lines(path: Path) -> Iterator[tuple[Row, bytes]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}:{number}: no JSON ({error})") from error
            yield row if isinstance(row, dict) else {}, line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="selfalign-withdraw", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "where", metavar="WHERE", help="a run_dir (DIR or s3://...), a dataset/ or a JSONL file"
    )
    parser.add_argument(
        "list",
        type=Path,
        metavar="LIST",
        help=f"an id a line, or JSON lines with one of {', '.join(KINDS)}",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would go, and stop")
    return parser


if __name__ == "__main__":
    sys.exit(main())
