"""Finished and half-finished stages of all runs, for the runs that would do the same again.

A stage lies in `stages.cache` as `<name>-<fingerprint>-<source>`, where the last part stands for
the very rows that came into it. Files are hard links where the file system has them: nothing that
holds rows is ever changed in place.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from selfalign_ray.shards import take_out
from selfalign_ray.stage import BEGUN, MANIFEST, SPENT, Saved, read_begun, read_manifest, recount
from selfalign_ray.withdrawn import KINDS, Withdrawn, concerned

log = logging.getLogger(__name__)

REPLACED = "replaced"  # in a run_dir: what lies in no cache
_STALE_SECONDS = 86_400.0  # no stage takes that long to be linked or copied


@dataclass(frozen=True)
class Cache:
    """Where a run looks for stages that are done, and leaves its own."""

    folder: Path | None  # shared by runs; None: there is none
    run_dir: Path

    def publish(self, saved: Saved) -> None:
        """Puts a whole stage into the cache; in place of one of the same rows that is there."""
        entry = entry_of(saved)
        if self.folder is None or entry is None:
            return
        target = self.folder / entry
        ours, theirs = read_manifest(saved.folder), read_manifest(target)
        if (
            ours is None
            or ours.get("partial")
            or (theirs is not None and theirs.get("id") == ours.get("id"))
        ):
            return
        try:
            _put(saved.folder, target)
        except OSError as error:  # the run has its rows
            log.warning("stages.cache: cannot put %s into %s: %s", saved.name, self.folder, error)

    def put_away(self, saved: Saved) -> Path:
        """Takes a stage of other settings out of the run_dir; gives where it is then."""
        entry = entry_of(saved)
        self.publish(saved)
        if self.folder is not None and entry is not None:
            target = self.folder / entry
            if saved.manifest() is None and not target.exists():
                with contextlib.suppress(OSError):
                    _put(saved.folder, target)
            if _same(saved.folder, target):
                shutil.rmtree(saved.folder)
                return target
        target = self.run_dir / REPLACED / (entry or f"{saved.name}-unreadable")
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        saved.folder.rename(target)
        return target

    def take(self, saved: Saved, entry: str, withdrawn: Withdrawn) -> Path | None:
        """Links a stage into the run_dir, whole or not, less what is withdrawn.

        Returns:
            Where it is from; None where there is none.
        """
        places = [self.run_dir / REPLACED, *([self.folder] if self.folder else [])]
        found = [place / entry for place in places if (place / entry / "rows").is_dir()]
        found.sort(key=lambda place: read_manifest(place) is None)  # the whole ones first
        for place in found:
            if read_begun(place) is None:
                continue
            part = saved.folder.with_name(f".{saved.name}.{uuid.uuid4().hex}.part")
            try:
                _link(place, part)
                for path in (part / "rows").glob("*.parquet"):
                    take_out(path, lambda table: concerned(table, withdrawn), KINDS)
                recount(part)
                part.rename(saved.folder)
            except OSError as error:  # somebody has put another in its place meanwhile
                log.warning("stages.cache: cannot take %s: %s", place, error)
                shutil.rmtree(part, ignore_errors=True)
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


def entries(folder: Path) -> Iterator[Path]:
    """The stages in a cache."""
    yield from sorted(rows.parent for rows in folder.glob("*/rows"))


def _same(one: Path, other: Path) -> bool:
    """Whether the other folder stands for the one: the same whole stage, or the same shards."""
    ours, theirs = read_manifest(one), read_manifest(other)
    if ours is not None:
        return theirs is not None and theirs.get("id") == ours.get("id")
    return {p.name for p in (one / "rows").glob("*.parquet")} <= {
        p.name for p in (other / "rows").glob("*.parquet")
    }


def _put(folder: Path, target: Path) -> None:
    """Makes the target a copy of a stage's folder, in one step as far as readers see."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(".*.part"):  # by runs that were killed
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
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


def _link(folder: Path, target: Path) -> None:
    """Makes a folder with the same records and shards, the manifest last."""
    (target / "rows").mkdir(parents=True)
    for path in sorted((folder / "rows").glob("*.parquet")):
        _link_file(path, target / "rows" / path.name)
    for name in (BEGUN, SPENT, MANIFEST):
        with contextlib.suppress(FileNotFoundError):
            _link_file(folder / name, target / name)


def _link_file(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        shutil.copyfile(path, target)
