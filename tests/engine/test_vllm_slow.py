"""engine/vllm.py with real vLLM: adapters, chats, and settings that do not fit the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from selfalign_ray.engine.embedded import embedded_model_dir
from selfalign_ray.engine.vllm import worker_environment
from tests.support import selfalign

# An engine is opened in a process of its own, as an actor is: with its environment from the start.
CODE = """
import asyncio, json, sys
from hydra import compose, initialize_config_dir
from selfalign_ray.config import conf_dir, register_schemas, typed
from selfalign_ray.engine.base import Prompt, Sampling
from selfalign_ray.engine.open import open_engine
from selfalign_ray.errors import UserError

if __name__ == "__main__":
    register_schemas()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = typed(compose("run", overrides=["run_dir=/nowhere", *sys.argv[1:]]))
    try:
        engine = open_engine(cfg.engine, cfg.model, device="cpu", recipe=cfg.recipe, examples=[])
    except UserError as error:
        print(json.dumps({"user_error": str(error)}))
        sys.exit()
    sampling = Sampling(temperature=0.8, top_p=0.95, n=2, max_tokens=12, stop=())
    ids = engine.encode("Name a colour of the rainbow. It is", " red")
    prompts = [
        Prompt(row={}, hop="h", token_ids=ids, sampling=sampling, seed=seed, priority=0)
        for seed in (1, 2, 1)
    ]

    async def run():
        return await asyncio.gather(*(engine.generate(prompt) for prompt in prompts))

    made = asyncio.run(run())
    print(json.dumps({
        "texts": [[text.text for text in one.texts] for one in made],
        "prompt": engine._tokens.tokenizer.decode(ids),
        "stats": engine.stats(),
    }))
    engine.close()
"""


def opened(run_config, *overrides, own_process=False):
    environment = worker_environment(run_config(*overrides).engine, "cpu")
    environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = str(int(own_process))
    done = subprocess.run(
        [sys.executable, "-c", CODE, *overrides],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def adapter(folder: Path) -> Path:
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


@pytest.mark.slow
def test_an_adapter_changes_every_prompt_s_samples_and_seeds_hold(run_config, tmp_path):
    plain = opened(run_config)
    tuned = opened(run_config, f"model.lora={adapter(tmp_path / 'lora')}")
    for made in (plain, tuned):
        assert made["texts"][0] == made["texts"][2], "the same seeds"
        assert made["texts"][0] != made["texts"][1]
    assert all(a != b for a, b in zip(plain["texts"], tuned["texts"], strict=True))
    assert plain["stats"]["prefix_cache_queries"] > 0
    assert plain["stats"]["running"] == 0


@pytest.mark.slow
def test_a_chat_s_forced_start_stands_in_the_model_s_turn(run_config):
    made = opened(run_config, "model.chat=true")
    assert made["prompt"].endswith("It is<|im_end|>\n<|im_start|>assistant\n red")


@pytest.mark.slow
def test_a_cache_too_small_for_the_length_is_told_from_vllm_s_own_process(run_config, tiny_model):
    made = opened(
        run_config,
        f"model.id={tiny_model}",
        "model.load_format=dummy",
        f"model.max_model_len={1 << 20}",
        "engine.cpu_kv_cache_gb=1",
        own_process=True,
    )
    assert made["user_error"].startswith("model.max_model_len: a prompt of that length")


@pytest.mark.ray
@pytest.mark.slow
def test_an_engine_that_cannot_start_ends_the_run_with_the_keys_to_change(tiny_model, tmp_path):
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text(json.dumps({"seed": "def one():\n    return 1\n"}) + "\n")
    done = selfalign(
        "start.stage=concepts",
        f"start.rows={seeds}",
        "stages.until=concepts",
        f"model.id={tiny_model}",
        "model.load_format=dummy",
        f"model.max_model_len={1 << 20}",
        "engine.cpu_kv_cache_gb=1",
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stderr
    assert "model.max_model_len: a prompt of that length does not fit" in done.stderr
    assert "Traceback" not in done.stderr
