"""Which engine a run uses, on which device, from which place."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from selfalign_ray.engine.base import Engine
from selfalign_ray.engine.config import EngineConfig, ModelConfig
from selfalign_ray.engine.embedded import EMBEDDED, embedded_model_dir
from selfalign_ray.engine.standin import STANDIN, StandinEngine
from selfalign_ray.errors import UserError
from selfalign_ray.hops.config import RecipeConfig
from selfalign_ray.hops.shots import Example

log = logging.getLogger(__name__)


def open_engine(
    engine: EngineConfig,
    model: ModelConfig,
    *,
    device: str,
    recipe: RecipeConfig | None,
    examples: Sequence[Example],
) -> Engine:
    """A loaded engine; takes as long as the model takes to load."""
    if engine.kind == STANDIN:
        assert recipe is not None, "the stand-in answers from the recipe's examples"
        return StandinEngine(recipe, examples, engine.standin_seconds)
    from selfalign_ray.engine.vllm import VllmEngine

    return VllmEngine(model, model_path(model), engine, device)


def model_path(model: ModelConfig) -> str:
    """What the engine loads from: the prepared embedded model, a local folder or a hub id."""
    if model.id == EMBEDDED:
        return str(embedded_model_dir())
    path = Path(model.id).expanduser()
    return str(path) if path.is_dir() else model.id


def check_model(engine: EngineConfig, model: ModelConfig) -> None:
    """Finds out, before any work, whether there is such a model.

    Raises:
        UserError: the folder is not there or holds no model, or the hub does not have the id.
    """
    if engine.kind == STANDIN:
        return
    path = model_path(model)
    is_folder = Path(path).is_dir()
    if not is_folder and (path.startswith(("/", ".", "~")) or path.count("/") > 1):
        raise UserError(f"model.id: there is no folder {path}")
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(
            path, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        what = "holds no model" if is_folder else "is no folder here and not to be had from the hub"
        raise UserError(
            f"model.id: {model.id!r} {what} ({reason}); give a folder with a config.json, a hub "
            f"id, or {EMBEDDED!r}"
        ) from error


def device_of(engine: EngineConfig, cluster_gpus: float) -> str:
    """Cpu or cuda.

    Raises:
        UserError: cuda is asked for and the cluster has no GPU.
    """
    if engine.kind == STANDIN:
        return "cpu"
    if engine.device == "cuda" and cluster_gpus < 1:
        raise UserError(
            "engine.device: cuda, but the Ray cluster has no GPU; set it to auto or cpu"
        )
    if engine.device == "auto":
        return "cuda" if cluster_gpus >= 1 else "cpu"
    return engine.device
