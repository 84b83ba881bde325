"""vLLM in the actor: its synchronous engine, stepped by a thread of ours.

One path serves both kinds of machine: with a core process of its own (a GPU) the step waits for
that process; in-process (two CPU cores) the step computes. Requests join between two steps, so
the batch is refilled as rows move on from hop to hop, and no barrier drains it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import queue
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

from selfalign_ray.engine.base import (
    EngineDiedError,
    Generation,
    Prompt,
    PromptRefusedError,
    PromptTooLongError,
    Text,
)
from selfalign_ray.engine.config import EngineConfig, ModelConfig
from selfalign_ray.engine.embedded import cache_dir
from selfalign_ray.ids import content_id

log = logging.getLogger(__name__)


def worker_environment(engine: EngineConfig, device: str) -> dict[str, str]:
    """Variables that must stand before the actor's process starts.

    On a CPU the core runs in the actor's own process with its threads left to the scheduler:
    measured on two cores, 21 s of load instead of 48 s and a fifth more tokens a second. Torch's
    own libgomp is loaded first, as vLLM's CPU build asks for.
    """
    common = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    if device == "cuda":
        return common
    cores = sorted(os.sched_getaffinity(0))
    threads = engine.cpu_threads or len(cores)
    # One engine has the machine, so its threads stay on their cores; several share them.
    affinity = {"GOMP_CPU_AFFINITY": " ".join(map(str, cores))} if engine.engines == 1 else {}
    return (
        common
        | affinity
        | {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_CPU_KVCACHE_SPACE": f"{max(1, round(engine.cpu_kv_cache_gb))}",
            "OMP_NUM_THREADS": str(threads),
            **({"LD_PRELOAD": str(path)} if (path := _torch_gomp()) else {}),
        }
    )


class _Request(NamedTuple):
    """One prompt on its way to the stepping thread."""

    prompt: Prompt
    token_ids: list[int]
    future: Future[Generation]


class VllmEngine:
    """One vLLM engine."""

    def __init__(self, model: ModelConfig, path: str, engine: EngineConfig, device: str) -> None:
        """Loads the model from `path`, a local folder or a hub id."""
        from vllm import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        self.model = model.id
        # v1's LLMEngine steps in one thread; everything else reaches it through `_inbox`.
        self._engine = LLMEngine.from_engine_args(
            EngineArgs(**_engine_args(model, path, engine, device))
        )
        self.max_model_len: int = self._engine.model_config.max_model_len
        self._tokenizer = self._engine.get_tokenizer()
        self._inbox: queue.SimpleQueue[_Request | None]
        self._inbox = queue.SimpleQueue()
        self._pending: dict[str, Future[Generation]] = {}
        self._dead: str | None = None
        self._thread = threading.Thread(target=self._run, name="vllm-step", daemon=True)
        self._thread.start()

    async def generate(self, prompt: Prompt) -> Generation:
        if self._dead:
            raise EngineDiedError(self._dead)
        token_ids = list(self._tokenizer.encode(prompt.text))
        room = self.max_model_len - prompt.sampling.max_tokens
        if len(token_ids) > room:
            raise PromptTooLongError(f"{len(token_ids)} tokens, and room for {room}")
        request = _Request(prompt, token_ids, Future())
        self._inbox.put(request)
        return await asyncio.wrap_future(request.future)

    def close(self) -> None:
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop()
            self._dead = "the engine was closed"
        except Exception as error:
            log.exception("the engine died")
            self._dead = f"{type(error).__name__}: {error}"
        for future in self._pending.values():
            future.set_exception(EngineDiedError(self._dead))
        while not self._inbox.empty():
            if request := self._inbox.get():
                request.future.set_exception(EngineDiedError(self._dead))

    def _loop(self) -> None:
        number = 0
        while True:
            while not self._pending or not self._inbox.empty():
                request = self._inbox.get()
                if request is None:
                    return
                number += 1
                self._admit(str(number), request)
            for output in self._engine.step():
                if output.finished:
                    self._pending.pop(output.request_id).set_result(_generation(output))

    def _admit(self, request_id: str, request: _Request) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        prompt, sampling = request.prompt, request.prompt.sampling
        try:
            params = SamplingParams(
                n=sampling.n,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                stop=list(sampling.stop),
                seed=prompt.seed,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            tokens: Any = {"prompt_token_ids": request.token_ids}
            self._engine.add_request(request_id, tokens, params, priority=prompt.priority)
        except (ValueError, TypeError) as error:
            request.future.set_exception(PromptRefusedError(str(error)))
        else:
            self._pending[request_id] = request.future


def _engine_args(
    model: ModelConfig, path: str, engine: EngineConfig, device: str
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
        "enable_prefix_caching": True,
        "scheduling_policy": "priority",
        "disable_log_stats": True,
        "enforce_eager": device == "cpu" if engine.enforce_eager is None else engine.enforce_eager,
    }
    if device == "cuda":
        return args | {"gpu_memory_utilization": engine.gpu_memory_utilization}
    # The CPU engine stops on seeded requests whose prompt is prefilled in chunks ("CPU Generator
    # does not use offset"): no chunks, and so a batch that takes any prompt whole.
    batch = model.max_model_len or 8192
    return args | {
        "dtype": "float32" if model.dtype == "auto" else model.dtype,
        "block_size": 32,  # of the prefix cache; the default, 128 tokens, shares less of a prompt
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(batch, 4096),
    }


def _generation(output: Any) -> Generation:
    samples = sorted(output.outputs, key=lambda sample: sample.index)
    return Generation(
        texts=[
            Text(
                text=sample.text,
                finish_reason=sample.finish_reason or "error",
                output_tokens=len(sample.token_ids),
            )
            for sample in samples
        ],
        prompt_tokens=len(output.prompt_token_ids or ()),
        cached_tokens=output.num_cached_tokens or 0,
    )


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
