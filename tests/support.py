"""What several test modules share: the command as a person runs it, and code for it to read."""

from __future__ import annotations

import contextlib
import io
import logging.config
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from selfalign_ray.__main__ import main
from selfalign_ray.watch import logs

SELFALIGN = [sys.executable, "-m", "selfalign_ray"]
GOOD = '''"""A module."""


def scaled_{n}(radius: float, factor: float) -> float:
    """Return the radius of a circle, scaled by a factor.

    The factor may be negative.
    """
    scaled = radius * factor + {n}
    return scaled**2
'''


@contextlib.contextmanager
def cpu_seconds_at_most(seconds: float) -> Iterator[None]:
    """Fails what takes longer: far more than a linear one needs, far less than a quadratic one."""

    def over(*_: object) -> None:
        pytest.fail(f"took over {seconds} CPU seconds")  # which no code under test catches

    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def selfalign(*overrides: str, cwd: Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Runs `selfalign` in a folder; runs/ is made there."""
    return subprocess.run(
        [*SELFALIGN, *overrides],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def selfalign_here(*overrides: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The same in this process, with the Ray that it has: imports and a Ray cost ten seconds."""
    out, err = io.StringIO(), io.StringIO()
    root, code = logging.getLogger(), 0
    handlers, level = root.handlers[:], root.level
    # By it Hydra closes every handler that there is, and some close the stream that is pytest's.
    keeping = mock.patch.object(logging.config, "_clearExistingHandlers")
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.dict(os.environ),
        mock.patch.object(sys, "argv", ["selfalign", *overrides]),
        keeping,
    ):
        try:
            main()
        except SystemExit as left:
            code = left.code
        finally:
            for log in logs._current[:]:
                log.close()
            root.handlers[:] = handlers
            root.setLevel(level)
    return subprocess.CompletedProcess(overrides, code, out.getvalue(), err.getvalue())


def code_in(folder: Path, files: int) -> list[str]:
    """Writes files of one good function each, and gives the settings of a run that reads them."""
    folder.mkdir()
    for n in range(files):
        (folder / f"good_{n}.py").write_text(GOOD.format(n=n))
    return [
        *("source=folder", f"source.path={folder}", "source.license=MIT"),
        "seeds.near_duplicates.jaccard=1",  # they differ in a number alone
        *("seeds.typecheck.enabled=false", "validation.execution.actors=1"),  # each takes seconds
    ]
