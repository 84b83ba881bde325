"""engine/vllm.py: what vLLM is started with, on a GPU and on a CPU, and what comes back of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from selfalign_ray.engine.vllm import _engine_args, _generation, worker_environment


@pytest.fixture
def paper(run_config):
    return run_config("experiment=starcoder2_15b")


def test_a_gpu_s_core_has_a_process_and_its_own_batching(paper):
    environment = worker_environment(paper.engine, "cuda")
    args = _engine_args(paper.model, "some/model", paper.engine, "cuda")
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in environment
    assert args["gpu_memory_utilization"] == 0.9
    assert args["enforce_eager"] is False
    assert args["dtype"] == "bfloat16"
    assert "enable_chunked_prefill" not in args


def test_a_cpu_s_core_runs_in_the_actor_and_takes_every_prompt_whole(run_config):
    cfg = run_config("experiment=embedded")
    environment = worker_environment(cfg.engine, "cpu")
    args = _engine_args(cfg.model, "folder", cfg.engine, "cpu")
    assert environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert int(environment["OMP_NUM_THREADS"]) >= 1
    assert args["enforce_eager"] is True
    assert args["dtype"] == "float32"
    assert args["enable_chunked_prefill"] is False
    assert args["max_num_batched_tokens"] >= cfg.model.max_model_len


def test_several_cpu_engines_share_the_cores(run_config):
    one = worker_environment(run_config("engine.engines=1").engine, "cpu")
    two = worker_environment(run_config("engine.engines=2").engine, "cpu")
    assert "GOMP_CPU_AFFINITY" in one
    assert "GOMP_CPU_AFFINITY" not in two


@pytest.mark.parametrize(
    ("override", "argument", "value"),
    [
        ("model.tensor_parallel_size=4", "tensor_parallel_size", 4),
        ("model.pipeline_parallel_size=2", "pipeline_parallel_size", 2),
        ("model.quantization=fp8", "quantization", "fp8"),
        ("model.load_format=dummy", "load_format", "dummy"),
        ("model.max_model_len=512", "max_model_len", 512),
        ("model.revision=abc", "revision", "abc"),
        ("engine.max_num_seqs=7", "max_num_seqs", 7),
        ("engine.enforce_eager=true", "enforce_eager", True),
    ],
)
def test_a_setting_reaches_vllm(run_config, override, argument, value):
    cfg = run_config("experiment=starcoder2_15b", override)
    assert _engine_args(cfg.model, "m", cfg.engine, "cuda")[argument] == value


def test_vllm_knows_every_argument(paper):
    from vllm import EngineArgs

    for device in ("cpu", "cuda"):
        args = _engine_args(paper.model, "m", paper.engine, device)
        assert set(args) <= set(EngineArgs.__dataclass_fields__)


def test_samples_come_back_in_their_order_with_what_they_cost():
    def sample(index, text, reason):
        return SimpleNamespace(index=index, text=text, finish_reason=reason, token_ids=[1] * index)

    output = SimpleNamespace(
        outputs=[sample(1, "b", "length"), sample(0, "a", "stop")],
        prompt_token_ids=[1, 2, 3],
        num_cached_tokens=None,
    )
    made = _generation(output)
    assert [(t.text, t.finish_reason, t.output_tokens) for t in made.texts] == [
        ("a", "stop", 0),
        ("b", "length", 1),
    ]
    assert (made.prompt_tokens, made.cached_tokens) == (3, 0)
