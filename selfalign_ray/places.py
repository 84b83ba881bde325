"""Folders and files, here or in an object store: the same few verbs for both.

A path is a `pathlib.Path` or, of `s3://` and `gs://`, a `upath.UPath`. A store has neither folders
nor renames nor links, and needs none: an object is there whole or not at all. Credentials and
endpoint are the environment's on every node (AWS_*, GOOGLE_*), and in no path, record or log.

A run in a store has a folder here for what its driver alone writes, and that folder's name says
where in the store the run is: `~/.cache/selfalign_ray/stores/s3/bucket/runs/first`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, TypeVar

from upath import UPath

from selfalign_ray.errors import UserError

if TYPE_CHECKING:  # a second of work, and the settings are read before any row is
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as pads
    import pyarrow.parquet as pq

Place: TypeAlias = Path | UPath
T = TypeVar("T")
S = TypeVar("S")

_EXTRAS = {"s3": "s3", "gs": "gs"}  # scheme -> extra of the package
_ATTEMPTS = 8  # of each request, ever later: half a minute, a store's short weakness
_CLIENTS = {"botocore", "aiobotocore", "s3fs", "gcsfs", "aiohttp", "google", "requests"}
# What clients make of a store's answers, an overload or a wrong header.
_ANSWERS = {errno.EBUSY, errno.EIO, errno.EINVAL, errno.EREMOTEIO, errno.ENOSYS, errno.EREMCHG}
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_AT_ONCE = 16  # requests where many small ones are to be made


def is_url(text: str | os.PathLike[str]) -> bool:
    """Whether a text names a place in an object store, and not a folder here."""
    return "://" in os.fspath(text)


def place_of(text: str | os.PathLike[str] | UPath) -> Place:
    """The folder or file that a text names.

    Raises:
        UserError: it lies in no store that we know, or what speaks to that store is not installed.
    """
    name = str(text)
    if not is_url(name):
        return Path(name).absolute()
    scheme, _, rest = name.rstrip("/").partition("://")
    parts = rest.split("/")
    if scheme not in _EXTRAS or not all(parts) or {".", ".."} & set(parts):
        raise UserError(f"{name}: is no place for rows; give a folder, s3://BUCKET/... or gs://...")
    options: dict[str, Any] = {"use_listings_cache": False}
    if scheme == "s3":
        retries = {"mode": "standard", "total_max_attempts": _ATTEMPTS}
        options["config_kwargs"] = {"retries": retries, "connect_timeout": 10}
    try:
        found: UPath = UPath(f"{scheme}://{rest}", **options)
        found.fs  # noqa: B018  what speaks to the store is imported here
    except ImportError as error:
        extra = _EXTRAS[scheme]
        how = f"pip install 'selfalign-ray[{extra}]'"
        raise UserError(f"{name}: what speaks to it is missing ({error}): {how}") from error
    return found


def hasty(path: UPath) -> UPath:
    """The same place, for requests that fail within seconds rather than wait for the store."""
    if path.protocol != "s3":
        return path
    config = {"retries": {"mode": "standard", "total_max_attempts": 2}, "connect_timeout": 5}
    found = UPath(str(path), use_listings_cache=False, config_kwargs=config | {"read_timeout": 10})
    found.fs.retries = 2
    return found


def cache_root() -> Path:
    """Where prepared files of this machine live: XDG_CACHE_HOME or ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root).absolute() / "selfalign_ray"


def local_dir(root: str) -> str:
    """The folder here for what drivers write of the runs in a root, which may be in a store."""
    if not is_url(root):
        return root
    scheme, _, rest = root.partition("://")
    return str(cache_root() / "stores" / scheme / rest.strip("/"))


def stored(run_dir: Path) -> Place:
    """Where a run's rows lie: in its run_dir, or in the store that the run_dir stands for."""
    stores = cache_root() / "stores"
    if not run_dir.is_relative_to(stores):
        return run_dir
    scheme, *rest = run_dir.relative_to(stores).parts
    return place_of(f"{scheme}://{'/'.join(rest)}")


def shown(path: Path) -> str:
    """A path as people know it: in the store, for what lies in a folder that stands for one."""
    return str(stored(path))


def at(path: Place) -> tuple[str, Any]:
    """A path and its file system, for pyarrow and Ray; None: what they take by themselves."""
    return (str(path), None) if isinstance(path, Path) else (path.path, path.fs)


def dataset_at(folder: Place) -> pads.Dataset:
    """The rows in a folder's Parquet files."""
    import pyarrow.dataset as pads

    where, system = at(folder)
    return pads.dataset(where, format="parquet", filesystem=system)


def batches_at(
    folder: Place,
    columns: Sequence[str],
    chosen: pc.Expression | None = None,
    rows: int = 131_072,
) -> Iterator[pa.RecordBatch]:
    """The rows in a folder's Parquet files, in memory that does not grow with their number.

    Args:
        folder: of the files.
        columns: those that the files lack are left out.
        chosen: of the rows; None: all.
        rows: that a batch has at most.
    """
    files = dataset_at(folder)
    there = files.schema.names
    yield from files.to_batches(
        columns=[name for name in columns if name in there],
        filter=chosen,
        batch_size=rows,
        batch_readahead=2,
        fragment_readahead=1,
        cache_metadata=False,  # 130 KB a shard
    )


def parquet(path: Place) -> pq.ParquetFile:
    """A Parquet file, opened."""
    import pyarrow.parquet as pq

    where, system = at(path)
    return pq.ParquetFile(where, filesystem=system)


def shards_of(folder: Place) -> list[Any]:
    """The Parquet files in a folder, by name; none where there is no folder."""
    if isinstance(folder, Path):
        try:
            found = list(folder.iterdir())  # glob takes one that may not be listed for an empty one
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(path for path in found if path.name.endswith(".parquet"))
    return sorted(path for path in _listed(folder, "file") if path.name.endswith(".parquet"))


def folders_in(folder: Place) -> list[Any]:
    """The folders in a folder, by name; none where there is no folder."""
    if isinstance(folder, Path):
        found = folder.iterdir() if folder.is_dir() else ()
        return sorted(path for path in found if path.is_dir())
    return sorted(_listed(folder, "directory"))


def exists(path: Place) -> bool:
    """Whether there is a file or folder; a store that cannot say raises what it says instead."""
    if isinstance(path, Path):
        return path.exists()
    try:
        path.fs.info(path.path)
    except FileNotFoundError:
        return False
    return True


def fault_of(errors: Iterable[BaseException], where: Place) -> str | None:
    """What a store has against a request, and the way out, for people; None: it was not that.

    Args:
        errors: that were raised, and what they were raised from.
        where: what was to be done something with.
    """
    if isinstance(where, Path):
        return None
    found = list(errors)
    told = next(filter(None, (_fault(error, where) for error in found)), None)
    # The answer to a question by HEAD has no reason in it, and pyarrow takes any reason that a
    # folder cannot be listed for for its not being there: asked again.
    is_dull = any(isinstance(e, OSError) and e.filename is None for e in found)
    return (_fault_now(where) if is_dull else None) or told


def _fault_now(where: UPath) -> str | None:
    try:
        hasty(where).fs.ls(where.path)
    except Exception as error:  # noqa: BLE001  the answer to what it is
        return _fault(error, where)
    return None


def _fault(error: BaseException, where: UPath) -> str | None:
    """The same of one error: clients have few kinds in common, and Ray hands on no causes."""
    said = " ".join(str(error).split()) or type(error).__name__
    module = type(error).__module__.partition(".")[0]
    if isinstance(error, FileNotFoundError):
        if not ("bucket" in said and "exist" in said) and "/upload/" not in said:
            return None
        return f"{where}: there is no such bucket; make it, or set runs_root to another place"
    of_here = isinstance(error, OSError) and error.filename is not None  # a folder's, or a file's
    refused = isinstance(error, PermissionError) and not of_here
    kind = type(error).__name__ if module in _CLIENTS else ""
    if refused or "Credential" in kind or "Token" in kind:
        return (
            f"{where}: access is refused ({said}); give the nodes credentials that may read, write "
            "and delete there (AWS_*, GOOGLE_*), and the same command goes on"
        )
    if module in _CLIENTS or (isinstance(error, ConnectionError | TimeoutError) and not of_here):
        return (
            f"{where}: the store cannot be reached ({said}); look at the network and "
            "AWS_ENDPOINT_URL, and the same command goes on"
        )
    if isinstance(error, OSError) and error.errno in _ANSWERS and not of_here:
        return f"{where}: the store does not do it ({said}); the same command goes on once it does"
    return None


def make(folder: Place) -> None:
    """Makes a folder, where folders are made."""
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)


def remove(path: Place) -> None:
    """Deletes a file or a whole folder, where there is one."""
    if not isinstance(path, Path):
        with contextlib.suppress(FileNotFoundError):
            path.fs.rm(path.path, recursive=True)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path, writer: str = "") -> Iterator[IO[bytes]]:
    """A file to write, which is at `path` once it is whole and on the disk.

    Where the writing fails, `path` is what it was and nothing is left of it.

    Args:
        path: of a file or of none.
        writer: tells those apart who may write the same file at once.
    """
    part = path.with_name(f".{path.name}{writer and f'.{writer}'}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def copy(path: Place, target: Place) -> None:
    """Copies a file: by a hard link or within the store, where that can be."""
    if isinstance(path, Path) and isinstance(target, Path):
        _link(path, target)
    elif isinstance(path, UPath) and isinstance(target, UPath) and path.fs == target.fs:
        path.fs.cp_file(path.path, target.path)
    else:
        if isinstance(target, Path):
            target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())


def lock(file: IO[Any], setting: str, *, wait: bool) -> None:
    """Holds an open file for this process, until it is closed.

    Args:
        file: that others hold too.
        setting: where it lies, for messages.
        wait: until nobody else holds it.

    Raises:
        BlockingIOError: another process holds it.
        UserError: its file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise UserError(
            f"{setting}: {file.name} lies on a file system without locks ({error.strerror}); have "
            "it mounted with them (Lustre: flock; NFS: a lock manager), or set another place"
        ) from error


def at_once(action: Callable[[S], T], paths: Iterable[S]) -> list[T]:
    """What an action gives for each, many at a time: for small requests to a store."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(action, paths))


def _listed(folder: UPath, kind: str) -> list[UPath]:
    try:
        found = folder.fs.ls(folder.path, detail=True)
    except FileNotFoundError:
        return []
    names = (one["name"].rstrip("/").rpartition("/")[2] for one in found if one["type"] == kind)
    return [folder / name for name in names if name]


def _link(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        shutil.copyfile(path, target)
