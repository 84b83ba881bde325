"""Our settings as vLLM takes them: arguments of its engine, variables of its process."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

from selfalign_ray.engine.config import EngineConfig, ModelConfig
from selfalign_ray.engine.embedded import cache_dir
from selfalign_ray.errors import UserError
from selfalign_ray.ids import content_id


def worker_environment(engine: EngineConfig, device: str) -> dict[str, str]:
    """Variables that must stand before the actor's process starts.

    On a CPU the core runs in the actor's own process with its threads left to the scheduler:
    measured on two cores, 21 s of load instead of 48 s and a fifth more tokens a second. Torch's
    own libgomp is loaded first, as vLLM's CPU build asks for.
    """
    common = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    if engine.kind != "vllm":
        return common
    if device == "cuda":
        # FlashInfer's sampler is compiled at the first start, for which it wants nvcc and ninja;
        # and it serves no request that has a seed, as all of ours have.
        return common | {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
    cores = sorted(os.sched_getaffinity(0))
    threads = engine.cpu_threads or len(cores)
    # One engine has the machine, so its threads stay on their cores; several share them.
    affinity = {"GOMP_CPU_AFFINITY": " ".join(map(str, cores))} if engine.engines == 1 else {}
    # A helper of vLLM's that scores prompts is compiled all the same: it wants a C++ compiler and a
    # path without spaces, and its failure ends the engine.
    eager = {"TORCHDYNAMO_DISABLE": "1"} if engine.enforce_eager is not False else {}
    return (
        common
        | affinity
        | eager
        | {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_CPU_KVCACHE_SPACE": f"{max(1, round(engine.cpu_kv_cache_gb or 1))}",
            "OMP_NUM_THREADS": str(threads),
            **({"LD_PRELOAD": str(path)} if (path := _torch_gomp()) else {}),
        }
    )


def engine_args(
    model: ModelConfig, path: str, engine: EngineConfig, device: str, lora: str | None = None
) -> dict[str, Any]:
    args: dict[str, Any] = {
        "model": path,
        "revision": model.revision,
        "dtype": model.dtype,
        "quantization": model.quantization,
        "load_format": model.load_format,
        "max_model_len": model.max_model_len,
        "tensor_parallel_size": model.tensor_parallel_size,
        "pipeline_parallel_size": model.pipeline_parallel_size,
        "trust_remote_code": model.trust_remote_code,
        "max_num_seqs": engine.max_num_seqs,
        "enable_prefix_caching": engine.prefix_caching,
        "scheduling_policy": "priority",
        "disable_log_stats": False,  # the watchdog and the figures live on them
        "enforce_eager": device == "cpu" if engine.enforce_eager is None else engine.enforce_eager,
        **_lora_args(lora),
    }
    if device == "cuda":
        return args | {"gpu_memory_utilization": engine.gpu_memory_utilization}
    # The CPU engine stops on seeded requests whose prompt is prefilled in chunks ("CPU Generator
    # does not use offset"): no chunks, and so vLLM's batches take any prompt whole.
    return args | {
        "dtype": "float32" if model.dtype == "auto" else model.dtype,
        "block_size": 32,  # of the prefix cache; the default, 128 tokens, shares less of a prompt
        "enable_chunked_prefill": False,
    }


# The least ranks that vLLM makes room for.
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


def _lora_args(lora: str | None) -> dict[str, Any]:
    if lora is None:
        return {}
    rank = json.loads(Path(lora, "adapter_config.json").read_text())["r"]
    room = next((room for room in _LORA_RANKS if room >= rank), None)
    if room is None:
        raise UserError(f"model.lora: rank {rank} is more than vLLM's {_LORA_RANKS[-1]}")
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": room}


def _torch_gomp() -> Path | None:
    """A path without spaces to the libgomp that torch's wheel brings."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    library = Path(spec.origin).parent / "lib" / "libgomp.so.1"
    if not library.exists():
        return None
    if not set(" :") & set(str(library)):
        return library
    # LD_PRELOAD splits at spaces and colons.
    link = cache_dir() / f"libgomp-{content_id(str(library))[:8]}.so.1"
    if not link.exists():
        link.symlink_to(library)
    return link if not set(" :") & set(str(link)) else None
