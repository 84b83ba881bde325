"""conf/decontamination/default.yaml with overrides, and the index of the real HumanEval."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from selfalign_ray.config import conf_dir
from selfalign_ray.decontamination.benchmarks import Text, read_benchmarks
from selfalign_ray.decontamination.config import DecontaminationConfig
from selfalign_ray.decontamination.index import Index, build_index
from selfalign_ray.settings import check

ConfigOf = Callable[..., DecontaminationConfig]


def config(*overrides: str) -> DecontaminationConfig:
    settings = OmegaConf.load(Path(conf_dir()) / "decontamination" / "default.yaml")
    settings.pop("defaults")
    schema = OmegaConf.structured(DecontaminationConfig)
    merged = OmegaConf.merge(schema, settings, OmegaConf.from_dotlist(list(overrides)))
    made = OmegaConf.to_object(merged)
    assert isinstance(made, DecontaminationConfig)
    check(made)
    return made


@pytest.fixture(scope="session")
def config_of() -> ConfigOf:
    return config


@pytest.fixture(scope="session")
def humaneval() -> list[Text]:
    return read_benchmarks(config())[0]


@pytest.fixture(scope="session")
def index(humaneval: list[Text]) -> Index:
    return build_index(humaneval, config())
