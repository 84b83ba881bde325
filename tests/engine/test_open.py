"""engine/open.py: which model, which device; what is wrong is told before anything loads."""

from __future__ import annotations

import json

import pytest

from selfalign_ray.engine.open import check_model, device_of, model_path
from selfalign_ray.errors import UserError


def test_a_missing_folder_is_named(run_config, tmp_path):
    cfg = run_config(f"model.id='{tmp_path}/none'")
    with pytest.raises(UserError, match=r"model\.id: there is no folder .*none"):
        check_model(cfg.engine, cfg.model)


def test_a_folder_without_a_model_is_named(run_config, tmp_path):
    cfg = run_config(f"model.id='{tmp_path}'")
    with pytest.raises(UserError, match=r"model\.id: .* holds no model"):
        check_model(cfg.engine, cfg.model)


def test_a_folder_with_a_model_is_taken_as_it_is(run_config, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    cfg = run_config(f"model.id='{tmp_path}'")
    check_model(cfg.engine, cfg.model)
    assert model_path(cfg.model) == str(tmp_path)


def test_the_stand_in_asks_for_no_model(run_config):
    cfg = run_config("engine=standin", "model.id=/no/such")
    check_model(cfg.engine, cfg.model)


@pytest.mark.parametrize(
    ("device", "gpus", "expected"),
    [("auto", 0, "cpu"), ("auto", 2, "cuda"), ("cpu", 2, "cpu"), ("cuda", 1, "cuda")],
)
def test_the_device_is_what_the_cluster_has(run_config, device, gpus, expected):
    assert device_of(run_config(f"engine.device={device}").engine, gpus) == expected


def test_a_gpu_that_is_not_there_is_a_user_s_error(run_config):
    with pytest.raises(UserError, match=r"engine\.device: cuda, but the Ray cluster has no GPU"):
        device_of(run_config("engine.device=cuda").engine, 0)
