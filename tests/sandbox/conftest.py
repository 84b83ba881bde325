"""The sandbox's settings as conf/ has them, and pools that tests of a file share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfalign_ray.sandbox.__main__ import settings
from selfalign_ray.sandbox.config import SandboxConfig
from selfalign_ray.sandbox.pool import Sandbox


@pytest.fixture(scope="session")
def configured() -> Callable[..., SandboxConfig]:
    """The default settings with one slot and changes."""
    return lambda **changes: settings({"slots": 1, **changes})


@pytest.fixture(scope="session")
def programs() -> Callable[[str], list[dict[str, Any]]]:
    """The programs of all YAML files beside this one that begin so."""
    return lambda kind: [
        program
        for path in sorted(Path(__file__).parent.glob(f"{kind}*.yaml"))
        for program in yaml.load(path.read_text(), yaml.CSafeLoader)
    ]


@pytest.fixture(scope="module")
def sandbox(configured: Callable[..., SandboxConfig]) -> Iterator[Sandbox]:
    with Sandbox(configured(slots=2)) as pool:
        yield pool
