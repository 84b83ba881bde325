"""A model in transformers: loaded, quantised, its length and its ends."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from selfalign_ray.engine.batch_memory import is_out_of_memory
from selfalign_ray.engine.config import ModelConfig
from selfalign_ray.errors import UserError, first_line

QUANTIZATIONS = ("bitsandbytes_8bit", "bitsandbytes_4bit")
_LOAD_FORMATS = ("auto", "safetensors")


def check_settings(model: ModelConfig) -> None:
    """Settings that transformers cannot follow.

    Raises:
        UserError: naming the key.
    """
    if model.quantization not in (None, *QUANTIZATIONS):
        raise UserError(
            f"model.quantization: engine=transformers takes {', '.join(QUANTIZATIONS)} or null (as "
            f"the checkpoint says); got {model.quantization!r}"
        )
    if model.load_format not in _LOAD_FORMATS:
        raise UserError(
            f"model.load_format: engine=transformers takes {', '.join(_LOAD_FORMATS)}; got "
            f"{model.load_format!r}"
        )


def load_model(model: ModelConfig, path: str, device: str) -> Any:
    """The model from `path`, a local folder or a hub id, on a device.

    Raises:
        UserError: it is not there, does not fit the memory, or cannot be quantised so here.
    """
    quantization = _quantization(model, device)
    # A CPU computes bfloat16 slowly or not at all.
    auto = "float32" if device == "cpu" else "auto"
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            path,
            revision=model.revision,
            trust_remote_code=model.trust_remote_code,
            dtype=auto if model.dtype == "auto" else model.dtype,
            device_map={"": device},
            use_safetensors=True if model.load_format == "safetensors" else None,
            quantization_config=quantization,
        )
    except (OSError, ValueError, ImportError) as error:
        raise UserError(
            f"model.id: transformers cannot load {path} ({first_line(error)})"
        ) from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            "model.id: the model does not fit the memory; set model.quantization="
            f"{QUANTIZATIONS[0]}, take a smaller model, or engine=vllm with "
            f"model.tensor_parallel_size ({first_line(error)})"
        ) from error
    return loaded.eval()


def _quantization(model: ModelConfig, device: str) -> BitsAndBytesConfig | None:
    check_settings(model)
    if model.quantization is None:
        return None
    if device == "cpu":
        raise UserError(
            f"model.quantization: {model.quantization} needs a GPU, and the device is a CPU; set "
            "it to null"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"model.quantization: {model.quantization} needs the package bitsandbytes; install it "
            "where Ray's workers run"
        )
    if model.quantization == "bitsandbytes_8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )


def length_of(config: Any, model: ModelConfig) -> int:
    """Tokens of prompt and text together."""
    own = getattr(config, "max_position_embeddings", None)
    lengths = [length for length in (own, model.max_model_len) if length]
    if not lengths:
        raise UserError("model.max_model_len: must be given; the model does not say its own")
    return int(min(lengths))


def end_ids(generation_config: Any, tokenizer: Any) -> list[int]:
    """The tokens that end a text."""
    ends = generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or ())
    if tokenizer.eos_token_id is not None:
        ends.append(tokenizer.eos_token_id)
    if not ends:
        raise UserError("model.id: neither model nor tokenizer names a token that ends a text")
    return list(dict.fromkeys(ends))
