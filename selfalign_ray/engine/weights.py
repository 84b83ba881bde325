"""Where weights lie: a folder, the hub, or an object store from which a node copies them once."""

from __future__ import annotations

import dataclasses
import logging
import re
import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from selfalign_ray.engine.config import EngineConfig, ModelConfig
from selfalign_ray.engine.embedded import EMBEDDED, cache_dir, embedded_model_dir
from selfalign_ray.engine.standin import STANDIN
from selfalign_ray.errors import UserError, first_line
from selfalign_ray.ids import content_id
from selfalign_ray.places import lock

log = logging.getLogger(__name__)

_STORE = re.compile(r"(s3|gs|gcs)://")


def model_path(model: ModelConfig) -> str:
    """What an engine loads from: a folder of this machine, a hub id, or a path to stream from.

    The embedded model is prepared, and an object store's copied, at the first call on a machine.
    Only `load_format: runai_streamer` reads an object store without a copy.

    Raises:
        UserError: the object store does not have it.
    """
    if model.id == EMBEDDED:
        return str(embedded_model_dir())
    if is_store(model.id):
        if model.load_format == "runai_streamer":
            return _STORE.sub(lambda found: f"{found[1].replace('gcs', 'gs')}://", model.id)
        return str(_copied(model.id, "model.id"))
    path = Path(model.id).expanduser()
    return str(path) if path.is_dir() else model.id


def at_commit(model: ModelConfig, engine: EngineConfig, commit: str | None) -> ModelConfig:
    """The model at a commit, where an engine loads it from the hub, whatever is pushed meanwhile.

    Args:
        model: the settings.
        engine: those of the engine that runs it.
        commit: the one wanted; None: what its revision is now. Where neither the hub nor this
            machine's cache can tell, the settings are given back as they are.
    """
    if not loads_from_hub(model, engine):
        return model
    commit = commit or _commit_of(model)
    return dataclasses.replace(model, revision=commit) if commit else model


def name_of(model: ModelConfig, engine: EngineConfig) -> str:
    """What rows call a model: its id or what servers call it; of the hub "@" and its revision."""
    if engine.kind == STANDIN:
        return STANDIN
    if engine.kind == "openai":
        return model.served_name or model.id
    if model.revision and loads_from_hub(model, engine):
        return f"{model.id}@{model.revision}"
    return model.id


def loads_from_hub(model: ModelConfig, engine: EngineConfig) -> bool:
    """Whether an engine of such settings fetches the weights from the hub."""
    if engine.kind not in ("vllm", "transformers") or model.id == EMBEDDED or is_store(model.id):
        return False
    return not Path(model.id).expanduser().is_dir()


def _commit_of(model: ModelConfig) -> str | None:
    from huggingface_hub import hf_hub_download

    try:
        config = hf_hub_download(model.id, "config.json", revision=model.revision)
    except (OSError, ValueError):
        return None
    return Path(config).parent.name  # snapshots/COMMIT/config.json


def lora_path(model: ModelConfig) -> str | None:
    """The adapter's folder on this machine, fetched if need be; None without one.

    Raises:
        UserError: there is no such adapter.
    """
    if model.lora is None:
        return None
    if is_store(model.lora):
        folder = _copied(model.lora, "model.lora")
    else:
        folder = Path(model.lora).expanduser()
        if not folder.is_dir():
            folder = _from_hub(model.lora)
    if not (folder / "adapter_config.json").is_file():
        raise UserError(f"model.lora: {model.lora} holds no adapter (no adapter_config.json)")
    return str(folder)


def config_dir(model: ModelConfig, into: Path) -> str:
    """As `model_path`, but of an object store only the small files, copied to the folder `into`.

    Raises:
        UserError: the object store does not have it.
    """
    if not is_store(model.id):
        return model_path(model)
    store, root, files = _listing(model.id, "model.id")
    for file in files:
        if file.extension in ("json", "model", "txt", "jinja"):
            _copy(store, root, [file], into)
    return str(into)


def is_store(place: str) -> bool:
    """Whether a model or an adapter lies in an object store."""
    return _STORE.match(place) is not None


def _copied(uri: str, key: str) -> Path:
    """A folder with the files under a URI, copied once a machine for as long as they are the same.

    Files that changed under their URI are copied to a new folder.
    """
    store, root, files = _listing(uri, key)
    state = [f"{file.path} {file.size} {file.mtime_ns}" for file in files]
    folder = cache_dir() / "models" / content_id(uri, *state)
    folder.parent.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as file:
        lock(file, "XDG_CACHE_HOME", wait=True)  # one actor copies, the others wait
        if folder.is_dir():
            return folder
        log.info("copying %s (%.1f GB)", uri, sum(file.size for file in files) / 1e9)
        part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            _copy(store, root, files, part)
            part.rename(folder)  # whole or not there
        except (OSError, pa.ArrowException) as error:
            reason = first_line(error)
            raise UserError(f"{key}: copying {uri} to {folder} failed: {reason}") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def _copy(store: fs.FileSystem, root: str, files: list[fs.FileInfo], into: Path) -> None:
    for file in files:
        target = into / Path(file.path).relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        fs.copy_files(
            file.path,
            str(target),
            source_filesystem=store,
            destination_filesystem=fs.LocalFileSystem(),
            chunk_size=16 << 20,
        )


def _listing(uri: str, key: str) -> tuple[fs.FileSystem, str, list[fs.FileInfo]]:
    """The files under a URI, in order.

    Raises:
        UserError: there are none, or the store does not let us see them.
    """
    try:
        store, root = fs.FileSystem.from_uri(uri.rstrip("/"))
        found = store.get_file_info(fs.FileSelector(root, recursive=True))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(
            f"{key}: cannot read {uri}: {first_line(error)}; the store's keys and "
            "AWS_ENDPOINT_URL or the like must be set where Ray's workers start"
        ) from error
    files = sorted((file for file in found if file.is_file), key=lambda file: file.path)
    if not files:
        raise UserError(f"{key}: there is nothing under {uri}")
    return store, root, files


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise UserError(f"model.lora: there is no folder {name}")
    try:
        return Path(snapshot_download(name))
    except (OSError, ValueError) as error:
        raise UserError(
            f"model.lora: {name!r} is no folder here and not to be had from the hub "
            f"({first_line(error)})"
        ) from error
