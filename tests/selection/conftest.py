"""The settings that selection reads, from conf/, without composing the whole run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from selfalign_ray.config import conf_dir
from selfalign_ray.hops.config import RecipeConfig
from selfalign_ray.selection.config import SelectionConfig


@cache
def loaded(kind: type, path: str, *overrides: str) -> Any:
    settings = OmegaConf.load(Path(conf_dir()) / path)
    settings.pop("defaults")
    changes = OmegaConf.from_dotlist(list(overrides))
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), settings, changes))


@pytest.fixture(scope="session")
def selection() -> Callable[..., SelectionConfig]:
    """`selection("choose.by=random")`: conf/selection/default.yaml with these overrides."""
    return lambda *overrides: loaded(SelectionConfig, "selection/default.yaml", *overrides)


@pytest.fixture(scope="session")
def recipe() -> Callable[[str], RecipeConfig]:
    """`recipe("short")`: conf/recipe/short.yaml."""
    return lambda name: loaded(RecipeConfig, f"recipe/{name}.yaml")
