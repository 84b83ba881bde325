"""The state of what a run reads from outside: so that other runs share no rows of other files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from selfalign_ray.config import RunConfig
from selfalign_ray.seeds.config import TableSource
from selfalign_ray.seeds.read import check_source, listed_files
from selfalign_ray.seeds.sources.storage import list_files, open_storage
from selfalign_ray.stage import Inputs, Stage
from selfalign_ray.start import files_at

PATH = "source.path"


def state_of_source(cfg: RunConfig) -> str:
    """A digest of the names, sizes and times of the files that the first rows come from.

    Of tables the names, sizes and the revision: what lies in an object store does not change.

    Raises:
        UserError: they cannot be listed.
    """
    if cfg.start.rows:
        return digest_of(_state(path) for path in files_at(cfg.start.rows))
    if isinstance(cfg.source, TableSource):
        storage = open_storage(cfg.source)
        revision = cfg.source.revision or storage.revision
        return digest_of([(revision,), *list_files(cfg.source, storage)])
    return digest_of(_state(file.location) for file in listed_files(cfg.source))


def check_first_rows(cfg: RunConfig) -> None:
    """That there is something where the first rows come from; none of it is read.

    Raises:
        UserError: there is not, or it cannot be listed.
    """
    if cfg.start.rows:
        files_at(cfg.start.rows)
    else:
        check_source(cfg.source)


def states_of_folders(names: Iterable[str | None]) -> Inputs:
    """The same of weights: of the files in each of the names that is a folder here.

    Less hidden files, which those leave there who fetch or lock the others.
    """
    folders = {name: Path(name).expanduser() for name in names if name}
    return {
        name: digest_of(_state(path) for path in folder.iterdir() if path.name[0] != ".")
        for name, folder in folders.items()
        if folder.is_dir()
    }


def states_of_tables(cfg: RunConfig) -> Inputs:
    """The path of the source's tables: on a hub that of a commit, where it is `pinned`."""
    return {PATH: cfg.source.path} if isinstance(cfg.source, TableSource) else {}


def inputs_of(stages: Sequence[Stage], cfg: RunConfig) -> Inputs:
    """What the stages read from outside besides their first rows, as it is now."""
    return {name: state for stage in stages for name, state in stage.inputs(cfg).items()}


def digest_of(states: Iterable[Any]) -> str:
    """A digest of the states, in whatever order they come."""
    total = 0
    for state in states:
        total += int.from_bytes(hashlib.sha256(repr(state).encode()).digest()[:16], "big")
    return f"{total % 2**128:032x}"


def _state(path: str | bytes | os.PathLike[str]) -> tuple[Any, ...]:
    try:
        found = os.stat(path)  # noqa: PTH116  a path may be bytes that are no text
    except OSError:
        return (os.fspath(path), None, None)
    return (os.fspath(path), found.st_size, found.st_mtime_ns)
