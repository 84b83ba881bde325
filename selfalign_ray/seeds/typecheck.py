"""typecheck: seeds that a static type checker finds fault with, read and not run.

The checker is pyrefly, with its own stubs of Python's library. What a seed imports from anywhere
else is of no known type, installed here or not, so that the verdict depends on the seed alone.
"""

from __future__ import annotations

import functools as ft
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from ray.data import Dataset

from selfalign_ray import schemas
from selfalign_ray.blocks import by_block, with_columns
from selfalign_ray.config import RunConfig
from selfalign_ray.seeds.config import TypecheckConfig
from selfalign_ray.watch.tally import count

log = logging.getLogger(__name__)

# A module that is not there, or lacks what is imported, is no fault of the seed's types.
_NO_TYPE_ERRORS = ("missing-import", "missing-module-attribute", "missing-source", "untyped-import")


def typecheck(ds: Dataset, cfg: RunConfig) -> Dataset:
    """Marks the seeds with a type error.

    A seed on which the checker crashes or takes too long is kept and counted as `unchecked`.

    Args:
        ds: `schemas.SEED` rows.
        cfg: the run's settings.

    Returns:
        The same rows; rows dropped before pass through. Drop reason: type_error, with the first
        message in `type_error`.
    """
    section = cfg.seeds.typecheck
    if not section.enabled:
        return ds
    return by_block(ds, ft.partial(judged, cfg=section), concurrency=cfg.seeds.concurrency)


def judged(seeds: pa.Table, cfg: TypecheckConfig) -> pa.Table:
    """A block of seeds with `type_error` and the reasons filled in."""
    reasons = seeds["drop_reason"].to_pylist()
    codes = seeds["seed"].to_pylist()
    errors: list[str | None] = [None] * len(reasons)
    waiting = [place for place, reason in enumerate(reasons) if reason is None]
    for start in range(0, len(waiting), cfg.seeds_at_once):
        places = waiting[start : start + cfg.seeds_at_once]
        found = first_errors([codes[place] for place in places], cfg.timeout_seconds)
        for place, error in zip(places, found, strict=True):
            errors[place] = error
            reasons[place] = None if error is None else "type_error"
    return with_columns(seeds, schemas.SEED, type_error=errors, drop_reason=reasons)


def first_errors(codes: Sequence[str], timeout_seconds: float) -> list[str | None]:
    """The first error of each piece of code, or None.

    Where the checker fails on several, each half is tried apart, down to the one at fault.
    """
    if not codes:
        return []
    try:
        return _checked(codes, timeout_seconds)
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        if len(codes) == 1:
            log.warning("typecheck: a seed could not be checked: %s", error)
            count("typecheck", unchecked=1)
            return [None]
    middle = len(codes) // 2
    halves = (codes[:middle], codes[middle:])
    return [found for half in halves for found in first_errors(half, timeout_seconds)]


def _checked(codes: Sequence[str], timeout_seconds: float) -> list[str | None]:
    """One run of the checker.

    Raises:
        SubprocessError, OSError: it cannot be started, or takes too long.
        ValueError: it did not end as it should.
    """
    with tempfile.TemporaryDirectory(prefix="selfalign-types-") as folder:
        # No seed can import a file of such a name, another seed's.
        paths = [Path(folder) / f"seed-{number}.py" for number in range(len(codes))]
        for path, code in zip(paths, codes, strict=True):
            path.write_text(code, encoding="utf-8", errors="backslashreplace")
        (Path(folder) / "pyrefly.toml").write_text(_settings(), encoding="utf-8")
        command = [sys.executable, "-m", "pyrefly", "check", "--output-format", "json"]
        done = subprocess.run(  # noqa: S603
            [*command, "--config", str(Path(folder) / "pyrefly.toml")],
            cwd=folder,
            capture_output=True,
            timeout=timeout_seconds,
            check=False,
        )
    if done.returncode not in (0, 1):  # 1: it found errors
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise ValueError(f"pyrefly ended with {done.returncode}: {' '.join(last)}")
    return _firsts(json.loads(done.stdout)["errors"], len(codes))


def _firsts(errors: Sequence[dict[str, object]], number: int) -> list[str | None]:
    found: list[tuple[int, str] | None] = [None] * number
    for error in errors:
        if error["severity"] != "error" or error["name"] in _NO_TYPE_ERRORS:
            continue
        place = int(Path(str(error["path"])).stem.removeprefix("seed-"))
        line = int(str(error["line"]))
        said = f"{error['name']}, line {line}: {error['concise_description']}"
        known = found[place]
        if known is None or (line, said) < known:
            found[place] = line, said
    return [None if one is None else one[1] for one in found]


def _settings() -> str:
    """The checker's settings file, so that none of the machine's is found."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    lines = {
        "project-includes": ["seed-*.py"],
        "python-version": version,
        "python-platform": sys.platform,
        "skip-interpreter-query": True,
        "ignore-missing-imports": ["*"],
    }
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items())
