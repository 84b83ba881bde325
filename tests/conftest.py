"""Fixtures every test may use: the composed config and one small Ray."""

from __future__ import annotations

import functools
import logging
import pickle
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser

from selfalign_ray.config import RunConfig, conf_dir, register_schemas, typed
from selfalign_ray.job import LOCAL_SYSTEM, configure_ray_data, worker_runtime
from selfalign_ray.watch.logs import setup_worker
from tests.object_store import Server, object_store

RunConfigOf = Callable[..., RunConfig]

# A shell that starts pytest in the background has it ignore Ctrl-C, and so would all that it
# starts, the commands among them whose end by Ctrl-C is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def run_config(tmp_path: Path) -> RunConfigOf:
    """`run_config("engine=standin")`: conf/run.yaml with these overrides, run_dir in tmp_path."""
    return functools.partial(config_in, tmp_path)


def config_in(folder: Path, *overrides: str) -> RunConfig:
    """conf/run.yaml with these overrides, run_dir in a folder."""
    options = [override for override in overrides if not is_value(override)]
    values = [override for override in overrides if is_value(override)]
    places = [f"runs_root='{folder}'", f"run_dir='{folder}/run'"]
    config = pickle.loads(composed(*options))
    parsed = OverridesParser.create().parse_overrides([*places, *values])
    ConfigLoaderImpl._apply_overrides_to_config(parsed, config)  # as Hydra's compose does last
    return typed(config)


@functools.cache
def composed(*options: str) -> bytes:
    """conf/run.yaml with these options of groups: a second of work, and the same for many tests."""
    register_schemas()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return pickle.dumps(compose("run", overrides=list(options)))


def is_value(override: str) -> bool:
    """Whether it sets a key, rather than choose a group's option."""
    key = override.partition("=")[0]
    return bool(re.fullmatch(r"(?!hydra\.)[\w.]+", key)) and not (Path(conf_dir()) / key).is_dir()


@pytest.fixture
def pushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`pushed("o/n", commit)`: what a hub's revision is now, as its cache on this machine says."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))

    def push(name: str, commit: str, *, revision: str = "main", file: str = "config.json") -> None:
        folder = cache / f"models--{name.replace('/', '--')}"
        snapshot = folder / "snapshots" / commit
        snapshot.mkdir(parents=True, exist_ok=True)
        (snapshot / file).write_text("{}")
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / revision).write_text(commit)

    return push


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
        # Workers find the tests' own functions where pytest runs, which a job's do not.
        runtime_env=worker_runtime(is_local=True) | {"worker_process_setup_hook": setup_worker},
        _system_config=LOCAL_SYSTEM,
    )
    configure_ray_data()
    yield
    ray.shutdown()
