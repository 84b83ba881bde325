"""The benchmarks' texts, read from a package, the hub or a folder."""

from __future__ import annotations

import contextlib
import fnmatch
import gzip
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from selfalign_ray.decontamination.config import BenchmarkConfig, DecontaminationConfig
from selfalign_ray.errors import UserError, first_line

log = logging.getLogger(__name__)

Row = dict[str, Any]
CHECKED, OFF, MISSING = "checked", "off", "missing"


class Text(NamedTuple):
    """One text of a benchmark."""

    benchmark: str
    item: str
    part: str  # prompt, solution or test
    text: str


@dataclass(frozen=True, kw_only=True)
class State:
    """What is known of a benchmark."""

    benchmark: str
    state: str  # checked, off or missing
    place: str
    revision: str | None  # that was read
    items: int
    texts: int
    detail: str  # why it is missing


class _UnreadableError(Exception):
    """A benchmark that cannot be read, with the reason."""


def read_benchmarks(cfg: DecontaminationConfig) -> tuple[list[Text], list[State]]:
    """The texts of every benchmark that is on, and the state of all.

    Raises:
        UserError: one that is on cannot be read, or has no text, and is not allowed to be missing.
    """
    texts: list[Text] = []
    states = []
    for name, benchmark in cfg.benchmarks.items():
        place = _place(benchmark)
        state, revision, detail = OFF, benchmark.revision, ""
        found: list[Text] = []
        if benchmark.enabled:
            try:
                folder, revision = _folder(benchmark)
                found = list(_texts(name, benchmark, folder))
                state = CHECKED
            except _UnreadableError as error:
                state, detail = MISSING, str(error)
                _must_be_allowed(name, benchmark, detail)
        texts += found
        states.append(
            State(
                benchmark=name,
                state=state,
                place=place,
                revision=revision,
                items=len({text.item for text in found}),
                texts=len(found),
                detail=detail,
            )
        )
    return texts, states


def states_of_benchmarks(cfg: DecontaminationConfig) -> dict[str, str | None]:
    """A digest of the files of each benchmark that is on; None for one that cannot be had."""
    return {
        f"benchmark {name}": _digest(benchmark)
        for name, benchmark in cfg.benchmarks.items()
        if benchmark.enabled
    }


def _digest(benchmark: BenchmarkConfig) -> str | None:
    whole = hashlib.sha256()
    try:
        folder, _ = _folder(benchmark)
        for path in _files(benchmark, folder):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            whole.update(repr((path.relative_to(folder).as_posix(), content)).encode())
    except (_UnreadableError, OSError):
        return None
    return whole.hexdigest()[:32]


def _must_be_allowed(name: str, benchmark: BenchmarkConfig, detail: str) -> None:
    key = f"decontamination.benchmarks.{name}"
    if not benchmark.allow_missing:
        raise UserError(
            f"{key}: {detail}\nGive a copy as {key}.path=DIR {key}.hub=null {key}.package=null, or "
            f"go on without it: {key}.allow_missing=true (the report then says so)"
        )
    log.warning("%s is not checked: %s", name, detail)


def _place(benchmark: BenchmarkConfig) -> str:
    return benchmark.package or benchmark.hub or benchmark.path or ""


def _folder(benchmark: BenchmarkConfig) -> tuple[Path, str | None]:
    """The folder that holds the files, and the revision that it is of."""
    if benchmark.package is not None:
        spec = importlib.util.find_spec(benchmark.package)  # the package itself is not imported
        if spec is None or not spec.submodule_search_locations:
            raise _UnreadableError(f"no Python package {benchmark.package} is installed")
        return Path(spec.submodule_search_locations[0]), _version(benchmark.package)
    if benchmark.hub is not None:
        return _downloaded(benchmark.hub, benchmark)
    assert benchmark.path is not None
    return Path(benchmark.path), benchmark.revision


def _version(package: str) -> str | None:
    """Of the distribution that is named as the package, give or take a hyphen."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _downloaded(hub: str, benchmark: BenchmarkConfig) -> tuple[Path, str | None]:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise _UnreadableError(f"{hub} needs the package huggingface_hub") from error
    try:
        folder = snapshot_download(
            hub, repo_type="dataset", revision=benchmark.revision, allow_patterns=benchmark.files
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError, OSError) as error:
        raise _UnreadableError(f"{hub} cannot be had from the hub: {first_line(error)}") from error
    return Path(folder), Path(folder).name


def _texts(name: str, benchmark: BenchmarkConfig, folder: Path) -> Iterator[Text]:
    parts = {
        "prompt": benchmark.prompts,
        "solution": benchmark.solutions,
        "test": benchmark.tests,
    }
    rows = ((path, row) for path in _files(benchmark, folder) for row in _rows(path))
    for number, (path, row) in enumerate(rows):
        item = _item(row, benchmark.item, number)
        for part, columns in parts.items():
            for column in columns:
                for text in cell_texts(row, column, path):
                    yield Text(name, item, part, text)
                    if part == "test" and benchmark.entry_point is not None:
                        for called in cell_texts(row, benchmark.entry_point, path):
                            yield Text(name, item, part, text.replace("candidate", called))


def _files(benchmark: BenchmarkConfig, folder: Path) -> list[Path]:
    paths = sorted({path for pattern in benchmark.files for path in folder.glob(pattern)})
    if not paths:
        raise _UnreadableError(f"no file in {folder} fits {', '.join(benchmark.files)}")
    return paths


def _item(row: Row, column: str, number: int) -> str:
    """The item's id; its number where it has none that is a text or a number."""
    value = row.get(column)
    return str(value) if isinstance(value, str | int) else str(number)


def _rows(path: Path) -> Iterator[Row]:
    try:
        if path.suffix == ".parquet":
            for batch in pq.ParquetFile(path).iter_batches():
                yield from batch.to_pylist()
        elif path.suffix == ".json":
            yield from json.loads(path.read_text(encoding="utf-8"))
        else:
            opened = gzip.open if path.suffix == ".gz" else Path.open
            with opened(path, "rb") as lines:
                yield from (json.loads(line) for line in lines if line.strip())
    except (OSError, ValueError, EOFError) as error:  # Arrow's errors are ValueErrors as well
        raise _UnreadableError(f"{path} cannot be read: {error}") from error


def cell_texts(row: Mapping[str, Any], column: str, path: Path) -> list[str]:
    """The texts of a column, or of several that `+` joins."""
    names = column.split("+")
    for name in names:
        if name not in row:
            raise _UnreadableError(f"{path} has no column {name}; it has {', '.join(row)}")
    if len(names) > 1:
        return ["".join(str(row[name] or "") for name in names)]
    value = row[column]
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError):  # a text that begins with a bracket
            value = json.loads(value)
    if isinstance(value, str):
        return [value]
    return [text for text in value or () if isinstance(text, str)]


def is_allowed(text: Text, patterns: Iterable[str]) -> bool:
    """Whether a solution may stand in a row, by the settings' list."""
    name = f"{text.benchmark}/{text.item}"
    return text.part == "solution" and any(fnmatch.fnmatch(name, p) for p in patterns)
