"""engine/config.py: what a kind of engine needs, refuses and passes over."""

from __future__ import annotations

import pytest

from selfalign_ray.engine.config import ignored
from selfalign_ray.errors import UserError
from selfalign_ray.job import ignored_in_pools
from selfalign_ray.settings import deciding


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["engine.base_urls=[http://a/v1]"], r"engine\.base_urls: .* asks no server"),
        (["engine=openai", "engine.base_urls=[]"], r"engine\.base_urls: must name at least one"),
        (["engine=openai", "engine.base_urls=[a/v1]"], r"engine\.base_urls: must begin with http"),
        (
            ["engine=openai", "engine.base_urls=['http://a/v1','http://a/v1']"],
            r"engine\.base_urls: must name each server once",
        ),
        (
            ["engine=openai", "engine.base_urls=['http://me:secret@a/v1']"],
            r"engine\.base_urls: must hold no password",
        ),
        (["engine=openai", "engine.requests_per_url=null"], r"engine\.requests_per_url: must be"),
        (
            ["engine=transformers", "engine.max_num_seqs=null"],
            r"engine\.max_num_seqs: must be given",
        ),
        (["engine.hang_seconds=0"], r"engine\.hang_seconds: must be greater"),
    ],
)
def test_a_setting_that_cannot_be_is_named(run_config, overrides, said):
    with pytest.raises(UserError, match=said):
        run_config(*overrides)


def test_a_password_in_an_address_is_not_repeated(run_config):
    with pytest.raises(UserError) as caught:
        run_config("engine=openai", "engine.base_urls=['http://me:secret@a/v1']")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["engine=openai", "engine.gpu_memory_utilization=0.5"], "engine.gpu_memory_utilization"),
        (["engine=openai", "model.quantization=fp8"], "model.quantization"),
        (["engine=openai", "model.tensor_parallel_size=2"], "model.tensor_parallel_size"),
        (["engine=vllm", "engine.api_key_env=KEY"], "engine.api_key_env"),
        (["engine=vllm", "model.served_name=x"], "model.served_name"),
        (["engine=transformers", "engine.enforce_eager=true"], "engine.enforce_eager"),
    ],
)
def test_a_setting_that_is_passed_over_is_told(run_config, overrides, key):
    cfg = run_config(*overrides)
    assert key in ignored(cfg.engine, cfg.model)
    line = f"{key} changes nothing: engine.kind is {cfg.engine.kind}"
    assert line in ignored_in_pools(cfg)


def test_what_a_pool_passes_over_is_told_with_the_pool_and_once_where_all_do(run_config):
    given = ["generation=per_hop", "engine=vllm"]
    one = run_config(*given, "generation.pools.responses.engine.api_key_env=KEY")
    pool = "generation.pools.responses."
    assert ignored_in_pools(one) == [
        f"{pool}engine.api_key_env changes nothing: {pool}engine.kind is vllm"
    ]
    other = run_config(
        *given, "generation.pools.responses.engine.kind=transformers", "engine.max_num_seqs=4"
    )
    assert ignored_in_pools(other) == [], "nobody gave the pool what it has from engine"
    every = run_config(*given, "engine.api_key_env=KEY")
    assert ignored_in_pools(every) == ["engine.api_key_env changes nothing: engine.kind is vllm"]


@pytest.mark.parametrize("kind", ["vllm", "openai", "transformers", "standin"])
def test_each_kind_as_it_comes_passes_over_nothing_of_its_own(run_config, kind):
    cfg = run_config(f"engine={kind}", "experiment=starcoder2_15b")
    told = [line for line in ignored(cfg.engine, cfg.model) if line.startswith("engine.")]
    assert told == []


def test_where_and_how_fast_decide_no_rows(run_config):
    plain = run_config("engine=openai")
    other = run_config(
        "engine=openai",
        "engine.base_urls=['http://b/v1','http://c/v1']",
        "engine.api_key_env=KEY",
        "engine.request_attempts=9",
        "engine.hang_seconds=5",
    )
    assert deciding(plain.engine) == deciding(other.engine)


@pytest.mark.parametrize("override", ["model.chat=true", "model.lora=x", "model.served_name=y"])
def test_what_changes_the_texts_decides_rows(run_config, override):
    assert deciding(run_config().model) != deciding(run_config(override).model)


def test_the_kind_decides_rows(run_config):
    assert deciding(run_config().engine) != deciding(run_config("engine=openai").engine)
