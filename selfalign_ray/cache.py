"""Finished and half-finished stages of all runs, for the runs that would do the same again.

A stage lies in `stages.cache` as `<name>-<fingerprint>-<source>`, where the last part stands for
the very rows that came into it and for what else it read: weights, benchmarks. Files are hard links
where the file system has them: nothing that holds rows is ever changed in place.

On a file system an entry is linked elsewhere and gets its name when it is whole. In a store each
putting makes an entry of its own, with one more part to its name. Its manifest is written last and
deleted first, so that what is read meanwhile is a stage that was ended.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from selfalign_ray.places import Place, copy, exists, folders_in, make, remove, shards_of, stored
from selfalign_ray.shards import take_out
from selfalign_ray.stage import (
    BEGUN,
    FORMAT,
    MANIFEST,
    SPENT,
    Saved,
    count_by_reason,
    read_begun,
    read_manifest,
    read_record,
    write_record,
)
from selfalign_ray.withdrawn import KINDS, Withdrawn, concerned

log = logging.getLogger(__name__)

REPLACED = "replaced"  # in a run_dir: what lies in no cache
_UNREADABLE = (OSError, pa.ArrowInvalid)  # what befalls whoever reads another's files
_STALE_SECONDS = 86_400.0  # no stage takes that long to be linked or copied


@dataclass(frozen=True)
class Cache:
    """Where a run looks for stages that are done, and leaves its own."""

    folder: Place | None  # shared by runs; None: there is none
    run_dir: Path

    def publish(self, saved: Saved) -> None:
        """Puts a whole stage into the cache; in place of one of the same rows that is there."""
        entry = entry_of(saved)
        if self.folder is None or entry is None:
            return
        ours = read_manifest(saved.folder)
        if ours is None or ours.get("partial"):
            return
        if _twin_of(saved, self.folder, entry) is not None:
            return
        try:
            _put(saved.folder, self.folder / entry)
        except OSError as error:  # the run has its rows
            log.warning("stages.cache: cannot put %s into %s: %s", saved.name, self.folder, error)

    def put_away(self, saved: Saved) -> Place:
        """Takes a stage of other settings out of the run_dir; gives where it is then."""
        entry = entry_of(saved)
        self.publish(saved)
        if self.folder is not None and entry is not None:
            if saved.manifest() is None and not _readable(self.folder, entry):
                with contextlib.suppress(OSError):
                    _put(saved.folder, self.folder / entry)
            if (twin := _twin_of(saved, self.folder, entry)) is not None:
                _remove(saved.folder)
                return twin
        target = stored(self.run_dir) / REPLACED / (entry or f"{saved.name}-unreadable")
        _remove(target)
        if isinstance(target, Path):
            target.parent.mkdir(exist_ok=True)
            saved.folder.rename(target)
        else:
            _link(saved.folder, target)
            _remove(saved.folder)
        return target

    def take(self, saved: Saved, entry: str, withdrawn: Withdrawn) -> Place | None:
        """Links a stage into the run_dir, whole or not, less what is withdrawn.

        Returns:
            Where it is from; None where there is none.
        """
        places = [stored(self.run_dir) / REPLACED, *([self.folder] if self.folder else [])]
        found = [version for place in places for version in _readable(place, entry)]
        found.sort(key=lambda version: version.manifest is None)  # the whole ones first
        for place, _ in found:
            try:
                _take(place, saved, withdrawn)
            except _UNREADABLE as error:  # somebody has put another in its place meanwhile
                log.warning("stages.cache: cannot take %s: %s", place, error)
                continue
            return place
        return None


def entry_of(saved: Saved) -> str | None:
    """The name of a stage's entry in the cache; None where nobody knows what came into it."""
    record = saved.begun()
    if record is None or not record.get("source"):
        return None
    return entry_name(saved.name, record["fingerprint"], record["source"])


def entry_name(stage: str, fingerprint: str, source: str) -> str:
    """The name of a stage's entry in the cache."""
    return f"{stage}-{fingerprint}-{source}"


def entries(folder: Place) -> Iterator[Place]:
    """The stages in a cache."""
    for found in folders_in(folder):
        if exists(found / "rows"):
            yield found


def _versions(folder: Place, entry: str) -> list[Place]:
    """The folders of an entry: one at most on a file system, in a store one of each putting."""
    if isinstance(folder, Path):
        return [folder / entry] if (folder / entry / "rows").is_dir() else []
    return [
        found for found in folders_in(folder) if found.name == entry or _is_version(found, entry)
    ]


def _is_version(folder: Place, entry: str) -> bool:
    return folder.name.startswith(f"{entry}-")


class _Version(NamedTuple):
    """One of the folders of an entry."""

    place: Place
    manifest: dict[str, Any] | None


def _readable(folder: Place, entry: str) -> list[_Version]:
    """The folders of an entry that say what they are; what cannot be read counts for nothing.

    Others may have put it there, who alone can read it, or another version of this package.
    """
    try:
        places = _versions(folder, entry)
    except OSError as error:
        _warn(folder / entry, error)
        return []
    return [version for place in places if (version := _read(place)) is not None]


def _read(place: Place) -> _Version | None:
    try:
        manifest = read_manifest(place)
        record = read_record(place / BEGUN) or manifest
    except OSError as error:
        _warn(place, error)
        return None
    if record is not None and record.get("format") != FORMAT:
        log.warning("stages.cache: %s is another version's and counts for nothing", place)
        return None
    return None if record is None else _Version(place, manifest)


def _warn(place: Place, error: OSError) -> None:
    log.warning("stages.cache: %s cannot be read and counts for nothing: %s", place, error)


def _twin_of(saved: Saved, folder: Place, entry: str) -> Place | None:
    """What of an entry stands for a stage: it has its shards, and its manifest if there is one."""
    ours = saved.manifest()
    names = {path.name for path in shards_of(saved.rows)}
    for place, theirs in _readable(folder, entry):
        if ours is not None and (theirs is None or theirs.get("id") != ours.get("id")):
            continue
        try:
            if names <= {path.name for path in shards_of(place / "rows")}:
                return place
        except OSError as error:
            _warn(place, error)
    return None


def _take(place: Place, saved: Saved, withdrawn: Withdrawn) -> None:
    """Makes the stage's folder a copy of another, less what is withdrawn."""

    def gone(table: pa.Table) -> pa.ChunkedArray:
        return concerned(table, withdrawn)

    target = saved.folder
    if not isinstance(target, Path):
        _take_into_store(place, target, gone if withdrawn else None)
        return
    part = target.with_name(f".{saved.name}.{uuid.uuid4().hex}.part")
    try:
        _link(place, part)
        shards = shards_of(part / "rows") if withdrawn else []
        went = sum(take_out(path, gone, KINDS) for path in shards)
        if (manifest := read_manifest(part)) is not None:
            write_record(part / MANIFEST, _recounted(manifest, part, went))
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _take_into_store(place: Place, target: Place, gone: Callable[[pa.Table], Any] | None) -> None:
    """The same where nothing is renamed: no row that goes is ever there."""
    try:
        write_record(target / BEGUN, read_begun(place) or {})
        went = 0
        for path in shards_of(place / "rows"):
            into = target / "rows" / path.name
            number = take_out(path, gone, KINDS, into=into) if gone else 0
            went += number
            if not number:
                copy(path, into)
        with contextlib.suppress(FileNotFoundError):
            copy(place / SPENT, target / SPENT)
        if (manifest := read_manifest(place)) is not None:
            write_record(target / MANIFEST, _recounted(manifest, target, went))
    except _UNREADABLE:
        remove(target)  # the rows of another entry are to be in no shard twice
        raise


def _recounted(manifest: dict[str, Any], folder: Place, went: int) -> dict[str, Any]:
    """The manifest of a stage of which some rows went.

    Raises:
        OSError: others are not there either; somebody deletes what it is taken from.
    """
    counts = count_by_reason(folder / "rows")
    if lost := sum(manifest["rows"].values()) - went - sum(counts.values()):
        raise OSError(f"{lost} of its rows are not there")
    return manifest | {"rows": counts}


def _remove(folder: Place) -> None:
    """Deletes a stage's folder; ended midway, it leaves no stage with some of its rows."""
    if not isinstance(folder, Path):
        for path in (folder / MANIFEST, folder / BEGUN, folder):
            remove(path)
        return
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.part")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(part)
        shutil.rmtree(part)


def _put(folder: Place, target: Place) -> None:
    """Makes the target a copy of a stage's folder, in one step as far as readers see."""
    if not isinstance(target, Path):
        _put_into_store(folder, target)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(".*.part"):  # by runs that were killed
        if _is_stale(left):
            shutil.rmtree(left, ignore_errors=True)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    old = part.with_suffix(".old")
    try:
        _link(folder, part)
        if target.exists():
            with contextlib.suppress(FileNotFoundError):  # another run was quicker
                target.rename(old)
        with contextlib.suppress(FileExistsError):
            try:
                part.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
    finally:
        for path in (part, old):
            shutil.rmtree(path, ignore_errors=True)


def _put_into_store(folder: Place, target: Place) -> None:
    old = _readable(target.parent, target.name)
    _link(folder, target.with_name(f"{target.name}-{uuid.uuid4().hex[:8]}"))
    for place, manifest in old:
        # What is not whole may be on its way: without some of its rows it would be taken for whole.
        if manifest is not None or _is_stale(place / BEGUN):
            _remove(place)


def _is_stale(path: Place) -> bool:
    try:
        return bool(time.time() - path.stat().st_mtime > _STALE_SECONDS)
    except FileNotFoundError:
        return False


def _link(folder: Place, target: Place) -> None:
    """Makes a folder with the same records and shards, the manifest last."""
    make(target / "rows")
    with contextlib.suppress(FileNotFoundError):
        copy(folder / BEGUN, target / BEGUN)
    for path in shards_of(folder / "rows"):
        copy(path, target / "rows" / path.name)
    for name in (SPENT, MANIFEST):
        with contextlib.suppress(FileNotFoundError):
            copy(folder / name, target / name)
