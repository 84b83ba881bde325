"""What several test modules share: the command as a person runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SELFALIGN = [sys.executable, "-m", "selfalign_ray"]


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
