"""Fixtures every test may use: the composed config and one small Ray."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from hydra import compose, initialize_config_dir

from selfalign_ray.config import RunConfig, conf_dir, register_schemas, typed
from selfalign_ray.job import configure_ray_data, worker_runtime
from tests.object_store import Server, object_store

RunConfigOf = Callable[..., RunConfig]


@pytest.fixture
def run_config(tmp_path: Path) -> RunConfigOf:
    """`run_config("engine=standin")`: conf/run.yaml with these overrides, run_dir in tmp_path."""
    register_schemas()

    def make(*overrides: str) -> RunConfig:
        places = [f"runs_root='{tmp_path}'", f"run_dir='{tmp_path}/run'"]
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            return typed(compose("run", overrides=[*places, *overrides]))

    return make


@pytest.fixture(scope="session")
def store_server() -> Iterator[Server]:
    """An S3-compatible server, shared by the whole session."""
    with object_store() as server:
        yield server


@pytest.fixture
def store(
    store_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """The server with an empty bucket, and this process knowing it."""
    for name, value in store_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield store_server
    store_server.empty()


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """Ray with four logical CPUs and no dashboard, shared by the whole session."""
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # else a failing test prints pages
    ray.init(
        address="local",  # whatever Ray the machine has besides
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env=worker_runtime(is_local=True),
    )
    configure_ray_data()
    yield
    ray.shutdown()
