"""Where weights lie: a folder, the hub, or an object store from which a node copies them once."""

from __future__ import annotations

import dataclasses
import logging
import re
import shutil
import tempfile
from collections.abc import Mapping
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
_ADAPTER = "adapter_config.json"


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


def at_commits(
    model: ModelConfig, engine: EngineConfig, known: Mapping[str, str | None]
) -> ModelConfig:
    """The model with what an engine loads from the hub at commits, whatever is pushed meanwhile.

    Args:
        model: the settings.
        engine: those of the engine that runs it.
        known: by key of the settings, the commit wanted; one that is not there is that of its
            revision now. Where neither the hub nor this machine's cache can tell, the settings are
            given back as they are.
    """
    commits = {
        key: known.get(key) or _commit_of(name, revision, file)
        for key, (name, revision, file) in _from_hub(model, engine).items()
    }
    if commits.get("id"):
        model = dataclasses.replace(model, revision=commits["id"])
    if model.lora and commits.get("lora"):
        name = model.lora.partition("@")[0]
        model = dataclasses.replace(model, lora=f"{name}@{commits['lora']}")
    return model


def revisions_of(model: ModelConfig, engine: EngineConfig) -> dict[str, str]:
    """By key of the settings, the revision of what comes from the hub; where one is set."""
    there = _from_hub(model, engine).items()
    return {key: revision for key, (_, revision, _) in there if revision}


def name_of(model: ModelConfig, engine: EngineConfig) -> str:
    """What rows call a model: its id or what servers call it; of the hub "@" and its revision.

    Of one with an adapter "+" and the adapter's.
    """
    if engine.kind == STANDIN:
        return STANDIN
    if engine.kind == "openai":
        return model.served_name or model.id
    revision = revisions_of(model, engine).get("id")
    name = f"{model.id}@{revision}" if revision else model.id
    return f"{name}+{model.lora}" if model.lora else name


def _from_hub(model: ModelConfig, engine: EngineConfig) -> dict[str, tuple[str, str | None, str]]:
    """By key of the settings, repository, revision and a file of it that an engine fetches."""
    if engine.kind not in ("vllm", "transformers"):
        return {}
    found = {}
    if model.id != EMBEDDED and _is_of_hub(model.id):
        found["id"] = (model.id, model.revision, "config.json")
    if model.lora and _is_of_hub(model.lora):
        name, _, revision = model.lora.partition("@")
        found["lora"] = (name, revision or None, _ADAPTER)
    return found


def _is_of_hub(place: str) -> bool:
    return not is_store(place) and not Path(place).expanduser().is_dir()


def _commit_of(repository: str, revision: str | None, file: str) -> str | None:
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(repository, file, revision=revision)
    except (OSError, ValueError):
        return None
    return Path(path).parent.name  # snapshots/COMMIT/FILE


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
            folder = _adapter_of_hub(model.lora)
    if not (folder / _ADAPTER).is_file():
        raise UserError(f"model.lora: {model.lora} holds no adapter (no {_ADAPTER})")
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


def _adapter_of_hub(lora: str) -> Path:
    from huggingface_hub import snapshot_download

    name, _, revision = lora.partition("@")
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise UserError(f"model.lora: there is no folder {lora}")
    try:
        return Path(snapshot_download(name, revision=revision or None))
    except (OSError, ValueError) as error:
        raise UserError(
            f"model.lora: {lora!r} is no folder here and not to be had from the hub "
            f"({first_line(error)})"
        ) from error
