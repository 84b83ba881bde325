"""engine/vllm.py: what vLLM is started with, on a GPU and on a CPU, and what comes back of it."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from selfalign_ray.engine.embedded import embedded_model_dir
from selfalign_ray.engine.vllm import (
    _generation,
    _kill_core,
    check_load_format,
    check_quantization,
)
from selfalign_ray.engine.vllm_mistakes import mistake
from selfalign_ray.engine.vllm_settings import engine_args, worker_environment
from selfalign_ray.errors import UserError
from tests.conftest import config_in
from tests.support import selfalign_here


def adapter(folder, rank=16):
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    return str(folder)


@pytest.fixture
def paper(run_config):
    return run_config("experiment=starcoder2_15b")


def test_a_gpu_s_core_has_a_process_and_its_own_batching(paper):
    environment = worker_environment(paper.engine, "cuda")
    args = engine_args(paper.model, "some/model", paper.engine, "cuda")
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in environment
    assert environment["VLLM_USE_FLASHINFER_SAMPLER"] == "0", "no nvcc is needed"
    assert args["max_num_seqs"] is None, "as many as vLLM finds fit the GPU"
    assert args["gpu_memory_utilization"] == 0.9
    assert args["enforce_eager"] is False
    assert args["dtype"] == "bfloat16"
    assert "enable_chunked_prefill" not in args


def test_a_cpu_s_core_runs_in_the_actor_and_takes_every_prompt_whole(run_config):
    cfg = run_config("experiment=embedded")
    environment = worker_environment(cfg.engine, "cpu")
    args = engine_args(cfg.model, "folder", cfg.engine, "cpu")
    assert environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert environment["TORCHDYNAMO_DISABLE"] == "1", "no compiler is needed"
    assert int(environment["OMP_NUM_THREADS"]) >= 1
    assert args["enforce_eager"] is True
    assert args["dtype"] == "float32"
    assert args["enable_chunked_prefill"] is False
    assert "max_num_batched_tokens" not in args


def test_several_cpu_engines_share_the_cores(run_config):
    one = worker_environment(run_config("engine.engines=1").engine, "cpu")
    two = worker_environment(run_config("engine.engines=2").engine, "cpu")
    assert "GOMP_CPU_AFFINITY" in one
    assert "GOMP_CPU_AFFINITY" not in two


def test_servers_and_transformers_need_none_of_vllm_s_environment(run_config):
    for kind in ("openai", "transformers"):
        assert "LD_PRELOAD" not in worker_environment(run_config(f"engine={kind}").engine, "cpu")


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
        ("engine.prefix_caching=false", "enable_prefix_caching", False),
    ],
)
def test_a_setting_reaches_vllm(run_config, override, argument, value):
    cfg = run_config("experiment=starcoder2_15b", override)
    assert engine_args(cfg.model, "m", cfg.engine, "cuda")[argument] == value


def test_vllm_knows_every_argument(paper, tmp_path):
    from vllm import EngineArgs

    for device in ("cpu", "cuda"):
        args = engine_args(paper.model, "m", paper.engine, device, adapter(tmp_path))
        assert set(args) <= set(EngineArgs.__dataclass_fields__)


@pytest.mark.parametrize(("rank", "room"), [(4, 8), (16, 16), (17, 32)])
def test_an_adapter_gets_the_room_that_its_rank_needs(paper, tmp_path, rank, room):
    args = engine_args(paper.model, "m", paper.engine, "cuda", adapter(tmp_path, rank))
    assert args["enable_lora"] is True
    assert args["max_lora_rank"] == room


def test_an_adapter_of_too_great_a_rank_is_a_user_s_error(paper, tmp_path):
    with pytest.raises(UserError, match=r"model\.lora: rank 1000"):
        engine_args(paper.model, "m", paper.engine, "cuda", adapter(tmp_path, 1000))


def test_a_method_of_quantisation_that_this_vllm_lacks_is_named():
    check_quantization("fp8")
    with pytest.raises(
        UserError, match=r"model\.quantization: this vLLM has no 'fp9'; it has .*fp8"
    ):
        check_quantization("fp9")


def test_a_format_whose_reader_is_not_installed_is_named():
    check_load_format("auto")
    with pytest.raises(UserError, match=r"model\.load_format: runai_streamer needs `pip install"):
        check_load_format("runai_streamer")


@pytest.mark.parametrize(
    ("said", "key"),
    [
        (
            "To serve at least one request with the model's max seq len (131072), (16.00 GiB KV "
            "cache is needed, which is larger than the available KV cache memory (3.2 GiB).",
            "model.max_model_len",
        ),
        ("ValueError: No available memory for the cache blocks. Try", "model.tensor_parallel_size"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to", "model.tensor_parallel_size"),
        (
            "Free memory on device cuda:0 (9.1/79.1 GiB) on startup is less than desired GPU",
            "engine.gpu_memory_utilization",
        ),
        (
            "User-specified max_model_len (99999) is greater than the derived max_model_len",
            "model.max_model_len",
        ),
        (
            "Total number of attention heads (9) must be divisible by tensor parallel size (2).",
            "model.tensor_parallel_size",
        ),
        ("LoRA rank 64 is greater than max_lora_rank 16.", "model.lora"),
        ("Model architectures ['New'] are not supported for now.", "model.id"),
        ("The quantization method awq is not supported for the current", "model.quantization"),
    ],
)
def test_what_vllm_says_names_the_keys_to_change(said, key):
    told = mistake(f"RuntimeError: Engine core initialization failed.\nTraceback\n  {said}\n  end")
    assert told is not None
    assert key in told
    assert said.split(" (")[0].removeprefix("ValueError: ") in told
    assert "Traceback" not in told


def test_an_error_that_no_setting_is_to_blame_for_stays_one():
    assert mistake("RuntimeError: CUDA error: an illegal memory access was encountered") is None


def test_the_processes_of_an_engine_that_died_are_ended():
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    process.start()
    _kill_core()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL


def test_samples_come_back_in_their_order_with_what_they_cost():
    def sample(index, text, reason):
        return SimpleNamespace(index=index, text=text, finish_reason=reason, token_ids=[1] * index)

    output = SimpleNamespace(
        outputs=[sample(1, "b", "length"), sample(0, "a", "stop")],
        prompt_token_ids=[1, 2, 3],
    )
    made = _generation(output, cached=2)
    assert [(t.text, t.finish_reason, t.output_tokens) for t in made.texts] == [
        ("a", "stop", 0),
        ("b", "length", 1),
    ]
    assert (made.prompt_tokens, made.cached_tokens) == (3, 2)


# An engine is opened in a process of its own, as an actor is: with its environment from the start.
# All of them are forks of one process that has imported vLLM, which takes ten seconds.
CODE = """
import asyncio, json, multiprocessing, os, sys, time
from hydra import compose, initialize_config_dir
from vllm.v1.engine.llm_engine import LLMEngine
from selfalign_ray.config import conf_dir, register_schemas, typed
from selfalign_ray.engine.base import Prompt, Sampling
from selfalign_ray.engine.open import open_engine
from selfalign_ray.errors import UserError


def opened(overrides):
    register_schemas()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = typed(compose("run", overrides=["run_dir=/nowhere", *overrides]))
    return open_engine(cfg.engine, cfg.model, device="cpu", recipe=cfg.recipe, examples=[])


def killed_core(overrides, signal):
    engine = opened(overrides)
    (core,) = multiprocessing.active_children()
    sampling = Sampling(temperature=0.8, top_p=1.0, n=2, max_tokens=400, stop=())
    prompt = Prompt(row={}, hop="h", text="a", prefix="", sampling=sampling, seed=1, priority=0)

    async def run():
        asked = [asyncio.create_task(engine.generate(prompt)) for _ in range(2)]
        while not engine.stats().get("generated_tokens"):
            await asyncio.sleep(0.05)
        began = time.monotonic()
        os.kill(core.pid, signal)
        done = await asyncio.gather(*asked, return_exceptions=True)
        return done, time.monotonic() - began

    done, seconds = asyncio.run(run())
    return {"made": [type(one).__name__ for one in done], "seconds": seconds}


def made_by_engine(overrides):
    try:
        engine = opened(overrides)
    except UserError as error:
        return {"user_error": str(error)}
    sampling = Sampling(temperature=0.8, top_p=0.95, n=2, max_tokens=12, stop=())
    text = "Name a colour of the rainbow. It is red"
    prompts = [
        Prompt(row={}, hop="h", text=text, prefix=" red", sampling=sampling, seed=seed, priority=0)
        for seed in (1, 2, 1)
    ]
    ids = engine._tokens.encode(text, " red")
    last = dict(row={}, hop="h", text=text, prefix=" red", seed=1, priority=0, scored=" and round")
    prompts.append(Prompt(**last, sampling=Sampling(
        temperature=0.0, top_p=1.0, n=1, max_tokens=1, stop=()
    )))

    async def run():
        asked = (engine.generate(prompt) for prompt in prompts)
        return await asyncio.gather(*asked, return_exceptions=True)

    made = asyncio.run(run())
    long = Prompt(
        row={}, hop="h", text="A long list: " + "one, two, " * 40, prefix="", sampling=sampling,
        seed=1, priority=0,
    )
    cached = [asyncio.run(engine.generate(long)).cached_tokens for _ in range(2)]
    stats = engine.stats()
    engine.close()
    return {
        "texts": [[text.text for text in one.texts] for one in made[:3]],
        "scored": str(made[3]) if isinstance(made[3], Exception) else [
            [t.text, t.output_tokens, t.logprob] for t in made[3].texts
        ],
        "ids": [len(ids), *engine._tokens.encode(text + " and round", " red and round")],
        "prompt": engine._tokens.tokenizer.decode(ids),
        "cached": cached,
        "stats": stats,
    }


if __name__ == "__main__":
    for environment, overrides, *signals in json.loads(sys.argv[1]):
        child = os.fork()
        if child == 0:
            os.environ.update(environment)
            made = killed_core(overrides, *signals) if signals else made_by_engine(overrides)
            print("MADE", json.dumps(made), flush=True)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit(f"died: {overrides}")
"""
OWN_CORE = ["model.load_format=dummy", "model.max_model_len=512", "engine.cpu_kv_cache_gb=1"]
SIGNALS = {"ended": [signal.SIGTERM], "killed": [signal.SIGKILL]}
TOO_LONG = ["model.load_format=dummy", f"model.max_model_len={1 << 20}", "engine.cpu_kv_cache_gb=1"]


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory):
    """What engines made of some prompts: one with no room for its cache, two that are killed."""
    lora = real_adapter(tmp_path_factory.mktemp("adapter") / "lora")
    wanted = {
        "plain": ["model.chat=true"],
        "tuned": ["model.chat=true", f"model.lora={lora}"],
        "too_long": [f"model.id={tiny_model}", *TOO_LONG],
        "ended": [f"model.id={tiny_model}", *OWN_CORE],
        "killed": [f"model.id={tiny_model}", *OWN_CORE],
    }
    environments = {
        name: worker_environment(config_in(tiny_model, *overrides).engine, "cpu")
        for name, overrides in wanted.items()
    }
    for name in ("too_long", *SIGNALS):
        environments[name]["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
    engines = [
        (environments[name], overrides, *SIGNALS.get(name, ()))
        for name, overrides in wanted.items()
    ]
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(engines)],
        env={**os.environ, **environments["plain"]},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("MADE ")]
    return {
        name: json.loads(line.removeprefix("MADE "))
        for name, line in zip(wanted, lines, strict=True)
    }


def real_adapter(folder: Path) -> Path:
    """An adapter of rank 8 that changes what the embedded model's attention asks for."""
    folder.mkdir()
    config = json.loads((embedded_model_dir() / "config.json").read_text())
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for layer in range(layers):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{name}.lora_A.weight"] = torch.randn(8, hidden, generator=generator)
        weights[f"{name}.lora_B.weight"] = torch.randn(hidden, 8, generator=generator)
    save_file(weights, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def log_likelihood(token_ids, first):
    """Of the embedded model, of the tokens from `first` on."""
    model = AutoModelForCausalLM.from_pretrained(embedded_model_dir(), dtype=torch.float32)
    with torch.inference_mode():
        logits = model(torch.tensor([token_ids])).logits[0].log_softmax(-1)
    places = range(first, len(token_ids))
    return float(sum(logits[place - 1, token_ids[place]] for place in places))


@pytest.mark.slow
def test_adapters_chats_and_seeds_reach_every_sample(made):
    plain, tuned = made["plain"], made["tuned"]
    for one in (plain, tuned):
        assert one["texts"][0] == one["texts"][2], "the same seeds"
        assert one["texts"][0] != one["texts"][1]
    assert all(a != b for a, b in zip(plain["texts"], tuned["texts"], strict=True))
    count, *ids = plain["ids"]
    likely = log_likelihood(ids, count)
    assert plain["scored"] == [[" and round", len(ids) - count, pytest.approx(likely, rel=1e-3)]]
    assert "no text with an adapter" in tuned["scored"], "and the engine lives"
    assert plain["stats"]["prefix_cache_queries"] > 0
    assert plain["stats"]["running"] == 0
    assert plain["prompt"].endswith("It is<|im_end|>\n<|im_start|>assistant\n red"), (
        "the forced start stands in the model's own turn"
    )


@pytest.mark.slow
def test_what_the_first_of_several_samples_found_in_the_cache_counts(made):
    cold, warm = made["plain"]["cached"]
    assert cold == 0
    assert warm > 0


@pytest.mark.slow
@pytest.mark.parametrize("how", SIGNALS)
def test_a_core_that_is_ended_from_outside_is_a_dead_engine_at_once(made, how):
    assert made[how]["made"] == ["EngineDiedError"] * 2
    assert made[how]["seconds"] < 60, "it waited for engine.hang_seconds"


@pytest.mark.slow
def test_a_cache_too_small_for_the_length_is_told_from_vllm_s_own_process(made):
    said = made["too_long"]["user_error"]
    assert said.startswith("model.max_model_len: a prompt of that length")


@pytest.mark.ray
@pytest.mark.slow
def test_an_engine_that_cannot_start_ends_the_run_with_the_keys_to_change(
    ray_local, tiny_model, tmp_path
):
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text(json.dumps({"seed": "def one():\n    return 1\n"}) + "\n")
    done = selfalign_here(
        "start.stage=concepts",
        f"start.rows={seeds}",
        "stages.until=concepts",
        f"model.id={tiny_model}",
        *TOO_LONG,
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stderr
    assert "model.max_model_len: a prompt of that length does not fit" in done.stderr
    assert "Traceback" not in done.stderr
