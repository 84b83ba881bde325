"""Which engine a run uses, on which device, from which place."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from selfalign_ray.engine.base import LoadedEngine
from selfalign_ray.engine.config import EngineConfig, ModelConfig
from selfalign_ray.engine.embedded import EMBEDDED
from selfalign_ray.engine.standin import STANDIN, StandinEngine
from selfalign_ray.engine.weights import config_dir, is_store, lora_path, model_path
from selfalign_ray.errors import UserError, first_line
from selfalign_ray.hops.config import RecipeConfig
from selfalign_ray.hops.shots import Example


def open_engine(
    engine: EngineConfig,
    model: ModelConfig,
    *,
    device: str,
    recipe: RecipeConfig | None,
    examples: Sequence[Example],
) -> LoadedEngine:
    """A loaded engine; takes as long as the model takes to load.

    Raises:
        UserError: the model, the adapter or a server is not there, or does not fit the settings
            or the machine.
    """
    if engine.kind == STANDIN:
        assert recipe is not None, "the stand-in answers from the recipe's examples"
        return StandinEngine(recipe, examples, engine.standin_seconds)
    if engine.kind == "openai":
        from selfalign_ray.engine.openai import OpenAIEngine

        return OpenAIEngine(model, engine)
    if engine.kind == "transformers":
        from selfalign_ray.engine.transformers import TransformersEngine

        return TransformersEngine(model, model_path(model), engine, device)
    from selfalign_ray.engine.vllm import VllmEngine

    return VllmEngine(model, model_path(model), engine, device, lora_path(model))


def check_model(engine: EngineConfig, model: ModelConfig) -> None:
    """Finds out, before any work, whether there is such a model for this kind of engine.

    Raises:
        UserError: the folder is not there or holds no model, the hub does not have the id, no
            server answers for it, or a setting is none that this kind of engine can follow.
    """
    if engine.kind == STANDIN:
        return
    _check_kind(engine, model)
    if engine.kind == "openai":
        from selfalign_ray.engine.served import check_servers

        check_servers(engine, model)
    if engine.kind == "vllm":
        from selfalign_ray.engine.vllm import check_load_format, check_quantization

        check_load_format(model.load_format)
        if model.quantization is not None:
            check_quantization(model.quantization)
    lora_path(model)
    with tempfile.TemporaryDirectory(prefix="selfalign-") as folder:
        path = _check_weights(model, config_dir(model, Path(folder)))
        if model.chat or engine.kind == "openai":
            from selfalign_ray.engine.tokens import Tokens, load_tokenizer

            Tokens(load_tokenizer(path, model), chat=model.chat)


def _check_kind(engine: EngineConfig, model: ModelConfig) -> None:
    """Settings of the model that would make other rows than asked for if they were passed over."""
    if engine.kind == "openai" and model.lora is not None:
        raise UserError(
            "model.lora: a server has its own adapters: start it with `--enable-lora "
            "--lora-modules NAME=PATH`, and set model.served_name=NAME and model.lora=null"
        )
    if engine.kind != "transformers":
        return
    if model.lora is not None:
        raise UserError("model.lora: engine=transformers takes no adapter; use engine=vllm")
    if model.tensor_parallel_size * model.pipeline_parallel_size > 1:
        raise UserError(
            "model.tensor_parallel_size, model.pipeline_parallel_size: engine=transformers uses "
            "one GPU; set both to 1, raise engine.engines, or use engine=vllm"
        )
    from selfalign_ray.engine.transformers_load import check_settings

    check_settings(model)


def _check_weights(model: ModelConfig, path: str) -> str:
    is_folder = Path(path).is_dir()
    if not is_folder and (path.startswith(("/", ".", "~")) or path.count("/") > 1):
        raise UserError(f"model.id: there is no folder {path}")
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(
            path, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError) as error:
        there = is_folder or is_store(model.id)
        what = "holds no model" if there else "is no folder here and not to be had from the hub"
        raise UserError(
            f"model.id: {model.id!r} {what} ({first_line(error)}); give a folder with a "
            f"config.json, a hub id, or {EMBEDDED!r}"
        ) from error
    return path


def device_of(engine: EngineConfig, cluster_gpus: float, *, may_grow: bool = False) -> str:
    """Cpu or cuda.

    Raises:
        UserError: cuda is asked for, and the cluster has no GPU nor gets one by demand.
    """
    if engine.kind in (STANDIN, "openai"):
        return "cpu"  # whatever servers run on, none of it is reserved here
    if engine.device == "cuda" and cluster_gpus < 1 and not may_grow:
        raise UserError(
            "engine.device: cuda, but the Ray cluster has no GPU; set it to auto or cpu"
        )
    if engine.device == "auto":
        return "cuda" if cluster_gpus >= 1 else "cpu"
    return engine.device
