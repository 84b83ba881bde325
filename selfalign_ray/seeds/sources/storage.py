"""Where tables lie: folders, object stores, hubs; listed and opened with patience."""

from __future__ import annotations

import dataclasses
import functools as ft
import json
import logging
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import fsspec
import pyarrow as pa
import pyarrow.fs as pafs
from fsspec.utils import glob_translate

from selfalign_ray.errors import UserError, first_line
from selfalign_ray.seeds.config import RetryConfig, TableSource
from selfalign_ray.watch.masking import public_url

log = logging.getLogger(__name__)
T = TypeVar("T")

_HUB = re.compile(r"hf://datasets/([^/@]+/[^/@]+)")
_WILD = re.compile(r"[*?\[]")
_THROTTLED = re.compile(r"\b(429|503)\b|SLOW_?DOWN|TOO MANY REQUESTS|THROTTL", re.IGNORECASE)


class Storage(NamedTuple):
    """A file system and a path, folder or glob in it."""

    system: pafs.FileSystem
    path: str
    revision: str | None  # the commit, on a hub


class _Told(pafs.FSSpecHandler):  # type: ignore[misc]
    """fsspec for pyarrow, which says why something cannot be had.

    pyarrow's own asks first whether the path is a file or a folder, and hears no where a store only
    asks to slow down.
    """

    def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
        infos = []
        for path in paths:
            try:
                infos.append(self._create_file_info(path, self.fs.info(path)))
            except FileNotFoundError as error:
                if is_throttled(error):
                    raise
                infos.append(pafs.FileInfo(path, pafs.FileType.NotFound))
        return infos

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        depth = None if selector.recursive else 1
        found = self.fs.find(selector.base_dir, maxdepth=depth, withdirs=True, detail=True)
        base = selector.base_dir.strip("/")
        return [
            self._create_file_info(path, info)
            for path, info in found.items()
            if path.strip("/") != base
        ]

    def open_input_stream(self, path: str) -> pa.PythonFile:
        return pa.PythonFile(self.fs.open(path, mode="rb"), mode="r")

    def open_input_file(self, path: str) -> pa.PythonFile:
        return self.open_input_stream(path)


def open_storage(source: TableSource) -> Storage:
    """The source's file system.

    Raises:
        UserError: there is none for the path, or it refuses its options.
    """
    try:
        return _opened(source)
    except (ImportError, ValueError, TypeError, OSError) as error:
        raise UserError(f"source.path: cannot open {source.path}: {first_line(error)}") from error


def file_system(source: TableSource) -> pafs.FileSystem:
    """The file system alone, as workers need it for paths that were pinned before."""
    return _system(source.path.partition("://")[0] if "://" in source.path else "", _key(source))[0]


def _key(source: TableSource) -> str:
    return json.dumps(source.storage, sort_keys=True)


@ft.cache
def _system(scheme: str, options: str) -> tuple[pafs.FileSystem, Any]:
    """The file system for a scheme, and fsspec's where it is one."""
    chosen = json.loads(options)
    if scheme in ("", "file"):
        return pafs.LocalFileSystem(**chosen), None
    if scheme == "s3":
        return pafs.S3FileSystem(**chosen), None
    if scheme in ("gs", "gcs"):
        return pafs.GcsFileSystem(**chosen), None
    system = fsspec.filesystem(scheme, **chosen)
    return pafs.PyFileSystem(_Told(system)), system


def _opened(source: TableSource) -> Storage:
    scheme, separator, rest = source.path.partition("://")
    system, other = _system(scheme if separator else "", _key(source))
    if not separator or scheme == "file":
        place = Path(rest if separator else source.path).expanduser().absolute()
        return Storage(system, place.as_posix(), None)
    if other is None:
        return Storage(system, rest, None)
    inside = other._strip_protocol(source.path)
    if scheme == "hf":
        return patiently(lambda: _pinned(system, other, inside), source.retry)
    return Storage(system, inside, None)


def dataset_of(source: TableSource) -> str:
    """The name that is recorded: a hub's, where `path` is on one; without what a URL may hide."""
    on_hub = _HUB.match(source.path)
    return source.dataset or (on_hub[1] if on_hub else public_url(source.path))


def at_commit(source: TableSource, path: str | None) -> TableSource:
    """The source at a commit, where it lies on a hub; its rows record the same as without.

    Args:
        source: the settings.
        path: one that this function gave before; None: at the commit of this moment.

    Raises:
        UserError: the hub cannot be asked.
    """
    if path is None:
        storage = open_storage(source)
        path = source.path if storage.revision is None else f"hf://{storage.path}"
    if path == source.path:
        return source
    return dataclasses.replace(source, path=path, dataset=dataset_of(source))


def _pinned(system: pafs.FileSystem, hub: Any, path: str) -> Storage:
    """The path at the hub's commit of this moment, whatever is pushed while the run goes on."""
    from huggingface_hub import HfApi

    place = hub.resolve_path(path)
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    info = api.repo_info(place.repo_id, repo_type=place.repo_type, revision=place.revision)
    pinned = f"{place.repo_type}s/{place.repo_id}@{info.sha}/{place.path_in_repo}"
    return Storage(system, pinned, info.sha)


def list_files(source: TableSource, storage: Storage) -> list[tuple[str, int]]:
    """The path, below the folder that the glob names, and size of each file, in order.

    Raises:
        UserError: the place cannot be listed, or holds no file that fits.
    """
    try:
        found = patiently(lambda: _listed(storage), source.retry)
    except Exception as error:
        raise UserError(f"source.path: cannot list {source.path}: {first_line(error)}") from error
    if not found:
        raise UserError(f"source.path: no file fits {source.path}")
    return sorted(found)


def base_of(storage: Storage) -> str:
    """The folder that listed paths are relative to."""
    wild = _WILD.search(storage.path)
    if wild:
        return storage.path[: wild.start()].rpartition("/")[0]
    return storage.path


def _listed(storage: Storage) -> list[tuple[str, int]]:
    system, path = storage.system, storage.path
    if not _WILD.search(path):
        info = system.get_file_info(path)
        if info.type == pafs.FileType.File:
            return [("", info.size or 0)]
        if info.type == pafs.FileType.NotFound:
            raise FileNotFoundError("there is no such file or folder")
        fits = None
    else:
        fits = re.compile(glob_translate(path))
    base = base_of(storage)
    infos = system.get_file_info(pafs.FileSelector(base, recursive=True))
    return [
        (info.path.removeprefix(base).lstrip("/"), info.size or 0)
        for info in infos
        if info.type == pafs.FileType.File and (fits is None or fits.match(info.path))
    ]


def patiently(action: Callable[[], T], retry: RetryConfig) -> T:
    """What the action gives; asked again, ever later, while the store says that it is busy."""
    for attempt in range(retry.attempts - 1):
        try:
            return action()
        except Exception as error:
            if not is_throttled(error):
                raise
            pause(error, attempt, retry)
    return action()


def pause(error: BaseException, attempt: int, retry: RetryConfig) -> None:
    """Waits before the attempt after this one, the first of which is 0."""
    log.warning("a store asks to slow down: %s", first_line(error))
    time.sleep(retry.seconds * 2**attempt * random.uniform(0.5, 1.5))


def is_throttled(error: BaseException | None) -> bool:
    """Whether a store answered 429 or 503, whatever its client makes of that."""
    while error is not None:
        response = getattr(error, "response", None)
        status = getattr(error, "status", getattr(response, "status_code", None))
        if status in (429, 503) or _THROTTLED.search(str(error)):
            return True
        error = error.__cause__
    return False
